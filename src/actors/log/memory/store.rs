//! What the log in memory holds. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::dedup::Dedup;
use super::emptied::Emptied;
use crate::actors::log::{Numbering, Outcome, Page, PageLimit, Sought, Trim};
use crate::actors::spare::Spare;
use crate::channel::{Channel, Selector};
use crate::cursor::Seq;
use crate::interest::Interest;
use crate::record::{Draft, Record};
use crate::retention::Retention;

/// As many events as one page looks at, so that a reader of rare events does not hold up the writer.
const PAGE_SCAN: usize = 8192;
/// As many marks of removed events as are kept, and looked through for one reader of wildcards.
const MARKS: usize = 4096;
/// As many channels as are remembered after their last event has left.
const EMPTY_CHANNELS: usize = 65_536;
/// As many ids as are remembered.
const KNOWN_IDS: usize = 1_000_000;

#[derive(Debug)]
pub(in crate::actors) struct Store {
    max_events: usize,
    max_bytes: u64,
    retention: Retention,
    records: BTreeMap<Seq, Held>,
    head: Seq,
    bytes: u64,
    channels: HashMap<Channel, Kept>,
    /// When the oldest event of each channel is too old.
    due: BTreeSet<(u64, Channel)>,
    emptied: Emptied,
    /// What is older goes, whatever its channel.
    floor: Seq,
    /// The newest position that was removed from each channel, in order; the newest of these.
    trims: BTreeMap<Seq, Vec<Channel>>,
    /// Whose channels' newest removed position is up to here is not known.
    unmarked: Seq,
    dedup: Dedup,
    /// What was removed since it was asked for last.
    news: HashMap<Channel, Seq>,
}

#[derive(Debug)]
struct Held {
    record: Arc<Record>,
    /// How many of its channels still hold it.
    left: usize,
}

/// What is kept of a channel.
#[derive(Debug, Default)]
struct Kept {
    last: Seq,
    trimmed: Seq,
    seqs: VecDeque<Seq>,
    bytes: u64,
    due: Option<u64>,
}

impl Store {
    pub(in crate::actors) fn new(max_events: usize, max_bytes: u64, retention: Retention) -> Self {
        Self {
            max_events,
            max_bytes: max_bytes.min(retention.log_bytes()),
            retention,
            records: BTreeMap::new(),
            head: 0,
            bytes: 0,
            channels: HashMap::new(),
            due: BTreeSet::new(),
            emptied: Emptied::new(EMPTY_CHANNELS, 0),
            floor: 0,
            trims: BTreeMap::new(),
            unmarked: 0,
            dedup: Dedup::new(KNOWN_IDS),
            news: HashMap::new(),
        }
    }

    /// An empty store of the same kind for an order of which everything up to `start` is gone.
    pub(super) fn begin_anew(&mut self, start: Seq) {
        let anew = Self::new(self.max_events, self.max_bytes, self.retention.clone());
        *self = Self { head: start, emptied: Emptied::new(EMPTY_CHANNELS, start), floor: start, ..anew };
    }

    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// The channels that have events, of those that `is_wanted` wants.
    pub(super) fn held(&self, is_wanted: impl Fn(&Channel) -> bool) -> Vec<Channel> {
        self.channels.keys().filter(|channel| is_wanted(channel)).cloned().collect()
    }

    /// Lets go of everything before `first`, now and from now on.
    pub(super) fn drop_before(&mut self, first: Seq) {
        self.floor = self.floor.max(first);
        while self.records.first_key_value().is_some_and(|(&seq, _)| seq < self.floor) {
            self.drop_oldest();
        }
    }

    /// Appends events at a moment in milliseconds of the clock that ids are remembered by.
    pub(in crate::actors) fn append(
        &mut self,
        drafts: Vec<Draft>,
        numbering: Numbering,
        now: u64,
    ) -> (Vec<Arc<Record>>, Vec<Outcome>) {
        let (mut records, mut outcomes) =
            (Vec::with_capacity(drafts.len()), Vec::with_capacity(drafts.len()));
        self.append_to(drafts, numbering, now, &mut records, &mut outcomes);
        (records, outcomes)
    }

