//! A WebSocket client that sees every frame and can break every rule, written for the tests.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{Head, read_head, send_head};

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame, and its words.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let code = self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        (code, String::from_utf8_lossy(self.payload.get(2..).unwrap_or_default()).into_owned())
    }
}

pub struct WsClient {
    pub head: Head,
    pub socket: TcpStream,
    raw: Vec<u8>,
    /// Whether pings are answered, as every client does.
    pub answers_pings: bool,
}

impl WsClient {
    /// Asks for a socket; whether there is one is in the head.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut socket = send_head(addr, &(request + "\r\n")).await;
        let (head, raw) = read_head(&mut socket).await;
        Self { head, socket, raw, answers_pings: true }
    }

    /// Opens a socket at the tests' scope and reads the welcome.
    pub async fn live(addr: SocketAddr) -> (Self, Value) {
        Self::live_as(addr, &[]).await
    }

    pub async fn live_as(addr: SocketAddr, headers: &[(&str, &str)]) -> (Self, Value) {
        let mut client = Self::open(addr, "/rt/ws", headers).await;
        assert_eq!(client.head.status, 101, "{:?}", client.head);
        let welcome = client.json().await;
        assert_eq!(welcome["op"], "welcome", "{welcome}");
        (client, welcome)
    }

    pub async fn send_frame(&mut self, is_final: bool, opcode: u8, payload: &[u8]) {
        self.send_raw(&frame(is_final, opcode, payload)).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("written");
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_frame(true, TEXT, message.to_string().as_bytes()).await;
    }

    /// Asks for something and reads the answer, which must be the next message.
    pub async fn ask(&mut self, message: Value) -> Value {
        self.send(&message).await;
        let answer = self.json().await;
        assert_eq!(answer["ref"], message["ref"], "{answer} to {message}");
        answer
    }

    /// Follows channels from a cursor, or from now on, and reads `subscribed`.
    pub async fn subscribe(&mut self, channels: &[&str], cursor: Option<&str>) -> String {
        let ask = json!({"op": "subscribe", "ref": "s", "channels": channels, "cursor": cursor});
        let answer = self.ask(ask).await;
        assert_eq!(answer["op"], "subscribed", "{answer}");
        answer["cursor"].as_str().expect("a cursor").to_owned()
    }

    /// The next frame; nothing at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                if frame.opcode == PING && self.answers_pings {
                    self.send_frame(true, PONG, &frame.payload).await;
                }
                return Some(frame);
            }
            let mut piece = vec![0; 64 * 1024];
            let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut piece)).await;
            match read.expect("something within the test's patience") {
                Ok(count) if count > 0 => self.raw.extend_from_slice(&piece[..count]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The next message, past pings, which must come.
    pub async fn json(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("a message, not the end");
            match frame.opcode {
                PING | PONG => {}
                TEXT => return serde_json::from_slice(&frame.payload).expect("JSON"),
                _ => panic!("{frame:?} {:?}", (frame.opcode == CLOSE).then(|| frame.close())),
            }
        }
    }

    /// The next event, which must be the next message.
    pub async fn event(&mut self) -> Value {
        let event = self.json().await;
        assert_eq!(event["op"], "event", "{event}");
        event
    }

    /// The code and words that the server ends with; what it says before that is skipped.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame().await.expect("a close frame, not the bare end");
            if frame.opcode == CLOSE {
                return frame.close();
            }
        }
    }

    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.json()).await.is_err()
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second] = *self.raw.first_chunk()?;
        assert_eq!(first & 0xf0, 0x80, "a server's frame is whole and has no reserved bits");
        assert_eq!(second & 0x80, 0, "a server's frame is not masked");
        let (start, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(*self.raw.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*self.raw.get(2..)?.first_chunk()?) as usize),
            short => (2, usize::from(short)),
        };
        let payload = self.raw.get(start..start + length)?.to_vec();
        self.raw.drain(..start + length);
        Some(Frame { opcode: first & 0x0f, payload })
    }
}

/// A client's frame.
pub fn frame(is_final: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![u8::from(is_final) << 7 | opcode];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | short as u8),
        middle @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
