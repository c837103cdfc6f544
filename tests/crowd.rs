//! Many clients at once. The hub is a process of its own, so that each side has its own file descriptors.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::hub::Hub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 10_000;
const EVENTS: usize = 100;

async fn connect(addr: SocketAddr, channel: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.expect("connected");
    let request = format!("GET /events?channel={channel} HTTP/1.1\r\nhost: {addr}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    socket
}

/// Reads until `count` events numbered from 0 have come, each in its turn.
async fn read_in_order(mut socket: TcpStream, count: usize, welcomed: Arc<AtomicUsize>) -> TcpStream {
    let (mut text, mut next) = (String::new(), 0);
    let mut piece = vec![0; 4096];
    while next < count {
        let read = socket.read(&mut piece).await.expect("readable");
        assert!(read > 0, "ended after {next} events");
        text.push_str(std::str::from_utf8(&piece[..read]).expect("text"));
        // Whole lines only; a chunk's framing has lines of its own.
        while let Some(end) = text.find('\n') {
            if text.starts_with("event: $welcome") {
                welcomed.fetch_add(1, Ordering::Relaxed);
            } else if let Some(number) = text[..end].strip_prefix("data: n") {
                assert_eq!(number.trim_end().parse(), Ok(next));
                next += 1;
            }
            text.drain(..=end);
        }
    }
    socket
}

/// Ten thousand subscribers of one channel get a hundred broadcasts, all and in order, and leave nothing behind.
#[actix_web::test]
async fn ten_thousand_subscribers_get_everything_in_order() {
    let hub = Hub::start(&[]);
    let welcomed = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let socket = connect(hub.addr, "all").await;
        readers.push(tokio::spawn(read_in_order(socket, EVENTS, welcomed.clone())));
    }
    let start = Instant::now();
    while welcomed.load(Ordering::Relaxed) < CLIENTS {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} of {CLIENTS} live",
            welcomed.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..EVENTS {
        let answer = hub.publish(&format!(r#"{{"channel":"all","data":"n{n}"}}"#)).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    let mut sockets = Vec::with_capacity(CLIENTS);
    for reader in readers {
        sockets.push(reader.await.expect("all in order"));
    }
    hub.until_clients(CLIENTS as u64, Duration::from_secs(1)).await;
    drop(sockets);
    let took = hub.until_clients(0, Duration::from_secs(1)).await;
    let status = hub.status().await;
    assert_eq!((&status["sessions"], &status["channels"]), (&0.into(), &0.into()), "after {took:?}");
}

/// Clients that come and go at random while events are published leave nothing behind.
#[actix_web::test]
async fn coming_and_going_leaves_nothing_behind() {
    const VISITS: usize = 2_000;
    let hub = Hub::start(&["--heartbeat", "200ms"]);
    let addr = hub.addr;
    let visits = (0..VISITS).map(|n| async move {
        // Spread over channels, wildcards and lengths of stay, from not even a head to several events.
        let channel = ["a", "a/*", "b/1&channel=**", "own/1", "$bad"][n % 5];
        tokio::time::sleep(Duration::from_millis(n as u64 * 7919 % 2000)).await;
        let mut socket = connect(addr, channel).await;
        let mut piece = [0; 512];
        for _ in 0..n % 7 {
            if !matches!(socket.read(&mut piece).await, Ok(1..)) {
                break;
            }
        }
        if n % 3 == 0 {
            socket.set_zero_linger().expect("an option");
        }
    });
    let publishing = async {
        for n in 0..400 {
            let channel = ["a", "a/1", "b/1", "own/1"][n % 4];
            let answer = hub.publish(&format!(r#"{{"channel":"{channel}","data":{n}}}"#)).await;
            assert_eq!(answer.status(), 200);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(visits), publishing).await;
    hub.until_clients(0, Duration::from_secs(1)).await;
    let status = hub.status().await;
    assert_eq!((&status["sessions"], &status["channels"]), (&0.into(), &0.into()));
    assert_eq!((&status["in_flight"], &status["head"]), (&0.into(), &400.into()));
}
