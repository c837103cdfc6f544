//! Events in, bytes out. Pure: nothing here knows of clients, actors or HTTP.

pub(crate) mod envelope;
mod framing;
pub(crate) mod notice;
pub(crate) mod sse;
pub(crate) mod ws;

use bytes::Bytes;

pub(crate) use self::framing::Framing;
use self::notice::Notice;
use crate::counts::Transport;
use crate::cursor::{Cursor, Timeline};
use crate::record::Record;

/// A form that events are written in. All clients of one encoding share the bytes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Encoding {
    /// Server-Sent Events whose data is the payload as published.
    SseRaw,
    /// Server-Sent Events whose data is a JSON object with the event's particulars and its payload.
    SseEnvelope,
    /// WebSocket messages.
    Ws,
}

impl Encoding {
    /// How those who want it are connected.
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::SseRaw | Self::SseEnvelope => Transport::Sse,
            Self::Ws => Transport::Ws,
        }
    }

    /// An event for a client that is at `cursor` with it; without one for an ephemeral event.
    pub(crate) fn event(self, record: &Record, cursor: Option<&Cursor>) -> Bytes {
        match self {
            Self::SseRaw => sse::event(record, cursor, record.draft.payload.as_str()),
            Self::SseEnvelope => sse::event(record, cursor, &envelope::json(record)),
            Self::Ws => ws::event(record, cursor),
        }
    }

    /// A word of the server's own.
    pub(crate) fn notice(self, cursor: Option<&Cursor>, notice: &Notice) -> Bytes {
        match self {
            Self::SseRaw | Self::SseEnvelope => sse::notice(cursor, notice),
            Self::Ws => ws::notice(cursor, notice),
        }
    }

    /// The heartbeat for a client that is at `cursor`.
    pub(crate) fn ping(self, cursor: &Cursor, is_cut_off: bool) -> Bytes {
        match self {
            Self::SseRaw | Self::SseEnvelope => sse::ping(cursor, is_cut_off),
            Self::Ws => ws::ping(),
        }
    }
}

/// The bytes of one event, in each encoding that somebody has asked for so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    sse_raw: Option<Bytes>,
    sse_envelope: Option<Bytes>,
    ws: Option<Bytes>,
}

impl Frames {
    /// The event in `encoding`, written now if it was not before.
    pub(crate) fn encode(&mut self, encoding: Encoding, record: &Record, timeline: &Timeline) -> &Bytes {
        self.get_or_insert(encoding, || {
            let cursor = record.seq().map(|seq| timeline.cursor(seq));
            encoding.event(record, cursor.as_ref())
        })
    }

    /// The event in `encoding`, as `write` gives it if it was not there before.
    pub(crate) fn get_or_insert(&mut self, encoding: Encoding, write: impl FnOnce() -> Bytes) -> &Bytes {
        let slot = match encoding {
            Encoding::SseRaw => &mut self.sse_raw,
            Encoding::SseEnvelope => &mut self.sse_envelope,
            Encoding::Ws => &mut self.ws,
        };
        slot.get_or_insert_with(write)
    }

    /// The event in `encoding`, if it was written.
    pub(crate) fn get(&self, encoding: Encoding) -> Option<&Bytes> {
        match encoding {
            Encoding::SseRaw => self.sse_raw.as_ref(),
            Encoding::SseEnvelope => self.sse_envelope.as_ref(),
            Encoding::Ws => self.ws.as_ref(),
        }
    }
}
