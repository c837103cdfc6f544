//! WebSocket: one JSON object per text message, `op` first. What a server sends is not masked, so that a frame is the same
//! for all who get it and is written once.

use std::rc::Rc;

use actix_http::ws::{CloseCode, OpCode, Parser};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use super::envelope;
use super::notice::{Closing, Notice};
use crate::cursor::{Cursor, Seq};
use crate::error::CloseReason;
use crate::record::Record;

/// What a client called its request: any JSON number or string.
pub(crate) type Reference = Box<RawValue>;

pub(super) fn event(record: &Record, cursor: Option<&Cursor>) -> Bytes {
    object("event", &envelope::json(record), cursor)
}

/// The heartbeat, which a client answers by itself.
pub(crate) fn ping() -> Bytes {
    control(OpCode::Ping, b"")
}

/// The answer to a client's own heartbeat.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    control(OpCode::Pong, payload)
}

/// A notice; with `closing` comes the end of the conversation.
pub(super) fn notice(cursor: Option<&Cursor>, notice: &Notice) -> Bytes {
    match notice {
        Notice::Closing(Closing { reason, retry_in }) => {
            #[derive(Serialize)]
            struct Retry {
                reason: CloseReason,
                /// In milliseconds, as in a stream of events.
                retry: u64,
            }
            let retry = Retry { reason: *reason, retry: retry_in.as_millis() as u64 };
            let words = object("closing", &serde_json::to_string(&retry).unwrap_or_default(), cursor);
            [words, close(code(*reason), reason.as_str())].concat().into()
        }
        _ => object(notice.name(), &notice.json(), cursor),
    }
}

/// The code that a connection is closed with for this reason.
pub(crate) fn code(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Draining | CloseReason::TooOld => CloseCode::Restart,
        CloseReason::Unavailable | CloseReason::Limit => CloseCode::Again,
        CloseReason::Revoked => CloseCode::Other(4001),
        CloseReason::ExpiredToken => CloseCode::Other(4002),
        CloseReason::Slow => CloseCode::Other(4008),
    }
}

/// The end of the conversation.
pub(crate) fn close(code: CloseCode, description: &str) -> Bytes {
    // A control frame holds 125 bytes, and the code takes two.
    let fits = description.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= 123);
    let description = description.get(..fits.last().unwrap_or(0)).unwrap_or_default();
    let payload = [u16::from(code).to_be_bytes().as_slice(), description.as_bytes()].concat();
    control(OpCode::Close, &payload)
}

/// The end of a conversation that the client ended without a code.
pub(crate) fn close_without_code() -> Bytes {
    control(OpCode::Close, b"")
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Answer<'a> {
    Subscribed {
        r#ref: Option<&'a RawValue>,
        cursor: Option<&'a Cursor>,
    },
    Unsubscribed {
        r#ref: Option<&'a RawValue>,
    },
    Published {
        r#ref: Option<&'a RawValue>,
        id: &'a str,
        seq: Option<Seq>,
        cursor: Option<&'a Cursor>,
        duplicate: bool,
    },
    Pong {
        r#ref: Option<&'a RawValue>,
    },
    TokenAccepted {
        r#ref: Option<&'a RawValue>,
        expires: Option<u64>,
    },
}

impl Answer<'_> {
    pub(crate) fn frame(&self) -> Bytes {
        text(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// A message of these words, which are JSON.
pub(crate) fn text(json: &str) -> Bytes {
    message(OpCode::Text, json.as_bytes())
}

/// An object of `fields`, which are one themselves, between its name and the client's position.
fn object(op: &str, fields: &str, cursor: Option<&Cursor>) -> Bytes {
    let fields = fields.strip_prefix('{').and_then(|fields| fields.strip_suffix('}')).unwrap_or_default();
    text(&match cursor {
        Some(cursor) => format!(r#"{{"op":"{op}",{fields},"cursor":"{cursor}"}}"#),
        None => format!(r#"{{"op":"{op}",{fields},"cursor":null}}"#),
    })
}

/// What a client's cursors say otherwise than those in the frames that all share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recast {
    /// The same, with this behind it.
    Behind(Rc<str>),
    /// This.
    Instead(Rc<str>),
}

impl Recast {
    /// The same messages, with this client's cursors. They are at the end of a message.
    pub(crate) fn apply(&self, frames: &[u8]) -> Bytes {
        const BEFORE: &[u8] = br#","cursor":""#;
        const BEHIND: &[u8] = br#""}"#;
        let mut frames = BytesMut::from(frames);
        let mut out = BytesMut::with_capacity(frames.len() + 32);
        // They are our own frames, whole, so there is nothing to refuse.
        while let Ok(Some((_, code, payload))) = Parser::parse(&mut frames, false, usize::MAX) {
            let payload = payload.unwrap_or_default();
            let said = payload.strip_suffix(BEHIND).filter(|_| code == OpCode::Text);
            let length = said.and_then(|said| said.iter().rev().position(|&byte| byte == b'"'));
            let parts =
                said.zip(length).and_then(|(said, length)| said.split_at_checked(said.len() - length));
            match parts.filter(|(before, _)| before.ends_with(BEFORE)) {
                Some((before, cursor)) => {
                    let cursor = match self {
                        Self::Behind(exceptions) => [cursor, exceptions.as_bytes()].concat(),
                        Self::Instead(cursor) => cursor.as_bytes().to_vec(),
                    };
                    let text = [before, &cursor, BEHIND].concat();
                    Parser::write_message(&mut out, text, code, true, false);
                }
                None => Parser::write_message(&mut out, payload, code, true, false),
            }
        }
        out.freeze()
    }
}

fn control(code: OpCode, payload: &[u8]) -> Bytes {
    message(code, payload)
}

fn message(code: OpCode, payload: &[u8]) -> Bytes {
    const HEADER: usize = 10;
    let mut frame = BytesMut::with_capacity(payload.len() + HEADER);
    Parser::write_message(&mut frame, payload, code, true, false);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_recast_and_nothing_else() {
        for data in ["y".to_owned(), "x".repeat(200), r#"\",\"cursor\":\"a"#.to_owned(), "z".repeat(70_000)] {
            let event =
                |cursor: &str| text(&format!(r#"{{"op":"event","data":"{data}","cursor":{cursor}}}"#));
            let frames = |cursor: &str| [event(cursor), ping(), event("null"), event(cursor)].concat();
            let shared = frames(r#""a.b.1""#);
            let behind = Recast::Behind("~t-0".into());
            assert_eq!(behind.apply(&shared), frames(r#""a.b.1~t-0""#));
            assert_eq!(Recast::Instead("a.b.0".into()).apply(&shared), frames(r#""a.b.0""#));
        }
    }

    #[test]
    fn a_close_fits_a_control_frame() {
        let frame = close(CloseCode::Other(4008), &"ä".repeat(100));
        assert_eq!((frame[0], frame[1], frame.len()), (0x88, 124, 126));
    }
}
