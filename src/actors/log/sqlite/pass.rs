//! One transaction of the writer's: what it puts into the file, and the rows of the channels that change with it. What leaves the
//! file is in `trim`.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::database::{Database, Figures};
use super::recent::Waiting;
use crate::actors::log::{Trim, WINDOW};
use crate::actors::spare::Spare;
use crate::channel::Channel;
use crate::cursor::Seq;
use crate::identity::Publisher;
use crate::record::{Draft, Record};
use crate::retention::Retention;

/// Channels whose rows are held in memory. So few in tests that they are let go of all the time.
const CACHED_CHANNELS: usize = if cfg!(test) { 3 } else { 65_536 };
/// Payloads up to this many bytes stand in the placement itself.
const SMALL: usize = 1024;
/// How many published ids are remembered.
pub(super) const KNOWN_IDS: i64 = 1_000_000;

/// A row of `channels`, with what waits for its place. The file has the figures without that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) key: i64,
    pub(super) last: Seq,
    pub(super) trimmed: Seq,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) due: Option<i64>,
    /// Of the events and bytes, those that wait.
    pub(super) waiting: (u64, u64),
}

impl Row {
    /// With one more event.
    pub(super) fn with(self, seq: Seq, weight: u64) -> Self {
        Self { last: self.last.max(seq), events: self.events + 1, bytes: self.bytes + weight, ..self }
    }

    /// When the newest event waits.
    pub(super) fn waiting(self, weight: u64) -> Self {
        Self { waiting: (self.waiting.0 + 1, self.waiting.1 + weight), ..self }
    }

    /// When nothing waits any more.
    pub(super) fn settled(self) -> Self {
        Self { waiting: (0, 0), ..self }
    }

    /// Whether it has something that is not in the file, so that it cannot be read from there.
    pub(super) fn is_ahead_of_file(&self) -> bool {
        self.waiting.0 > 0
    }

    /// What of it is in the file.
    fn in_file(&self) -> (Seq, u64, u64, Option<i64>) {
        let (events, bytes) = self.waiting;
        (self.trimmed, self.events.saturating_sub(events), self.bytes.saturating_sub(bytes), self.due)
    }
}

/// One transaction. What it changes in memory counts only once it has committed.
pub(super) struct Pass<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) retention: &'a Retention,
    pub(super) cache: &'a mut HashMap<Channel, Row>,
    /// Rows that were changed.
    pub(super) touched: HashMap<Channel, Row>,
    pub(super) trims: HashMap<Channel, Seq>,
    pub(super) waiting: Waiting,
    pub(super) figures: Figures,
    known_figures: &'a mut Figures,
    pub(super) floor: Seq,
}

impl<'a> Pass<'a> {
    pub(super) fn begin(database: &'a mut Database) -> rusqlite::Result<Self> {
        Ok(Self {
            transaction: database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?,
            retention: &database.retention,
            cache: &mut database.channels,
            touched: HashMap::new(),
            trims: HashMap::new(),
            waiting: Waiting::default(),
            figures: database.figures,
            known_figures: &mut database.figures,
            floor: database.floor,
        })
    }

    /// Commits, and returns what was removed.
    pub(super) fn commit(mut self) -> rusqlite::Result<Vec<Trim>> {
        self.keep_waiting()?;
        self.write_rows()?;
        if self.figures.in_file() != self.known_figures.in_file() {
            let mut set = self.transaction.prepare_cached("UPDATE meta SET value = ? WHERE key = ?")?;
            set.execute(params![self.figures.head, "head"])?;
            set.execute(params![self.figures.in_file().1, "bytes"])?;
        }
        self.transaction.commit()?;
        if self.cache.len() + self.touched.len() > CACHED_CHANNELS {
            self.cache.retain(|_, row| row.is_ahead_of_file());
        }
        for (channel, row) in self.touched {
            // Who has lost its last event is hardly asked for again soon.
            if row.events == 0 {
                self.cache.remove(&channel);
            } else {
                self.cache.insert(channel, row);
            }
        }
        self.cache.give_back();
        *self.known_figures = self.figures;
        Ok(self.trims.into_iter().map(|(channel, through)| Trim { channel, through }).collect())
    }

