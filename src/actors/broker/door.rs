//! Who is let in, and as long as what: asked before a stream has its status, and by whatever else a grant opens.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use actix::WeakAddr;
use actix::prelude::*;
use rand::RngExt;

use super::{Broker, Detached, WorkerAddr};
use crate::actors::admission::Full;
use crate::actors::farewell::Farewell;
use crate::actors::log::Relay;
use crate::actors::revoked::Standing;
use crate::actors::view::ClientView;
use crate::actors::worker::{CloseClients, Worker};
use crate::error::CloseReason;
use crate::identity::{ClientId, SessionId};

/// Command: let a client in. Counted from here on, until its [`Pass`] is dropped.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Pass, Refused>")]
pub(crate) struct Knock {
    pub(crate) client: ClientId,
    /// Who is to deliver to it, and so is told when the broker is gone: whoever asks a broker that is just going gets no
    /// answer.
    pub(crate) worker: Addr<Worker>,
    pub(crate) standing: Standing,
    /// Where it comes from, if that is known.
    pub(crate) address: Option<IpAddr>,
}

/// Query: is what somebody shows still good?
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "bool")]
pub(crate) struct IsRevoked(pub(crate) Standing);

/// Command: end all streams of a session. Answers with their number; they end within a second. With a log that several
/// nodes share, those on other nodes end as well, and do not count.
///
/// A stream whose grant was given before, and that is only on its way here, gets the same answer. What the session may do
/// afterwards depends on the reason:
///
/// - [`CloseReason::Revoked`]: nothing for 24 hours, with what it has. Grants that say when they were issued
///   ([`Grant::issued_at`](crate::http::Grant::issued_at)) are good again if that was after the second of this command;
///   those that do not say it are refused. A browser's stream is answered 204 and does not come back, everything else
///   401. 100,000 sessions are remembered, in memory.
/// - any other: it may come back at once, and is granted what holds then.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "usize")]
pub struct CloseSession {
    /// Whose streams.
    pub session: SessionId,
    /// What the clients are told.
    pub reason: CloseReason,
}

/// Query: what is said to those who come while the broker drains.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<Farewell>")]
pub(crate) struct AskFarewell;

/// Why there is nothing to be had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    Closed(Farewell),
    Full(Full),
}

impl Refused {
    /// As it is told to clients.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Self::Closed(farewell) => farewell.reason,
            Self::Full(_) => CloseReason::Limit,
        }
    }

    /// Whether there is nothing to come back for.
    pub(crate) fn is_for_good(&self) -> bool {
        self.reason() == CloseReason::Revoked
    }
}

/// The place of one client, which leaves with it.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) client: ClientId,
    broker: WeakAddr<Broker>,
    /// The last that is to be seen of the client, once it has had a stream.
    pub(crate) last: Option<Box<ClientView>>,
    /// How old its connection may become.
    pub(crate) age: Option<Duration>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.do_send(Detached { client: self.client, last: self.last.take() });
        }
    }
}

impl Broker {
    /// Counts a client from here on, or says why not.
    fn let_in(
        &mut self,
        client: ClientId,
        standing: Standing,
        address: Option<IpAddr>,
    ) -> Result<(), Refused> {
        let now = Instant::now();
        if let Some(reason) = self.revoked.bars(&standing, now) {
            return Err(Refused::Closed(reason.into()));
        }
        if let Some(farewell) = self.draining {
            return Err(Refused::Closed(farewell));
        }
        self.admission.enter(client, standing, address, now).map_err(Refused::Full)
    }

    /// Why a client that was let in is to go again: its session was ended meanwhile.
    pub(super) fn bars(&self, client: ClientId) -> Option<CloseReason> {
        self.revoked.bars(self.admission.standing(client)?, Instant::now())
    }

    /// Ends the streams of these clients.
    pub(super) fn close_clients(
        &self,
        clients: impl IntoIterator<Item = (super::WorkerKey, ClientId)>,
        farewell: Farewell,
    ) -> usize {
        let mut by_worker: Vec<Vec<ClientId>> = Vec::new();
        for (worker, client) in clients {
            if by_worker.len() <= worker {
                by_worker.resize_with(worker + 1, Vec::new);
            }
            if let Some(clients) = by_worker.get_mut(worker) {
                clients.push(client);
            }
        }
        let count = by_worker.iter().map(Vec::len).sum();
        for (worker, clients) in by_worker.into_iter().enumerate() {
            if !clients.is_empty()
                && let Some(worker) = self.workers.get(worker)
            {
                worker.addr.do_send(CloseClients { clients, farewell });
            }
        }
        count
    }

    /// At most as old as the settings say, and not all that came together at once.
    fn age(&self) -> Option<Duration> {
        let max = self.settings.max_age?;
        Some(max.mul_f64(rand::rng().random_range(0.8..=1.0)))
    }
}

impl Handler<Knock> for Broker {
    type Result = Result<Pass, Refused>;

    fn handle(
        &mut self,
        Knock { client, worker, standing, address }: Knock,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        match self.let_in(client, standing, address) {
            Ok(()) => {
                self.worker_key(WorkerAddr::Thread(worker));
                Ok(Pass { client, broker: ctx.address().downgrade(), last: None, age: self.age() })
            }
            Err(refused) => {
                self.measures.past.closed.add(refused.reason().as_str(), 1);
                Err(refused)
            }
        }
    }
}

impl Handler<IsRevoked> for Broker {
    type Result = bool;

    fn handle(&mut self, IsRevoked(standing): IsRevoked, _: &mut Self::Context) -> bool {
        self.revoked.is_revoked(&standing, Instant::now())
    }
}

impl Handler<AskFarewell> for Broker {
    type Result = MessageResult<AskFarewell>;

    fn handle(&mut self, _: AskFarewell, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.draining)
    }
}

impl Handler<CloseSession> for Broker {
    type Result = usize;

    fn handle(&mut self, CloseSession { session, reason }: CloseSession, _: &mut Self::Context) -> usize {
        if let Some(relay) = &self.log.relay {
            relay.do_send(Relay::CloseSession { session, reason });
        }
        self.close_session(session, reason)
    }
}

impl Broker {
    /// Ends the streams of a session on this node.
    pub(super) fn close_session(&mut self, session: SessionId, reason: CloseReason) -> usize {
        if self.revoked.end(session, reason, Instant::now(), SystemTime::now()) {
            self.complain(&"more sessions were ended than are remembered; the oldest may come back");
        }
        // Those that wait for the log to open.
        for attach in std::mem::take(&mut self.early) {
            self.attach(attach);
        }
        self.close_clients(self.registry.clients_of(session), reason.into())
    }
}
