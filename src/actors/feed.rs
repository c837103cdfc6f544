//! A bounded run of encoded frames that many clients read, each from its own place.
//!
//! A live client has no queue: it is a place in the feed of those who follow the same. What is published is appended
//! once, and each client takes everything from its place to the end in one piece. One that falls out at the old end
//! goes back to the log; nobody else notices.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::sink::Sink;
use super::tally::SharedTally;
use crate::counts::Transport;
use crate::cursor::Seq;

/// How much a feed holds for those of its clients that are behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedBounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// As much as a client takes in one go: enough to make writes few, and no more than a connection buffers anyway.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    /// The newest position up to and with this frame.
    through: Seq,
    /// The number of ephemeral frames up to and with this one, over the feed's life.
    ephemerals: u64,
    committed: Instant,
}

/// A client's place in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the frame to read next.
    next: u64,
    /// The number of ephemeral frames before it.
    ephemerals: u64,
}

impl Place {
    /// Whether frame number `offset` comes after all that this place has read.
    pub(crate) fn is_before(self, offset: u64) -> bool {
        self.next < offset
    }
}

/// What a client finds at its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Frames, and the newest position among them, if any.
    Frames { bytes: Bytes, through: Option<Seq> },
    /// It has read everything.
    Nothing,
    /// The frames at its place have left the feed.
    FellOut,
}

/// Whether the members of a feed are being woken, and whether that must be done (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waking {
    No,
    Due,
    UnderWay,
    UnderWayAndDue,
}

#[derive(Debug)]
pub(crate) struct Feed {
    bounds: FeedBounds,
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The number of the first frame held.
    base: u64,
    ephemerals: u64,
    through: Seq,
    /// Those who read, to be woken. A client that fell out is not among them until it is back.
    members: Slab<Rc<Sink>>,
    /// Those who count on this feed, fallen out or not; it goes with the last of them.
    users: usize,
    /// How many members have not read to the end; when it is zero nothing needs to be held.
    behind: usize,
    /// The piece that was read last: its first and last frame, and the bytes, which the next client wants as well.
    piece: Option<Box<(u64, u64, Bytes)>>,
    waking: Waking,
    /// How many members were woken so far.
    woken: usize,
    /// The event that it was given last, so that an event of several channels comes once.
    last_given: u64,
    /// How its readers are connected, and where what they take is counted.
    transport: Transport,
    tally: SharedTally,
}

impl Feed {
    pub(crate) fn new(bounds: FeedBounds, transport: Transport, tally: SharedTally) -> Self {
        Self {
            bounds,
            transport,
            tally,
            frames: VecDeque::new(),
            bytes: 0,
            base: 0,
            ephemerals: 0,
            through: 0,
            // Very many feeds have one reader each.
            members: Slab::with_capacity(1),
            users: 0,
            behind: 0,
            piece: None,
            waking: Waking::No,
            woken: 0,
            last_given: 0,
        }
    }

    fn end(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    /// Seats a client that has everything up to now.
    pub(crate) fn join(&mut self, sink: Rc<Sink>) -> (usize, Place) {
        self.users += 1;
        (self.members.insert(sink), Place { next: self.end(), ephemerals: self.ephemerals })
    }

    /// Takes a member that stood at `place` out of the readers; it still counts on the feed.
    pub(crate) fn suspend(&mut self, member: usize, place: Place) {
        self.members.try_remove(member);
        if place.next < self.end() {
            self.caught_up();
        }
    }

    /// Lets go of the feed.
    pub(crate) fn release(&mut self) {
        self.users = self.users.saturating_sub(1);
    }

    /// Whether nobody counts on it any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.users == 0
    }

    /// How many read it.
    pub(crate) fn readers(&self) -> usize {
        self.members.len()
    }

    /// Whether its members are to be woken and nobody has taken that on yet. Who does calls [`Feed::wake`].
    pub(crate) fn wants_waking(&mut self) -> bool {
        let before = self.waking;
        self.waking = match before {
            Waking::No | Waking::Due => Waking::Due,
            Waking::UnderWay | Waking::UnderWayAndDue => Waking::UnderWayAndDue,
        };
        before == Waking::No
    }

    /// Adds the members from place number `from` on to those who are to look, at most `count` of them. Returns how many
    /// places it looked at, and whether these were the last.
    pub(crate) fn wake(&mut self, from: usize, count: usize, to_look: &mut Vec<Rc<Sink>>) -> (usize, bool) {
        if from == 0 {
            self.waking = Waking::UnderWay;
        }
        if from == 0 {
            self.woken = 0;
        }
        let places = self.members.capacity();
        let to = (from + count).min(places);
        for sink in (from..to).filter_map(|member| self.members.get(member)) {
            to_look.push(sink.clone());
            self.woken += 1;
        }
        // After a crowd has left there are many more places than members.
        (to.saturating_sub(from), to >= places || self.woken >= self.members.len())
    }

