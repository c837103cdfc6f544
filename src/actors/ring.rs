//! The newest events, held in memory: what a client that was away for a moment has missed is answered from here, and a
//! crowd that comes back at once does not touch the log. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Seq, Timeline};
use crate::interest::Interest;
use crate::record::Record;
use crate::wire::{Encoding, Frames};

/// A bounded, gapless tail of the log, with the bytes of each event once it was written in an encoding.
#[derive(Debug)]
pub(crate) struct Ring {
    max_events: usize,
    max_bytes: usize,
    held: VecDeque<Held>,
    bytes: usize,
    /// Every event after this position is held.
    floor: Seq,
}

#[derive(Debug)]
struct Held {
    seq: Seq,
    record: Arc<Record>,
    frames: Frames,
}

impl Ring {
    /// An empty ring behind `head`.
    pub(crate) fn new(max_events: usize, max_bytes: usize, head: Seq) -> Self {
        Self { max_events, max_bytes, held: VecDeque::new(), bytes: 0, floor: head }
    }

    /// Appends the event at `seq`, which is newer than all before; the oldest leave when it is full.
    pub(crate) fn push(&mut self, seq: Seq, record: Arc<Record>, frames: Frames) {
        self.bytes += record.draft.weight();
        self.held.push_back(Held { seq, record, frames });
        while self.held.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.held.pop_front() else { break };
            self.bytes -= oldest.record.draft.weight();
            self.floor = oldest.seq;
        }
    }

    /// Whether every event after `position` is held.
    pub(crate) fn covers(&self, position: Seq) -> bool {
        position >= self.floor
    }

    /// The events of interest after `position`, which the ring must cover.
    pub(crate) fn after(
        &mut self,
        position: Seq,
        interest: &Interest,
        encoding: Encoding,
        timeline: &Timeline,
    ) -> Vec<Bytes> {
        let start = self.held.partition_point(|held| held.seq <= position);
        self.held
            .range_mut(start..)
            .filter(|held| interest.covers(&held.record))
            .map(|held| held.frames.encode(encoding, &held.record, timeline).clone())
            .collect()
    }

    /// The position that the last `last` events of interest come after, if the ring can tell.
    pub(crate) fn before_last(&self, last: u64, interest: &Interest) -> Option<Seq> {
        let mut left = last;
        for held in self.held.iter().rev() {
            if left == 0 {
                return Some(held.seq);
            }
            left -= u64::from(interest.covers(&held.record));
        }
        // Nothing came before an empty floor, so there are no more to find.
        (left == 0 || self.floor == 0).then_some(self.floor)
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
        Interest {
            session: SessionId::mint(),
            subscription: Subscription::new([selector], Filter::default()),
        }
    }

    fn after(ring: &mut Ring, position: Seq, text: &str) -> usize {
        let timeline = Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline();
        ring.after(position, &interest(text), Encoding::SseRaw, &timeline).len()
    }

    #[test]
    fn covers_what_it_holds_without_a_gap() {
        let mut ring = ring(3, &["a", "b", "a", "b", "a"]);
        assert!(!ring.covers(1) && ring.covers(2) && ring.covers(5));
        assert_eq!(after(&mut ring, 2, "a"), 2);
        assert_eq!(after(&mut ring, 3, "*"), 2);
        assert_eq!(after(&mut ring, 5, "*"), 0);
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
    fn an_event_is_written_once_for_all_who_missed_it() {
        let mut ring = ring(3, &["a"]);
        let timeline = Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline();
        let one = ring.after(0, &interest("a"), Encoding::SseRaw, &timeline);
        let two = ring.after(0, &interest("**"), Encoding::SseRaw, &timeline);
        assert_eq!(one[0].as_ptr(), two[0].as_ptr());
    }
}
