//! The coordinator example: what was acknowledged is there after every crash, and whoever watches has the same.

#[path = "support/example.rs"]
mod example;
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use example::Example;
use serde_json::{Value, json};
use support::http::{self, Answer};
use support::nats::NatsServer;
use support::sse::SseClient;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-coordinator-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn start(&self, addr: SocketAddr) -> Example {
        let log = self.0.join("kv.db");
        Example::start("coordinator", addr, &["--log", log.to_str().expect("text")])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

async fn put(addr: SocketAddr, key: &str, value: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    http::request(addr, "PUT", &format!("/kv/{key}"), &headers, &value.to_string()).await
}

async fn list(addr: SocketAddr, prefix: &str) -> (BTreeMap<String, Value>, Option<String>) {
    let listing = http::get(addr, &format!("/kv?prefix={prefix}")).await.json();
    let entries = listing["entries"].as_array().expect("entries").iter();
    let entry = |entry: &Value| (entry["key"].as_str().expect("a key").to_owned(), entry["value"].clone());
    (entries.map(entry).collect(), listing["cursor"].as_str().map(ToOwned::to_owned))
}

/// Somebody who keeps the entries of a prefix by watching it.
struct Watcher {
    entries: BTreeMap<String, Value>,
    cursor: String,
    client: SseClient,
}

impl Watcher {
    async fn open(addr: SocketAddr, prefix: &str, entries: BTreeMap<String, Value>, cursor: String) -> Self {
        let path = format!("/rt/events?channel=kv/{prefix}/**&format=envelope");
        let client = SseClient::open(addr, &path, &[("last-event-id", &cursor)]).await;
        Self { entries, cursor, client }
    }

    /// Takes what comes until `key` has `value`.
    async fn until(&mut self, key: &str, value: &Value) {
        while self.entries.get(key) != Some(value) {
            let block = self.client.block().await.expect("the stream goes on");
            assert!(!block.is("$reset"), "the log is the same");
            if let Some(id) = &block.id {
                self.cursor.clone_from(id);
            }
            // What a gap leaves out are older values of keys whose newest one comes.
            if !block.is("put") && !block.is("delete") {
                continue;
            }
            let event = block.json();
            let key =
                event["channel"].as_str().and_then(|channel| channel.strip_prefix("kv/")).expect("a key");
            if block.is("put") {
                self.entries.insert(key.to_owned(), event["data"].clone());
            } else {
                self.entries.remove(key);
            }
        }
    }
}

#[actix_web::test]
async fn values_are_put_read_listed_and_deleted() {
    let (folder, addr) = (Folder::new("values"), free_address());
    let _coordinator = folder.start(addr);
    for (key, value) in [
        ("alerts/disk", json!({"level": 3})),
        ("alerts2/disk", json!("text")),
        ("alerts", json!([1, null])),
        ("x", json!(7)),
    ] {
        assert_eq!(put(addr, key, &value).await.status(), 200, "{key}");
        let entry = http::get(addr, &format!("/kv/{key}")).await;
        assert_eq!(entry.json()["value"], value, "{key}");
        let etag = format!("\"{}\"", entry.json()["seq"]);
        assert_eq!(entry.head.header("etag"), Some(etag.as_str()));
    }
    let (alerts, cursor) = list(addr, "alerts").await;
    assert_eq!(alerts.keys().collect::<Vec<_>>(), ["alerts", "alerts/disk"], "whole segments only");
    assert_eq!(list(addr, "").await.0.len(), 4);
    assert_eq!(http::get(addr, "/kv/none").await.status(), 404);
    assert_eq!(put(addr, "a//b", &json!(1)).await.status(), 400);
    let no_json = http::request(addr, "PUT", "/kv/a", &[], "{").await;
    assert_eq!(no_json.status(), 400);

    let mut watcher = Watcher::open(addr, "alerts", alerts, cursor.expect("a cursor")).await;
    put(addr, "alerts2/disk", &json!("not watched")).await;
    let deleted = http::request(addr, "DELETE", "/kv/alerts/disk", &[], "").await;
    assert_eq!(deleted.status(), 200);
    put(addr, "alerts/last", &json!(true)).await;
    watcher.until("alerts/last", &json!(true)).await;
    assert!(!watcher.entries.keys().any(|key| key.starts_with("alerts2") || key == "alerts/disk"));
    assert_eq!(http::get(addr, "/kv/alerts/disk").await.status(), 404);
}

/// O11: a change and its event cannot be separated. Whatever the moment of the crash, a change that was acknowledged is in the
/// values, and those who watched come to the same values.
#[actix_web::test]
async fn no_crash_separates_a_value_from_its_event() {
    const KEYS: usize = 8;
    let (folder, addr) = (Folder::new("crash"), free_address());
    let mut coordinator = folder.start(addr);
    put(addr, "k/start", &json!(0)).await;
    let (entries, cursor) = list(addr, "k").await;
    let mut watcher = Watcher::open(addr, "k", entries, cursor.expect("a cursor")).await;
    let acknowledged = RefCell::new(vec![0_u64; KEYS]);
    for round in 1..=5_u64 {
        let is_over = Cell::new(false);
        let putting = (0..KEYS).map(|key| {
            let (acknowledged, is_over) = (&acknowledged, &is_over);
            async move {
                for n in 1.. {
                    let (name, value) = (format!("k/{key}"), round * 1_000_000 + n);
                    let answer = tokio::spawn(async move { put(addr, &name, &json!(value)).await }).await;
                    match answer {
                        Ok(answer) if answer.status() == 200 => acknowledged.borrow_mut()[key] = value,
                        // The connection broke, or found nobody.
                        _ => return,
                    }
                    if is_over.get() {
                        return;
                    }
                }
            }
        });
        let crash = async {
            let before = acknowledged.borrow().clone();
            // In the middle of it: each key was changed in this round.
            while acknowledged.borrow().iter().zip(&before).any(|(now, before)| now == before) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            coordinator.kill();
            is_over.set(true);
        };
        futures_util::future::join(futures_util::future::join_all(putting), crash).await;

        coordinator = folder.start(addr);
        let (entries, _) = list(addr, "k").await;
        for (key, &acknowledged) in acknowledged.borrow().iter().enumerate() {
            let value = entries[&format!("k/{key}")].as_u64().expect("a number");
            assert!(
                value == acknowledged || value == acknowledged + 1,
                "{key}: {value} after {acknowledged}"
            );
        }
        put(addr, "k/round", &json!(round)).await;
        let Watcher { entries: watched, cursor, .. } = watcher;
        watcher = Watcher::open(addr, "k", watched, cursor).await;
        watcher.until("k/round", &json!(round)).await;
        assert_eq!(watcher.entries, list(addr, "k").await.0, "those who watch have what is stored");
    }
}

/// Three that share one order are one store: what one has acknowledged comes to all of them and to who watches there; one
/// that was killed has it when it is back, and while NATS is gone nothing is acknowledged.
#[actix_web::test]
async fn three_coordinators_are_one_store() {
    let (folder, mut server) = (Folder::new("three"), NatsServer::start());
    let addrs = [free_address(), free_address(), free_address()];
    let start = |number: usize| {
        let log = folder.0.join(format!("{number}.db")).display().to_string();
        Example::start("coordinator", addrs[number], &["--log", &log, "--nats", &server.url()])
    };
    let mut nodes = [start(0), start(1), start(2)];
    put(addrs[0], "k/start", &json!(0)).await;
    let (entries, cursor) = list(addrs[0], "k").await;
    let (mut watchers, cursor) = (Vec::new(), cursor.expect("a cursor"));
    for addr in addrs {
        watchers.push(Watcher::open(addr, "k", entries.clone(), cursor.clone()).await);
    }
    for number in 0..30 {
        let answer = put(addrs[number % 3], &format!("k/{}", number % 5), &json!(number)).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    put(addrs[0], "k/mark", &json!("one")).await;
    for watcher in &mut watchers {
        watcher.until("k/mark", &json!("one")).await;
    }
    let (stored, _) = list(addrs[0], "k").await;
    assert_eq!(stored.len(), 7);
    for (watcher, addr) in watchers.iter().zip(addrs) {
        assert_eq!(watcher.entries, stored, "who watches has what is stored");
        assert_eq!(list(addr, "k").await.0, stored, "and so has each node");
    }
    nodes[1].kill();
    put(addrs[0], "k/0", &json!("while one was gone")).await;
    nodes[1] = start(1);
    assert_eq!(list(addrs[1], "k").await.0["k/0"], json!("while one was gone"), "nobody is answered before");

    server.kill();
    let refused = put(addrs[2], "k/1", &json!("lost")).await;
    assert_eq!(refused.status(), 503, "{refused:?}");
    server.restart();
    let began = std::time::Instant::now();
    while put(addrs[2], "k/2", &json!("after")).await.status() != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watchers.remove(0).until("k/2", &json!("after")).await;
}
