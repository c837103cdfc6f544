//! What can be asked of the broker, and the commands that end streams.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::Broker;
use crate::actors::local::Local;
use crate::actors::log::Relay;
use crate::actors::session::LogReader;
use crate::actors::worker::CloseClients;
use crate::channel::Channel;
use crate::cursor::{Lineage, Seq};
use crate::error::CloseReason;
use crate::identity::{ClientId, SessionId};

/// Query: how the broker stands. All that was sent to it before by the same sender is done when it answers.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BrokerStats")]
pub struct Stats;

/// The answer to [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Connected clients.
    pub clients: usize,
    /// Sessions with at least one client.
    pub sessions: usize,
    /// Channels that somebody follows by name.
    pub channels: usize,
    /// The position of the newest event.
    pub head: Seq,
    /// Events committed since the broker was started.
    pub published: u64,
    /// Events refused since then: because too many waited, or because bindings would have given one too many
    /// attributes.
    pub refused: u64,
    /// Events that wait for their commit.
    pub in_flight: usize,
    /// Bindings in use ([`Bind`](crate::Bind)).
    pub bindings: usize,
    /// Bindings dropped since the broker was started to make room for others; those that were unused for their time are
    /// not among them.
    pub bindings_dropped: u64,
    /// Whether the log is open and takes events.
    pub ready: bool,
    /// Whether the broker is draining.
    pub draining: bool,
    /// How long ago the broker was started.
    #[serde(serialize_with = "seconds")]
    pub uptime: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// Query: who follows a channel.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Members")]
pub struct Presence {
    /// The channel.
    pub channel: Channel,
}

/// The answer to [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// Clients that follow the channel, each once.
    pub clients: usize,
    /// Sessions that they belong to.
    pub sessions: usize,
    /// The first of these sessions, with the number of their clients; as many as were asked for at most.
    pub members: Vec<(SessionId, usize)>,
}

/// As many sessions as an answer lists.
pub(crate) const LISTED: usize = 1000;

/// Query: how to read the log, and where it stands.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<History>")]
pub(crate) struct AskHistory;

/// The answer to [`AskHistory`]; none before the log is open.
pub(crate) struct History {
    pub(crate) lineage: Lineage,
    pub(crate) head: Seq,
    pub(crate) log: LogReader,
}

/// Query: who delivers in this process; started by the first who asks.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Addr<Local>")]
pub(crate) struct AskLocal;

/// Query: the sessions that have a client, the first 1000.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SessionId>")]
pub struct Sessions;

/// Command: end all streams of a session. Answers with their number; they end within a second. With a log that several
/// nodes share, those on other nodes end as well, and do not count.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "usize")]
pub struct CloseSession {
    /// Whose streams.
    pub session: SessionId,
    /// What the clients are told.
    pub reason: CloseReason,
}

/// Command: take no more events and clients, and end all streams with a time to come back.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

impl Handler<Stats> for Broker {
    type Result = MessageResult<Stats>;

    fn handle(&mut self, _: Stats, _: &mut Self::Context) -> Self::Result {
        MessageResult(BrokerStats {
            clients: self.registry.client_count(),
            sessions: self.registry.session_count(),
            channels: self.registry.channel_count(),
            head: self.head,
            published: self.committed,
            refused: self.refused,
            in_flight: self.intake.events(),
            bindings: self.bindings.count(Instant::now()),
            bindings_dropped: self.bindings.dropped(),
            ready: self.lineage.is_some() && self.is_log_writable,
            draining: self.is_draining,
            uptime: self.started.elapsed(),
        })
    }
}

impl Handler<Presence> for Broker {
    type Result = MessageResult<Presence>;

    fn handle(&mut self, Presence { channel }: Presence, _: &mut Self::Context) -> Self::Result {
        let found = self.registry.members(&channel);
        MessageResult(Members {
            clients: found.clients,
            sessions: found.sessions.len(),
            members: found.sessions.into_iter().take(LISTED).collect(),
        })
    }
}

impl Handler<AskHistory> for Broker {
    type Result = MessageResult<AskHistory>;

    fn handle(&mut self, _: AskHistory, _: &mut Self::Context) -> Self::Result {
        let log = LogReader { read: self.log.read.clone(), seek: self.log.seek.clone() };
        MessageResult(self.lineage.clone().map(|lineage| History { lineage, head: self.head, log }))
    }
}

impl Handler<AskLocal> for Broker {
    type Result = MessageResult<AskLocal>;

    fn handle(&mut self, _: AskLocal, ctx: &mut Self::Context) -> Self::Result {
        let alive = self.local.take().filter(Addr::connected);
        let local = alive.unwrap_or_else(|| Local::start_apart(ctx.address().downgrade()));
        self.local = Some(local.clone());
        MessageResult(local)
    }
}

impl Handler<Sessions> for Broker {
    type Result = Vec<SessionId>;

    fn handle(&mut self, _: Sessions, _: &mut Self::Context) -> Self::Result {
        self.registry.sessions().take(LISTED).collect()
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
    pub(super) fn close_session(&self, session: SessionId, reason: CloseReason) -> usize {
        let mut by_worker: Vec<Vec<ClientId>> = Vec::new();
        for (worker, client) in self.registry.clients_of(session) {
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
                worker.addr.do_send(CloseClients { clients, reason });
            }
        }
        count
    }
}

impl Handler<Drain> for Broker {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.is_draining = true;
        self.close_all(CloseReason::Draining);
    }
}
