//! What waits to be written to one client, and in which order: first what its session wrote, then, while it is live,
//! the feed it reads, with the frames meant for it alone slotted in where they came.
//!
//! The writer (a response body, a socket) pulls; nothing is pushed at it but a wake-up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::feed::{Feed, Place, Read};
use super::line::Line;
use crate::cursor::Seq;
use crate::wire::Framing;
use crate::wire::ws::Recast;

/// As much as waits for one client alone; more, and it goes back to the log.
const PRIVATE_EVENTS: usize = 256;
const PRIVATE_BYTES: usize = 1024 * 1024;
/// As many answers as may wait for a client that asks and does not read.
const WRITTEN_AHEAD: usize = 256;
/// As many requests as may wait for their answer.
const ASKED_AHEAD: usize = 64;

/// What the writer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Bytes to write.
    Bytes(Bytes),
    /// Nothing now; the waker is called when there is.
    Pending,
    /// All that the session wrote is taken, and it asked to be told.
    Drained,
    /// The client fell out of its feed: its session must fetch the rest from the log.
    FellOut,
    /// The end of the stream.
    End,
}

/// Where a writer lets bytes go for it at once, instead of being woken to do it itself: a socket.
pub(crate) trait Outlet {
    /// Whether it can be tried: nothing waits there from before.
    fn is_free(&self) -> bool;

    /// Hands bytes over. False if not all of them could leave, and the writer is to see to it.
    fn write(&self, bytes: Bytes) -> bool;
}

/// One client's sink, shared on its thread by its session, its worker and its writer.
#[derive(Default)]
pub(crate) struct Sink {
    framing: Framing,
    state: RefCell<State>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    written: VecDeque<Bytes>,
    tell_when_drained: bool,
    seat: Option<Seat>,
    fell_out: bool,
    /// Nothing more comes from the feed.
    is_cut_off: bool,
    ended: bool,
    /// What the cursors in the feed's frames are to say, while channels that were added to it catch up.
    recast: Option<Box<Recast>>,
    /// What a client that answers owes, and is owed.
    talk: Option<Box<Talk>>,
    /// What the writer writes to.
    line: Option<Line>,
    waker: Option<Waker>,
    outlet: Option<Rc<dyn Outlet>>,
    awake: bool,
    stalled_since: Option<Instant>,
}

/// A client that answers pings and asks for things.
#[derive(Debug, Default)]
struct Talk {
    /// Since when it owes an answer to a ping.
    pinged: Option<Instant>,
    /// What it asked for and was not answered.
    asked: usize,
    /// It is not listened to, since it has asked for too much or does not read.
    is_unheard: bool,
    /// Called when there is room for more to be written.
    room: Option<Waker>,
}

/// A client's hold on its feed.
#[derive(Debug)]
struct Seat {
    feed: Rc<RefCell<Feed>>,
    /// Its number among the feed's readers; nothing while it is fallen out.
    member: Option<usize>,
    place: Place,
    /// Everything of the client's channels up to here was taken.
    position: Seq,
    /// Whether the session still has something to write that comes before the feed.
    held: bool,
    private: VecDeque<Private>,
    private_bytes: usize,
    ping_waits: bool,
    pings_taken: u32,
    /// Ephemeral frames for this client alone that were dropped, and not told yet.
    lost: u64,
}

#[derive(Debug)]
struct Private {
    bytes: Bytes,
    /// The number of the feed's frame that it comes before.
    offset: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored(Seq, Instant),
    Ephemeral(Instant),
    Ping(Seq),
}

impl Kind {
    fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral(_))
    }
}

