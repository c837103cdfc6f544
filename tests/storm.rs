//! A crowd that comes back at once, each client having missed events on a channel of its own.
//!
//! The normal form is small. `FANFARE_STORM=full cargo test --release --test storm -- --nocapture` is the full one: 10,000
//! clients that missed 100 events each, among 1,000,000 stored, and what a missed event costs in a log of 10,000 and of
//! 1,000,000 events.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::hub::Hub;
use support::{http, sse::SseClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn is_full() -> bool {
    std::env::var("FANFARE_STORM").is_ok_and(|form| form == "full")
}

/// Fills the log: `missed` events on each of `clients` channels, the channels in turns. Returns the position before them.
async fn fill(hub: &Hub, clients: usize, missed: usize) -> String {
    let mut first = SseClient::open(hub.addr, "/events?channel=nothing", &[]).await;
    let start = first.welcome().await.id.expect("a position");
    let mut batch = Vec::new();
    for n in 0..clients * missed {
        batch.push(format!(r#"{{"channel":"own/{}","data":"n{}"}}"#, n % clients, n / clients));
        if batch.len() == 4000 || n + 1 == clients * missed {
            let body = format!("[{}]", std::mem::take(&mut batch).join(","));
            assert_eq!(hub.publish(&body).await.status(), 200);
        }
    }
    start
}

/// Comes back with a cursor and reads what was missed, in order.
async fn come_back(addr: SocketAddr, channel: usize, cursor: &str, missed: usize) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.expect("connected");
    let request = format!(
        "GET /events?channel=own/{channel} HTTP/1.1\r\nhost: {addr}\r\nlast-event-id: {cursor}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("written");
    let (mut text, mut next) = (Vec::new(), 0);
    while next < missed {
        let read = socket.read_buf(&mut text).await.expect("readable");
        assert!(read > 0, "ended after {next} events");
        // Whole lines, looked at once: a crowd that reads slowly would measure itself.
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|&b| b == b'\n') {
            if let Some(number) = line.strip_prefix(b"data: n") {
                let number = std::str::from_utf8(number).expect("text").trim_end();
                assert_eq!(number.parse(), Ok(next), "in order and once");
                next += 1;
            }
        }
        text.drain(..whole);
    }
    socket
}

/// Publishes one event after the other on a thread of its own until told to stop; how long each took.
fn probe(addr: SocketAddr, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    std::thread::spawn(move || {
        let mut socket = Blocking::connect(addr).expect("connected");
        socket.set_nodelay(true).expect("an option");
        let body = r#"{"channel":"probe","data":"x"}"#;
        let request = format!(
            "POST /publish HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut latencies = Vec::new();
        let mut answer = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            socket.write_all(request.as_bytes()).expect("written");
            let read = socket.read(&mut answer).expect("readable");
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
            latencies.push(start.elapsed());
            std::thread::sleep(Duration::from_millis(2)); // a steady load, not a flood
        }
        latencies
    })
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * 99 / 100).min(latencies.len() - 1)]
}

/// Gives this thread the lowest priority. A crowd is on machines of its own; here it would take turns with the hub on
/// the same processors, and the turns of the scheduler would be measured.
fn yield_to_the_hub() {
    let thread = std::fs::read_link("/proc/thread-self").expect("a thread");
    let id = thread.file_name().expect("an id").to_owned();
    let status = std::process::Command::new("renice").args(["-n", "19", "-p"]).arg(id).status();
    assert!(status.expect("renice, of util-linux").success());
}

