//! The newest events, held in memory: what a client that was away for a moment has missed is answered from here, and a
//! crowd that comes back at once does not touch the log. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::log::PageLimit;
use super::spare::Spare;
use crate::channel::{Channel, Selector};
use crate::cursor::{Seq, Timeline};
use crate::interest::Interest;
use crate::record::Record;
use crate::wire::{Encoding, Frames};

/// Selectors that are tried for one answer, so that no single client holds up the broker.
const TRIED: usize = 16_384;

/// A bounded, gapless tail of the log, with the bytes of each event once it was written in an encoding.
#[derive(Debug)]
pub(crate) struct Ring {
    max_events: usize,
    max_bytes: usize,
    held: VecDeque<Held>,
    bytes: usize,
    /// Every event after this position is held.
    floor: Seq,
    /// The positions of each channel, so that who follows few pays for few.
    by_channel: HashMap<Channel, VecDeque<Seq>>,
    /// What the log has removed of the events held: who comes from before that is told by the log.
    trims: HashMap<Channel, Seq>,
}

#[derive(Debug)]
struct Held {
    seq: Seq,
    record: Arc<Record>,
    frames: Frames,
    weight: usize,
}

/// What a client missed, or the first of it.
#[derive(Debug)]
pub(crate) struct Slice<F = Bytes> {
    pub(crate) frames: Vec<F>,
    /// It has everything of interest up to here.
    pub(crate) through: Seq,
    /// Whether that is all there is.
    pub(crate) is_whole: bool,
}

impl Ring {
    /// An empty ring behind `head`.
    pub(crate) fn new(max_events: usize, max_bytes: usize, head: Seq) -> Self {
        Self {
            max_events,
            max_bytes,
            held: VecDeque::new(),
            bytes: 0,
            floor: head,
            by_channel: HashMap::new(),
            trims: HashMap::new(),
        }
    }

    /// Appends the event at `seq`, which is newer than all before; the oldest leave when it is full.
    pub(crate) fn push(&mut self, seq: Seq, record: Arc<Record>, frames: Frames) {
        // The bytes in an encoding may come later; there are hardly ever more than in one.
        let weight = 2 * record.draft.weight();
        self.bytes += weight;
        for channel in record.draft.channels.iter() {
            self.by_channel.entry(channel.clone()).or_default().push_back(seq);
        }
        self.held.push_back(Held { seq, record, frames, weight });
        while self.held.len() > self.max_events || self.bytes > self.max_bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.held.pop_front() else { return };
        self.bytes -= oldest.weight;
        self.floor = oldest.seq;
        for channel in oldest.record.draft.channels.iter() {
            let Some(seqs) = self.by_channel.get_mut(channel) else { continue };
            seqs.pop_front();
            if seqs.is_empty() {
                self.by_channel.remove(channel);
                self.trims.remove(channel);
            }
        }
        self.held.give_back();
        self.by_channel.give_back();
        self.trims.give_back();
    }

    /// The log has removed a channel's events up to here.
    pub(crate) fn trim(&mut self, channel: Channel, through: Seq) {
        if self.by_channel.get(&channel).and_then(VecDeque::front).is_some_and(|&first| first <= through) {
            self.trims.insert(channel, through);
        }
    }

    /// Whether every event after `position` is held, and none of interest is one that the log has removed.
    pub(crate) fn covers(&self, position: Seq, interest: &Interest) -> bool {
        position >= self.floor && !self.has_lost(position, interest)
    }

    fn has_lost(&self, position: Seq, interest: &Interest) -> bool {
        if self.trims.is_empty() {
            return false;
        }
        let is_trimmed = |channel| self.trims.get(&channel).is_some_and(|&through| through > position);
        if interest.named().any(is_trimmed) {
            return true;
        }
        interest.subscription.selectors().any(Selector::is_pattern)
            && self.trims.iter().any(|(channel, &through)| through > position && interest.selects(channel))
    }

    /// The events of interest after `position`, which the ring must cover, as many as fit a page; in an encoding.
    pub(crate) fn after(
        &mut self,
        position: Seq,
        interest: &Interest,
        encoding: Encoding,
        timeline: &Timeline,
        limit: PageLimit,
    ) -> Slice {
        self.take(position, interest, limit, |held| {
            let frame = held.frames.encode(encoding, &held.record, timeline).clone();
            let bytes = frame.len();
            (frame, bytes)
        })
    }

    /// As [`Ring::after`], for those who take events as they are.
    pub(crate) fn records_after(
        &mut self,
        position: Seq,
        interest: &Interest,
        limit: PageLimit,
    ) -> Slice<Arc<Record>> {
        self.take(position, interest, limit, |held| (held.record.clone(), held.record.draft.weight()))
    }

    /// `take` gives what is handed out of an event, and how many bytes of a page that is.
    fn take<F>(
        &mut self,
        position: Seq,
        interest: &Interest,
        limit: PageLimit,
        mut take: impl FnMut(&mut Held) -> (F, usize),
    ) -> Slice<F> {
        let newest = self.held.back().map_or(self.floor, |held| held.seq).max(position);
        let mut slice = Slice { frames: Vec::new(), through: newest, is_whole: true };
        let mut bytes = 0;
        let mut take = |held: &mut Held, slice: &mut Slice<F>| {
            if interest.covers_event(&held.record.draft) {
                let (frame, weight) = take(held);
                bytes += weight;
                slice.frames.push(frame);
            }
            let is_full = slice.frames.len() >= limit.events || bytes >= limit.bytes;
            if is_full && held.seq < newest {
                (slice.through, slice.is_whole) = (held.seq, false);
            }
            is_full
        };
        if let Some(seqs) = self.named_after(position, interest) {
            for seq in seqs {
                let at = self.held.partition_point(|held| held.seq < seq);
                if let Some(held) = self.held.get_mut(at)
                    && take(held, &mut slice)
                {
                    break;
                }
            }
            return slice;
        }
        let selectors = interest.subscription.selectors().count().max(1);
        let start = self.held.partition_point(|held| held.seq <= position);
        let mut left = (TRIED / selectors).max(64);
        for held in self.held.range_mut(start..) {
            if left == 0 {
                (slice.through, slice.is_whole) = (held.seq - 1, false);
                break;
            }
            left -= 1;
            if take(held, &mut slice) {
                break;
            }
        }
        slice
    }

