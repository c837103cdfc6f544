//! The log's role: gives every event its place, and hands out what was missed.
//!
//! The broker knows a log by these messages alone. Whoever plays the role keeps these promises:
//!
//! - It sends [`Opened`] once, before anything else. A log that others share may turn out to be another one, or to have
//!   lost what was not seen here; then it sends `Opened` again, and all streams end, to come back and be told.
//! - For each [`Commit`] it sends one [`Committed`] that settles it, or one [`CommitFailed`]. The events of a `Commit`
//!   are committed all or not at all, in their order, next to each other.
//! - `Committed` messages come in commit order. Positions are strictly increasing and never taken again.
//! - What it removes it tells: with the [`Committed`] that it came with, or by [`Trimmed`].
//! - What a page returned once for positions up to the newest `Committed` it returns always, but for what retention has
//!   removed; and what was removed it tells ([`Page::trimmed`]).

#[cfg(any(feature = "nats", feature = "sqlite"))]
mod codec;
mod index;
mod memory;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::WeakRecipient;
use actix::prelude::*;
use tokio::sync::oneshot;

pub(super) use self::index::Numbering;
pub use self::memory::MemoryLog;
#[cfg(test)]
pub(super) use self::memory::Store;
#[cfg(feature = "nats")]
pub use self::nats::{NatsIndex, NatsLog};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{Durability, SqliteLog};
pub use crate::binding::{Binding, Rebinding};
use crate::channel::Channel;
use crate::cursor::{Lineage, Seq};
use crate::error::{CloseReason, LogError};
use crate::identity::SessionId;
use crate::interest::Interest;
use crate::record::{Draft, Record};
use crate::retention::Retention;

/// The most events that one [`Commit`] has.
pub const COMMIT_EVENTS: usize = 4096;
/// How long an id that a publisher gave is remembered.
const WINDOW: Duration = Duration::from_secs(120);

/// A log that is ready to be started, once, by the broker that will own it.
pub trait Log: Send + 'static {
    /// Starts whatever plays the role; called on the broker's own arbiter, before the broker's first message.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the log cannot serve.
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError>;
}

/// What a log is started with.
pub struct LogSetup {
    /// Where its facts go.
    pub follower: Follower,
    /// What it keeps.
    pub retention: Retention,
}

/// What the broker asks a log by.
#[derive(Clone)]
pub struct LogHandle {
    /// Takes batches to commit.
    pub commit: Recipient<Commit>,
    /// Hands out pages.
    pub read: Recipient<ReadAfter>,
    /// Finds positions.
    pub seek: Recipient<Seek>,
    /// Removes what nobody is interested in.
    pub forget: Recipient<Forget>,
    /// How many bytes one commit should have at most, by [`Draft::weight`]; nothing if it is all the same. What is
    /// published together is one commit all the same, and is settled or refused as such.
    pub commit_bytes: Option<usize>,
    /// Takes to the other nodes what is not for the log, if there are others.
    pub relay: Option<Recipient<Relay>>,
    /// Takes batches in the place of `commit`, if bindings are settled by the log's order since others make them too.
    pub bound: Option<Recipient<BoundCommit>>,
}

/// Where a log's facts go: to the broker, which may be gone.
#[derive(Clone)]
pub struct Follower {
    /// Told once that the log is open.
    pub opened: WeakRecipient<Opened>,
    /// Told of each commit.
    pub committed: WeakRecipient<Committed>,
    /// Told of each commit that was not.
    pub failed: WeakRecipient<CommitFailed>,
    /// Told when the log stops taking events, and when it takes them again.
    pub health: WeakRecipient<LogHealth>,
    /// Told of what is removed between commits.
    pub trimmed: WeakRecipient<Trimmed>,
    /// Told of what other nodes passed on beside the log.
    pub relayed: WeakRecipient<Relayed>,
}

/// Command: append these events in this order, all or none. The answer comes as a fact.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Commit {
    /// Comes back in the fact that settles this command.
    pub ticket: u64,
    /// The events; at most [`COMMIT_EVENTS`].
    pub drafts: Vec<Draft>,
}

/// Command: append these events if they were completed by all bindings that stand before them in the order and concern them,
/// and change a binding with them. If not, nothing is appended or changed, and [`Relayed::Stale`] says so, behind the
/// [`Relayed::Rebound`] that was missing.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BoundCommit {
    /// The events, which may be none if something is changed.
    pub commit: Commit,
    /// The newest change that they were completed by, as [`Relayed::Rebound`] counts.
    pub known: u64,
    /// What is changed.
    pub change: Option<Rebinding>,
}

/// Fact: the log is open.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Opened {
    /// Its name and terms.
    pub lineage: Lineage,
    /// The position of its newest event.
    pub head: Seq,
    /// The channels that have events and are kept by interest: nobody has been seen to follow them yet.
    pub held: Vec<Channel>,
}

/// Fact: whether the log takes events has changed.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct LogHealth {
    /// Whether a commit may succeed.
    pub is_writable: bool,
}

