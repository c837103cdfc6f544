//! What is kept of each of very many, found by an id.
//!
//! A hash table has more places than entries, twice as many on the way. Here only numbers lie in such a table, and each entry
//! with its id once, side by side with the others: it costs little more than itself.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use slab::Slab;

/// The number of an entry.
pub(crate) type Key = u32;

#[derive(Debug)]
pub(crate) struct Roster<I, T> {
    entries: Slab<(I, T)>,
    /// The numbers of all entries, by the hashes of their ids.
    keys: HashTable<Key>,
    hasher: RandomState,
}

impl<I, T> Default for Roster<I, T> {
    fn default() -> Self {
        Self { entries: Slab::new(), keys: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<I, T> Roster<I, T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&I, &T)> {
        self.entries.iter().map(|(_, (id, kept))| (id, kept))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.iter().map(|(key, _)| key as Key)
    }

    /// What has a number, and its id.
    pub(crate) fn at(&self, key: Key) -> Option<(&I, &T)> {
        self.entries.get(key as usize).map(|(id, kept)| (id, kept))
    }
}

impl<I: Hash + Eq, T> Roster<I, T> {
    pub(crate) fn key(&self, id: &I) -> Option<Key> {
        let is_it = |key: &Key| self.entries.get(*key as usize).is_some_and(|(known, _)| known == id);
        self.keys.find(self.hasher.hash_one(id), is_it).copied()
    }

    pub(crate) fn contains(&self, id: &I) -> bool {
        self.key(id).is_some()
    }

    pub(crate) fn get(&self, id: &I) -> Option<&T> {
        let (_, kept) = self.at(self.key(id)?)?;
        Some(kept)
    }

    pub(crate) fn get_mut(&mut self, id: &I) -> Option<&mut T> {
        let key = self.key(id)?;
        self.entries.get_mut(key as usize).map(|(_, kept)| kept)
    }

    /// Keeps this under an id, in the place of what was kept under it. Its number is good until [`Roster::compact`] says
    /// otherwise.
    pub(crate) fn insert(&mut self, id: I, kept: T) -> Key {
        if let Some(key) = self.key(&id) {
            if let Some((_, known)) = self.entries.get_mut(key as usize) {
                *known = kept;
            }
            return key;
        }
        let Self { entries, keys, hasher } = self;
        let hash = hasher.hash_one(&id);
        // More than 2^32 connections do not fit a machine.
        let key = entries.insert((id, kept)) as Key;
        keys.insert_unique(hash, key, |key| hash_at(entries, hasher, *key));
        key
    }

    /// Changes what is kept under an id, which is its default at first.
    pub(crate) fn update(&mut self, id: I, change: impl FnOnce(&mut T))
    where
        T: Default,
    {
        let key = self.key(&id).unwrap_or_else(|| self.insert(id, T::default()));
        if let Some((_, kept)) = self.entries.get_mut(key as usize) {
            change(kept);
        }
    }

    pub(crate) fn remove(&mut self, id: &I) -> Option<T> {
        let Self { entries, keys, hasher } = self;
        let is_it = |key: &Key| entries.get(*key as usize).is_some_and(|(known, _)| known == id);
        let found = keys.find_entry(hasher.hash_one(id), is_it).ok()?;
        let (key, _) = found.remove();
        entries.try_remove(key as usize).map(|(_, kept)| kept)
    }

    /// Gives memory back after a crowd has left, so that what was held for it is not held for ever. `moved` is told of what has
    /// another number from then on: its id, what it is, the old number, and the new.
    pub(crate) fn compact(&mut self, mut moved: impl FnMut(&I, &T, Key, Key)) {
        let Self { entries, keys, hasher } = self;
        if entries.len() * 4 >= entries.capacity() {
            return;
        }
        entries.compact(|(id, kept), from, to| {
            let (from, to) = (from as Key, to as Key);
            if let Some(key) = keys.find_mut(hasher.hash_one(&*id), |key| *key == from) {
                *key = to;
            }
            moved(id, kept, from, to);
            true
        });
        keys.shrink_to(entries.len() * 2, |key| hash_at(entries, hasher, *key));
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity().max(self.keys.capacity())
    }
}

fn hash_at<I: Hash, T>(entries: &Slab<(I, T)>, hasher: &RandomState, key: Key) -> u64 {
    // Whoever is in the table is among the entries.
    entries.get(key as usize).map_or(0, |(id, _)| hasher.hash_one(id))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Do {
        Insert(u8, u32),
        Remove(u8),
        Compact,
    }

    fn step() -> impl Strategy<Value = Do> {
        prop_oneof![
            4 => (any::<u8>(), any::<u32>()).prop_map(|(id, kept)| Do::Insert(id, kept)),
            5 => any::<u8>().prop_map(Do::Remove),
            1 => Just(Do::Compact),
        ]
    }

    proptest! {
        /// It is a map, whatever is done to it, and the numbers that it gave out are right.
        #[test]
        fn it_has_what_a_map_would_have(steps in prop::collection::vec(step(), 0..600)) {
            let mut roster = Roster::<u8, u32>::default();
            let mut map = HashMap::<u8, u32>::new();
            let mut keys = HashMap::<u8, Key>::new();
            for step in steps {
                match step {
                    Do::Insert(id, kept) => {
                        keys.insert(id, roster.insert(id, kept));
                        map.insert(id, kept);
                    }
                    Do::Remove(id) => {
                        keys.remove(&id);
                        prop_assert_eq!(roster.remove(&id), map.remove(&id));
                    }
                    Do::Compact => roster.compact(|_, _, from, to| {
                        keys.values_mut().filter(|key| **key == from).for_each(|key| *key = to);
                    }),
                }
                prop_assert_eq!(roster.len(), map.len());
            }
            for id in 0..=u8::MAX {
                prop_assert_eq!(roster.get(&id), map.get(&id));
                prop_assert_eq!(roster.key(&id), keys.get(&id).copied());
            }
            let listed: HashMap<_, _> = roster.iter().map(|(&id, &kept)| (id, kept)).collect();
            prop_assert_eq!(listed, map);
        }
    }

    #[test]
    fn what_a_crowd_took_is_given_back() {
        let mut roster = Roster::default();
        for n in 0..10_000 {
            roster.update(n, |kept| *kept = n);
        }
        for n in 0..9_990 {
            roster.remove(&n);
        }
        roster.compact(|_, _, _, _| {});
        assert!(roster.capacity() < 100);
        assert_eq!((roster.len(), roster.get(&9_995)), (10, Some(&9_995)));
    }
}
