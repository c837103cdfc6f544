//! A connection over a WebSocket. The handshake is a request like any other of the client's; what it leaves is a pair of
//! byte streams.

use std::collections::{BTreeMap, VecDeque};

use actix_http::ws::{Codec, Frame, Item, Message, ProtocolError, hash_key};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Response, StatusCode, Upgraded};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};

use super::joining::Joining;
use super::{Failure, Request, Wanted, ask};
use crate::client::builder::Begin;
use crate::client::error::{Problem, StreamError};
use crate::client::item::{Cause, Position};
use crate::client::read::{Incoming, Word, malformed, ws};
use crate::error::CloseReason;

/// What is spoken.
const PROTOCOL: &str = "fanfare.v1.json";
/// Read at once.
const READ: usize = 8 * 1024;
/// The most that stands before a frame's payload.
const FRAME_HEADER: usize = 14;

#[derive(Debug)]
pub(in crate::client) struct Socket {
    io: Upgraded,
    codec: Codec,
    buffer: BytesMut,
    /// Of a message that comes in fragments.
    fragments: BytesMut,
    max_event: usize,
    /// Until the server has taken the subscription on.
    joining: Option<Joining>,
    /// Read, and to be given.
    ready: VecDeque<Incoming>,
    /// Whether a hole would end the stream here: until an event has come, if it was asked for.
    is_strict: bool,
}

impl Socket {
    pub(super) async fn open(request: &Request, position: Option<&Position>) -> Result<Self, Failure> {
        let io = handshake(request).await?;
        let mut socket = Self {
            io,
            codec: Codec::new().client_mode().max_size(request.max_event),
            buffer: BytesMut::new(),
            fragments: BytesMut::new(),
            max_event: request.max_event,
            joining: Some(Joining::new(request.max_event)),
            ready: VecDeque::new(),
            is_strict: request.wanted.is_strict,
        };
        socket.send(Message::Text(subscribe(&request.wanted, position).into())).await?;
        Ok(socket)
    }