    /// All members were woken. True if frames came meanwhile, so that it must be done again.
    pub(crate) fn woken(&mut self) -> bool {
        let again = self.waking == Waking::UnderWayAndDue;
        self.waking = if again { Waking::Due } else { Waking::No };
        again
    }

    /// The number of the frame that comes next: where something that is not in the feed is slotted in.
    pub(crate) fn offset(&self) -> u64 {
        self.end()
    }

    /// How many ephemeral frames a client at `place` has missed up to now; from now on they are counted.
    pub(crate) fn miss(&self, place: &mut Place) -> u64 {
        self.ephemerals - std::mem::replace(&mut place.ephemerals, self.ephemerals)
    }

    /// Whether event number `event` is new to this feed; remembers it.
    pub(crate) fn takes(&mut self, event: u64) -> bool {
        std::mem::replace(&mut self.last_given, event) != event
    }

    /// How many frames wait for a client at `place`.
    pub(crate) fn waiting(&self, place: Place) -> u64 {
        self.end().saturating_sub(place.next)
    }

    /// A client was handed a frame that is not the feed's.
    pub(crate) fn count_private(&self, committed: Instant) {
        self.tally.borrow_mut().hand_over(self.transport, 1, committed);
    }

    /// Appends a frame; `seq` is its position, nothing for an ephemeral one. The oldest leave when it is full.
    pub(crate) fn append(&mut self, bytes: Bytes, seq: Option<Seq>, committed: Instant) {
        match seq {
            Some(seq) => self.through = seq,
            None => self.ephemerals += 1,
        }
        self.bytes += bytes.len();
        let (through, ephemerals) = (self.through, self.ephemerals);
        self.frames.push_back(Frame { bytes, through, ephemerals, committed });
        self.behind = self.members.len();
        while self.frames.len() > self.bounds.events
            || (self.bytes > self.bounds.bytes && self.frames.len() > 1)
        {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.bytes.len();
            self.base += 1;
        }
        self.forget_if_read_by_all();
    }

    /// Reads on from `place`, but not past frame `until`.
    pub(crate) fn read(&mut self, place: &mut Place, until: u64) -> Read {
        let until = until.min(self.end());
        if place.next >= until {
            return Read::Nothing;
        }
        let Some(first) = place.next.checked_sub(self.base) else { return Read::FellOut };
        let mut length = 0;
        let mut last = first;
        for frame in self.frames.range(first as usize..(until - self.base) as usize) {
            if length > 0 && length + frame.bytes.len() > PIECE_BYTES {
                break;
            }
            length += frame.bytes.len();
            last += 1;
        }
        let Some(newest) = self.frames.get(last as usize - 1) else { return Read::Nothing };
        let (through, ephemerals) = (newest.through, newest.ephemerals);
        self.tally.borrow_mut().hand_over(self.transport, last - first, newest.committed);
        let bytes = self.piece(place.next, self.base + last, length);
        *place = Place { next: self.base + last, ephemerals };
        if place.next == self.end() {
            self.caught_up();
        }
        Read::Frames { bytes, through: (through > 0).then_some(through) }
    }

    /// The frames `from..to` as one run of bytes: put together once, and shared by all who read the same.
    fn piece(&mut self, from: u64, to: u64, length: usize) -> Bytes {
        let first = (from - self.base) as usize;
        if to - from == 1 {
            return self.frames.get(first).map(|frame| frame.bytes.clone()).unwrap_or_default();
        }
        if let Some((known_from, known_to, bytes)) = self.piece.as_deref()
            && (*known_from, *known_to) == (from, to)
        {
            return bytes.clone();
        }
        let mut joined = BytesMut::with_capacity(length);
        for frame in self.frames.range(first..first + (to - from) as usize) {
            joined.extend_from_slice(&frame.bytes);
        }
        let bytes = joined.freeze();
        self.piece = Some(Box::new((from, to, bytes.clone())));
        bytes
    }

    fn caught_up(&mut self) {
        self.behind = self.behind.saturating_sub(1);
        self.forget_if_read_by_all();
    }