    /// Appends events, and what is to be told of them to these, which are empty.
    pub(super) fn append_to(
        &mut self,
        drafts: Vec<Draft>,
        numbering: Numbering,
        now: u64,
        records: &mut Vec<Arc<Record>>,
        outcomes: &mut Vec<Outcome>,
    ) {
        for (index, draft) in drafts.into_iter().enumerate() {
            let key = draft.publisher.clone().map(|publisher| (publisher, draft.id.clone()));
            if let Some(seq) = key.as_ref().and_then(|key| self.dedup.find(key, now)) {
                outcomes.push(Outcome::Duplicate(seq));
                continue;
            }
            let record = self.append_one(draft, numbering.place(index, self.head));
            if let Some(key) = key {
                self.dedup.remember(key, self.head, now);
            }
            outcomes.push(Outcome::New(self.head));
            records.push(record);
        }
        for record in records {
            for channel in record.draft.channels.iter() {
                self.hold_to_limits(channel);
            }
        }
        while self.records.len() > self.max_events || (self.bytes > self.max_bytes && self.records.len() > 1)
        {
            self.drop_oldest();
        }
    }

    fn append_one(&mut self, draft: Draft, seq: Seq) -> Arc<Record> {
        self.head = seq;
        let weight = draft.weight() as u64;
        let mut prev = None;
        for channel in draft.channels.iter() {
            let emptied = &mut self.emptied;
            let kept = self.channels.entry(channel.clone()).or_insert_with(|| match emptied.take(channel) {
                Some(last) => Kept { last, trimmed: last, ..Kept::default() },
                // It may be one that was forgotten, with what it had lost.
                None => Kept { trimmed: emptied.forgotten(), ..Kept::default() },
            });
            prev.get_or_insert(kept.last);
            kept.last = seq;
            kept.seqs.push_back(seq);
            kept.bytes += weight;
            if kept.seqs.len() == 1
                && let Some(due) = due(&self.retention, channel, draft.time)
            {
                kept.due = Some(due);
                self.due.insert((due, channel.clone()));
            }
        }
        let left = draft.channels.len();
        let record = Arc::new(Record::committed(draft, seq, prev.unwrap_or(0)));
        // An event that is for nobody has nowhere to be kept.
        if left > 0 {
            self.bytes += weight;
            self.records.insert(seq, Held { record: record.clone(), left });
        }
        record
    }

