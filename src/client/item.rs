//! What a stream yields.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::error::Problem;
use crate::cursor::{Cursor, Seq};
use crate::error::InvalidValue;
use crate::event::{Attributes, EventId, EventName, Payload};
use crate::identity::{ClientId, SessionId};

/// One thing that a stream has to tell, in the order of the log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Item {
    /// The server has taken the stream on; the first item, and again after each reconnect.
    Connected(Connected),
    /// An event.
    Event(Received),
    /// Events of the followed channels are gone from the log; the stream goes on behind them.
    Gap(Gap),
    /// The cursor could not be resumed; the stream goes on as [`Begin`](super::Begin) says, from the earliest if it says
    /// nothing.
    Reset(Reset),
    /// Ephemeral events were dropped at this place.
    Lag(Lag),
    /// The connection is lost; the next attempt follows by itself.
    Disconnected(Disconnected),
}

/// A connection as the server greets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// The connection's id.
    pub client: ClientId,
    /// The session that it belongs to: what is sent to that session arrives here.
    pub session: SessionId,
    /// How often the server says something, whatever happens.
    pub heartbeat: Duration,
}

/// An event as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The place of the stream behind this event. An ephemeral event has none, nor have all but the last of those that a
    /// WebSocket has brought before it took the stream on.
    pub position: Option<Position>,
    /// The event's identity.
    pub id: EventId,
    /// Its position in the log; an ephemeral event has none.
    pub seq: Option<Seq>,
    /// The position of the event before it on its first channel, 0 for none.
    pub prev: Option<Seq>,
    /// The first of its channels; `$everyone` or `$session` for those audiences.
    pub channel: String,
    /// All of its channels.
    pub channels: Vec<String>,
    /// Its name.
    pub name: EventName,
    /// When the server accepted it. Says nothing of its order.
    pub time: SystemTime,
    /// Its attributes.
    pub attributes: Attributes,
    /// What it carries.
    pub data: Payload,
}

impl Received {
    /// The payload, read as JSON.
    ///
    /// # Errors
    ///
    /// What the payload has against being a `T`, or JSON at all.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.data.as_str())
    }
}

/// Events that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Why, as the server calls it.
    pub reason: String,
    /// Events beyond this position are gone …
    pub after: Seq,
    /// … up to this one.
    pub resumed_at: Seq,
    /// The newest position.
    pub head: Seq,
}

/// A cursor that could not be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// Why, as the server calls it: `other_log`, `lost_term`, `ahead` or `malformed`.
    pub reason: String,
    /// The newest position.
    pub head: Seq,
}

/// Ephemeral events that were dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// How many.
    pub dropped: u64,
}

/// A connection that is lost, or an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// Why.
    pub cause: Cause,
    /// How long the stream waits before the next attempt.
    pub retry_in: Duration,
}

/// Why a connection is lost, or an attempt failed. None of it ends the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The server ended it and said why, in words or by a close code: `draining`, `slow`, `unavailable`, `limit`, `expired_token`, `too_old`.
    Closing(String),
    /// The server, or something in between, ended it without a word.
    Ended,
    /// Nothing was heard for longer than a server that lives is silent.
    Silent,
    /// The answer was an error that may pass.
    Unavailable(Box<Problem>),
    /// The connection could not be made, or broke.
    Broken(String),
}

/// A place in the server's log, opaque: where a stream is, and may go on.
///
/// It is the cursor of the wire. To keep one, keep its text.
///
/// ```
/// use fanfare::client::Position;
///
/// let kept: Position = "k7Qx.9fKd.1048580".parse()?;
/// assert_eq!(kept.to_string(), "k7Qx.9fKd.1048580");
/// assert!("not a position".parse::<Position>().is_err());
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Position(Arc<str>);

impl Position {
    /// The text that stands for it: at most 128 characters of `[A-Za-z0-9._~-]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Position {
    type Err = InvalidValue;

    // Not read any further than the wire format promises: what a newer server puts into it is its own affair.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        if text.is_empty() || text.len() > Cursor::MAX_BYTES || !text.bytes().all(is_safe) {
            let rule = format!("must be 1 to {} characters of A-Z a-z 0-9 . _ ~ -", Cursor::MAX_BYTES);
            return Err(InvalidValue::new("cursor", rule));
        }
        Ok(Self(text.into()))
    }
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Self {
        Self(cursor.to_string().into())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
