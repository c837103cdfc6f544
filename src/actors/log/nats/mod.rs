//! The log that several nodes share: its order is a JetStream stream, its index is kept on each node.
//!
//! - `subject`, `batch`: how a commit is one message. `extent`: which order a stream is, and its positions.
//! - `link`: the connection, and the stream made or checked.
//! - `publish`: from a commit to the stream. `feed`: from the stream back, in order, once, whatever breaks in between.
//! - `bindings`: which events the bindings were that stand before them, as the order has it.
//! - `live`: ephemeral events, beside the stream. `roll`: who is on the other nodes.
//! - `front`: the actor between these, the index and the broker.
//!
//! # What happens when
//!
//! *The server is gone.* Commits fail within a second once that is known; one that was under way fails within
//! [`publish::DEADLINE`] as unknown, and is stored once if its ids come again. The feed tries again, with pauses.
//! *The server is back.* The feed goes on behind the last message that the index has. Nothing else decides what comes
//! next: a consumer is made anew for each attempt, under one name, so that there is one at most.
//! *The stream is another, or has lost what this node did not see.* The index begins anew, is filled, and the log opens
//! again: every client comes back with its cursor, and is told `$reset` or `$gap`.

mod batch;
mod bindings;
mod extent;
mod failure;
mod feed;
mod front;
mod link;
mod live;
mod publish;
mod roll;
mod subject;

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use actix::prelude::*;
use async_nats::ServerAddr;

use self::failure::Failure;
use self::front::Front;
use self::link::{Link, Plan};
use super::index::Index;
use super::memory::MemoryLog;
#[cfg(feature = "sqlite")]
use super::sqlite::SqliteLog;
use super::{Log, LogHandle, LogSetup};
use crate::error::{InvalidValue, LogError};

/// A log that several nodes share. Its order is a stream of NATS JetStream: what is published on one node is delivered on
/// all, in one order, and a cursor of one is good on every other.
///
/// ```no_run
/// use fanfare::{Broker, NatsLog, SqliteLog};
///
/// # actix_web::rt::System::new().block_on(async {
/// let log = NatsLog::new("nats://127.0.0.1:4222")?.stream("orders")?.index(SqliteLog::open("index.db")?);
/// let broker = Broker::builder().log(log).start()?;
/// # drop(broker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Guarantees
///
/// - An event is delivered, also on the node that took it, only once the stream has it and this node's index holds it.
/// - A receipt says that the stream has the event, and that the head of this node is there or beyond.
/// - The same id of the same publisher is stored once within two minutes, whichever nodes it was sent to: the first in
///   the stream counts, and all nodes come to the same by going through the stream in its order.
/// - After any break of the connection, everything missed is delivered in order, once.
/// - [`CloseSession`](crate::CloseSession) ends the streams of a session on all nodes; on one that is cut off, when it is
///   back.
/// - Ephemeral events reach the clients that are live on other nodes as well, behind the stored ones that their publisher had
///   a receipt for, unless a node is more than two seconds behind. They may be lost with a connection, and are not told.
///
/// # Limits
///
/// - What is published together must fit one message of the server (`max_payload`, 1 MiB unless set otherwise); more is
///   refused ([`PublishError::Invalid`](crate::PublishError::Invalid), HTTP 413).
/// - A publish without an answer from the server fails as unknown: it may be stored, also later. Publish it again with
///   the same id.
/// - An index that begins with an empty file knows of nothing that the stream has let go of: the `prev` of the first event
///   that it has of a channel is 0, ids in what is gone are new to it, and a cursor from before is told `$gap`. So a stream
///   should hold more than two minutes.
/// - What [`Retention`](crate::Retention) keeps by interest goes by the clients of each node: what is published where nobody
///   follows the channel is ephemeral, and what a node keeps of it goes when its own clients have gone.
/// - Bindings stand in the stream; see [`Bind`](crate::Bind) for what of them a node knows that starts later.
/// - [`Presence`](crate::Presence) asks the other nodes, each of which answers for its own clients. A node that has died
///   counts for nobody from then on; for three seconds it is still waited for, half a second each time. One that is cut
///   off answers for itself alone. A session that has clients on several nodes is one, unless a node has more than 20,000
///   sessions on the channel.
/// - When the stream was made again, or has let go of what a node that was cut off did not see, all streams of the node end
///   ([`CloseReason::Unavailable`](crate::CloseReason::Unavailable)), those of subscribers in its process among them.
/// - A stream with one replica may lose its newest events in a power cut, and give their positions again.
///
/// # Errors
///
/// [`Builder::start`](crate::Builder::start) fails within seconds if the server does not answer, or the stream is there
/// with settings that an order cannot have; the error names them.
pub struct NatsLog {
    servers: Vec<ServerAddr>,
    plan: Plan,
    index: NatsIndex,
}