fn database(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("storm-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join("events.db").to_str().expect("text").to_owned()
}

/// All are live again, with what they missed; publishing goes on at its pace meanwhile.
#[actix_web::test]
async fn a_crowd_that_comes_back_at_once_is_served_and_publishing_goes_on() {
    let (clients, missed) = if is_full() { (10_000, 100) } else { (1_000, 20) };
    let hub = Hub::start(&["--log", &database("crowd")]);
    let start = fill(&hub, clients, missed).await;

    let measure = |during: bool| {
        let stop = Arc::new(AtomicBool::new(false));
        (probe(hub.addr, stop.clone()), stop, during)
    };
    let (before, stop, _) = measure(false);
    tokio::time::sleep(Duration::from_secs(if is_full() { 5 } else { 1 })).await;
    stop.store(true, Ordering::Relaxed);
    let before = p99(before.join().expect("no panic"));

    let (during, stop, _) = measure(true);
    yield_to_the_hub();
    let began = Instant::now();
    let back = (0..clients).map(|channel| {
        let (addr, start) = (hub.addr, start.clone());
        tokio::spawn(async move { come_back(addr, channel, &start, missed).await })
    });
    let mut sockets = Vec::with_capacity(clients);
    for client in back.collect::<Vec<_>>() {
        sockets.push(client.await.expect("everything, in order"));
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let during = p99(during.join().expect("no panic"));
    println!(
        "{clients} clients, {missed} events missed by each: all back in {took:?}; publish p99 {before:?} before, {during:?} during"
    );

    // All of them are live.
    hub.until_clients(clients as u64, Duration::from_secs(1)).await;
    assert_eq!(hub.publish(r#"{"everyone":true,"data":"n-live"}"#).await.status(), 200);
    for socket in &mut sockets {
        let mut piece = [0; 4096];
        let mut text = Vec::new();
        // A heartbeat may come behind it.
        while !text.windows(12).any(|piece| piece == b"data: n-live") {
            let read = socket.read(&mut piece).await.expect("readable");
            assert!(read > 0, "ended");
            text.extend_from_slice(&piece[..read]);
        }
    }
    if is_full() {
        assert!(during < before * 5, "{before:?} before, {during:?} during");
    }
}

/// What a missed event costs does not depend on how many others are stored.
#[actix_web::test]
async fn a_missed_event_costs_the_same_in_a_large_log() {
    let sizes = if is_full() { [10_000, 1_000_000] } else { [10_000, 40_000] };
    let mut medians = Vec::new();
    for size in sizes {
        let hub = Hub::start(&["--log", &database(&format!("size-{size}"))]);
        let start = fill(&hub, size / 100, 100).await;
        let mut times = Vec::new();
        for n in 0..100 {
            let began = Instant::now();
            come_back(hub.addr, n % (size / 100), &start, 100).await;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        medians.push(times[times.len() / 2]);
        assert_eq!(http::get(hub.addr, "/healthz").await.status(), 200);
    }
    println!("100 missed events among {sizes:?}: {medians:?}");
    assert!(medians[1] < medians[0].mul_f64(if is_full() { 1.5 } else { 3.0 }), "{medians:?}");
}

/// A crowd that follows one channel, which goes on meanwhile: who began first is live first, and in the end all are.
#[actix_web::test]
async fn a_crowd_on_one_busy_channel_comes_live() {
    let (clients, missed, every) = if is_full() { (2_000, 10_000, 20) } else { (1_100, 400, 50) };
    let log = fanfare::SqliteLog::open(database("busy")).expect("opened");
    let server = support::serve(fanfare::Broker::builder().log(log).ring(100, 1 << 20));
    let start = server.open("channel=nothing").await.welcome().await.id.expect("a position");
    let event = |data: &str| {
        let event = fanfare::Event::text("message", data).expect("valid");
        fanfare::Broadcast::channel("busy", event).expect("valid")
    };
    for _ in 0..missed / 200 {
        let batch = fanfare::Batch::new((0..200).map(|_| event("x")).collect::<Vec<_>>()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
    let broker = server.broker.clone();
    let publishing = actix_web::rt::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(every));
        for published in 0_u64.. {
            ticks.tick().await;
            broker.do_send(event(if published == 20 { "the mark" } else { "x" }));
        }
    });
    let began = Instant::now();
    let back = (0..clients).map(|_| {
        let (addr, start) = (server.addr, start.clone());
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(addr).await.expect("connected");
            let request = format!(
                "GET /rt/events?channel=busy HTTP/1.1\r\nhost: {addr}\r\nlast-event-id: {start}\r\n\r\n"
            );
            socket.write_all(request.as_bytes()).await.expect("written");
            let mut text = Vec::new();
            while !text.windows(8).any(|piece| piece == b"the mark") {
                text.drain(..text.len().saturating_sub(8));
                assert!(socket.read_buf(&mut text).await.expect("readable") > 0, "ended");
            }
            (socket, began.elapsed())
        })
    });
    let mut took = Vec::new();
    let mut sockets = Vec::new();
    for client in back.collect::<Vec<_>>() {
        let (socket, time) = client.await.expect("it comes to the mark");
        sockets.push(socket);
        took.push(time);
    }
    publishing.abort();
    took.sort_unstable();
    println!(
        "{clients} clients, {missed} events missed of one channel: the mark after {:?}, {:?} and {:?} (first, half, all)",
        took[0],
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert!(took[took.len() - 1] < Duration::from_secs(if is_full() { 180 } else { 30 }), "{took:?}");
}
