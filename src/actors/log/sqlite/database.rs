//! What the writer does to the file, each in one transaction (`pass`), and no thread in sight.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::pass::{Pass, Row, due};
use super::recent::Recent;
use crate::actors::log::index::{Align, Aligned};
use crate::actors::log::{Numbering, Outcome, Trim, WINDOW};
use crate::channel::Channel;
use crate::cursor::{Lineage, Name, Seq};
use crate::record::{Draft, Record};
use crate::retention::Retention;

/// What one step of cleaning removes at most, so that a commit never waits long for it.
pub(super) const STEP: u64 = 256;
/// Terms that are remembered.
const TERMS: i64 = 1000;

pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) retention: Retention,
    pub(super) figures: Figures,
    /// The rows of some channels.
    pub(super) channels: HashMap<Channel, Row>,
    /// What is older goes, whatever its channel.
    pub(super) floor: Seq,
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

/// What is known of the whole file without looking.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) head: Seq,
    /// The weight of all events.
    pub(super) bytes: u64,
    /// How many channels have no event.
    pub(super) empty: u64,
    /// What has not come to its channel yet.
    pub(super) recent: Recent,
}

impl Figures {
    /// What of it is in the file: the rest follows from the events that wait.
    pub(super) fn in_file(&self) -> (Option<Seq>, u64) {
        let is_newest_waiting = self.recent.last == Some(self.head);
        ((!is_newest_waiting).then_some(self.head), self.bytes.saturating_sub(self.recent.bytes))
    }
}

/// What became of a batch. What was removed in its transaction stands with the last.
pub(super) struct Appended {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) trims: Vec<Trim>,
}

impl Database {
    pub(super) fn new(connection: Connection, retention: Retention) -> rusqlite::Result<Self> {
        let (head, bytes) = (meta(&connection, "head")?, meta(&connection, "bytes")?);
        let figures = Figures { head, bytes, empty: 0, recent: Recent::default() };
        let channels = HashMap::new();
        let mut database = Self { connection, retention, figures, channels, floor: 0, order_clock: None };
        let mut pass = Pass::begin(&mut database)?;
        pass.recover()?;
        pass.settle()?;
        pass.commit()?;
        let empty = "SELECT count(*) FROM channels WHERE events = 0";
        database.figures.empty = database.connection.query_row(empty, [], |row| row.get(0))?;
        database.adopt_retention()?;
        Ok(database)
    }

    pub(super) fn head(&self) -> Seq {
        self.figures.head
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
            params![term.as_str(), self.figures.head + 1],
        )?;
        transaction
            .execute("DELETE FROM terms WHERE place <= (SELECT max(place) FROM terms) - ?", [TERMS])?;
        transaction.commit()?;
        Ok(Lineage::new(log, earlier, term, self.figures.head + 1))
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
        Ok(Aligned { through, head: self.figures.head, is_anew })
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
        self.figures = Figures { head: start, bytes: 0, empty: 0, recent: Recent::default() };
        (self.floor, self.order_clock) = (start, Some(0));
        Ok(())
    }

    /// The channels that have events, of those that `is_wanted` wants.
    pub(super) fn held(&self, is_wanted: impl Fn(&Channel) -> bool) -> rusqlite::Result<Vec<Channel>> {
        let mut statement = self.connection.prepare("SELECT name FROM channels WHERE events > 0")?;
        let names = statement.query_map([], |row| Ok(Channel::restore(&row.get::<_, String>(0)?)))?;
        names.filter(|name| name.as_ref().map_or(true, &is_wanted)).collect()
    }

    /// Moves what waits to its channels.
    #[cfg(test)]
    pub(super) fn settle(&mut self) -> rusqlite::Result<()> {
        if self.figures.recent.is_empty() {
            return Ok(());
        }
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
                let record = pass.insert(draft, numbering.place(index, pass.figures.head), now)?;
                outcomes.push(Outcome::New(pass.figures.head));
                records.push(Arc::new(record));
            }
            count += records.len() as u64;
            appended.push(Appended { records, outcomes, trims: Vec::new() });
        }
        pass.keep_waiting()?;
        if pass.figures.recent.is_full() {
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
        let mut count = self
            .connection
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM ids WHERE time <= ? LIMIT 1)")?;
        let stale: i64 = count.query_row([moment - WINDOW.as_millis() as i64], |row| row.get(0))?;
        let mut first = self.connection.prepare_cached("SELECT min(seq) FROM events")?;
        let oldest: Option<Seq> = first.query_row([], |row| row.get(0))?;
        drop((count, first));
        let is_large = self.figures.bytes > self.retention.log_bytes()
            || oldest.is_some_and(|seq| seq < self.floor)
            || self.figures.recent.reaches_below(Some(self.floor));
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
        let mut first =
            self.connection.prepare_cached("SELECT min(due) FROM channels WHERE due IS NOT NULL")?;
        first.query_row([], |row| row.get(0))
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