    fn hold_to_limits(&mut self, channel: &Channel) {
        let limits = self.retention.limits(channel);
        if !limits.are_broken_by(u64::MAX, u64::MAX) {
            return;
        }
        let Some(kept) = self.channels.get(channel) else { return };
        if !limits.are_broken_by(kept.seqs.len() as u64, kept.bytes) {
            return;
        }
        let weights =
            kept.seqs.iter().filter_map(|seq| self.records.get(seq)).map(|held| held.record.draft.weight());
        let excess = limits.excess(kept.seqs.len() as u64, kept.bytes, weights.map(|weight| weight as u64));
        for _ in 0..excess {
            self.drop_first(channel);
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, held)) = self.records.first_key_value() else { return };
        // The oldest event of all is the oldest of each channel that still has it.
        let (seq, channels) = (held.record.seq(), held.record.draft.channels.clone());
        for channel in channels.iter() {
            if self.channels.get(channel).and_then(|kept| kept.seqs.front().copied()) == seq {
                self.drop_first(channel);
            }
        }
    }

    /// What was removed since this was called last.
    pub(in crate::actors) fn take_trims(&mut self) -> Vec<Trim> {
        let news = std::mem::take(&mut self.news);
        news.into_iter().map(|(channel, through)| Trim { channel, through }).collect()
    }

    /// Lets go of events that are as old as their channel's bound.
    pub(in crate::actors) fn drop_aged(&mut self, now: u64) {
        while let Some((due, channel)) = self.due.first().cloned()
            && due <= now
        {
            self.drop_first(&channel);
        }
    }

    /// Lets go of all that is kept of a channel.
    pub(in crate::actors) fn forget(&mut self, channel: &Channel) {
        while self.channels.contains_key(channel) {
            self.drop_first(channel);
        }
    }

    /// Removes the oldest event of a channel.
    fn drop_first(&mut self, channel: &Channel) {
        let Some(kept) = self.channels.get_mut(channel) else { return };
        if let Some(due) = kept.due.take() {
            self.due.remove(&(due, channel.clone()));
        }
        let Some(seq) = kept.seqs.pop_front() else { return };
        self.news.insert(channel.clone(), seq);
        let before = std::mem::replace(&mut kept.trimmed, seq);
        self.trims.entry(seq).or_default().push(channel.clone());
        remove_trim(&mut self.trims, before, channel);
        if self.trims.len() > MARKS
            && let Some((oldest, _)) = self.trims.pop_first()
        {
            self.unmarked = oldest;
        }
        let next = kept.seqs.front().copied();
        if let Some(held) = self.records.get_mut(&seq) {
            let weight = held.record.draft.weight() as u64;
            kept.bytes = kept.bytes.saturating_sub(weight);
            held.left = held.left.saturating_sub(1);
            if held.left == 0 {
                self.records.remove(&seq);
                self.bytes = self.bytes.saturating_sub(weight);
            }
        }
        match next.and_then(|next| self.records.get(&next)) {
            Some(oldest) => {
                kept.due = due(&self.retention, channel, oldest.record.draft.time);
                self.due.extend(kept.due.map(|due| (due, channel.clone())));
            }
            None => {
                self.channels.remove(channel);
                self.channels.give_back();
                self.emptied.note(channel, seq);
            }
        }
    }

    /// The newest removed position of the interest's channels, if it is after `after`.
    fn trimmed(&self, after: Seq, interest: &Interest) -> Option<Seq> {
        let newest_of_all = self.trims.last_key_value().map_or(self.emptied.forgotten(), |(&seq, _)| seq);
        if after >= newest_of_all {
            return None;
        }
        let named = interest.named().map(|channel| match self.channels.get(&channel) {
            Some(kept) => kept.trimmed,
            None => self.emptied.lost(&channel),
        });
        let mut newest = named.max().unwrap_or(0);
        if patterns(interest) {
            // A loss that cannot be ruled out is told.
            newest = newest.max(self.emptied.forgotten()).max(self.unmarked);
            let mut left = MARKS;
            for (&seq, channels) in self.trims.range(newest.max(after) + 1..).rev() {
                left = left.saturating_sub(channels.len());
                // Nor can it in reasonable time.
                if left == 0 || channels.iter().any(|channel| interest.selects(channel)) {
                    newest = seq;
                    break;
                }
            }
        }
        (newest > after).then_some(newest)
    }

    pub(in crate::actors) fn read(
        &self,
        after: Seq,
        until: Seq,
        interest: &Interest,
        limit: PageLimit,
    ) -> Page {
        let trimmed = self.trimmed(after, interest);
        let until = until.max(after);
        let mut page = Page { records: Vec::new(), through: until, trimmed };
        let mut bytes = 0;
        let mut take = |page: &mut Page, seq: Seq, record: &Arc<Record>| {
            if !interest.covers_event(&record.draft) {
                return false;
            }
            bytes += record.draft.weight();
            page.records.push(record.clone());
            let is_full = page.records.len() >= limit.events || bytes >= limit.bytes;
            if is_full {
                page.through = seq;
            }
            is_full
        };
        if patterns(interest) {
            for (scanned, (&seq, held)) in self.records.range(after + 1..).enumerate() {
                if seq > until || take(&mut page, seq, &held.record) {
                    break;
                }
                if scanned + 1 == PAGE_SCAN {
                    page.through = seq;
                    break;
                }
            }
            return page;
        }
        // By name: what there is of each channel, merged.
        let most = limit.events.clamp(1, PAGE_SCAN);
        let mut seqs = BTreeSet::new();
        for kept in interest.named().filter_map(|channel| self.channels.get(&channel)) {
            let first = kept.seqs.partition_point(|&seq| seq <= after);
            seqs.extend(kept.seqs.range(first..).take_while(|&&seq| seq <= until).take(most + 1));
        }
        for (number, seq) in seqs.into_iter().enumerate() {
            // Each channel gave one more than `most`, if it has so many: the first `most` of all are complete.
            if number == most {
                page.through = page.through.min(seq - 1);
                break;
            }
            if let Some(held) = self.records.get(&seq)
                && take(&mut page, seq, &held.record)
            {
                break;
            }
        }
        page
    }

    pub(in crate::actors) fn seek(&self, last: u64, until: Seq, interest: &Interest) -> Sought {
        let mut sought = Sought { position: until, left: last };
        for (&seq, held) in self.records.range(..=until).rev().take(PAGE_SCAN) {
            if sought.left == 0 {
                return sought;
            }
            sought.position = seq - 1;
            sought.left -= u64::from(interest.covers_event(&held.record.draft));
        }
        let is_more = self.records.first_key_value().is_some_and(|(&first, _)| first <= sought.position);
        if sought.left > 0 && !is_more {
            return Sought { position: 0, left: 0 };
        }
        sought
    }
}