impl Sink {
    /// A sink whose pieces are framed like this, those of its feed too.
    pub(crate) fn new(framing: Framing) -> Rc<Self> {
        Rc::new(Self { framing, ..Self::default() })
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Writes ahead of the feed.
    pub(crate) fn write(&self, bytes: Bytes) {
        let mut state = self.state.borrow_mut();
        if !state.ended {
            state.written.push_back(self.framing.frame(bytes));
            state.wake();
        }
    }

    /// Asks for [`Pull::Drained`] when all that was written is taken.
    pub(crate) fn tell_when_drained(&self) {
        let mut state = self.state.borrow_mut();
        state.tell_when_drained = true;
        state.wake();
    }

    /// Seats the client, which has everything of its channels up to `position`, in `feed`; it reads from there once
    /// [`Sink::go_live`] says so.
    pub(crate) fn seat(self: &Rc<Self>, feed: &Rc<RefCell<Feed>>, position: Seq) {
        let mut state = self.state.borrow_mut();
        if state.ended {
            return;
        }
        let (member, place) = feed.borrow_mut().join(self.clone());
        let lost = state.seat.take().map_or(0, |before| before.leave_for_good());
        state.seat = Some(Seat {
            feed: feed.clone(),
            member: Some(member),
            place,
            position,
            held: true,
            private: VecDeque::new(),
            private_bytes: 0,
            ping_waits: false,
            pings_taken: 0,
            lost,
        });
    }

    /// Ephemeral frames that the client missed and was not told of; from now on they count as told.
    pub(crate) fn take_lost(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        let Some(seat) = &mut state.seat else { return 0 };
        seat.count_missed();
        std::mem::take(&mut seat.lost)
    }

    /// Lets the writer read the feed, behind what is written by now.
    pub(crate) fn go_live(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(seat) = &mut state.seat {
            seat.held = false;
        }
        state.wake();
    }

    /// Hands the client a frame that is meant for it alone.
    pub(crate) fn push_private(&self, bytes: Bytes, seq: Option<Seq>, committed: Instant) {
        self.slot_in(bytes, seq.map_or(Kind::Ephemeral(committed), |seq| Kind::Stored(seq, committed)));
    }

    /// Hands a live client the heartbeat, unless the last one still waits. False for a client that is not live.
    pub(crate) fn push_ping(&self, bytes: Bytes, head: Seq) -> bool {
        let is_live = self.state.borrow().seat.as_ref().is_some_and(|seat| seat.member.is_some());
        if is_live {
            self.slot_in(bytes, Kind::Ping(head));
        }
        is_live
    }

    fn slot_in(&self, bytes: Bytes, kind: Kind) {
        let mut state = self.state.borrow_mut();
        let Some(seat) = &mut state.seat else { return };
        if seat.member.is_none() {
            seat.lost += u64::from(kind.is_ephemeral());
            return;
        }
        if let Kind::Ping(_) = kind
            && std::mem::replace(&mut seat.ping_waits, true)
        {
            return;
        }
        let bytes = self.framing.frame(bytes);
        seat.private_bytes += bytes.len();
        let offset = seat.feed.borrow().offset();
        seat.private.push_back(Private { bytes, offset, kind });
        let is_over = seat.private.len() > PRIVATE_EVENTS || seat.private_bytes > PRIVATE_BYTES;
        // A single frame always passes, however large.
        if is_over && seat.private.len() > 1 {
            seat.fall_out();
            state.fell_out = true;
        }
        state.wake();
    }

    /// Puts what was delivered to the client, and not taken yet, behind what is written: it is to come before the end.
    pub(crate) fn keep_delivered(&self) {
        let mut state = self.state.borrow_mut();
        let State { seat, written, recast: cast, fell_out, is_cut_off, .. } = &mut *state;
        // What its session has not written yet comes before the feed.
        let Some(seat) = seat.as_mut().filter(|seat| !seat.held && !*is_cut_off) else { return };
        loop {
            match seat.pull() {
                Pull::Bytes(bytes) => written.push_back(recast(bytes, cast.as_deref())),
                Pull::FellOut => *fell_out = true,
                _ => break,
            }
        }
        // It may have left the readers that the worker still had to wake.
        state.wake();
    }

    /// What was delivered until now is the last that the client gets of its feed: its session is about to be told to
    /// close, and by the time that it is, more may have been delivered.
    pub(crate) fn cut_off(&self) {
        self.keep_delivered();
        self.state.borrow_mut().is_cut_off = true;
    }

    /// From now on the cursors in the feed's frames, which are WebSocket's, are recast.
    pub(crate) fn recast(&self, recast: Option<Recast>) {
        self.state.borrow_mut().recast = recast.map(Box::new);
    }

    /// Whether the client reads its feed; not if it fell out, or what comes before the feed is not written yet.
    pub(crate) fn is_live(&self) -> bool {
        self.state.borrow().seat.as_ref().is_some_and(|seat| seat.member.is_some() && !seat.held)
    }

    /// There is a writer, and this is the connection that it writes to, if that is known.
    pub(crate) fn connect(&self, line: Option<Line>) {
        self.state.borrow_mut().line = line;
    }

    /// The writer is gone. Its connection may still hold the end of what it has written, or goes on.
    pub(crate) fn disconnect(&self) {
        let mut state = self.state.borrow_mut();
        state.line = state.line.filter(|line| state.ended && !line.is_kept());
    }

    /// The connection that may still have something of this stream to write.
    pub(crate) fn line(&self) -> Option<Line> {
        self.state.borrow().line
    }

    /// The client is one that answers.
    pub(crate) fn expect_answers(&self) {
        self.state.borrow_mut().talk = Some(Box::default());
    }

    /// The client was heard of.
    pub(crate) fn hear(&self) {
        if let Some(talk) = &mut self.state.borrow_mut().talk {
            talk.pinged = None;
        }
    }

    /// For how long a client that answers has owed the answer to a ping.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        let state = self.state.borrow();
        let talk = state.talk.as_ref().filter(|talk| !talk.is_unheard);
        let pinged = talk.and_then(|talk| talk.pinged);
        pinged.map_or(Duration::ZERO, |pinged| now.saturating_duration_since(pinged))
    }

