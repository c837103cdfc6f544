//! WebSocket: one JSON object per text message, `op` first. What a server sends is not masked, so that a frame is the same
//! for all who get it and is written once.

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
        CloseReason::Draining => CloseCode::Restart,
        CloseReason::Unavailable => CloseCode::Again,
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

/// The same messages, each cursor at the end of one with `exceptions` behind it.
pub(crate) fn with_exceptions(frames: &[u8], exceptions: &str) -> Bytes {
    let mut frames = BytesMut::from(frames);
    let mut out = BytesMut::with_capacity(frames.len() + exceptions.len());
    // They are our own frames, whole, so there is nothing to refuse.
    while let Ok(Some((_, code, payload))) = Parser::parse(&mut frames, false, usize::MAX) {
        let payload = payload.unwrap_or_default();
        match payload.strip_suffix(b"\"}").filter(|_| code == OpCode::Text) {
            Some(before) => {
                let text = [before, exceptions.as_bytes(), b"\"}"].concat();
                Parser::write_message(&mut out, text, code, true, false);
            }
            None => Parser::write_message(&mut out, payload, code, true, false),
        }
    }
    out.freeze()
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
    fn exceptions_go_behind_cursors_and_nothing_else() {
        let long = "x".repeat(200);
        let messages = [
            (
                r#"{"op":"event","data":"DATA","cursor":"a.b.1"}"#,
                r#"{"op":"event","data":"DATA","cursor":"a.b.1~t-0"}"#,
            ),
            (
                r#"{"op":"event","data":"DATA","cursor":null}"#,
                r#"{"op":"event","data":"DATA","cursor":null}"#,
            ),
        ];
        for data in ["y", long.as_str()] {
            let all = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
                let frames =
                    messages.iter().flat_map(|pair| [text(&pick(pair).replace("DATA", data)), ping()]);
                frames.collect::<Vec<_>>().concat()
            };
            assert_eq!(with_exceptions(&all(|pair| pair.0), "~t-0"), all(|pair| pair.1));
        }
    }

    #[test]
    fn a_close_fits_a_control_frame() {
        let frame = close(CloseCode::Other(4008), &"ä".repeat(100));
        assert_eq!((frame[0], frame[1], frame.len()), (0x88, 124, 126));
    }
}
