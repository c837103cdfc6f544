//! Which log the servers and hubs of a test have: what the test says, or with `FANFARE_TEST_LOG=nats` the same as the index
//! of a node, whose order is a stream of its own at a real NATS server. The tests are the same, and so is what they hold.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanfare::{Broker, Builder, Log, LogError, MemoryLog, NatsIndex, NatsLog};

use super::nats::NatsServer;

pub fn is_nats() -> bool {
    std::env::var("FANFARE_TEST_LOG").is_ok_and(|log| log == "nats")
}

/// One for all tests of a file. Statics are never dropped, so it is told to end with the process that it serves.
fn server() -> &'static NatsServer {
    static SERVER: OnceLock<NatsServer> = OnceLock::new();
    SERVER.get_or_init(NatsServer::start_with_this_process)
}

fn next_stream() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A log, or a node that keeps its events in it.
pub struct Ordered(Box<dyn Log>);

impl Log for Ordered {
    fn start(self: Box<Self>, setup: fanfare::log::LogSetup) -> Result<fanfare::log::LogHandle, LogError> {
        self.0.start(setup)
    }
}

/// This log, or with `FANFARE_TEST_LOG=nats` a node of which it is the index.
pub fn ordered(log: impl Log + Into<NatsIndex>) -> Ordered {
    if !is_nats() {
        return Ordered(Box::new(log));
    }
    let node = NatsLog::new(&server().url()).and_then(|node| node.stream(next_stream()));
    Ordered(Box::new(node.expect("a URL and a name").index(log)))
}

/// The position of the n-th commit of a log, which is that of its first event.
pub fn nth(n: usize) -> u64 {
    let span = if is_nats() { 4096 } else { 1 };
    n as u64 * span
}

/// A builder whose log is in memory.
pub fn builder() -> Builder {
    Broker::builder().log(ordered(MemoryLog::default()))
}

/// What a hub is started with besides: one that has a file goes on with the stream that it had.
pub fn hub_args(args: &[&str]) -> Vec<String> {
    if !is_nats() || args.contains(&"--nats") {
        return Vec::new();
    }
    let file = args.iter().skip_while(|arg| **arg != "--log").nth(1).filter(|log| **log != "memory");
    let stream = file.map_or_else(next_stream, |file| {
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        format!("file-{:x}", hasher.finish())
    });
    ["--nats", &server().url(), "--nats-stream", &stream].map(ToOwned::to_owned).into()
}

/// Waits until a hub that is a node has its order: others serve from their greeting on.
pub fn until_ready(addr: SocketAddr) {
    let start = Instant::now();
    loop {
        let mut answer = String::new();
        let asked = TcpStream::connect(addr).and_then(|mut socket| {
            socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            socket.read_to_string(&mut answer)
        });
        if asked.is_ok() && answer.starts_with("HTTP/1.1 200 ") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it does not get ready: {answer}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
