//! Where a client is: a position in the log, and the opaque token that says so on the wire.

use std::fmt;
use std::sync::Arc;

use rand::RngExt;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};

/// A position in the log: strictly increasing in commit order over all channels, never reused; 0 is before the
/// first event.
pub type Seq = u64;

/// One past the largest [`Seq`]: JSON numbers are exact below it.
const SEQ_END: Seq = 1 << 53;
const SEQ_DIGITS: usize = 16;
const NAME_LENGTH: usize = 6;

/// The name of a log, or of one run of its writer: random, so that two timelines never share one by counting.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// A new random name.
    #[must_use]
    pub fn mint() -> Self {
        let name: String = rand::rng().sample_iter(Alphanumeric).take(NAME_LENGTH).map(char::from).collect();
        Self(name.into())
    }

    /// The name that was minted before: for logs, which read back what [`Name::as_str`] gave.
    #[must_use]
    pub fn restore(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client's position as a token, opaque to clients: at most 128 bytes of `[A-Za-z0-9._~-]`.
///
/// The log is one total order, so one number stands for the whole vector of a client's positions: it has seen every
/// event of its channels up to there. The name of the log and of the writer's term say which order is meant. Only while
/// channels that were added to a live client are catching up does the token name their positions, each under a short name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    log: Name,
    term: Name,
    seq: Seq,
    exceptions: Exceptions,
}

impl Cursor {
    /// The longest token, in bytes: past it a browser on another origin would have to ask first.
    pub const MAX_BYTES: usize = 128;

    /// Reads a token; nothing if it is none.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        if token.len() > Self::MAX_BYTES {
            return None;
        }
        let mut positions = token.split('~');
        let mut parts = positions.next()?.split('.');
        let (log, term, seq) = (parts.next()?, parts.next()?, parts.next()?);
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if parts.next().is_some() || !is_name(log) || !is_name(term) {
            return None;
        }
        let mut exceptions = Vec::new();
        for exception in positions {
            let (tags, seq) = exception.split_once('-')?;
            let seq = parse_seq(seq)?;
            for tag in tags.split('.') {
                exceptions.push((Tag::parse(tag)?, seq));
            }
        }
        let exceptions = Exceptions::new(exceptions);
        Some(Self { log: Name(log.into()), term: Name(term.into()), seq: parse_seq(seq)?, exceptions })
    }

    /// The position in the log that it stands for; channels that were catching up aside.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Where what bears this tag stands.
    pub(crate) fn position_of(&self, tag: Tag) -> Seq {
        let exception = self.exceptions.0.iter().find(|(known, _)| *known == tag);
        exception.map_or(self.seq, |&(_, seq)| seq)
    }

    /// Whether it stands for more than one position.
    pub(crate) fn has_exceptions(&self) -> bool {
        !self.exceptions.0.is_empty()
    }

    /// The same client when it has read everything up to `seq`.
    pub(crate) fn advanced(&self, seq: Seq) -> Self {
        let base = self.seq.max(seq);
        let behind = self.exceptions.0.iter().map(|&(tag, at)| (tag, at.max(seq)));
        Self {
            log: self.log.clone(),
            term: self.term.clone(),
            seq: base,
            exceptions: Exceptions::new(behind.filter(|&(_, at)| at != base)),
        }
    }
}

fn parse_seq(digits: &str) -> Option<Seq> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&seq| is_number && seq < SEQ_END)
}

/// What stands elsewhere than the rest of a client, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Exceptions(Box<[(Tag, Seq)]>);

impl Exceptions {
    /// As many bytes of the longest token as are left for them, behind names of the usual length.
    pub(crate) const ROOM: usize = Cursor::MAX_BYTES - (2 * NAME_LENGTH + 2 + SEQ_DIGITS);

    pub(crate) fn new(exceptions: impl IntoIterator<Item = (Tag, Seq)>) -> Self {
        let mut exceptions: Vec<_> = exceptions.into_iter().collect();
        exceptions.sort_unstable_by_key(|&(tag, seq)| (seq, tag));
        Self(exceptions.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes so many tags take at one position, whatever that is.
    pub(crate) fn bytes_for(tags: usize) -> usize {
        (Tag::LENGTH + 1) * tags + 1 + SEQ_DIGITS
    }

    /// Whether a cursor has room for them.
    pub(crate) fn fits(&self) -> bool {
        self.to_string().len() <= Self::ROOM
    }
}

/// `~` and the tags that stand at one position, with `.` between, `-` and the position; then those at the next.
impl fmt::Display for Exceptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (tag, seq)) in self.0.iter().enumerate() {
            let is_at = |other: Option<&(Tag, Seq)>| other.is_some_and(|(_, other)| other == seq);
            let is_first = !is_at(at.checked_sub(1).and_then(|before| self.0.get(before)));
            write!(f, "{}{tag}", if is_first { '~' } else { '.' })?;
            if !is_at(self.0.get(at + 1)) {
                write!(f, "-{seq}")?;
            }
        }
        Ok(())
    }
}