    /// The client has asked for something that its session is to answer.
    pub(crate) fn ask(&self) {
        if let Some(talk) = &mut self.state.borrow_mut().talk {
            talk.asked += 1;
        }
    }

    /// Writes the answer to something that the client has asked its session for.
    pub(crate) fn answer(&self, bytes: Bytes) {
        self.write(bytes);
        let mut state = self.state.borrow_mut();
        if let Some(talk) = &mut state.talk {
            talk.asked = talk.asked.saturating_sub(1);
        }
        state.give_room();
    }

    /// Ready once the client may be listened to again: when little enough waits to be taken and to be answered.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let has_room = state.has_room();
        if let Some(talk) = &mut state.talk {
            talk.is_unheard = !has_room;
            if !has_room {
                // Whatever it answers is not read.
                talk.pinged = None;
            }
        }
        if has_room {
            return Poll::Ready(());
        }
        if let Some(talk) = &mut state.talk {
            talk.room = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the stream has had its last word.
    pub(crate) fn is_ended(&self) -> bool {
        self.state.borrow().ended
    }

    /// Lets go of what waits in the feed: what is stored comes again from the log, what is ephemeral is counted as lost.
    pub(crate) fn let_go(&self) {
        if let Some(seat) = &mut self.state.borrow_mut().seat {
            seat.fall_out();
        }
    }

    /// Ends the stream with `last` behind what is written.
    pub(crate) fn end(&self, last: Option<Bytes>) {
        let mut state = self.state.borrow_mut();
        if state.ended {
            return;
        }
        state.ended = true;
        state.written.extend(last.map(|last| self.framing.frame(last)));
        state.written.extend(self.framing.end());
        state.give_room();
        state.wake();
    }

    /// Gives up the seat and returns the feed if nobody counts on it any more.
    pub(crate) fn unseat(&self) -> Option<Rc<RefCell<Feed>>> {
        let seat = self.state.borrow_mut().seat.take()?;
        let feed = seat.feed.clone();
        seat.leave_for_good();
        let is_unused = feed.borrow().is_unused();
        is_unused.then_some(feed)
    }

    /// The position up to which the client has everything of its channels, as far as its seat tells.
    pub(crate) fn position(&self) -> Option<Seq> {
        self.state.borrow().seat.as_ref().map(|seat| seat.position)
    }

    /// How many pieces wait to be taken.
    pub(crate) fn queued(&self) -> u64 {
        let state = self.state.borrow();
        let of_seat = |seat: &Seat| {
            let shared = if seat.member.is_some() { seat.feed.borrow().waiting(seat.place) } else { 0 };
            seat.private.len() as u64 + shared
        };
        state.written.len() as u64 + state.seat.as_ref().map_or(0, of_seat)
    }

    /// For how long something has waited here without any of it being taken.
    pub(crate) fn stalled_for(&self, now: Instant) -> Duration {
        let mut state = self.state.borrow_mut();
        if state.has_output() {
            now.saturating_duration_since(*state.stalled_since.get_or_insert(now))
        } else {
            state.stalled_since = None;
            Duration::ZERO
        }
    }

    /// From now on what is delivered may go there by itself.
    pub(crate) fn lend(&self, outlet: Option<Rc<dyn Outlet>>) {
        self.state.borrow_mut().outlet = outlet;
    }

    /// Lets what was delivered go at once where that is possible; else tells the writer.
    pub(crate) fn let_out(&self) {
        let mut state = self.state.borrow_mut();
        let Some(outlet) = state.outlet.clone() else { return state.wake() };
        // What waits there comes first, and its writer looks here when it has left.
        while outlet.is_free() {
            if !state.is_only_fed() {
                return state.wake();
            }
            match state.pull() {
                Pull::Bytes(bytes) => {
                    state.stalled_since = None;
                    if !outlet.write(bytes) {
                        return state.wake();
                    }
                }
                Pull::FellOut => state.fell_out = true,
                Pull::Pending | Pull::Drained | Pull::End => return,
            }
        }
    }

    /// What the writer is to do now; `waker` is called when that changes.
    pub(crate) fn pull(&self, waker: &Waker) -> Pull {
        let mut state = self.state.borrow_mut();
        let pull = state.pull();
        match &pull {
            Pull::Bytes(_) => state.stalled_since = None,
            Pull::End => {}
            Pull::Pending | Pull::Drained | Pull::FellOut => {
                state.awake = false;
                if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    state.waker = Some(waker.clone());
                }
            }
        }
        pull
    }
}

