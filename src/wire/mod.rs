//! Events in, bytes out. Pure: nothing here knows of clients, actors or HTTP.

pub(crate) mod envelope;
pub(crate) mod sse;

use bytes::Bytes;

use crate::cursor::Timeline;
use crate::record::Record;

/// A form that events are written in. All clients of one encoding share the bytes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Encoding {
    /// Server-Sent Events whose data is the payload as published.
    SseRaw,
    /// Server-Sent Events whose data is a JSON object with the event's particulars and its payload.
    SseEnvelope,
}

impl Encoding {
    fn encode(self, record: &Record, timeline: &Timeline) -> Bytes {
        match self {
            Self::SseRaw => sse::event(record, timeline, record.draft.payload.as_str()),
            Self::SseEnvelope => sse::event(record, timeline, &envelope::json(record)),
        }
    }
}

/// The bytes of one event, in each encoding that somebody has asked for so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    sse_raw: Option<Bytes>,
    sse_envelope: Option<Bytes>,
}

impl Frames {
    /// The event in `encoding`, written now if it was not before.
    pub(crate) fn encode(&mut self, encoding: Encoding, record: &Record, timeline: &Timeline) -> &Bytes {
        let slot = match encoding {
            Encoding::SseRaw => &mut self.sse_raw,
            Encoding::SseEnvelope => &mut self.sse_envelope,
        };
        slot.get_or_insert_with(|| encoding.encode(record, timeline))
    }

    /// The event in `encoding`, if it was written.
    pub(crate) fn get(&self, encoding: Encoding) -> Option<&Bytes> {
        match encoding {
            Encoding::SseRaw => self.sse_raw.as_ref(),
            Encoding::SseEnvelope => self.sse_envelope.as_ref(),
        }
    }
}
