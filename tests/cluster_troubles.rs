//! Several nodes, one order, and what happens when the NATS server, the way to it or a node goes away.

mod support;

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::StorageType;
use fanfare::{Broadcast, MemoryLog, SqliteLog};
use serde_json::json;
use support::disk::Disk;
use support::http;
use support::hub::Hub;
use support::nats::{NatsServer, Wire};
use support::nodes::{
    Folder, PATIENCE, STREAM, data, event, insist, node, node_with, position, resume, take,
};
use support::sse::SseClient;

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
