//! Memory that a crowd has left behind: what was held for many is not held for ever.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A collection that can let go of room which it has no use for.
pub(crate) trait Spare {
    /// Lets go of most of the room when less than a quarter of it is in use. Called at each removal it costs little:
    /// whoever wants to see it shrink again has to fill and empty it first.
    fn give_back(&mut self);
}

impl<K: Eq + Hash, V, S: BuildHasher> Spare for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if self.len() * 4 < self.capacity() {
            self.shrink_to(self.len() * 2);
        }
    }
}

impl<T> Spare for VecDeque<T> {
    fn give_back(&mut self) {
        if self.len() * 4 < self.capacity() {
            self.shrink_to(self.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_with_the_crowd_and_stays_for_those_who_are_there() {
        let mut map: HashMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let mut queue: VecDeque<u32> = (0..10_000).collect();
        let (room, places) = (map.capacity(), queue.capacity());
        map.give_back();
        queue.give_back();
        assert_eq!((map.capacity(), queue.capacity()), (room, places));
        map.retain(|n, _| *n < 100);
        queue.truncate(100);
        map.give_back();
        queue.give_back();
        assert!(map.capacity() < 500 && queue.capacity() < 500);
        assert_eq!((map.len(), queue.len(), map[&99]), (100, 100, 99));
    }
}
