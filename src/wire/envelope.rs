//! The JSON object that tells all of an event.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{Attributes, Payload};
use crate::record::Record;

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    seq: Option<u64>,
    prev: Option<u64>,
    channel: Option<&'a str>,
    channels: Vec<&'a str>,
    event: &'a str,
    time: String,
    attributes: &'a Attributes,
    data: Data<'a>,
}

/// A payload in a JSON object: the value that was published as JSON, else a string.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Data<'a> {
    pub(crate) fn of(payload: &'a Payload) -> Self {
        match payload.is_json().then(|| serde_json::from_str(payload.as_str())) {
            Some(Ok(value)) => Self::Json(value),
            _ => Self::Text(payload.as_str()),
        }
    }
}

/// The envelope of an event, as JSON.
pub(crate) fn json(record: &Record) -> String {
    let draft = &record.draft;
    let mut channels: Vec<&str> = draft.channels.iter().map(|channel| channel.public_name()).collect();
    channels.dedup();
    let time = UNIX_EPOCH + Duration::from_millis(draft.time);
    let envelope = Envelope {
        id: draft.id.as_str(),
        seq: record.place.map(|place| place.seq),
        prev: record.place.map(|place| place.prev),
        channel: channels.first().copied(),
        channels,
        event: draft.name.as_str(),
        time: humantime::format_rfc3339_millis(time).to_string(),
        attributes: &draft.attributes,
        data: Data::of(&draft.payload),
    };
    // Strings, numbers and checked JSON: there is nothing in it that cannot be written.
    serde_json::to_string(&envelope).unwrap_or_default()
}