/// Command: remove all that is kept of a channel, when there is time.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Forget {
    /// Which channel.
    pub channel: Channel,
}

/// Command: take this to the other nodes; here it is done.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Relay {
    /// Ephemeral events.
    Ephemeral {
        /// The events.
        records: Vec<Arc<Record>>,
        /// They were delivered here behind this position.
        after: Seq,
    },
    /// A question: who follows a channel there? Answered by each of them, or by none.
    Ask {
        /// The channel.
        channel: Channel,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Roll>>,
    },
    /// The streams of a session are to end.
    CloseSession {
        /// Whose.
        session: SessionId,
        /// What the clients are told.
        reason: CloseReason,
    },
}

/// Fact: this was done on another node.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Relayed {
    /// These ephemeral events were published.
    Ephemeral(Vec<Arc<Record>>),
    /// These changes of bindings stand in the order.
    Rebound {
        /// The changes, oldest first. This node's own are among them.
        changes: Vec<Rebinding>,
        /// Which is the newest.
        known: u64,
        /// Whether these are all that there are.
        is_anew: bool,
    },
    /// The order has come so far, on whichever node that was made, as it was asked a moment ago.
    Reached(Seq),
    /// A commit of this node is void.
    Stale {
        /// Its ticket, which is settled by this.
        ticket: u64,
    },
    /// Nothing was done yet that is not in the log, which is not open: it is being filled.
    Filling(Progress),
    /// Another node asks who follows a channel here.
    Asked {
        /// The channel.
        channel: Channel,
        /// Where the answer goes.
        reply: oneshot::Sender<Roll>,
    },
    /// The streams of a session ended.
    CloseSession {
        /// Whose.
        session: SessionId,
        /// What the clients were told.
        reason: CloseReason,
    },
}

/// Who follows a channel on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    /// Clients, each once.
    pub clients: usize,
    /// Sessions that they belong to.
    pub sessions: usize,
    /// These sessions with the number of their clients; the first of them if there are very many.
    pub named: BTreeMap<SessionId, usize>,
}

/// How far something has come that takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// What there was to do when it began.
    pub of: u64,
}

/// Fact: these events have their places. The only thing that makes the broker deliver.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Committed {
    /// The events, in order. Exactly the new events of the settled command, if one is settled.
    pub records: Vec<Arc<Record>>,
    /// The command that this answers.
    pub settles: Option<Settlement>,
    /// What was removed along with it.
    pub trims: Vec<Trim>,
}

impl Committed {
    /// Whether it says nothing.
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.settles.is_none() && self.trims.is_empty()
    }
}

/// Up to where a channel has lost its events to retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// The channel.
    pub channel: Channel,
    /// The newest position that was removed from it.
    pub through: Seq,
}

/// Fact: events were removed, and nothing was committed with it. The broker hands them out no more either.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Trimmed(pub Vec<Trim>);

/// What became of each event of a [`Commit`].
#[derive(Debug)]
pub struct Settlement {
    /// The command's ticket.
    pub ticket: u64,
    /// One outcome for each event, in order.
    pub outcomes: Vec<Outcome>,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was appended here.
    New(Seq),
    /// The same publisher gave the same id within the window, and that event stands here.
    Duplicate(Seq),
}

/// Fact: nothing of a [`Commit`] was stored, or it is not known whether it was.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommitFailed {
    /// The command's ticket.
    pub ticket: u64,
    /// Why.
    pub error: LogError,
}

/// Query: the events after one position and up to another that are of interest, oldest first, as many as fit a page.
#[derive(Message)]
#[rtype(result = "Result<Page, LogError>")]
pub struct ReadAfter {
    /// Read on from here.
    pub after: Seq,
    /// And not beyond here.
    pub until: Seq,
    /// Which events.
    pub interest: Interest,
    /// How much.
    pub limit: PageLimit,
}

/// How much a page holds: it ends with the event that reaches one of these.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Events.
    pub events: usize,
    /// Bytes, by [`Draft::weight`].
    pub bytes: usize,
}

/// A stretch of history.
#[derive(Debug)]
pub struct Page {
    /// The events.
    pub records: Vec<Arc<Record>>,
    /// All events of interest up to here are in this page; the next is read from here.
    pub through: Seq,
    /// The newest position that retention has removed from the channels of interest, if it is after where the
    /// reading began: so much is lost.
    pub trimmed: Option<Seq>,
}

/// Query: the position that the last `last` events of interest come after, none of them beyond `until`. A log looks at
/// a bounded stretch for one query, so that nobody waits long behind it.
#[derive(Message)]
#[rtype(result = "Result<Sought, LogError>")]
pub struct Seek {
    /// How many events.
    pub last: u64,
    /// None beyond here.
    pub until: Seq,
    /// Which events.
    pub interest: Interest,
}

/// How far a log has come looking for the last events of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    /// Everything of interest from here to where the looking began is found.
    pub position: Seq,
    /// How many are still to be found, at or before `position`: ask again for so many, until there. Zero once all are
    /// found or the log has no more.
    pub left: u64,
}
