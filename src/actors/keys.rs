//! A set of numbers that has one member most of the time, and takes no more room for that than the member.

use std::collections::BTreeSet;

use super::roster::Key;

#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "these sets lie in tables, where each takes the room of the largest"
)]
pub(crate) enum Keys {
    #[default]
    None,
    One(Key),
    More(Box<BTreeSet<Key>>),
}

impl Keys {
    /// True if it was not there.
    pub(crate) fn insert(&mut self, key: Key) -> bool {
        match self {
            Self::None => *self = Self::One(key),
            Self::One(known) if *known == key => return false,
            Self::One(known) => *self = Self::More(Box::new([*known, key].into())),
            Self::More(known) => return known.insert(key),
        }
        true
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        match self {
            Self::One(known) if *known == key => *self = Self::None,
            Self::None | Self::One(_) => return false,
            Self::More(known) => {
                let was_there = known.remove(&key);
                match known.len() {
                    0 => *self = Self::None,
                    1 => *self = known.first().map_or(Self::None, |&only| Self::One(only)),
                    _ => {}
                }
                return was_there;
            }
        }
        true
    }

    /// What was called `from` is called `to`.
    pub(crate) fn renumber(&mut self, from: Key, to: Key) {
        if self.remove(from) {
            self.insert(to);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Key> {
        let (one, more) = match self {
            Self::None => (None, None),
            Self::One(key) => (Some(*key), None),
            Self::More(keys) => (None, Some(keys.iter().copied())),
        };
        one.into_iter().chain(more.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_put_in_and_not_taken_out() {
        let mut keys = Keys::default();
        let has = |keys: &Keys| keys.iter().collect::<Vec<_>>();
        assert!(keys.insert(3) && !keys.insert(3));
        assert!(keys.insert(1) && !keys.insert(1) && keys.insert(2));
        assert!(!keys.remove(9));
        assert_eq!(has(&keys), [1, 2, 3]);
        assert!(keys.remove(1) && keys.remove(3) && !keys.remove(3));
        assert!(matches!(keys, Keys::One(2)));
        keys.renumber(2, 5);
        keys.renumber(2, 7);
        assert_eq!(has(&keys), [5]);
        assert!(keys.remove(5));
        assert!(keys.is_empty() && has(&keys).is_empty());
        // What a table of them takes for each that has one member.
        assert_eq!(size_of::<Keys>(), 16);
    }
}
