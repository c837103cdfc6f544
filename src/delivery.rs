//! What a subscriber in this process is handed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cursor::{Cursor, ResetReason, Seq, Timeline};
use crate::event::{Attributes, EventId, Payload};
use crate::record::Record;

/// An item of [`Deliveries`](crate::Deliveries): an event, or word of what is missing, at its place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// An event.
    Event(Received),
    /// Ephemeral events that were published here were dropped, because the subscriber did not read them in time.
    Lag {
        /// How many, exactly.
        dropped: u64,
    },
    /// Stored events that the subscriber was to have are gone: retention has removed them. Load the state again.
    Gap {
        /// The subscriber had everything up to here when it began to read on.
        after: Seq,
        /// What is missing stood before or at this position.
        resumed_at: Seq,
        /// The newest position when this was found.
        head: Seq,
        /// The position that the gap leads to: who starts after it is not told again.
        cursor: Cursor,
    },
    /// The cursor to start after is no position of this log. Load the state again.
    Reset {
        /// What is wrong with it.
        reason: ResetReason,
        /// The newest position when this was found.
        head: Seq,
        /// The position that the stream goes on from.
        cursor: Cursor,
    },
}

impl Delivery {
    /// The position after this item, to start from another time. An ephemeral event and a lag have none.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Event(event) => event.cursor(),
            Self::Lag { .. } => None,
            Self::Gap { cursor, .. } | Self::Reset { cursor, .. } => Some(cursor.clone()),
        }
    }
}

/// An event as it was published, with its place in the log. Cheap to clone: all subscribers share it.
#[derive(Debug, Clone)]
pub struct Received {
    record: Arc<Record>,
    timeline: Timeline,
}

impl Received {
    pub(crate) fn new(record: Arc<Record>, timeline: Timeline) -> Self {
        Self { record, timeline }
    }

    /// Its identity, the publisher's or minted.
    #[must_use]
    pub fn id(&self) -> &EventId {
        &self.record.draft.id
    }

    /// Its position in the log; nothing for an ephemeral event.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        self.record.seq()
    }

    /// The position of the event before it on its first channel, 0 for none; nothing for an ephemeral event.
    #[must_use]
    pub fn prev(&self) -> Option<Seq> {
        self.record.place.map(|place| place.prev)
    }

    /// The position after it as a token, for [`SubscribeOptions::after`](crate::SubscribeOptions::after) or a browser's
    /// `last_event_id`; nothing for an ephemeral event.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.seq().map(|seq| self.timeline.cursor(seq))
    }

    /// Its first channel; `$everyone` or `$session` if it is for those.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.channels().next().unwrap_or_default()
    }

    /// All its channels, in the publisher's order.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.record.draft.channels.iter().map(|channel| channel.public_name())
    }

    /// Its name; `message` if it was given none.
    #[must_use]
    pub fn event(&self) -> &str {
        self.record.draft.name.as_str()
    }

    /// When the broker accepted it, to the millisecond. Says nothing of its order.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.record.draft.time)
    }

    /// Its attributes.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.record.draft.attributes
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.record.draft.payload
    }
}
