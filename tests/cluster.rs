//! Several nodes, one order: a real NATS server between them, and what happens when it goes away.

mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::StorageType;
use fanfare::{
    Batch, Broadcast, Broker, CloseReason, CloseSession, Event, EventId, MemoryLog, NatsIndex, NatsLog,
    PublishError, Publisher, Retention, SqliteLog,
};
use serde_json::{Value, json};
use support::disk::Disk;
use support::hub::Hub;
use support::nats::{NatsServer, Wire};
use support::sse::SseClient;
use support::{TestServer, http, serve};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const STREAM: &str = "test";

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-cluster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn index(&self, name: &str) -> SqliteLog {
        SqliteLog::open(self.0.join(name)).expect("it opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn log(url: &str, index: impl Into<NatsIndex>) -> NatsLog {
    let log = NatsLog::new(url).expect("a URL").stream(STREAM).expect("a name");
    log.keep(Duration::from_secs(3600), 256 << 20, 1).index(index)
}

/// A node that is ready.
async fn node_with(url: &str, index: impl Into<NatsIndex>) -> TestServer {
    let node = serve(Broker::builder().heartbeat(Duration::from_millis(500)).log(log(url, index)));
    node.until(PATIENCE, |stats| stats.ready).await;
    node
}

async fn node(server: &NatsServer) -> TestServer {
    node_with(&server.url(), MemoryLog::default()).await
}

fn event(text: impl Into<String>) -> Event {
    Event::text("message", text).expect("valid")
}

fn with_id(text: &str) -> Event {
    event(text).id(EventId::new(text).expect("valid"))
}

/// Publishes until it is accepted, always with the same id, and says how often it was not.
async fn insist(node: &TestServer, channel: &str, text: &str) -> usize {
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
async fn take(client: &mut SseClient, count: usize) -> Vec<(String, String)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let block = client.event().await.expect("an event, not the end");
        taken.push((block.data().to_owned(), block.id.expect("a stored event has an id")));
    }
    taken
}

fn data(taken: &[(String, String)]) -> Vec<&str> {
    taken.iter().map(|(data, _)| data.as_str()).collect()
}

async fn resume(node: &TestServer, query: &str, cursor: &str) -> SseClient {
    SseClient::open(node.addr, &format!("/rt/events?{query}"), &[("last-event-id", cursor)]).await
}

fn position(cursor: &str) -> u64 {
    cursor.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a cursor")
}

/// What is published on any node reaches the subscribers of all, once, in one order, which keeps the order of each
/// publisher; and the positions are the same everywhere.
#[actix_web::test]
async fn all_nodes_deliver_everything_once_in_one_order() {
    let (server, folder) = (NatsServer::start(), Folder::new("order"));
    let nodes =
        [node(&server).await, node(&server).await, node_with(&server.url(), folder.index("third.db")).await];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.live("channel=c/**").await);
    }
    let publishing = nodes.iter().enumerate().map(|(number, node)| async move {
        for count in 0..100 {
            let channel = format!("c/{}", count % 3);
            let broadcast = Broadcast::channel(channel, event(format!("{number}-{count}"))).expect("valid");
            let receipt = node.broker.send(broadcast).await.expect("it lives").expect("committed");
            assert_eq!(receipt.seq.map(|seq| seq % 4096 < 100), Some(true), "{receipt:?}");
            let stats = node.stats().await;
            assert!(receipt.seq <= Some(stats.head), "who has a receipt finds the head there");
        }
    });
    futures_util::future::join_all(publishing).await;
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(take(client, 300).await);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let positions: Vec<_> = seen[0].iter().map(|(_, id)| position(id)).collect();
    assert!(positions.is_sorted_by(|a, b| a < b) && positions.iter().all(|&seq| seq < 1 << 53));
    for number in 0..3 {
        let own = seen[0]
            .iter()
            .map(|(data, _)| data.as_str())
            .filter(|data| data.starts_with(&format!("{number}-")));
        let wanted: Vec<_> = (0..100).map(|count| format!("{number}-{count}")).collect();
        assert_eq!(own.collect::<Vec<_>>(), wanted, "each publisher's order");
    }
    for (client, node) in clients.iter_mut().zip(&nodes) {
        assert!(client.is_quiet_for(Duration::from_millis(300)).await, "nothing twice");
        assert_eq!(node.stats().await.head, *positions.last().expect("some"));
    }
}

