//! Nodes in the test's process that share an order, and what is done with them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fanfare::{Broadcast, Broker, Event, EventId, MemoryLog, NatsIndex, NatsLog, PublishError, SqliteLog};

use super::nats::NatsServer;
use super::sse::SseClient;
use super::{TestServer, serve};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const STREAM: &str = "test";

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-cluster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub fn index(&self, name: &str) -> SqliteLog {
        SqliteLog::open(self.0.join(name)).expect("it opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn log(url: &str, index: impl Into<NatsIndex>) -> NatsLog {
    let log = NatsLog::new(url).expect("a URL").stream(STREAM).expect("a name");
    log.keep(Duration::from_secs(3600), 256 << 20, 1).index(index)
}

/// A node that is ready.
pub async fn node_with(url: &str, index: impl Into<NatsIndex>) -> TestServer {
    let node = serve(Broker::builder().heartbeat(Duration::from_millis(500)).log(log(url, index)));
    node.until(PATIENCE, |stats| stats.ready).await;
    node
}

pub async fn node(server: &NatsServer) -> TestServer {
    node_with(&server.url(), MemoryLog::default()).await
}

pub fn event(text: impl Into<String>) -> Event {
    Event::text("message", text).expect("valid")
}

pub fn with_id(text: &str) -> Event {
    event(text).id(EventId::new(text).expect("valid"))
}

/// Publishes until it is accepted, always with the same id, and says how often it was not.
pub async fn insist(node: &TestServer, channel: &str, text: &str) -> usize {
    let start = Instant::now();
    for failures in 0.. {
        let broadcast = Broadcast::channel(channel, with_id(text)).expect("valid");
        let asked = Instant::now();
        match node.broker.send(broadcast).await.expect("the broker lives") {
            Ok(_) => return failures,
            Err(error) => assert!(matches!(error, PublishError::Log(_)), "{error}"),
        }
        assert!(asked.elapsed() < Duration::from_secs(7), "an answer, not silence: {:?}", asked.elapsed());
        assert!(start.elapsed() < PATIENCE, "the log takes events again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

/// The next `count` events, as (data, id).
pub async fn take(client: &mut SseClient, count: usize) -> Vec<(String, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let block = client.event().await.expect("an event, not the end");
        taken.push((block.data().to_owned(), block.id.expect("a stored event has an id")));
    }
    taken
}

pub fn data(taken: &[(String, String)]) -> Vec<&str> {
    taken.iter().map(|(data, _)| data.as_str()).collect()
}

pub async fn resume(node: &TestServer, query: &str, cursor: &str) -> SseClient {
    SseClient::open(node.addr, &format!("/rt/events?{query}"), &[("last-event-id", cursor)]).await
}

pub fn position(cursor: &str) -> u64 {
    cursor.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a cursor")
}