impl State {
    fn wake(&mut self) {
        if !std::mem::replace(&mut self.awake, true)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }

    fn has_room(&self) -> bool {
        let asked = self.talk.as_ref().map_or(0, |talk| talk.asked);
        self.ended || (self.written.len() < WRITTEN_AHEAD && asked < ASKED_AHEAD)
    }

    fn give_room(&mut self) {
        if self.has_room()
            && let Some(room) = self.talk.as_mut().and_then(|talk| talk.room.take())
        {
            room.wake();
        }
    }

    /// Has a client that answers owe one from now on.
    fn was_pinged(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.pinged.get_or_insert_with(Instant::now);
        }
    }

    fn pull(&mut self) -> Pull {
        if let Some(bytes) = take_first(&mut self.written) {
            self.give_room();
            return Pull::Bytes(bytes);
        }
        if self.ended {
            return Pull::End;
        }
        if std::mem::take(&mut self.tell_when_drained) {
            return Pull::Drained;
        }
        if std::mem::take(&mut self.fell_out) {
            return Pull::FellOut;
        }
        let Some(seat) = self.seat.as_mut().filter(|_| !self.is_cut_off) else { return Pull::Pending };
        let pinged = seat.pings_taken;
        let pull = seat.pull();
        if seat.pings_taken > pinged {
            self.was_pinged();
            return pull;
        }
        match pull {
            Pull::Bytes(bytes) => Pull::Bytes(recast(bytes, self.recast.as_deref())),
            other => other,
        }
    }

    /// Whether nothing is to be said but what comes from the feed.
    fn is_only_fed(&self) -> bool {
        self.written.is_empty() && !self.ended && !self.tell_when_drained && !self.fell_out
    }

    fn has_output(&self) -> bool {
        let has_notice = self.tell_when_drained || self.fell_out;
        has_notice || !self.written.is_empty() || self.seat.as_ref().is_some_and(Seat::has_output)
    }
}

