//! Which order a stream is, and what of it there still is. Pure.

use async_nats::jetstream::stream::Info;
use sha2::{Digest, Sha256};

use crate::actors::log::COMMIT_EVENTS;
use crate::actors::log::index::Align;
use crate::cursor::{Lineage, Name, Seq};

/// Positions that each message has, used or not.
const SPAN: u64 = COMMIT_EVENTS as u64;
/// One past the sequence of the last message whose positions are below 2^53.
const SEQUENCES: u64 = (1 << 53) / SPAN;

/// The position of a message's first event; nothing beyond the last.
pub(super) fn first_of(sequence: u64) -> Option<Seq> {
    (sequence < SEQUENCES).then_some(sequence * SPAN)
}

/// The last position that a message may have.
pub(super) fn last_of(sequence: u64) -> Seq {
    sequence.min(SEQUENCES - 1) * SPAN + (SPAN - 1)
}

/// The message that a position is of.
pub(super) fn sequence_of(position: Seq) -> u64 {
    position / SPAN
}

/// A stream as it is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) log: Name,
    term: Name,
    /// The first message that there still is; the one after the last if there is none.
    pub(super) first: u64,
    /// The newest message that there ever was.
    pub(super) last: u64,
}

impl Extent {
    pub(super) fn of(info: &Info) -> Self {
        let state = &info.state;
        let first = if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence.max(1) };
        Self::new(&info.config.name, info.created.unix_timestamp_nanos(), first, state.last_sequence)
    }

    /// A stream that was deleted and made again is another one: its numbers begin anew.
    fn new(stream: &str, created: i128, first: u64, last: u64) -> Self {
        let digest = Sha256::new().chain_update(stream).chain_update([0]).chain_update(created.to_be_bytes());
        let digest = digest.finalize();
        let mut letters = digest.iter().map(|byte| {
            const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
            char::from(ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied().unwrap_or(b'0'))
        });
        let mut name = || Name::restore(letters.by_ref().take(6).collect::<String>());
        Self { log: name(), term: name(), first, last }
    }

    /// The same on every node, and after every restart of one: nobody but the stream gives positions.
    pub(super) fn lineage(&self) -> Lineage {
        Lineage::new(self.log.clone(), Vec::new(), self.term.clone(), 1)
    }

    pub(super) fn align(&self) -> Align {
        let first = if self.first <= 1 { 1 } else { self.first.min(SEQUENCES) * SPAN };
        Align { order: self.log.clone(), first, end: last_of(self.last) + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn continues(extent: &Extent, through: Seq) -> bool {
        extent.align().is_continued_by(Some(&extent.log), through)
    }

    #[test]
    fn positions_are_of_their_message_and_below_the_bound() {
        assert_eq!((first_of(1), last_of(1), sequence_of(8191)), (Some(4096), 8191, 1));
        assert_eq!(first_of(SEQUENCES - 1).map(|first| first + SPAN), Some(1 << 53));
        assert_eq!(first_of(SEQUENCES), None);
    }

    #[test]
    fn a_stream_made_again_is_another() {
        let [one, again, renamed] =
            [("s", 1), ("s", 2), ("t", 1)].map(|(name, created)| Extent::new(name, created, 1, 0));
        assert!(one.log != again.log && one.log != renamed.log && one.log != one.term);
        assert_eq!(one, Extent::new("s", 1, 1, 0));
        assert!(!again.align().is_continued_by(Some(&one.log), 0));
    }

    #[test]
    fn an_index_goes_on_if_it_has_missed_nothing_and_is_not_ahead() {
        let new = Extent::new("s", 1, 1, 0);
        assert!(continues(&new, 0) && !continues(&new, last_of(1)));
        assert_eq!(new.align().start(), 0);
        let full = Extent::new("s", 1, 1, 9);
        assert!(continues(&full, 0) && continues(&full, last_of(9)) && !continues(&full, last_of(10)));
        let trimmed = Extent::new("s", 1, 5, 9);
        assert!(!continues(&trimmed, last_of(3)) && continues(&trimmed, last_of(4)));
        assert_eq!(trimmed.align().start(), last_of(4));
        let empty = Extent::new("s", 1, 10, 9);
        assert!(continues(&empty, last_of(9)) && !continues(&empty, last_of(8)));
        assert!(!empty.align().is_continued_by(None, last_of(9)));
    }
}
