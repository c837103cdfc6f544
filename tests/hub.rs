//! The hub as its user has it: a program, its settings, and what it prints.

mod support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::hub::Hub;
use support::order::nth;
use support::prometheus::Metrics;
use support::sse::SseClient;

fn fanfare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.stdin(Stdio::null());
    command
}

/// What the hub prints is what a newcomer types: the `curl` lines work as they stand.
#[actix_web::test]
async fn the_printed_curl_lines_work() {
    let mut hub = fanfare()
        .args(["--listen", "127.0.0.1:0", "--log", "memory"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = hub.stdout.take().expect("piped");
    let mut printed = String::new();
    while printed.matches('\n').count() < 3 {
        let mut piece = [0; 1024];
        let count = stdout.read(&mut piece).expect("readable");
        assert!(count > 0, "ended after {printed:?}");
        printed.push_str(std::str::from_utf8(&piece[..count]).expect("text"));
    }
    let line = |name: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(name)).expect("a line");
        line.trim().to_owned()
    };
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("sh runs")
    };
    let mut subscriber = shell(&line("subscribe:"));
    let mut stream = subscriber.stdout.take().expect("piped");
    let mut text = String::new();
    let mut read_until = |wanted: &str| {
        while !text.contains(wanted) {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).expect("readable");
            assert!(count > 0, "ended after {text:?}");
            text.push_str(std::str::from_utf8(&piece[..count]).expect("text"));
        }
    };
    read_until("$welcome");
    let published = shell(&line("publish:")).wait_with_output().expect("ends");
    assert!(published.status.success());
    assert!(String::from_utf8_lossy(&published.stdout).contains("\"duplicate\":false"));
    read_until("data: {\"hello\":\"world\"}\n\n");
    for child in [&mut subscriber, &mut hub] {
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

/// Nobody has to read what it prints.
#[actix_web::test]
async fn a_greeting_that_cannot_be_written_is_no_reason_to_stop() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let mut hub =
        fanfare().args(["--listen", "127.0.0.1:0", "--log", "memory"]).stdout(full).spawn().expect("starts");
    // Where it listens nobody is told; by then it has long tried to say it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(hub.try_wait().expect("a child").is_none());
    hub.kill().expect("killed");
    hub.wait().expect("ended");
}

/// SIGTERM: streams are ended with a time to come back, and the process goes with 0 well within the drain.
#[actix_web::test]
async fn told_to_stop_it_ends_its_streams_and_exits() {
    let mut hub = Hub::start(&["--drain", "5s"]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
        client.welcome().await;
        clients.push(client);
    }
    let start = Instant::now();
    hub.terminate();
    let mut retries = Vec::new();
    for client in &mut clients {
        let retry = client.block().await.and_then(|block| block.retry).expect("a fresh retry");
        assert!(retry > 5000, "beyond the drain: {retry}");
        retries.push(retry);
        assert_eq!(client.event().await.expect("last words").data(), r#"{"reason":"draining"}"#);
        assert_eq!(client.block().await, None);
    }
    let status = loop {
        if let Some(status) = hub.child.try_wait().expect("a child") {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status.code(), Some(0));
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 10, "they come back spread: {retries:?}");
}

/// Precedence from the outside: a flag over the environment, that over the file, that over the default.
#[actix_web::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("precedence.toml");
    std::fs::write(&file, "heartbeat = \"7s\"\nmax_selectors = 2\nmax_payload = \"1KiB\"\n")
        .expect("written");
    let mut hub = fanfare()
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "memory", "--heartbeat", "5s", "--config"])
        .arg(&file)
        .env("FANFARE_HEARTBEAT", "6s")
        .env("FANFARE_MAX_SELECTORS", "3")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(hub.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut stdout, &mut first).expect("a line");
    let addr = first
        .trim()
        .split_once("http://")
        .expect("a URL")
        .1
        .trim_end_matches('/')
        .parse()
        .expect("an address");
    let mut client = SseClient::open(addr, "/events?channel=a&channel=b&channel=c", &[]).await;
    assert_eq!(client.welcome().await.json()["heartbeat"], 5);
    let status = |path: &'static str| async move { support::http::get(addr, path).await.status() };
    assert_eq!(status("/events?channel=a&channel=b&channel=c&channel=d").await, 400);
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(1025));
    assert_eq!(support::http::post_json(addr, "/publish", &large).await.status(), 413);
    hub.kill().expect("killed");
    hub.wait().expect("ended");
}

/// What cannot be served is said at once, with the setting, and a code other than 0.
#[actix_web::test]
async fn what_cannot_be_served_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|addr| (addr.to_string(), taken)).expect("bound");
    for (args, part) in [
        (vec!["--listen", taken.0.as_str()], taken.0.as_str()),
        (vec!["--listen", "0.0.0.0:0"], "--insecure"),
        (vec!["--heartbeat", "1ms"], "heartbeat"),
        (vec!["--max-connektions", "1"], "--max-connektions"),
    ] {
        let output = fanfare().args(["--log", "memory"]).args(&args).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{args:?}: {said}");
    }
    let help = fanfare().args(["serve", "--help"]).output().expect("runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for setting in
        ["--listen", "127.0.0.1:8080", "--heartbeat", "15s", "--max-payload", "256KiB", "FANFARE_DRAIN"]
    {
        assert!(help.contains(setting), "{setting} is not in {help}");
    }
}