    /// Writes the rows that changed, but for what follows from the events that wait.
    pub(super) fn write_rows(&self) -> rusqlite::Result<()> {
        let mut update = self.transaction.prepare_cached(
            "UPDATE channels SET last = ?, trimmed = ?, events = ?, bytes = ?, due = ? WHERE key = ?",
        )?;
        // An index is written anew whenever its column is named, even if the value is the same.
        let mut advance = self
            .transaction
            .prepare_cached("UPDATE channels SET last = ?, events = ?, bytes = ? WHERE key = ?")?;
        for (channel, row) in &self.touched {
            let known = self.cache.get(channel).map(Row::in_file);
            let (trimmed, events, bytes, due) = row.in_file();
            match known {
                Some(known) if known == row.in_file() => {}
                Some((known_trimmed, .., known_due)) if (known_trimmed, known_due) == (trimmed, due) => {
                    advance.execute(params![row.last, events, bytes, row.key]).map(drop)?;
                }
                _ => update.execute(params![row.last, trimmed, events, bytes, due, row.key]).map(drop)?,
            }
        }
        Ok(())
    }

    /// Where the event already stands, if its publisher gave the same id within the window.
    pub(super) fn known(&self, draft: &Draft, now: i64) -> rusqlite::Result<Option<Seq>> {
        let Some(by) = &draft.publisher else { return Ok(None) };
        let since = now - WINDOW.as_millis() as i64;
        // Those beyond the bound count as forgotten, whether or not they have been removed yet.
        let mut find = self.transaction.prepare_cached(
            "SELECT seq FROM ids WHERE publisher = ? AND id = ? AND time > ?
                AND place > (SELECT max(place) FROM ids) - ?",
        )?;
        find.query_row(params![publisher(by), draft.id.as_str(), since, KNOWN_IDS], |row| row.get(0))
            .optional()
    }

    pub(super) fn insert(&mut self, draft: Draft, seq: Seq, now: i64) -> rusqlite::Result<Record> {
        let weight = draft.weight() as u64;
        let is_small = draft.channels.len() == 1 && draft.payload.as_str().len() <= SMALL;
        let mut prev = None;
        let mut keys = Vec::with_capacity(draft.channels.len());
        for channel in draft.channels.iter() {
            let mut row = self.row_or_new(channel)?;
            prev.get_or_insert(row.last);
            if row.events == 0 {
                self.figures.empty = self.figures.empty.saturating_sub(1);
                row.due = due(self.retention, channel, i64::try_from(draft.time).ok());
            }
            row = row.with(seq, weight);
            if is_small {
                row = row.waiting(weight);
            }
            keys.push(row.key);
            self.touched.insert(channel.clone(), row);
        }
        let prev = prev.unwrap_or(0);
        if let Some(by) = &draft.publisher {
            let mut remember = self.transaction.prepare_cached(
                "INSERT OR REPLACE INTO ids (publisher, id, seq, time) VALUES (?, ?, ?, ?)",
            )?;
            remember.execute(params![publisher(by), draft.id.as_str(), seq, now])?;
        }
        match keys.as_slice() {
            // An event that is for nobody has nowhere to be kept.
            [] => {}
            [home] if is_small => self.wait(&draft, seq, *home, prev),
            _ => {
                for key in keys {
                    let mut place = self
                        .transaction
                        .prepare_cached("INSERT INTO placements (channel, seq) VALUES (?, ?)")?;
                    place.execute(params![key, seq])?;
                }
                self.insert_in_order(&draft, seq, prev, None)?;
            }
        }
        if !draft.channels.is_empty() {
            self.figures.bytes += weight;
        }
        self.figures.head = seq;
        Ok(Record::committed(draft, seq, prev))
    }

