//! Many sockets, each with a workflow of its own, and those that do not read.
//!
//! The normal form is small. `FANFARE_SOCKETS=full cargo test --release --test sockets -- --nocapture` is the full one: 1,000
//! clients of 1,000 workflows, and a burst of 10,000 updates of one of them.

mod support;

use std::time::{Duration, Instant};

use fanfare::{Batch, Broadcast, Broker, Event};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::hub::Hub;
use support::ws::{CLOSE, PING, PONG, TEXT, WsClient};
use support::{TestServer, serve};
use tokio::sync::{Semaphore, SemaphorePermit};

fn is_full() -> bool {
    std::env::var("FANFARE_SOCKETS").is_ok_and(|form| form == "full")
}

/// One at a time: they measure, or count what this process holds.
async fn alone() -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.expect("never closed")
}

/// A file for a log; goes with the test.
struct Database(std::path::PathBuf);

impl Database {
    fn new(name: &str) -> Self {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("sockets-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.join("events.db").to_str().expect("text").to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As long as a status with a message is.
const PADDING: &str =
    "............................................................................................";

/// What is written of an update: whether it is of the burst, its number, and when it was sent.
fn update(workflow: usize, kind: char, number: usize, start: Instant) -> Vec<u8> {
    let sent = start.elapsed().as_micros();
    let data = format!("{kind} {number} {sent} {PADDING}");
    let message =
        json!({"op": "publish", "ref": number, "channel": format!("workflows/{workflow}"), "data": data});
    support::ws::frame(true, TEXT, message.to_string().as_bytes())
}

/// A message past pings and pongs, as text.
async fn text(client: &mut WsClient) -> String {
    loop {
        let frame = client.frame().await.expect("a message, not the end");
        match frame.opcode {
            PING | PONG => {}
            TEXT => return String::from_utf8(frame.payload).expect("text"),
            CLOSE => panic!("{:?}", frame.close()),
            other => panic!("opcode {other}"),
        }
    }
}

/// An update as it came: when it was sent, and how long it took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    sent: Duration,
    took: Duration,
}

/// Reads `steady` updates of a workflow, and `burst` ones, each kind in its order and nothing else, and then nothing more.
async fn read(
    client: &mut WsClient,
    workflow: usize,
    (steady, burst): (usize, usize),
    start: Instant,
) -> Vec<Taken> {
    let channel = format!(r#""channel":"workflows/{workflow}""#);
    let (mut next_steady, mut next_burst) = (0, 0);
    let mut taken = Vec::with_capacity(steady);
    while (next_steady, next_burst) != (steady, burst) {
        let message = text(client).await;
        let now = start.elapsed();
        // As text, for it is read in the same process that the others are read in.
        assert!(
            message.starts_with(r#"{"op":"event""#) && message.contains(&channel),
            "{workflow}: {message}"
        );
        let data = message.split_once(r#""data":""#).expect("data").1;
        let mut words = data.split(' ');
        let kind = words.next().expect("a kind");
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
        let (number, sent) = (number() as usize, Duration::from_micros(number()));
        let next = if kind == "b" { &mut next_burst } else { &mut next_steady };
        assert_eq!(number, *next, "{workflow}: {kind}");
        *next += 1;
        if kind == "s" {
            taken.push(Taken { sent, took: now.saturating_sub(sent) });
        }
    }
    client.send(&json!({"op": "ping", "ref": "end"})).await;
    assert!(text(client).await.starts_with(r#"{"op":"pong""#), "nothing more");
    taken
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * 99 / 100).min(latencies.len() - 1)]
}

/// V1 and V2: each of many has its own workflow's updates, soon, all and none of another's, also while one of them has
/// a burst; and the one with the burst has that.
#[actix_web::test]
async fn a_burst_of_one_workflow_costs_the_others_nothing() {
    let _alone = alone().await;
    let (workflows, burst, rounds, every) =
        if is_full() { (1000, 10_000, 15, 2000) } else { (200, 5000, 8, 500) };
    let database = Database::new("burst");
    let hub = Hub::start(&["--log", &database.path()]);
    let open = async |_| {
        let mut client = WsClient::open(hub.addr, "/ws", &[]).await;
        assert_eq!(client.head.status, 101);
        assert_eq!(client.json().await["op"], "welcome");
        client
    };
    let mut clients = Vec::new();
    for workflow in 0..workflows {
        let mut client = open(workflow).await;
        client.subscribe(&[&format!("workflows/{workflow}")], None).await;
        clients.push(client);
    }
    let (mut steady, mut bursting) = (open(0).await, open(0).await);
    assert_eq!(hub.status().await["clients"], workflows + 2);

    let start = Instant::now();
    let readers: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(workflow, mut client)| {
            let burst = if workflow == 0 { burst } else { 0 };
            tokio::task::spawn_local(async move {
                let taken = read(&mut client, workflow, (rounds, burst), start).await;
                (client, taken)
            })
        })
        .collect();
    // The updates of all, evenly over time.
    let pace = Duration::from_millis(every) / workflows as u32;
    let publishing = tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(pace);
        let mut answers = 0;
        for n in 0..workflows * rounds {
            ticks.tick().await;
            steady.send_raw(&update(n % workflows, 's', n / workflows, start)).await;
            while answers + 60 < n {
                assert!(text(&mut steady).await.starts_with(r#"{"op":"published""#));
                answers += 1;
            }
        }
        while answers < workflows * rounds {
            assert!(text(&mut steady).await.starts_with(r#"{"op":"published""#));
            answers += 1;
        }
    });
    // In the middle of it, as fast as they are taken.
    tokio::time::sleep(Duration::from_millis(every * 2)).await;
    let began = start.elapsed();
    let mut answers = 0;
    for n in 0..burst {
        bursting.send_raw(&update(0, 'b', n, start)).await;
        while n + 1 == burst && answers < burst || answers + 50 < n {
            assert!(text(&mut bursting).await.starts_with(r#"{"op":"published""#));
            answers += 1;
        }
    }
    let ended = start.elapsed();
    publishing.await.expect("all are published");
    let mut others = Vec::new();
    let mut clients = Vec::new();
    for (workflow, reader) in readers.into_iter().enumerate() {
        let (client, taken) = reader.await.expect("everything, in order");
        clients.push(client);
        if workflow > 0 {
            others.extend(taken);
        }
    }
    let during = |taken: &&Taken| (began..ended).contains(&taken.sent);
    let meanwhile: Vec<_> = others.iter().filter(during).map(|taken| taken.took).collect();
    let otherwise: Vec<_> = others.iter().filter(|taken| !during(taken)).map(|taken| taken.took).collect();
    let (counts, took) = ((meanwhile.len(), otherwise.len()), ended - began);
    assert!(counts.0 > 50, "the burst was over before it was noticed: {counts:?}");
    let (meanwhile, otherwise) = (p99(meanwhile), p99(otherwise));
    println!(
        "{workflows} sockets; p99 of {} updates {meanwhile:?} beside a burst of {burst} in {took:?}, of {} else {otherwise:?}",
        counts.0, counts.1
    );
    // What is built without optimisation, beside who knows what, only has to be no queue behind the burst.
    let bound =
        if is_full() { Duration::from_millis(100) } else { (took / 2).max(Duration::from_millis(500)) };
    assert!(meanwhile < bound && otherwise < bound, "not within {bound:?}");

    drop((clients, bursting));
    hub.until_clients(0, Duration::from_secs(1)).await;
}

async fn publish_all(server: &TestServer, events: Vec<(&str, Event)>) {
    let events =
        events.into_iter().map(|(channel, event)| Broadcast::channel(channel, event).expect("valid"));
    let events: Vec<_> = events.collect();
    for batch in events.chunks(20) {
        let batch = Batch::new(batch.to_vec()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
}

/// Larger than what a kernel holds for a connection, if there are some thousands.
fn large(number: usize) -> Event {
    Event::text("message", format!("{number} {}", "x".repeat(4096))).expect("valid")
}

fn number(event: &Value) -> usize {
    let data = event["data"].as_str().unwrap_or_else(|| panic!("{event}"));
    data.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{event}"))
}

/// V3: a client that stops reading, and goes on, has every stored event once and in order, and costs another nothing.
#[actix_web::test]
async fn a_reader_that_pauses_loses_nothing_that_is_stored() {
    let _alone = alone().await;
    const ROUND: usize = 2500;
    let server = serve(Broker::builder().ring(64, 1 << 20).feed(32, 1 << 17));
    let (mut slow, _) = WsClient::live(server.addr).await;
    let (mut quick, _) = WsClient::live(server.addr).await;
    slow.subscribe(&["w/*"], None).await;
    quick.subscribe(&["w/*"], None).await;
    let mut next = 0;
    for round in 1..=3 {
        let first = (round - 1) * ROUND;
        let quick = async {
            for n in first..round * ROUND {
                assert_eq!(number(&quick.event().await), n);
            }
        };
        let events = (first..round * ROUND).map(|n| (["w/1", "w/2"][n % 2], large(n))).collect();
        // The quick one is at the end of 10 MB, and the other has read nothing of it.
        futures_util::future::join(publish_all(&server, events), quick).await;
        // All of it, or all but what is enough to have it fall behind again in the middle.
        let until = if round == 3 { 3 * ROUND } else { first + 700 };
        while next < until {
            assert_eq!(number(&slow.event().await), next, "each once, in order");
            next += 1;
        }
    }
    publish_all(&server, vec![("w/1", large(next))]).await;
    assert_eq!(number(&slow.event().await), next, "it is live");
}

/// V3 and V5: what is asked for while nothing is read is served as well: an old channel is added, and the connection lost.
#[actix_web::test]
async fn a_reader_that_pauses_may_ask_for_more() {
    let _alone = alone().await;
    const EACH: usize = 2000;
    let server = serve(Broker::builder().ring(64, 1 << 20).feed(32, 1 << 17));
    let (mut slow, welcome) = WsClient::live(server.addr).await;
    let start = welcome["cursor"].as_str().expect("a cursor").to_owned();
    publish_all(&server, (0..EACH).map(|n| ("b", large(n))).collect()).await;
    slow.subscribe(&["a"], None).await;
    publish_all(&server, (0..EACH).map(|n| ("a", large(n))).collect()).await;
    slow.send(&json!({"op": "subscribe", "ref": "b", "channels": ["b"], "cursor": start})).await;
    let both = (EACH..2 * EACH).flat_map(|n| [("a", large(n)), ("b", large(n))]);
    publish_all(&server, both.collect()).await;
    let (mut next, mut is_subscribed, mut lost) = ([0, 0], false, 0);
    while next != [2 * EACH, 2 * EACH] {
        let message = slow.json().await;
        if message["op"] == "subscribed" {
            is_subscribed = true;
            continue;
        }
        assert_eq!(message["op"], "event", "{message}");
        let next = &mut next[usize::from(message["channel"] == "b")];
        assert_eq!(number(&message), *next, "each once, in order");
        *next += 1;
        // Once `b` is followed, its place is in the cursor, too.
        if is_subscribed && number(&message) % 700 == 699 {
            (slow, _) = WsClient::live(server.addr).await;
            slow.subscribe(&["a", "b"], message["cursor"].as_str()).await;
            lost += 1;
        }
    }
    assert!(is_subscribed && lost > 3, "{lost}");
    assert_eq!(slow.ask(json!({"op": "ping", "ref": 1})).await["op"], "pong", "nothing more");
}

/// V3: what is not stored, and was not delivered, is counted exactly, where it is missing.
#[actix_web::test]
async fn what_a_pausing_reader_loses_is_counted() {
    let _alone = alone().await;
    const EPHEMERAL: usize = 4000;
    const STORED_EVERY: usize = 10;
    let server = serve(Broker::builder().ring(64, 1 << 20).feed(32, 1 << 17));
    let (mut slow, _) = WsClient::live(server.addr).await;
    slow.subscribe(&["w"], None).await;
    let (mut delivered, mut dropped, mut stored, mut lags) = (0, 0, 0, 0);
    for round in 1..=3 {
        let events = (0..EPHEMERAL).flat_map(|n| {
            let number = (round - 1) * EPHEMERAL + n;
            let stored = (n % STORED_EVERY == 0).then(|| ("w", large(number / STORED_EVERY)));
            stored.into_iter().chain([("w", large(number).ephemeral())])
        });
        publish_all(&server, events.collect()).await;
        publish_all(&server, vec![("w", Event::text("end", "").expect("valid"))]).await;
        // Reads on until it has what was stored; what is ephemeral may come behind that.
        let mut is_at_end = false;
        while !is_at_end {
            let message = slow.json().await;
            match (message["op"].as_str(), message["event"].as_str()) {
                (Some("lag"), _) => {
                    lags += 1;
                    dropped += message["dropped"].as_u64().expect("a count") as usize;
                }
                (Some("event"), Some("end")) => is_at_end = true,
                (Some("event"), _) if message["seq"].is_null() => {
                    assert_eq!(number(&message), delivered + dropped, "the hole is where it was told");
                    delivered += 1;
                }
                (Some("event"), _) => {
                    assert_eq!(number(&message), stored, "each once, in order");
                    stored += 1;
                }
                _ => panic!("{message}"),
            }
        }
        // Once a mark has come it is live, and all of the loss was told. The first ones may be lost as well.
        let mut marks = 0;
        let (mark, lost) = loop {
            marks += 1;
            let mark = Event::text("mark", marks.to_string()).expect("valid").ephemeral();
            publish_all(&server, vec![("w", mark)]).await;
            let (mut mark, mut lost) = (None, 0);
            while let Ok(message) = tokio::time::timeout(Duration::from_millis(200), slow.json()).await {
                if message["op"] == "lag" {
                    lags += 1;
                    lost += message["dropped"].as_u64().expect("a count") as usize;
                    continue;
                }
                assert_eq!(message["event"], "mark", "{message}");
                mark = message["data"].as_str().and_then(|mark| mark.parse::<usize>().ok());
                break;
            }
            dropped += lost;
            if let Some(mark) = mark {
                break (mark, marks);
            }
        };
        assert_eq!(mark, lost, "the last one sent is the first to come");
        dropped -= mark - 1;
        assert_eq!(delivered + dropped, round * EPHEMERAL, "delivered and lost are all");
        assert_eq!(stored, round * EPHEMERAL / STORED_EVERY);
    }
    println!("{delivered} delivered, {dropped} told as lost, {lags} times");
    assert!(dropped > EPHEMERAL && delivered > 0, "it fell behind");
}

/// V3: who takes nothing for the stall timeout is told `slow` and closed with 4008, and has what is missing by its cursor.
#[actix_web::test]
async fn who_never_reads_again_is_closed() {
    let _alone = alone().await;
    const EVENTS: usize = 5000;
    const BEAT: Duration = Duration::from_millis(400);
    const STALL: Duration = BEAT;
    let builder = Broker::builder().ring(64, 1 << 20).feed(32, 1 << 17);
    let server = serve(builder.heartbeat(BEAT).stall_timeout(STALL));
    let (mut reader, _) = WsClient::live(server.addr).await;
    let start = reader.subscribe(&["w"], None).await;
    let publishing = publish_all(&server, (0..EVENTS).map(|n| ("w", large(n))).collect());
    let given_up = server.until(Duration::from_secs(10), |stats| stats.clients == 0);
    let (_, took) = futures_util::future::join(publishing, given_up).await;
    println!("given up {took:?} after the first publish");
    // Looked at with each heartbeat. A socket that owes two pongs is given up as well, and this one does by then.
    assert!((STALL..STALL + BEAT * 2 + Duration::from_secs(1)).contains(&took), "{took:?}");
    // It reads after all: the beginning is whole, then it is told.
    let (mut seen, mut cursor) = (0, start);
    let closing = loop {
        let message = reader.json().await;
        if message["op"] != "event" {
            break message;
        }
        assert_eq!(number(&message), seen);
        cursor = message["cursor"].as_str().expect("a cursor").to_owned();
        seen += 1;
    };
    assert_eq!((&closing["op"], &closing["reason"]), (&json!("closing"), &json!("slow")));
    assert!(closing["retry"].is_u64(), "{closing}");
    assert_eq!(reader.closed().await, (4008, "slow".into()));
    assert!((1..EVENTS).contains(&seen), "{seen}");
    let (mut back, _) = WsClient::live(server.addr).await;
    back.subscribe(&["w"], Some(&cursor)).await;
    for n in seen..EVENTS {
        assert_eq!(number(&back.event().await), n);
    }
    drop((reader, back));
    server.until(Duration::from_secs(2), |stats| stats.clients == 0).await;
}

/// One that reads nothing ever again: what it held is free in the end, too. The kernel gives it half a minute.
#[actix_web::test]
async fn who_is_dead_holds_nothing_for_ever() {
    let _alone = alone().await;
    if !is_full() {
        return;
    }
    let beat = Duration::from_millis(200);
    let server = serve(Broker::builder().heartbeat(beat).stall_timeout(beat * 3));
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("a list").count();
    // Whatever the server opens once is open then.
    drop(WsClient::live(server.addr).await);
    server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
    tokio::time::sleep(beat).await;
    let before = descriptors();
    let (mut dead, _) = WsClient::live(server.addr).await;
    dead.subscribe(&["w"], None).await;
    publish_all(&server, (0..5000).map(|n| ("w", large(n))).collect()).await;
    server.until(Duration::from_secs(3), |stats| stats.clients == 0).await;
    let start = Instant::now();
    // Its own end is still open.
    while descriptors() > before + 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "the server holds the connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the connection of a dead client was free {:?} after it was given up", start.elapsed());
    drop(dead);
}

/// V4 at size: many leave at once, in every way, and nothing remains.
#[actix_web::test]
async fn a_crowd_that_leaves_is_forgotten() {
    let _alone = alone().await;
    let count = if is_full() { 1000 } else { 200 };
    let hub = Hub::start(&[]);
    let addr = hub.addr;
    let clients = join_all((0..count).map(|n| async move {
        let mut client = WsClient::open(addr, "/ws", &[]).await;
        assert_eq!(client.json().await["op"], "welcome");
        client.subscribe(&[&format!("quiet/{n}")], None).await;
        client
    }))
    .await;
    let status = hub.status().await;
    assert_eq!((&status["clients"], &status["channels"]), (&json!(count), &json!(count)));
    for (n, mut client) in clients.into_iter().enumerate() {
        match n % 3 {
            0 => client.send_frame(true, CLOSE, &1001_u16.to_be_bytes()).await,
            1 => client.socket.set_zero_linger().expect("an option"),
            _ => {}
        }
    }
    let took = hub.until_clients(0, Duration::from_secs(1)).await;
    let status = hub.status().await;
    assert_eq!((&status["sessions"], &status["channels"]), (&json!(0), &json!(0)), "after {took:?}");
}
