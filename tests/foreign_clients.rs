//! Clients that others wrote, over a hub that is killed and started again: Chromium's own `EventSource`, the package
//! `eventsource` and the crate `eventsource-client`. Nothing is lost, nothing comes twice.
//!
//! Needs `chromium`, `chromedriver`, `node`, and what `npm ci` puts into `tests/foreign`; see `scripts/test`.

#![cfg(all(test, feature = "hub"))]

#[path = "support/webdriver.rs"]
mod webdriver;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use webdriver::{Browser, Driver};

/// A client comes back 2 to 5 seconds after a loss, and may find nobody there the first time.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_event_source_of_chromium_resumes_over_a_restart() {
    let mut hub = Hub::start("chromium", &[]);
    let driver = Driver::start();
    let browser = driver.browser();
    // The hub's page has a policy that lets it connect to the hub.
    browser.goto(&format!("http://{}/", hub.addr));
    follow_in(&browser, "/events?channel=numbers");
    resumes_over_a_restart(&mut hub, || seen_in(&browser));
}

#[test]
fn the_package_eventsource_resumes_over_a_restart() {
    let mut hub = Hub::start("package", &[]);
    let client = Follower::package(&format!("http://{}/events?channel=numbers", hub.addr));
    resumes_over_a_restart(&mut hub, || client.seen());
}

#[test]
fn the_crate_eventsource_client_resumes_over_a_restart() {
    let mut hub = Hub::start("crate", &[]);
    let client = Follower::krate(&format!("http://{}/events?channel=numbers", hub.addr));
    resumes_over_a_restart(&mut hub, || client.seen());
}

/// As the standard has it: the id of a block without data counts, and the block is no event.
#[test]
fn the_event_source_of_chromium_takes_the_cursor_of_a_ping() {
    let (mut hub, relay) = quiet_hub("chromium-ping");
    let driver = Driver::start();
    let browser = driver.browser();
    // Not the hub's page, which has streams of its own.
    browser.goto(&format!("http://{}/healthz", relay.addr));
    follow_in(&browser, "/events?channel=quiet");
    let came_back = comes_back_to_quiet(&mut hub, &relay, || seen_in(&browser));
    assert_eq!(came_back.last_event_id, came_back.of_ping);
}

/// It forgets the id of a block without data, and comes back with an older cursor, which is as good.
#[test]
fn the_package_eventsource_resumes_from_before_the_pings() {
    let (mut hub, relay) = quiet_hub("package-ping");
    let client = Follower::package(&format!("http://{}/events?channel=quiet", relay.addr));
    let came_back = comes_back_to_quiet(&mut hub, &relay, || client.seen());
    assert_eq!(came_back.last_event_id, came_back.of_welcome);
}

/// As the package does.
#[test]
fn the_crate_eventsource_client_resumes_from_before_the_pings() {
    let (mut hub, relay) = quiet_hub("crate-ping");
    let client = Follower::krate(&format!("http://{}/events?channel=quiet", relay.addr));
    let came_back = comes_back_to_quiet(&mut hub, &relay, || client.seen());
    assert_eq!(came_back.last_event_id, came_back.of_welcome);
}

/// Name and data of an event that a client has dispatched.
type Seen = (String, String);

