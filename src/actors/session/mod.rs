//! The session actor: wraps one client's sink and owns its life, from the first word to why it ended.
//!
//! It lends the sink to the worker of its thread while the client is live, and takes it back to fetch from the log
//! what the client has missed: page by page, each written before the next is asked for, so that the client's own
//! speed is the pace. What a client adds to what it follows catches up [`beside`] what it has.

mod beside;
mod ledger;
mod message;
mod seen;
mod strand;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use self::beside::Beside;
pub(crate) use self::message::{
    Admitted, Answer, Close, DescribeSelf, Disconnected, Drained, Expire, FellOut, Follow, Joined, LogReader,
    MayRead, Origin, Ping, Refusal, Reset, Unfollow,
};
use self::seen::Ended;
use self::strand::{CatchUp, Chase, Strand};
use super::broker::{At, Attach, Outlet, Pass, Start};
use super::farewell::{Farewell, spread};
use super::log::{Page, PageLimit, ReadAfter, Seek, Sought};
use super::replay::Told;
use super::sink::Sink;
use super::tally::EXPIRED;
use super::turns::Turn;
use super::worker::{TakeTurns, WorkerHandle};
use crate::cursor::{Cursor, Seq, Timeline};
use crate::error::{CloseReason, LogError};
use crate::interest::Interest;
use crate::record::Record;
use crate::wire::notice::{self, Notice};
use crate::wire::{Encoding, Framing, sse, ws};

/// How much of the log is held for a client at a time.
pub(crate) const PAGE: PageLimit = PageLimit { events: 1024, bytes: 256 * 1024 };
/// Replayed frames are written in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;
/// The strand that a client began with.
const BASE: u32 = 0;

/// How long a client that can ask is given to say where it goes on from, before what comes is sent to it.
const FIRST_WORD: Duration = Duration::from_millis(100);

/// Command: the client has had its time for a first word.
#[derive(Message)]
#[rtype(result = "()")]
struct FirstWordDue;

/// Command: look again whether the head has come.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAgain(u32);

/// What a session is started with.
pub(crate) struct SessionSettings {
    /// The client's leave to be here.
    pub(crate) pass: Pass,
    pub(crate) interest: Interest,
    pub(crate) encoding: Encoding,
    pub(crate) framing: Framing,
    pub(crate) start: Start,
    /// When its grant ends.
    pub(crate) expires: Option<SystemTime>,
    /// For a client that wants its position settled before it has its answer.
    pub(crate) verdict: Option<oneshot::Sender<Result<(), Refusal>>>,
}

pub(crate) struct Session {
    pass: Pass,
    encoding: Encoding,
    expiry: Option<SpawnHandle>,
    verdict: Option<oneshot::Sender<Result<(), Refusal>>>,
    worker: Rc<WorkerHandle>,
    sink: Rc<Sink>,
    timeline: Option<Timeline>,
    base: Strand,
    /// What was added to the base, for a client that can add.
    beside: Option<Box<Beside>>,
    /// Whether the client has taken what it was given, so that more may be fetched.
    is_drained: bool,
    /// Whether a page is being read.
    is_reading: bool,
    /// The strand that reads, or read last.
    last_read: u32,
    is_welcomed: bool,
    /// Whether the broker does not know yet what the client follows.
    is_follow_changed: bool,
    is_closing: bool,
    ended: Ended,
    is_counted_lagging: bool,
}

impl Session {
    /// Starts a session on this thread. It goes with the last address: there is to be one alone, its writer's, since each
    /// copy has memory of its own.
    pub(crate) fn start_here(settings: SessionSettings, worker: Rc<WorkerHandle>) -> (Addr<Self>, Rc<Sink>) {
        let SessionSettings { pass, mut interest, encoding, framing, start, expires, verdict } = settings;
        interest.subscription = worker.floor.borrow().share(interest.subscription, encoding, framing);
        let sink = Sink::new(framing);
        let beside = match encoding {
            Encoding::SseRaw | Encoding::SseEnvelope => {
                sink.write(sse::retry(spread(2_000, 5_000)));
                None
            }
            Encoding::Ws => {
                sink.expect_answers();
                Some(Box::new(Beside::new(interest.session)))
            }
        };
        let age = pass.age;
        let session = Self {
            pass,
            encoding,
            expiry: None,
            verdict,
            worker,
            sink: sink.clone(),
            timeline: None,
            base: Strand::new(interest, start),
            beside,
            is_drained: true,
            is_reading: false,
            last_read: BASE,
            is_welcomed: false,
            is_follow_changed: false,
            is_closing: false,
            ended: Ended::ByClient,
            is_counted_lagging: false,
        };
        let session = Self::create(|ctx| {
            let mut session = session;
            session.expire_at(expires, ctx);
            if let Some(age) = age {
                ctx.notify_later(Close(CloseReason::TooOld.into()), age);
            }
            session
        });
        (session, sink)
    }

