//! How a client comes to its place: registered, and handed what it missed, in one step; or sent to the log first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::prelude::*;

use super::Broker;
use crate::actors::backlog::Backlog;
use crate::actors::farewell::Farewell;
use crate::actors::local::Local;
use crate::actors::registry::{Route, WorkerKey};
use crate::actors::ring::{Ring, Slice};
use crate::actors::session::{Answer, LogReader, Origin, PAGE, Reset};
use crate::actors::tally::Tally;
use crate::actors::view::ClientView;
use crate::actors::worker::{Admit, Retire, Worker};
use crate::cursor::{Cursor, ResetReason, Seq, Timeline};
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::{Interest, Subscription};
use crate::record::Record;
use crate::wire::Encoding;

/// Where a client that has no position yet wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Begin {
    /// With what comes.
    #[default]
    Now,
    /// With the earliest event kept.
    Earliest,
    /// With the last so many events.
    Last(u64),
}

/// Where a client wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// Without a cursor.
    At(Begin),
    /// After a cursor; if that cannot be resumed, as `otherwise` says. No cursor at all stands for a malformed one.
    After { cursor: Option<Cursor>, otherwise: Begin },
}

/// Where a session is in its life when it asks.
#[derive(Debug, Clone)]
pub(crate) enum At {
    /// It has just come.
    Start(Start),
    /// It has waited for the head to reach its cursor.
    Again { start: Start, is_last: bool },
    /// It has everything up to here.
    Position(Seq),
}

/// Who delivers to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum WorkerAddr {
    /// To those of one HTTP thread, bytes.
    Thread(Addr<Worker>),
    /// To those in this process, events as they are.
    Local(Addr<Local>),
}

impl WorkerAddr {
    fn connected(&self) -> bool {
        match self {
            Self::Thread(worker) => worker.connected(),
            Self::Local(local) => local.connected(),
        }
    }

    pub(super) fn do_send<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Worker: Handler<M>,
        Local: Handler<M>,
        Context<Worker>: ToEnvelope<Worker, M>,
        Context<Local>: ToEnvelope<Local, M>,
    {
        match self {
            Self::Thread(worker) => worker.do_send(message),
            Self::Local(local) => local.do_send(message),
        }
    }
}

/// Where a client's events leave: by whom, and in which form.
#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    Thread(Addr<Worker>, Encoding),
    Local(Addr<Local>),
}

impl Outlet {
    fn worker(&self) -> WorkerAddr {
        match self {
            Self::Thread(worker, _) => WorkerAddr::Thread(worker.clone()),
            Self::Local(local) => WorkerAddr::Local(local.clone()),
        }
    }

    fn encoding(&self) -> Option<Encoding> {
        match self {
            Self::Thread(_, encoding) => Some(*encoding),
            Self::Local(_) => None,
        }
    }
}

/// Command: make this client live. Answered to its worker, since the answer must stand in line with what is delivered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Attach {
    pub(crate) client: ClientId,
    pub(crate) outlet: Outlet,
    pub(crate) interest: Interest,
    /// What it follows and has to catch up with, if that has changed since the broker has heard of it.
    pub(crate) followed: Option<Subscription>,
    pub(crate) at: At,
}

/// Fact: a client is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Detached {
    pub(crate) client: ClientId,
    /// The last that is to be seen of it; nothing of one that never had a stream.
    pub(crate) last: Option<Box<ClientView>>,
}

/// Fact: a worker is gone, and all its clients with it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WorkerStopped {
    pub(crate) worker: WorkerAddr,
    /// What it has counted.
    pub(crate) tally: Box<Tally>,
}

/// A worker, and what it was sent and has not handed on.
pub(super) struct WorkerEntry {
    pub(super) addr: WorkerAddr,
    pub(super) backlog: Backlog,
    /// What it has counted, as far as the broker knows.
    pub(super) tally: Box<Tally>,
    pub(super) lagging: u64,
}

