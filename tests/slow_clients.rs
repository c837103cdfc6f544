//! Clients that read slowly, or not at all, or have vanished: they cost the others nothing, and are gone in bounded time.
//!
//! The normal form is small. `FANFARE_SLOW=full cargo test --release --test slow_clients -- --nocapture` is the full one,
//! with 1,000 clients.

mod support;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use support::http;
use support::hub::Hub;
use support::sse::SseClient;
use support::wire::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime;

const SECOND: Duration = Duration::from_secs(1);
/// What `http::tune_socket` gives a peer to acknowledge, or to have room again.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a busy machine.
const MARGIN: Duration = Duration::from_secs(6);

/// The hosts of a test.
const HUB: usize = 0;
const NEAR: usize = 1;
const LOST: usize = 2;

/// The clock that events are stamped by.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How large a test is.
#[derive(Clone, Copy)]
struct Size {
    readers: usize,
    /// Of each kind that does not read.
    others: usize,
    /// Events a second, and how much is in each.
    rate: u32,
    bytes: usize,
}

impl Size {
    fn of_environment() -> Self {
        if std::env::var("FANFARE_SLOW").is_ok_and(|form| form == "full") {
            Self { readers: 700, others: 100, rate: 100, bytes: 256 }
        } else {
            Self { readers: 70, others: 10, rate: 50, bytes: 4096 }
        }
    }
}

fn start_hub(wire: &Wire, name: &str, heartbeat: &'static str) -> Hub {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.join(format!("slow-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let log = folder.join("events.db").to_str().expect("text").to_owned();
    let listen = format!("{}:0", Wire::address(HUB));
    let start = move || Hub::start_on(&listen, &["--insecure", "--log", &log, "--heartbeat", heartbeat]);
    wire.at(HUB, start).join().expect("it starts")
}

fn within<T>(act: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(act)
}

