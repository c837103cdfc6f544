//! From what a server sends to what it says. Pure.

pub(super) mod sse;
pub(super) mod ws;

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::StreamError;
use super::item::{Connected, Gap, Lag, Position, Received, Reset};
use crate::event::{Attributes, EventId, EventName, Payload};

/// Of a welcome that names none, or one that is no time.
const USUAL_HEARTBEAT: Duration = Duration::from_secs(15);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3600);

/// What arrived, whatever the transport: where the stream is behind it, the pause that the server asks for, the word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) position: Option<Position>,
    pub(super) retry: Option<Duration>,
    pub(super) word: Option<Word>,
    /// The server has served this connection for a while, and has nothing else to show for it.
    pub(super) is_heartbeat: bool,
}

impl Incoming {
    /// Says where the stream is behind it.
    pub(super) fn place(&mut self, position: Option<Position>) {
        if let Some(Word::Event(event)) = &mut self.word {
            event.position.clone_from(&position);
        }
        self.position = position;
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    Welcome(Connected),
    Event(Box<Received>),
    Gap(Gap),
    Reset(Reset),
    Lag(Lag),
    Closing(String),
}

#[derive(Deserialize)]
struct Welcome {
    client: String,
    session: String,
    heartbeat: Option<f64>,
}

#[derive(Deserialize)]
struct GapNotice {
    reason: String,
    after: u64,
    resumed_at: u64,
    head: u64,
}

#[derive(Deserialize)]
struct ResetNotice {
    reason: String,
    head: u64,
}

#[derive(Deserialize)]
struct LagNotice {
    dropped: u64,
}

#[derive(Deserialize)]
struct ClosingNotice {
    reason: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    seq: Option<u64>,
    prev: Option<u64>,
    channel: Option<String>,
    channels: Vec<String>,
    event: String,
    time: String,
    #[serde(borrow)]
    attributes: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Reads a word of the server's own; nothing for what only a newer one says.
fn notice(name: &str, particulars: &str) -> Result<Option<Word>, StreamError> {
    Ok(Some(match name {
        "welcome" => Word::Welcome(welcome(&json(particulars)?)?),
        "gap" => {
            let GapNotice { reason, after, resumed_at, head } = json(particulars)?;
            Word::Gap(Gap { reason, after, resumed_at, head })
        }
        "reset" => {
            let ResetNotice { reason, head } = json(particulars)?;
            Word::Reset(Reset { reason, head })
        }
        "lag" => Word::Lag(Lag { dropped: json::<LagNotice>(particulars)?.dropped }),
        "closing" => Word::Closing(json::<ClosingNotice>(particulars)?.reason),
        _ => return Ok(None),
    }))
}

/// Reads an event.
fn event(envelope: &str, position: Option<&Position>) -> Result<Word, StreamError> {
    Ok(Word::Event(Box::new(received(json(envelope)?, position.cloned())?)))
}

fn welcome(welcome: &Welcome) -> Result<Connected, StreamError> {
    let heartbeat = welcome.heartbeat.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let heartbeat = heartbeat.filter(|heartbeat| !heartbeat.is_zero()).unwrap_or(USUAL_HEARTBEAT);
    Ok(Connected {
        client: welcome.client.parse().map_err(|error| malformed(&error))?,
        session: welcome.session.parse().map_err(|error| malformed(&error))?,
        heartbeat: heartbeat.min(LONGEST_HEARTBEAT),
    })
}

fn received(envelope: Envelope<'_>, position: Option<Position>) -> Result<Received, StreamError> {
    let data = envelope.data.get();
    let data = if data.starts_with('"') {
        Payload::restore(json(data)?, false)
    } else {
        Payload::restore(data.to_owned(), true)
    };
    let name = (envelope.event != "message").then_some(envelope.event);
    Ok(Received {
        position,
        id: EventId::restore(&envelope.id),
        seq: envelope.seq,
        prev: envelope.prev,
        channel: envelope.channel.unwrap_or_default(),
        channels: envelope.channels,
        name: EventName::restore(name.as_deref()),
        time: time(&envelope.time)?,
        attributes: Attributes::restore(envelope.attributes.get()),
        data,
    })
}

fn time(text: &str) -> Result<SystemTime, StreamError> {
    humantime::parse_rfc3339(text).map_err(|error| malformed(&error))
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, StreamError> {
    serde_json::from_str(text).map_err(|error| malformed(&error))
}

pub(super) fn malformed(error: &dyn std::error::Error) -> StreamError {
    StreamError::Malformed(error.to_string())
}
