//! The session actor: wraps one client's sink and owns its life, from the first block to why it ended.
//!
//! It lends the sink to the worker of its thread while the client is live, and takes it back to fetch from the log
//! what the client has missed: page by page, each written before the next is asked for, so that the client's own
//! speed is the pace.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::WeakAddr;
use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use rand::RngExt;
use tokio::sync::oneshot;

use super::broker::{At, Attach, Broker, Detached, Outlet, Start};
use super::log::{Page, PageLimit, ReadAfter, Seek, Sought};
use super::replay::{NOTHING_PROMISED, Told, find_loss, is_last_look, next_look, start_of};
use super::sink::Sink;
use super::turns::Turn;
use super::worker::{TakeTurns, WorkerHandle};
use crate::cursor::{ResetReason, Seq, Timeline};
use crate::error::{CloseReason, LogError};
use crate::identity::ClientId;
use crate::interest::Interest;
use crate::record::Record;
use crate::wire::{Encoding, Frames, sse};

/// How much of the log is held for a client at a time.
pub(crate) const PAGE: PageLimit = PageLimit { events: 1024, bytes: 256 * 1024 };
/// Replayed frames are written in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;

/// What the broker answers to [`Attach`], with events as bytes or as they are.
pub(crate) enum Answer<F = Bytes> {
    /// What it missed after `after` and up to `through`. `is_whole`: that is all, the client is live from there on; else
    /// it asks again when it has written this.
    Missed {
        after: Seq,
        through: Seq,
        frames: Vec<F>,
        is_whole: bool,
        timeline: Timeline,
        reset: Option<Reset>,
    },
    /// What it missed is in the log. Read up to `head`, then ask again.
    Behind { origin: Origin, head: Seq, timeline: Timeline, log: LogReader, reset: Option<Reset> },
    /// Its cursor is beyond the head of this node.
    Ahead,
    /// There is no stream to be had.
    Refused(CloseReason),
}

/// A cursor that could not be resumed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reset {
    pub(crate) reason: ResetReason,
    pub(crate) head: Seq,
}

/// Where a reading of the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// After this position, with a gap told.
    After(Seq),
    /// At the earliest event kept.
    Earliest,
    /// So many events before the head.
    Last(u64),
}

/// How a session reads the log.
#[derive(Clone)]
pub(crate) struct LogReader {
    pub(crate) read: Recipient<ReadAfter>,
    pub(crate) seek: Recipient<Seek>,
}

/// Fact: the broker has answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Admitted(pub(crate) Answer);

/// Command: show that the stream is alive; for a client that is not live, since the worker sees to those that are.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ping;

/// Command: end the stream and say why.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) CloseReason);

/// Fact: the writer has taken all that the session wrote.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drained;

/// Fact: the client was too slow for its feed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct FellOut;

/// Fact: the writer is gone, and the client with it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Disconnected;

/// Command: it is this session's turn to read a page.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct MayRead;

/// Command: look again whether the head has come.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAgain;

/// Why a client that wants all or nothing got nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Reset(Reset),
    Gap { after: Seq, resumed_at: Seq, head: Seq },
    Closed { reason: CloseReason, retry_in: Duration },
}

/// What a session is started with.
pub(crate) struct SessionSettings {
    pub(crate) client: ClientId,
    pub(crate) interest: Interest,
    pub(crate) encoding: Encoding,
    pub(crate) start: Start,
    /// When its grant ends.
    pub(crate) expires: Option<SystemTime>,
    /// For a client that wants its position settled before it has its answer.
    pub(crate) verdict: Option<oneshot::Sender<Result<(), Refusal>>>,
}

pub(crate) struct Session {
    settings: SessionSettings,
    worker: WorkerHandle,
    broker: WeakAddr<Broker>,
    sink: Rc<Sink>,
    is_welcomed: bool,
    catch_up: CatchUp,
    waited: Duration,
    is_closing: bool,
}

/// How a client that is not live gets what it missed.
enum CatchUp {
    /// It is live, or has asked to be.
    Done,
    /// From the broker's ring, up to here so far.
    Ring { position: Seq, timeline: Timeline },
    /// From the log.
    Log(Chase),
}

