//! A set that has one member most of the time, and takes no more room for that than the member.

/// Such a set. A member is put in once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    More(Vec<T>),
}

impl<T: PartialEq> Few<T> {
    pub(crate) fn push(&mut self, member: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(member),
            Self::One(first) => Self::More(vec![first, member]),
            Self::More(mut members) => {
                members.push(member);
                Self::More(members)
            }
        };
    }

    /// Takes a member out, if it is there.
    pub(crate) fn remove(&mut self, member: &T) {
        match self {
            Self::One(only) if only == member => *self = Self::None,
            Self::More(members) => {
                members.retain(|other| other != member);
                if members.len() < 2 {
                    *self = members.pop().map_or(Self::None, Self::One);
                }
            }
            Self::None | Self::One(_) => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        match self {
            Self::None => [].iter(),
            Self::One(member) => std::slice::from_ref(member).iter(),
            Self::More(members) => members.iter(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_put_in_and_not_taken_out() {
        let mut few = Few::default();
        let has = |few: &Few<u32>| few.iter().copied().collect::<Vec<_>>();
        for n in 1..=3 {
            few.push(n);
        }
        few.remove(&9);
        assert_eq!(has(&few), [1, 2, 3]);
        few.remove(&1);
        assert_eq!(has(&few), [2, 3]);
        few.remove(&3);
        assert_eq!(few, Few::One(2));
        few.remove(&3);
        few.remove(&2);
        assert!(few.is_empty() && has(&few).is_empty());
    }
}
