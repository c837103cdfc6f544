//! A node that joins with an empty index while the stream has much: what its clients get, and how fast it is filled.
//!
//! The normal form is small; `FANFARE_JOIN=full cargo test --release --test cluster_join -- --nocapture --test-threads=1` is the full one:
//! 1,000,000 messages of one event each.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use fanfare::{Broadcast, Broker, Event, MemoryLog, NatsIndex, NatsLog, SqliteLog};
use futures_util::StreamExt;
use support::hub::Hub;
use support::nats::NatsServer;
use support::sse::SseClient;
use support::{addresses, http, serve};

const PATIENCE: Duration = Duration::from_secs(240);
/// Messages that are sent on before the answers of those before them.
const AHEAD: usize = 500;

fn is_full() -> bool {
    std::env::var("FANFARE_JOIN").is_ok_and(|form| form == "full")
}

fn messages() -> u64 {
    if is_full() { 1_000_000 } else { 20_000 }
}

fn log(server: &NatsServer, index: impl Into<NatsIndex>) -> NatsLog {
    NatsLog::new(&server.url()).expect("a URL").index(index)
}

/// Fills the stream with what a node has written, again and again. Returns a cursor near the end, with so many after it.
async fn fill(server: &NatsServer, after: u64) -> String {
    let node = serve(Broker::builder().log(log(server, MemoryLog::default())));
    node.until(PATIENCE, |stats| stats.ready).await;
    let publish = async |data: &str| {
        let event = Event::text("message", data).expect("valid");
        let broadcast = Broadcast::channel("orders/7", event).expect("valid");
        node.broker.send(broadcast).await.expect("it lives").expect("stored")
    };
    publish(&"x".repeat(200)).await;
    let context = server.jetstream().await;
    let stream = context.get_stream("fanfare").await.expect("a stream");
    let written = stream.get_raw_message(1).await.expect("the first message");
    let mut answers = std::collections::VecDeque::with_capacity(AHEAD);
    for number in 0..messages() - after - 2 {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("again-{number}").as_str());
        let sent = context.publish_with_headers(written.subject.clone(), headers, written.payload.clone());
        answers.push_back(sent.await.expect("sent").into_future());
        if answers.len() == AHEAD {
            answers.pop_front().expect("one").await.expect("stored");
        }
    }
    for answer in answers {
        answer.await.expect("stored");
    }
    let receipt = publish("the mark").await;
    for number in 0..after {
        publish(&number.to_string()).await;
    }
    receipt.cursor.expect("stored").to_string()
}

/// How long it takes to read the stream as fast as a client of it can, and nothing else.
async fn read_plainly(server: &NatsServer) -> Duration {
    let context = server.jetstream().await;
    let stream = context.get_stream("fanfare").await.expect("a stream");
    let config =
        pull::Config { ack_policy: AckPolicy::None, memory_storage: true, ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let began = Instant::now();
    let mut all = consumer.stream().max_messages_per_batch(2000).messages().await.expect("messages");
    for _ in 0..messages() {
        all.next().await.expect("a message").expect("no failure");
    }
    began.elapsed()
}

/// Comes to a node that is only beginning with a cursor: it is served what comes after it, or sent away and served later.
async fn resume(addr: std::net::SocketAddr, path: &str, cursor: &str, wanted: u64) -> (usize, Duration) {
    let (began, mut turned_away) = (Instant::now(), 0);
    loop {
        let mut client = SseClient::open(addr, path, &[("last-event-id", cursor)]).await;
        let first = client.event().await.expect("a welcome or a farewell");
        if first.is("$closing") {
            assert_eq!(first.json()["reason"], "unavailable");
            turned_away += 1;
            assert!(began.elapsed() < PATIENCE, "it is filled");
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        assert!(first.is("$welcome"), "{first:?}");
        for number in 0..wanted {
            assert_eq!(client.data().await, number.to_string());
        }
        return (turned_away, began.elapsed());
    }
}

/// A node that joins serves whoever comes what comes after its cursor, from its first second or once it can, and is filled
/// about as fast as the stream can be read; into a file, as fast as that takes it.
#[actix_web::test]
async fn a_node_that_joins_is_filled_and_serves_resumes() {
    let (server, after) = (NatsServer::start(), 50);
    let cursor = fill(&server, after).await;
    let plain = read_plainly(&server).await;
    let rate = |took: Duration| messages() as f64 / took.as_secs_f64();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("join-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut rates = Vec::new();
    for name in ["memory", "a file"] {
        let index: NatsIndex = match name {
            "memory" => MemoryLog::default().into(),
            _ => SqliteLog::open(folder.join("index.db")).expect("it opens").into(),
        };
        let began = Instant::now();
        let node = serve(Broker::builder().log(log(&server, index)));
        let (turned_away, _) = resume(node.addr, "/rt/events?channel=orders/*", &cursor, after).await;
        let took = began.elapsed();
        assert!(node.stats().await.ready);
        println!("{name}: {:.0} messages a second; {turned_away} times sent away", rate(took));
        rates.push(rate(took));
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!("the stream, read plainly: {:.0} messages a second", rate(plain));
    if is_full() {
        assert!(rates[0] >= rate(plain) / 2.0, "{rates:?} of {}", rate(plain));
        assert!(rates[1] >= 50_000.0, "{rates:?}");
    }
}

/// How far it has come is said in the log, by `/readyz` and in the status; and clients are sent away until it is done.
#[actix_web::test]
async fn a_node_that_is_being_filled_says_how_far_it_is() {
    let (server, after) = (NatsServer::start(), 20);
    let cursor = fill(&server, after).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("filling-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let said = folder.join("log");
    let [addr] = addresses();
    let index = folder.join("index.db").display().to_string();
    let args = ["--nats", &server.url(), "--log", &index].map(str::to_owned);
    let file = std::fs::File::create(&said).expect("a file");
    let starting = tokio::task::spawn_blocking(move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Hub::start_logging(&addr.to_string(), &args, Stdio::from(file))
    });
    let hub = starting.await.expect("it starts");
    let (mut by_readyz, mut by_status) = (0, 0);
    loop {
        let ready = http::get(hub.addr, "/readyz").await;
        if ready.status() == 200 {
            break;
        }
        if let Some(rest) = ready.body.strip_prefix("filling the index: ") {
            let numbers: Vec<u64> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
            assert!(numbers[0] <= numbers[1] && numbers[1] == messages(), "{rest}");
            by_readyz += 1;
        }
        let status = hub.status().await;
        if let Some(done) = status["filling"]["done"].as_u64() {
            assert_eq!(status["filling"]["of"], messages());
            assert!(done <= messages() && status["ready"] == false);
            by_status += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(hub.status().await["filling"], serde_json::Value::Null);
    resume(hub.addr, "/events?channel=orders/*", &cursor, after).await;
    let said = std::fs::read_to_string(&said).expect("text");
    assert!(said.contains("the index is filled"), "{said}");
    println!("{by_readyz} times told by readyz, {by_status} by the status");
    if is_full() {
        assert!(
            by_readyz > 0 && by_status > 0 && said.contains("filling the index from the stream"),
            "{said}"
        );
    }
    let _ = std::fs::remove_dir_all(&folder);
}