impl Broker {
    pub(super) fn attach(&mut self, attach: Attach) {
        let address = attach.outlet.worker();
        if !address.connected() {
            // It has ended its streams itself.
            return;
        }
        let worker = self.worker_key(address);
        // Those who are here already go when they are told to.
        let draining = self.draining.filter(|_| !self.registry.knows(attach.client));
        let barred = self.bars(attach.client).map(Farewell::from).or(draining);
        let timeline = match (barred, &self.lineage) {
            (Some(farewell), _) => Err(farewell),
            (None, None) if self.filling.is_none() => return self.early.push(attach),
            (None, None) => Err(CloseReason::Unavailable.into()),
            (None, Some(lineage)) => Ok(lineage.timeline()),
        };
        let Attach { client, outlet, interest, followed, at } = attach;
        if timeline.is_ok() {
            let route = Route { worker, encoding: outlet.encoding() };
            // Known from its first word on, so that it can be counted, reached and closed while it catches up.
            self.registry.enter(client, interest.clone(), route);
            self.admission.settle(client);
            if let Some(followed) = followed {
                self.follow(client, &followed);
            }
        }
        match outlet {
            Outlet::Thread(worker, encoding) => {
                let answer = self.answer(timeline, at, &interest, |ring, after, timeline| {
                    ring.after(after, &interest, encoding, timeline, PAGE)
                });
                worker.do_send(Admit { client, answer });
            }
            Outlet::Local(local) => {
                let answer = self.answer(timeline, at, &interest, |ring, after, _| {
                    ring.records_after(after, &interest, PAGE)
                });
                local.do_send(Admit::<Arc<Record>> { client, answer });
            }
        }
    }

    /// What a client is told, `slice` being how it is given what the ring has. Without a timeline there is no stream, but a farewell.
    pub(super) fn answer<F>(
        &mut self,
        timeline: Result<Timeline, Farewell>,
        at: At,
        interest: &Interest,
        slice: impl FnOnce(&mut Ring, Seq, &Timeline) -> Slice<F>,
    ) -> Answer<F> {
        let timeline = match timeline {
            Ok(timeline) => timeline,
            Err(farewell) => return Answer::Refused(farewell),
        };
        let Located { origin, reset, had } = match self.locate(at, interest) {
            Ok(located) => located,
            Err(NotHere::Yet) => return Answer::Ahead,
            Err(NotHere::Elsewhere) => return Answer::Refused(CloseReason::Unavailable.into()),
        };
        let log = LogReader { read: self.log.read.clone(), seek: self.log.seek.clone() };
        if let Some((had, level)) = had {
            let origin = origin.unwrap_or(Origin::After(self.head));
            return Answer::Behind { origin, head: level, timeline, log, reset, had: Some(had) };
        }
        match self.covered(origin, interest) {
            Some(after) => {
                let Slice { frames, through, is_whole } = slice(&mut self.ring, after, &timeline);
                Answer::Missed { after, through, frames, is_whole, timeline, reset }
            }
            None => Answer::Behind {
                origin: origin.unwrap_or(Origin::After(self.head)),
                head: self.head,
                timeline,
                log,
                reset,
                had: None,
            },
        }
    }

    /// Where the reading begins for somebody who stands there and follows this.
    fn locate(&self, at: At, interest: &Interest) -> Result<Located, NotHere> {
        let (start, is_patient) = match at {
            At::Position(position) => return Ok(Located::at(Some(Origin::After(position)))),
            At::Start(start) => (start, true),
            At::Again { start, is_last } => (start, !is_last),
        };
        let (cursor, otherwise) = match start {
            Start::At(begin) => return Ok(Located::at(begin.origin())),
            Start::After { cursor, otherwise } => (cursor, otherwise),
        };
        let located = match (&cursor, &self.lineage) {
            (Some(cursor), Some(lineage)) => lineage.locate(cursor, self.head),
            _ => Err(ResetReason::Malformed),
        };
        match (located, cursor) {
            (Ok(_), Some(cursor)) if cursor.has_exceptions() => Ok(Located::among(cursor, interest)),
            (Ok(position), _) => Ok(Located::at(Some(Origin::After(position)))),
            (Err(ResetReason::Ahead), _) if is_patient => Err(NotHere::Yet),
            (Err(ResetReason::Ahead), Some(ref cursor)) if self.may_be_elsewhere(cursor.seq()) => {
                Err(NotHere::Elsewhere)
            }
            (Err(reason), _) => {
                let reset = Some(Reset { reason, head: self.head });
                Ok(Located { reset, ..Located::at(otherwise.origin()) })
            }
        }
    }

