//! Clients that go from node to node with their cursor, and publishers that insist; both cheap enough to be many.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout, timeout_at};

/// Longer than any outage of a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// The one order, as the first who gets to a place has seen it. Events are numbers.
#[derive(Default)]
pub struct Order {
    pub numbers: Vec<u32>,
    pub positions: Vec<u64>,
}

impl Order {
    /// Holds what a client has at a place against what others have there.
    fn check(&mut self, place: usize, number: u32, position: u64) {
        if place == self.numbers.len() {
            assert!(self.positions.last().is_none_or(|&last| last < position), "positions rise");
            self.numbers.push(number);
            self.positions.push(position);
            return;
        }
        let had = (self.numbers[place], self.positions[place]);
        assert_eq!((number, position), had, "event {place} is the same for all");
    }
}

/// What a client has been through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Travels {
    pub hops: usize,
    /// Connections that were not had, or ended by themselves.
    pub cuts: usize,
    /// Streams that said they could not serve now.
    pub turned_away: usize,
    /// The longest time without an event while it was to have some.
    pub longest_silence: Duration,
}

/// One client. It follows everything, and stays on a node for a random time around `stay`.
pub struct Hopper {
    pub addrs: Vec<SocketAddr>,
    pub query: &'static str,
    pub stay: Duration,
    pub order: Rc<RefCell<Order>>,
    cursor: Option<String>,
    seen: usize,
    travels: Travels,
}

impl Hopper {
    pub fn new(addrs: &[SocketAddr], query: &'static str, stay: Duration, order: Rc<RefCell<Order>>) -> Self {
        let (addrs, travels) = (addrs.to_vec(), Travels::default());
        Self { addrs, query, stay, order, cursor: None, seen: 0, travels }
    }

    /// Has a position from which nothing is missed.
    pub async fn arrive(&mut self) {
        let addr = self.addrs[rand::rng().random_range(0..self.addrs.len())];
        let mut stream = Stream::open(addr, self.query, None).await.expect("a node is there");
        while self.cursor.is_none() {
            assert!(self.read(&mut stream).await, "a welcome, not the end");
        }
    }

    /// Hops until it has as many events as `wanted` says, which is asked again and again.
    pub async fn travel(mut self, wanted: impl Fn() -> Option<usize>) -> Travels {
        let mut last = (self.seen, Instant::now());
        while wanted() != Some(self.seen) {
            let addr = self.addrs[rand::rng().random_range(0..self.addrs.len())];
            let stay = self.stay.mul_f64(rand::rng().random_range(0.1..1.9));
            let Some(mut stream) = Stream::open(addr, self.query, self.cursor.as_deref()).await else {
                self.travels.cuts += 1;
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            self.travels.hops += 1;
            let until = tokio::time::Instant::now() + stay;
            loop {
                let goes_on = timeout_at(until, self.read(&mut stream)).await;
                if self.seen > last.0 {
                    self.travels.longest_silence = self.travels.longest_silence.max(last.1.elapsed());
                    last = (self.seen, Instant::now());
                }
                assert!(last.1.elapsed() < PATIENCE, "{} events, and no more: {:?}", self.seen, self.travels);
                match goes_on {
                    Ok(true) if wanted() != Some(self.seen) => {}
                    Ok(true) | Err(_) => break,
                    Ok(false) => {
                        self.travels.cuts += 1;
                        break;
                    }
                }
            }
        }
        self.travels
    }

    /// Takes what comes; false at the end of the stream.
    async fn read(&mut self, stream: &mut Stream) -> bool {
        let goes_on = stream.fill().await;
        while let Some(block) = stream.block() {
            self.take(&block);
        }
        goes_on
    }

    fn take(&mut self, block: &str) {
        let (mut id, mut event, mut data) = (None, None, None);
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", text)) => id = Some(text),
                Some(("event", text)) => event = Some(text),
                Some(("data", text)) => data = Some(text),
                _ => {}
            }
        }
        match (event, data) {
            (None, Some(data)) => {
                let position = id.and_then(|id| id.rsplit('.').next()?.parse().ok()).expect("a position");
                let number = data.parse().expect("a number");
                self.order.borrow_mut().check(self.seen, number, position);
                self.seen += 1;
            }
            (Some("$closing"), Some(data)) => {
                assert!(data.contains("unavailable"), "{block}");
                self.travels.turned_away += 1;
            }
            (Some("$welcome"), _) | (None, None) => {}
            _ => panic!("after {} events: {block}", self.seen),
        }
        if let Some(id) = id {
            self.cursor = Some(id.to_owned());
        }
    }
}

