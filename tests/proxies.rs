//! Hubs behind nginx and HAProxy, with the configurations that users are given: what a client is promised holds through them.
//!
//! Needs `nginx`, `haproxy`, `node`, `openssl`, and what `npm ci` puts into `tests/foreign`; see `scripts/test`.

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http;
use support::http2::Http2;
use support::hub::Hub;
use support::proxy::{Kind, Proxy};
use support::sse::SseClient;
use support::ws::{CLOSE, PING, PONG, TEXT, WsClient};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

const SECOND: Duration = Duration::from_secs(1);

/// Makes a test behind each proxy of every function named.
macro_rules! behind_both {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::support::proxy::Kind;

            #[actix_web::test]
            async fn behind_nginx() {
                super::$name(Kind::Nginx).await;
            }

            #[actix_web::test]
            async fn behind_haproxy() {
                super::$name(Kind::HaProxy).await;
            }
        }
    )* };
}

behind_both!(
    events_leave_as_they_come,
    a_socket_passes,
    a_client_that_goes_is_gone,
    a_client_comes_back_with_its_cursor,
    addresses_are_those_of_the_clients,
    the_hub_knows_its_own_name,
    a_hub_that_is_away_is_no_reason_to_give_up,
);

fn event(channel: &str, data: &str) -> String {
    json!({"channel": channel, "data": data}).to_string()
}

