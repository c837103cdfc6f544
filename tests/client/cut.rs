//! Connections that are cut while much is published: every event comes once, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare::client::{Begin, Client, EventStream, Item, Position, Received, Transport};
use fanfare::{Broadcast, Broker, Event};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{TestServer, serve};
use crate::{client, connected, follow, item, to};

over_both![it_goes_on_from_the_ring, it_goes_on_from_the_log];

const EVENTS: usize = 3000;
/// What is heard, each in an order of its own.
const AUDIENCES: [&str; 3] = ["a", "b/1", "$everyone"];

/// Stands between a client and a server, and cuts each connection after so many bytes of the server's; the last of them
/// are of any part of a message.
struct Proxy {
    addr: SocketAddr,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(server: SocketAddr, cut_after: Vec<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = cuts.clone();
        actix_web::rt::spawn(async move {
            let mut cut_after = cut_after.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                let left = cut_after.next();
                let server = tokio::net::TcpStream::connect(server).await.expect("a server");
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let counted = counted.clone();
                actix_web::rt::spawn(async move {
                    let up = actix_web::rt::spawn(async move {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    });
                    let mut limited = from_server.take(left.unwrap_or(usize::MAX) as u64);
                    let _ = tokio::io::copy(&mut limited, &mut to_client).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    up.abort();
                });
            }
        });
        Self { addr, cuts }
    }
}

/// Publishes what is numbered, one audience after the other, and a fourth that nobody follows.
fn flood(server: &TestServer) -> actix_web::rt::task::JoinHandle<()> {
    let broker = server.broker.clone();
    actix_web::rt::spawn(async move {
        for n in 0..EVENTS {
            let broadcast = match n % 4 {
                0 => to("a", n.to_string()),
                1 => to("b/1", n.to_string()),
                2 => Broadcast::everyone(Event::text("message", n.to_string()).expect("valid")),
                _ => to("other", n.to_string()),
            };
            broker.send(broadcast).await.expect("answered").expect("committed");
            if n % 50 == 0 {
                // Others have a turn, so that readers are cut in the midst of it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    })
}

#[derive(Default)]
struct Seen {
    each: BTreeMap<String, Vec<usize>>,
    all: BTreeSet<usize>,
}

impl Seen {
    fn take(&mut self, event: &Received) {
        let n = event.data.as_str().parse().expect("a number");
        self.each.entry(event.channel.clone()).or_default().push(n);
        self.all.insert(n);
    }

    fn is_complete(&self) -> bool {
        self.all.len() == ALL
    }

    /// All of each channel, once and in its order.
    fn check(&self) {
        for (at, audience) in AUDIENCES.into_iter().enumerate() {
            let seen = self.each.get(audience).map(Vec::as_slice).unwrap_or_default();
            let expected: Vec<_> = (at..EVENTS).step_by(4).collect();
            let differs = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
            assert_eq!((differs, seen.len()), (None, expected.len()), "{audience}");
        }
    }
}

const ALL: usize = EVENTS / 4 * AUDIENCES.len();

async fn it_goes_on_from_the_ring(transport: Transport) {
    is_cut(transport, 100_000).await;
}

async fn it_goes_on_from_the_log(transport: Transport) {
    is_cut(transport, 16).await;
}

async fn is_cut(transport: Transport, ring: usize) {
    let server = serve(Broker::builder().ring(ring, 16 << 20));
    // A stream of events names a pause of two seconds and more at its start, which is kept.
    let cuts = if transport == Transport::Sse { 2 } else { 60 };
    // Within the handshake as well, and before the subscription is taken on.
    let cut_after = |n| if n % 5 == 4 { n * 13 } else { 2000 + n * 37 };
    let proxy = Proxy::start(server.addr, (0..cuts).map(cut_after).collect()).await;
    let client = Client::new(format!("http://{}/rt", proxy.addr)).expect("a URL");
    let client = client.backoff(Duration::from_millis(1), Duration::from_millis(2)).expect("valid");
    // The head, for a cursor that stands before everything, the events for everyone too.
    let mut start = follow(&crate::client(&server), transport).open();
    connected(&mut start).await;
    let start = start.position().cloned().expect("the head");

    let flood = flood(&server);
    let mut stream = follow(&client, transport).channel("b/*").expect("valid").after(start).open();
    let (mut seen, mut losses) = (Seen::default(), 0);
    while !seen.is_complete() {
        match item(&mut stream).await.expect("no end") {
            Item::Event(event) => seen.take(&event),
            Item::Disconnected(_) => losses += 1,
            Item::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
    flood.await.expect("no panic");
    seen.check();
    assert_eq!((losses, proxy.cuts.load(Ordering::Relaxed)), (cuts, cuts), "every cut was seen");
}

/// One position, carried from transport to transport, in whatever state a stream is left.
#[actix_web::test]
async fn a_stream_changes_its_transport() {
    for ring in [64, 100_000] {
        let server = serve(Broker::builder().ring(ring, 16 << 20));
        let client = client(&server);
        let open = |transport, position: Option<Position>| {
            let subscribe = follow(&client, transport).channel("b/*").expect("valid").from(Begin::Earliest);
            match position {
                Some(position) => subscribe.after(position).open(),
                None => subscribe.open(),
            }
        };
        let mut stream: EventStream = open(Transport::Sse, None);
        connected(&mut stream).await;
        let flood = flood(&server);
        let (mut seen, mut left, mut turn) = (Seen::default(), 10, 0);
        while !seen.is_complete() {
            let has_position = match item(&mut stream).await.expect("no end") {
                Item::Event(event) => {
                    seen.take(&event);
                    left -= 1;
                    // One of several that came before the subscription was taken on has none.
                    event.position.is_some()
                }
                Item::Connected(_) => false,
                other => panic!("{other:?}"),
            };
            if left <= 0 && has_position {
                turn += 1;
                left = turn * 7 % 150 + 1;
                let next = if turn % 2 == 0 { Transport::Sse } else { Transport::WebSocket };
                stream = open(next, stream.position().cloned());
            }
        }
        flood.await.expect("no panic");
        seen.check();
        assert!(turn >= 10, "it changed {turn} times only");
    }
}
