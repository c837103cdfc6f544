//! The hub with a certificate of its own: HTTP/2 and HTTP/1.1 over TLS, to clients that others wrote.
//!
//! Needs `node`, `curl`, `openssl`, `ss`, and what `pip` puts into `tests/foreign/python`; see `scripts/test`.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::certificate::Certificate;
use support::http2::Http2;
use support::hub::Hub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECOND: Duration = Duration::from_secs(1);

fn start(certificate: &Certificate, others: &[&str]) -> Hub {
    let settings = certificate.settings();
    let args: Vec<_> = settings.iter().map(String::as_str).chain(others.iter().copied()).collect();
    Hub::start(&args)
}

fn event(channel: &str, data: &str) -> String {
    json!({"channel": channel, "data": data}).to_string()
}

/// A stream over HTTP/2 is the stream that it is over HTTP/1.1: the same head, the same blocks, each as it comes, and the
/// same way back. What the scope decides by the connection it knows from HTTP/2 as well: its own name and that TLS is used.
#[actix_web::test]
async fn a_stream_over_http2_is_a_stream() {
    let certificate = Certificate::make();
    let hub = start(&certificate, &[]);
    let mut client = Http2::connect(hub.addr, &certificate).await;
    let stream = client.open("/events?channel=a", &[]);
    let head = client.head(stream).await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!((head.header("transfer-encoding"), head.header("connection")), (None, None));
    let set = head.header("set-cookie").expect("a session").to_owned();
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/"), "{set}");
    let session = client.welcome(stream).await.json()["session"].clone();

    let mut last = String::new();
    for n in 0..20 {
        let receipt = client.publish(&event("a", &n.to_string())).await;
        assert_eq!(receipt.status(), 200);
        let block = client.event(stream).await;
        last = block.id.expect("an id");
        assert_eq!((block.data.as_deref(), &json!(last)), (Some(&*n.to_string()), &receipt.json()["cursor"]));
    }
    client.cut();
    assert_ne!(client.end(stream).await, "clean");

    let mut client = Http2::connect(hub.addr, &certificate).await;
    assert_eq!(client.publish(&event("a", "missed")).await.status(), 200);
    // As browsers do, it sends each of its cookies by itself.
    let cookie = head.cookie().expect("a cookie");
    let headers = [("last-event-id", &*last), ("cookie", "theme=dark"), ("cookie", &*cookie)];
    let stream = client.open("/events?channel=a", &headers);
    assert_eq!(client.welcome(stream).await.json()["session"], session);
    assert_eq!(client.event(stream).await.data(), "missed");

    let body = event("a", "from a page");
    let origin = format!("https://localhost:{}", hub.addr.port());
    for (origin, cookie, status) in
        [(&*origin, &*cookie, 200), ("https://evil.example", &*cookie, 403), ("http://localhost", "x=y", 403)]
    {
        let headers = [("content-type", "application/json"), ("origin", origin), ("cookie", cookie)];
        let asked = client.ask("POST", "/publish", &headers, Some(&body));
        assert_eq!(client.answer(asked).await.status(), status, "{origin}");
    }
    assert_eq!(client.event(stream).await.data(), "from a page");

    let asked = client.ask("GET", "/healthz", &[(":authority", "evil.example")], None);
    assert_eq!(client.answer(asked).await.status(), 421, "it is called by another's name");
    let refused = client.get("/ws").await;
    assert_eq!(refused.status(), 426, "a WebSocket takes a connection of its own");
    refused.problem();
}