/// Each event is there before the next is published, small or large, and so is a heartbeat, over both versions of HTTP: nothing
/// is held back until there is more of it.
async fn events_leave_as_they_come(kind: Kind) {
    let hub = Hub::start(&["--heartbeat", "1s"]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut plain = SseClient::open(proxy.plain, "/events?channel=a", &[]).await;
    assert_eq!(plain.head.header("cache-control"), Some("no-cache, no-transform"));
    plain.welcome().await;
    let mut client = Http2::connect(proxy.tls, &proxy.certificate).await;
    let stream = client.open("/events?channel=a", &[]);
    client.welcome(stream).await;

    let large = "x".repeat(200 << 10);
    let mut slowest = Duration::ZERO;
    for n in 0..30 {
        let data = if n % 10 == 9 { large.clone() } else { n.to_string() };
        let begin = Instant::now();
        let receipt = http::post_json(proxy.plain, "/publish", &event("a", &data)).await;
        assert_eq!(receipt.status(), 200);
        assert_eq!(plain.data().await, data);
        assert_eq!(client.event(stream).await.data(), data);
        slowest = slowest.max(begin.elapsed());
    }
    println!("{kind:?}: {slowest:?} at most, from before a publish to the end of two streams");
    assert!(slowest < SECOND / 2, "held back: {slowest:?}");
    let begin = Instant::now();
    for _ in 0..2 {
        while plain.block().await.expect("a ping, not the end").comment.as_deref() != Some("ping") {}
        while client.block(stream).await.expect("a ping, not the end").comment.as_deref() != Some("ping") {}
    }
    assert!(begin.elapsed() < 3 * SECOND, "held back: {:?}", begin.elapsed());
}

/// A WebSocket is opened, its messages and pings pass both ways, and so do the words that it is closed with.
async fn a_socket_passes(kind: Kind) {
    let hub = Hub::start(&["--heartbeat", "1s", "--drain", "3s"]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut client =
        WsClient::open(proxy.plain, "/ws", &[("sec-websocket-protocol", "fanfare.v1.json")]).await;
    assert_eq!(client.head.status, 101);
    assert_eq!(client.head.header("sec-websocket-protocol"), Some("fanfare.v1.json"));
    assert_eq!(client.json().await["op"], "welcome");
    client.subscribe(&["a"], None).await;
    for n in 0..10 {
        let publish = json!({"op": "publish", "ref": n, "channel": "a", "data": n});
        client.send(&publish).await;
        let mut got = [client.json().await, client.json().await];
        got.sort_by_key(|message| message["op"].as_str().map(str::len));
        assert_eq!((&got[0]["op"], &got[0]["data"]), (&json!("event"), &json!(n)));
        assert_eq!((&got[1]["op"], &got[1]["ref"]), (&json!("published"), &json!(n)));
    }
    // For longer than a hub keeps one whose pongs do not come.
    let begin = Instant::now();
    let mut pings = 0;
    while begin.elapsed() < 3 * SECOND {
        let frame = client.frame().await.expect("a frame, not the end");
        assert_eq!(frame.opcode, PING, "{frame:?}");
        pings += 1;
    }
    assert!((3..=5).contains(&pings), "{pings} pings");
    client.send_frame(true, PING, b"ours").await;
    loop {
        let frame = client.frame().await.expect("a pong, not the end");
        if frame.opcode == PONG {
            assert_eq!(frame.payload, b"ours");
            break;
        }
        assert_eq!(frame.opcode, PING, "{frame:?}");
    }
    hub.terminate();
    let mut last = Vec::new();
    while let Some(frame) = client.frame().await {
        match frame.opcode {
            PING => {}
            TEXT => last.push(serde_json::from_slice::<Value>(&frame.payload).expect("JSON")["op"].clone()),
            CLOSE => {
                assert_eq!(frame.close().0, 1012);
                assert_eq!(last, ["closing"]);
                return;
            }
            _ => panic!("{frame:?}"),
        }
    }
    panic!("the bare end");
}

/// A client that left is gone for the hub as well, long before the next heartbeat: one that closed its connection, one
/// that gave up a stream of HTTP/2, one that closed a WebSocket.
async fn a_client_that_goes_is_gone(kind: Kind) {
    let hub = Hub::start(&["--heartbeat", "60s"]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut plain = SseClient::open(proxy.plain, "/events?channel=a", &[]).await;
    plain.welcome().await;
    let mut client = Http2::connect(proxy.tls, &proxy.certificate).await;
    let streams = [(); 3].map(|()| client.open("/events?channel=a", &[]));
    for stream in streams {
        client.welcome(stream).await;
    }
    let socket = WsClient::open(proxy.plain, "/ws", &[]).await;
    assert_eq!(socket.head.status, 101);
    hub.until_clients(5, SECOND).await;
    drop(plain);
    let closed = hub.until_clients(4, 2 * SECOND).await;
    client.reset(streams[0]);
    let reset = hub.until_clients(3, 2 * SECOND).await;
    drop(socket);
    let left = hub.until_clients(2, 2 * SECOND).await;
    client.cut();
    let cut = hub.until_clients(0, 2 * SECOND).await;
    println!("{kind:?}: gone after {closed:?}, {reset:?}, {left:?} and {cut:?}");
}

/// What was missed comes through a proxy as it does without, by the header and by the query.
async fn a_client_comes_back_with_its_cursor(kind: Kind) {
    let hub = Hub::start(&[]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut client = SseClient::open(proxy.plain, "/events?channel=a/*", &[]).await;
    let cursor = client.welcome().await.id.expect("a position");
    drop(client);
    for n in 0..500 {
        assert_eq!(hub.publish(&event(&format!("a/{n}"), &n.to_string())).await.status(), 200);
    }
    let by_header = ("/events?channel=a/*".to_owned(), vec![("last-event-id", &*cursor)]);
    let by_query = (format!("/events?channel=a/*&last_event_id={cursor}"), Vec::new());
    for (path, headers) in [by_header, by_query] {
        let mut client = SseClient::open(proxy.plain, &path, &headers).await;
        client.welcome().await;
        for n in 0..500 {
            assert_eq!(client.data().await, n.to_string());
        }
    }
}

/// A stream from an address of this machine, strict: its status.
async fn status_from(from: &str, to: SocketAddr, forwarded_for: &str) -> (u16, tokio::net::TcpStream) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(from.parse().expect("an address")).expect("bound");
    let mut socket = socket.connect(to).await.expect("connected");
    let request = format!(
        "GET /events?channel=a&strict=1 HTTP/1.1\r\nhost: {to}\r\nx-forwarded-for: {forwarded_for}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("written");
    let (head, _) = http::read_head(&mut socket).await;
    (head.status, socket)
}

/// Limits by address count the clients' own, whatever a client says itself.
async fn addresses_are_those_of_the_clients(kind: Kind) {
    let hub = Hub::start(&["--trusted-proxies", "1", "--max-connections-per-address", "2"]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut open = Vec::new();
    for from in ["127.0.0.2:0", "127.0.0.3:0"] {
        for (n, status) in [200, 200, 429].into_iter().enumerate() {
            let (got, socket) = status_from(from, proxy.plain, &format!("192.0.2.{n}")).await;
            assert_eq!(got, status, "{from}, number {n}");
            open.push(socket);
        }
    }
}

/// Behind TLS that ends at the proxy, the hub takes the name that it is called by for its own, sets its cookie for TLS alone,
/// and turns away the pages of others, whatever name they claim it had.
async fn the_hub_knows_its_own_name(kind: Kind) {
    let hub = Hub::start(&[]);
    let proxy = Proxy::start(kind, &[hub.addr]);
    let mut client = Http2::connect(proxy.tls, &proxy.certificate).await;
    let stream = client.open("/events?channel=a", &[]);
    let head = client.head(stream).await;
    assert!(head.header("set-cookie").expect("a session").contains("; Secure"), "{head:?}");
    let cookie = head.cookie().expect("a cookie");
    client.welcome(stream).await;
    let own = format!("https://localhost:{}", proxy.tls.port());
    for (origin, status) in [(&*own, 200), ("https://evil.example", 403), ("https://localhost", 403)] {
        let headers = [("content-type", "application/json"), ("origin", origin), ("cookie", &*cookie)];
        let asked = client.ask("POST", "/publish", &headers, Some(&event("a", origin)));
        assert_eq!(client.answer(asked).await.status(), status, "{origin}");
    }
    for (name, value) in
        [("forwarded", "host=evil.example;proto=https"), ("x-forwarded-host", "evil.example")]
    {
        let origin = ("origin", "https://evil.example");
        let headers = [("content-type", "application/json"), origin, ("cookie", &*cookie), (name, value)];
        let asked = client.ask("POST", "/publish", &headers, Some(&event("a", name)));
        assert_eq!(client.answer(asked).await.status(), 403, "{name} is believed");
    }
    assert_eq!(client.event(stream).await.data(), own);
    let plain = SseClient::open(proxy.plain, "/events?channel=a", &[]).await;
    assert!(!plain.head.header("set-cookie").expect("a session").contains("Secure"));
}

/// Whoever asks for a stream while there is no hub is told when to come back, in a way that an `EventSource` heeds, and one
/// that others wrote is live again when the hub is. All else, and who wants to know (`strict`), is told by a status.
async fn a_hub_that_is_away_is_no_reason_to_give_up(kind: Kind) {
    let name = format!("proxies-{kind:?}-{}.db", std::process::id());
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("text").to_owned();
    let hub = Hub::start(&["--log", &log]);
    let addr = hub.addr;
    let proxy = Proxy::start(kind, &[addr]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/resume.mjs");
    let mut node = Command::new("node")
        .arg(script)
        .arg(format!("http://{}/events?channel=a", proxy.plain))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let mut lines = BufReader::new(node.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        serde_json::from_str(&lines.next().expect("it has not given up").expect("text")).expect("JSON")
    };
    let mut errors = BufReader::new(node.stderr.take().expect("piped")).lines();
    let mut next_error = || errors.next().expect("a trouble, not the end").expect("text");
    assert_eq!(next()["event"], "$welcome");
    assert_eq!(hub.publish(&event("a", "before")).await.status(), 200);
    assert_eq!(next()["data"], "before");

    drop(hub);
    assert!(next_error().contains("closed"), "its stream broke");
    // Before HAProxy has noticed, and after.
    for _ in 0..8 {
        let mut client = SseClient::open(proxy.plain, "/events?channel=a", &[]).await;
        assert_eq!(client.head.status, 200);
        assert_eq!(client.head.header("content-type"), Some("text/event-stream"));
        let block = client.block().await.expect("a time");
        assert!((2000..=5000).contains(&block.retry.expect("a time")), "{block:?}");
        assert_eq!((block.data, block.id), (None, None));
        let strict = http::get(proxy.plain, "/events?channel=a&strict=1").await.status();
        let publish = http::post_json(proxy.plain, "/publish", &event("a", "lost")).await.status();
        assert!([502, 503].contains(&strict) && [502, 503].contains(&publish), "{strict}, {publish}");
        tokio::time::sleep(SECOND / 5).await;
    }
    assert!(next_error().contains("the stream has ended"), "it was sent away as well");
    let hub = Hub::start_on(&addr.to_string(), &["--log", &log]);
    assert_eq!(hub.publish(&event("a", "meanwhile")).await.status(), 200);
    assert_eq!(next()["event"], "$welcome");
    assert_eq!(next()["data"], "meanwhile");
    let _ = node.kill();
    let _ = node.wait();
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(log.clone() + ending);
    }
}

/// While a hub drains, HAProxy sends those who come to another, before the first is gone; who is there stays until it is told.
#[actix_web::test]
async fn a_hub_that_drains_is_sent_nobody() {
    let [mut first, second] = [(); 2].map(|()| Hub::start(&["--drain", "5s"]));
    let proxy = Proxy::start(Kind::HaProxy, &[first.addr, second.addr]);
    // As many as are not told at once.
    let mut open = Vec::new();
    for _ in 0..500 {
        let mut client = SseClient::open(proxy.plain, "/events?channel=a", &[]).await;
        client.welcome().await;
        open.push(client);
    }
    let there = first.status().await["clients"].as_u64().expect("a number");
    assert!((200..=300).contains(&there), "{there} of 500 are at the first");
    let begin = Instant::now();
    first.terminate();
    while http::get(first.addr, "/readyz").await.status() != 503 {
        assert!(begin.elapsed() < SECOND, "still ready");
    }
    // Strangers are dealt out in turns, so it has seen that when ten in a row are let in.
    let mut in_a_row = 0;
    while in_a_row < 10 {
        let client = SseClient::open(proxy.plain, "/events?channel=b&strict=1", &[]).await;
        in_a_row = if client.head.status == 200 { in_a_row + 1 } else { 0 };
        assert!(begin.elapsed() < 2 * SECOND, "it is still sent clients");
    }
    println!("noticed after {:?}", begin.elapsed());
    let before = first.status().await["clients"].as_u64().expect("a number");
    assert!(before > 0 && before < there, "they go in waves, and {before} of {there} are still there");
    while first.child.try_wait().expect("a child").is_none() {
        assert!(begin.elapsed() < 5 * SECOND, "still there");
        tokio::time::sleep(SECOND / 100).await;
    }
    assert_eq!(http::post_json(proxy.plain, "/publish", &event("a", "on")).await.status(), 200);
    let mut told = 0;
    for client in &mut open {
        let block = client.event().await.expect("a last word, or an event");
        match block.is("$closing") {
            true => told += 1,
            false => assert_eq!(block.data(), "on"),
        }
    }
    assert_eq!(told, there, "all of the first, and nobody of the second");
}
