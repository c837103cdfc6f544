//! What the writer does to the file: appends, removes, remembers. One transaction each, and no thread in sight.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::recent::Recent;
use crate::actors::log::index::{Align, Aligned};
use crate::actors::log::{Numbering, Outcome, Trim, WINDOW};
use crate::actors::spare::Spare;
use crate::channel::Channel;
use crate::cursor::{Lineage, Name, Seq};
use crate::identity::Publisher;
use crate::record::{Draft, Record};
use crate::retention::Retention;

/// Channels whose rows are held in memory.
const CACHED_CHANNELS: usize = 65_536;
/// What one step of cleaning removes at most, so that a commit never waits long for it.
pub(super) const STEP: u64 = 256;
/// Payloads up to this many bytes stand in the placement itself.
const SMALL: usize = 1024;
/// How many published ids are remembered.
pub(super) const KNOWN_IDS: i64 = 1_000_000;
/// Terms that are remembered.
const TERMS: i64 = 1000;

pub(super) struct Database {
    connection: Connection,
    retention: Retention,
    head: Seq,
    /// The weight of all events.
    bytes: u64,
    channels: HashMap<Channel, Row>,
    /// How many channels have no event.
    empty: u64,
    recent: Recent,
    /// What is older goes, whatever its channel.
    floor: Seq,
    /// Of an index: the newest moment of its order, which ids are remembered by.
    order_clock: Option<i64>,
}

/// Events to append in one go.
pub(super) struct Batch {
    pub(super) drafts: Vec<Draft>,
    pub(super) numbering: Numbering,
    /// When, in milliseconds of the clock that ids are remembered by.
    pub(super) now: i64,
    /// Of an index: everything up to here is known with it.
    pub(super) through: Option<Seq>,
}

/// A row of `channels`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) key: i64,
    pub(super) last: Seq,
    pub(super) trimmed: Seq,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) due: Option<i64>,
}

/// What became of a batch. What was removed in its transaction stands with the last.
pub(super) struct Appended {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) trims: Vec<Trim>,
}

impl Database {
    pub(super) fn new(connection: Connection, retention: Retention) -> rusqlite::Result<Self> {
        let head = meta(&connection, "head")?;
        let bytes = meta(&connection, "bytes")?;
        let empty =
            connection.query_row("SELECT count(*) FROM channels WHERE events = 0", [], |row| row.get(0))?;
        let recent = Recent::find(&connection)?;
        let channels = HashMap::new();
        let mut database =
            Self { connection, retention, head, bytes, channels, empty, recent, floor: 0, order_clock: None };
        database.settle()?;
        database.adopt_retention()?;
        Ok(database)
    }

    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// Begins a term of the writer, with the next position as its first.
    pub(super) fn begin_term(&mut self) -> rusqlite::Result<Lineage> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let log = match text(&transaction, "log")? {
            Some(log) => Name::restore(log),
            None => {
                let log = Name::mint();
                transaction.execute("INSERT INTO meta VALUES ('log', ?)", [log.as_str()])?;
                log
            }
        };
        let earlier = transaction
            .prepare("SELECT name, first FROM terms ORDER BY place")?
            .query_map([], |row| Ok((Name::restore(row.get::<_, String>(0)?), row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let term = Name::mint();
        transaction.execute(
            "INSERT INTO terms (name, first) VALUES (?, ?)",
            params![term.as_str(), self.head + 1],
        )?;
        transaction
            .execute("DELETE FROM terms WHERE place <= (SELECT max(place) FROM terms) - ?", [TERMS])?;
        transaction.commit()?;
        Ok(Lineage::new(log, earlier, term, self.head + 1))
    }

    /// Whether the file may be used as a log of its own, or as an index: an empty one may be either.
    pub(super) fn is_fit(&self, is_index: bool) -> rusqlite::Result<bool> {
        let other = if is_index { "log" } else { "order" };
        Ok(text(&self.connection, other)?.is_none())
    }

    /// Goes by the clock of an order from now on, from where it was last.
    pub(super) fn follow_order(&mut self) -> rusqlite::Result<()> {
        let newest: Option<i64> =
            self.connection.query_row("SELECT max(time) FROM ids", [], |row| row.get(0))?;
        self.order_clock = Some(newest.unwrap_or_default());
        Ok(())
    }

    /// Holds the index against its order, and throws it away if it is of another or has missed something.
    pub(super) fn align(&mut self, align: &Align) -> rusqlite::Result<Aligned> {
        let order = text(&self.connection, "order")?.map(Name::restore);
        let through = number(&self.connection, "through")?.unwrap_or(0);
        let is_anew = !align.is_continued_by(order.as_ref(), through);
        if is_anew {
            self.begin_anew(align)?;
        }
        self.floor = self.floor.max(align.first);
        let through = if is_anew { align.start() } else { through };
        Ok(Aligned { through, head: self.head, is_anew })
    }

    fn begin_anew(&mut self, align: &Align) -> rusqlite::Result<()> {
        let start = align.start();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "DELETE FROM recent; DELETE FROM placements; DELETE FROM events; DELETE FROM channels; DELETE FROM ids;",
        )?;
        {
            let mut set = transaction.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)")?;
            set.execute(params!["order", align.order.as_str()])?;
            set.execute(params!["bytes", 0])?;
            for key in ["head", "through", "forgotten"] {
                set.execute(params![key, start])?;
            }
        }
        transaction.commit()?;
        self.channels.clear();
        (self.head, self.bytes, self.empty) = (start, 0, 0);
        (self.recent, self.floor, self.order_clock) = (Recent::default(), start, Some(0));
        Ok(())
    }