/// What browsers have HTTP/2 for: any number of streams on one connection, each with its own events, and none that waits
/// for another which is not read.
#[actix_web::test]
async fn a_connection_has_many_streams() {
    const STREAMS: usize = 100;
    const CHANNELS: usize = 10;
    let certificate = Certificate::make();
    let hub = start(&certificate, &[]);
    let mut client = Http2::connect(hub.addr, &certificate).await;
    let streams: Vec<_> = (0..STREAMS)
        .map(|n| client.open(&format!("/events?channel=all&channel=c/{}", n % CHANNELS), &[]))
        .collect();
    for &stream in &streams {
        client.welcome(stream).await;
    }
    assert_eq!(
        client.get("/status").await.json()["connections"],
        json!({"sse": STREAMS, "ws": 0, "stream": 0})
    );

    // More than a client's window and the hub's buffers hold for a stream.
    let stalled = client.open("/events?channel=big", &[]);
    client.welcome(stalled).await;
    client.pause(stalled);
    let large = "x".repeat(200 << 10);
    for _ in 0..20 {
        assert_eq!(client.publish(&event("big", &large)).await.status(), 200);
    }
    for n in 0..CHANNELS {
        assert_eq!(client.publish(&event(&format!("c/{n}"), &format!("for {n}"))).await.status(), 200);
    }
    assert_eq!(client.publish(&event("all", "last")).await.status(), 200);
    for (n, &stream) in streams.iter().enumerate() {
        let got = [client.event(stream).await.data, client.event(stream).await.data];
        assert_eq!(got, [Some(format!("for {}", n % CHANNELS)), Some("last".into())]);
    }
    client.resume(stalled);
    for n in 0..20 {
        assert_eq!(client.event(stalled).await.data().len(), large.len(), "number {n}");
    }
}

/// The server looks at a stream of HTTP/2 when it has something for it: whoever gave a stream up, or left with all of them,
/// is gone with the next heartbeat, and those that stay are not touched.
#[actix_web::test]
async fn who_gave_a_stream_up_is_gone_within_two_heartbeats() {
    let certificate = Certificate::make();
    let hub = start(&certificate, &["--heartbeat", "1s"]);
    let mut watcher = Http2::connect(hub.addr, &certificate).await;
    let mut client = Http2::connect(hub.addr, &certificate).await;
    let streams: Vec<_> = (0..10).map(|_| client.open("/events?channel=a", &[])).collect();
    for &stream in &streams {
        client.welcome(stream).await;
    }
    watcher.until_clients(10, SECOND).await;
    for &stream in &streams[..5] {
        client.reset(stream);
    }
    let took = watcher.until_clients(5, 2 * SECOND).await;
    assert_eq!(watcher.publish(&event("a", "on")).await.status(), 200);
    for &stream in &streams[5..] {
        assert_eq!(client.event(stream).await.data(), "on");
    }
    client.cut();
    let cut = watcher.until_clients(0, 2 * SECOND).await;
    println!("gone after {took:?}, and with the connection after {cut:?}");
    let closed = watcher.get("/status").await.json()["closed"].clone();
    assert_eq!(closed["client"], 10, "{closed}");
}

