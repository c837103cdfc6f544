//! What is acknowledged stays: over `kill -9` in the middle of a flood, a backup put back, expiry, a full disk.
//!
//! The hub is a process of its own with its log in a file, and the clients see every byte. The flood is killed 5 times;
//! `FANFARE_CRASHES=20 cargo test --test crash` kills it 20 times, which is how it is run in full.
//!
//! The disks that are full or cannot be written are mounted for the test, which needs root.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, join3};
use rand::RngExt;
use serde::Deserialize;
use serde_json::{Value, json};
use support::disk::Disk;
use support::http;
use support::hub::Hub;
use support::order::{self, nth};
use support::sse::SseClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const CLIENTS: usize = 50;
const PUBLISHERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

fn crashes() -> usize {
    let wanted = std::env::var("FANFARE_CRASHES").ok();
    wanted.map_or(5, |wanted| wanted.parse().expect("FANFARE_CRASHES is a number"))
}

/// An empty folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

fn address() -> SocketAddr {
    let [address] = support::addresses();
    address
}

fn command(log: &Path, listen: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(["serve", "--listen", &listen.to_string()]).arg("--log").arg(log).args(args);
    command.args(order::hub_args(&["--log", &log.display().to_string()]));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Starts a hub and waits until it says that it is there.
fn start(log: &Path, listen: SocketAddr, args: &[&str]) -> Hub {
    let mut child = command(log, listen, args).env("RUST_LOG", "off").spawn().expect("the hub starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let hub = Hub { addr: listen, child };
    let first = lines.next().expect("the hub's greeting, not its end").expect("text");
    assert!(first.contains(&listen.to_string()), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    if order::is_nats() {
        order::until_ready(listen);
    }
    hub
}

/// Starts a hub that must not come up, and returns what it says.
fn refused(log: &Path) -> String {
    let mut command = command(log, address(), &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the hub starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it serves {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&log.display().to_string()), "it names the file {}: {said}", log.display());
    said
}

fn kill(mut hub: Hub) {
    hub.child.kill().expect("killed");
    hub.child.wait().expect("ended");
}

fn stop(mut hub: Hub) {
    hub.terminate();
    assert!(hub.child.wait().expect("ended").success());
}

/// The position that a cursor stands for.
fn number(cursor: &str) -> u64 {
    cursor.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a cursor")
}

async fn open(hub: &Hub, query: &str) -> SseClient {
    SseClient::open(hub.addr, &format!("/events?{query}"), &[]).await
}

async fn resume(hub: &Hub, query: &str, cursor: &str) -> SseClient {
    SseClient::open(hub.addr, &format!("/events?{query}"), &[("last-event-id", cursor)]).await
}

/// Publishes one event and returns its receipt.
async fn publish(hub: &Hub, channel: &str, data: impl Into<Value>) -> Value {
    let answer = hub.publish(&json!({"channel": channel, "data": data.into()}).to_string()).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()
}

fn cursor(receipt: &Value) -> String {
    receipt["cursor"].as_str().expect("a cursor").to_owned()
}

async fn expect_data<T: ToString>(client: &mut SseClient, expected: impl IntoIterator<Item = T>) {
    for expected in expected {
        assert_eq!(client.data().await, expected.to_string());
    }
}

async fn until(what: &str, within: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Envelope {
    id: String,
    seq: u64,
    prev: u64,
    channels: Vec<String>,
    attributes: BTreeMap<String, String>,
    data: Value,
}

impl Envelope {
    fn key(&self) -> &str {
        self.data.as_str().expect("text")
    }
}

/// All that the log keeps.
async fn whole_log(addr: SocketAddr, channel: &str) -> (Vec<Envelope>, String) {
    let (mut log, mut after) = (Vec::new(), String::new());
    loop {
        let answer = http::get(addr, &format!("/history?channel={channel}&limit=1000{after}")).await.json();
        assert_eq!(answer["gap"], Value::Null);
        log.extend(Vec::<Envelope>::deserialize(&answer["events"]).expect("envelopes"));
        let cursor = cursor(&answer);
        if answer["more"] == false {
            return (log, cursor);
        }
        after = format!("&after={cursor}");
    }
}

// The flood.

/// A stream that may be cut anywhere.
struct Stream {
    socket: TcpStream,
    raw: Vec<u8>,
    text: Vec<u8>,
}

impl Stream {
    /// Nothing if the hub is gone before it answers.
    async fn open(addr: SocketAddr, query: &str, header: Option<&str>) -> Option<Self> {
        let mut socket = TcpStream::connect(addr).await.ok()?;
        let header = header.map_or(String::new(), |cursor| format!("Last-Event-ID: {cursor}\r\n"));
        let request = format!("GET /events?{query} HTTP/1.1\r\nhost: {addr}\r\n{header}\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut stream = Self { socket, raw: Vec::new(), text: Vec::new() };
        let end = loop {
            if let Some(at) = stream.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            stream.fill().await?;
        };
        let head = String::from_utf8(stream.raw.drain(..end).collect()).expect("a head of text");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Some(stream)
    }

    /// The next whole block; nothing if the stream is cut before its end.
    async fn block(&mut self) -> Option<String> {
        loop {
            while let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") {
                let size = std::str::from_utf8(&self.raw[..line]).expect("a size");
                let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
                assert!(size > 0, "the hub ended a stream by itself");
                if self.raw.len() < line + 2 + size + 2 {
                    break;
                }
                self.text.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
                self.raw.drain(..line + 2 + size + 2);
            }
            if let Some(end) = self.text.windows(2).position(|window| window == b"\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                return Some(String::from_utf8(block).expect("UTF-8"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let mut piece = [0; 8192];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut piece)).await;
        let count = read.expect("at least a ping").ok().filter(|count| *count > 0)?;
        self.raw.extend_from_slice(&piece[..count]);
        Some(())
    }
}

/// What all who take part know of each other.
struct World {
    addr: SocketAddr,
    /// How often the hub has come up.
    starts: watch::Sender<usize>,
    /// Key and position of every acknowledged event.
    acknowledged: RefCell<Vec<(String, u64)>>,
    cursors: RefCell<Vec<String>>,
    /// Publishes that were answered.
    answers: Cell<usize>,
    is_over: Cell<bool>,
    /// The keys of publishes without ids that were never answered.
    unknown: RefCell<Vec<Vec<String>>>,
    /// The keys of each batch.
    batches: RefCell<Vec<Vec<String>>>,
    /// Publishes that were repeated, and those of them that had been stored all the same.
    repeated: Cell<usize>,
    stored_unanswered: Cell<usize>,
    resumes: Cell<usize>,
}

impl World {
    /// Waits until the hub has come up more than so many times.
    async fn risen(&self, than: usize) -> usize {
        let mut starts = self.starts.subscribe();
        let risen = tokio::time::timeout(2 * PATIENCE, starts.wait_for(|starts| *starts > than)).await;
        *risen.expect("the hub comes back").expect("the world lives")
    }
}

/// What a publisher sends at once.
struct Parcel {
    keys: Vec<String>,
    events: Vec<Value>,
    has_ids: bool,
    is_batch: bool,
    is_lines: bool,
    is_repeated: bool,
}

impl Parcel {
    fn new(publisher: usize, next: &mut usize) -> Self {
        let mut random = rand::rng();
        let (has_ids, is_batch) = (random.random(), random.random());
        let count = if is_batch { random.random_range(1..12) } else { 1 };
        let mut parcel = Self {
            keys: Vec::new(),
            events: Vec::new(),
            has_ids,
            is_batch,
            is_lines: is_batch && random.random(),
            is_repeated: false,
        };
        for _ in 0..count {
            *next += 1;
            let key = format!("p{publisher}-{next}");
            let c = format!("c/{}", random.random_range(0..8));
            let d = format!("d/{}/{}", random.random_range(0..4), ["x", "y"][random.random_range(0..2)]);
            let channels = match random.random_range(0..5) {
                0 => vec![c, d],
                1 | 2 => vec![d],
                _ => vec![c],
            };
            let kind = ["a", "b"][random.random_range(0..2)];
            let mut event = json!({"channels": channels, "data": key, "attributes": {"kind": kind}});
            if has_ids {
                event["id"] = key.as_str().into();
            }
            parcel.keys.push(key);
            parcel.events.push(event);
        }
        parcel
    }

    fn request(&self, addr: SocketAddr) -> String {
        let (content_type, body) = match (self.is_batch, self.is_lines) {
            (false, _) => ("application/json", self.events[0].to_string()),
            (true, false) => ("application/json", Value::from(self.events.clone()).to_string()),
            (true, true) => {
                let lines: Vec<_> = self.events.iter().map(ToString::to_string).collect();
                ("application/x-ndjson", lines.join("\n"))
            }
        };
        format!(
            "POST /publish HTTP/1.1\r\nhost: {addr}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// The answer to a request on a connection that is kept; nothing if the hub is gone before.
async fn exchange(socket: &mut TcpStream, request: &str) -> Option<Value> {
    socket.write_all(request.as_bytes()).await.ok()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = std::str::from_utf8(&answer[..at]).expect("text").to_ascii_lowercase();
            let body = &answer[at + 4..];
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() == length.and_then(|length| length.parse::<usize>().ok()).expect("a length") {
                assert!(head.starts_with("http/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                return Some(serde_json::from_slice(body).expect("JSON"));
            }
        }
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut piece)).await;
        let count = read.expect("an answer").ok().filter(|count| *count > 0)?;
        answer.extend_from_slice(&piece[..count]);
    }
}

async fn publisher(world: &World, number: usize) {
    let (mut next, mut pending, mut starts) = (0, None::<Parcel>, 0);
    loop {
        starts = world.risen(starts).await;
        let Ok(mut socket) = TcpStream::connect(world.addr).await else { continue };
        socket.set_nodelay(true).expect("an option");
        while !world.is_over.get() || pending.is_some() {
            let mut parcel = pending.take().unwrap_or_else(|| Parcel::new(number, &mut next));
            let Some(answer) = exchange(&mut socket, &parcel.request(world.addr)).await else {
                if parcel.has_ids {
                    parcel.is_repeated = true;
                    pending = Some(parcel);
                } else {
                    world.unknown.borrow_mut().push(parcel.keys);
                }
                break;
            };
            take_receipts(world, &parcel, &answer);
        }
        if world.is_over.get() && pending.is_none() {
            return;
        }
    }
}

fn take_receipts(world: &World, parcel: &Parcel, answer: &Value) {
    let receipts =
        if parcel.is_batch { answer.as_array().expect("an array").clone() } else { vec![answer.clone()] };
    assert_eq!(receipts.len(), parcel.keys.len());
    let is_duplicate = receipts[0]["duplicate"] == true;
    for (receipt, key) in receipts.iter().zip(&parcel.keys) {
        assert_eq!(receipt["duplicate"], is_duplicate, "a batch is stored whole or not at all: {answer}");
        assert!(!parcel.has_ids || receipt["id"] == key.as_str(), "{answer}");
        let seq = receipt["seq"].as_u64().expect("a position");
        world.acknowledged.borrow_mut().push((key.clone(), seq));
        world.cursors.borrow_mut().push(cursor(receipt));
    }
    assert!(parcel.is_repeated || !is_duplicate, "{answer}");
    world.repeated.set(world.repeated.get() + usize::from(parcel.is_repeated));
    world.stored_unanswered.set(world.stored_unanswered.get() + usize::from(is_duplicate));
    world.answers.set(world.answers.get() + 1);
    world.batches.borrow_mut().push(parcel.keys.clone());
}

/// A client with channels of its own and a beginning of its own.
struct Client {
    selectors: Vec<String>,
    kind: Option<&'static str>,
    from: Option<&'static str>,
    cursor: Option<String>,
    /// The position that it began at, once it knows.
    began: Option<u64>,
    seen: Vec<(u64, String)>,
}

impl Client {
    fn new(number: usize) -> Self {
        let c = |number: usize| format!("c/{}", number % 8);
        let selectors = match number % 6 {
            0 => vec![c(number)],
            1 => vec![c(number), c(number + 3), format!("d/{}/x", number % 4)],
            2 => vec!["c/*".into()],
            3 => vec!["**".into()],
            4 => vec!["d/**".into(), c(number), "d/*/y".into()],
            _ => vec!["*/1".into(), format!("d/{}/*", number % 4)],
        };
        Self {
            selectors,
            kind: (number % 6 == 3 || number % 7 == 1).then_some("a"),
            from: [Some("earliest"), Some("now"), Some("7"), None][number / 6 % 4],
            cursor: None,
            began: None,
            seen: Vec::new(),
        }
    }

    fn wants(&self, event: &Envelope) -> bool {
        let is_everyones = event.channels.iter().any(|channel| channel == "$everyone");
        let is_kind = self.kind.is_none_or(|kind| event.attributes.get("kind").is_some_and(|is| is == kind));
        let is_followed = |channel: &String| self.selectors.iter().any(|selector| matches(selector, channel));
        is_everyones || is_kind && event.channels.iter().any(is_followed)
    }

    /// Follows until it is told the end, over however many crashes. It comes when the hub has come up so many times.
    async fn run(mut self, world: &World, comes_with: usize) -> Self {
        let mut starts = world.risen(comes_with - 1).await;
        if self.from.is_none() {
            until("a receipt", PATIENCE, async || !world.cursors.borrow().is_empty()).await;
            let cursors = world.cursors.borrow();
            let cursor = cursors[rand::rng().random_range(0..cursors.len())].clone();
            (self.began, self.cursor) = (Some(number(&cursor)), Some(cursor));
        }
        loop {
            if self.follow(world).await {
                return self;
            }
            starts = world.risen(starts).await;
        }
    }

    /// Follows until it is cut, or told the end, which is true.
    async fn follow(&mut self, world: &World) -> bool {
        let mut query: Vec<_> = self.selectors.iter().map(|selector| format!("channel={selector}")).collect();
        query.extend(self.kind.map(|kind| format!("filter=kind:{kind}")));
        query.extend(self.from.map(|from| format!("from={from}")));
        query.push("format=envelope".into());
        let by_header = rand::rng().random();
        let mut header = None;
        if let Some(cursor) = &self.cursor {
            world.resumes.set(world.resumes.get() + 1);
            if by_header {
                header = Some(cursor.clone());
            } else {
                query.push(format!("last_event_id={cursor}"));
            }
        }
        let Some(mut stream) = Stream::open(world.addr, &query.join("&"), header.as_deref()).await else {
            return false;
        };
        while let Some(block) = stream.block().await {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let id = field("id: ");
            if let Some(notice) = field("event: $") {
                assert_eq!(notice, "welcome", "{block}");
                let position = number(id.expect("a position"));
                let expected = self.cursor.as_deref().map(number);
                assert!(expected.is_none_or(|expected| expected == position), "{expected:?}: {block}");
                self.began.get_or_insert(position);
            } else if let Some(data) = field("data: ") {
                let event: Envelope = serde_json::from_str(data).expect("an envelope");
                assert_eq!(Some(event.seq), id.map(number), "{block}");
                self.seen.push((event.seq, event.key().to_owned()));
                if event.key() == "end" {
                    return true;
                }
            }
            if let Some(id) = id {
                self.cursor = Some(id.to_owned());
            }
        }
        false
    }
}

/// The contract's own words: `*` is one segment, `**` any number of them.
fn matches(selector: &str, channel: &str) -> bool {
    let (mut selector, mut channel) = (selector.split('/'), channel.split('/'));
    loop {
        match (selector.next(), channel.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some(wanted), Some(segment)) if wanted == "*" || wanted == segment => {}
            _ => return false,
        }
    }
}

/// Kills the hub in the middle of things, again and again, and leaves it running at the end.
async fn reaper(world: &World, mut hub: Hub, log: &Path, crashes: usize) -> Hub {
    for _ in 0..crashes {
        let enough = world.answers.get() + rand::rng().random_range(30..150);
        until("publishes are answered", PATIENCE, async || world.answers.get() >= enough).await;
        kill(hub);
        hub = start(log, world.addr, &["--heartbeat", "200ms"]);
        world.starts.send_modify(|starts| *starts += 1);
    }
    let enough = world.answers.get() + 100;
    until("publishes are answered", PATIENCE, async || world.answers.get() >= enough).await;
    world.is_over.set(true);
    hub
}

/// H5, and H2 as far as it shows from outside: whatever the moment of a crash, every acknowledged event reaches everybody who wants it once, in
/// one order for all, and no number is given twice.
#[actix_web::test]
async fn nothing_acknowledged_is_lost_over_crashes() {
    let (folder, crashes) = (folder("crash"), crashes());
    let log = folder.join("hub.db");
    let world = World {
        addr: address(),
        starts: watch::Sender::new(1),
        acknowledged: RefCell::default(),
        cursors: RefCell::default(),
        answers: Cell::default(),
        is_over: Cell::default(),
        unknown: RefCell::default(),
        batches: RefCell::default(),
        repeated: Cell::default(),
        stored_unanswered: Cell::default(),
        resumes: Cell::default(),
    };
    let hub = start(&log, world.addr, &["--heartbeat", "200ms"]);
    let publishing = async {
        join_all((0..PUBLISHERS).map(|number| publisher(&world, number))).await;
        let answer = http::post_json(world.addr, "/publish", r#"{"everyone":true,"data":"end"}"#).await;
        assert_eq!(answer.status(), 200);
    };
    let following =
        join_all((0..CLIENTS).map(|number| Client::new(number).run(&world, number % crashes.max(1) + 1)));
    let started = Instant::now();
    let all = join3(reaper(&world, hub, &log, crashes), publishing, following);
    let (hub, (), clients) = all.await;
    let took = started.elapsed();

    // One log, each event in it once, in an order that its numbers and `prev` bear out.
    let (events, _) = whole_log(world.addr, "**").await;
    let places: HashMap<&str, usize> =
        events.iter().enumerate().map(|(at, event)| (event.key(), at)).collect();
    assert_eq!(places.len(), events.len(), "each is stored once");
    let mut last = HashMap::new();
    for pair in events.windows(2) {
        assert!(pair[0].seq < pair[1].seq, "{pair:?}");
    }
    for event in &events {
        assert_eq!(event.prev, last.get(&event.channels[0]).copied().unwrap_or(0), "{event:?}");
        last.extend(event.channels.iter().map(|channel| (channel.clone(), event.seq)));
    }
    // All that was acknowledged is there, in its place; of the rest each publish is there whole or not at all.
    let acknowledged = world.acknowledged.borrow();
    for (key, seq) in acknowledged.iter() {
        assert_eq!(places.get(key.as_str()).map(|&at| events[at].seq), Some(*seq), "{key}");
    }
    let unique: HashSet<_> = acknowledged.iter().map(|(_, seq)| seq).collect();
    assert_eq!(unique.len(), acknowledged.len(), "no number is given twice");
    let unknown = world.unknown.borrow();
    let mut appeared = 0;
    for keys in world.batches.borrow().iter().chain(unknown.iter()) {
        let at: Vec<_> = keys.iter().filter_map(|key| places.get(key.as_str())).collect();
        assert!(at.is_empty() || at.len() == keys.len(), "{keys:?} at {at:?}");
        assert!(at.windows(2).all(|pair| *pair[0] + 1 == *pair[1]), "{keys:?} at {at:?}");
    }
    for keys in unknown.iter() {
        appeared += usize::from(places.contains_key(keys[0].as_str()));
    }
    let known: usize = acknowledged.len() + unknown.iter().flatten().count() + 1;
    assert!(events.len() <= known, "nothing came from nowhere");
    // And each client had what it wanted of that log, from where it began: all, once, in that order.
    let mut deliveries = 0;
    for client in &clients {
        let began = client.began.expect("a beginning");
        let wanted = events.iter().filter(|event| event.seq > began && client.wants(event));
        let wanted: Vec<_> = wanted.map(|event| (event.seq, event.key().to_owned())).collect();
        assert!(
            client.seen == wanted,
            "{:?} {:?} {:?} from {began}: first difference {:?}, {} seen, {} wanted",
            client.selectors,
            client.kind,
            client.from,
            client.seen.iter().zip(&wanted).find(|(seen, wanted)| seen != wanted),
            client.seen.len(),
            wanted.len()
        );
        assert!(client.from != Some("earliest") || began == 0);
        deliveries += wanted.len();
    }
    println!(
        "{crashes} crashes in {took:.1?}: {} events, {} of them acknowledged; {} publishes repeated, {} of them had \
         been stored; {} without ids never answered, {appeared} of them stored; {deliveries} deliveries over {} resumes",
        events.len(),
        acknowledged.len(),
        world.repeated.get(),
        world.stored_unanswered.get(),
        unknown.len(),
        world.resumes.get(),
    );
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

// A backup put back.

/// Makes the files of one log those of another.
fn copy(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        let _ = std::fs::remove_file(name(to));
        if name(from).exists() {
            std::fs::copy(name(from), name(to)).expect("copied");
        }
    }
}

/// Who has seen more than the backup knows is told so, also when the numbers are taken again; who has not misses nothing.
#[actix_web::test]
async fn a_backup_put_back_tells_those_who_were_ahead() {
    for is_clean in [true, false] {
        let folder = folder(if is_clean { "backup-clean" } else { "backup-killed" });
        let (log, backup, addr) = (folder.join("hub.db"), folder.join("backup.db"), address());
        let hub = start(&log, addr, &[]);
        let mut receipts = Vec::new();
        for n in 1..=10 {
            receipts.push(publish(&hub, ["a", "b"][n % 2], n).await);
        }
        if is_clean {
            stop(hub);
        } else {
            kill(hub);
        }
        copy(&log, &backup);

        let hub = start(&log, addr, &[]);
        for n in 11..=20 {
            receipts.push(publish(&hub, ["a", "b"][n % 2], n).await);
        }
        let mut client = resume(&hub, "channel=a", &cursor(&receipts[11])).await;
        client.welcome().await;
        let tail = client.event().await.expect("an event");
        assert_eq!(tail.data(), "14");
        let tail = tail.id.expect("a cursor");
        let (before, at, end) = (cursor(&receipts[4]), cursor(&receipts[9]), cursor(&receipts[19]));
        kill(hub);
        copy(&backup, &log);

        let hub = start(&log, addr, &[]);
        let mut kept = resume(&hub, "channel=a&channel=b", &before).await;
        kept.welcome().await;
        expect_data(&mut kept, 6..=10).await;
        let mut newest = resume(&hub, "channel=a&channel=b", &at).await;
        assert_eq!(number(&newest.welcome().await.id.expect("a position")), 10);
        for (round, head) in [(0, 10), (1, 25)] {
            for lost in [&tail, &end] {
                let asked = Instant::now();
                let mut told = resume(&hub, "channel=a", lost).await;
                assert_eq!(told.welcome().await.id, None, "a notice follows that carries the position");
                let reset = told.event().await.expect("a reset");
                assert!(reset.is("$reset"), "{reset:?}");
                assert_eq!(reset.json(), json!({"reason": "lost_term", "head": head}));
                assert!(asked.elapsed() < Duration::from_secs(1), "it need not wait for what never comes");
                let expected = (1..=head).filter(|n| n % 2 == 0).map(|n| if n > 10 { n + 100 } else { n });
                expect_data(&mut told, expected).await;
                // Told once.
                let mut again = resume(&hub, "channel=a", &reset.id.expect("a position")).await;
                assert!(again.welcome().await.id.is_some());

                let mut now = resume(&hub, "channel=a&from=now", lost).await;
                now.welcome().await;
                let reset = now.event().await.expect("a reset");
                assert_eq!(number(&reset.id.expect("a position")), head);
                let strict = resume(&hub, "channel=a&strict=1", lost).await;
                assert_eq!(strict.head.status, 410);
                let history = http::get(addr, &format!("/history?channel=a&after={lost}")).await;
                assert_eq!(history.status(), 410);
            }
            if round == 0 {
                for n in 11..=25 {
                    let receipt = publish(&hub, ["a", "b"][n % 2], n + 100).await;
                    assert_eq!(receipt["seq"], n, "the numbers of the lost tail are taken again");
                }
                expect_data(&mut kept, 111..=125).await;
                expect_data(&mut newest, 111..=125).await;
            }
        }
        let mut kept = resume(&hub, "channel=a&channel=b", &before).await;
        kept.welcome().await;
        expect_data(&mut kept, (6..=10).chain(111..=125)).await;
        kill(hub);
        std::fs::remove_dir_all(folder).expect("removed");
    }
}

// What is kept, and what is told of what is not.

/// H6: the state, then the stream from where the state was read, with a thousand publishes meanwhile.
#[actix_web::test]
async fn state_and_stream_fit_together() {
    const EVENTS: usize = 1000;
    const READERS: usize = 20;
    let folder = folder("state");
    let hub = start(&folder.join("hub.db"), address(), &[]);
    let published = Cell::new(0);
    let publishing = (0..4).map(|publisher| {
        let (hub, published) = (&hub, &published);
        async move {
            for n in (publisher..EVENTS).step_by(4) {
                publish(hub, ["a", "other"][n % 5 / 4], n).await;
                published.set(published.get() + 1);
            }
        }
    });
    let reading = (0..READERS).map(|reader| {
        let (hub, published) = (&hub, &published);
        async move {
            // Each while others are being published.
            let enough = reader * EVENTS / READERS;
            until("events are published", PATIENCE, async || published.get() >= enough).await;
            let (state, position) = whole_log(hub.addr, "a").await;
            let mut client = resume(hub, "channel=a&format=envelope", &position).await;
            client.welcome().await;
            let mut all: Vec<(u64, u64)> =
                state.iter().map(|event| (event.seq, event.data.as_u64().expect("a number"))).collect();
            let of_state = all.len();
            while all.len() < EVENTS * 4 / 5 {
                let event = client.event().await.expect("an event").json();
                all.push((event["seq"].as_u64().expect("one"), event["data"].as_u64().expect("a number")));
            }
            (of_state, all)
        }
    });
    let ((), read) =
        futures_util::future::join(async { drop(join_all(publishing).await) }, join_all(reading)).await;
    let (log, _) = whole_log(hub.addr, "a").await;
    let expected: Vec<_> =
        log.iter().map(|event| (event.seq, event.data.as_u64().expect("a number"))).collect();
    assert_eq!(expected.len(), EVENTS * 4 / 5);
    for (_, all) in &read {
        assert!(*all == expected);
    }
    let raced = read.iter().filter(|(of_state, _)| (1..expected.len()).contains(of_state)).count();
    assert!(raced > READERS / 2, "{raced} of {READERS} raced");
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

const RULES: [&str; 6] = [
    "--retention",
    "one=limits:max_events=1",
    "--retention",
    "aged=limits:max_age=200ms",
    "--retention",
    "small=limits:max_bytes=1B",
];

/// H3 over restarts: numbers go on when everything of a channel is gone.
#[actix_web::test]
async fn numbers_go_on_after_everything_is_gone() {
    let folder = folder("expiry");
    let (log, addr) = (folder.join("hub.db"), address());
    let mut last = 0;
    for _ in 0..3 {
        let hub = start(&log, addr, &RULES);
        for channel in ["one", "aged", "small"] {
            for n in 0..3 {
                let seq = publish(&hub, channel, n).await["seq"].as_u64().expect("a position");
                assert!(seq > last, "{seq} after {last}");
                last = seq;
            }
        }
        let count = async |channel: &str| {
            let answer = http::get(addr, &format!("/history?channel={channel}")).await.json();
            assert_eq!(answer["gap"], Value::Null, "who asks from the beginning asks for what there is");
            answer["events"].as_array().expect("an array").len()
        };
        assert_eq!((count("one").await, count("small").await), (1, 0));
        until("all are gone by age", PATIENCE, async || count("aged").await == 0).await;
        kill(hub);
    }
    let hub = start(&log, addr, &RULES);
    let mut client = open(&hub, "channel=aged&format=envelope").await;
    client.welcome().await;
    let first = publish(&hub, "aged", "first").await["seq"].as_u64().expect("a position");
    let second = publish(&hub, "aged", "second").await["seq"].as_u64().expect("a position");
    assert!(first > last);
    let (one, two) = (client.event().await.expect("one").json(), client.event().await.expect("two").json());
    assert!(one["prev"].as_u64().is_some_and(|prev| prev > 0 && prev < last), "{one}");
    assert_eq!((&two["prev"], &two["seq"]), (&first.into(), &second.into()));
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

/// A gap is told when there is one, once, over restarts too; a channel that lost nothing has none.
#[actix_web::test]
async fn a_gap_is_told_once_and_a_quiet_channel_has_none() {
    let folder = folder("gap");
    let (log, addr) = (folder.join("hub.db"), address());
    let hub = start(&log, addr, &RULES);
    let quiet = publish(&hub, "quiet", "old").await;
    for n in 1..=5 {
        publish(&hub, "aged", n).await;
    }
    let first = publish(&hub, "aged", 6).await;
    let head = publish(&hub, "aged", 7).await["seq"].as_u64().expect("a position");
    let is_gone = async || {
        let answer = http::get(addr, "/history?channel=aged").await.json();
        answer["events"].as_array().expect("an array").is_empty()
    };
    until("all are gone by age", PATIENCE, is_gone).await;

    // What the hub still has in memory it hands out all the same; after a restart there is only the file.
    let mut hub = hub;
    for round in 1..=2usize {
        kill(hub);
        hub = start(&log, addr, &RULES);
        let mut client = resume(&hub, "channel=aged", &cursor(&first)).await;
        assert_eq!(client.welcome().await.id, None);
        let gap = client.event().await.expect("a gap");
        assert!(gap.is("$gap"), "{gap:?}");
        let expected = json!({"reason": "expired", "after": first["seq"], "resumed_at": head, "head": head + nth(round - 1)});
        assert_eq!(gap.json(), expected);
        let position = gap.id.expect("a position");
        assert_eq!(number(&position), head);
        let mut again = resume(&hub, "channel=aged", &position).await;
        assert_eq!(again.welcome().await.id.as_deref().map(number), Some(head));
        let mut strict = resume(&hub, "channel=aged&strict=1", &position).await;
        strict.welcome().await;
        assert_eq!(resume(&hub, "channel=aged&strict=1", &cursor(&first)).await.head.status, 410);
        let history =
            http::get(addr, &format!("/history?channel=aged&after={}", cursor(&first))).await.json();
        assert_eq!(history["gap"], expected);

        // Never published to, published to and read, and published to beyond the cursor: nothing is lost of any.
        let old = cursor(&quiet);
        for query in ["channel=never", "channel=quiet", "channel=quiet&channel=never&channel=qu*"] {
            let mut client = resume(&hub, query, &old).await;
            assert_eq!(client.welcome().await.id.as_deref().map(number), Some(number(&old)), "{query}");
        }
        // And what comes next comes to those who were told and to those who had nothing to be told.
        let mut unaware = resume(&hub, "channel=quiet", &old).await;
        unaware.welcome().await;
        expect_data(&mut unaware, 1..round).await;
        publish(&hub, "quiet", round).await;
        expect_data(&mut unaware, [round]).await;
    }
    let mut client = resume(&hub, "channel=aged&channel=quiet", &cursor(&first)).await;
    client.welcome().await;
    let gap = client.event().await.expect("a gap");
    assert!(gap.is("$gap"), "{gap:?}");
    expect_data(&mut client, 1..=2).await;
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

/// H10: a clock that is set back by an hour changes nothing in order or resume. To the hub, a file whose times are all
/// an hour ahead is just that.
#[actix_web::test]
async fn a_clock_set_back_changes_nothing() {
    let folder = folder("clock");
    let (log, addr) = (folder.join("hub.db"), address());
    let hub = start(&log, addr, &[]);
    let mut first = None;
    for n in 1..=10 {
        let body = json!({"channel": "a", "data": n, "id": format!("e{n}")}).to_string();
        let answer = hub.publish(&body).await;
        assert_eq!(answer.status(), 200);
        first.get_or_insert(answer.json());
    }
    stop(hub);
    let database = rusqlite::Connection::open(&log).expect("a database");
    let hour = "UPDATE events SET time = time + 3600000; UPDATE ids SET time = time + 3600000;
                UPDATE channels SET due = due + 3600000;";
    database.execute_batch(hour).expect("an hour ahead");
    database.close().expect("closed");

    let hub = start(&log, addr, &[]);
    let mut client = resume(&hub, "channel=a", &cursor(&first.expect("one"))).await;
    client.welcome().await;
    expect_data(&mut client, 2..=10).await;
    for n in 11..=20 {
        assert_eq!(publish(&hub, "a", n).await["seq"], nth(n));
    }
    expect_data(&mut client, 11..=20).await;
    let again = hub.publish(r#"{"channel":"a","data":1,"id":"e1"}"#).await.json();
    assert_eq!((&again["seq"], &again["duplicate"]), (&nth(1).into(), &true.into()));
    let (all, _) = whole_log(addr, "a").await;
    assert!(all.iter().map(|event| event.seq).eq((1..=20).map(nth)) && all[0].id == "e1");
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

// Files and disks that do not serve.

#[actix_web::test]
async fn a_second_hub_on_the_same_file_is_refused() {
    let folder = folder("second");
    let (log, addr) = (folder.join("hub.db"), address());
    let hub = start(&log, addr, &[]);
    publish(&hub, "a", "kept").await;
    let said = refused(&log);
    assert!(said.contains("open in another process"), "{said}");
    publish(&hub, "a", "unharmed").await;
    kill(hub);
    // Nothing of the one that was killed is in the way.
    let hub = start(&log, addr, &[]);
    let mut client = open(&hub, "channel=a&from=earliest").await;
    client.welcome().await;
    expect_data(&mut client, ["kept", "unharmed"]).await;
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[actix_web::test]
async fn a_file_that_cannot_serve_is_named() {
    let folder = folder("files");
    let text = folder.join("notes.txt");
    let words = "These are my notes, and no database. ".repeat(100);
    std::fs::write(&text, &words).expect("written");
    let said = refused(&text);
    assert!(said.contains("not a database"), "{said}");
    assert_eq!(std::fs::read_to_string(&text).expect("there"), words, "it is left alone");

    let other = folder.join("other.db");
    let database = rusqlite::Connection::open(&other).expect("a database");
    database.execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES (1);").expect("a table");
    database.close().expect("closed");
    let said = refused(&other);
    assert!(said.contains("another program"), "{said}");

    let directory = folder.join("directory");
    std::fs::create_dir(&directory).expect("a folder");
    refused(&directory);
    refused(&folder.join("missing/hub.db"));

    let disk = Disk::mount("read-only", "8m");
    let log = disk.path.join("hub.db");
    let addr = address();
    let hub = start(&log, addr, &[]);
    publish(&hub, "a", "kept").await;
    stop(hub);
    disk.run("mount", &["-o", "remount,ro"]);
    let said = refused(&log);
    assert!(said.contains("writable"), "{said}");
    disk.run("mount", &["-o", "remount,rw"]);
    let hub = start(&log, addr, &[]);
    let mut client = open(&hub, "channel=a&from=earliest").await;
    client.welcome().await;
    expect_data(&mut client, ["kept"]).await;
    kill(hub);
    std::fs::remove_dir_all(folder).expect("removed");
}

/// A full disk stops publishes and nothing else; with room again, all goes on by itself.
#[actix_web::test]
async fn a_full_disk_stops_publishing_alone_and_it_goes_on_by_itself() {
    let disk = Disk::mount("full", "2m");
    disk.fill(1 << 20);
    let (log, addr) = (disk.path.join("hub.db"), address());
    let args = ["--heartbeat", "200ms"];
    let hub = start(&log, addr, &args);
    let ready = async |status: u16| http::get(addr, "/readyz").await.status() == status;
    let publish = async |n: usize| {
        let data = format!("{n} {}", "x".repeat(20_000));
        hub.publish(&json!({"channel": "a", "id": format!("e{n}"), "data": data}).to_string()).await
    };
    let mut live = open(&hub, "channel=a").await;
    live.welcome().await;
    let mut count = 0;
    let refusal = loop {
        let answer = publish(count).await;
        if answer.status() != 200 {
            break answer;
        }
        assert_eq!(answer.json()["duplicate"], false);
        count += 1;
        assert!(count < 200, "the disk has no end");
    };
    assert!(count > 10, "{count}");
    assert_eq!(refusal.status(), 503, "{refusal:?}");
    refusal.problem();
    assert!(
        refusal.head.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()),
        "{refusal:?}"
    );
    // Too little room for this event may be enough for a smaller one, and then it is ready.
    until("not ready", PATIENCE, async || {
        assert_eq!(publish(count).await.status(), 503);
        tokio::time::sleep(Duration::from_millis(20)).await;
        ready(503).await
    })
    .await;
    assert_eq!(http::get(addr, "/healthz").await.status(), 200);

    // Who is there has everything and stays, who comes is served, and it stays so.
    let expect = async |client: &mut SseClient, from: usize, to: usize| {
        for n in from..to {
            let data = client.data().await;
            assert_eq!(data.split(' ').next(), Some(n.to_string().as_str()));
        }
    };
    expect(&mut live, 0, count).await;
    let mut late = open(&hub, "channel=a&from=earliest").await;
    late.welcome().await;
    expect(&mut late, 0, count).await;
    for client in [&mut live, &mut late] {
        for _ in 0..5 {
            let block = client.block().await.expect("the stream goes on");
            assert_eq!(block.comment.as_deref(), Some("ping"), "{block:?}");
        }
    }
    assert_eq!(publish(count).await.status(), 503);
    assert!(ready(503).await);

    disk.free();
    until("ready again", PATIENCE, async || ready(200).await).await;
    for n in count..count + 10 {
        let answer = publish(n).await;
        assert_eq!((answer.status(), &answer.json()["duplicate"]), (200, &false.into()), "{answer:?}");
    }
    expect(&mut live, count, count + 10).await;
    expect(&mut late, count, count + 10).await;
    count += 10;

    // Without room it does not even start, and says why; nothing is lost by that either.
    kill(hub);
    disk.fill(4 << 20);
    let said = refused(&log);
    assert!(said.contains("full") && said.contains("free some space"), "{said}");
    disk.free();
    let hub = start(&log, addr, &args);
    let mut all = open(&hub, "channel=a&from=earliest").await;
    all.welcome().await;
    expect(&mut all, 0, count).await;
    let (events, _) = whole_log(addr, "a").await;
    assert!(events.iter().map(|event| event.id.clone()).eq((0..count).map(|n| format!("e{n}"))));
    kill(hub);
}
