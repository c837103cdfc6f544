//! The broker: owns who is connected and who follows what, takes events in, and sends each to the workers that have
//! somebody for it.
//!
//! Its handlers are in the files of what they are about: [`publish`], [`commit`], [`bind`], [`door`], [`attach`], [`join`], [`query`],
//! [`drain`], [`survey`], [`inspect`].

mod attach;
mod bind;
mod builder;
mod commit;
mod door;
mod drain;
mod inspect;
mod join;
mod publish;
mod query;
mod reply;
mod survey;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use actix::prelude::*;
use slab::Slab;

use self::attach::WorkerEntry;
pub(crate) use self::attach::{At, Attach, Begin, Detached, Outlet, Start, WorkerAddr, WorkerStopped};
pub use self::bind::{Bind, BindWith, Bound, Unbind};
pub use self::builder::Builder;
pub use self::door::CloseSession;
pub(crate) use self::door::{AskFarewell, IsRevoked, Knock, Pass, Refused};
use self::drain::Leaving;
pub use self::drain::{Drain, DrainWithin};
pub(crate) use self::inspect::{AskClient, AskSessions, Found, FoundSessions};
pub(crate) use self::join::Join;
pub(crate) use self::publish::Publish;
pub use self::publish::{Batch, Broadcast, Receipt};
use self::query::HistoryDoor;
pub(crate) use self::query::{AskHistory, AskLocal};
pub use self::query::{BrokerStats, Members, Presence, Sessions, Stats};
pub use self::reply::Deferred;
pub(crate) use self::survey::Counted;
use self::survey::Measures;
pub use self::survey::{LogOverview, Overview, Survey};
use super::admission::Admission;
use super::bindings::Bindings;
use super::farewell::Farewell;
use super::heartbeat::{Heartbeat, Ping};
use super::intake::Intake;
use super::kept::KeptByInterest;
use super::local::Local;
use super::log::{
    CommitFailed, Committed, Follower, Forget, LogHandle, LogHealth, LogSetup, Opened, Progress, Relayed,
    Trim, Trimmed,
};
use super::registry::{Registry, WorkerKey};
use super::revoked::Revoked;
use super::ring::Ring;
use super::tick::tick;
use super::tombstones::Tombstones;
use super::worker::{CloseAll, PingSlot, Retire};
use crate::config::Settings;
use crate::cursor::{Lineage, Seq, Timeline};
use crate::error::{CloseReason, LogError};

/// How often channels that are kept by interest are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// The broker actor. Its address is all that a service needs: events go in by [`Broadcast`], streams come out by the
/// scope that is mounted with it.
///
/// It runs on an arbiter of its own and stops with its last address: its streams end, and its actors stop.
pub struct Broker {
    settings: Settings,
    log: LogHandle,
    /// Held so that it beats as long as the broker is there.
    _heartbeat: Addr<Heartbeat>,
    registry: Registry,
    workers: Slab<WorkerEntry>,
    worker_keys: HashMap<WorkerAddr, WorkerKey>,
    /// Who delivers in this process, from the first subscriber there on.
    local: Option<Addr<Local>>,
    intake: Intake<reply::Reply>,
    /// What events get added on their way in.
    bindings: Bindings,
    /// The newest change of them that the log has told, if they are settled by it.
    known: u64,
    ring: Ring,
    lineage: Option<Lineage>,
    /// How far the log has come, if it takes a while until it is open.
    filling: Option<Progress>,
    /// How far the order of a shared log had come, and when it was asked.
    reached: Option<(Seq, Instant)>,
    timeline: Option<Timeline>,
    head: Seq,
    /// Clients that asked before the log was open.
    early: Vec<Attach>,
    admission: Admission,
    revoked: Revoked,
    /// What is said to those who come, once nobody is let in any more.
    draining: Option<Farewell>,
    /// Those who are still to be told of it.
    leaving: Option<Leaving>,
    history: HistoryDoor,
    is_log_writable: bool,
    /// What is kept only while somebody is interested.
    kept_by_interest: KeptByInterest,
    started: Instant,
    /// Every event that was ever sent on, for numbering parcels.
    delivered: u64,
    committed: u64,
    refused: u64,
    complained: Option<Instant>,
    /// What is measured, for those who ask.
    measures: Measures,
    /// Clients that have ended, for those who ask why.
    tombstones: Tombstones,
}