    /// Does what is to be done next: asks the broker, or reads the log. Nothing while the client has still to take what
    /// it was given.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.note_lag();
        if !self.is_drained || self.is_closing {
            return;
        }
        self.leave_now();
        if let Some(at) = self.base.ask() {
            self.attach(at);
        }
        self.ask_beside();
        self.read_on(ctx);
    }

    /// Waits until the client has taken what is written.
    fn pause(&mut self) {
        self.is_drained = false;
        self.sink.tell_when_drained();
    }

    fn attach(&mut self, at: At) {
        let Some(broker) = self.worker.broker.upgrade() else { return };
        let followed = self.take_follow_change();
        broker.do_send(Attach {
            client: self.pass.client,
            outlet: Outlet::Thread(self.worker.addr.clone(), self.encoding),
            interest: self.base.interest.clone(),
            followed,
            at,
        });
    }

    /// Tells one that waits for its verdict that there is no stream. True if somebody waited.
    fn refuse(&mut self, refusal: Refusal, ctx: &mut Context<Self>) -> bool {
        let Some(verdict) = self.verdict.take() else { return false };
        self.ended = refusal.reason();
        // Whoever waited may have left; the session ends either way.
        let _ = verdict.send(Err(refusal));
        self.is_closing = true;
        ctx.stop();
        true
    }

    /// The first word, and the reset if there was one: after these the position is settled.
    fn settle(&mut self, position: Seq, cursor: &Cursor, is_notice_next: bool, reset: Option<Reset>) {
        if !std::mem::replace(&mut self.is_welcomed, true) {
            if let Some(verdict) = self.verdict.take() {
                let _ = verdict.send(Ok(()));
            }
            let welcome = notice::Welcome {
                client: self.pass.client,
                session: self.base.interest.session,
                heartbeat: self.worker.floor.borrow().settings.heartbeat,
            };
            let is_settled = reset.is_none() && !is_notice_next;
            self.tell(is_settled.then_some(cursor), Notice::Welcome(welcome));
        } else if let Some(reference) = self.beside.as_mut().and_then(|beside| beside.base_asked.take()) {
            // Nor is a reset to be taken for read.
            let cursor = Some(cursor).filter(|_| reset.is_none());
            self.sink.answer(ws::Answer::Subscribed { r#ref: reference.as_deref(), cursor }.frame());
        }
        if let Some(beside) = &mut self.beside {
            beside.ledger.begin(&self.base.interest.subscription, position);
        }
        self.tell_reset(cursor, reset);
    }

    /// Whether the client is still to be told where it begins.
    fn is_to_be_settled(&self, reset: Option<Reset>) -> bool {
        let is_asked = self.beside.as_ref().is_some_and(|beside| beside.base_asked.is_some());
        !self.is_welcomed || is_asked || reset.is_some()
    }

    fn tell_reset(&self, cursor: &Cursor, reset: Option<Reset>) {
        if let Some(Reset { reason, head }) = reset {
            self.count_gap(reason.as_str());
            self.tell(Some(cursor), Notice::Reset(notice::Reset { reason, head }));
        }
    }

    fn tell(&self, cursor: Option<&Cursor>, notice: Notice) {
        self.sink.write(self.encoding.notice(cursor, &notice));
    }

    fn tell_lag(&self) {
        let dropped = self.sink.take_lost();
        if dropped > 0 {
            self.count_lost(dropped);
            self.tell(self.told_cursor().as_ref(), Notice::Lag(notice::Lag { dropped }));
        }
    }

    /// The client's position beside a notice that does not change it, where that is said.
    fn told_cursor(&self) -> Option<Cursor> {
        let timeline = self.timeline.as_ref().filter(|_| self.encoding == Encoding::Ws)?;
        Some(self.cursor(timeline, self.base_position()))
    }

    /// Where the base is.
    fn base_position(&self) -> Seq {
        match self.base.catch_up {
            CatchUp::Live => self.sink.position().unwrap_or(self.base.position),
            _ => self.base.position,
        }
    }

    /// The client's position when its base is at `base`.
    fn cursor(&self, timeline: &Timeline, base: Seq) -> Cursor {
        let among = match &self.base.catch_up {
            CatchUp::Log(chase) => chase.cursor_at(base),
            _ => None,
        };
        // Nothing is beside a base that comes from several positions.
        among.unwrap_or_else(|| match &self.beside {
            Some(beside) => beside.cursor(timeline, base),
            None => timeline.cursor(base),
        })
    }

    /// Reads the next page, of one strand after the other, when it is this session's turn.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        if self.is_reading {
            return;
        }
        let base = self.base.wants_to_read().then_some(BASE);
        let added = self.beside.iter().flat_map(|beside| beside.wanting_to_read());
        let wanting: Vec<_> = base.into_iter().chain(added).collect();
        let next = wanting.iter().find(|&&key| key > self.last_read).or(wanting.first());
        let Some(&next) = next else {
            if self.base.is_live() {
                self.worker.floor.borrow_mut().is_read_out(self.pass.client);
            }
            return;
        };
        self.is_reading = true;
        self.last_read = next;
        let turn = self.worker.floor.borrow_mut().ask_to_read(self.pass.client);
        match turn {
            Turn::Now => self.read(ctx),
            Turn::Later => {}
            Turn::FirstToWait => self.worker.addr.do_send(TakeTurns),
        }
    }

    fn strand(&mut self, key: u32) -> Option<&mut Strand> {
        match &mut self.beside {
            _ if key == BASE => Some(&mut self.base),
            Some(beside) => beside.strand(key),
            None => None,
        }
    }

    /// What a strand reads the log for.
    fn interest(&self, key: u32) -> Option<Interest> {
        if key == BASE { Some(self.base.interest.clone()) } else { self.beside.as_ref()?.interest(key) }
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let key = self.last_read;
        let Some(interest) = self.interest(key) else { return self.has_read(ctx) };
        let Some(Strand { catch_up: CatchUp::Log(chase), .. }) = self.strand(key) else {
            return self.has_read(ctx);
        };
        let log = chase.log.clone();
        let (after, until, Sought { position, left: last }) = (chase.position, chase.until, chase.to_seek);
        if last > 0 {
            let sought = log.seek.send(Seek { last, until: position, interest }).into_actor(self);
            ctx.spawn(sought.map(move |answer, session, ctx| match answer {
                Ok(Ok(sought)) => {
                    if let Some(Strand { catch_up: CatchUp::Log(chase), .. }) = session.strand(key) {
                        chase.take_sought(sought);
                    }
                    session.has_read(ctx);
                }
                Ok(Err(error)) => session.lose_log(Some(&error), ctx),
                Err(_) => session.lose_log(None, ctx),
            }));
            return;
        }
        let query = ReadAfter { after, until, interest, limit: PAGE };
        let page = log.read.send(query).into_actor(self);
        ctx.spawn(page.map(move |answer, session, ctx| match answer {
            Ok(Ok(page)) => {
                if key == BASE {
                    session.write_page(&page, ctx);
                } else {
                    session.write_page_beside(key, &page);
                }
                session.has_read(ctx);
            }
            Ok(Err(error)) => session.lose_log(Some(&error), ctx),
            Err(_) => session.lose_log(None, ctx),
        }));
    }

    fn has_read(&mut self, ctx: &mut Context<Self>) {
        self.is_reading = false;
        self.worker.floor.borrow_mut().has_read(self.pass.client);
        self.go_on(ctx);
    }

    /// Writes a page, and the gap at its place: behind what is still there of the other channels, ahead of what follows.
    fn write_page(&mut self, page: &Page, ctx: &mut Context<Self>) {
        let Some(timeline) = self.timeline.clone() else { return };
        let CatchUp::Log(chase) = &mut self.base.catch_up else { return };
        let (loss, began) = chase.take_page(page);
        let (after, head, reset) = (chase.after, chase.until, chase.reset.take());
        if let Some(loss) = loss {
            let refusal = Refusal::Gap { after, resumed_at: loss.resumed_at, head };
            if !self.is_welcomed && self.refuse(refusal, ctx) {
                return;
            }
        }
        let gap = loss.and_then(|loss| loss.told);
        let before_gap = gap.map_or(page.records.len(), |gap| gap.before);
        if self.is_to_be_settled(reset) {
            let is_gap_next = gap.is_some() && before_gap == 0;
            // Who is cut before it has read of the gap is to be told again.
            let position = if is_gap_next && reset.is_none() { after } else { began };
            self.settle(position, &self.cursor(&timeline, position), is_gap_next, reset);
        }
        let (before, behind) = page.records.split_at_checked(before_gap).unwrap_or((&page.records, &[]));
        self.write_records(before, &timeline);
        if let Some(Told { position: resumed_at, .. }) = gap {
            self.count_gap(EXPIRED);
            let gap = notice::Gap { reason: EXPIRED, after, resumed_at, head };
            self.tell(Some(&self.cursor(&timeline, resumed_at)), Notice::Gap(gap));
        }
        self.write_records(behind, &timeline);
        self.base.position = page.through;
        self.pause();
    }

    /// Writes events of the base, but for what the client has had before.
    fn write_records(&mut self, records: &[Arc<Record>], timeline: &Timeline) {
        let mut pieces = Pieces::new(&self.sink);
        for record in records {
            let CatchUp::Log(chase) = &self.base.catch_up else { continue };
            let interest = &self.base.interest;
            // It may follow less than when the page was asked for.
            let is_due = |_: &Seq| interest.covers_event(&record.draft) && !chase.has_had(interest, record);
            let Some(seq) = record.seq().filter(is_due) else { continue };
            pieces.push(&self.encoding.event(record, Some(&self.cursor(timeline, seq))));
        }
        self.count_replayed(pieces.finish());
    }

    /// Writes frames that the broker holds of the base, with what catches up beside it named in their cursors.
    fn write_frames(&self, frames: Vec<Bytes>) {
        let known = self.beside.as_ref().zip(self.timeline.as_ref());
        let recast = known.and_then(|(beside, timeline)| beside.recast(timeline));
        self.count_replayed(frames.len() as u64);
        // Shared with all who missed the same, so they are not joined.
        for frame in frames {
            self.sink.write(recast.as_ref().map_or(frame.clone(), |recast| recast.apply(&frame)));
        }
    }

    fn lose_log(&mut self, error: Option<&LogError>, ctx: &mut Context<Self>) {
        let source = error.and_then(std::error::Error::source);
        tracing::warn!(client = %self.pass.client, ?source, "a replay ends because the log cannot be read");
        self.close(CloseReason::Unavailable, ctx);
    }

    fn close(&mut self, farewell: impl Into<Farewell>, ctx: &mut Context<Self>) {
        let farewell = farewell.into();
        let (reason, retry_in) = (farewell.reason, farewell.retry_in());
        if self.is_closing || self.refuse(Refusal::Closed { reason, retry_in }, ctx) {
            return;
        }
        self.is_closing = true;
        self.ended = Ended::Closed(reason);
        if reason != CloseReason::Slow {
            self.sink.keep_delivered();
        }
        let closing = Notice::Closing(notice::Closing { reason, retry_in });
        self.sink.end(Some(self.encoding.notice(self.told_cursor().as_ref(), &closing)));
        ctx.stop();
    }

    fn expire_at(&mut self, expires: Option<SystemTime>, ctx: &mut Context<Self>) {
        if let Some(before) = self.expiry.take() {
            ctx.cancel_future(before);
        }
        self.expiry = expires.map(|expires| {
            let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
            ctx.notify_later(Close(CloseReason::ExpiredToken.into()), left)
        });
    }
}

