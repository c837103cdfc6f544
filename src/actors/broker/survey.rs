//! What the broker tells of itself and of those who deliver for it: each is asked for what it has counted.
//!
//! One round is under way at a time, however many ask: who comes meanwhile is answered by the next, so that an answer
//! holds all that was done before the question.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use actix::prelude::*;
use serde::Serialize;

use super::reply::{self, Deferred};
use super::{Broker, BrokerStats, WorkerAddr};
use crate::actors::busiest::Busiest;
use crate::actors::registry::WorkerKey;
use crate::actors::tally::Tally;
use crate::actors::worker::Count;
use crate::counts::{self, ByReason, ByTransport, Histogram};

/// How long a worker may take to answer; then what it said last counts.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why an event was not taken.
pub(super) mod dropped {
    use crate::error::PublishError;

    pub(crate) const OVERLOADED: &str = "overloaded";
    pub(crate) const INVALID: &str = "invalid";
    pub(crate) const DRAINING: &str = "draining";
    pub(crate) const REVOKED: &str = "revoked";
    pub(crate) const TOO_FAST: &str = "too_fast";
    pub(crate) const LOG_FAILED: &str = "log_failed";
    /// An ephemeral one, by a client that was slow.
    pub(crate) const LAG: &str = "lag";

    pub(crate) fn reason(error: &PublishError) -> &'static str {
        match error {
            PublishError::Overloaded => OVERLOADED,
            PublishError::Draining => DRAINING,
            PublishError::Revoked => REVOKED,
            PublishError::TooFast { .. } => TOO_FAST,
            PublishError::Invalid { .. } => INVALID,
            PublishError::Log(_) => LOG_FAILED,
        }
    }
}

/// Query: how the broker and those who deliver for it stand. All that was sent to the broker before by the same sender
/// is counted in the answer, unless a thread is so busy that it does not answer within half a second: then what it
/// said last is.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Overview")]
pub struct Survey;

/// Fact: what a worker has counted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Counted {
    pub(crate) worker: WorkerAddr,
    pub(crate) round: u64,
    pub(crate) tally: Box<Tally>,
    pub(crate) lagging: u64,
}

/// What the broker measures itself, and the question that it has put to its workers.
pub(super) struct Measures {
    pub(super) commit: Histogram,
    /// When the commit that is under way was begun.
    pub(super) commit_began: Option<Instant>,
    pub(super) dropped: ByReason,
    pub(super) busiest: Busiest,
    /// What was counted by workers that are gone, and at the door.
    pub(super) past: Tally,
    round: u64,
    /// Who has still to answer.
    awaited: HashSet<WorkerKey>,
    /// Who is told when all have.
    asking: Vec<reply::Slot<Overview>>,
    /// Who has asked since.
    next: Vec<reply::Slot<Overview>>,
}

impl Measures {
    pub(super) fn new(now: Instant) -> Self {
        use dropped::*;
        Self {
            commit: Histogram::default(),
            commit_began: None,
            dropped: ByReason::of([OVERLOADED, INVALID, DRAINING, REVOKED, TOO_FAST, LOG_FAILED, LAG]),
            busiest: Busiest::new(now),
            past: Tally::with_reasons(),
            round: 0,
            awaited: HashSet::new(),
            asking: Vec::new(),
            next: Vec::new(),
        }
    }

    /// A commit has come to its end, or to none.
    pub(super) fn end_commit(&mut self, now: Instant) {
        if let Some(began) = self.commit_began.take() {
            self.commit.observe(now.saturating_duration_since(began), 1);
        }
    }
}

impl Broker {
    /// Asks the workers, unless that is under way or nobody wants to know.
    fn begin_round(&mut self, ctx: &mut Context<Self>) {
        if !self.measures.asking.is_empty() || self.measures.next.is_empty() {
            return;
        }
        self.measures.asking = std::mem::take(&mut self.measures.next);
        self.measures.round += 1;
        let round = self.measures.round;
        for (key, worker) in &self.workers {
            worker.addr.do_send(Count { round });
            self.measures.awaited.insert(key);
        }
        if self.measures.awaited.is_empty() {
            return self.end_round();
        }
        ctx.run_later(PATIENCE, move |broker, ctx| {
            if broker.measures.round == round {
                broker.measures.awaited.clear();
                broker.end_round();
                broker.begin_round(ctx);
            }
        });
    }

    /// Tells those who asked, if nobody has still to answer.
    fn end_round(&mut self) {
        if !self.measures.awaited.is_empty() || self.measures.asking.is_empty() {
            return;
        }
        let overview = self.overview(Instant::now());
        for slot in std::mem::take(&mut self.measures.asking) {
            slot.put(overview.clone());
        }
    }

