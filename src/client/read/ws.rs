//! What the messages of a WebSocket say.

use std::time::Duration;

use serde::Deserialize;

use super::{Incoming, Word, event, json, malformed, notice};
use crate::client::error::{Problem, StreamError};
use crate::client::item::Position;

/// One message: where the client is behind it, the pause that the server asks for, what it says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) struct Message {
    pub(in crate::client) position: Option<Position>,
    pub(in crate::client) retry: Option<Duration>,
    pub(in crate::client) said: Said,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::client) enum Said {
    /// What streams of events have too.
    Word(Word),
    /// The subscription is taken on.
    Subscribed,
    /// It is not.
    Refused(Box<Problem>),
    /// Nothing of note.
    Nothing,
}

impl Message {
    /// What it is once the subscription is taken on.
    pub(in crate::client) fn into_incoming(self) -> Incoming {
        let Self { position, retry, said } = self;
        let word = match said {
            Said::Word(word) => Some(word),
            Said::Subscribed | Said::Refused(_) | Said::Nothing => None,
        };
        Incoming { position, retry, word, ..Incoming::default() }
    }
}

#[derive(Deserialize)]
struct Head {
    op: String,
    cursor: Option<String>,
    /// In milliseconds.
    retry: Option<u64>,
}

/// Reads a message; what a newer server may say beside is nothing.
pub(in crate::client) fn message(text: &str) -> Result<Message, StreamError> {
    let Head { op, cursor, retry } = json(text)?;
    let position = cursor.map(|cursor| cursor.parse::<Position>()).transpose();
    let position = position.map_err(|error| malformed(&error))?;
    let said = match op.as_str() {
        "event" => Said::Word(event(text, position.as_ref())?),
        "subscribed" => Said::Subscribed,
        "error" => Said::Refused(Problem::told(text)),
        own => notice(own, text)?.map_or(Said::Nothing, Said::Word),
    };
    Ok(Message { position, retry: retry.map(Duration::from_millis), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        message(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn at(position: &str) -> Option<Position> {
        Some(position.parse().expect("valid"))
    }

    #[test]
    fn an_event_is_read_whole() {
        let text = r#"{"op":"event","id":"o-7","seq":7,"prev":3,"channel":"a","channels":["a","b"],"event":"created",
            "time":"2026-01-02T03:04:05.678Z","attributes":{"kind":"x"},"data":{"n":12345678901234567890.10},
            "cursor":"a.b.7~t-3"}"#;
        let Message { position, retry: None, said: Said::Word(Word::Event(event)) } = read(text) else {
            panic!("no event")
        };
        assert_eq!((&event.position, &position), (&at("a.b.7~t-3"), &at("a.b.7~t-3")));
        assert_eq!((event.seq, event.prev, event.id.as_str()), (Some(7), Some(3), "o-7"));
        assert_eq!((event.name.as_str(), event.attributes.get("kind")), ("created", Some("x")));
        assert_eq!(event.data.as_str(), r#"{"n":12345678901234567890.10}"#);
    }

    #[test]
    fn a_closing_names_its_pause() {
        let closing = read(r#"{"op":"closing","reason":"draining","retry":7000,"cursor":"a.b.7"}"#);
        assert_eq!(closing.retry, Some(Duration::from_secs(7)));
        assert_eq!(closing.said, Said::Word(Word::Closing("draining".into())));
    }

    #[test]
    fn a_refusal_keeps_its_status() {
        let refused = r#"{"op":"error","ref":null,"type":"urn:x","title":"No","status":403,"detail":"because","field":"channels"}"#;
        let Said::Refused(problem) = read(refused).said else { panic!("not refused") };
        assert_eq!((problem.status, problem.field.as_deref()), (403, Some("channels")));
        assert_eq!(problem.to_string(), "403 No: because");
        let Said::Refused(problem) = read(r#"{"op":"error"}"#).said else { panic!("not refused") };
        assert_eq!(problem.status, 400);
    }

    #[test]
    fn what_a_newer_server_says_is_passed_over() {
        let news = read(r#"{"op":"news","cursor":null,"x":[1]}"#);
        assert_eq!((news.position.clone(), news.said == Said::Nothing), (None, true));
        assert_eq!(news.into_incoming(), Incoming::default());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for text in
            ["", "{", "[]", r#"{"op":7}"#, r#"{"op":"gap"}"#, r#"{"op":"lag","dropped":1,"cursor":"a b"}"#]
        {
            assert!(matches!(message(text), Err(StreamError::Malformed(_))), "{text:?}");
        }
    }
}