/// A reading of the log under way.
struct Chase {
    /// Where it began.
    after: Seq,
    /// It is read up to here.
    position: Seq,
    until: Seq,
    /// How many of the last events are still to be found before it can be read, and up to where.
    to_seek: Sought,
    /// What was removed up to here the client was never promised, or was told.
    known_trim: Seq,
    timeline: Timeline,
    log: LogReader,
    reset: Option<Reset>,
}

impl Session {
    /// Starts a session on this thread. The sink has its first line already.
    pub(crate) fn start_here(
        settings: SessionSettings,
        worker: WorkerHandle,
        broker: WeakAddr<Broker>,
    ) -> (Addr<Self>, Rc<Sink>) {
        let sink = Sink::new();
        sink.write(sse::retry(spread(2_000, 5_000)));
        let session = Self {
            settings,
            worker,
            broker,
            sink: sink.clone(),
            is_welcomed: false,
            catch_up: CatchUp::Done,
            waited: Duration::ZERO,
            is_closing: false,
        };
        (session.start(), sink)
    }

    fn attach(&self, at: At) {
        let Some(broker) = self.broker.upgrade() else { return };
        broker.do_send(Attach {
            client: self.settings.client,
            outlet: Outlet::Thread(self.worker.addr.clone(), self.settings.encoding),
            interest: self.settings.interest.clone(),
            at,
        });
    }

    /// Tells one that waits for its verdict that there is no stream. True if somebody waited.
    fn refuse(&mut self, refusal: Refusal, ctx: &mut Context<Self>) -> bool {
        let Some(verdict) = self.settings.verdict.take() else { return false };
        // Whoever waited may have left; the session ends either way.
        let _ = verdict.send(Err(refusal));
        self.is_closing = true;
        ctx.stop();
        true
    }

    /// The first block of the stream, and the reset if there was one: after these the position is settled.
    fn welcome(&mut self, position: Seq, is_notice_next: bool, timeline: &Timeline, reset: Option<Reset>) {
        let cursor = timeline.cursor(position);
        if !std::mem::replace(&mut self.is_welcomed, true) {
            if let Some(verdict) = self.settings.verdict.take() {
                let _ = verdict.send(Ok(()));
            }
            let welcome = sse::Welcome {
                client: self.settings.client,
                session: self.settings.interest.session,
                heartbeat: self.worker.floor.borrow().settings.heartbeat,
            };
            let is_settled = reset.is_none() && !is_notice_next;
            self.sink.write(sse::welcome(is_settled.then_some(&cursor), &welcome));
        }
        if let Some(Reset { reason, head }) = reset {
            self.sink.write(sse::reset(&cursor, &sse::Reset { reason, head }));
        }
    }

    fn tell_lag(&self) {
        let dropped = self.sink.take_lost();
        if dropped > 0 {
            self.sink.write(sse::lag(dropped));
        }
    }