/// A stream, without its chunks. What is cut in the middle of a block is as if it had not come.
struct Stream {
    socket: TcpStream,
    raw: Vec<u8>,
    text: Vec<u8>,
    /// What of the text has been taken, and what has been looked through.
    taken: usize,
    looked: usize,
    has_head: bool,
    is_over: bool,
}

impl Stream {
    async fn open(addr: SocketAddr, query: &str, cursor: Option<&str>) -> Option<Self> {
        let mut socket = TcpStream::connect(addr).await.ok()?;
        let cursor = cursor.map(|cursor| format!("last-event-id: {cursor}\r\n")).unwrap_or_default();
        let request = format!("GET /events?{query} HTTP/1.1\r\nhost: {addr}\r\n{cursor}\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let (raw, text) = (Vec::new(), Vec::new());
        Some(Self { socket, raw, text, taken: 0, looked: 0, has_head: false, is_over: false })
    }

    async fn fill(&mut self) -> bool {
        self.text.drain(..self.taken);
        (self.looked, self.taken) = (self.looked - self.taken, 0);
        self.raw.reserve(64 << 10);
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.raw)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return false;
        }
        if !self.has_head {
            let Some(end) = self.raw.windows(4).position(|window| window == b"\r\n\r\n") else { return true };
            assert!(self.raw.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.raw));
            self.raw.drain(..end + 4);
            self.has_head = true;
        }
        self.unpack();
        !self.is_over
    }

    /// Moves whole chunks to the text.
    fn unpack(&mut self) {
        let mut at = 0;
        while let Some(line) = self.raw[at..].iter().position(|&byte| byte == b'\n') {
            let size = std::str::from_utf8(&self.raw[at..at + line]).expect("a size").trim_end();
            let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
            let start = at + line + 1;
            let Some(chunk) = self.raw.get(start..start + size + 2) else { break };
            self.text.extend_from_slice(&chunk[..size]);
            self.is_over |= size == 0;
            at = start + size + 2;
        }
        self.raw.drain(..at);
    }

    fn block(&mut self) -> Option<String> {
        while let Some(at) = self.text[self.looked..].iter().position(|&byte| byte == b'\n') {
            let end = self.looked + at;
            self.looked = end + 1;
            if self.text.get(end + 1) == Some(&b'\n') {
                let block = String::from_utf8(self.text[self.taken..end].to_vec()).expect("text");
                (self.taken, self.looked) = (end + 2, end + 2);
                return Some(block);
            }
            if end + 1 == self.text.len() {
                // The other line end may be the next to come.
                self.looked = end;
                return None;
            }
        }
        self.looked = self.text.len();
        None
    }
}

/// Publishes over a connection that it keeps.
pub struct Insistent {
    pub addrs: Vec<SocketAddr>,
    socket: Option<(SocketAddr, TcpStream)>,
    /// How often it was not told that the event is stored.
    pub failures: usize,
    pub longest: Duration,
}

impl Insistent {
    pub fn new(addrs: &[SocketAddr]) -> Self {
        Self { addrs: addrs.to_vec(), socket: None, failures: 0, longest: Duration::ZERO }
    }

    /// Publishes a number until some node says that it is stored.
    pub async fn publish(&mut self, channel: &str, number: u32) {
        let start = Instant::now();
        let body = format!(r#"{{"channel":"{channel}","data":"{number}","id":"n-{number}"}}"#);
        while !self.attempt(&body).await {
            self.failures += 1;
            self.socket = None;
            assert!(start.elapsed() < PATIENCE, "event {number} is stored at last");
            sleep(Duration::from_millis(50)).await;
        }
        self.longest = self.longest.max(start.elapsed());
    }

    async fn attempt(&mut self, body: &str) -> bool {
        if self.socket.is_none() {
            let addr = self.addrs[rand::rng().random_range(0..self.addrs.len())];
            let Ok(socket) = TcpStream::connect(addr).await else { return false };
            socket.set_nodelay(true).expect("an option");
            self.socket = Some((addr, socket));
        }
        let Some((addr, socket)) = &mut self.socket else { return false };
        let request = format!(
            "POST /publish HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if socket.write_all(request.as_bytes()).await.is_err() {
            return false;
        }
        let mut answer = Vec::new();
        // The receipt ends with the only brace that closes.
        while !answer.ends_with(b"}") {
            if !matches!(timeout(PATIENCE, socket.read_buf(&mut answer)).await, Ok(Ok(1..))) {
                return false;
            }
        }
        answer.starts_with(b"HTTP/1.1 200")
    }
}
