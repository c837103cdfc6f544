//! From frames to messages. Pure.

use actix_http::ws::{CloseCode, Frame, Item, ProtocolError};
use bytes::{Bytes, BytesMut};

/// What a client said, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(String),
    Ping(Bytes),
    Pong,
    /// It ends the conversation, with this code if it gave one.
    Close(Option<CloseCode>),
}

/// What makes a conversation impossible to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    NotText,
    NotUtf8,
    TooLarge,
    /// What the codec found: no WebSocket.
    Protocol,
}

impl Violation {
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::NotText => CloseCode::Unsupported,
            Self::NotUtf8 => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
            Self::Protocol => CloseCode::Protocol,
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::NotText => "a message must be JSON",
            Self::NotUtf8 => "a message must be UTF-8",
            Self::TooLarge => "a message is too large",
            Self::Protocol => "a frame breaks the protocol",
        }
    }
}

impl From<ProtocolError> for Violation {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Overflow => Self::TooLarge,
            _ => Self::Protocol,
        }
    }
}

/// Puts messages together that come in fragments; control frames may come between them.
#[derive(Debug)]
pub(super) struct Assembler {
    max_bytes: usize,
    fragments: BytesMut,
}

impl Assembler {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, fragments: BytesMut::new() }
    }

    pub(super) fn take(&mut self, frame: Frame) -> Result<Option<Incoming>, Violation> {
        match frame {
            Frame::Text(text) if text.len() <= self.max_bytes => whole(&text).map(Some),
            Frame::Text(_) => Err(Violation::TooLarge),
            Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => Err(Violation::NotText),
            Frame::Continuation(Item::FirstText(part) | Item::Continue(part)) => {
                self.push(&part)?;
                Ok(None)
            }
            Frame::Continuation(Item::Last(part)) => {
                self.push(&part)?;
                whole(&std::mem::take(&mut self.fragments)).map(Some)
            }
            Frame::Ping(payload) => Ok(Some(Incoming::Ping(payload))),
            Frame::Pong(_) => Ok(Some(Incoming::Pong)),
            Frame::Close(reason) => Ok(Some(Incoming::Close(reason.map(|reason| reason.code)))),
        }
    }

    fn push(&mut self, part: &[u8]) -> Result<(), Violation> {
        if self.fragments.len() + part.len() > self.max_bytes {
            return Err(Violation::TooLarge);
        }
        self.fragments.extend_from_slice(part);
        Ok(())
    }
}

fn whole(text: &[u8]) -> Result<Incoming, Violation> {
    let text = std::str::from_utf8(text).map_err(|_| Violation::NotUtf8)?;
    Ok(Incoming::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(item: fn(Bytes) -> Item, text: &'static [u8]) -> Frame {
        Frame::Continuation(item(Bytes::from_static(text)))
    }

    #[test]
    fn a_message_may_come_in_parts_with_pings_between() {
        let mut assembler = Assembler::new(8);
        assert_eq!(assembler.take(part(Item::FirstText, b"a\xc3")), Ok(None));
        assert_eq!(
            assembler.take(Frame::Ping(Bytes::from_static(b"p"))),
            Ok(Some(Incoming::Ping(Bytes::from_static(b"p"))))
        );
        assert_eq!(assembler.take(part(Item::Continue, b"\xa4")), Ok(None));
        assert_eq!(assembler.take(part(Item::Last, b"z")), Ok(Some(Incoming::Text("aäz".into()))));
        assert_eq!(
            assembler.take(part(Item::FirstText, b"12345678")),
            Ok(None),
            "nothing is left of the first"
        );
        assert_eq!(assembler.take(part(Item::Last, b"9")), Err(Violation::TooLarge));
    }

    #[test]
    fn what_is_no_message_has_its_code() {
        let take = |frame| Assembler::new(8).take(frame).map_err(|violation| u16::from(violation.code()));
        assert_eq!(take(Frame::Binary(Bytes::new())), Err(1003));
        assert_eq!(take(part(Item::FirstBinary, b"")), Err(1003));
        assert_eq!(take(Frame::Text(Bytes::from_static(b"\xff"))), Err(1007));
        assert_eq!(take(part(Item::Last, b"\xc3")), Err(1007));
        assert_eq!(take(Frame::Text(Bytes::from_static(b"123456789"))), Err(1009));
        assert_eq!(u16::from(Violation::from(ProtocolError::BadOpCode).code()), 1002);
    }
}
