//! What a session is told, and by whom: its broker, its worker, its writer and its reader.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use crate::actors::broker::Start;
use crate::actors::farewell::Farewell;
use crate::actors::log::{ReadAfter, Seek};
use crate::actors::view::ClientView;
use crate::channel::Selector;
use crate::cursor::{Cursor, ResetReason, Seq, Timeline};
use crate::error::CloseReason;
use crate::interest::Subscription;
use crate::record::Record;
use crate::wire::ws::Reference;

/// What the broker answers to who wants to be live, with events as bytes or as they are.
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
    Behind {
        origin: Origin,
        head: Seq,
        timeline: Timeline,
        log: LogReader,
        reset: Option<Reset>,
        /// Where it was, if not everything that it follows was at one position: what it has had it is not given again.
        had: Option<Cursor>,
    },
    /// Its cursor is beyond the head of this node.
    Ahead,
    /// There is no stream to be had.
    Refused(Farewell),
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

/// Fact: the broker has answered to the client.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Admitted(pub(crate) Answer);

/// Fact: the broker has answered about what is to be added to what the client follows.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Joined {
    pub(crate) answer: Answer<Arc<Record>>,
    /// What the client follows from here on; nothing if that has not changed.
    pub(crate) seated: Option<Subscription>,
}

/// Command: show that the stream is alive; for a client that is not live, since the worker sees to those that are.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ping;

/// Command: end the stream and say why.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Close(pub(crate) Farewell);

/// Command: tell how the client is.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DescribeSelf {
    /// Where the log stands, if the client has everything.
    pub(crate) head: Seq,
    pub(crate) tell: UnboundedSender<ClientView>,
}

/// Command: the client's grant ends then, not when it was said before.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Expire(pub(crate) Option<SystemTime>);

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

/// Command: follow more. Answered to the client with `subscribed`, ahead of what that brings.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Follow {
    pub(crate) reference: Option<Reference>,
    pub(crate) subscription: Subscription,
    pub(crate) start: Start,
}

/// Command: follow less. Answered to the client with `unsubscribed`, behind the last that came of it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Unfollow {
    pub(crate) reference: Option<Reference>,
    /// Whether the client has asked for it; else it is the server's doing, and nothing is answered.
    pub(crate) is_asked: bool,
    pub(crate) selectors: Vec<Selector>,
}

/// Why a client that wants all or nothing got nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Reset(Reset),
    Gap { after: Seq, resumed_at: Seq, head: Seq },
    Closed { reason: CloseReason, retry_in: Duration },
}