    /// Reads the next page when it is this session's turn.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        let turn = self.worker.floor.borrow_mut().ask_to_read(self.settings.client);
        match turn {
            Turn::Now => self.read(ctx),
            Turn::Later => {}
            Turn::FirstToWait => self.worker.addr.do_send(TakeTurns),
        }
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let CatchUp::Log(chase) = &self.catch_up else { return self.has_read() };
        if chase.to_seek.left > 0 {
            return self.seek(chase, ctx);
        }
        let query = ReadAfter {
            after: chase.position,
            until: chase.until,
            interest: self.settings.interest.clone(),
            limit: PAGE,
        };
        let page = chase.log.read.send(query).into_actor(self);
        ctx.spawn(page.map(|answer, session, ctx| match answer {
            Ok(Ok(page)) => {
                session.write_page(&page, ctx);
                session.has_read();
            }
            Ok(Err(error)) => session.lose_log(Some(&error), ctx),
            Err(_) => session.lose_log(None, ctx),
        }));
    }

    fn has_read(&self) {
        self.worker.floor.borrow_mut().has_read(self.settings.client);
    }

    /// Writes a page, and the gap at its place: behind what is still there of the other channels, ahead of what follows.
    fn write_page(&mut self, page: &Page, ctx: &mut Context<Self>) {
        let CatchUp::Log(mut chase) = std::mem::replace(&mut self.catch_up, CatchUp::Done) else { return };
        let loss = find_loss(page, chase.until, &mut chase.known_trim);
        if let Some(loss) = loss {
            let refusal = Refusal::Gap { after: chase.after, resumed_at: loss.resumed_at, head: chase.until };
            if !self.is_welcomed && self.refuse(refusal, ctx) {
                return;
            }
        }
        let reset = chase.reset.take();
        let gap = loss.and_then(|loss| loss.told);
        let before_gap = gap.map_or(page.records.len(), |gap| gap.before);
        if !self.is_welcomed || reset.is_some() {
            let is_gap_next = gap.is_some() && before_gap == 0;
            self.welcome(chase.position.max(start_of(page)), is_gap_next, &chase.timeline, reset);
        }
        let (before, behind) = page.records.split_at_checked(before_gap).unwrap_or((&page.records, &[]));
        self.write_records(before, &chase.timeline);
        if let Some(Told { position: resumed_at, .. }) = gap {
            let notice = sse::Gap { reason: "expired", after: chase.after, resumed_at, head: chase.until };
            self.sink.write(sse::gap(&chase.timeline.cursor(resumed_at), &notice));
        }
        self.write_records(behind, &chase.timeline);
        chase.position = page.through;
        self.catch_up = CatchUp::Log(chase);
        self.sink.tell_when_drained();
    }

    /// Writes events in pieces of a good size.
    fn write_records(&self, records: &[Arc<Record>], timeline: &Timeline) {
        let mut piece = BytesMut::new();
        for record in records {
            let mut frames = Frames::default();
            let frame = frames.encode(self.settings.encoding, record, timeline);
            if !piece.is_empty() && piece.len() + frame.len() > PIECE_BYTES {
                self.sink.write(piece.split().freeze());
            }
            piece.extend_from_slice(frame);
        }
        if !piece.is_empty() {
            self.sink.write(piece.freeze());
        }
    }

    fn seek(&self, chase: &Chase, ctx: &mut Context<Self>) {
        let Sought { position: until, left: last } = chase.to_seek;
        let query = Seek { last, until, interest: self.settings.interest.clone() };
        let sought = chase.log.seek.send(query).into_actor(self);
        ctx.spawn(sought.map(|answer, session, ctx| match answer {
            Ok(Ok(sought)) => {
                if let CatchUp::Log(chase) = &mut session.catch_up {
                    chase.to_seek = sought;
                    (chase.after, chase.position) = (sought.position, sought.position);
                }
                session.has_read();
                session.read_on(ctx);
            }
            Ok(Err(error)) => session.lose_log(Some(&error), ctx),
            Err(_) => session.lose_log(None, ctx),
        }));
    }

    fn lose_log(&mut self, error: Option<&LogError>, ctx: &mut Context<Self>) {
        let source = error.and_then(std::error::Error::source);
        tracing::warn!(client = %self.settings.client, ?source, "a replay ends because the log cannot be read");
        self.close(CloseReason::Unavailable, ctx);
    }

    fn close(&mut self, reason: CloseReason, ctx: &mut Context<Self>) {
        let retry_in = retry_after(reason, self.worker.floor.borrow().settings.drain);
        if self.is_closing || self.refuse(Refusal::Closed { reason, retry_in }, ctx) {
            return;
        }
        self.is_closing = true;
        tracing::debug!(client = %self.settings.client, reason = reason.as_str(), "stream ends");
        if reason != CloseReason::Slow {
            self.sink.keep_delivered();
        }
        self.sink.end(Some(sse::closing(reason, retry_in)));
        ctx.stop();
    }
}

/// When to come back, spread so that those who left together do not return together.
fn retry_after(reason: CloseReason, drain: Duration) -> Duration {
    match reason {
        CloseReason::Draining => drain.saturating_add(spread(1_000, 5_000)),
        CloseReason::Unavailable => spread(5_000, 30_000),
        CloseReason::Slow | CloseReason::ExpiredToken | CloseReason::Revoked => spread(2_000, 5_000),
    }
}