/// Names what is catching up, in a cursor: a short digest of what it follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tag([u8; Self::LENGTH]);

impl Tag {
    const LENGTH: usize = 6;
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// The tag of what these parts name together.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut tag = [b'0'; Self::LENGTH];
        for (digit, byte) in tag.iter_mut().zip(digest.finalize()) {
            *digit = Self::DIGITS.get(usize::from(byte % 32)).copied().unwrap_or(b'0');
        }
        Self(tag)
    }

    fn parse(text: &str) -> Option<Self> {
        let tag: [u8; Self::LENGTH] = text.as_bytes().try_into().ok()?;
        tag.iter().all(u8::is_ascii_alphanumeric).then_some(Self(tag))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.log.0, self.term.0, self.seq, self.exceptions)
    }
}

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The order that is being written: gives positions their tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline(Arc<Order>);

#[derive(Debug, PartialEq, Eq)]
struct Order {
    log: Name,
    term: Name,
}

impl Timeline {
    /// The token for a position.
    #[must_use]
    pub fn cursor(&self, seq: Seq) -> Cursor {
        self.cursor_except(seq, &Exceptions::default())
    }

    /// The name of the log.
    pub(crate) fn log_name(&self) -> &str {
        self.0.log.as_str()
    }

    /// The token for a position that may not be that of `exceptions`, of which there are at most as many as fit.
    pub(crate) fn cursor_except(&self, seq: Seq, exceptions: &Exceptions) -> Cursor {
        let exceptions = Exceptions::new(exceptions.0.iter().copied().filter(|&(_, at)| at != seq));
        Cursor { log: self.0.log.clone(), term: self.0.term.clone(), seq, exceptions }
    }
}

/// What a cursor that cannot be resumed suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// It is of another log.
    OtherLog,
    /// It is of a stretch of this log that was lost: a backup was put back, or a tail did not survive.
    LostTerm,
    /// It is beyond the newest event.
    Ahead,
    /// It is no cursor.
    Malformed,
}

impl ResetReason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherLog => "other_log",
            Self::LostTerm => "lost_term",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
        }
    }
}

/// The terms of a log in order: each start of the writer takes a new random term from its first position on.
///
/// A lost tail is told by it: the term that follows begins where the tail was cut, so positions beyond that in the
/// older term are no longer of this log, although their numbers may have been taken again.
#[derive(Debug, Clone)]
pub struct Lineage {
    terms: Vec<(Name, Seq)>,
    current: Timeline,
}

impl Lineage {
    /// The lineage of a log whose writer has just begun `current` with `first` as the next position; `earlier` are
    /// the terms before it, oldest first.
    #[must_use]
    pub fn new(log: Name, mut earlier: Vec<(Name, Seq)>, current: Name, first: Seq) -> Self {
        earlier.push((current.clone(), first));
        Self { terms: earlier, current: Timeline(Arc::new(Order { log, term: current })) }
    }