    fn forget_if_read_by_all(&mut self) {
        if self.behind == 0 {
            self.base = self.end();
            self.bytes = 0;
            self.piece = None;
            // An idle feed holds nothing; most feeds are idle most of the time.
            self.frames = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.frames.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Framing;

    const BOUNDS: FeedBounds = FeedBounds { events: 4, bytes: 1000 };

    fn feed(bounds: FeedBounds) -> Feed {
        Feed::new(bounds, Transport::Sse, SharedTally::default())
    }

    fn frame(n: u64) -> Bytes {
        Bytes::from(format!("{n};"))
    }

    fn read(feed: &mut Feed, place: &mut Place) -> (String, Option<Seq>) {
        match feed.read(place, u64::MAX) {
            Read::Frames { bytes, through } => (String::from_utf8(bytes.to_vec()).expect("text"), through),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_takes_all_it_has_not_had_in_one_piece() {
        let mut feed = feed(BOUNDS);
        let (_, mut fast) = feed.join(Sink::new(Framing::Bare));
        let (_, mut late) = feed.join(Sink::new(Framing::Bare));
        feed.append(frame(1), Some(1), Instant::now());
        assert_eq!(read(&mut feed, &mut fast), ("1;".into(), Some(1)));
        feed.append(frame(2), None, Instant::now());
        feed.append(frame(3), Some(3), Instant::now());
        assert_eq!(read(&mut feed, &mut late), ("1;2;3;".into(), Some(3)));
        assert_eq!(read(&mut feed, &mut fast), ("2;3;".into(), Some(3)));
        assert_eq!(feed.read(&mut fast, u64::MAX), Read::Nothing);
        assert_eq!(feed.held(), (0, 0), "nobody is behind, nothing is held");
    }

    #[test]
    fn clients_that_read_the_same_share_the_bytes() {
        let mut feed = feed(BOUNDS);
        let (_, mut one) = feed.join(Sink::new(Framing::Bare));
        let (_, mut two) = feed.join(Sink::new(Framing::Bare));
        feed.join(Sink::new(Framing::Bare));
        feed.append(frame(1), Some(1), Instant::now());
        feed.append(frame(2), Some(2), Instant::now());
        let Read::Frames { bytes: first, .. } = feed.read(&mut one, u64::MAX) else { panic!() };
        let Read::Frames { bytes: second, .. } = feed.read(&mut two, u64::MAX) else { panic!() };
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn a_client_that_does_not_read_falls_out_and_costs_nobody() {
        let mut feed = feed(BOUNDS);
        let (stuck_key, mut stuck) = feed.join(Sink::new(Framing::Bare));
        let (_, mut fast) = feed.join(Sink::new(Framing::Bare));
        for n in 1..=10 {
            feed.append(frame(n), (n % 2 == 0).then_some(n), Instant::now());
            assert_eq!(read(&mut feed, &mut fast).0, format!("{n};"));
            assert!(feed.held().0 <= BOUNDS.events);
        }
        assert_eq!(feed.read(&mut stuck, u64::MAX), Read::FellOut);
        assert_eq!((feed.miss(&mut stuck), feed.miss(&mut stuck)), (5, 0));
        feed.suspend(stuck_key, stuck);
        assert_eq!(feed.held(), (0, 0));
        feed.release();
        assert!(!feed.is_unused());
        feed.release();
        assert!(feed.is_unused());
    }

    #[test]
    fn bytes_are_bounded_too_and_one_large_frame_still_passes() {
        let mut feed = feed(BOUNDS);
        let (_, mut place) = feed.join(Sink::new(Framing::Bare));
        feed.append(Bytes::from(vec![b'x'; 5000]), Some(1), Instant::now());
        assert_eq!(read(&mut feed, &mut place).0.len(), 5000);
        feed.append(Bytes::from(vec![b'x'; 600]), Some(2), Instant::now());
        feed.append(Bytes::from(vec![b'x'; 600]), Some(3), Instant::now());
        assert_eq!(feed.held(), (1, 600));
    }

    #[test]
    fn a_piece_is_no_larger_than_a_connection_buffers() {
        let mut feed = feed(FeedBounds { events: 100, bytes: 10 << 20 });
        let (_, mut place) = feed.join(Sink::new(Framing::Bare));
        for n in 1..=10 {
            feed.append(Bytes::from(vec![b'x'; 30_000]), Some(n), Instant::now());
        }
        let (piece, through) = read(&mut feed, &mut place);
        assert_eq!((piece.len(), through), (60_000, Some(2)));
    }

    /// Events are counted, and pieces are timed: that is one look at the clock for all that leave together.
    #[test]
    fn what_is_taken_is_counted() {
        let tally = SharedTally::default();
        let mut feed = Feed::new(BOUNDS, Transport::Ws, tally.clone());
        let (_, mut place) = feed.join(Sink::new(Framing::Bare));
        feed.append(frame(1), Some(1), Instant::now());
        feed.append(frame(2), None, Instant::now());
        assert_eq!((feed.waiting(place), tally.borrow().delivered.ws), (2, 0));
        read(&mut feed, &mut place);
        feed.count_private(Instant::now());
        let tally = tally.borrow();
        assert_eq!((feed.waiting(place), tally.delivered.ws, tally.delivery.count()), (0, 3, 2));
    }
}
