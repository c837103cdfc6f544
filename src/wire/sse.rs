//! `text/event-stream`: the blocks that fanfare sends, with `id:` first.
//!
//! The encoder splits data on every line end that the standard knows, and ids and names cannot hold one by their
//! types, so no field and no event can be forged from inside a value.

use std::time::Duration;

use bytes::Bytes;
use russe::{Event, Message};

use super::notice::{Closing, Notice};
use crate::cursor::Cursor;
use crate::record::Record;

pub(super) fn event(record: &Record, cursor: Option<&Cursor>, data: &str) -> Bytes {
    block(cursor, record.draft.name.explicit(), data)
}

/// How long the client is to wait before it comes back.
pub(crate) fn retry(delay: Duration) -> Bytes {
    encode(Event::Retry(delay))
}

/// The heartbeat: moves the client's cursor and dispatches no event. Who looks at the stream is told if nothing stored can
/// come for now.
pub(crate) fn ping(cursor: &Cursor, is_cut_off: bool) -> Bytes {
    let why = if is_cut_off { ": the log is not to be had; what is published comes late\n" } else { "" };
    // One block of comments and an id; the encoder has comments only as blocks of their own.
    Bytes::from(format!(": ping\n{why}id: {cursor}\n\n"))
}

/// A notice; `$closing` is the last word, after a fresh `retry:`.
pub(super) fn notice(cursor: Option<&Cursor>, notice: &Notice) -> Bytes {
    let name = format!("${}", notice.name());
    let block = block(cursor, Some(&name), &notice.json());
    match notice {
        Notice::Closing(Closing { retry_in, .. }) => [retry(*retry_in), block].concat().into(),
        _ => block,
    }
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