/// A client goes on on another node where it was, and on one that is new and has an empty index.
#[actix_web::test]
async fn a_cursor_of_one_node_is_good_on_every_other() {
    let (server, folder) = (NatsServer::start(), Folder::new("cursors"));
    let (one, two) = (node(&server).await, node_with(&server.url(), folder.index("two.db")).await);
    let mut client = one.live("channel=c/*").await;
    for number in 0..50 {
        insist(&one, "c/1", &number.to_string()).await;
        insist(&two, "other", &format!("o-{number}")).await;
    }
    let seen = take(&mut client, 50).await;
    let cut = seen[19].1.clone();
    let mut rest = seen[20..].to_vec();
    let fresh = node_with(&server.url(), folder.index("fresh.db")).await;
    let in_memory = node(&server).await;
    for node in [&two, &fresh, &in_memory] {
        let mut client = resume(node, "channel=c/*", &cut).await;
        client.welcome().await;
        assert_eq!(take(&mut client, rest.len()).await, rest, "the rest, with the same positions");
        insist(&one, "c/1", &format!("more-{}", node.addr.port())).await;
        rest.extend(take(&mut client, 1).await);
        assert!(rest.last().is_some_and(|(data, _)| data.starts_with("more-")), "then live");
    }
    let mut all = fresh.open("channel=c/*&from=earliest").await;
    all.welcome().await;
    assert_eq!(data(&take(&mut all, 50).await), data(&seen));
}

/// The same id of the same publisher, sent to several nodes at once, is stored and delivered once; everybody is told
/// where.
#[actix_web::test]
async fn an_id_that_was_sent_to_several_nodes_is_stored_once() {
    let (server, folder) = (NatsServer::start(), Folder::new("once"));
    let nodes =
        [node(&server).await, node(&server).await, node_with(&server.url(), folder.index("3.db")).await];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.live("channel=c").await);
    }
    for round in 0..20 {
        let id = format!("r-{round}");
        let sends = nodes.iter().map(|node| {
            let broadcast =
                Broadcast::channel("c", with_id(&id)).expect("valid").publisher(Publisher::named("ada"));
            node.broker.send(broadcast)
        });
        let receipts: Vec<_> = futures_util::future::join_all(sends).await;
        let receipts: Vec<_> =
            receipts.into_iter().map(|sent| sent.expect("it lives").expect("stored")).collect();
        let first: Vec<_> = receipts.iter().filter(|receipt| !receipt.duplicate).collect();
        assert_eq!(first.len(), 1, "{receipts:?}");
        assert!(receipts.iter().all(|receipt| receipt.seq == first[0].seq), "{receipts:?}");
    }
    let others = Broadcast::channel("c", with_id("r-1")).expect("valid").publisher(Publisher::named("bob"));
    let receipt = nodes[0].broker.send(others).await.expect("it lives").expect("stored");
    assert!(!receipt.duplicate, "another publisher's id is another id");
    let seen = take(&mut clients[0], 21).await;
    let wanted: Vec<_> = (0..20).map(|round| format!("r-{round}")).chain(["r-1".into()]).collect();
    assert_eq!(data(&seen), wanted);
    for client in &mut clients[1..] {
        assert_eq!(take(client, 21).await, seen);
    }
    // A node that goes through the stream later comes to the same.
    let fresh = node(&server).await;
    let mut client = fresh.open("channel=c&from=earliest").await;
    client.welcome().await;
    assert_eq!(take(&mut client, 21).await, seen);
}