/// A hub that goes ends the streams of a connection one by one, each with its last word and in good order, and does not
/// wait for the connections, which stay open.
#[actix_web::test]
async fn streams_of_a_connection_are_told_to_go() {
    const STREAMS: usize = 100;
    let certificate = Certificate::make();
    let mut hub = start(&certificate, &["--drain", "30s"]);
    let mut client = Http2::connect(hub.addr, &certificate).await;
    let streams: Vec<_> = (0..STREAMS).map(|_| client.open("/events?channel=a", &[])).collect();
    for &stream in &streams {
        client.welcome(stream).await;
    }
    let begin = Instant::now();
    hub.terminate();
    while client.get("/readyz").await.status() != 503 {
        assert!(begin.elapsed() < SECOND, "still ready");
    }
    let late = client.open("/events?channel=a", &[]);
    let refused = client.get("/events?channel=a&strict=1").await;
    assert_eq!(refused.status(), 503);
    for &stream in [late].iter().chain(&streams) {
        let mut retry = None;
        let closing = loop {
            let block = client.block(stream).await.expect("a last word");
            retry = block.retry.or(retry);
            if block.is("$closing") {
                break block;
            }
        };
        assert_eq!(closing.data(), r#"{"reason":"draining"}"#);
        assert!(retry > Some(20_000), "beyond the drain: {retry:?}");
        assert_eq!(client.block(stream).await, None);
        assert_eq!(client.end(stream).await, "clean");
    }
    while hub.child.try_wait().expect("a child").is_none() {
        assert!(begin.elapsed() < 10 * SECOND, "it waits for the connection");
        tokio::time::sleep(SECOND / 100).await;
    }
    println!("gone after {:?}", begin.elapsed());
    assert_eq!(hub.child.wait().expect("a child").code(), Some(0));
}

/// A curl that reads a stream until it is killed.
struct Curl(Child, BufReader<std::process::ChildStdout>);

impl Curl {
    fn start(certificate: &Certificate, args: &[&str]) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--no-buffer", "--include", "--cacert"])
            .arg(certificate.cert());
        let mut child = curl.args(args).stdout(Stdio::piped()).spawn().expect("curl is installed");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self(child, output)
    }

    /// The next line that begins so.
    fn line(&mut self, with: &str) -> String {
        for line in self.1.by_ref().lines() {
            let line = line.expect("text");
            if line.starts_with(with) {
                return line;
            }
        }
        panic!("the end, and no line that begins with {with:?}");
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both versions are spoken, to whoever asks for either, and a cursor is good for both.
#[actix_web::test]
async fn curl_reads_in_both_versions() {
    let certificate = Certificate::make();
    let hub = start(&certificate, &[]);
    let mut publisher = Http2::connect(hub.addr, &certificate).await;
    let url = format!("https://localhost:{}/events?channel=a", hub.addr.port());
    let mut cursor = String::new();
    for (version, status) in
        [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")]
    {
        let header = format!("last-event-id: {cursor}");
        let mut curl = Curl::start(&certificate, &[version, "--header", &header, &url]);
        curl.line(status);
        curl.line("event: $welcome");
        if !cursor.is_empty() {
            curl.line("data: missed");
        }
        assert_eq!(publisher.publish(&event("a", version)).await.status(), 200);
        let id = curl.line("id: ");
        cursor = id.trim_start_matches("id: ").to_owned();
        curl.line(&format!("data: {version}"));
        drop(curl);
        assert_eq!(publisher.publish(&event("a", "missed")).await.status(), 200);
    }
}

/// A WebSocket over TLS, as a client that others wrote opens them.
#[actix_web::test]
async fn a_socket_over_tls_is_a_socket() {
    let certificate = Certificate::make();
    let hub = start(&certificate, &["--drain", "2s"]);
    let mut publisher = Http2::connect(hub.addr, &certificate).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
    let mut python = Command::new(folder.join("python/bin/python"))
        .arg(folder.join("sockets.py"))
        .args(["follow", &format!("wss://localhost:{}/ws", hub.addr.port()), "w"])
        .env("SSL_CERT_FILE", certificate.cert())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python is there: scripts/test sees to it");
    let mut lines = BufReader::new(python.stdout.take().expect("piped")).lines();
    let mut next =
        || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(next()["subprotocol"], "fanfare.v1.json");
    assert_eq!(next()["message"]["op"], "welcome");
    assert_eq!(next()["message"]["op"], "subscribed");
    assert_eq!(publisher.publish(&event("w", "over TLS")).await.status(), 200);
    assert_eq!(next()["message"]["data"], "over TLS");
    hub.terminate();
    assert_eq!(next()["message"]["op"], "closing");
    assert_eq!(next()["received"][0], 1012);
    assert!(python.wait().expect("a child").success());
}

/// What a peer can hold is bounded below TLS too: the kernel's buffer for it is as small as without.
#[actix_web::test]
async fn sockets_below_tls_are_tuned() {
    let certificate = Certificate::make();
    let hub = start(&certificate, &[]);
    let mut client = Http2::connect(hub.addr, &certificate).await;
    assert_eq!(client.get("/healthz").await.status(), 200);
    let filter = format!("sport = :{}", hub.addr.port());
    let ss = Command::new("ss").args(["-tnm", "state", "established", &filter]).output();
    let sockets = String::from_utf8(ss.expect("ss is installed").stdout).expect("text");
    // The kernel doubles what it is asked for.
    assert!(sockets.contains(",tb131072,"), "{sockets}");
}

/// With a certificate nothing is said in the clear, neither at the address for all nor at that for those who watch, and the
/// hub says where it is.
#[actix_web::test]
async fn nothing_is_said_in_the_clear() {
    let certificate = Certificate::make();
    let settings = certificate.settings();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log", "memory"])
        .args(&settings)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the hub starts");
    let mut greeting = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    for _ in 0..4 {
        output.read_line(&mut greeting).expect("a greeting");
    }
    let mut hub = Hub { addr: ([127, 0, 0, 1], 0).into(), child };
    assert_eq!(greeting.matches("https://127.0.0.1:").count(), 4, "{greeting}");
    assert!(!greeting.contains("http://"), "{greeting}");
    let address = |after: &str| -> std::net::SocketAddr {
        let (_, rest) = greeting.split_once(after).expect(after);
        rest.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
    };
    hub.addr = address("serves https://");
    for (addr, path) in [(hub.addr, "/events"), (address("status: https://"), "/readyz")] {
        let mut socket = TcpStream::connect(addr).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(10 * SECOND, socket.read_to_end(&mut answer)).await;
        read.expect("an end").expect("readable");
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut watcher = Http2::connect(address("status: https://"), &certificate).await;
    assert_eq!(watcher.get("/readyz").await.body, "ready\n");
    assert_eq!(watcher.get("/status").await.status(), 200);
}

/// What is wrong with a certificate or its key is said at the start, with the setting and the file, and without what is in
/// it; nothing is left behind.
#[test]
fn a_bad_certificate_is_refused_by_its_name() {
    let [ours, theirs] = [Certificate::make(), Certificate::make()];
    let text = |path: std::path::PathBuf| path.to_str().expect("text").to_owned();
    let write = |name: &str, text: &str| {
        let path = ours.folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let secret = std::fs::read_to_string(ours.key()).expect("a key");
    let line = secret.lines().nth(1).expect("a line of the key");
    let empty = write("empty.pem", "");
    let broken = write("broken.pem", &format!("-----BEGIN PRIVATE KEY-----\n{line}\n"));
    let odd =
        write("odd.pem", &format!("-----BEGIN PRIVATE KEY-----{line}\n{line}!\n-----END PRIVATE KEY-----\n"));
    let not_one = write("not-one.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let folder = text(ours.folder.clone());
    let log = text(ours.folder.join("events.db"));
    let [cert, key] = [text(ours.cert()), text(ours.key())];
    for (cert, key, parts) in [
        (&*cert, &*text(theirs.key()), ["--tls-key", "is not the key of --tls-cert"]),
        (&*cert, &*cert, ["--tls-key", "no private key"]),
        (&*cert, &*empty, ["--tls-key", "empty.pem: holds no private key"]),
        (&*cert, &*broken, ["--tls-key", "broken.pem: holds no private key"]),
        (&*cert, &*odd, ["--tls-key", "odd.pem: holds no private key"]),
        (&*cert, "/nonexistent/key.pem", ["--tls-key", "/nonexistent/key.pem: cannot be read"]),
        (&*key, &*key, ["--tls-cert", "key.pem: holds no certificate"]),
        (&*empty, &*key, ["--tls-cert", "empty.pem: holds no certificate"]),
        (&*not_one, &*key, ["--tls-cert", "not-one.pem: its first certificate cannot be read"]),
        (&*folder, &*key, ["--tls-cert", "cannot be read"]),
    ] {
        let settings = ["--listen", "127.0.0.1:0", "--log", &log, "--tls-cert", cert, "--tls-key", key];
        let output = Command::new(env!("CARGO_BIN_EXE_fanfare")).arg("serve").args(settings).output();
        let output = output.expect("the hub starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        assert!(!said.contains(line), "it shows the key: {said}");
    }
    assert!(!Path::new(&log).exists());
}
