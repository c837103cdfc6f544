//! An event as bytes, as a message of an order has it and a row of a file. Pure.
//!
//! Lengths and numbers are little-endian; a text is its length and its bytes. What an event takes beside its texts is less than
//! [`Draft::weight`] has for it, so that a bound in weight is one in bytes. Whatever is read is read with care: what breaks a
//! rule of an event's values is no event.

use std::sync::Arc;

use super::index::Lately;
use crate::channel::Channel;
use crate::event::{Attributes, EventId, EventName, Payload};
use crate::identity::Publisher;
use crate::record::Draft;

const HAS_PUBLISHER: u8 = 1;
const IS_HUB: u8 = 2;
const HAS_NAME: u8 = 4;
const IS_JSON: u8 = 8;

pub(super) fn write(out: &mut Vec<u8>, draft: &Draft) {
    let publisher = draft.publisher.as_ref();
    let named = publisher.and_then(Publisher::name);
    let name = draft.name.explicit();
    let flags = [
        (publisher.is_some(), HAS_PUBLISHER),
        (publisher.is_some() && named.is_none(), IS_HUB),
        (name.is_some(), HAS_NAME),
        (draft.payload.is_json(), IS_JSON),
    ];
    out.push(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
    out.extend_from_slice(&draft.time.to_le_bytes());
    text(out, draft.id.as_str());
    if let Some(named) = named {
        text(out, named);
    }
    if let Some(name) = name {
        text(out, name);
    }
    number(out, draft.channels.len());
    draft.channels.iter().for_each(|channel| text(out, channel.as_str()));
    pairs(out, &draft.attributes);
    text(out, draft.payload.as_str());
}

pub(super) fn number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn pairs(out: &mut Vec<u8>, attributes: &Attributes) {
    number(out, attributes.len());
    for (key, value) in attributes.iter() {
        text(out, key);
        text(out, value);
    }
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// What is still to be read.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn number(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.first_chunk().copied()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.first_chunk().copied()?))
    }

    pub(super) fn pairs(&mut self) -> Option<Attributes> {
        let mut attributes = Attributes::default();
        for _ in 0..self.number()? {
            attributes.insert(self.text()?.into(), self.text()?.into()).ok()?;
        }
        Some(attributes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(super) fn draft(&mut self, lately: &mut Lately) -> Option<Draft> {
        let flags = self.byte()?;
        let time = self.long()?;
        let id = EventId::new(self.text()?).ok()?;
        let publisher = match (flags & HAS_PUBLISHER != 0, flags & IS_HUB != 0) {
            (false, _) => None,
            (true, true) => Some(Publisher::HUB),
            (true, false) => Some(Publisher::named(self.text()?)),
        };
        let name = match flags & HAS_NAME != 0 {
            true => EventName::new(self.text()?).ok()?,
            false => EventName::MESSAGE,
        };
        let channels = self.channels(lately)?;
        let attributes = self.pairs()?;
        let payload = Payload::restore(self.text()?.into(), flags & IS_JSON != 0);
        Some(Draft { id, publisher, channels, name, payload, attributes, time })
    }

    fn channels(&mut self, Lately { channels }: &mut Lately) -> Option<Arc<[Channel]>> {
        let count = self.number()?;
        let mut again = Rest(self.0);
        if count == channels.len() && channels.iter().all(|known| again.text() == Some(known.as_str())) {
            self.0 = again.0;
        } else {
            *channels = (0..count).map(|_| self.channel()).collect::<Option<_>>()?;
        }
        Some(channels.clone())
    }

    fn channel(&mut self) -> Option<Channel> {
        let name = self.text()?;
        match name.strip_prefix('$') {
            None => Channel::new(name).ok(),
            Some(_) if name == Channel::everyone().as_str() => Some(Channel::everyone()),
            Some(reserved) => Some(Channel::inbox(reserved.strip_prefix("session/")?.parse().ok()?)),
        }
    }
}