    /// The order that is being written.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.current.clone()
    }

    /// Whether a cursor is a position of this log whose newest event is `head`.
    ///
    /// # Errors
    ///
    /// Why it is not. [`ResetReason::Ahead`] may pass by waiting.
    pub fn locate(&self, cursor: &Cursor, head: Seq) -> Result<Seq, ResetReason> {
        if cursor.log != self.current.0.log {
            return Err(ResetReason::OtherLog);
        }
        let Some(place) = self.terms.iter().position(|(term, _)| *term == cursor.term) else {
            return Err(ResetReason::LostTerm);
        };
        let newest =
            cursor.exceptions.0.iter().map(|&(_, seq)| seq).chain([cursor.seq]).max().unwrap_or(cursor.seq);
        match self.terms.get(place + 1) {
            Some(&(_, next)) if newest >= next => Err(ResetReason::LostTerm),
            _ if newest > head => Err(ResetReason::Ahead),
            _ => Ok(cursor.seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lineage() -> (Lineage, Name, Name) {
        let (old, new) = (Name::mint(), Name::mint());
        (Lineage::new(Name::mint(), vec![(old.clone(), 1)], new.clone(), 11), old, new)
    }

    #[test]
    fn a_cursor_reads_back_and_is_short() {
        let (lineage, ..) = lineage();
        let cursor = lineage.timeline().cursor(SEQ_END - 1);
        let token = cursor.to_string();
        assert_eq!(Cursor::parse(&token), Some(cursor));
        assert!(token.len() <= 32, "{token}");
    }

    #[test]
    fn what_is_catching_up_is_named_and_fits() {
        let (lineage, ..) = lineage();
        let tag = |n: u8| Tag::of([[n].as_slice()]);
        let exceptions = Exceptions::new((0..4).map(|n| (tag(n), SEQ_END - 2 - u64::from(n))));
        assert_eq!(exceptions.to_string().len(), 4 * Exceptions::bytes_for(1));
        assert!(exceptions.fits());
        let together = Exceptions::new((0..11).map(|n| (tag(n), SEQ_END - 2)));
        assert_eq!(together.to_string().len(), Exceptions::bytes_for(11));
        assert!(together.fits());
        let cursor = lineage.timeline().cursor_except(SEQ_END - 1, &together);
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        let cursor = lineage.timeline().cursor_except(SEQ_END - 1, &exceptions);
        let token = cursor.to_string();
        assert!(token.len() <= Cursor::MAX_BYTES, "{token}");
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)), "{token}");
        assert_eq!(Cursor::parse(&token), Some(cursor.clone()));
        assert_eq!((cursor.position_of(tag(3)), cursor.position_of(tag(4))), (SEQ_END - 5, SEQ_END - 1));
        assert_eq!(lineage.locate(&cursor, SEQ_END - 2), Err(ResetReason::Ahead));
        assert_ne!(Tag::of([b"ab".as_slice(), b"c"]), Tag::of([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn what_is_no_cursor_is_told() {
        for bad in [
            "",
            "a.b",
            "a.b.",
            "a.b.c",
            "a.b.-1",
            "a.b.+1",
            "a.b.1.2",
            "..1",
            "a b.c.1",
            "a.b.9007199254740992",
            "a.b.1\n",
            "a.b.1~",
            "a.b.1~abcdef",
            "a.b.1~abcde-1",
            "a.b.1~abcdef-",
            "a.b.1~abcdef-1.2",
            "a.b.1~abcdef.-1",
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Cursor::parse(&format!("a.b.{}1", "0".repeat(200))), None);
    }

    #[test]
    fn a_position_is_of_the_log_or_it_is_told_why_not() {
        let (lineage, old, new) = lineage();
        let cursor = |term: &Name, seq| Cursor {
            log: lineage.current.0.log.clone(),
            term: term.clone(),
            seq,
            exceptions: Exceptions::default(),
        };
        assert_eq!(lineage.locate(&cursor(&old, 10), 20), Ok(10));
        assert_eq!(lineage.locate(&cursor(&old, 11), 20), Err(ResetReason::LostTerm));
        assert_eq!(lineage.locate(&cursor(&new, 20), 20), Ok(20));
        assert_eq!(lineage.locate(&cursor(&new, 21), 20), Err(ResetReason::Ahead));
        assert_eq!(lineage.locate(&cursor(&Name::mint(), 1), 20), Err(ResetReason::LostTerm));
        let stranger = Cursor { log: Name::mint(), term: new, seq: 1, exceptions: Exceptions::default() };
        assert_eq!(lineage.locate(&stranger, 20), Err(ResetReason::OtherLog));
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back_and_fits(seq in 0..SEQ_END, behind in prop::collection::vec((any::<u8>(), 0..SEQ_END), 0..12)) {
            let exceptions = Exceptions::new(behind.into_iter().map(|(tag, seq)| (Tag::of([[tag].as_slice()]), seq)));
            prop_assume!(exceptions.fits());
            let cursor = lineage().0.timeline().cursor_except(seq, &exceptions);
            let token = cursor.to_string();
            prop_assert!(token.len() <= Cursor::MAX_BYTES, "{}", token);
            prop_assert_eq!(Cursor::parse(&token), Some(cursor));
        }

        #[test]
        fn what_is_taken_is_said_the_same_way(token in "[0-9a-zA-Z]{1,9}\\.[0-9a-zA-Z]{1,9}\\.[0-9]{1,17}(~[0-9a-hjkmnp-tv-z]{6}(\\.[0-9a-hjkmnp-tv-z]{5,7}){0,3}-[0-9]{1,16}){0,3}[.~-]?") {
            if let Some(cursor) = Cursor::parse(&token) {
                let said = cursor.to_string();
                prop_assert!(said.len() <= Cursor::MAX_BYTES && token.len() <= Cursor::MAX_BYTES);
                prop_assert_eq!(Cursor::parse(&said), Some(cursor));
            }
        }

        #[test]
        fn no_token_panics(token in any::<String>()) {
            if let Some(cursor) = Cursor::parse(&token) {
                prop_assert!(cursor.seq() < SEQ_END);
            }
        }
    }
}