    /// Puts an event into the order: whole, or where it has its home.
    pub(super) fn insert_in_order(
        &self,
        draft: &Draft,
        seq: Seq,
        prev: Seq,
        home: Option<i64>,
    ) -> rusqlite::Result<()> {
        let names: Vec<&str> = draft.channels.iter().map(Channel::as_str).collect();
        let (channels, left, weight) = (names.join("\n"), names.len(), draft.weight());
        if home.is_some() {
            let mut insert = self.transaction.prepare_cached(
                "INSERT INTO events (seq, prev, channels, left, weight, time, home) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?;
            insert.execute(params![seq, prev, channels, left, weight, draft.time, home])?;
        } else {
            let mut insert = self.transaction.prepare_cached(
                "INSERT INTO events (seq, prev, channels, left, weight, time, id, name, attributes, is_json, payload)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            let (id, name) = (draft.id.as_str(), draft.name.explicit());
            let (is_json, payload) = (draft.payload.is_json(), draft.payload.as_str());
            let attributes = attributes(draft)?;
            insert.execute(params![
                seq, prev, channels, left, weight, draft.time, id, name, attributes, is_json, payload
            ])?;
        }
        Ok(())
    }

    /// Puts an event into its channel, whole.
    pub(super) fn insert_at_home(
        &self,
        draft: &Draft,
        seq: Seq,
        prev: Seq,
        home: i64,
    ) -> rusqlite::Result<()> {
        let mut insert =
            self.transaction.prepare_cached("INSERT INTO placements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        let (id, name) = (draft.id.as_str(), draft.name.explicit());
        let (is_json, payload) = (draft.payload.is_json(), draft.payload.as_str());
        let attributes = attributes(draft)?;
        insert.execute(params![home, seq, prev, draft.time, id, name, attributes, is_json, payload]).map(drop)
    }

    pub(super) fn row(&self, channel: &Channel) -> rusqlite::Result<Option<Row>> {
        if let Some(row) = self.touched.get(channel).or_else(|| self.cache.get(channel)) {
            return Ok(Some(*row));
        }
        let mut find = self
            .transaction
            .prepare_cached("SELECT key, last, trimmed, events, bytes, due FROM channels WHERE name = ?")?;
        let row = find.query_row([channel.as_str()], |row| {
            Ok(Row {
                key: row.get(0)?,
                last: row.get(1)?,
                trimmed: row.get(2)?,
                events: row.get(3)?,
                bytes: row.get(4)?,
                due: row.get(5)?,
                waiting: (0, 0),
            })
        });
        row.optional()
    }

    pub(super) fn row_or_new(&mut self, channel: &Channel) -> rusqlite::Result<Row> {
        if let Some(row) = self.row(channel)? {
            return Ok(row);
        }
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO channels (name, last, trimmed, events, bytes)
             VALUES (?, 0, (SELECT value FROM meta WHERE key = 'forgotten'), 0, 0) RETURNING key, trimmed",
        )?;
        // It may be one that was forgotten, with what it had lost.
        let row = insert.query_row([channel.as_str()], |row| {
            let (key, trimmed) = (row.get(0)?, row.get(1)?);
            Ok(Row { key, last: 0, trimmed, events: 0, bytes: 0, due: None, waiting: (0, 0) })
        })?;
        self.figures.empty += 1;
        Ok(row)
    }
}

fn attributes(draft: &Draft) -> rusqlite::Result<Option<String>> {
    let attributes = (!draft.attributes.is_empty()).then(|| serde_json::to_string(&draft.attributes));
    attributes.transpose().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn due(retention: &Retention, channel: &Channel, oldest: Option<i64>) -> Option<i64> {
    let age = retention.limits(channel).max_age?;
    Some(oldest?.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

/// Publishers as the table knows them; the hub is no name that a publisher could have.
fn publisher(publisher: &Publisher) -> String {
    publisher.name().map_or_else(|| "hub".to_owned(), |name| format!(":{name}"))
}