    /// Whether others may well be at a position that this node is not at yet: the log is shared, and its order was not
    /// asked lately, or goes beyond it.
    fn may_be_elsewhere(&self, seq: Seq) -> bool {
        let is_known = |&(_, at): &(Seq, Instant)| at.elapsed() < LATELY;
        self.log.relay.is_some() && self.reached.filter(is_known).is_none_or(|(reached, _)| seq <= reached)
    }

    /// The position that the ring can go on from, if it holds everything after the origin.
    fn covered(&self, origin: Option<Origin>, interest: &Interest) -> Option<Seq> {
        let position = match origin {
            None => self.head,
            Some(Origin::After(position)) => position,
            Some(Origin::Earliest) => 0,
            Some(Origin::Last(last)) => self.ring.before_last(last, interest)?,
        };
        self.ring.covers(position, interest).then_some(position)
    }

    /// Has a client that is known follow this from now on.
    pub(super) fn follow(&mut self, client: ClientId, followed: &Subscription) {
        let left = self.registry.change(client, followed);
        self.kept_by_interest.leave(left.iter(), Instant::now());
    }

    pub(super) fn worker_key(&mut self, worker: WorkerAddr) -> WorkerKey {
        if let Some(&key) = self.worker_keys.get(&worker) {
            return key;
        }
        if let WorkerAddr::Thread(thread) = &worker {
            thread.do_send(self.settings.worker);
        }
        let tally = Box::default();
        let key = self.workers.insert(WorkerEntry {
            addr: worker.clone(),
            backlog: Backlog::default(),
            tally,
            lagging: 0,
        });
        self.worker_keys.insert(worker, key);
        key
    }
}

/// A look at a shared order that is younger than this was taken while a client waited for its position, which is for two
/// seconds.
const LATELY: Duration = Duration::from_millis(1500);

/// The cursor is beyond the head.
enum NotHere {
    /// That may yet come.
    Yet,
    /// It is not known here whether there is such a place.
    Elsewhere,
}

/// Where a reading begins.
struct Located {
    /// Nothing for the head.
    origin: Option<Origin>,
    /// What led there instead of a cursor.
    reset: Option<Reset>,
    /// The cursor, if it stands for several positions, and the highest of them.
    had: Option<(Cursor, Seq)>,
}

impl Located {
    fn at(origin: Option<Origin>) -> Self {
        Self { origin, reset: None, had: None }
    }

    /// Where somebody who follows this begins with a cursor that speaks of several positions, and maybe of what is not
    /// followed any more.
    fn among(cursor: Cursor, interest: &Interest) -> Self {
        let (lowest, highest) = interest.positions_in(&cursor);
        let had = (lowest < highest).then_some((cursor, highest));
        Self { had, ..Self::at(Some(Origin::After(lowest))) }
    }
}

impl Begin {
    fn origin(self) -> Option<Origin> {
        match self {
            Self::Now | Self::Last(0) => None,
            Self::Earliest => Some(Origin::Earliest),
            Self::Last(last) => Some(Origin::Last(last)),
        }
    }
}

impl Handler<Attach> for Broker {
    type Result = ();

    fn handle(&mut self, attach: Attach, _: &mut Self::Context) {
        self.attach(attach);
    }
}

impl Handler<Detached> for Broker {
    type Result = ();

    fn handle(&mut self, Detached { client, last }: Detached, _: &mut Self::Context) {
        if let Some(last) = last {
            self.tombstones.add(*last, Instant::now());
        }
        self.early.retain(|attach| attach.client != client);
        self.admission.leave(client);
        if let Some(interest) = self.registry.leave(client) {
            self.kept_by_interest.leave(interest.subscription.selectors(), Instant::now());
        }
    }
}

impl Handler<WorkerStopped> for Broker {
    type Result = ();

    fn handle(&mut self, WorkerStopped { worker, tally }: WorkerStopped, _: &mut Self::Context) {
        self.measures.past.merge(&tally);
        if let Some(key) = self.worker_keys.remove(&worker) {
            for interest in self.registry.drop_worker(key) {
                self.kept_by_interest.leave(interest.subscription.selectors(), Instant::now());
            }
            if let Some(gone) = self.workers.try_remove(key) {
                gone.addr.do_send(Retire);
            }
            self.no_count_from(key);
        }
    }
}