    pub(super) async fn next(&mut self) -> Result<Incoming, Failure> {
        if let Some(incoming) = self.ready.pop_front() {
            return Ok(incoming);
        }
        if let Some(frame) = self.frame()? {
            return self.take(frame).await;
        }
        self.buffer.reserve(READ);
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Failure::lost(Cause::Ended)),
            Ok(_) => Ok(Incoming::default()),
            Err(error) => Err(Failure::broken(&error)),
        }
    }

    fn frame(&mut self) -> Result<Option<Frame>, Failure> {
        match self.codec.decode(&mut self.buffer) {
            // One that is announced larger is not waited for.
            Ok(None) if self.buffer.len() > self.max_event + FRAME_HEADER => Err(self.too_large()),
            Ok(frame) => Ok(frame),
            Err(ProtocolError::Overflow) => Err(self.too_large()),
            Err(error) => Err(Failure::broken(&error)),
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<Incoming, Failure> {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Continuation(Item::FirstText(part) | Item::Continue(part)) => {
                self.put(&part)?;
                return Ok(Incoming::default());
            }
            Frame::Continuation(Item::Last(part)) => {
                self.put(&part)?;
                std::mem::take(&mut self.fragments).freeze()
            }
            Frame::Ping(payload) => {
                self.send(Message::Pong(payload)).await?;
                return Ok(Incoming { is_heartbeat: true, ..Incoming::default() });
            }
            Frame::Pong(_) => return Ok(Incoming::default()),
            Frame::Close(reason) => {
                let code = reason.as_ref().map_or(1005, |reason| u16::from(reason.code));
                let words = reason.and_then(|reason| reason.description).unwrap_or_default();
                return closed(code, &words);
            }
            Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => {
                return Err(StreamError::Malformed("a binary message".into()).into());
            }
        };
        self.read(&text)
    }

    /// Adds a part to what is put together.
    fn put(&mut self, part: &[u8]) -> Result<(), Failure> {
        if self.fragments.len() + part.len() > self.max_event {
            return Err(self.too_large());
        }
        self.fragments.extend_from_slice(part);
        Ok(())
    }

    fn read(&mut self, text: &Bytes) -> Result<Incoming, Failure> {
        let text = std::str::from_utf8(text).map_err(|error| malformed(&error))?;
        let message = ws::message(text)?;
        let incoming = match &mut self.joining {
            Some(joining) => match joining.take(message, text.len())? {
                Some(joined) => {
                    self.joining = None;
                    self.ready.extend(joined);
                    return Ok(self.ready.pop_front().unwrap_or_default());
                }
                None => return Ok(Incoming::default()),
            },
            None => message.into_incoming(),
        };
        self.check(&incoming)?;
        Ok(incoming)
    }

    /// As the strict stream of events is checked, but by what is told.
    fn check(&mut self, incoming: &Incoming) -> Result<(), Failure> {
        match incoming.word {
            Some(Word::Gap(_) | Word::Reset(_)) if self.is_strict => Err(Failure::refused(Problem::gone())),
            Some(Word::Event(_)) => {
                self.is_strict = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Failure> {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes).map_err(|error| Failure::broken(&error))?;
        let written = async {
            self.io.write_all(&bytes).await?;
            self.io.flush().await
        };
        written.await.map_err(|error| Failure::broken(&error))
    }

    fn too_large(&self) -> Failure {
        StreamError::TooLarge { limit: self.max_event }.into()
    }
}

/// What the server ended with. It has said why before, as a rule, and then this is not read.
fn closed(code: u16, words: &str) -> Result<Incoming, Failure> {
    let reasons = [
        CloseReason::Draining,
        CloseReason::Slow,
        CloseReason::Unavailable,
        CloseReason::ExpiredToken,
        CloseReason::Revoked,
    ];
    let reason = reasons.into_iter().find(|reason| u16::from(crate::wire::ws::code(*reason)) == code);
    if let Some(reason) = reason {
        let word = Some(Word::Closing(reason.as_str().into()));
        return Ok(Incoming { word, ..Incoming::default() });
    }
    let cause = match code {
        1000 | 1001 | 1005 => Cause::Ended,
        _ => Cause::Broken(format!("the server closed it with {code} {words}").trim_end().to_owned()),
    };
    Err(Failure::lost(cause))
}

async fn handshake(request: &Request) -> Result<Upgraded, Failure> {
    let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
    let get = request.http.get(request.url.clone()).headers(request.headers.clone());
    let get = get
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .header(SEC_WEBSOCKET_KEY, &key);
    let response = ask(get, StatusCode::SWITCHING_PROTOCOLS).await?;
    let is = |name, wanted: &[u8]| header(&response, name).is_some_and(|value| value.as_bytes() == wanted);
    if !is(SEC_WEBSOCKET_ACCEPT, &hash_key(key.as_bytes()))
        || !is(SEC_WEBSOCKET_PROTOCOL, PROTOCOL.as_bytes())
    {
        return Err(StreamError::NotAStream(format!("a protocol other than {PROTOCOL}")).into());
    }
    response.upgrade().await.map_err(|error| Failure::broken(&error))
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<&HeaderValue> {
    response.headers().get(name)
}

fn subscribe(wanted: &Wanted, position: Option<&Position>) -> String {
    #[derive(Serialize)]
    struct Subscribe<'a> {
        op: &'static str,
        channels: Vec<&'a str>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        filter: &'a BTreeMap<String, String>,
        cursor: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    }
    let subscribe = Subscribe {
        op: "subscribe",
        channels: wanted.selectors.iter().map(|selector| selector.as_str()).collect(),
        filter: &wanted.filter,
        cursor: position.map(Position::as_str),
        from: wanted.begin.map(|begin| match begin {
            Begin::Now => "now".to_owned(),
            Begin::Earliest => "earliest".to_owned(),
            Begin::Last(count) => count.to_string(),
        }),
    };
    // Of strings: there is nothing in it that cannot be written.
    serde_json::to_string(&subscribe).unwrap_or_default()
}