/// Anonymous clients are served by a loopback name only: no other site can reach the hub through a name of its own.
#[actix_web::test]
async fn a_foreign_host_is_misdirected() {
    let hub = Hub::start(&[]);
    for (host, status) in
        [("evil.example", 421), ("localhost.evil.example:80", 421), ("localhost", 200), ("[::1]:8080", 200)]
    {
        for path in [
            "/status",
            "/sessions",
            "/",
            "/page/main.js",
            "/page/page.css",
            "/healthz",
            "/readyz",
            "/metrics",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let mut socket = support::http::send_head(hub.addr, &request).await;
            let (head, _) = support::http::read_head(&mut socket).await;
            assert_eq!(head.status, status, "{host} {path}");
        }
    }
    // Whoever says who may do what serves by any name.
    let guarded = Hub::start(&["--jwt-key", "HS256:0123456789abcdef0123456789abcdef"]);
    let request = "GET /metrics HTTP/1.1\r\nhost: hub.example\r\nconnection: close\r\n\r\n";
    let mut socket = support::http::send_head(guarded.addr, request).await;
    assert_eq!(support::http::read_head(&mut socket).await.0.status, 200);
}

const WATCHED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
const ADMIN: [&str; 3] = ["/status", "/sessions", "/clients/01ARZ3NDEKTSV4RRFFQ69G5FAV"];

/// The metrics are open, as Prometheus wants them, and say what was done.
#[actix_web::test]
async fn metrics_are_served() {
    let hub = Hub::start(&["--jwt-key", "HS256:0123456789abcdef0123456789abcdef"]);
    let answer = support::http::get(hub.addr, "/metrics").await;
    assert_eq!(answer.head.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(Metrics::read(&answer.body).get("fanfare_published_total"), 0.0);
    let hub = Hub::start(&[]);
    let mut client = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    client.welcome().await;
    hub.publish(r#"{"channel":"a","data":"x"}"#).await;
    client.event().await.expect("an event");
    let metrics = Metrics::read(&support::http::get(hub.addr, "/metrics").await.body);
    for (name, value) in [
        ("published_total", 1.0),
        ("connections{transport=\"sse\"}", 1.0),
        ("delivered_total{transport=\"sse\"}", 1.0),
        ("delivery_seconds_count", 1.0),
        ("log_head", nth(1) as f64),
    ] {
        assert_eq!(metrics.get(&format!("fanfare_{name}")), value, "{name}");
    }
}

/// With an address of their own, what watches over the hub is there and nowhere else, and the rest is not there.
#[actix_web::test]
async fn admin_listen_moves_what_watches_over_the_hub() {
    let admin =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let hub = Hub::start(&["--admin-listen", &admin.to_string()]);
    hub.publish(r#"{"channel":"a","data":"x"}"#).await;
    for path in WATCHED.iter().chain(&ADMIN) {
        let public = support::http::get(hub.addr, path).await;
        assert_eq!(public.problem()["status"], 404, "{path}");
        let private = support::http::get(admin, path).await;
        assert_eq!(private.status(), if path.starts_with("/clients") { 404 } else { 200 }, "{path}");
    }
    let session = format!("/sessions/{}", fanfare::SessionId::mint());
    for (addr, status) in [(hub.addr, 404), (admin, 204)] {
        assert_eq!(support::http::request(addr, "DELETE", &session, &[], "").await.status(), status);
    }
    let status = support::http::get(admin, "/status").await.json();
    assert_eq!((&status["head"], &status["connections"]["sse"]), (&nth(1).into(), &0.into()));
    for path in ["/", "/events?channel=a", "/history?channel=a"] {
        assert_eq!(support::http::get(admin, path).await.status(), 404, "{path}");
    }
    assert_eq!(support::http::get(hub.addr, "/").await.status(), 200);
    let request = "GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let mut socket = support::http::send_head(admin, request).await;
    assert_eq!(support::http::read_head(&mut socket).await.0.status, 421);
}

/// Without an address of their own they are all at the public one.
#[actix_web::test]
async fn heads_are_answered() {
    let hub = Hub::start(&[]);
    for path in ["/", "/page/main.js", "/page/page.css", "/status", "/sessions"].iter().chain(&WATCHED) {
        let head = support::http::request(hub.addr, "HEAD", path, &[], "").await;
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.body.is_empty() && head.head.header("content-length") != Some("0"), "{path}");
        let post = support::http::request(hub.addr, "POST", path, &[], "").await;
        assert_eq!((post.status(), post.head.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
}

/// From the request to those who deliver, what is logged of a publish bears the request's name; only for those who want
/// it.
#[actix_web::test]
async fn a_publish_is_followed_by_its_name() {
    for (level, is_told) in [("debug", true), ("info", false)] {
        let mut child = fanfare()
            .args(["--listen", "127.0.0.1:0", "--log", "memory"])
            .env("RUST_LOG", level)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
        let first = lines.next().expect("a line").expect("text");
        let addr = first.split_once("http://").and_then(|(_, rest)| rest.trim_end_matches('/').parse().ok());
        let addr = addr.expect("an address");
        let mut client = SseClient::open(addr, "/events?channel=a", &[("x-request-id", "stream-7")]).await;
        client.welcome().await;
        let headers = [("content-type", "application/json"), ("x-request-id", "publish-7")];
        let body = r#"{"channel":"a","data":"x","id":"e-7"}"#;
        let answer = support::http::request(addr, "POST", "/publish", &headers, body).await;
        assert_eq!((answer.status(), answer.head.header("x-request-id")), (200, Some("publish-7")));
        client.event().await.expect("an event");
        drop(client);
        // It ends with all that it has to say.
        let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(told.expect("kill runs").success());
        let said = child.wait_with_output().expect("ended").stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        for part in ["to be published", "committed", "fanned out", "handed to those who follow it"] {
            let is_there = said.lines().any(|line| line.contains("publish-7") && line.contains(part));
            assert_eq!(is_there, is_told, "{part}: {said}");
        }
        assert_eq!(said.lines().any(|line| line.contains("stream-7")), is_told, "{said}");
        assert_eq!(said.contains("stream ends"), is_told, "{said}");
    }
}