/// Frames on their way to a sink, joined to pieces of a good size.
struct Pieces<'a> {
    sink: &'a Sink,
    piece: BytesMut,
    events: u64,
}

impl<'a> Pieces<'a> {
    fn new(sink: &'a Sink) -> Self {
        Self { sink, piece: BytesMut::new(), events: 0 }
    }

    fn push(&mut self, frame: &[u8]) {
        if !self.piece.is_empty() && self.piece.len() + frame.len() > PIECE_BYTES {
            self.sink.write(self.piece.split().freeze());
        }
        self.piece.extend_from_slice(frame);
        self.events += 1;
    }

    /// Writes the rest, and says how many there were.
    fn finish(self) -> u64 {
        if !self.piece.is_empty() {
            self.sink.write(self.piece.freeze());
        }
        self.events
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Interest { session, subscription, .. } = &self.base.interest;
        self.worker.floor.borrow_mut().enter(
            self.pass.client,
            *session,
            subscription.clone(),
            self.encoding,
            self.sink.clone(),
            ctx.address().downgrade(),
        );
        if self.worker.broker.upgrade().is_none() || !self.worker.addr.connected() {
            return self.close(CloseReason::Unavailable, ctx);
        }
        self.go_on(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let last = self.count_end();
        self.worker.floor.borrow_mut().leave(self.pass.client);
        self.sink.end(None);
        // Goes with this session, and so behind whatever it has asked.
        self.pass.last = Some(last);
    }
}

impl Handler<Admitted> for Session {
    type Result = ();