    /// The channels that have events, of those that `is_wanted` wants.
    pub(super) fn held(&self, is_wanted: impl Fn(&Channel) -> bool) -> rusqlite::Result<Vec<Channel>> {
        let mut statement = self.connection.prepare("SELECT name FROM channels WHERE events > 0")?;
        let names = statement.query_map([], |row| Ok(Channel::restore(&row.get::<_, String>(0)?)))?;
        names.filter(|name| name.as_ref().map_or(true, &is_wanted)).collect()
    }

    /// Moves what waits to its channels.
    pub(super) fn settle(&mut self) -> rusqlite::Result<()> {
        let mut pass = Pass::begin(self)?;
        pass.settle()?;
        pass.commit().map(drop)
    }

    /// When the rules are others than they were, every channel has another time at which its oldest event is due.
    fn adopt_retention(&mut self) -> rusqlite::Result<()> {
        let rules = format!("{:?}", self.retention);
        let known: String =
            self.connection
                .query_row("SELECT value FROM meta WHERE key = 'retention'", [], |row| row.get(0))?;
        if rules == known {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut all = transaction.prepare(
                "SELECT key, name, (SELECT events.time FROM placements JOIN events USING (seq)
                    WHERE channel = key ORDER BY seq LIMIT 1), events, bytes FROM channels WHERE events > 0",
            )?;
            let mut set = transaction.prepare("UPDATE channels SET due = ? WHERE key = ?")?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                let channel = Channel::restore(&row.get::<_, String>(1)?);
                let oldest: Option<i64> = row.get(2)?;
                let is_over = self.retention.limits(&channel).are_broken_by(row.get(3)?, row.get(4)?);
                let due = if is_over { Some(0) } else { due(&self.retention, &channel, oldest) };
                set.execute(params![due, row.get::<_, i64>(0)?])?;
            }
        }
        transaction.execute("UPDATE meta SET value = ? WHERE key = 'retention'", [rules])?;
        transaction.commit()
    }

    /// Appends events in one transaction, and removes what is over the bounds of their channels by it.
    pub(super) fn append(&mut self, batches: Vec<Batch>) -> rusqlite::Result<Vec<Appended>> {
        let order_clock = batches.iter().filter(|batch| batch.through.is_some()).map(|batch| batch.now).max();
        let through = batches.last().and_then(|batch| batch.through);
        let mut pass = Pass::begin(self)?;
        let mut appended = Vec::with_capacity(batches.len());
        let mut count = 0;
        for Batch { drafts, numbering, now, .. } in batches {
            let mut records = Vec::with_capacity(drafts.len());
            let mut outcomes = Vec::with_capacity(drafts.len());
            for (index, draft) in drafts.into_iter().enumerate() {
                if let Some(seq) = pass.known(&draft, now)? {
                    outcomes.push(Outcome::Duplicate(seq));
                    continue;
                }
                let record = pass.insert(draft, numbering.place(index, pass.head), now)?;
                outcomes.push(Outcome::New(pass.head));
                records.push(Arc::new(record));
            }
            count += records.len() as u64;
            appended.push(Appended { records, outcomes, trims: Vec::new() });
        }
        if pass.recent.is_full() {
            pass.settle()?;
        }
        pass.trim_touched(2 * count + STEP)?;
        if let Some(through) = through {
            let mut set = pass
                .transaction
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('through', ?)")?;
            set.execute([through])?;
        }
        let trims = pass.commit()?;
        if let Some(last) = appended.last_mut() {
            last.trims = trims;
        }
        self.order_clock = self.order_clock.max(order_clock);
        Ok(appended)
    }

    /// Removes some of what is too old or too much. Returns what, and nothing if there is no more to do at once.
    pub(super) fn clean(&mut self, now: i64) -> rusqlite::Result<Option<Vec<Trim>>> {
        let due: Vec<String> = {
            let mut statement = self
                .connection
                .prepare_cached("SELECT name FROM channels WHERE due <= ? ORDER BY due LIMIT ?")?;
            // More than a step of one event each are not removed anyway.
            statement.query_map(params![now, STEP], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        // An index that is being filled goes through hours in seconds: its ids grow old by the order's clock. They are
        // kept for twice as long as they count, since that clock may go back, and every index has to know the same.
        let moment = self.order_clock.map_or(now, |clock| clock - WINDOW.as_millis() as i64);
        let stale: i64 = self.connection.query_row(
            "SELECT count(*) FROM (SELECT 1 FROM ids WHERE time <= ? LIMIT 1)",
            [moment - WINDOW.as_millis() as i64],
            |row| row.get(0),
        )?;
        let oldest: Option<Seq> =
            self.connection.query_row("SELECT min(seq) FROM events", [], |row| row.get(0))?;
        let is_large = self.bytes > self.retention.log_bytes()
            || oldest.is_some_and(|seq| seq < self.floor)
            || self.recent.reaches_below(Some(self.floor));
        if due.is_empty() && stale == 0 && !is_large {
            return Ok(None);
        }
        let mut pass = Pass::begin(self)?;
        let mut removed = 0;
        for name in &due {
            if removed >= STEP {
                break;
            }
            removed += pass.trim_due(&Channel::restore(name), now)?;
        }
        pass.trim_log(STEP)?;
        pass.forget_ids(moment)?;
        pass.forget_channels()?;
        Ok(Some(pass.commit()?))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    #[cfg(test)]
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    /// When the next event is due to go by its age.
    pub(super) fn next_due(&self) -> rusqlite::Result<Option<i64>> {
        self.connection.query_row("SELECT min(due) FROM channels WHERE due IS NOT NULL", [], |row| row.get(0))
    }

    /// Removes a step's worth of what is kept of a channel. Returns what, and how much is left.
    pub(super) fn forget(&mut self, channel: &Channel) -> rusqlite::Result<(Vec<Trim>, u64)> {
        let mut pass = Pass::begin(self)?;
        let left = pass.trim_channel(channel, STEP)?;
        Ok((pass.commit()?, left))
    }

    /// Whether the file takes writes, after it did not.
    pub(super) fn probe(&mut self) -> rusqlite::Result<()> {
        // As much as a commit may need: the same value again would not be written at all.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("INSERT OR REPLACE INTO meta VALUES ('probe', randomblob(65536))", [])?;
        transaction.commit()?;
        self.connection.execute("DELETE FROM meta WHERE key = 'probe'", []).map(|_| ())
    }
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<u64> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
}

fn text(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0)).optional()
}

