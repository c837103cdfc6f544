//! A thousand clients whose connections are cut at random bytes, over a log in a file, with rings and queues far too
//! small: each sees each event of its channels once, in order.
//!
//! A client believes what `EventSource` believes: a block counts once it is whole, and only its id is come back with.
//! So a cut within a block must bring that block again, and a cut behind it must not.
//!
//! Some 50,000 deliveries; `FANFARE_CUT_DELIVERIES=1000000 cargo test --release --test cut -- --nocapture` for more.

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fanfare::{Batch, Broadcast, Broker, Event, SqliteLog};
use futures_util::future::{join, join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::order::ordered;
use support::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 1000;
const GROUPS: usize = 10;
/// Channels of each group, which is what a wildcard matches.
const MEMBERS: usize = 50;
const EXACT: usize = 4;
/// Every so many clients follow a whole group besides.
const WILD: usize = 20;
const PUBLISHERS: usize = 4;
/// Deliveries that the clients may be behind before the publishers wait for them.
const BACKLOG: usize = 4_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn deliveries() -> usize {
    let wanted = std::env::var("FANFARE_CUT_DELIVERIES").ok();
    wanted.map_or(50_000, |wanted| wanted.parse().expect("FANFARE_CUT_DELIVERIES is a number"))
}

/// What of the stream the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    ChunkSize,
    /// Behind a whole block.
    Between,
    /// Within a line that is an id, or data, or another field.
    Id,
    Data,
    Other,
    /// Behind a line, where the block could end.
    LineEnd,
}

const PLACES: [Place; 7] =
    [Place::Head, Place::ChunkSize, Place::Between, Place::Id, Place::Data, Place::Other, Place::LineEnd];

/// A stream as it comes, byte by byte.
#[derive(Default)]
struct Parser {
    head: Vec<u8>,
    has_head: bool,
    /// The line with a chunk's size, as far as it has come.
    size: Vec<u8>,
    /// Bytes of this chunk that are still to come, the line end behind it among them.
    chunk: usize,
    /// The last chunk has come.
    is_over: bool,
    block: Vec<u8>,
}

impl Parser {
    /// Takes a byte. Returns the block that it ends.
    fn take(&mut self, byte: u8) -> Option<String> {
        if !self.has_head {
            self.head.push(byte);
            self.has_head = self.head.ends_with(b"\r\n\r\n");
            if self.has_head {
                assert!(self.head.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&self.head));
            }
        } else if self.chunk == 0 {
            self.size.push(byte);
            if self.size.ends_with(b"\r\n") {
                let size = std::str::from_utf8(&self.size).expect("text").trim_end();
                let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
                self.is_over |= size == 0;
                self.chunk = size + 2;
                self.size.clear();
            }
        } else {
            self.chunk -= 1;
            if self.chunk >= 2 {
                self.block.push(byte);
                if self.block.ends_with(b"\n\n") {
                    return Some(String::from_utf8(std::mem::take(&mut self.block)).expect("UTF-8"));
                }
            }
        }
        None
    }

    fn place(&self) -> Place {
        if !self.has_head {
            return Place::Head;
        }
        if self.chunk <= 2 {
            return Place::ChunkSize;
        }
        if self.block.is_empty() {
            return Place::Between;
        }
        let line = self.block.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        match line {
            b"" => Place::LineEnd,
            line if line.starts_with(b"id") => Place::Id,
            line if line.starts_with(b"data") => Place::Data,
            _ => Place::Other,
        }
    }
}

/// What all of them did together.
#[derive(Default)]
struct Tally {
    delivered: Cell<usize>,
    connections: Cell<usize>,
    cuts: [Cell<usize>; PLACES.len()],
    ended_by_server: Cell<usize>,
    done: Cell<usize>,
}

fn add(cell: &Cell<usize>, count: usize) {
    cell.set(cell.get() + count);
}

struct Client {
    addr: SocketAddr,
    query: String,
    random: StdRng,
    cursor: Option<String>,
    /// The numbers of the events it has seen.
    seen: Vec<u32>,
    is_done: bool,
    tally: Rc<Tally>,
}

impl Client {
    async fn run(mut self) -> Vec<u32> {
        while !self.is_done {
            self.connect().await;
        }
        add(&self.tally.done, 1);
        self.seen
    }