    fn handle(&mut self, Admitted(answer): Admitted, ctx: &mut Self::Context) {
        match answer {
            Answer::Missed { after, through, frames, is_whole, timeline, reset } => {
                if let Some(reset) = reset
                    && self.refuse(Refusal::Reset(reset), ctx)
                {
                    return;
                }
                self.timeline = Some(timeline.clone());
                self.base.has_begun();
                if self.is_to_be_settled(reset) {
                    self.settle(after, &self.cursor(&timeline, after), false, reset);
                }
                self.tell_lag();
                self.base.position = through;
                self.write_frames(frames);
                if is_whole {
                    self.base.catch_up = CatchUp::Live;
                    if self.awaits_first_word() {
                        ctx.notify_later(FirstWordDue, FIRST_WORD);
                    } else {
                        self.sink.go_live();
                    }
                    self.go_on(ctx);
                } else {
                    self.base.catch_up = CatchUp::Written;
                    self.pause();
                }
            }
            Answer::Behind { origin, head, timeline, log, reset, had } => {
                if let Some(reset) = reset
                    && self.refuse(Refusal::Reset(reset), ctx)
                {
                    return;
                }
                self.timeline = Some(timeline);
                self.base.has_begun();
                let chase = Chase::new(origin, head, log, reset, had);
                self.base.position = chase.position;
                self.base.catch_up = CatchUp::Log(Box::new(chase));
                self.go_on(ctx);
            }
            Answer::Ahead => {
                let wait = self.base.wait_for_head();
                ctx.notify_later(LookAgain(BASE), wait);
            }
            Answer::Refused(farewell) => self.close(farewell, ctx),
        }
    }
}

impl Handler<FirstWordDue> for Session {
    type Result = ();

