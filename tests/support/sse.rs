//! A client of Server-Sent Events that keeps every byte, written for the tests and not from the server's encoder.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::http::{Head, try_read_head, try_send_head};

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    /// Exactly what came, without the blank line at its end.
    pub text: String,
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
    pub comment: Option<String>,
}

impl Block {
    pub fn parse(text: &str) -> Self {
        let mut block = Self { text: text.to_owned(), ..Self::default() };
        for line in text.split('\n') {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => block.id = Some(value.to_owned()),
                "event" => block.event = Some(value.to_owned()),
                "retry" => block.retry = Some(value.parse().expect("a number")),
                "data" => match &mut block.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => block.data = Some(value.to_owned()),
                },
                "" => block.comment = Some(value.to_owned()),
                other => panic!("field {other:?} in {text:?}"),
            }
        }
        block
    }

    pub fn is(&self, event: &str) -> bool {
        self.event.as_deref() == Some(event)
    }

    pub fn data(&self) -> &str {
        self.data.as_deref().unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.data()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct SseClient {
    pub head: Head,
    pub socket: TcpStream,
    /// Bytes as they came, chunked.
    raw: Vec<u8>,
    text: String,
    ended: bool,
}

impl SseClient {
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_open(addr, path, headers).await.expect("an answer")
    }

    /// For one who may find nobody.
    pub async fn try_open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\naccept: text/event-stream\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut socket = try_send_head(addr, &(request + "\r\n")).await?;
        let (head, raw) = try_read_head(&mut socket).await?;
        Ok(Self { head, socket, raw, text: String::new(), ended: false })
    }

    /// The next block; nothing at the end of the stream.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            self.decode();
            if let Some(end) = self.text.find("\n\n") {
                let block = Block::parse(&self.text[..end]);
                self.text.drain(..end + 2);
                return Some(block);
            }
            if self.ended || !self.fill().await {
                assert!(self.text.is_empty(), "half a block: {:?}", self.text);
                return None;
            }
        }
    }

    /// The next event, past retries and pings.
    pub async fn event(&mut self) -> Option<Block> {
        loop {
            match self.block().await {
                Some(block) if block.data.is_some() => return Some(block),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// The data of the next event, which must come.
    pub async fn data(&mut self) -> String {
        self.event().await.expect("an event, not the end").data.expect("data")
    }

    /// The first block with data, which must be the welcome.
    pub async fn welcome(&mut self) -> Block {
        assert_eq!(self.head.status, 200);
        let block = self.event().await.expect("a welcome, not the end");
        assert!(block.is("$welcome"), "{block:?}");
        block
    }

    /// Whether the last chunk has come: an end that is none of a broken connection.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing but pings comes for a while. Only for what cannot be shown by what comes next.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.event()).await.is_err()
    }

    async fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut piece)).await;
        match read.expect("something within the test's patience") {
            Ok(count) if count > 0 => {
                self.raw.extend_from_slice(&piece[..count]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Moves whole chunks from the raw bytes to the text.
    fn decode(&mut self) {
        if self.head.header("transfer-encoding") != Some("chunked") {
            self.text.push_str(std::str::from_utf8(&std::mem::take(&mut self.raw)).expect("UTF-8"));
            return;
        }
        let mut at = 0;
        while let Some(line) = self.raw[at..].windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[at..at + line]).expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
            let start = at + line + 2;
            let end = start + size;
            if self.raw.len() < end + 2 {
                break;
            }
            self.ended |= size == 0;
            self.text.push_str(std::str::from_utf8(&self.raw[start..end]).expect("UTF-8"));
            at = end + 2;
        }
        self.raw.drain(..at);
    }
}