/// Takes what waits first. A queue with nothing in it holds no memory: of most clients it is idle most of the time.
fn take_first<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}

fn recast(frames: Bytes, recast: Option<&Recast>) -> Bytes {
    match recast {
        Some(recast) => recast.apply(&frames),
        None => frames,
    }
}

impl Seat {
    fn has_output(&self) -> bool {
        self.member.is_some()
            && !self.held
            && (!self.private.is_empty() || self.place.is_before(self.feed.borrow().offset()))
    }

    fn pull(&mut self) -> Pull {
        if self.held || self.member.is_none() {
            return Pull::Pending;
        }
        let next_private = self.private.front().map_or(u64::MAX, |private| private.offset);
        if !self.place.is_before(next_private)
            && let Some(private) = take_first(&mut self.private)
        {
            self.private_bytes -= private.bytes.len();
            match private.kind {
                Kind::Stored(seq, committed) => {
                    self.position = self.position.max(seq);
                    self.feed.borrow().count_private(committed);
                }
                Kind::Ephemeral(committed) => self.feed.borrow().count_private(committed),
                Kind::Ping(head) => {
                    self.pings_taken = self.pings_taken.wrapping_add(1);
                    self.ping_waits = false;
                    self.position = self.position.max(head);
                }
            }
            return Pull::Bytes(private.bytes);
        }
        let read = self.feed.borrow_mut().read(&mut self.place, next_private);
        match read {
            Read::Frames { bytes, through } => {
                self.position = self.position.max(through.unwrap_or(0));
                Pull::Bytes(bytes)
            }
            Read::Nothing => Pull::Pending,
            Read::FellOut => {
                self.fall_out();
                Pull::FellOut
            }
        }
    }

    /// Leaves the readers. What is stored comes again from the log; what is ephemeral is lost, and counted.
    fn fall_out(&mut self) {
        if let Some(member) = self.member.take() {
            self.feed.borrow_mut().suspend(member, self.place);
            let ephemerals = self.private.iter().filter(|private| private.kind.is_ephemeral());
            self.lost += ephemerals.count() as u64;
            self.private = VecDeque::new();
            self.private_bytes = 0;
            self.ping_waits = false;
        }
    }

    fn count_missed(&mut self) {
        if self.member.is_none() {
            self.lost += self.feed.borrow().miss(&mut self.place);
        }
    }

