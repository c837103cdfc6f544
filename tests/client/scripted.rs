//! A server that says what it is told to, over either transport, and tells what it was asked.

use std::net::SocketAddr;
use std::time::Duration;

use fanfare::client::{Client, Transport};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::PATIENCE;
use crate::support::ws::{PING, TEXT};

/// One connection's answer: written at once or in ten pieces with a pause between them, then held open or closed.
#[derive(Clone)]
pub(crate) struct Answer {
    /// Of WebSocket frames, which come after the handshake and the client's first message.
    pub(crate) is_socket: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) pause: Duration,
    pub(crate) is_held: bool,
}

impl Answer {
    pub(crate) fn held(mut self) -> Self {
        self.is_held = true;
        self
    }
}

/// Bytes as they are.
pub(crate) fn plain(text: impl Into<Vec<u8>>) -> Answer {
    Answer { is_socket: false, bytes: text.into(), pause: Duration::ZERO, is_held: false }
}

pub(crate) fn status(line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    plain(format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"))
}

pub(crate) fn sse(blocks: &str) -> Answer {
    plain(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{blocks}"))
}

pub(crate) fn frames(frames: Vec<u8>) -> Answer {
    Answer { is_socket: true, ..plain(frames) }
}

/// What a server says, in words of both transports.
#[derive(Clone, Copy)]
pub(crate) enum Say<'a> {
    /// Greets with a heartbeat of 100 ms, and takes the stream on at `a.b.1`.
    Welcome,
    /// The heartbeat, which shows over SSE where the stream is.
    Heartbeat(&'a str),
    /// An event with this at its end.
    Event(&'a str, &'a str),
    /// A notice with these particulars, behind this place.
    Notice(&'a str, &'a str, Option<&'a str>),
    /// The end, with a pause in milliseconds.
    Closing(&'a str, u64),
    /// Data that is of no use.
    Nonsense(&'a str),
}

pub(crate) const HELLO: &str =
    r#"{"client":"01J00000000000000000000000","session":"01J00000000000000000000001","heartbeat":0.1}"#;

/// An event's particulars.
fn envelope(data: &str) -> Value {
    json!({"id": "x", "seq": 2, "prev": 0, "channel": "a", "channels": ["a"], "event": "message",
        "time": "2026-01-02T03:04:05.678Z", "attributes": {}, "data": data})
}

pub(crate) fn stream(transport: Transport, says: &[Say<'_>]) -> Answer {
    match transport {
        Transport::Sse => sse(&says.iter().copied().map(block).collect::<String>()),
        _ => frames(says.iter().copied().flat_map(messages).collect()),
    }
}

fn block(say: Say<'_>) -> String {
    match say {
        Say::Welcome => format!("retry: 1\n\nid: a.b.1\nevent: $welcome\ndata: {HELLO}\n\n"),
        Say::Heartbeat(at) => format!(": ping\nid: {at}\n\n"),
        Say::Event(data, at) => format!("id: {at}\ndata: {}\n\n", envelope(data)),
        Say::Notice(name, particulars, at) => {
            let id = at.map(|at| format!("id: {at}\n")).unwrap_or_default();
            format!("{id}event: ${name}\ndata: {particulars}\n\n")
        }
        Say::Closing(reason, retry) => {
            format!("retry: {retry}\n\nevent: $closing\ndata: {{\"reason\":\"{reason}\"}}\n\n")
        }
        Say::Nonsense(data) => format!("data: {data}\n\n"),
    }
}

fn messages(say: Say<'_>) -> Vec<u8> {
    match say {
        Say::Welcome => {
            let welcome = message("welcome", HELLO, Some("a.b.9"));
            [welcome, text(r#"{"op":"subscribed","cursor":"a.b.1"}"#)].concat()
        }
        Say::Heartbeat(_) => frame(PING, b"", true),
        Say::Event(data, at) => message("event", &envelope(data).to_string(), Some(at)),
        Say::Notice(name, particulars, at) => message(name, particulars, at),
        Say::Closing(reason, retry) => {
            let closing = json!({"reason": reason, "retry": retry}).to_string();
            message("closing", &closing, None)
        }
        Say::Nonsense(data) => text(data),
    }
}

/// A message of the server: its name, particulars, and place.
pub(crate) fn message(op: &str, particulars: &str, at: Option<&str>) -> Vec<u8> {
    let mut all: Value = serde_json::from_str(particulars).expect("JSON");
    all["op"] = op.into();
    all["cursor"] = at.into();
    text(&all.to_string())
}

/// An event in a message.
pub(crate) fn event_message(data: &str, at: &str) -> Vec<u8> {
    messages(Say::Event(data, at))
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(TEXT, text.as_bytes(), true)
}

/// A server's frame.
pub(crate) fn frame(opcode: u8, payload: &[u8], is_final: bool) -> Vec<u8> {
    let mut bytes = vec![u8::from(is_final) << 7 | opcode];
    match payload.len() {
        short @ ..126 => bytes.push(short as u8),
        middle @ ..65_536 => {
            bytes.push(126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Reads a client's frame: its opcode and payload.
pub(crate) async fn read_frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let (first, second) =
        (socket.read_u8().await.expect("a frame"), socket.read_u8().await.expect("a frame"));
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80), "a client's frame is whole and masked");
    let length = match second & 0x7f {
        126 => usize::from(socket.read_u16().await.expect("a length")),
        127 => panic!("a long message of a client"),
        short => usize::from(short),
    };
    let mask = socket.read_u32().await.expect("a mask").to_be_bytes();
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await.expect("a payload");
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (first & 0x0f, payload)
}

pub(crate) async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("text"))
}

/// The good answer to a handshake.
pub(crate) fn handshake(head: &str) -> String {
    let key = head.lines().filter_map(|line| line.split_once(": "));
    let key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.map(|(_, key)| key).next().expect("a key");
    let accept = actix_http::ws::hash_key(key.as_bytes());
    let accept = str::from_utf8(&accept).expect("text");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: fanfare.v1.json\r\n\r\n"
    )
}

/// A server that gives one answer after the other, the last one for ever, and tells what it was asked.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    asked: mpsc::UnboundedReceiver<String>,
}

impl Scripted {
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (tell, asked) = mpsc::unbounded_channel();
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        actix_web::rt::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
                let answer = answer.expect("an answer");
                let mut head = read_head(&mut socket).await.expect("a head");
                if answer.is_socket {
                    socket.write_all(handshake(&head).as_bytes()).await.expect("written");
                    let (_, subscribe) = read_frame(&mut socket).await;
                    head.push_str(str::from_utf8(&subscribe).expect("text"));
                }
                let _ = tell.send(head);
                let pieces = if answer.pause.is_zero() { 1 } else { 10 };
                for piece in answer.bytes.chunks(answer.bytes.len() / pieces + 1) {
                    let _ = socket.write_all(piece).await;
                    if pieces > 1 {
                        tokio::time::sleep(answer.pause).await;
                    }
                }
                if answer.is_held {
                    held.push(socket);
                }
            }
        });
        Self { addr, asked }
    }

    /// A client that tries again at once.
    pub(crate) fn client(&self) -> Client {
        let client = Client::new(format!("http://{}", self.addr)).expect("a URL");
        client.backoff(Duration::from_millis(1), Duration::from_millis(1)).expect("valid")
    }

    /// What the next connection asked for: its head, and the first message of a WebSocket.
    pub(crate) async fn asked(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("asked").expect("it runs")
    }

    pub(crate) fn was_asked_again(&mut self) -> bool {
        self.asked.try_recv().is_ok()
    }
}
