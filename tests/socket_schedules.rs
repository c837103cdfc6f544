//! Sockets that follow more and less, fall behind, are cut and change transport at random, in a flood: whatever they
//! followed came once and in order. `FANFARE_SCHEDULES=500 cargo test --release --test socket_schedules` tries that many.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fanfare::{Broadcast, Event};
use serde_json::{Value, json};
use support::order::builder;
use support::sse::SseClient;
use support::ws::WsClient;
use support::{TestServer, serve};

const CHANNELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The generator `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// A channel as the client follows it, from one `subscribe` to its `unsubscribe`.
#[derive(Debug)]
struct Follow {
    channel: usize,
    /// What was asked for.
    start: Value,
    /// Everything after this is due; unknown until it is told, or the first that came.
    after: Option<u64>,
    is_told: bool,
    seen: Vec<u64>,
    is_over: bool,
}

struct Schedule {
    server: TestServer,
    random: Random,
    /// By channel, what was committed.
    published: Rc<RefCell<BTreeMap<usize, Vec<u64>>>>,
    follows: Vec<Follow>,
    cursor: Option<String>,
    /// The log's and the term's names.
    names: String,
    requests: u64,
}

fn seq_of(cursor: &str) -> u64 {
    cursor.split(['.', '~']).nth(2).and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("{cursor}"))
}

impl Schedule {
    fn current(&mut self) -> impl Iterator<Item = &mut Follow> {
        self.follows.iter_mut().filter(|follow| !follow.is_over)
    }

    fn take(&mut self, channel: &str, seq: u64, cursor: &str) {
        let at = CHANNELS.iter().position(|name| channel.starts_with(name)).expect("a channel of ours");
        let follow = self.current().find(|follow| follow.channel == at);
        // Behind an `unsubscribe` that is not answered yet it may still come.
        if let Some(follow) = follow {
            assert!(follow.is_told, "before it was told that it follows {channel}");
            follow.seen.push(seq);
        }
        assert!(cursor.len() <= 128, "{cursor}");
        self.cursor = Some(cursor.to_owned());
    }

    /// Reads one message of a socket.
    async fn read(&mut self, client: &mut WsClient) {
        let message = client.json().await;
        match message["op"].as_str().expect("an op") {
            "event" => {
                let (channel, cursor) = (message["channel"].as_str(), message["cursor"].as_str());
                let seq = message["seq"].as_u64().expect("stored");
                self.take(channel.expect("a channel"), seq, cursor.expect("a cursor"));
            }
            "subscribed" => {
                let channels = message["ref"].as_str().expect("ours").to_owned();
                let cursor = message["cursor"].as_str().expect("a cursor").to_owned();
                for follow in self.current().filter(|follow| channels.contains(CHANNELS[follow.channel])) {
                    if follow.after.is_none() {
                        follow.after = Some(seq_of(&cursor));
                    }
                    follow.is_told = true;
                }
                self.cursor = Some(cursor);
            }
            "unsubscribed" => {}
            _ => panic!("{message}"),
        }
    }

    async fn subscribe(&mut self, client: &mut WsClient, channels: &[usize], start: &Value) {
        self.requests += 1;
        let names: Vec<_> = channels.iter().map(|&channel| format!("{}/*", CHANNELS[channel])).collect();
        let reference: String = channels.iter().map(|&channel| CHANNELS[channel]).collect();
        let mut ask = json!({"op": "subscribe", "ref": reference, "channels": names});
        ask.as_object_mut().expect("an object").extend(start.as_object().expect("an object").clone());
        client.send(&ask).await;
    }

    /// Follows something more.
    async fn follow_more(&mut self, client: &mut WsClient) {
        let channels: Vec<_> =
            (0..1 + self.random.below(3)).map(|_| self.random.below(CHANNELS.len())).collect();
        let mut new: Vec<_> = channels;
        new.retain(|&channel| self.follows.iter().all(|follow| follow.is_over || follow.channel != channel));
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return;
        }
        let head = self.published.borrow().values().flatten().max().copied().unwrap_or(0);
        let (start, after) = match self.random.below(3) {
            0 => (json!({"from": "now"}), None),
            1 => (json!({"from": "earliest"}), Some(0)),
            _ => {
                let after = self.random.below(head as usize + 1) as u64;
                (json!({"cursor": format!("{}.{after}", self.names)}), Some(after))
            }
        };
        self.subscribe(client, &new, &start).await;
        let follow = |channel| Follow {
            channel,
            start: start.clone(),
            after,
            is_told: false,
            seen: Vec::new(),
            is_over: false,
        };
        self.follows.extend(new.into_iter().map(follow));
    }

    async fn follow_less(&mut self, client: &mut WsClient) {
        let told: Vec<_> =
            self.current().filter(|follow| follow.is_told).map(|follow| follow.channel).collect();
        if told.is_empty() {
            return;
        }
        let channel = told[self.random.below(told.len())];
        let reference = format!("-{}", CHANNELS[channel]);
        let names = [format!("{}/*", CHANNELS[channel])];
        client.send(&json!({"op": "unsubscribe", "ref": reference, "channels": names})).await;
        self.current().filter(|follow| follow.channel == channel).for_each(|follow| follow.is_over = true);
        // Followed again at once it would not be known which of the two an event is for.
        loop {
            let message = client.json().await;
            if message["ref"] == reference.as_str() {
                break;
            }
            match message["op"].as_str() {
                Some("event") => {
                    let (seq, cursor) =
                        (message["seq"].as_u64().expect("stored"), message["cursor"].as_str());
                    self.take(message["channel"].as_str().expect("one"), seq, cursor.expect("a cursor"));
                }
                Some("subscribed") => {
                    let channels = message["ref"].as_str().expect("ours").to_owned();
                    let cursor = message["cursor"].as_str().expect("a cursor").to_owned();
                    for follow in self.current().filter(|follow| channels.contains(CHANNELS[follow.channel]))
                    {
                        if follow.after.is_none() {
                            follow.after = Some(seq_of(&cursor));
                        }
                        follow.is_told = true;
                    }
                    self.cursor = Some(cursor);
                }
                _ => {}
            }
        }
    }

    /// Comes back on a new socket with what it followed: in one request or in several.
    async fn come_back(&mut self) -> WsClient {
        let (mut client, _) = WsClient::live(self.server.addr).await;
        // What it was told that it follows is at its cursor; what was not answered keeps where it was to start.
        let cursor = json!({"cursor": self.cursor});
        for follow in self.current().filter(|follow| follow.is_told) {
            (follow.start, follow.is_told) = (cursor.clone(), false);
        }
        let mut left: Vec<_> = self.current().map(|follow| (follow.channel, follow.start.clone())).collect();
        while let Some((channel, start)) = left.pop() {
            let mut channels = vec![channel];
            if self.random.below(2) == 0 {
                channels
                    .extend(left.extract_if(.., |(_, other)| *other == start).map(|(channel, _)| channel));
            }
            self.subscribe(&mut client, &channels, &start).await;
        }
        client
    }

    /// Reads for a while over the other transport.
    async fn stream(&mut self) {
        let told: Vec<_> =
            self.current().filter(|follow| follow.is_told).map(|follow| follow.channel).collect();
        let Some(cursor) = self.cursor.clone().filter(|_| !told.is_empty()) else { return };
        let query: String = told.iter().map(|&channel| format!("&channel={}/*", CHANNELS[channel])).collect();
        let path = format!("/rt/events?format=envelope{query}");
        let mut client = SseClient::open(self.server.addr, &path, &[("last-event-id", &cursor)]).await;
        client.welcome().await;
        for _ in 0..self.random.below(60) {
            let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(20), client.event()).await
            else {
                break;
            };
            let envelope = event.json();
            let cursor = event.id.clone().expect("stored");
            let channel = envelope["channel"].as_str().expect("a channel");
            self.take(channel, envelope["seq"].as_u64().expect("stored"), &cursor);
        }
    }

    fn is_complete(&mut self) -> bool {
        let published = self.published.clone();
        let published = published.borrow();
        let last = |channel: usize| published.get(&channel).and_then(|all| all.last()).copied().unwrap_or(0);
        self.current().all(|follow| {
            let last = last(follow.channel);
            let seen = follow.seen.last().copied().unwrap_or(0).max(follow.after.unwrap_or(0));
            follow.is_told && seen >= last
        })
    }

    fn check(&self, seed: u64) {
        let published = self.published.borrow();
        for follow in self.follows.iter().filter(|follow| follow.is_told) {
            let after = follow.after.expect("told");
            let all = published.get(&follow.channel).cloned().unwrap_or_default();
            let due: Vec<_> = all.into_iter().filter(|&seq| seq > after).collect();
            let end = if follow.is_over { follow.seen.len().min(due.len()) } else { due.len() };
            let differs = follow.seen.iter().zip(&due).position(|(seen, due)| seen != due);
            assert!(
                follow.seen == due[..end],
                "seed {seed}, channel {}, from {} on: {} seen, {} due, different from place {differs:?} on: {:?} for {:?}",
                CHANNELS[follow.channel],
                follow.start,
                follow.seen.len(),
                due.len(),
                differs.map(|at| &follow.seen[at.saturating_sub(3)..(at + 5).min(follow.seen.len())]),
                differs.map(|at| &due[at..(at + 5).min(due.len())]),
            );
        }
    }
}

async fn run(seed: u64) -> u64 {
    let mut random = Random(seed);
    let ring = [4, 64, 10_000][random.below(3)];
    let feed = [8, 64, 1024][random.below(3)];
    let server = serve(builder().ring(ring, 8 << 20).feed(feed, 1 << 20));
    let (mut client, welcome) = WsClient::live(server.addr).await;
    let names =
        welcome["cursor"].as_str().expect("a cursor").rsplit_once('.').expect("a cursor").0.to_owned();
    let published = Rc::new(RefCell::new(BTreeMap::<usize, Vec<u64>>::new()));
    let broker = server.broker.clone();
    let (log, count, mut choice) = (published.clone(), 400 + random.below(2000), Random(!seed));
    let flood = actix_web::rt::spawn(async move {
        for n in 0..count {
            let channel = choice.below(CHANNELS.len());
            let event = Event::text("message", n.to_string()).expect("valid");
            let broadcast =
                Broadcast::channel(format!("{}/{}", CHANNELS[channel], n % 2), event).expect("valid");
            let receipt = broker.send(broadcast).await.expect("answered").expect("committed");
            log.borrow_mut().entry(channel).or_default().push(receipt.seq.expect("stored"));
        }
    });
    let mut schedule =
        Schedule { server, random, published, follows: Vec::new(), cursor: None, names, requests: 0 };
    for _ in 0..40 {
        match schedule.random.below(10) {
            0..=2 => schedule.follow_more(&mut client).await,
            3 => schedule.follow_less(&mut client).await,
            4 => {
                drop(client);
                if schedule.random.below(2) == 0 {
                    schedule.stream().await;
                }
                client = schedule.come_back().await;
            }
            5 => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => {
                for _ in 0..schedule.random.below(100) {
                    let read = schedule.read(&mut client);
                    if tokio::time::timeout(Duration::from_millis(5), read).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
    flood.await.expect("no panic");
    while !schedule.is_complete() {
        schedule.read(&mut client).await;
    }
    assert!(client.is_quiet_for(Duration::from_millis(20)).await, "seed {seed}");
    schedule.check(seed);
    schedule.requests
}

#[actix_web::test]
async fn whatever_is_followed_comes_once_and_in_order() {
    let runs = std::env::var("FANFARE_SCHEDULES").map_or(25, |runs| runs.parse().expect("a number"));
    let first = std::env::var("FANFARE_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let mut requests = 0;
    for seed in first..first + runs {
        let run = tokio::time::timeout(Duration::from_secs(30), run(seed));
        requests += run.await.unwrap_or_else(|_| panic!("seed {seed} does not end"));
    }
    assert!(requests > runs, "there was something to follow");
}
