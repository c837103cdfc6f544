//! The log in memory: bounded, and gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;

use super::dedup::Dedup;
use super::{
    Commit, Committed, Follower, Log, LogHandle, Opened, Outcome, Page, PageLimit, ReadAfter, Seek,
    Settlement,
};
use crate::channel::Channel;
use crate::cursor::{Lineage, Name, Seq};
use crate::error::{InvalidValue, LogError};
use crate::interest::Interest;
use crate::record::{Draft, Record};

/// A log in memory: the newest events, within a bound. A restart begins a new log, and clients are told (`$reset`).
///
/// ```
/// use fanfare::{Broker, MemoryLog};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().log(MemoryLog::bounded(10_000, 16 << 20)?).start()?;
/// # drop(broker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryLog {
    max_events: usize,
    max_bytes: usize,
}

impl MemoryLog {
    /// A log that holds at most `max_events` events and `max_bytes` bytes; the oldest leave first.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a bound of zero.
    pub fn bounded(max_events: usize, max_bytes: usize) -> Result<Self, InvalidValue> {
        if max_events == 0 || max_bytes == 0 {
            return Err(InvalidValue::new("log", "must have room for at least one event"));
        }
        Ok(Self { max_events, max_bytes })
    }
}

impl Default for MemoryLog {
    /// 100,000 events and 256 MiB.
    fn default() -> Self {
        Self { max_events: 100_000, max_bytes: 256 << 20 }
    }
}

impl Log for MemoryLog {
    fn start(self: Box<Self>, follower: Follower) -> Result<LogHandle, LogError> {
        let addr = Keeper { store: Store::new(self.max_events, self.max_bytes), follower }.start();
        Ok(LogHandle {
            commit: addr.clone().recipient(),
            read: addr.clone().recipient(),
            seek: addr.recipient(),
        })
    }
}

/// The actor that keeps the store.
struct Keeper {
    store: Store,
    follower: Follower,
}

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let Some(follower) = self.follower.opened.upgrade() {
            let lineage = Lineage::new(Name::mint(), Vec::new(), Name::mint(), 1);
            follower.do_send(Opened { lineage, head: 0 });
        }
    }
}

impl Handler<Commit> for Keeper {
    type Result = ();

    fn handle(&mut self, Commit { ticket, drafts }: Commit, _: &mut Self::Context) {
        let (records, outcomes) = self.store.append(drafts, Instant::now());
        if let Some(follower) = self.follower.committed.upgrade() {
            follower.do_send(Committed { records, settles: Some(Settlement { ticket, outcomes }) });
        }
    }
}

impl Handler<ReadAfter> for Keeper {
    type Result = Result<Page, LogError>;

    fn handle(&mut self, query: ReadAfter, _: &mut Self::Context) -> Self::Result {
        Ok(self.store.read(query.after, query.until, &query.interest, query.limit))
    }
}

impl Handler<Seek> for Keeper {
    type Result = Result<Seq, LogError>;

    fn handle(&mut self, query: Seek, _: &mut Self::Context) -> Self::Result {
        Ok(self.store.seek(query.last, query.until, &query.interest))
    }
}

/// As many events as one page looks at, so that a reader of rare events does not hold up the writer.
const PAGE_SCAN: usize = 8192;
/// As many channels as are remembered after their last event has left.
const EMPTY_CHANNELS: usize = 65_536;
/// As many ids as are remembered.
const KNOWN_IDS: usize = 1_000_000;

#[derive(Debug)]
struct Store {
    max_events: usize,
    max_bytes: usize,
    /// Contiguous: the i-th has position `first + i`.
    records: VecDeque<Arc<Record>>,
    first: Seq,
    bytes: usize,
    channels: HashMap<Channel, ChannelState>,
    /// Channels that had no event left at some time, with the position of the last that left.
    emptied: VecDeque<(Channel, Seq)>,
    /// Channels that nothing is known of may have lost events up to here.
    forgotten: Seq,
    dedup: Dedup,
}

#[derive(Debug, Default)]
struct ChannelState {
    last: Seq,
    trimmed: Seq,
    held: usize,
}

impl Store {
    fn new(max_events: usize, max_bytes: usize) -> Self {
        Self {
            max_events,
            max_bytes,
            records: VecDeque::new(),
            first: 1,
            bytes: 0,
            channels: HashMap::new(),
            emptied: VecDeque::new(),
            forgotten: 0,
            dedup: Dedup::new(KNOWN_IDS),
        }
    }