    /// Lets go of the feed and returns what is still to be told.
    fn leave_for_good(mut self) -> u64 {
        self.count_missed();
        if let Some(member) = self.member.take() {
            self.feed.borrow_mut().suspend(member, self.place);
        }
        self.feed.borrow_mut().release();
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::FeedBounds;
    use crate::actors::tally::SharedTally;
    use crate::counts::Transport;

    fn seated(position: Seq) -> (Rc<Sink>, Rc<RefCell<Feed>>) {
        let feed = Rc::new(RefCell::new(Feed::new(
            FeedBounds { events: 4, bytes: 1 << 20 },
            Transport::Sse,
            SharedTally::default(),
        )));
        let sink = Sink::new(Framing::Bare);
        sink.seat(&feed, position);
        sink.go_live();
        (sink, feed)
    }

    fn pull(sink: &Sink) -> String {
        match sink.pull(Waker::noop()) {
            Pull::Bytes(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            other => format!("{other:?}"),
        }
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn what_is_for_the_client_alone_comes_where_it_was_delivered() {
        let (sink, feed) = seated(0);
        sink.write(bytes("written"));
        feed.borrow_mut().append(bytes("1"), Some(1), Instant::now());
        sink.push_private(bytes("2"), Some(2), Instant::now());
        feed.borrow_mut().append(bytes("3"), Some(3), Instant::now());
        feed.borrow_mut().append(bytes("4"), Some(4), Instant::now());
        assert!(sink.push_ping(bytes("ping"), 4) && sink.push_ping(bytes("another"), 4));
        feed.borrow_mut().append(bytes("5"), Some(5), Instant::now());
        let all: Vec<_> = (0..7).map(|_| pull(&sink)).collect();
        assert_eq!(all, ["written", "1", "2", "34", "ping", "5", "Pending"]);
        assert_eq!(sink.position(), Some(5));
    }

    #[test]
    fn a_client_that_takes_nothing_is_stalled_also_when_it_fell_out() {
        let (sink, _feed) = seated(0);
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        assert_eq!(sink.stalled_for(start + minute), Duration::ZERO, "nothing waits");
        for _ in 0..=PRIVATE_EVENTS {
            sink.push_private(bytes("x"), None, Instant::now());
        }
        assert_eq!(sink.stalled_for(start), Duration::ZERO);
        assert_eq!(sink.stalled_for(start + minute), minute);
        assert_eq!(pull(&sink), "FellOut");
        assert_eq!(sink.take_lost(), PRIVATE_EVENTS as u64 + 1);
        assert_eq!(sink.stalled_for(start + minute), Duration::ZERO, "nothing waits");
    }

    #[test]
    fn what_is_lost_while_fallen_out_is_counted_once() {
        let (sink, feed) = seated(0);
        for n in 1..=10 {
            feed.borrow_mut().append(bytes("x"), (n % 2 == 0).then_some(n), Instant::now());
        }
        assert_eq!(pull(&sink), "FellOut");
        assert_eq!((sink.take_lost(), sink.take_lost()), (5, 0));
        feed.borrow_mut().append(bytes("x"), None, Instant::now());
        sink.push_private(bytes("x"), None, Instant::now());
        sink.seat(&feed, 10);
        assert_eq!(sink.take_lost(), 2);
        sink.go_live();
        feed.borrow_mut().append(bytes("new"), Some(11), Instant::now());
        assert_eq!((pull(&sink), pull(&sink)), ("new".into(), "Pending".into()));
        assert!(sink.unseat().is_some_and(|unused| Rc::ptr_eq(&unused, &feed)));
        assert!(sink.unseat().is_none());
    }

    #[test]
    fn what_was_delivered_comes_before_the_end() {
        let (sink, feed) = seated(0);
        feed.borrow_mut().append(bytes("1"), Some(1), Instant::now());
        sink.push_private(bytes("2"), Some(2), Instant::now());
        sink.keep_delivered();
        sink.end(Some(bytes("closing")));
        feed.borrow_mut().append(bytes("late"), Some(3), Instant::now());
        let all: Vec<_> = (0..4).map(|_| pull(&sink)).collect();
        assert_eq!(all, ["1", "2", "closing", "End"]);
    }

    #[test]
    fn nothing_is_delivered_any_more_to_who_is_about_to_be_closed() {
        let (sink, feed) = seated(0);
        feed.borrow_mut().append(bytes("1"), Some(1), Instant::now());
        sink.cut_off();
        feed.borrow_mut().append(bytes("late"), Some(2), Instant::now());
        sink.let_out();
        sink.go_live();
        assert_eq!((pull(&sink), pull(&sink)), ("1".into(), "Pending".into()));
        assert_eq!(sink.position(), Some(1));
        sink.keep_delivered();
        sink.end(Some(bytes("closing")));
        assert_eq!((pull(&sink), pull(&sink)), ("closing".into(), "End".into()));
    }

    #[test]
    fn who_fell_out_while_its_feed_was_changed_is_woken() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (sink, feed) = seated(0);
        let count = Arc::new(Count::default());
        assert_eq!(sink.pull(&Waker::from(count.clone())), Pull::Pending);
        for n in 1..=9 {
            feed.borrow_mut().append(bytes("x"), Some(n), Instant::now());
        }
        // A change of feed comes before the worker has come to wake this client.
        sink.keep_delivered();
        assert!(!sink.is_live());
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "it fell out, is no member any more, and is not woken");
    }
}