    /// How many bytes the next connection lives: often less than a head, seldom a lot.
    fn life(&mut self) -> usize {
        match self.random.random_range(0..100) {
            0..20 => self.random.random_range(1..700),
            20..97 => self.random.random_range(500..3_000),
            _ => self.random.random_range(3_000..30_000),
        }
    }

    async fn connect(&mut self) {
        let mut socket = TcpStream::connect(self.addr).await.expect("connected");
        let Self { addr, query, cursor, .. } = &self;
        let (by_query, by_header) = match cursor {
            None => ("&from=earliest".to_owned(), String::new()),
            Some(cursor) if self.seen.len().is_multiple_of(2) => {
                (format!("&last_event_id={cursor}"), String::new())
            }
            // The query is as old as its page, as that of a browser is.
            Some(cursor) => ("&last_event_id=old.old.1".to_owned(), format!("last-event-id: {cursor}\r\n")),
        };
        let request = format!("GET /rt/events?{query}{by_query} HTTP/1.1\r\nhost: {addr}\r\n{by_header}\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        add(&self.tally.connections, 1);

        let (mut left, mut parser, mut piece) = (self.life(), Parser::default(), [0; 2048]);
        while left > 0 && !self.is_done {
            let most = left.min(piece.len());
            let read = tokio::time::timeout(PATIENCE, socket.read(&mut piece[..most])).await;
            let count = read.expect("at least a ping").expect("readable");
            if count == 0 || parser.is_over {
                add(&self.tally.ended_by_server, 1);
                return;
            }
            left -= count;
            for &byte in &piece[..count] {
                if let Some(block) = parser.take(byte) {
                    self.take(&block);
                }
            }
        }
        let place = PLACES.iter().position(|place| *place == parser.place()).expect("listed");
        add(&self.tally.cuts[place], 1);
        if self.random.random_range(0..3) > 0 {
            // Gone with a reset instead of a farewell.
            socket.set_zero_linger().expect("an option");
        }
    }

    fn take(&mut self, block: &str) {
        let mut lines = block.lines();
        if let Some(id) = lines.clone().find_map(|line| line.strip_prefix("id: ")) {
            self.cursor = Some(id.to_owned());
        }
        if let Some(notice) = lines.clone().find_map(|line| line.strip_prefix("event: $")) {
            assert!(matches!(notice, "welcome" | "closing"), "{block}");
            return;
        }
        match lines.find_map(|line| line.strip_prefix("data: ")) {
            None => {}
            Some("end") => self.is_done = true,
            Some(data) => {
                self.seen.push(data.parse().expect("a number"));
                add(&self.tally.delivered, 1);
            }
        }
    }
}

/// An event's number, then lines of some length, so that blocks are of many sizes.
fn payload(number: u32, random: &mut StdRng) -> String {
    let filler = match random.random_range(0..400) {
        0 => 6_000,
        1..100 => random.random_range(0..300),
        _ => 0,
    };
    format!("{number}\n{}\n", "x".repeat(filler))
}

#[actix_web::test]
async fn each_event_once_and_in_order_over_cuts_at_any_byte() {
    let path =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cut-{}.db", std::process::id()));
    let log = SqliteLog::open(&path).expect("a log");
    let builder = Broker::builder().ring(32, 64 << 10).feed(4, 8 << 10).heartbeat(Duration::from_secs(1));
    let server = serve(builder.log(ordered(log)));
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);

    // Which clients follow which channel.
    let mut follows = vec![BTreeSet::new(); CLIENTS];
    let mut clients = Vec::with_capacity(CLIENTS);
    let tally = Rc::new(Tally::default());
    for (number, follows) in follows.iter_mut().enumerate() {
        let mut query = Vec::new();
        for _ in 0..EXACT {
            let (group, member) = (random.random_range(0..GROUPS), random.random_range(0..MEMBERS));
            query.push(format!("channel=g{group}/{member}"));
            follows.insert(group * MEMBERS + member);
        }
        if number % WILD == 0 {
            let group = random.random_range(0..GROUPS);
            query.push(format!("channel=g{group}/{}", if number % (2 * WILD) == 0 { "*" } else { "**" }));
            follows.extend(group * MEMBERS..(group + 1) * MEMBERS);
        }
        clients.push(Client {
            addr: server.addr,
            query: query.join("&"),
            random: StdRng::seed_from_u64(random.random()),
            cursor: None,
            seen: Vec::new(),
            is_done: false,
            tally: tally.clone(),
        });
    }
    let mut followers = vec![0; GROUPS * MEMBERS];
    for &channel in follows.iter().flatten() {
        followers[channel] += 1;
    }

