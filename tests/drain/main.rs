//! A hub that is told to go: everybody is told, nothing acknowledged is lost, and it is gone in time whatever its clients do.
//!
//! The normal form is small. `FANFARE_DRAIN=full cargo test --release --test drain crowd -- --nocapture --test-threads 1` is the full
//! one, with 5,000 streams. Needs `nginx` and `haproxy`; see `scripts/test`.

mod crowd;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use actix_web::rt;
use fanfare::{Batch, Broadcast, Broker, Drain, DrainWithin, Event, PublishError};
use futures_util::future::join_all;
use serde_json::json;
use support::hub::Hub;
use support::sse::SseClient;
use support::ws::WsClient;
use support::{http, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SECOND: Duration = Duration::from_secs(1);

fn database(name: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("drain-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join("events.db").to_str().expect("text").to_owned()
}

fn signal(hub: &Hub, name: &str) {
    let status = Command::new("kill").args([name, &hub.child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

/// Waits for the hub's end; its code, and how long that took.
async fn ended(hub: &mut Hub, since: Instant, within: Duration) -> (Option<i32>, Duration) {
    loop {
        if let Some(status) = hub.child.try_wait().expect("a child") {
            return (status.code(), since.elapsed());
        }
        assert!(since.elapsed() < within, "still there after {within:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads to the end, which must be the right one; the time to come back.
async fn told_to_go(client: &mut SseClient) -> u64 {
    let mut retry = None;
    loop {
        let block = client.block().await.expect("last words, not the bare end");
        retry = block.retry.or(retry);
        if block.is("$closing") {
            assert_eq!(block.data(), r#"{"reason":"draining"}"#);
            assert_eq!(client.block().await, None);
            return retry.expect("a retry");
        }
    }
}

/// First nobody is sent here any more, then those who are here go, in waves; whoever comes meanwhile is told, each in a way
/// that they understand.
#[actix_web::test]
async fn everybody_is_told_and_not_all_at_once() {
    const CLIENTS: usize = 400;
    let drain = 5 * SECOND;
    let mut hub = Hub::start(&["--drain", "5s"]);
    let addr = hub.addr;
    let opening = (0..CLIENTS).map(|_| SseClient::open(addr, "/events?channel=a", &[]));
    let mut clients = join_all(opening).await;
    for client in &mut clients {
        client.welcome().await;
    }
    let (mut socket, mut words) = {
        let mut client = WsClient::open(addr, "/ws", &[]).await;
        assert_eq!(client.json().await["op"], "welcome");
        (client, Vec::new())
    };
    let begin = Instant::now();
    hub.terminate();
    let leaving: Vec<_> = clients
        .into_iter()
        .map(|mut client| rt::spawn(async move { (told_to_go(&mut client).await, begin.elapsed()) }))
        .collect();
    while http::get(addr, "/readyz").await.status() != 503 {
        assert!(begin.elapsed() < SECOND, "still ready");
    }
    let mut late = SseClient::open(addr, "/events?channel=a", &[]).await;
    assert_eq!(late.head.status, 200);
    assert!(told_to_go(&mut late).await > 5000, "beyond the drain");
    let socket_head = WsClient::open(addr, "/ws", &[]).await.head;
    for head in [
        http::get(addr, "/events?channel=a&strict=1").await.head,
        hub.publish(r#"{"channel":"a"}"#).await.head,
        http::get(addr, "/history?channel=a").await.head,
        socket_head,
    ] {
        assert_eq!(head.status, 503, "{head:?}");
        let seconds: u64 = head.header("retry-after").expect("a time").parse().expect("seconds");
        assert!(seconds > 5, "beyond the drain: {seconds}");
    }
    assert_eq!(http::get(addr, "/healthz").await.status(), 200);

    while let Some(frame) = socket.frame().await {
        words.push(frame);
        if let Some(last) = words.last().filter(|frame| frame.opcode == support::ws::CLOSE) {
            assert_eq!(last.close().0, 1012);
            break;
        }
    }
    let told: Vec<_> = join_all(leaving).await.into_iter().map(|told| told.expect("no panic")).collect();
    let mut times: Vec<_> = told.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    println!("told from {:?} to {:?}", times[0], times[CLIENTS - 1]);
    assert!(times[CLIENTS - 1] < drain * 75 / 100, "late: {times:?}");
    let largest =
        times.iter().map(|&from| times.iter().filter(|&&at| at >= from && at < from + drain / 10).count());
    assert!(largest.max() < Some(CLIENTS / 2), "together: {times:?}");
    // Not before the hub may be there again, and soon then, whoever was told when.
    let mut back: Vec<_> = told.iter().map(|&(retry, at)| at + Duration::from_millis(retry)).collect();
    back.sort_unstable();
    assert!(
        back[0] > drain && back[CLIENTS - 1] < drain + 8 * SECOND,
        "{:?} to {:?}",
        back[0],
        back[CLIENTS - 1]
    );
    let largest =
        back.iter().map(|&from| back.iter().filter(|&&at| at >= from && at < from + SECOND).count());
    assert!(largest.max() < Some(CLIENTS / 3), "they come back together: {back:?}");
    let (code, _) = ended(&mut hub, begin, drain).await;
    assert_eq!(code, Some(0));
}

/// One publisher after the other, each with one event under way until the hub takes no more: how many were acknowledged.
async fn publish_on(addr: SocketAddr, channel: String) -> usize {
    for n in 0.. {
        let body = format!(r#"{{"channel":"{channel}","data":"{n}"}}"#);
        let request = format!(
            "POST /publish HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let asked = async {
            let mut socket = TcpStream::connect(addr).await.ok()?;
            socket.write_all(request.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            // Cut off in the middle is no answer either.
            tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer).await.ok()?;
            Some(answer.starts_with(b"HTTP/1.1 200 ")).filter(|_| !answer.is_empty())
        };
        if tokio::time::timeout(20 * SECOND, asked).await.expect("an answer or an end") != Some(true) {
            return n;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    0
}

/// Without time there is still as much as a commit takes.
#[actix_web::test]
async fn a_short_drain_commits_what_is_under_way() {
    for drain in ["0s", "100ms"] {
        let log = database(drain);
        let mut hub = Hub::start(&["--log", &log, "--drain", drain]);
        let addr = hub.addr;
        let mut client = SseClient::open(addr, "/events?channel=a/*", &[]).await;
        client.welcome().await;
        let publishing: Vec<_> = (0..64).map(|n| rt::spawn(publish_on(addr, format!("a/{n}")))).collect();
        let start = Instant::now();
        while hub.status().await["published"].as_u64() < Some(100) {
            assert!(start.elapsed() < 20 * SECOND, "publishing is slow");
        }
        let begin = Instant::now();
        hub.terminate();
        let (code, took) = ended(&mut hub, begin, SECOND).await;
        assert_eq!(code, Some(0), "{drain}");
        let acknowledged = join_all(publishing).await.into_iter().map(|count| count.expect("no panic"));
        let acknowledged: Vec<_> = acknowledged.collect();
        println!("--drain {drain}: gone after {took:?}, {} acknowledged", acknowledged.iter().sum::<usize>());

        let hub = Hub::start(&["--log", &log]);
        for (n, acknowledged) in acknowledged.into_iter().enumerate() {
            let history = http::get(hub.addr, &format!("/history?channel=a/{n}&limit=1000")).await.json();
            let stored: Vec<_> =
                history["events"].as_array().expect("events").iter().map(|event| &event["data"]).collect();
            assert!(
                (acknowledged..=acknowledged + 1).contains(&stored.len()),
                "{stored:?} of {acknowledged}"
            );
            let expected: Vec<_> = (0..stored.len()).map(|n| json!(n.to_string())).collect();
            assert_eq!(stored, expected.iter().collect::<Vec<_>>());
        }
    }
}

/// What was accepted is committed and answered, however long that takes beyond a drain of nothing: somebody else holds the
/// log's file for a while.
#[actix_web::test]
async fn a_commit_under_way_is_waited_for() {
    let log = database("held");
    let mut hub = Hub::start(&["--log", &log, "--drain", "0s"]);
    let addr = hub.addr;
    assert_eq!(hub.publish(r#"{"channel":"a","data":"first"}"#).await.status(), 200);
    let mut holder = rusqlite::Connection::open(&log).expect("the log's file");
    let held = holder.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("held");
    let publishing: Vec<_> = (0..20)
        .map(|n| {
            let body = format!(r#"{{"channel":"a","data":"{n}"}}"#);
            rt::spawn(async move { http::post_json(addr, "/publish", &body).await.status() })
        })
        .collect();
    let start = Instant::now();
    while hub.status().await["in_flight"].as_u64() < Some(20) {
        assert!(start.elapsed() < 5 * SECOND, "they do not wait");
    }
    let begin = Instant::now();
    hub.terminate();
    while begin.elapsed() < SECOND / 2 {
        assert!(hub.child.try_wait().expect("a child").is_none(), "gone with what it has accepted");
        tokio::time::sleep(SECOND / 50).await;
    }
    drop(held);
    assert_eq!(ended(&mut hub, begin, 2 * SECOND).await.0, Some(0));
    for status in join_all(publishing).await {
        assert_eq!(status.expect("no panic"), 200);
    }
    let hub = Hub::start(&["--log", &log]);
    let history = http::get(hub.addr, "/history?channel=a").await.json();
    assert_eq!(history["events"].as_array().map(Vec::len), Some(21));
}

/// An interrupted hub takes two seconds at most, one that is told twice none, and one with nobody there does not wait for
/// anybody.
#[actix_web::test]
async fn a_hub_goes_as_soon_as_it_is_told_to() {
    let stalled = async |hub: &Hub| {
        let mut socket = TcpStream::connect(hub.addr).await.expect("connected");
        socket.write_all(b"POST /publish HTTP/1.1\r\nhost: localhost\r\n").await.expect("written");
        socket
    };
    let mut hub = Hub::start(&["--drain", "60s"]);
    let _client = stalled(&hub).await;
    let begin = Instant::now();
    signal(&hub, "-INT");
    assert_eq!(ended(&mut hub, begin, 2 * SECOND).await.0, Some(0));

    let mut hub = Hub::start(&["--drain", "60s"]);
    let client = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    let begin = Instant::now();
    hub.terminate();
    while http::get(hub.addr, "/readyz").await.status() != 503 {
        assert!(begin.elapsed() < SECOND, "still ready");
    }
    hub.terminate();
    assert_eq!(ended(&mut hub, begin, 2 * SECOND).await.0, Some(1));
    drop(client);

    let mut hub = Hub::start(&["--drain", "60s"]);
    let begin = Instant::now();
    hub.terminate();
    let (code, took) = ended(&mut hub, begin, 5 * SECOND).await;
    assert_eq!(code, Some(0));
    println!("with nobody there: gone after {took:?}");
}

fn text(data: impl Into<String>) -> Event {
    Event::text("message", data).expect("a valid event")
}

/// What was accepted is committed and has its receipt; what comes after is refused.
#[actix_web::test]
async fn what_was_accepted_is_committed() {
    let broker = Broker::builder().start().expect("starts");
    let event = |n: usize| Broadcast::channel("a", text(n.to_string())).expect("valid");
    // As many messages as a mailbox takes at once; more would come in later.
    let batches = (0..8).map(|_| Batch::new((0..1000).map(event).collect()).expect("valid"));
    let before: Vec<_> = batches.map(|batch| broker.send(batch)).collect();
    broker.do_send(Drain);
    let late = broker.send(event(0));
    for (n, receipts) in join_all(before).await.into_iter().enumerate() {
        let last = receipts.expect("answered").expect("committed").pop().expect("a thousand");
        assert_eq!(last.seq, Some(1000 * (n as u64 + 1)));
    }
    assert!(matches!(late.await.expect("answered"), Err(PublishError::Draining)));
}

/// Those who mount the scope tell the broker how long there is; told again with less time, it hurries.
#[actix_web::test]
async fn the_time_to_go_can_be_shortened() {
    let server = serve(Broker::builder());
    let mut clients = join_all((0..200).map(|_| server.live("channel=a"))).await;
    let begin = Instant::now();
    server.broker.do_send(DrainWithin { time: 600 * SECOND });
    server.until(10 * SECOND, |stats| stats.clients < 200).await;
    let left = server.stats().await.clients;
    assert!(left > 100, "not in waves: {left}");
    server.broker.do_send(DrainWithin { time: SECOND / 10 });
    server.until(SECOND, |stats| stats.clients == 0).await;
    for client in &mut clients {
        told_to_go(client).await;
    }
    assert!(begin.elapsed() < 10 * SECOND);
}
