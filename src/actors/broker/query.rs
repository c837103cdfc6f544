//! What can be asked of the broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};

use super::{Broker, Refused};
use crate::actors::admission::Full;
use crate::actors::local::Local;
use crate::actors::log::{Progress, Relay, Roll};
use crate::actors::session::LogReader;
use crate::channel::Channel;
use crate::cursor::{Lineage, Seq};
use crate::error::CloseReason;
use crate::identity::SessionId;

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
    /// How far the log has come, if it is being filled and that takes a while: the index of an order that is
    /// elsewhere ([`NatsLog`](crate::NatsLog)), in messages. Clients are sent away meanwhile, to come back.
    pub filling: Option<Progress>,
    /// Whether the broker is draining.
    pub draining: bool,
    /// How long ago the broker was started.
    #[serde(serialize_with = "seconds")]
    pub uptime: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// Query: who follows a channel, on all nodes that share the log.
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
#[rtype(result = "Result<History, Refused>")]
pub(crate) struct AskHistory;

/// The answer to [`AskHistory`].
pub(crate) struct History {
    pub(crate) lineage: Lineage,
    pub(crate) head: Seq,
    pub(crate) log: LogReader,
    pub(crate) turn: HistoryTurn,
}

/// A place among those who read the history, until it is dropped.
#[derive(Debug)]
pub(crate) struct HistoryTurn {
    _place: OwnedSemaphorePermit,
    reading: Arc<Semaphore>,
}

impl HistoryTurn {
    /// Waits until few enough read.
    pub(crate) async fn begin(&self) -> Option<SemaphorePermit<'_>> {
        self.reading.acquire().await.ok()
    }
}

/// Lets so many read the history at the same time, and a few more wait for it.
pub(super) struct HistoryDoor {
    places: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

/// Reads of the history at the same time.
const READING: usize = 4;
/// Those that wait for their turn.
const WAITING: usize = 60;

impl Default for HistoryDoor {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(READING + WAITING)),
            reading: Arc::new(Semaphore::new(READING)),
        }
    }
}

impl HistoryDoor {
    fn enter(&self) -> Option<HistoryTurn> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(HistoryTurn { _place: place, reading: self.reading.clone() })
    }
}

/// Query: who delivers in this process; started by the first who asks.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Addr<Local>")]
pub(crate) struct AskLocal;

/// Query: the sessions that have a client, the first 1000.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SessionId>")]
pub struct Sessions;

impl Handler<Stats> for Broker {
    type Result = MessageResult<Stats>;

    fn handle(&mut self, _: Stats, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.stats())
    }
}

impl Broker {
    pub(super) fn stats(&mut self) -> BrokerStats {
        BrokerStats {
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
            filling: self.filling,
            draining: self.draining.is_some(),
            uptime: self.started.elapsed(),
        }
    }
}

impl Handler<Presence> for Broker {
    type Result = ResponseFuture<Members>;

    fn handle(&mut self, Presence { channel }: Presence, _: &mut Self::Context) -> Self::Result {
        let here = self.roll(&channel);
        let elsewhere = self.log.relay.as_ref().map(|relay| {
            let (reply, answer) = oneshot::channel();
            relay.do_send(Relay::Ask { channel, reply });
            answer
        });
        Box::pin(async move {
            let elsewhere = match elsewhere {
                Some(answer) => answer.await.unwrap_or_default(),
                None => Vec::new(),
            };
            Members::of(std::iter::once(here).chain(elsewhere))
        })
    }
}

impl Broker {
    /// Who follows a channel on this node.
    pub(super) fn roll(&self, channel: &Channel) -> Roll {
        let found = self.registry.members(channel);
        Roll { clients: found.clients, sessions: found.sessions.len(), named: found.sessions }
    }
}

impl Members {
    /// Those of several nodes. A session may have clients on more than one.
    fn of(rolls: impl Iterator<Item = Roll>) -> Self {
        let (mut clients, mut unnamed, mut named) = (0, 0, BTreeMap::<SessionId, usize>::new());
        for roll in rolls {
            clients += roll.clients;
            unnamed += roll.sessions.saturating_sub(roll.named.len());
            for (session, count) in roll.named {
                *named.entry(session).or_default() += count;
            }
        }
        let sessions = named.len() + unnamed;
        Self { clients, sessions, members: named.into_iter().take(LISTED).collect() }
    }
}

impl Handler<AskHistory> for Broker {
    type Result = MessageResult<AskHistory>;

    fn handle(&mut self, _: AskHistory, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.history())
    }
}

impl Broker {
    fn history(&self) -> Result<History, Refused> {
        if let Some(farewell) = self.draining {
            return Err(Refused::Closed(farewell));
        }
        let lineage = self.lineage.clone().ok_or(Refused::Closed(CloseReason::Unavailable.into()))?;
        let turn = self.history.enter().ok_or(Refused::Full(Full::Readers))?;
        let log = LogReader { read: self.log.read.clone(), seek: self.log.seek.clone() };
        Ok(History { lineage, head: self.head, log, turn })
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_session_on_two_nodes_is_one() {
        let [a, b] = [b"a", b"b"].map(|name| SessionId::derived_from(name));
        let roll = |clients, sessions, named: &[(SessionId, usize)]| Roll {
            clients,
            sessions,
            named: named.iter().copied().collect(),
        };
        let members = Members::of([roll(3, 2, &[(a, 2), (b, 1)]), roll(1, 1, &[(a, 1)])].into_iter());
        assert_eq!((members.clients, members.sessions), (4, 2));
        assert!(members.members.contains(&(a, 3)) && members.members.contains(&(b, 1)));
        let many = Members::of([roll(9, 5, &[(a, 2)]), roll(1, 1, &[(b, 1)])].into_iter());
        assert_eq!((many.clients, many.sessions), (10, 6), "those that were not named count");
    }

    #[test]
    fn so_many_read_the_history_and_so_many_wait() {
        let door = HistoryDoor::default();
        let mut turns: Vec<_> = std::iter::from_fn(|| door.enter()).collect();
        assert_eq!(turns.len(), READING + WAITING);
        {
            let begun: Vec<_> = turns.iter().filter_map(|turn| turn.begin().now_or_never()).collect();
            assert_eq!(begun.len(), READING);
        }
        assert!(turns[READING].begin().now_or_never().is_some(), "those have read");
        turns.pop();
        assert!(door.enter().is_some(), "a place is free again");
    }
}