    /// The positions after `position` of a client that follows channels by name alone, in order.
    fn named_after(&self, position: Seq, interest: &Interest) -> Option<Vec<Seq>> {
        if interest.subscription.selectors().any(Selector::is_pattern) {
            return None;
        }
        let mut all = Vec::new();
        for channel in interest.named() {
            if let Some(seqs) = self.by_channel.get(&channel) {
                let first = seqs.partition_point(|&seq| seq <= position);
                all.extend(seqs.range(first..));
            }
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// The position that the last `last` events of interest come after, if the ring can tell.
    pub(crate) fn before_last(&self, last: u64, interest: &Interest) -> Option<Seq> {
        let selectors = interest.subscription.selectors().count().max(1);
        if last == 0 {
            return Some(self.held.back().map_or(self.floor, |held| held.seq));
        }
        let mut left = last;
        for held in self.held.iter().rev().take((TRIED / selectors).max(64)) {
            left -= u64::from(interest.covers_event(&held.record.draft));
            if left == 0 {
                return Some(held.seq - 1);
            }
        }
        // Nothing came before an empty floor, so there are no more to find.
        let is_all = self.held.len() <= (TRIED / selectors).max(64);
        (is_all && self.floor == 0).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Channel, Selector};
    use crate::cursor::{Lineage, Name};
    use crate::event::Event;
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Subscription};
    use crate::record::Draft;

    const ALL: PageLimit = PageLimit { events: usize::MAX, bytes: usize::MAX };

    fn ring(max_events: usize, channels: &[&str]) -> Ring {
        let mut ring = Ring::new(max_events, usize::MAX, 0);
        for (n, name) in channels.iter().enumerate() {
            let channel = Channel::new(name).expect("valid");
            let event = Event::text("x", (n + 1).to_string()).expect("valid");
            let draft = Draft::new(event, [channel].into(), Publisher::HUB, 0);
            let seq = n as Seq + 1;
            ring.push(seq, Arc::new(Record::committed(draft, seq, 0)), Frames::default());
        }
        ring
    }

    fn interest(text: &str) -> Interest {
        let selector = Selector::new(text).expect("valid");
        Interest::new(SessionId::mint(), Subscription::new([selector], Filter::default()))
    }

    fn after(ring: &mut Ring, position: Seq, text: &str) -> usize {
        let timeline = Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline();
        ring.after(position, &interest(text), Encoding::SseRaw, &timeline, ALL).frames.len()
    }

    #[test]
    fn covers_what_it_holds_without_a_gap() {
        let mut ring = ring(3, &["a", "b", "a", "b", "a"]);
        let covers = |ring: &Ring, position| ring.covers(position, &interest("a"));
        assert!(!covers(&ring, 1) && covers(&ring, 2) && covers(&ring, 5));
        assert_eq!(after(&mut ring, 2, "a"), 2);
        assert_eq!(after(&mut ring, 3, "*"), 2);
        assert_eq!(after(&mut ring, 5, "*"), 0);
    }

    #[test]
    fn what_the_log_has_removed_is_not_handed_out() {
        let mut ring = ring(10, &["a", "b", "a", "b"]);
        ring.trim(Channel::new("a").expect("valid"), 1);
        assert!(!ring.covers(0, &interest("a")) && !ring.covers(0, &interest("*")));
        assert!(ring.covers(1, &interest("a")) && ring.covers(0, &interest("b")));
    }

    #[test]
    fn finds_the_last_n_or_says_that_it_cannot() {
        let small = ring(3, &["a", "b", "a", "b", "a"]);
        assert_eq!(small.before_last(1, &interest("a")), Some(4));
        assert_eq!(small.before_last(2, &interest("a")), Some(2));
        assert_eq!(small.before_last(3, &interest("a")), None);
        let whole = ring(10, &["a", "b", "a"]);
        assert_eq!(whole.before_last(9, &interest("a")), Some(0));
        assert_eq!(whole.before_last(0, &interest("a")), Some(3));
    }

    #[test]
    fn what_was_missed_comes_in_pages() {
        let mut ring = ring(100, &["a", "b", "a", "b", "a", "b"]);
        let timeline = Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline();
        for text in ["a", "a/**"] {
            let (mut position, mut pages) = (0, Vec::new());
            loop {
                let limit = PageLimit { events: 2, bytes: usize::MAX };
                let slice = ring.after(position, &interest(text), Encoding::SseRaw, &timeline, limit);
                pages.push((slice.frames.len(), slice.through));
                position = slice.through;
                if slice.is_whole {
                    break;
                }
            }
            assert_eq!(pages, [(2, 3), (1, 6)], "{text}");
        }
    }

    #[test]
    fn an_event_is_written_once_for_all_who_missed_it() {
        let mut ring = ring(3, &["a"]);
        let timeline = Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline();
        let one = ring.after(0, &interest("a"), Encoding::SseRaw, &timeline, ALL).frames;
        let two = ring.after(0, &interest("**"), Encoding::SseRaw, &timeline, ALL).frames;
        assert_eq!(one[0].as_ptr(), two[0].as_ptr());
    }
}
