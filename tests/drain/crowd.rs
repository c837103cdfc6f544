//! A crowd of all kinds over the end of a hub and the beginning of the next, directly and through proxies.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::rt;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::hub::Hub;
use crate::support::proxy::{Kind, Proxy};
use crate::support::sse::SseClient;
use crate::{SECOND, database, ended, publish_on};

const CHANNELS: usize = 100;

fn is_full() -> bool {
    std::env::var("FANFARE_DRAIN").is_ok_and(|form| form == "full")
}

#[actix_web::test]
async fn nothing_is_lost_over_an_end_whatever_the_clients_do() {
    nothing_is_lost(None).await;
}

#[actix_web::test]
async fn nothing_is_lost_over_an_end_behind_nginx() {
    nothing_is_lost(Some(Kind::Nginx)).await;
}

#[actix_web::test]
async fn nothing_is_lost_over_an_end_behind_haproxy() {
    nothing_is_lost(Some(Kind::HaProxy)).await;
}

/// Somebody who follows one channel as a browser does: comes back when told to, with the last id.
struct Follower {
    front: SocketAddr,
    channel: usize,
    got: Vec<String>,
    cursor: String,
    retry: Duration,
}

impl Follower {
    async fn come(front: SocketAddr, channel: usize) -> (Self, SseClient) {
        let mut client = SseClient::open(front, &format!("/events?channel=load/{channel}"), &[]).await;
        let mut this = Self { front, channel, got: Vec::new(), cursor: String::new(), retry: Duration::MAX };
        assert!(this.read(&mut client, "$welcome").await);
        (this, client)
    }

    /// Reads up to something; whether it came before the end.
    async fn read(&mut self, client: &mut SseClient, last: &str) -> bool {
        while let Some(block) = client.block().await {
            if let Some(id) = block.id {
                self.cursor = id;
            }
            if let Some(retry) = block.retry {
                self.retry = Duration::from_millis(retry);
            }
            match (block.event.as_deref(), block.data) {
                (None, None) => {}
                (Some(notice), _) if notice == last => return true,
                (None, Some(data)) if data == last => return true,
                (None, Some(data)) => self.got.push(data),
                other => panic!("{other:?}"),
            }
        }
        false
    }

    /// Stays away for as long as it was told to, and comes back, until it is welcome.
    async fn come_back(&mut self) -> SseClient {
        loop {
            tokio::time::sleep(self.retry).await;
            let path = format!("/events?channel=load/{}", self.channel);
            let headers = [("last-event-id", self.cursor.as_str())];
            let Ok(mut client) = SseClient::try_open(self.front, &path, &headers).await else { continue };
            // On anything else it would give up for good.
            assert_eq!(client.head.status, 200, "{:?}", client.head);
            if self.read(&mut client, "$welcome").await {
                return client;
            }
        }
    }
}

/// A crowd, readers that do not read, bodies that do not come and publishes under way: the hub is gone in time with 0, what
/// it acknowledged is there afterwards, and all clients come back when they were told to and go on where they were, ten
/// seconds after the hub is there again at the latest.
async fn nothing_is_lost(behind: Option<Kind>) {
    let (clients, drain) = if is_full() { (5_000, 20) } else { (500, 3) };
    let (log, drain_text) = (database(&format!("crowd-{behind:?}")), format!("{drain}s"));
    let args = ["--log", &log, "--drain", &drain_text];
    let mut hub = Hub::start(&args);
    let proxy = behind.map(|kind| Proxy::start(kind, &[hub.addr]));
    let front = proxy.as_ref().map_or(hub.addr, |proxy| proxy.plain);

    // What they do not read is more than every buffer of the hub takes.
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(front).await.expect("connected");
        let request = format!("GET /events?channel=big HTTP/1.1\r\nhost: {front}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        stalled.push(socket);
    }
    hub.until_clients(50, 10 * SECOND).await;
    let large = format!(r#"{{"channel":"big","data":"{}"}}"#, "x".repeat(200 << 10));
    for _ in 0..40 {
        assert_eq!(hub.publish(&large).await.status(), 200);
    }
    for _ in 0..10 {
        let mut socket = TcpStream::connect(front).await.expect("connected");
        let head = format!(
            "POST /publish HTTP/1.1\r\nhost: {front}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        socket.write_all(head.as_bytes()).await.expect("written");
        stalled.push(socket);
    }

    let mut crowd = Vec::new();
    for first in (0..clients).step_by(250) {
        let coming = (first..clients.min(first + 250)).map(|n| Follower::come(front, n % CHANNELS));
        crowd.extend(join_all(coming).await);
    }
    let live = Rc::new(Cell::new(0));
    let following: Vec<_> = crowd
        .into_iter()
        .map(|(mut follower, mut client)| {
            let live = live.clone();
            rt::spawn(async move {
                assert!(follower.read(&mut client, "$closing").await, "last words, not the bare end");
                assert_eq!(client.block().await, None);
                drop(client);
                let mut client = follower.come_back().await;
                live.set(live.get() + 1);
                assert!(follower.read(&mut client, "end").await, "what comes on, not the end");
                follower
            })
        })
        .collect();
    let publishing: Vec<_> =
        (0..CHANNELS).map(|n| rt::spawn(publish_on(front, format!("load/{n}")))).collect();
    let start = Instant::now();
    while hub.status().await["published"].as_u64() < Some(40 + 5 * CHANNELS as u64) {
        assert!(start.elapsed() < 20 * SECOND, "publishing is slow");
    }

    let begin = Instant::now();
    hub.terminate();
    let (code, took) = ended(&mut hub, begin, drain * SECOND).await;
    assert_eq!(code, Some(0));
    let acknowledged: Vec<_> =
        join_all(publishing).await.into_iter().map(|count| count.expect("no panic")).collect();
    drop(stalled);
    let addr = hub.addr;
    drop(hub);

    let again = Instant::now();
    let hub = Hub::start_on(&addr.to_string(), &args);
    while live.get() < clients {
        assert!(again.elapsed() < 10 * SECOND, "{} of {clients} are back", live.get());
        tokio::time::sleep(SECOND / 100).await;
    }
    let back = again.elapsed();
    hub.until_clients(clients as u64, SECOND).await;
    for channel in 0..CHANNELS {
        let end = format!(r#"{{"channel":"load/{channel}","data":"end"}}"#);
        assert_eq!(hub.publish(&end).await.status(), 200);
    }
    let mut stored = vec![None; CHANNELS];
    for follower in join_all(following).await {
        let follower = follower.expect("no panic");
        let expected: Vec<_> = (0..follower.got.len()).map(|n| n.to_string()).collect();
        assert_eq!(follower.got, expected, "each once and in order");
        let known = stored[follower.channel].get_or_insert(follower.got.len());
        assert_eq!(*known, follower.got.len(), "all of a channel got the same");
    }
    let acknowledged_in_all: usize = acknowledged.iter().sum();
    let way = behind.map_or("directly".to_owned(), |kind| format!("behind {kind:?}"));
    println!(
        "{way}: {clients} streams, 50 stalled readers, 10 slow bodies, {CHANNELS} publishers: gone after {took:?} of {drain} s; \
         {acknowledged_in_all} acknowledged; all live again after {back:?}"
    );
    for (stored, acknowledged) in stored.into_iter().zip(acknowledged) {
        let stored = stored.expect("a follower");
        // The last may have been committed without an answer.
        assert!((acknowledged..=acknowledged + 1).contains(&stored), "{stored} of {acknowledged}");
    }
}