/// A stream whose client has little room, so that it is full soon.
async fn open(addr: SocketAddr, channels: &str, room: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(room) = room {
        socket.set_recv_buffer_size(room).expect("an option");
    }
    let mut socket = socket.connect(addr).await.expect("connected");
    let request = format!("GET /events?{channels} HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    socket
}

/// Reads to the event that is the last; how long each took, from before its publish.
async fn read_on(mut socket: TcpStream) -> Vec<Duration> {
    let (mut text, mut latencies) = (Vec::new(), Vec::new());
    loop {
        assert!(socket.read_buf(&mut text).await.expect("readable") > 0, "ended");
        let now = BEGIN.elapsed();
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|&b| b == b'\n') {
            let Some(event) = line.strip_prefix(b"data: t") else { continue };
            let event = std::str::from_utf8(event).expect("text");
            if event.trim_end() == "he end" {
                return latencies;
            }
            let mut words = event.split(' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
            assert_eq!(number(), latencies.len() as u64, "each once and in order");
            latencies.push(now.saturating_sub(Duration::from_nanos(number())));
        }
        text.drain(..whole);
    }
}

/// One event after the other at the rate, on one connection, until it is told to stop; how many there were.
async fn publish(addr: SocketAddr, size: Size, stop: impl Fn() -> bool) -> u64 {
    let mut socket = TcpStream::connect(addr).await.expect("connected");
    socket.set_nodelay(true).expect("an option");
    let mut ticks = tokio::time::interval(SECOND / size.rate);
    let mut answer = vec![0; 4096];
    for number in 0.. {
        ticks.tick().await;
        let is_last = stop();
        let text = if is_last {
            "the end".to_owned()
        } else {
            format!("t{number} {} {:x<2$}", BEGIN.elapsed().as_nanos(), "", size.bytes)
        };
        let body = format!(r#"{{"channel":"load","data":"{text}"}}"#);
        let request = format!(
            "POST /publish HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.expect("written");
        let read = socket.read(&mut answer).await.expect("readable");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", std::str::from_utf8(&answer[..read]));
        if is_last {
            return number;
        }
    }
    unreachable!("it is stopped")
}

/// A line of `/proc/PID/smaps_rollup`, in bytes.
fn memory(process: u32, name: &str) -> usize {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("it runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim_start_matches(':')
        .trim()
        .split(' ')
        .next()
        .and_then(|kib| kib.parse::<usize>().ok())
        .expect("KiB")
        << 10
}

fn sockets(process: u32) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let is_socket = |link: &std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
    folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(is_socket).count()
}

/// How many follow a channel.
async fn following(addr: SocketAddr, channel: &str) -> u64 {
    let answer = http::get(addr, &format!("/presence?channel={channel}")).await;
    answer.json()["clients"].as_u64().expect("a number")
}

/// The whole of it: of ten clients one never reads, one reads a byte a second, one vanishes with its link; for the seven the
/// 99th of 100 deliveries is under 50 ms, the process grows by less than 64 MiB, and the three are gone within their bounds,
/// connections and all.
#[test]
fn those_that_do_not_read_cost_the_others_nothing() {
    let size = Size::of_environment();
    let mut wire = Wire::lay(3);
    let hub = start_hub(&wire, "crowd", "2s");
    let (addr, process) = (hub.addr, hub.child.id());
    wire.at(NEAR, move || within(following(addr, "load"))).join().expect("it answers");
    let (idle, sockets_before) = (["Rss", "Pss"].map(|name| memory(process, name)), sockets(process));
    let lost = format!("http://{addr}/events?channel=load&channel=lost&n=[1-{}]", size.others);
    let most = size.others.to_string();
    wire.spawn(LOST, "curl", &["-sN", "--parallel", "--parallel-immediate", "--parallel-max", &most, &lost]);

    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let near = wire.at(NEAR, move || {
        within(async move {
            let mut tasks = Vec::new();
            let mut held = Vec::new();
            for _ in 0..size.others {
                held.push(open(addr, "channel=load&channel=deaf", Some(4096)).await);
                let mut sipper = open(addr, "channel=load&channel=sips", None).await;
                tokio::spawn(async move {
                    while let Ok(1) = sipper.read(&mut [0]).await {
                        tokio::time::sleep(SECOND).await;
                    }
                });
            }
            for _ in 0..size.readers {
                tasks.push(tokio::spawn(read_on(open(addr, "channel=load", None).await)));
            }
            tokio::spawn(async move {
                // They are there, and nothing is read.
                let _held = held;
                std::future::pending::<()>().await;
            });
            let mut latencies = Vec::new();
            let mut each = Vec::new();
            for task in tasks {
                let of_one = task.await.expect("everything, in order");
                each.push(of_one.len() as u64);
                latencies.extend(of_one);
            }
            latencies.sort_unstable();
            (latencies, each)
        })
    });
    let watched = wire.at(NEAR, move || {
        within(async move {
            let all = (size.readers + 3 * size.others) as u64;
            let begin = Instant::now();
            while following(addr, "load").await < all {
                assert!(begin.elapsed() < 30 * SECOND, "{} of {all}", following(addr, "load").await);
                tokio::time::sleep(SECOND / 20).await;
            }
        });
    });
    watched.join().expect("all are there");
    let live = memory(process, "Rss");
    let publisher = wire.at(NEAR, move || within(publish(addr, size, || stopped.try_recv().is_ok())));
    std::thread::sleep(2 * SECOND); // all is in its stride
    let pulled = Instant::now();
    wire.cut(LOST);
    let bound = 2 * USER_TIMEOUT + MARGIN;
    let gone = wire.at(NEAR, move || {
        within(async move {
            let mut gone = ["lost", "deaf", "sips"].map(|name| (name, None));
            let mut peak = [0; 2];
            while gone.iter().any(|(_, after)| after.is_none()) {
                for (name, after) in &mut gone {
                    if after.is_none() && following(addr, name).await == 0 {
                        *after = Some(pulled.elapsed());
                    }
                }
                peak = [peak[0].max(memory(process, "Rss")), peak[1].max(memory(process, "Pss"))];
                assert!(pulled.elapsed() < bound, "still there: {gone:?}");
                tokio::time::sleep(SECOND / 4).await;
            }
            (gone, peak)
        })
    });
    let (gone, peak) = gone.join().expect("gone in time");
    // Their connections are, too, though nobody counts them.
    while sockets(process) > sockets_before + size.readers + 2 {
        assert!(pulled.elapsed() < bound + USER_TIMEOUT, "{} sockets", sockets(process));
        std::thread::sleep(SECOND / 10);
    }
    let closed = pulled.elapsed();
    stop.send(()).expect("it publishes");
    let published = publisher.join().expect("all are taken");
    let (latencies, each) = near.join().expect("all is read");
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    println!(
        "{published} events to {} readers: median {:?}, p99 {:?}, longest {:?}; gone after the link was cut: {gone:?}, \
         their sockets after {closed:?}; resident KiB {} idle, {} with all there, {} at most (PSS {} and {})",
        size.readers,
        at(50),
        at(99),
        at(100),
        idle[0] >> 10,
        live >> 10,
        peak[0] >> 10,
        idle[1] >> 10,
        peak[1] >> 10,
    );
    assert_eq!(each, vec![published; size.readers]);
    // A program that is not optimised, beside other tests, is held to less.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
    assert!(at(99) < limit, "p99 {:?}", at(99));
    assert!(peak[0] - idle[0] < 64 << 20 && peak[1] - idle[1] < 64 << 20, "{idle:?} {peak:?}");
    let [(_, lost), ..] = gone;
    assert!(lost.is_some_and(|after| after < USER_TIMEOUT + MARGIN), "{lost:?}");
}

/// P6, the third way to leave: the entry is gone in bounded time, on a quiet stream too.
#[test]
fn a_client_whose_link_is_cut_is_gone_in_bounded_time() {
    let wire = Wire::lay(2);
    let hub = start_hub(&wire, "pull", "1s");
    let addr = hub.addr;
    let (open, opened) = std::sync::mpsc::channel();
    let (_hold, held) = std::sync::mpsc::channel::<()>();
    wire.at(NEAR, move || {
        within(async move {
            let mut client = SseClient::open(addr, "/events?channel=a", &[]).await;
            client.welcome().await;
            open.send(()).expect("awaited");
            let _ = held.recv();
        });
    });
    opened.recv().expect("it is there");
    let pulled = Instant::now();
    wire.cut(NEAR);
    let gone = wire.at(HUB, move || {
        within(async move {
            hub.until_clients(0, SECOND + USER_TIMEOUT + MARGIN).await;
            let status = hub.status().await;
            assert_eq!((&status["sessions"], &status["channels"]), (&0.into(), &0.into()));
            pulled.elapsed()
        })
    });
    let took = gone.join().expect("gone in time");
    assert!(took > 5 * SECOND, "it was noticed by something else than the timeout: {took:?}");
}

/// A stream that was ended is not held open by a client that takes a little of what is left now and then: its connection is cut.
#[actix_web::test]
async fn who_sips_at_the_end_of_its_stream_is_cut_off() {
    let hub = Hub::start(&["--heartbeat", "1s"]);
    hub.until_clients(0, SECOND).await;
    let before = sockets(hub.child.id());
    // A connection that is used again, and one that is not: their servers let go of them in different ways.
    let mut sippers = Vec::new();
    for extra in ["", "connection: close\r\n"] {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(32 * 1024).expect("an option");
        let mut socket = socket.connect(hub.addr).await.expect("connected");
        let request = format!("GET /events?channel=a HTTP/1.1\r\nhost: {}\r\n{extra}\r\n", hub.addr);
        socket.write_all(request.as_bytes()).await.expect("written");
        sippers.push(socket);
    }
    hub.until_clients(2, SECOND).await;
    let padding = "x".repeat(64 * 1024);
    // As much as a feed holds: it is kept for them when their streams end.
    for _ in 0..15 {
        let answer = hub.publish(&format!(r#"{{"channel":"a","data":"{padding}"}}"#)).await;
        assert_eq!(answer.status(), 200);
    }
    let sessions = http::get(hub.addr, "/sessions").await.json();
    for session in sessions["sessions"].as_array().expect("a list") {
        let path = format!("/sessions/{}", session["session"].as_str().expect("a ULID"));
        assert_eq!(http::request(hub.addr, "DELETE", &path, &[], "").await.status(), 204);
    }
    hub.until_clients(0, SECOND).await;
    let ended = Instant::now();
    let mut taken = [0; 2];
    while sockets(hub.child.id()) > before {
        assert!(ended.elapsed() < USER_TIMEOUT + MARGIN, "still connected, with {taken:?} bytes taken");
        for (socket, taken) in sippers.iter_mut().zip(&mut taken) {
            // Enough that there is room for more now and then: to the kernel the peer is alive.
            if let Ok(count) = socket.try_read(&mut [0; 8 * 1024]) {
                *taken += count;
            }
        }
        tokio::time::sleep(SECOND / 2).await;
    }
    println!("cut off after {:?}, with {taken:?} bytes taken", ended.elapsed());
    assert!(ended.elapsed() > USER_TIMEOUT - SECOND, "they have their time: {:?}", ended.elapsed());
}

/// A publish whose body does not come is given up, and what its client could not send is no event.
#[actix_web::test]
async fn a_body_that_trickles_is_given_up() {
    let hub = Hub::start(&[]);
    let head = "POST /publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n[";
    let (mut reader, mut writer) = TcpStream::connect(hub.addr).await.expect("connected").into_split();
    writer.write_all(head.as_bytes()).await.expect("written");
    let begin = Instant::now();
    let trickle = tokio::spawn(async move {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(SECOND / 2).await;
        }
    });
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(30 * SECOND + MARGIN, reader.read(&mut answer)).await;
    let count = read.expect("it is given up").expect("readable");
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    assert!(begin.elapsed() > 29 * SECOND, "it has its time");
    trickle.abort();
    assert_eq!(hub.status().await["head"], 0);
}