fn spread(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(from_ms..=to_ms))
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let SessionSettings { client, interest, encoding, start, .. } = &self.settings;
        self.worker.floor.borrow_mut().enter(
            *client,
            interest.session,
            interest.subscription.clone(),
            *encoding,
            self.sink.clone(),
            ctx.address(),
        );
        if let Some(expires) = self.settings.expires {
            let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
            ctx.notify_later(Close(CloseReason::ExpiredToken), left);
        }
        if self.broker.upgrade().is_none() {
            return self.close(CloseReason::Unavailable, ctx);
        }
        self.attach(At::Start(start.clone()));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.worker.floor.borrow_mut().leave(self.settings.client);
        self.sink.end(None);
        if let Some(broker) = self.broker.upgrade() {
            broker.do_send(Detached { client: self.settings.client });
        }
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
                if !self.is_welcomed || reset.is_some() {
                    self.welcome(after, false, &timeline, reset);
                }
                self.tell_lag();
                // Shared with all who missed the same, so they are not joined.
                for frame in frames {
                    self.sink.write(frame);
                }
                if is_whole {
                    self.catch_up = CatchUp::Done;
                    self.sink.go_live();
                } else {
                    self.catch_up = CatchUp::Ring { position: through, timeline };
                    self.sink.tell_when_drained();
                }
            }
            Answer::Behind { origin, head, timeline, log, reset } => {
                if let Some(reset) = reset
                    && self.refuse(Refusal::Reset(reset), ctx)
                {
                    return;
                }
                let (position, tells_gaps) = match origin {
                    Origin::After(position) => (position, true),
                    Origin::Earliest | Origin::Last(_) => (0, false),
                };
                let known_trim = if tells_gaps { 0 } else { NOTHING_PROMISED };
                let after = position;
                let left = if let Origin::Last(last) = origin { last } else { 0 };
                let to_seek = Sought { position: head, left };
                self.catch_up = CatchUp::Log(Chase {
                    after,
                    position,
                    until: head,
                    to_seek,
                    known_trim,
                    timeline,
                    log,
                    reset,
                });
                self.read_on(ctx);
            }
            Answer::Ahead => {
                let wait = next_look(self.waited);
                self.waited += wait;
                ctx.notify_later(LookAgain, wait);
            }
            Answer::Refused(reason) => self.close(reason, ctx),
        }
    }
}

impl Handler<LookAgain> for Session {
    type Result = ();

    fn handle(&mut self, _: LookAgain, _: &mut Self::Context) {
        let is_last = is_last_look(self.waited);
        self.attach(At::Again { start: self.settings.start.clone(), is_last });
    }
}

impl Handler<Drained> for Session {
    type Result = ();

    fn handle(&mut self, _: Drained, ctx: &mut Self::Context) {
        match &self.catch_up {
            CatchUp::Log(chase) if chase.position < chase.until => self.read_on(ctx),
            CatchUp::Log(chase) => self.attach(At::Position(chase.position)),
            CatchUp::Ring { position, .. } => self.attach(At::Position(*position)),
            CatchUp::Done => {}
        }
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

    fn handle(&mut self, _: FellOut, _: &mut Self::Context) {
        self.tell_lag();
        if let Some(position) = self.sink.position() {
            tracing::debug!(client = %self.settings.client, position, "too slow for its feed, back to the log");
            self.attach(At::Position(position));
        }
    }
}

impl Handler<Ping> for Session {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {
        let (position, timeline) = match &self.catch_up {
            CatchUp::Done => return,
            CatchUp::Ring { position, timeline } => (*position, timeline),
            CatchUp::Log(chase) => (chase.position, &chase.timeline),
        };
        if self.is_welcomed {
            self.sink.write(sse::ping(&timeline.cursor(position)));
        }
    }
}

impl Handler<Close> for Session {
    type Result = ();

    fn handle(&mut self, Close(reason): Close, ctx: &mut Self::Context) {
        self.close(reason, ctx);
    }
}

impl Handler<Disconnected> for Session {
    type Result = ();

    fn handle(&mut self, _: Disconnected, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
