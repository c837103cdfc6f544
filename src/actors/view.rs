//! One client as it can be seen from outside: where it is, what waits for it, and why it ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc::UnboundedSender;

use crate::counts::Transport;
use crate::cursor::{Cursor, Seq};
use crate::identity::{ClientId, SessionId};
use crate::interest::Subscription;

/// Command: tell how these clients are, each when it is found; who is not known here is not told of.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Describe {
    pub(crate) clients: Vec<ClientId>,
    /// Where the log stands, for those who have everything.
    pub(crate) head: Seq,
    /// Bounded by the clients that are asked about.
    pub(crate) tell: UnboundedSender<ClientView>,
}

/// A client.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClientView {
    pub(crate) client: ClientId,
    pub(crate) session: SessionId,
    pub(crate) transport: Transport,
    #[serde(serialize_with = "selectors")]
    pub(crate) channels: Subscription,
    #[serde(serialize_with = "moment")]
    pub(crate) connected_at: SystemTime,
    pub(crate) state: ClientState,
    /// Everything of its channels up to here was handed to it; none before its position is settled.
    #[serde(serialize_with = "token")]
    pub(crate) cursor: Option<Cursor>,
    /// What waits to be handed to it.
    pub(crate) queued: u64,
    /// How many positions of the log it is behind.
    pub(crate) lag: u64,
    pub(crate) closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientState {
    Live,
    CatchingUp,
    Closed,
}

/// How a client ended.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Closed {
    pub(crate) reason: &'static str,
    #[serde(serialize_with = "moment")]
    pub(crate) at: SystemTime,
}

impl ClientView {
    /// The last that is to be seen of it.
    pub(crate) fn closed(mut self, reason: &'static str) -> Self {
        self.state = ClientState::Closed;
        self.closed = Some(Closed { reason, at: SystemTime::now() });
        self
    }

    /// What it takes to remember it, roughly.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        const PER_SELECTOR: usize = 64;
        let selectors = self.channels.selectors().map(|selector| selector.as_str().len() + PER_SELECTOR);
        OVERHEAD + selectors.sum::<usize>()
    }
}

fn selectors<S: Serializer>(subscription: &Subscription, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(subscription.selectors().map(|selector| selector.as_str()))
}

fn moment<S: Serializer>(moment: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    // What is beyond the year 9999 cannot be written.
    let within =
        moment.duration_since(UNIX_EPOCH).unwrap_or_default().min(Duration::from_secs(253_402_300_799));
    serializer.collect_str(&humantime::format_rfc3339_millis(UNIX_EPOCH + within))
}

fn token<S: Serializer>(cursor: &Option<Cursor>, serializer: S) -> Result<S::Ok, S::Error> {
    match cursor {
        Some(cursor) => serializer.collect_str(cursor),
        None => serializer.serialize_none(),
    }
}