fn remove_trim(trims: &mut BTreeMap<Seq, Vec<Channel>>, seq: Seq, channel: &Channel) {
    if let Some(channels) = trims.get_mut(&seq) {
        channels.retain(|other| other != channel);
        if channels.is_empty() {
            trims.remove(&seq);
        }
    }
}

fn patterns(interest: &Interest) -> bool {
    interest.subscription.selectors().any(Selector::is_pattern)
}

fn due(retention: &Retention, channel: &Channel, time: u64) -> Option<u64> {
    let age = retention.limits(channel).max_age?;
    Some(time.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        Interest::new(SessionId::mint(), Subscription::new(selectors, Filter::default()))
    }

    fn store(max_events: usize, channels: &[&[&str]]) -> Store {
        let mut store = Store::new(max_events, u64::MAX, Retention::default());
        for names in channels {
            store.append(vec![draft(names)], Numbering::Next, 0);
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
            store.append(vec![draft(&["a"]), draft(&["b", "a"]), draft(&["a", "b"])], Numbering::Next, 0);
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
            let Sought { position, left } = store.seek(last, until, &interest(&["a"]));
            assert_eq!(left, 0);
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
        let (records, outcomes) = store.append(vec![twice(), twice()], Numbering::Next, 0);
        assert_eq!((records.len(), outcomes), (1, vec![Outcome::New(2), Outcome::Duplicate(2)]));
        assert_eq!(store.append(vec![twice()], Numbering::Next, 0).1, [Outcome::Duplicate(2)]);
    }

    #[test]
    fn what_is_kept_of_a_million_channels_is_bounded() {
        let mut store = store(10, &[]);
        for n in 0..EMPTY_CHANNELS * 2 {
            store.append(vec![draft(&[&format!("c/{n}")])], Numbering::Next, 0);
        }
        assert_eq!((store.channels.len(), store.trims.len()), (10, MARKS));
        assert!(store.channels.capacity() < 50);
        // Whether a forgotten channel lost something is not known, so it is said.
        assert!(store.read(0, 5, &interest(&["c/7"]), ALL).trimmed.is_some());
        assert!(store.read(store.head - 10, store.head, &interest(&["c/7"]), ALL).trimmed.is_none());
    }

    #[test]
    fn positions_that_are_given_are_taken_and_a_duplicate_leaves_its_own_free() {
        let mut store = store(10, &[]);
        let once = || {
            let mut draft = draft(&["a"]);
            draft.publisher = Some(Publisher::named("ada"));
            draft.id = crate::EventId::new("o-7").expect("valid");
            draft
        };
        let (records, outcomes) = store.append(vec![once(), once(), draft(&["a"])], Numbering::From(4096), 0);
        assert_eq!(outcomes, [Outcome::New(4096), Outcome::Duplicate(4096), Outcome::New(4098)]);
        let places: Vec<_> = records.iter().map(|record| record.place.expect("stored")).collect();
        assert_eq!((places[1].seq, places[1].prev), (4098, 4096));
        store.append(vec![draft(&["b"])], Numbering::From(8192), 0);
        store.drop_before(8192);
        assert_eq!(seqs(&store.read(0, 9000, &interest(&["*"]), ALL)), [8192]);
        assert_eq!(store.read(4096, 9000, &interest(&["a"]), ALL).trimmed, Some(4098));
        store.begin_anew(99_999);
        let page = store.read(5, 99_999, &interest(&["a"]), ALL);
        assert_eq!((page.records.len(), page.trimmed, store.head()), (0, Some(99_999), 99_999));
    }
}