impl Broker {
    /// A broker with the default settings, to be changed and started.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn create(
        settings: Settings,
        log: Box<dyn super::log::Log>,
        ctx: &mut Context<Self>,
    ) -> Result<Self, LogError> {
        let me = ctx.address();
        let follower = Follower {
            opened: me.clone().recipient::<Opened>().downgrade(),
            committed: me.clone().recipient::<Committed>().downgrade(),
            failed: me.clone().recipient::<CommitFailed>().downgrade(),
            health: me.clone().recipient::<LogHealth>().downgrade(),
            trimmed: me.clone().recipient::<Trimmed>().downgrade(),
            relayed: me.clone().recipient::<Relayed>().downgrade(),
        };
        let log = log.start(LogSetup { follower, retention: settings.retention.clone() })?;
        let heartbeat = Heartbeat::new(me.downgrade(), settings.worker.heartbeat).start();
        Ok(Self {
            intake: Intake::new(settings.intake, log.commit_bytes, log.bound.is_some()),
            log,
            _heartbeat: heartbeat,
            registry: Registry::default(),
            workers: Slab::new(),
            worker_keys: HashMap::new(),
            local: None,
            bindings: Bindings::new(settings.bindings),
            known: 0,
            ring: Ring::new(settings.ring_events, settings.ring_bytes, 0),
            lineage: None,
            filling: None,
            reached: None,
            timeline: None,
            head: 0,
            early: Vec::new(),
            admission: Admission::new(settings.admission),
            revoked: Revoked::default(),
            draining: None,
            leaving: None,
            history: HistoryDoor::default(),
            is_log_writable: true,
            kept_by_interest: KeptByInterest::new(settings.retention.clone()),
            started: Instant::now(),
            delivered: 0,
            committed: 0,
            refused: 0,
            complained: None,
            measures: Measures::new(Instant::now()),
            tombstones: Tombstones::default(),
            settings,
        })
    }

    /// Says once a second at most what went wrong, with the counts so far: who used `do_send` learns of it here alone.
    fn complain(&mut self, why: &dyn std::fmt::Display) {
        let now = Instant::now();
        let is_due = self.complained.is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1));
        if is_due {
            self.complained = Some(now);
            let (refused, dropped) = (self.refused, self.bindings.dropped());
            tracing::warn!(refused, dropped_bindings = dropped, "{why}");
        }
    }

    /// Has the log forget what nobody is interested in any more.
    fn sweep(&mut self) {
        let registry = &self.registry;
        let gone = self.kept_by_interest.sweep(Instant::now(), |channel| registry.has_followers(channel));
        for channel in gone {
            self.log.forget.do_send(Forget { channel });
        }
    }

    /// The log will not be open for a while: who waits for it is better served elsewhere.
    fn note_filling(&mut self, progress: Progress) {
        self.filling = Some(progress);
        for attach in std::mem::take(&mut self.early) {
            self.attach(attach);
        }
    }

    fn trim(&mut self, trims: Vec<Trim>) {
        for Trim { channel, through } in trims {
            self.ring.trim(channel, through);
        }
    }

    fn close_all(&self, farewell: Farewell) {
        for (_, worker) in &self.workers {
            worker.addr.do_send(CloseAll { farewell });
        }
    }
}

/// Command to itself: have the log forget what nobody is interested in.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct Sweep;

impl Handler<Sweep> for Broker {
    type Result = ();

    fn handle(&mut self, _: Sweep, _: &mut Self::Context) {
        self.sweep();
    }
}

impl Actor for Broker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        tracing::debug!("broker started");
        if self.kept_by_interest.is_in_use() {
            tick(&ctx.address(), SWEEP_EVERY, Sweep);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        for (_, worker) in &self.workers {
            worker.addr.do_send(Retire);
        }
        // It may have subscribers whose first word is still on its way.
        if let Some(local) = &self.local {
            local.do_send(Retire);
        }
        tracing::debug!("broker stopped");
        // The arbiter was made for this actor; the log and the heartbeat that live there go with it.
        Arbiter::current().stop();
    }
}

impl Handler<Opened> for Broker {
    type Result = ();

    fn handle(&mut self, Opened { lineage, head, held }: Opened, _: &mut Self::Context) {
        if self.lineage.is_some() {
            // It is another log, or has a hole: every client comes back with its cursor and is told.
            self.close_all(CloseReason::Unavailable.into());
        }
        self.kept_by_interest.hold_all(held, Instant::now());
        self.ring = Ring::new(self.settings.ring_events, self.settings.ring_bytes, head);
        self.head = head;
        self.timeline = Some(lineage.timeline());
        self.lineage = Some(lineage);
        self.filling = None;
        for attach in std::mem::take(&mut self.early) {
            self.attach(attach);
        }
    }
}

impl Handler<Trimmed> for Broker {
    type Result = ();

    fn handle(&mut self, Trimmed(trims): Trimmed, _: &mut Self::Context) {
        self.trim(trims);
    }
}

impl Handler<LogHealth> for Broker {
    type Result = ();

    fn handle(&mut self, LogHealth { is_writable }: LogHealth, _: &mut Self::Context) {
        self.is_log_writable = is_writable;
    }
}

impl Handler<Ping> for Broker {
    type Result = ();

    fn handle(&mut self, Ping { slot, slots }: Ping, _: &mut Self::Context) {
        let Some(timeline) = &self.timeline else { return };
        let cursor = timeline.cursor(self.head);
        let is_cut_off = self.log.relay.is_some() && !self.is_log_writable;
        for (_, worker) in &self.workers {
            worker.addr.do_send(PingSlot { slot, slots, cursor: cursor.clone(), is_cut_off });
        }
    }
}
