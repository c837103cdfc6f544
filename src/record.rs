//! An event on its way through the broker: accepted, then committed.

use std::sync::Arc;

use crate::channel::Channel;
use crate::cursor::Seq;
use crate::event::{Attributes, Event, EventId, EventName, Payload};
use crate::identity::Publisher;

/// An event that the broker has accepted and that has no place in the log yet.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its identity, the publisher's or minted.
    pub id: EventId,
    /// Whom the identity is unique for; nothing if the broker minted it, since then it cannot come again.
    pub publisher: Option<Publisher>,
    /// All the channels that it is for, reserved ones included; delivered once to a client however many it follows.
    pub channels: Arc<[Channel]>,
    /// The name.
    pub name: EventName,
    /// The payload.
    pub payload: Payload,
    /// What subscriptions may filter by.
    pub attributes: Attributes,
    /// When the broker accepted it, in milliseconds since the Unix epoch. Says nothing of its order.
    pub time: u64,
}

impl Draft {
    pub(crate) fn new(event: Event, channels: Arc<[Channel]>, publisher: Publisher, time: u64) -> Self {
        let Event { id, name, payload, attributes, ephemeral: _ } = event;
        let publisher = id.is_some().then_some(publisher);
        let id = id.unwrap_or_else(EventId::mint);
        Self { id, publisher, channels, name, payload, attributes, time }
    }

    /// What it takes in a queue or store that is bounded by bytes: its texts and a round figure for the rest.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        const PER_CHANNEL: usize = 96;
        let channels: usize = self.channels.iter().map(|channel| channel.as_str().len() + PER_CHANNEL).sum();
        OVERHEAD + channels + self.payload.as_str().len() + self.id.as_str().len() + self.attributes.weight()
    }
}

/// An event as it is delivered.
#[derive(Debug, Clone)]
pub struct Record {
    /// The event.
    pub draft: Draft,
    /// Its place in the log; an ephemeral event has none.
    pub place: Option<Place>,
}

/// Where an event stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its position.
    pub seq: Seq,
    /// The position of the event before it on its first channel, 0 for none.
    pub prev: Seq,
}

impl Record {
    /// A committed event.
    #[must_use]
    pub fn committed(draft: Draft, seq: Seq, prev: Seq) -> Self {
        Self { draft, place: Some(Place { seq, prev }) }
    }

    pub(crate) fn ephemeral(draft: Draft) -> Self {
        Self { draft, place: None }
    }

    /// Its position in the log, unless it is ephemeral.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        self.place.map(|place| place.seq)
    }
}