/// The server is killed while everybody publishes, and comes back: each publish has an answer, what is retried with its
/// id is stored once, and all nodes deliver everything in one order.
#[actix_web::test]
async fn a_crash_of_the_server_loses_and_doubles_nothing() {
    let mut server = NatsServer::start();
    let folder = Folder::new("crash");
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut clients = [nodes[0].live("channel=c").await, nodes[1].live("channel=c").await];
    let mut wanted = HashSet::new();
    for round in 0..3 {
        let publishing = nodes.iter().enumerate().map(|(number, node)| async move {
            let mut failures = 0;
            for count in 0..150 {
                failures += insist(node, "c", &format!("{round}-{number}-{count}")).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            failures
        });
        let publishing = futures_util::future::join_all(publishing);
        let crash = async {
            tokio::time::sleep(Duration::from_millis(120)).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            for node in &nodes {
                assert!(!node.stats().await.ready, "it says that the log takes nothing");
                let asked = Instant::now();
                let sent = node.broker.send(Broadcast::channel("other", event("x")).expect("valid")).await;
                assert!(sent.expect("it lives").is_err(), "an error, not a promise");
                assert!(asked.elapsed() < Duration::from_secs(6), "and soon: {:?}", asked.elapsed());
            }
            let asked = Instant::now();
            let answer = nodes[0].publish(r#"{"channel":"other","data":1}"#).await;
            assert_eq!(answer.status(), 503, "{answer:?}");
            assert!(answer.head.header("retry-after").is_some());
            assert!(asked.elapsed() < Duration::from_secs(2), "at once, now that it is known");
            server.restart();
        };
        let (failures, ()) = futures_util::future::join(publishing, crash).await;
        assert!(failures.iter().sum::<usize>() > 0, "the crash was in the middle");
        for node in &nodes {
            node.until(PATIENCE, |stats| stats.ready).await;
        }
        for number in 0..2 {
            wanted.extend((0..150).map(|count| format!("{round}-{number}-{count}")));
        }
    }
    let mut seen = take(&mut clients[0], wanted.len()).await;
    assert_eq!(seen, take(&mut clients[1], wanted.len()).await, "the same on both");
    let positions: Vec<_> = seen.iter().map(|(_, id)| position(id)).collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    let unique: HashSet<_> = seen.drain(..).map(|(data, _)| data).collect();
    assert_eq!(unique, wanted, "everything, once");
}

/// A node that is cut off serves what it has, and when it is back it delivers all that it missed, in order, before
/// anything newer.
#[actix_web::test]
async fn a_node_that_was_cut_off_catches_up_in_order() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let (near, far) = (node(&server).await, node_with(&wire.url(), MemoryLog::default()).await);
    let mut client = far.live("channel=c").await;
    // Longer than the server keeps a consumer that nobody asks, if wanted.
    let cut = std::env::var("FANFARE_CLUSTER_CUT").map_or(2, |seconds| seconds.parse().expect("a number"));
    insist(&near, "c", "before").await;
    assert_eq!(client.data().await, "before");
    for round in 0..2 {
        wire.cut();
        for number in 0..200 {
            insist(&near, "c", &format!("{round}-{number}")).await;
        }
        assert!(client.is_quiet_for(Duration::from_secs(cut)).await);
        wire.mend();
        let seen = take(&mut client, 200).await;
        let wanted: Vec<_> = (0..200).map(|number| format!("{round}-{number}")).collect();
        assert_eq!(data(&seen), wanted);
        insist(&far, "c", &format!("{round}-after")).await;
        assert_eq!(client.data().await, format!("{round}-after"));
    }
    assert!(client.is_quiet_for(Duration::from_millis(300)).await, "nothing twice");
}

/// A server that does not answer may have stored what it was sent, and may store it later: the publisher is told that it is
/// not known, and that the same id makes sure. It does.
#[actix_web::test]
async fn a_publish_without_an_answer_is_unknown_and_safe_to_repeat() {
    let server = NatsServer::start();
    let nodes = [node(&server).await, node(&server).await];
    let mut clients = [nodes[0].live("channel=c").await, nodes[1].live("channel=c").await];
    server.pause();
    let body = r#"{"channel":"c","data":"once","id":"late-1"}"#;
    let asked = Instant::now();
    let answer = nodes[0].publish(body).await;
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    let detail = answer.problem()["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains("may have the events or not") && detail.contains("the same id"), "{detail}");
    let asked = Instant::now();
    let next = nodes[0].publish(r#"{"channel":"c","data":"never"}"#).await;
    assert_eq!(next.status(), 503, "{next:?}");
    assert!(asked.elapsed() < Duration::from_secs(1), "at once, now that it is known: {:?}", asked.elapsed());
    server.go_on();
    assert_eq!(clients[1].data().await, "once", "it was stored after all, and comes late");
    nodes[0].until(PATIENCE, |stats| stats.ready).await;
    let repeated = nodes[0].publish(body).await;
    assert_eq!((repeated.status(), &repeated.json()["duplicate"]), (200, &json!(true)), "{repeated:?}");
    insist(&nodes[1], "c", "after").await;
    for client in &mut clients {
        let block = client.event().await.expect("an event");
        if block.data() == "once" {
            assert_eq!(block.id, repeated.json()["cursor"].as_str().map(str::to_owned));
            assert_eq!(client.data().await, "after", "once");
        } else {
            assert_eq!(block.data(), "after", "once");
        }
    }
}

/// However often the connection breaks, a node has one consumer at most, and delivers everything once.
#[actix_web::test]
async fn fifty_reconnects_leave_one_consumer_per_node() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let (near, far) = (node(&server).await, node_with(&wire.url(), MemoryLog::default()).await);
    let mut client = far.live("channel=c").await;
    let (mut most, mut published) = (0, 0);
    for _ in 0..50 {
        wire.shake();
        for _ in 0..3 {
            insist(&near, "c", &published.to_string()).await;
            published += 1;
        }
        most = most.max(server.consumers(STREAM).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = take(&mut client, published).await;
    let wanted: Vec<_> = (0..published).map(|number| number.to_string()).collect();
    assert_eq!(data(&seen), wanted);
    far.until(PATIENCE, |stats| stats.ready).await;
    assert!(most <= 2, "{most} consumers at some time");
    assert_eq!(server.consumers(STREAM).await, 2);
}

/// Names that NATS has a use for, or that look alike in its subjects, stay what they are.
#[actix_web::test]
async fn odd_names_stay_different_and_come_back() {
    let server = NatsServer::start();
    let nodes = [node(&server).await, node(&server).await];
    let names =
        ["a.b", "a_b", "a/b", "a b", "a>", "a*", ">", "*x", "ü/ß", "a=2Eb", "$", "日本/語", &"x".repeat(255)];
    let names: Vec<_> = names.into_iter().filter(|name| !name.starts_with('$')).collect();
    let mut clients = Vec::new();
    for name in &names {
        let name: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        clients.push(nodes[1].live(&format!("channel={name}&format=envelope")).await);
    }
    for name in &names {
        let receipt = nodes[0].publish(&json!({"channel": name, "data": name}).to_string()).await;
        assert_eq!(receipt.status(), 200, "{name}: {receipt:?}");
    }
    for (client, name) in clients.iter_mut().zip(&names) {
        let envelope = client.event().await.expect("an event").json();
        assert_eq!((&envelope["channel"], &envelope["data"]), (&json!(name), &json!(name)));
        assert_eq!(envelope["prev"], 0, "nothing else was of {name}");
    }
    let fresh = node(&server).await;
    let names_query = "channel=**&from=earliest&format=envelope";
    let mut all = fresh.open(names_query).await;
    all.welcome().await;
    for name in &names {
        assert_eq!(all.event().await.expect("an event").json()["channel"], *name);
    }
}

/// What does not fit one message is refused as such and not stored; many small publishes at once are never refused for
/// being sent together.
#[actix_web::test]
async fn a_batch_that_does_not_fit_is_refused_and_small_ones_are_not() {
    let server = NatsServer::start_with("max_payload: 65536");
    let node = node(&server).await;
    let batch: Vec<_> = (0..40).map(|_| json!({"channel": "c", "data": "x".repeat(2000)})).collect();
    let answer = node.publish(&Value::from(batch).to_string()).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
    assert!(
        answer.problem()["detail"].as_str().expect("text").contains("must fit one message"),
        "{answer:?}"
    );
    assert_eq!((server.messages(STREAM).await, node.stats().await.head), (0, 0));
    let sends =
        (0..300).map(|_| node.broker.send(Broadcast::channel("c", event("x".repeat(2000))).expect("valid")));
    for sent in futures_util::future::join_all(sends).await {
        sent.expect("it lives").expect("committed");
    }
    let batch = (0..20).map(|_| Broadcast::channel("c", event("x".repeat(2000))).expect("valid")).collect();
    let receipts =
        node.broker.send(Batch::new(batch).expect("valid")).await.expect("it lives").expect("fits");
    let seqs: Vec<_> = receipts.iter().filter_map(|receipt| receipt.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a + 1 == *b), "next to each other: {seqs:?}");
}

/// Ephemeral events reach the clients of other nodes, behind what was stored before them.
#[actix_web::test]
async fn ephemeral_events_reach_other_nodes_behind_the_stored_ones() {
    let (server, folder) = (NatsServer::start(), Folder::new("ephemeral"));
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut clients = [nodes[0].live("channel=c").await, nodes[1].live("channel=c").await];
    let mut wanted = Vec::new();
    for number in 0..100 {
        let (stored, passing) = (format!("stored-{number}"), format!("passing-{number}"));
        insist(&nodes[0], "c", &stored).await;
        let broadcast = Broadcast::channel("c", event(passing.clone()).ephemeral()).expect("valid");
        let receipt = nodes[0].broker.send(broadcast).await.expect("it lives").expect("accepted");
        assert_eq!(receipt.seq, None);
        wanted.extend([stored, passing]);
    }
    // Those of a batch stand in their places within it.
    let batch = ["first", "second", "third"].map(|text| {
        let event = if text == "third" { event(text).ephemeral() } else { event(text) };
        Broadcast::channel("batch", event).expect("valid")
    });
    let mut batches = nodes[1].live("channel=batch").await;
    let sent = nodes[0].broker.send(Batch::new(batch.to_vec()).expect("valid")).await;
    sent.expect("it lives").expect("committed");
    for text in ["first", "second", "third"] {
        assert_eq!(batches.data().await, text);
    }
    for client in &mut clients {
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let block = client.event().await.expect("an event");
            assert_eq!(block.id.is_none(), block.data().starts_with("passing"), "{block:?}");
            seen.push(block.data().to_owned());
        }
        let stored: Vec<_> = seen.iter().filter(|data| data.starts_with("stored")).collect();
        assert_eq!(stored.len(), 100);
        let place = |data: &String| seen.iter().position(|other| other == data).expect("it came");
        for pair in wanted.chunks(2) {
            assert!(place(&pair[0]) < place(&pair[1]), "{pair:?} in {seen:?}");
        }
        assert!(client.is_quiet_for(Duration::from_millis(200)).await, "nothing twice");
    }
}

/// What is kept by interest goes on each node with the clients that it has.
#[actix_web::test]
async fn interest_is_that_of_each_node() {
    let server = NatsServer::start();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let retention = Retention::default().rule("run/*=interest:grace=300ms".parse().expect("valid"));
        let log = log(&server.url(), MemoryLog::default());
        let node = serve(Broker::builder().retention(retention).log(log));
        node.until(PATIENCE, |stats| stats.ready).await;
        nodes.push(node);
    }
    let mut client = nodes[0].live("channel=run/1").await;
    insist(&nodes[0], "run/1", "kept").await;
    assert_eq!(client.data().await, "kept");
    let kept = async |node: &TestServer| {
        let history = http::get(node.addr, "/rt/history?channel=run/1").await.json();
        history["events"].as_array().expect("an array").len()
    };
    let start = Instant::now();
    while kept(&nodes[1]).await > 0 {
        assert!(start.elapsed() < PATIENCE, "nobody follows it there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&nodes[0]).await, 1, "somebody follows it here");
}

/// A stream that was made again is another log: who comes with an old cursor is told so, and live clients are sent to come
/// back and be told.
#[actix_web::test]
async fn a_stream_that_was_made_again_is_another_log() {
    let (server, folder) = (NatsServer::start(), Folder::new("again"));
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut clients = [nodes[0].live("channel=c").await, nodes[1].live("channel=c").await];
    insist(&nodes[0], "c", "old").await;
    let mut cursors = Vec::new();
    for client in &mut clients {
        cursors.push(take(client, 1).await.remove(0).1);
    }
    server.jetstream().await.delete_stream(STREAM).await.expect("deleted");
    for client in &mut clients {
        let closing = client.event().await.expect("a notice");
        assert!(closing.is("$closing") && closing.json()["reason"] == "unavailable", "{closing:?}");
        assert_eq!(client.event().await, None);
    }
    for node in &nodes {
        node.until(PATIENCE, |stats| stats.ready && stats.head == 0).await;
    }
    insist(&nodes[1], "c", "new").await;
    for (node, cursor) in nodes.iter().zip(&cursors) {
        let mut client = resume(node, "channel=c", cursor).await;
        client.welcome().await;
        let reset = client.event().await.expect("a notice");
        assert!(reset.is("$reset") && reset.json()["reason"] == "other_log", "{reset:?}");
        assert_eq!(client.data().await, "new", "then what the new one has");
    }
}

/// A session that is closed on one node loses its streams on all, also on one that was cut off meanwhile; others keep theirs.
#[actix_web::test]
async fn a_session_is_closed_on_all_nodes() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let nodes =
        [node(&server).await, node(&server).await, node_with(&wire.url(), MemoryLog::default()).await];
    let first = nodes[0].live("channel=c").await;
    let cookie = first.head.cookie().expect("a cookie");
    let session = first.head.header("fanfare-session").expect("a session").parse().expect("a ULID");
    let mut clients = vec![first];
    let mut others = Vec::new();
    for node in &nodes[1..] {
        clients.push(node.live_as(&cookie, "channel=c").await);
        others.push(node.live("channel=c").await);
    }
    wire.cut();
    let closed = nodes[0].broker.send(CloseSession { session, reason: CloseReason::Revoked }).await;
    assert_eq!(closed.expect("it lives"), 1, "one here");
    for client in &mut clients[..2] {
        let closing = client.event().await.expect("a notice");
        assert!(closing.is("$closing") && closing.json()["reason"] == "revoked", "{closing:?}");
        assert_eq!(client.event().await, None);
    }
    assert!(clients[2].is_quiet_for(Duration::from_millis(300)).await);
    wire.mend();
    assert!(clients[2].event().await.expect("a notice").is("$closing"));
    insist(&nodes[0], "c", "on").await;
    for other in &mut others {
        assert_eq!(other.data().await, "on");
    }
    // A node that goes through the stream later closes nobody.
    let fresh = node(&server).await;
    let mut client = fresh.live_as(&cookie, "channel=c").await;
    insist(&nodes[0], "c", "still").await;
    assert_eq!(client.data().await, "still");
}

/// What leaves the stream leaves the indexes, and is told.
#[actix_web::test]
async fn what_leaves_the_stream_is_told() {
    let (server, folder) = (NatsServer::start(), Folder::new("leaves"));
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut client = nodes[0].live("channel=*").await;
    for number in 0..10 {
        insist(&nodes[0], ["a", "quiet"][usize::from(number == 9)], &number.to_string()).await;
    }
    let seen = take(&mut client, 10).await;
    let stream = server.jetstream().await.get_stream(STREAM).await.expect("a stream");
    stream.purge().sequence(6).await.expect("purged");
    let fresh = node(&server).await;
    for node in [&nodes[0], &nodes[1], &fresh] {
        let start = Instant::now();
        loop {
            let mut client = resume(node, "channel=a", &seen[1].1).await;
            client.welcome().await;
            let first = client.event().await.expect("a block");
            if first.is("$gap") {
                assert_eq!(first.json()["reason"], "expired");
                assert_eq!(data(&take(&mut client, 4).await), ["5", "6", "7", "8"]);
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{first:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut client = resume(node, "channel=a", &seen[5].1).await;
        client.welcome().await;
        assert_eq!(data(&take(&mut client, 3).await), ["6", "7", "8"], "who was beyond it lost nothing");
    }
    let mut client = resume(&nodes[1], "channel=quiet", &seen[0].1).await;
    client.welcome().await;
    assert_eq!(client.data().await, "9", "a quiet channel has lost nothing");
}

/// What is no batch, from whoever else publishes there, is passed over.
#[actix_web::test]
async fn foreign_messages_stop_nobody() {
    let server = NatsServer::start();
    let node = node(&server).await;
    let mut client = node.live("channel=**").await;
    let jetstream = server.jetstream().await;
    for body in ["", "x", "\u{1}\0\0\0\u{1}", "{\"channel\":\"c\"}"] {
        let ack = jetstream.publish(format!("{STREAM}.ev.c"), body.into()).await.expect("sent");
        ack.await.expect("stored");
        insist(&node, "c", &format!("after-{}", body.len())).await;
        assert_eq!(client.data().await, format!("after-{}", body.len()));
    }
}

/// A node goes on with its file where it was, and is filled with what came meanwhile before it serves.
#[actix_web::test]
async fn an_index_in_a_file_goes_on_after_a_restart() {
    let (server, folder) = (NatsServer::start(), Folder::new("restart"));
    let one = node(&server).await;
    let args = ["--nats", &server.url(), "--nats-stream", STREAM, "--log"].map(String::from);
    let path = folder.0.join("hub.db").display().to_string();
    let args: Vec<_> = args.iter().map(String::as_str).chain([path.as_str()]).collect();
    let mut hub = Hub::start(&args);
    for number in 0..20 {
        insist(&one, "c", &number.to_string()).await;
    }
    let mut client = SseClient::open(hub.addr, "/events?channel=c&from=earliest", &[]).await;
    client.welcome().await;
    let seen = take(&mut client, 20).await;
    hub.child.kill().expect("killed");
    hub.child.wait().expect("ended");
    // Killed in the middle of a flood, and again while it is filled.
    for round in 0..3 {
        let mut hub = Hub::start(&args);
        let flood = async {
            for number in 20 + round * 200..220 + round * 200 {
                insist(&one, "c", &number.to_string()).await;
            }
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(40 + 50 * round)).await;
            hub.child.kill().expect("killed");
            hub.child.wait().expect("ended");
        };
        futures_util::future::join(flood, kill).await;
    }
    let hub = Hub::start(&args);
    until_ready(hub.addr).await;
    let mut client = SseClient::open(hub.addr, "/events?channel=c", &[("last-event-id", &seen[9].1)]).await;
    client.welcome().await;
    let wanted: Vec<_> = (10..620).map(|number| number.to_string()).collect();
    assert_eq!(data(&take(&mut client, 610).await), wanted);
    // Of another stream it begins anew, also if nobody saw the change.
    hub.terminate();
    let mut hub = hub;
    assert!(hub.child.wait().expect("ended").success());
    server.jetstream().await.delete_stream(STREAM).await.expect("deleted");
    one.until(PATIENCE, |stats| stats.ready && stats.head == 0).await;
    insist(&one, "c", "another").await;
    let hub = Hub::start(&args);
    until_ready(hub.addr).await;
    let mut client = SseClient::open(hub.addr, "/events?channel=c&from=earliest", &[]).await;
    client.welcome().await;
    assert_eq!(client.data().await, "another");
    // It is an index, and no log of its own.
    hub.terminate();
    let mut hub = hub;
    assert!(hub.child.wait().expect("ended").success());
    let said = refused(&["--log", &path]);
    assert!(said.contains("is the index of a shared order"), "{said}");
}

/// A node whose disk is full has nothing in its head that is not in its index: it says that it takes nothing, the others go
/// on, and with room again it delivers all that it could not keep, in order and once.
#[actix_web::test]
async fn a_node_whose_disk_is_full_goes_on_when_there_is_room() {
    let server = NatsServer::start();
    let disk = Disk::mount("cluster-full", "2m");
    disk.fill(1 << 20);
    let (one, full) = (
        node(&server).await,
        node_with(&server.url(), SqliteLog::open(disk.path.join("index.db")).expect("it opens")).await,
    );
    let mut client = full.live("channel=c").await;
    let payload = |number: usize| format!("{number} {}", "x".repeat(20_000));
    let mut count = 0;
    let start = Instant::now();
    while full.stats().await.ready {
        let broadcast = Broadcast::channel("c", event(payload(count))).expect("valid");
        one.broker.send(broadcast).await.expect("it lives").expect("the others go on");
        count += 1;
        assert!(start.elapsed() < PATIENCE, "the disk has no end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = full.publish(r#"{"channel":"c","data":"no","id":"no"}"#).await;
    assert_eq!(answer.status(), 503, "{answer:?}");
    disk.free();
    full.until(PATIENCE, |stats| stats.ready).await;
    for number in 0..count {
        assert_eq!(client.data().await.split(' ').next(), Some(number.to_string().as_str()));
    }
    insist(&full, "c", "on").await;
    let mut next = client.data().await;
    if next == "no" {
        // It was sent and not answered, and came late.
        next = client.data().await;
    }
    assert_eq!(next, "on");
}

async fn until_ready(addr: std::net::SocketAddr) {
    let start = Instant::now();
    while http::get(addr, "/readyz").await.status() != 200 {
        assert!(start.elapsed() < PATIENCE, "it is ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a hub that must not come up, and returns what it says.
fn refused(args: &[&str]) -> String {
    let start = Instant::now();
    let hub = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hub starts");
    let ended = hub.wait_with_output().expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(start.elapsed() < Duration::from_secs(8), "within seconds: {:?}", start.elapsed());
    said
}

/// A hub without its NATS server, or with a stream that cannot be an order, says so and ends; while it is disconnected it
/// is alive and not ready.
#[actix_web::test]
async fn a_hub_that_cannot_have_its_order_says_so_and_ends() {
    let mut server = NatsServer::start();
    let nowhere =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let said = refused(&["--log", "memory", "--nats", &format!("nats://{nowhere}")]);
    assert!(said.contains("the NATS server does not answer"), "{said}");
    // Somebody is there who never says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let said =
        refused(&["--log", "memory", "--nats", &format!("nats://{}", silent.local_addr().expect("bound"))]);
    assert!(said.contains("the NATS server does not answer"), "{said}");
    let said = refused(&["--log", "memory", "--nats", "ftp://127.0.0.1"]);
    assert!(said.contains("must be URLs"), "{said}");

    let config = async_nats::jetstream::stream::Config {
        name: "mine".into(),
        subjects: vec!["mine.ev.>".into()],
        storage: StorageType::Memory,
        max_messages_per_subject: 3,
        ..Default::default()
    };
    server.jetstream().await.create_stream(config).await.expect("made");
    let said = refused(&["--log", "memory", "--nats", &server.url(), "--nats-stream", "mine"]);
    assert!(said.contains("storage is Memory") && said.contains("max_msgs_per_subject is 3"), "{said}");

    let folder = Folder::new("refused");
    let path = folder.0.join("log.db").display().to_string();
    let own = Hub::start(&["--log", &path]);
    assert_eq!(own.publish(r#"{"channel":"c","data":1}"#).await.status(), 200);
    drop(own);
    let said = refused(&["--log", &path, "--nats", &server.url()]);
    assert!(said.contains("is a log of its own"), "{said}");

    let hub = Hub::start(&["--log", "memory", "--nats", &server.url()]);
    until_ready(hub.addr).await;
    server.kill();
    let start = Instant::now();
    while http::get(hub.addr, "/readyz").await.status() != 503 {
        assert!(start.elapsed() < Duration::from_secs(5), "it says so soon");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(http::get(hub.addr, "/healthz").await.status(), 200);
    server.restart();
    until_ready(hub.addr).await;
}