    fn append(&mut self, drafts: Vec<Draft>, now: Instant) -> (Vec<Arc<Record>>, Vec<Outcome>) {
        let mut records = Vec::with_capacity(drafts.len());
        let mut outcomes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let key = draft.publisher.clone().map(|publisher| (publisher, draft.id.clone()));
            if let Some(seq) = key.as_ref().and_then(|key| self.dedup.find(key, now)) {
                outcomes.push(Outcome::Duplicate(seq));
                continue;
            }
            let record = self.append_one(draft);
            let seq = record.seq().unwrap_or_default();
            if let Some(key) = key {
                self.dedup.remember(key, seq, now);
            }
            records.push(record);
            outcomes.push(Outcome::New(seq));
        }
        self.trim();
        (records, outcomes)
    }

    fn append_one(&mut self, draft: Draft) -> Arc<Record> {
        let seq = self.first + self.records.len() as Seq;
        let mut prev = None;
        for channel in draft.channels.iter() {
            let state = self.channels.entry(channel.clone()).or_default();
            prev.get_or_insert(state.last);
            state.last = seq;
            state.held += 1;
        }
        self.bytes += draft.weight();
        let record = Arc::new(Record::committed(draft, seq, prev.unwrap_or(0)));
        self.records.push_back(record.clone());
        record
    }

    fn trim(&mut self) {
        while self.records.len() > self.max_events || (self.bytes > self.max_bytes && self.records.len() > 1)
        {
            let Some(oldest) = self.records.pop_front() else { break };
            let seq = self.first;
            self.first += 1;
            self.bytes -= oldest.draft.weight();
            for channel in oldest.draft.channels.iter() {
                let Some(state) = self.channels.get_mut(channel) else { continue };
                state.trimmed = seq;
                state.held -= 1;
                if state.held == 0 {
                    self.emptied.push_back((channel.clone(), seq));
                }
            }
        }
        while self.emptied.len() > EMPTY_CHANNELS
            && let Some((channel, trimmed)) = self.emptied.pop_front()
        {
            // It may have had events again since it was noted, and then been noted again.
            if self.channels.get(&channel).is_some_and(|state| state.held == 0 && state.trimmed == trimmed) {
                self.channels.remove(&channel);
                self.forgotten = trimmed;
            }
        }
    }

    /// The newest removed position of the interest's channels, if it is after `after`.
    fn trimmed(&self, after: Seq, interest: &Interest) -> Option<Seq> {
        if after + 1 >= self.first {
            return None;
        }
        let newest = if interest.subscription.selectors().iter().any(|selector| selector.is_pattern()) {
            let of_interest = self.channels.iter().filter(|(channel, _)| interest.selects(channel));
            of_interest.map(|(_, state)| state.trimmed).max().unwrap_or(0).max(self.forgotten)
        } else {
            let named = interest.subscription.selectors().iter().filter_map(|selector| selector.as_exact());
            named
                .chain([Channel::everyone(), Channel::inbox(interest.session)])
                .map(|channel| self.channels.get(&channel).map_or(self.forgotten, |state| state.trimmed))
                .max()
                .unwrap_or(0)
        };
        (newest > after).then_some(newest)
    }

    fn read(&self, after: Seq, until: Seq, interest: &Interest, limit: PageLimit) -> Page {
        let trimmed = self.trimmed(after, interest);
        let mut page = Page { records: Vec::new(), through: after, trimmed };
        let mut bytes = 0;
        let start = (after + 1).saturating_sub(self.first) as usize;
        for record in self.records.iter().skip(start).take(PAGE_SCAN) {
            let Some(seq) = record.seq().filter(|&seq| seq <= until) else { break };
            page.through = seq;
            if interest.covers(record) {
                bytes += record.draft.weight();
                page.records.push(record.clone());
                if page.records.len() >= limit.events || bytes >= limit.bytes {
                    return page;
                }
            }
        }
        let next = page.through.max(self.first - 1) + 1;
        if next > until || next >= self.first + self.records.len() as Seq {
            page.through = until.max(after);
        }
        page
    }

    fn seek(&self, last: u64, until: Seq, interest: &Interest) -> Seq {
        let mut left = last;
        for record in self.records.iter().rev() {
            let Some(seq) = record.seq().filter(|&seq| seq <= until) else { continue };
            if left == 0 {
                return seq;
            }
            left -= u64::from(interest.covers(record));
        }
        if last == 0 { until } else { self.first - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Selector;
    use crate::event::Event;
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Subscription};

    const ALL: PageLimit = PageLimit { events: usize::MAX, bytes: usize::MAX };

    fn draft(channels: &[&str]) -> Draft {
        let channels: Vec<_> = channels.iter().map(|name| Channel::new(name).expect("valid")).collect();
        Draft::new(Event::text("x", "y").expect("valid"), channels.into(), Publisher::HUB, 0)
    }

    fn interest(selectors: &[&str]) -> Interest {
        let selectors = selectors.iter().map(|text| Selector::new(text).expect("valid"));
        Interest { session: SessionId::mint(), subscription: Subscription::new(selectors, Filter::default()) }
    }

    fn store(max_events: usize, channels: &[&[&str]]) -> Store {
        let mut store = Store::new(max_events, usize::MAX);
        for names in channels {
            store.append(vec![draft(names)], Instant::now());
        }
        store
    }

    fn seqs(page: &Page) -> Vec<Seq> {
        page.records.iter().filter_map(|record| record.seq()).collect()
    }

    #[test]
    fn positions_and_prev_go_by_channel() {
        let mut store = store(10, &[]);
        let (records, outcomes) =
            store.append(vec![draft(&["a"]), draft(&["b", "a"]), draft(&["a", "b"])], Instant::now());
        assert_eq!(outcomes, [Outcome::New(1), Outcome::New(2), Outcome::New(3)]);
        let prevs: Vec<_> = records.iter().map(|record| record.place.expect("stored").prev).collect();
        assert_eq!(prevs, [0, 0, 2]);
    }

    #[test]
    fn pages_are_disjoint_and_complete() {
        let store = store(100, &[&["a"], &["b"], &["a"], &["a", "b"], &["c"], &["a"]]);
        let interest = interest(&["a"]);
        let two = PageLimit { events: 2, bytes: usize::MAX };
        let first = store.read(0, 6, &interest, two);
        assert_eq!((seqs(&first), first.through), (vec![1, 3], 3));
        let second = store.read(3, 5, &interest, two);
        assert_eq!((seqs(&second), second.through), (vec![4], 5));
        let third = store.read(5, 6, &interest, two);
        assert_eq!((seqs(&third), third.through), (vec![6], 6));
    }

    #[test]
    fn what_was_removed_is_told_for_the_channels_concerned_only() {
        let store = store(3, &[&["quiet"], &["busy"], &["quiet"], &["busy"], &["busy"]]);
        let page = store.read(0, 5, &interest(&["busy"]), ALL);
        assert_eq!((seqs(&page), page.trimmed), (vec![4, 5], Some(2)));
        assert_eq!(store.read(1, 5, &interest(&["quiet"]), ALL).trimmed, None);
        assert_eq!(store.read(0, 5, &interest(&["quiet"]), ALL).trimmed, Some(1));
        assert_eq!(store.read(0, 5, &interest(&["*"]), ALL).trimmed, Some(2));
        assert_eq!(store.read(0, 5, &interest(&["never"]), ALL).trimmed, None);
    }

    #[test]
    fn the_last_n_are_found() {
        let store = store(100, &[&["a"], &["b"], &["a"], &["b"], &["a"], &["b"]]);
        let check = |last, until| {
            let position = store.seek(last, until, &interest(&["a"]));
            seqs(&store.read(position, until, &interest(&["a"]), ALL))
        };
        assert_eq!(check(2, 6), [3, 5]);
        assert_eq!(check(2, 4), [1, 3]);
        assert_eq!(check(9, 6), [1, 3, 5]);
        assert!(check(0, 6).is_empty());
    }

    #[test]
    fn the_same_id_of_the_same_publisher_is_stored_once() {
        let mut store = store(10, &[&["a"]]);
        let twice = || {
            let mut draft = draft(&["a"]);
            draft.publisher = Some(Publisher::named("ada"));
            draft.id = crate::EventId::new("o-7").expect("valid");
            draft
        };
        let (records, outcomes) = store.append(vec![twice(), twice()], Instant::now());
        assert_eq!((records.len(), outcomes), (1, vec![Outcome::New(2), Outcome::Duplicate(2)]));
        assert_eq!(store.append(vec![twice()], Instant::now()).1, [Outcome::Duplicate(2)]);
    }

    #[test]
    fn what_is_kept_of_a_million_channels_is_bounded() {
        let mut store = store(10, &[]);
        for n in 0..EMPTY_CHANNELS * 2 {
            store.append(vec![draft(&[&format!("c/{n}")])], Instant::now());
        }
        assert!(store.channels.len() <= EMPTY_CHANNELS + 10);
        // Whether a forgotten channel lost something is not known, so it is said.
        assert!(store.read(0, 5, &interest(&["c/7"]), ALL).trimmed.is_some());
        assert!(store.read(store.first - 1, store.first, &interest(&["c/7"]), ALL).trimmed.is_none());
    }
}
