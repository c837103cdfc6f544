//! Several hubs that share one order, each a process of its own at an address that stays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::hub::Hub;
use super::sse::SseClient;
use super::{addresses, http};

/// Longer than a node takes to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hubs; they end with the test, and their files go.
pub struct Fleet<const N: usize> {
    pub addrs: [SocketAddr; N],
    hubs: Vec<Hub>,
    /// The server that each knows.
    nats: [String; N],
    args: Vec<String>,
    folder: PathBuf,
}

impl<const N: usize> Fleet<N> {
    /// Starts them one after the other, each with a file for its index.
    pub async fn start(name: &str, nats: &str, args: &[&str]) -> Self {
        Self::start_each(name, std::array::from_fn(|_| nats.to_owned()), args).await
    }

    /// The same, each with a way of its own to the server.
    pub async fn start_each(name: &str, nats: [String; N], args: &[&str]) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let args = args.iter().map(ToString::to_string).collect();
        let mut fleet = Self { addrs: addresses(), hubs: Vec::new(), nats, args, folder };
        for number in 0..N {
            let hub = fleet.spawn(number).await;
            fleet.hubs.push(hub);
        }
        for number in 0..N {
            fleet.until_ready(number).await;
        }
        fleet
    }

    /// On a thread of its own: the test goes on while a hub starts.
    async fn spawn(&self, number: usize) -> Hub {
        let index = self.folder.join(format!("{number}.db")).display().to_string();
        let (listen, args) = (self.addrs[number].to_string(), self.args.clone());
        let nats = self.nats[number].clone();
        let starting = tokio::task::spawn_blocking(move || {
            let args: Vec<_> =
                args.iter().map(String::as_str).chain(["--nats", &nats, "--log", &index]).collect();
            Hub::start_logging(&listen, &args, Stdio::null())
        });
        starting.await.expect("it starts")
    }

    pub fn kill(&mut self, number: usize) {
        let child = &mut self.hubs[number].child;
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Starts it again with what it had, and waits until it is ready.
    pub async fn restart(&mut self, number: usize) {
        self.hubs[number] = self.spawn(number).await;
        self.until_ready(number).await;
    }

    pub async fn until_ready(&self, number: usize) {
        let start = Instant::now();
        while http::get(self.addrs[number], "/readyz").await.status() != 200 {
            assert!(start.elapsed() < PATIENCE, "node {number} is ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Publishes on one of them, which must take it.
    pub async fn publish(&self, node: usize, event: &Value) -> Value {
        let answer = http::post_json(self.addrs[node], "/publish", &event.to_string()).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()
    }

    /// Opens a stream of one of them and reads its first block.
    pub async fn live(&self, node: usize, query: &str, cookie: &str) -> SseClient {
        let path = format!("/events?{query}");
        let mut client = SseClient::open(self.addrs[node], &path, &[("cookie", cookie)]).await;
        client.welcome().await;
        client
    }

    pub async fn status(&self, number: usize) -> serde_json::Value {
        self.hubs[number].status().await
    }
}

impl<const N: usize> Drop for Fleet<N> {
    fn drop(&mut self) {
        self.hubs.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
