//! `text/event-stream`: the blocks that fanfare sends, with `id:` first.
//!
//! The encoder splits data on every line end that the standard knows, and ids and names cannot hold one by their
//! types, so no field and no event can be forged from inside a value.

use std::time::Duration;

use bytes::Bytes;
use russe::{Event, Message};
use serde::Serialize;

use crate::cursor::{Cursor, ResetReason, Seq, Timeline};
use crate::error::CloseReason;
use crate::identity::{ClientId, SessionId};
use crate::record::Record;

pub(super) fn event(record: &Record, timeline: &Timeline, data: &str) -> Bytes {
    let id = record.seq().map(|seq| timeline.cursor(seq));
    block(id.as_ref(), record.draft.name.explicit(), data)
}

/// How long the client is to wait before it comes back.
pub(crate) fn retry(delay: Duration) -> Bytes {
    encode(Event::Retry(delay))
}

/// The heartbeat: moves the client's cursor and dispatches no event.
pub(crate) fn ping(cursor: &Cursor) -> Bytes {
    // One block of a comment and an id; the encoder has comments only as blocks of their own.
    Bytes::from(format!(": ping\nid: {cursor}\n\n"))
}

#[derive(Serialize)]
pub(crate) struct Welcome {
    pub(crate) client: ClientId,
    pub(crate) session: SessionId,
    #[serde(serialize_with = "seconds")]
    pub(crate) heartbeat: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if duration.subsec_nanos() == 0 {
        serializer.serialize_u64(duration.as_secs())
    } else {
        serializer.serialize_f64(duration.as_secs_f64())
    }
}

/// The first block; without a cursor if a notice follows that carries one.
pub(crate) fn welcome(cursor: Option<&Cursor>, welcome: &Welcome) -> Bytes {
    notice(cursor, "$welcome", welcome)
}

#[derive(Serialize)]
pub(crate) struct Gap {
    pub(crate) reason: &'static str,
    pub(crate) after: Seq,
    pub(crate) resumed_at: Seq,
    pub(crate) head: Seq,
}

pub(crate) fn gap(cursor: &Cursor, gap: &Gap) -> Bytes {
    notice(Some(cursor), "$gap", gap)
}

#[derive(Serialize)]
pub(crate) struct Reset {
    pub(crate) reason: ResetReason,
    pub(crate) head: Seq,
}

pub(crate) fn reset(cursor: &Cursor, reset: &Reset) -> Bytes {
    notice(Some(cursor), "$reset", reset)
}

pub(crate) fn lag(dropped: u64) -> Bytes {
    #[derive(Serialize)]
    struct Lag {
        dropped: u64,
    }
    notice(None, "$lag", &Lag { dropped })
}

/// The last words: a fresh `retry:`, and why.
pub(crate) fn closing(reason: CloseReason, retry_in: Duration) -> Bytes {
    #[derive(Serialize)]
    struct Closing {
        reason: CloseReason,
    }
    [retry(retry_in), notice(None, "$closing", &Closing { reason })].concat().into()
}

fn notice(cursor: Option<&Cursor>, name: &str, payload: &impl Serialize) -> Bytes {
    // Our own structs of numbers and words.
    block(cursor, Some(name), &serde_json::to_string(payload).unwrap_or_default())
}

fn block(cursor: Option<&Cursor>, name: Option<&str>, data: &str) -> Bytes {
    encode(Event::Message(Message {
        id: cursor.map(|cursor| cursor.to_string().into()),
        event: name.map(Into::into),
        data: data.into(),
        retry: None,
    }))
}

fn encode(event: Event) -> Bytes {
    match event.into_bytestring() {
        Ok(text) => text.into_bytes(),
        Err(error) => {
            // Only an id or a name with a line end is refused, and their types have none.
            tracing::error!(%error, "a block could not be written and was left out");
            Bytes::new()
        }
    }
}