/// What keeps the events of a [`NatsLog`] on this node: a [`MemoryLog`], or a [`SqliteLog`] with a file of its own.
pub struct NatsIndex(Box<dyn Index>);

impl From<MemoryLog> for NatsIndex {
    fn from(log: MemoryLog) -> Self {
        Self(Box::new(log))
    }
}

#[cfg(feature = "sqlite")]
impl From<SqliteLog> for NatsIndex {
    fn from(log: SqliteLog) -> Self {
        Self(Box::new(log))
    }
}

impl NatsLog {
    /// The longest name of a stream, in bytes.
    pub const MAX_STREAM_BYTES: usize = 32;

    /// A log whose order is at `servers`: URLs of one NATS system (`nats://` or `tls://`), joined by commas. Credentials
    /// stand in the URL. The stream is `fanfare`, and the index a [`MemoryLog`] of its default size.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if one is no URL.
    pub fn new(servers: &str) -> Result<Self, InvalidValue> {
        let parse = |server: &str| server.trim().parse();
        let servers = servers.split(',').map(parse).collect::<Result<Vec<ServerAddr>, _>>();
        let servers = servers.map_err(|_| InvalidValue::new("nats", "must be URLs like nats://host:4222"))?;
        let plan = Plan {
            stream: "fanfare".into(),
            max_age: Duration::from_secs(24 * 3600),
            max_bytes: 1 << 30,
            replicas: 1,
            is_replicas_checked: false,
        };
        Ok(Self { servers, plan, index: MemoryLog::default().into() })
    }

    /// The stream: made at the start if it is not there, with subjects below its name.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] unless it is 1 to 32 letters, digits, `-` and `_`.
    pub fn stream(mut self, name: impl Into<String>) -> Result<Self, InvalidValue> {
        let name = name.into();
        let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.is_empty() || name.len() > Self::MAX_STREAM_BYTES || !name.bytes().all(is_good) {
            let rule = format!("must be 1 to {} of the characters A-Z a-z 0-9 - _", Self::MAX_STREAM_BYTES);
            return Err(InvalidValue::new("nats_stream", rule));
        }
        self.plan.stream = name;
        Ok(self)
    }

    /// What a stream that is not there yet is made with: how long and how much it keeps, and in how many copies. One that
    /// is there keeps its own. Default: 24 hours, 1 GiB, one.
    #[must_use]
    pub fn keep(mut self, max_age: Duration, max_bytes: u64, replicas: usize) -> Self {
        self.plan = Plan { max_age, max_bytes, replicas, ..self.plan };
        self
    }

    /// In how many copies, each on another server: what a stream that is not there yet is made with, and what one that is
    /// there must have.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.plan = Plan { replicas, is_replicas_checked: true, ..self.plan };
        self
    }

    /// What keeps the events on this node. A file goes on where it was; of another stream, it begins anew.
    #[must_use]
    pub fn index(mut self, index: impl Into<NatsIndex>) -> Self {
        self.index = index.into();
        self
    }
}

impl Log for NatsLog {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        // A thread of its own for the connection and what comes of it; the index has its own as well.
        let arbiter = Arbiter::new();
        let (tell, told) = sync_channel(1);
        arbiter.spawn_fn(move || {
            actix::spawn(async move {
                let started = start(*self, setup).await;
                if started.is_err() {
                    Arbiter::current().stop();
                }
                // The one who started us waits for this and nothing else.
                let _ = tell.send(started);
            });
        });
        told.recv().map_err(|_| LogError::new("the log's thread is gone"))?
    }
}

async fn start(log: NatsLog, setup: LogSetup) -> Result<LogHandle, LogError> {
    let NatsLog { servers, plan, index } = log;
    let link = Link::connect(servers, plan).await?;
    // Who starts it learns at once of a stream that cannot serve.
    link.stream().await.map_err(|error: Failure| LogError::from(error))?;
    Front::start_with(link, index.0, setup)
}