    fn handle(&mut self, _: FirstWordDue, ctx: &mut Self::Context) {
        self.take_first_word();
        self.go_on(ctx);
    }
}

impl Handler<LookAgain> for Session {
    type Result = ();

    fn handle(&mut self, LookAgain(key): LookAgain, ctx: &mut Self::Context) {
        if let Some(strand) = self.strand(key) {
            strand.look_again();
        }
        self.go_on(ctx);
    }
}

impl Handler<Drained> for Session {
    type Result = ();

    fn handle(&mut self, _: Drained, ctx: &mut Self::Context) {
        self.is_drained = true;
        self.go_on(ctx);
    }
}

impl Handler<MayRead> for Session {
    type Result = ();

    fn handle(&mut self, _: MayRead, ctx: &mut Self::Context) {
        self.read(ctx);
    }
}

impl Handler<FellOut> for Session {
    type Result = ();

    fn handle(&mut self, _: FellOut, ctx: &mut Self::Context) {
        if let Some(position) = self.sink.position() {
            tracing::debug!(client = %self.pass.client, position, "too slow for its feed, back to the log");
            self.base.position = position;
            self.tell_lag();
            self.base.catch_up = CatchUp::Written;
            self.go_on(ctx);
        }
    }
}

impl Handler<Ping> for Session {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {
        if let Some(timeline) = self.timeline.as_ref().filter(|_| self.is_welcomed && !self.base.is_live()) {
            self.sink.write(self.encoding.ping(&self.cursor(timeline, self.base.position), false));
        }
    }
}

impl Handler<Expire> for Session {
    type Result = ();

    fn handle(&mut self, Expire(expires): Expire, ctx: &mut Self::Context) {
        self.expire_at(expires, ctx);
    }
}

impl Handler<Close> for Session {
    type Result = ();

    fn handle(&mut self, Close(farewell): Close, ctx: &mut Self::Context) {
        self.close(farewell, ctx);
    }
}

impl Handler<Disconnected> for Session {
    type Result = ();

    fn handle(&mut self, _: Disconnected, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
