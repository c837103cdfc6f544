//! A small HTTP/1.1 client over a plain socket: nothing is hidden from the test.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any whole answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A status and headers.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, which is there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    /// The cookie that was set, as a browser would send it back.
    pub fn cookie(&self) -> Option<String> {
        Some(self.header("set-cookie")?.split(';').next()?.to_owned())
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: Head,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of an error, after a look at its form.
    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(self.head.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.head.status, "{self:?}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        problem
    }
}

pub async fn send_head(addr: SocketAddr, request: &str) -> TcpStream {
    try_send_head(addr, request).await.expect("connected")
}

/// For one who may find nobody.
pub async fn try_send_head(addr: SocketAddr, request: &str) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    Ok(socket)
}

/// Reads up to the blank line; returns what was read beyond it as well.
pub async fn read_head(socket: &mut TcpStream) -> (Head, Vec<u8>) {
    try_read_head(socket).await.expect("a head")
}

/// For one whom the other end may leave.
pub async fn try_read_head(socket: &mut TcpStream) -> std::io::Result<(Head, Vec<u8>)> {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut piece = [0; 4096];
        let count = socket.read(&mut piece).await?;
        if count == 0 {
            let within = format!("closed within the head: {}", String::from_utf8_lossy(&buffer));
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, within));
        }
        buffer.extend_from_slice(&piece[..count]);
    };
    let rest = buffer.split_off(end + 4);
    let text = String::from_utf8(buffer).expect("a head of text");
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok((Head { status, headers }, rest))
}

pub async fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut socket = send_head(addr, &text).await;
    let (head, mut body) = read_head(&mut socket).await;
    // A stream would not end.
    let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut body)).await;
    end.expect("an answer with an end").expect("readable");
    Answer { head, body: String::from_utf8(body).expect("a body of text") }
}

pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    request(addr, "GET", path, &[], "").await
}

pub async fn post_json(addr: SocketAddr, path: &str, body: &str) -> Answer {
    request(addr, "POST", path, &[("content-type", "application/json")], body).await
}