    /// A worker is gone and will not answer.
    pub(super) fn no_count_from(&mut self, key: WorkerKey) {
        if self.measures.awaited.remove(&key) {
            self.end_round();
        }
    }

    fn overview(&mut self, now: Instant) -> Overview {
        let mut tally = self.measures.past.clone();
        for (_, worker) in &self.workers {
            tally.merge(&worker.tally);
        }
        let Tally { delivered, replayed, lost, closed, gaps, fanout, delivery } = tally;
        let mut dropped = self.measures.dropped.clone();
        dropped.add(dropped::LAG, lost);
        let name = self.timeline.as_ref().map(|timeline| timeline.log_name().to_owned());
        Overview {
            stats: self.stats(),
            connections: self.registry.connections(),
            log: LogOverview { name, writable: self.is_log_writable },
            published_total: self.delivered,
            delivered,
            replayed,
            dropped,
            closed,
            gaps,
            lagging: self.workers.iter().map(|(_, worker)| worker.lagging).sum(),
            queue_depth: self.workers.iter().map(|(_, worker)| worker.backlog.events() as u64).sum(),
            commit_seconds: self.measures.commit.clone(),
            fanout_seconds: fanout,
            delivery_seconds: delivery,
            busiest: self.measures.busiest.told(now),
        }
    }
}

impl Handler<Survey> for Broker {
    type Result = Deferred<Overview>;

    fn handle(&mut self, _: Survey, ctx: &mut Self::Context) -> Self::Result {
        let (deferred, slot) = Deferred::new();
        self.measures.next.push(slot);
        self.begin_round(ctx);
        deferred
    }
}

impl Handler<Counted> for Broker {
    type Result = ();

    fn handle(&mut self, Counted { worker, round, tally, lagging }: Counted, ctx: &mut Self::Context) {
        let Some(&key) = self.worker_keys.get(&worker) else { return };
        if let Some(entry) = self.workers.get_mut(key) {
            (entry.tally, entry.lagging) = (tally, lagging);
        }
        if round == self.measures.round && self.measures.awaited.remove(&key) {
            self.end_round();
            self.begin_round(ctx);
        }
    }
}

/// Which log the broker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogOverview {
    /// Its name, by which a cursor is known to be of it; none before it is open.
    pub name: Option<String>,
    /// Whether it takes events.
    pub writable: bool,
}

/// The answer to [`Survey`]: how the broker and those who deliver for it stand. Counts are since the
/// broker was started.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// What the broker tells by itself.
    #[serde(flatten)]
    pub stats: BrokerStats,
    /// Clients.
    pub connections: ByTransport,
    /// The log.
    pub log: LogOverview,
    /// Events sent on, the ephemeral ones too.
    pub published_total: u64,
    /// Events handed to clients, each as often as there were clients for it. Those that were replayed are among them.
    pub delivered: ByTransport,
    /// Events that a client was given from the past: because it came back, asked for them, or fell behind.
    pub replayed: u64,
    /// Events that were not taken (`overloaded`, `invalid`, `draining`, `revoked`, `too_fast`, `log_failed`), and ephemeral ones that a client
    /// has missed because it was slow (`lag`), for each such client.
    pub dropped: ByReason,
    /// Streams that have ended, or were turned away: by the server's reasons, by the `client` itself, or `refused` because they were to be
    /// resumed without loss or not at all.
    pub closed: ByReason,
    /// How often a client was told that events are missing (`expired`), or that its cursor cannot be resumed (the other
    /// reasons).
    pub gaps: ByReason,
    /// Clients that are not live yet, or not any more: they are being given what they missed.
    pub lagging: u64,
    /// Events that were sent to those who deliver, and that they have not come to.
    pub queue_depth: u64,
    /// How long commits took.
    pub commit_seconds: Histogram,
    /// How long it took from the commit until a thread had put the events where its clients read them.
    pub fanout_seconds: Histogram,
    /// How long it took from the commit until a connection was handed the event; of events that were handed over
    /// together, the newest. Nothing that was replayed is among them.
    pub delivery_seconds: Histogram,
    /// The busiest channels of the last while.
    pub busiest: counts::Busiest,
}

impl Overview {
    /// As Prometheus reads it (text format 0.0.4). The size does not depend on how many channels, sessions or clients
    /// there are.
    ///
    /// ```
    /// use fanfare::{Broker, Survey};
    ///
    /// # actix_web::rt::System::new().block_on(async {
    /// let broker = Broker::builder().start()?;
    /// let text = broker.send(Survey).await?.to_prometheus();
    /// assert!(text.contains("fanfare_published_total 0\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        crate::metrics::text(self)
    }
}