/// Kills the hub while it is published to and followed, and looks at what the follower of `numbers` has seen.
fn resumes_over_a_restart(hub: &mut Hub, seen: impl Fn() -> Vec<Seen>) {
    let messages = || seen().into_iter().filter(|(name, _)| name == "message").count();
    until("the client is welcomed", || !seen().is_empty());
    let mut publisher = Publisher::start(hub.addr);
    publisher.go_to(1000);
    until("the client has seen some", || messages() >= 100);
    hub.kill();
    until("a publish fails", || publisher.failed.load(Ordering::SeqCst) > 0);
    let acknowledged = publisher.acknowledged.load(Ordering::SeqCst);
    println!("killed at {acknowledged} acknowledged and {} seen", messages());
    assert!((100..1000).contains(&acknowledged), "not in the middle");
    hub.restart();
    until("the client has seen what was published meanwhile", || messages() >= 1000);
    publisher.go_to(1500);
    until("the client is live", || messages() >= 1500);
    // Whatever came twice has come before this.
    publisher.go_to(1501);
    until("the client has seen the end", || messages() >= 1501);
    publisher.stop();

    let seen = seen();
    let (messages, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(name, _)| name == "message");
    let messages: Vec<_> = messages.into_iter().map(|(_, data)| data).collect();
    assert_eq!(messages, (1..=1501).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    let others: Vec<_> = others.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(others, ["$welcome", "$welcome"]);
}

/// The cursors of a client that came back.
struct CameBack {
    of_welcome: String,
    of_ping: String,
    last_event_id: String,
}

fn quiet_hub(name: &str) -> (Hub, Relay) {
    let hub = Hub::start(name, &["--heartbeat", "200ms"]);
    let relay = Relay::start(hub.addr);
    (hub, relay)
}

/// Moves the head while the client's channel is quiet, kills the hub after a ping has said so, and looks at what the
/// client asks for then. What it misses meanwhile, it gets.
fn comes_back_to_quiet(hub: &mut Hub, relay: &Relay, seen: impl Fn() -> Vec<Seen>) -> CameBack {
    until("the client is welcomed", || !seen().is_empty());
    let stream = relay.streams().remove(0);
    assert_eq!(header(&stream.request, "last-event-id"), None);
    let of_welcome = stream.answer.split_once("\nid: ").and_then(|(_, rest)| rest.lines().next());
    let of_welcome = of_welcome.expect("the id of the first block").to_owned();
    let mut of_ping = of_welcome.clone();
    for n in 1..=5 {
        let body = json!({"channel": format!("busy/{n}"), "data": n});
        of_ping = publish(hub.addr, &body).expect("published")["cursor"].as_str().expect("text").to_owned();
    }
    assert_ne!(of_ping, of_welcome);
    let ping = format!(": ping\nid: {of_ping}\n\n");
    until("two pings have told the head", || relay.streams()[0].answer.matches(&ping).count() >= 2);
    hub.kill();
    hub.restart();
    publish(hub.addr, &json!({"channel": "quiet", "data": "missed"})).expect("published");
    until("the client has seen what it missed", || seen().len() >= 3);

    let names: Vec<_> =
        seen().into_iter().map(|(name, data)| if name == "message" { data } else { name }).collect();
    assert_eq!(names, ["$welcome", "$welcome", "missed"]);
    let streams = relay.streams();
    assert_eq!(streams.len(), 2);
    let last_event_id = header(&streams[1].request, "last-event-id").expect("a cursor");
    CameBack { of_welcome, of_ping, last_event_id }
}

/// Polls; nothing here can be waited for otherwise.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const NAMES: [&str; 6] = ["message", "$welcome", "$gap", "$reset", "$lag", "$closing"];

/// Makes the page follow a stream.
fn follow_in(browser: &Browser<'_>, url: &str) {
    let names = json!(NAMES);
    browser.eval(&format!(
        "(window.seen = [], window.source = new EventSource('{url}'), \
         {names}.forEach((name) => source.addEventListener(name, (event) => seen.push([event.type, event.data]))))"
    ));
}

fn seen_in(browser: &Browser<'_>) -> Vec<Seen> {
    serde_json::from_value(browser.eval("window.seen")).expect("pairs")
}

/// A client that is a process and prints each event as a line of JSON.
struct Follower {
    child: Child,
    events: Receiver<Seen>,
    seen: RefCell<Vec<Seen>>,
}

impl Follower {
    fn package(url: &str) -> Self {
        let folder = foreign();
        let is_there = folder.join("node_modules/eventsource").is_dir();
        assert!(is_there, "run `npm ci` in {}, as scripts/test does", folder.display());
        Self::start(Command::new("node").arg(folder.join("resume.mjs")).arg(url))
    }

    fn krate(url: &str) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/foreign");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(foreign().join("eventsource-client/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status();
        assert!(built.expect("cargo runs").success());
        Self::start(Command::new(target.join("debug/eventsource-client-resume")).arg(url))
    }

    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; see scripts/test"));
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("JSON");
                let text = |field: &str| event[field].as_str().expect("text").to_owned();
                if tell.send((text("event"), text("data"))).is_err() {
                    break;
                }
            }
        });
        Self { child, events, seen: RefCell::default() }
    }

    fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen.borrow_mut();
        seen.extend(self.events.try_iter());
        seen.clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn foreign() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign")
}

/// A hub with its log in a file. Ends with the test, and its file too.
struct Hub {
    addr: SocketAddr,
    folder: PathBuf,
    args: Vec<String>,
    child: Child,
}