fn number(connection: &Connection, key: &str) -> rusqlite::Result<Option<u64>> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0)).optional()
}

pub(super) fn due(retention: &Retention, channel: &Channel, oldest: Option<i64>) -> Option<i64> {
    let age = retention.limits(channel).max_age?;
    Some(oldest?.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

/// Publishers as the table knows them; the hub is no name that a publisher could have.
fn publisher(publisher: &Publisher) -> String {
    publisher.name().map_or_else(|| "hub".to_owned(), |name| format!(":{name}"))
}

/// One transaction. What it changes in memory counts only once it has committed.
pub(super) struct Pass<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) retention: &'a Retention,
    pub(super) cache: &'a mut HashMap<Channel, Row>,
    /// Rows that were changed.
    pub(super) touched: HashMap<Channel, Row>,
    pub(super) trims: HashMap<Channel, Seq>,
    pub(super) database_head: &'a mut Seq,
    pub(super) database_bytes: &'a mut u64,
    pub(super) database_empty: &'a mut u64,
    pub(super) database_recent: &'a mut Recent,
    pub(super) head: Seq,
    pub(super) bytes: u64,
    pub(super) empty: u64,
    pub(super) recent: Recent,
    pub(super) floor: Seq,
}

impl<'a> Pass<'a> {
    fn begin(database: &'a mut Database) -> rusqlite::Result<Self> {
        let (head, bytes, empty, floor) = (database.head, database.bytes, database.empty, database.floor);
        Ok(Self {
            transaction: database.connection.transaction_with_behavior(TransactionBehavior::Immediate)?,
            retention: &database.retention,
            cache: &mut database.channels,
            touched: HashMap::new(),
            trims: HashMap::new(),
            database_head: &mut database.head,
            database_bytes: &mut database.bytes,
            database_empty: &mut database.empty,
            recent: database.recent,
            database_recent: &mut database.recent,
            head,
            bytes,
            empty,
            floor,
        })
    }

