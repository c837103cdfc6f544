//! Whatever is sent to a hub, it refuses what it must, and is there as before: no answer of 500, no panic, no memory kept.
//! `FANFARE_HOSTILE=full cargo test --release --test hostile` sends 100,000 requests and 10,000 messages.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use support::hub::Hub;
use support::ws::{WsClient, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The generator `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn some(&mut self, words: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.of(words)).collect()
    }
}

const PATHS: &[&str] = &[
    "/events",
    "/ws",
    "/publish",
    "/history",
    "/presence",
    "/status",
    "/sessions/",
    "/sessions/x",
    "/clients/",
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/..",
    "//events",
    "/events/",
    "/%00",
    "/%2e%2e/",
    "/\u{e4}",
    "/events%3Fchannel=a",
    "*",
];
const METHODS: &[&str] =
    &["GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"];
const QUERY: &[&str] = &[
    "channel=",
    "&",
    "=",
    "a",
    "/",
    "*",
    "**",
    "%2F",
    "%00",
    "%FF",
    "%",
    "$everyone",
    "%24session%2F**",
    "filter=",
    "k:v",
    ":",
    "from=",
    "now",
    "earliest",
    "-1",
    "1",
    "18446744073709551616",
    "last_event_id=",
    "a.b.1",
    "~",
    "abcdef-1",
    "format=raw",
    "format=",
    "envelope",
    "strict=1",
    "after=",
    "limit=",
    "0",
    "9999999",
    "access_token=",
    "+",
    ";",
    "[]",
    "\u{e4}",
];
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"channel\"",
    "\"channels\"",
    "\"sessions\"",
    "\"everyone\"",
    "\"data\"",
    "\"event\"",
    "\"id\"",
    "\"attributes\"",
    "\"ephemeral\"",
    "\"op\"",
    "\"ref\"",
    "\"cursor\"",
    "\"from\"",
    "\"filter\"",
    "\"token\"",
    "\"a\"",
    "\"a/*\"",
    "\"$everyone\"",
    "\"subscribe\"",
    "\"unsubscribe\"",
    "\"publish\"",
    "\"ping\"",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e400",
    "9007199254740993",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"",
    "\\",
    " ",
    "\n",
    "\u{e4}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// A message that is nearly right, or nothing at all.
fn json(random: &mut Random) -> String {
    let nearly = [
        r#"{"op":"subscribe","ref":1,"channels":["a/*"],"cursor":"X"}"#,
        r#"{"op":"subscribe","ref":"s","channels":["X"],"filter":{"k":"v"},"from":"now"}"#,
        r#"{"op":"unsubscribe","ref":X,"channels":["a/*","X"]}"#,
        r#"{"op":"publish","ref":3,"channel":"a/1","data":X,"ephemeral":true}"#,
        r#"[{"channel":"a","data":1},{"channel":"X"}]"#,
        r#"{"channels":["a","X"],"attributes":{"k":"X"},"id":"X"}"#,
        r#"{"sessions":["X"],"event":"X"}"#,
        r#"{"op":"token","token":"X"}"#,
    ];
    match random.below(3) {
        0 => random.some(JSON, 30),
        1 => random.of(&nearly).replace('X', &random.some(JSON, 3)),
        _ => random.of(&nearly).replace('X', &random.some(&["a", "/", "*", ".", "~", "-", "1", " "], 6)),
    }
}

/// A request, and whether all of it is there that it announces.
fn request(random: &mut Random) -> (Vec<u8>, bool) {
    if random.below(50) == 0 {
        return ((0..random.below(200)).map(|_| random.below(256) as u8).collect(), false);
    }
    let (method, path) = (random.of(METHODS), random.of(PATHS));
    let query = if random.below(3) > 0 { format!("?{}", random.some(QUERY, 8)) } else { String::new() };
    let mut text = format!(
        "{method} {path}{query} HTTP/1.1\r\nhost: {}\r\n",
        random.of(&["127.0.0.1", "localhost", "evil", ""])
    );
    let headers = [
        "last-event-id: X\r\n",
        "origin: http://X\r\n",
        "cookie: fanfare_session=X; fanfare_token=X\r\n",
        "content-type: X\r\n",
        "content-type: application/json\r\n",
        "content-type: application/x-ndjson\r\n",
        "authorization: Bearer X\r\n",
        "upgrade: websocket\r\nconnection: upgrade\r\n",
        "sec-websocket-version: 13\r\nsec-websocket-key: X\r\n",
        "sec-websocket-protocol: X\r\n",
        "accept: X\r\n",
        "x-forwarded-for: X\r\n",
        "access-control-request-method: X\r\n",
        "sec-fetch-site: same-origin\r\n",
        "expect: 100-continue\r\n",
        "range: bytes=X\r\n",
        "x-request-id: X\r\n",
    ];
    for _ in 0..random.below(5) {
        let value: String = random.some(QUERY, 4).chars().filter(char::is_ascii_graphic).collect();
        text.push_str(&random.of(&headers).replace('X', &value));
    }
    let body = if random.below(2) == 0 { json(random) } else { String::new() };
    let length = if random.below(20) == 0 { random.below(3_000_000) } else { body.len() };
    text.push_str(&format!("content-length: {length}\r\n\r\n{body}"));
    (text.into_bytes(), length == body.len())
}

/// Sends one request and gives the status, if there is any: what is no HTTP may be hung up on.
async fn send(addr: SocketAddr, request: &[u8], is_whole: bool) -> Option<u16> {
    let mut socket = TcpStream::connect(addr).await.expect("the hub listens");
    // So that a hundred thousand of them leave their ports at once.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("an option");
    // It may hang up before it has read all.
    let _ = socket.write_all(request).await;
    let mut answer = vec![0; 1024];
    // Of what is not whole the rest is waited for.
    let patience = if is_whole { Duration::from_secs(10) } else { Duration::from_millis(5) };
    let read = tokio::time::timeout(patience, socket.read(&mut answer)).await;
    assert!(read.is_ok() || !is_whole, "no answer to {:?}", String::from_utf8_lossy(request));
    let count = read.ok()?.unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..count]);
    text.split(' ').nth(1)?.parse().ok()
}

async fn assail(hub: &Hub, random: &mut Random, requests: usize, messages: usize) {
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for _ in 0..requests {
        let (request, is_whole) = request(random);
        if let Some(status) = send(hub.addr, &request, is_whole).await {
            assert!(status < 500 || status == 503, "{status} to {:?}", String::from_utf8_lossy(&request));
            *statuses.entry(status).or_default() += 1;
        }
    }
    let mut left = messages;
    while left > 0 {
        let mut client = WsClient::open(hub.addr, "/ws", &[]).await;
        assert_eq!(client.head.status, 101);
        for _ in 0..random.below(20).min(left) + 1 {
            let opcode = if random.below(40) == 0 { random.below(16) as u8 } else { 1 };
            let mut bytes = frame(random.below(30) > 0, opcode, json(random).as_bytes());
            if random.below(40) == 0 {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            left = left.saturating_sub(1);
            // It is hung up on for what is no message.
            if client.socket.write_all(&bytes).await.is_err() {
                break;
            }
        }
    }
    println!("{requests} requests were answered {statuses:?}, and {messages} messages sent");
    if requests > 1000 {
        assert!([200, 400, 404, 405].iter().all(|status| statuses.contains_key(status)), "{statuses:?}");
    }
}

#[actix_web::test]
async fn whatever_is_sent_the_hub_is_there_as_before() {
    let is_full = std::env::var("FANFARE_HOSTILE").is_ok_and(|form| form == "full");
    let (requests, messages) = if is_full { (100_000, 10_000) } else { (3_000, 1_000) };
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.log");
    let log = std::fs::File::create(&path).expect("a file");
    let mut hub = Hub::start_logging("127.0.0.1:0", &["--retention", "**=none"], log.into());
    let mut random = Random(7);
    // As much as a hub holds once it was in use.
    assail(&hub, &mut random, 1000, 500).await;
    hub.until_clients(0, Duration::from_secs(10)).await;
    let before = hub.resident();
    assail(&hub, &mut random, requests, messages).await;
    hub.until_clients(0, Duration::from_secs(10)).await;
    let grown = hub.resident().saturating_sub(before);
    println!("{} KiB resident before, {} KiB more after", before >> 10, grown >> 10);
    assert!(grown < 16 << 20, "{} KiB are kept", grown >> 10);
    assert!(hub.child.try_wait().expect("known").is_none(), "the hub has ended");
    assert_eq!(support::http::get(hub.addr, "/readyz").await.status(), 200);
    let log = std::fs::read_to_string(&path).expect("a log");
    assert!(!log.contains("panicked"), "{log}");
}