impl Hub {
    fn start(name: &str, args: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("foreign-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (child, addr) = Self::spawn("127.0.0.1:0", &folder, &args);
        Self { addr: addr.expect("it listens"), folder, args, child }
    }

    /// Starts a hub, and tells where it listens if it does.
    fn spawn(listen: &str, folder: &Path, args: &[String]) -> (Child, Option<SocketAddr>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--listen", listen, "--log"])
            .arg(folder.join("log.db"))
            .args(args)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the hub starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let url = lines.next();
        let addr = url.and_then(|line| line.split_once("http://")?.1.trim_end_matches('/').parse().ok());
        (child, addr)
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// On the same port, with the same file.
    fn restart(&mut self) {
        let start = Instant::now();
        loop {
            let (mut child, addr) = Self::spawn(&self.addr.to_string(), &self.folder, &self.args);
            if addr == Some(self.addr) {
                self.child = child;
                return;
            }
            let ended = child.wait();
            assert!(start.elapsed() < PATIENCE, "it does not start again: {ended:?}");
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Publishes one number after the other on a thread of its own, each under one id until it is acknowledged.
struct Publisher {
    orders: Sender<u32>,
    ordered: u32,
    acknowledged: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(addr: SocketAddr) -> Self {
        let (orders, numbers) = channel::<u32>();
        let (acknowledged, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (last, failures) = (acknowledged.clone(), failed.clone());
        let thread = std::thread::spawn(move || {
            for n in numbers {
                let start = Instant::now();
                let body = json!({"channel": "numbers", "id": format!("number-{n}"), "data": n});
                while let Err(error) = publish(addr, &body) {
                    failures.fetch_add(1, Ordering::SeqCst);
                    assert!(start.elapsed() < PATIENCE, "{n} cannot be published: {error}");
                    std::thread::sleep(Duration::from_millis(5));
                }
                last.store(n, Ordering::SeqCst);
            }
        });
        Self { orders, ordered: 0, acknowledged, failed, thread }
    }

    fn go_to(&mut self, last: u32) {
        for n in self.ordered + 1..=last {
            self.orders.send(n).expect("the publisher lives");
        }
        self.ordered = last;
    }

    fn stop(self) {
        drop(self.orders);
        self.thread.join().expect("all is acknowledged");
    }
}

/// One publish over a connection of its own; its receipt.
fn publish(addr: SocketAddr, body: &Value) -> Result<Value, Error> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let body = body.to_string();
    let head = format!("POST /publish HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n");
    let length = body.len();
    socket
        .write_all(format!("{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, receipt) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200") {
        return Err(Error::other(answer));
    }
    Ok(serde_json::from_str(receipt)?)
}

/// A wire between clients and a hub that tells what goes over it.
struct Relay {
    addr: SocketAddr,
    pieces: Receiver<Piece>,
    wires: RefCell<Vec<Wire>>,
}

/// What went over a connection, by the number of that.
enum Piece {
    Asked(usize, String),
    Answered(usize, String),
}

/// One connection.
#[derive(Debug, Clone, Default)]
struct Wire {
    request: String,
    answer: String,
}

impl Relay {
    fn start(hub: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (tell, pieces) = channel();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            // Without a hub, the client's connection is cut as well.
            let sockets = listener.incoming().map_while(Result::ok);
            let pairs = sockets.filter_map(|client| Some((client, TcpStream::connect(hub).ok()?)));
            for (number, (client, hub)) in pairs.enumerate() {
                let (asked, answered) = (tell.clone(), tell.clone());
                pump(&client, &hub, move |text| asked.send(Piece::Asked(number, text)).is_ok());
                pump(&hub, &client, move |text| answered.send(Piece::Answered(number, text)).is_ok());
            }
        });
        Self { addr, pieces, wires: RefCell::default() }
    }

    /// The connections that a stream was asked for on, in the order of their making, from there on.
    fn streams(&self) -> Vec<Wire> {
        let mut wires = self.wires.borrow_mut();
        for piece in self.pieces.try_iter() {
            let (Piece::Asked(number, _) | Piece::Answered(number, _)) = piece;
            if wires.len() <= number {
                wires.resize_with(number + 1, Wire::default);
            }
            match piece {
                Piece::Asked(_, text) => wires[number].request.push_str(&text),
                Piece::Answered(_, text) => wires[number].answer.push_str(&text),
            }
        }
        let streams = wires.iter().cloned().filter_map(|mut wire| {
            wire.request.drain(..wire.request.find("GET /events")?);
            wire.answer.drain(..wire.answer.find("text/event-stream").unwrap_or(wire.answer.len()));
            Some(wire)
        });
        streams.collect()
    }
}

/// Copies from one socket to another, and tells what it copies, until either ends or nobody listens.
fn pump(from: &TcpStream, to: &TcpStream, tell: impl Fn(String) -> bool + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
    std::thread::spawn(move || {
        let mut piece = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..count]).into_owned();
            // What has arrived has been told before.
            if !tell(text) || to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        for socket in [from, to] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
}

/// The value of a field of a request's head.
fn header(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.to_owned())
}