    let start = Instant::now();
    let (wanted, promised, next) = (deliveries(), Cell::new(0), Cell::new(0u32));
    let publishers = (0..PUBLISHERS).map(|_| {
        let (server, followers, tally, promised, next) = (&server, &followers, &tally, &promised, &next);
        let mut random = StdRng::seed_from_u64(random.random());
        async move {
            let mut published = Vec::new();
            let mut progress = (tally.delivered.get(), Instant::now());
            while promised.get() < wanted {
                if promised.get() > tally.delivered.get() + BACKLOG {
                    if progress.0 != tally.delivered.get() {
                        progress = (tally.delivered.get(), Instant::now());
                    }
                    assert!(progress.1.elapsed() < PATIENCE, "{} of {}", progress.0, promised.get());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let mut batch = Vec::new();
                let mut numbers = Vec::new();
                for _ in 0..random.random_range(1..8) {
                    let (channel, number) = (random.random_range(0..followers.len()), next.get());
                    next.set(number + 1);
                    add(promised, followers[channel]);
                    numbers.push((number, channel));
                    let event = Event::text("message", payload(number, &mut random)).expect("valid");
                    let name = format!("g{}/{}", channel / MEMBERS, channel % MEMBERS);
                    batch.push(Broadcast::channel(name, event).expect("valid"));
                }
                let receipts = server.broker.send(Batch::new(batch).expect("valid")).await;
                let receipts = receipts.expect("answered").expect("committed");
                let places = receipts.iter().map(|receipt| receipt.seq.expect("stored"));
                published.extend(places.zip(numbers));
            }
            published
        }
    });
    let publishing = async {
        let published = join_all(publishers).await;
        let end = Broadcast::everyone(Event::text("message", "end").expect("valid"));
        server.broker.send(end).await.expect("answered").expect("committed");
        published
    };
    let (published, seen) = join(publishing, join_all(clients.into_iter().map(Client::run))).await;
    let took = start.elapsed();

    let mut log: Vec<(u64, (u32, usize))> = published.into_iter().flatten().collect();
    log.sort_unstable();
    assert!(log.windows(2).all(|pair| pair[0].0 < pair[1].0), "positions are unique");
    let (mut gaps, mut duplicates, mut reordered) = (0, 0, 0);
    for (number, (seen, follows)) in seen.iter().zip(&follows).enumerate() {
        let expected = log.iter().map(|(_, event)| event).filter(|(_, channel)| follows.contains(channel));
        let expected: Vec<u32> = expected.map(|(number, _)| *number).collect();
        if *seen == expected {
            continue;
        }
        let (unique, all) = (seen.iter().collect::<BTreeSet<_>>(), expected.iter().collect::<BTreeSet<_>>());
        gaps += all.difference(&unique).count();
        duplicates += seen.len() - unique.len();
        reordered += usize::from(seen.len() == unique.len() && unique == all);
        println!("client {number}: {} seen of {}", seen.len(), expected.len());
    }
    let cuts: Vec<_> = PLACES.iter().zip(tally.cuts.iter().map(Cell::get)).collect();
    println!(
        "{} events, {} deliveries, {} connections in {took:.1?}; cuts {cuts:?}; {} ended by the server; \
         {gaps} gaps, {duplicates} duplicates, {reordered} reordered",
        log.len(),
        tally.delivered.get(),
        tally.connections.get(),
        tally.ended_by_server.get(),
    );
    assert_eq!((gaps, duplicates, reordered), (0, 0, 0));
    assert!(cuts.iter().all(|(_, count)| *count > 0), "cut everywhere: {cuts:?}");
    assert_eq!(tally.delivered.get(), promised.get());
    server.until(Duration::from_secs(5), |stats| stats.clients == 0).await;
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}