    /// Commits, and returns what was removed.
    fn commit(self) -> rusqlite::Result<Vec<Trim>> {
        {
            let mut update = self.transaction.prepare_cached(
                "UPDATE channels SET last = ?, trimmed = ?, events = ?, bytes = ?, due = ? WHERE key = ?",
            )?;
            // An index is written anew whenever its column is named, even if the value is the same.
            let mut advance = self
                .transaction
                .prepare_cached("UPDATE channels SET last = ?, events = ?, bytes = ? WHERE key = ?")?;
            for (channel, row) in &self.touched {
                let known = self.cache.get(channel);
                if known.is_some_and(|known| (known.trimmed, known.due) == (row.trimmed, row.due)) {
                    advance.execute(params![row.last, row.events, row.bytes, row.key])?;
                } else {
                    update.execute(params![
                        row.last,
                        row.trimmed,
                        row.events,
                        row.bytes,
                        row.due,
                        row.key
                    ])?;
                }
            }
            let mut set = self.transaction.prepare_cached("UPDATE meta SET value = ? WHERE key = ?")?;
            set.execute(params![self.head, "head"])?;
            set.execute(params![self.bytes, "bytes"])?;
        }
        self.transaction.commit()?;
        if self.cache.len() + self.touched.len() > CACHED_CHANNELS {
            *self.cache = HashMap::new();
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
        *self.database_head = self.head;
        *self.database_bytes = self.bytes;
        *self.database_empty = self.empty;
        *self.database_recent = self.recent;
        Ok(self.trims.into_iter().map(|(channel, through)| Trim { channel, through }).collect())
    }

    /// Where the event already stands, if its publisher gave the same id within the window.
    fn known(&self, draft: &Draft, now: i64) -> rusqlite::Result<Option<Seq>> {
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

    fn insert(&mut self, draft: Draft, seq: Seq, now: i64) -> rusqlite::Result<Record> {
        let weight = draft.weight() as u64;
        let mut prev = None;
        let mut keys = Vec::with_capacity(draft.channels.len());
        for channel in draft.channels.iter() {
            let mut row = self.row_or_new(channel)?;
            prev.get_or_insert(row.last);
            if row.events == 0 {
                self.empty = self.empty.saturating_sub(1);
                row.due = due(self.retention, channel, i64::try_from(draft.time).ok());
            }
            row = Row { last: seq, events: row.events + 1, bytes: row.bytes + weight, ..row };
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
        let attributes = (!draft.attributes.is_empty()).then(|| serde_json::to_string(&draft.attributes));
        let attributes =
            attributes.transpose().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let home = match keys.as_slice() {
            // An event that is for nobody has nowhere to be kept.
            [] => {
                self.head = seq;
                return Ok(Record::committed(draft, seq, prev));
            }
            [key] if draft.payload.as_str().len() <= SMALL => Some(*key),
            _ => None,
        };
        let (id, name) = (draft.id.as_str(), draft.name.explicit());
        let (is_json, payload) = (draft.payload.is_json(), draft.payload.as_str());
        let names: Vec<&str> = draft.channels.iter().map(Channel::as_str).collect();
        let (channels, left) = (names.join("\n"), names.len());
        if let Some(home) = home {
            let mut wait = self
                .transaction
                .prepare_cached("INSERT INTO recent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
            wait.execute(params![
                seq, home, prev, channels, weight, draft.time, id, name, attributes, is_json, payload
            ])?;
            self.recent.count(seq);
        } else {
            for key in keys {
                let mut place =
                    self.transaction.prepare_cached("INSERT INTO placements (channel, seq) VALUES (?, ?)")?;
                place.execute(params![key, seq])?;
            }
            let mut insert = self.transaction.prepare_cached(
                "INSERT INTO events (seq, prev, channels, left, weight, time, id, name, attributes, is_json, payload)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            insert.execute(params![
                seq, prev, channels, left, weight, draft.time, id, name, attributes, is_json, payload
            ])?;
        }
        self.bytes += weight;
        self.head = seq;
        Ok(Record::committed(draft, seq, prev))
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
            })
        });
        row.optional()
    }

    fn row_or_new(&mut self, channel: &Channel) -> rusqlite::Result<Row> {
        if let Some(row) = self.row(channel)? {
            return Ok(row);
        }
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO channels (name, last, trimmed, events, bytes)
             VALUES (?, 0, (SELECT value FROM meta WHERE key = 'forgotten'), 0, 0) RETURNING key, trimmed",
        )?;
        // It may be one that was forgotten, with what it had lost.
        let row = insert.query_row([channel.as_str()], |row| {
            Ok(Row { key: row.get(0)?, last: 0, trimmed: row.get(1)?, events: 0, bytes: 0, due: None })
        })?;
        self.empty += 1;
        Ok(row)
    }
}
