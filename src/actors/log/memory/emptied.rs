//! What is remembered of channels that have no event left. Pure.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use crate::actors::spare::Spare;
use crate::channel::Channel;
use crate::cursor::Seq;

/// The last position of each channel whose events are all gone, for a bounded number of them.
///
/// Their names are not kept: very many of them, each in a piece of memory of its own among those of events that have
/// left, would hold on to all the memory that those took. A hash by keys that nobody knows stands for a name; that two
/// names have the same is less likely than that the machine errs.
#[derive(Debug)]
pub(super) struct Emptied {
    max: usize,
    keys: RandomState,
    last: HashMap<u64, Seq>,
    order: VecDeque<(u64, Seq)>,
    forgotten: Seq,
}

impl Emptied {
    /// Nothing is known of any channel up to `forgotten`; `max` are remembered.
    pub(super) fn new(max: usize, forgotten: Seq) -> Self {
        Self { max, keys: RandomState::new(), last: HashMap::new(), order: VecDeque::new(), forgotten }
    }

    /// A channel has lost its last event, at `seq`.
    pub(super) fn note(&mut self, channel: &Channel, seq: Seq) {
        let key = self.keys.hash_one(channel);
        self.last.insert(key, seq);
        self.order.push_back((key, seq));
        while self.order.len() > self.max
            && let Some((key, seq)) = self.order.pop_front()
        {
            // It may have had events again since it was noted, and then been noted again.
            if self.last.get(&key) == Some(&seq) {
                self.last.remove(&key);
                self.forgotten = self.forgotten.max(seq);
            }
        }
    }

    /// The position of the last event of a channel that has one again.
    pub(super) fn take(&mut self, channel: &Channel) -> Option<Seq> {
        let last = self.last.remove(&self.keys.hash_one(channel));
        self.last.give_back();
        last
    }

    /// Up to where a channel without events may have lost some.
    pub(super) fn lost(&self, channel: &Channel) -> Seq {
        self.last.get(&self.keys.hash_one(channel)).copied().unwrap_or(self.forgotten)
    }

    /// Channels that nothing is known of may have lost events up to here.
    pub(super) fn forgotten(&self) -> Seq {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_of_others_the_worst_is_said() {
        let channel = |name: &str| Channel::new(name).expect("valid");
        let mut emptied = Emptied::new(2, 0);
        emptied.note(&channel("a"), 1);
        emptied.note(&channel("b"), 2);
        assert_eq!((emptied.lost(&channel("a")), emptied.lost(&channel("never"))), (1, 0));
        assert_eq!((emptied.take(&channel("a")), emptied.take(&channel("a"))), (Some(1), None));
        emptied.note(&channel("a"), 3);
        assert_eq!(emptied.forgotten(), 0, "it was noted again");
        emptied.note(&channel("c"), 4);
        assert_eq!((emptied.lost(&channel("b")), emptied.lost(&channel("a"))), (2, 3));
        assert_eq!((emptied.forgotten(), emptied.last.len()), (2, 2));
    }
}
