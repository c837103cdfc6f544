//! The hand-off from replay to live, and back, as a model: the real feed, sink, ring, registry and store, and around them
//! queues in place of mailboxes, whose messages are handled in a random order that the actors could come to as well.
//!
//! What the actors themselves decide (`Broker::attach`, `Floor::deliver`, `Session::write_page`) is repeated here in
//! short; who changes it there changes it here. Each client checks every block that it reads:
//!
//! - it gets the stored events of its interest, each once and in order, but for those that retention has removed, and
//!   these are told with `$gap`;
//! - each id that it ever saw is a position that it has: a client that comes back with any of them gets the rest;
//! - ephemeral events come in order, and those that do not come are counted by `$lag`;
//! - what its worker writes to its socket itself comes in the same order as what it fetches;
//! - it is woken whenever there is something to read, and at the end nothing of it is left behind.
//!
//! A schedule is told by its seed. `FANFARE_MODEL_RUNS=1000000 cargo test --release --lib actors::model` tries that many.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::feed::{Feed, FeedBounds};
use super::log::{Numbering, Page, PageLimit, Sought, Store, Trim};
use super::registry::{Registry, Route};
use super::ring::{Ring, Slice};
use super::rounds::Rounds;
use super::session::Origin;
use super::sink::{Outlet, Pull, Sink};
use super::tally::SharedTally;
use crate::channel::{Channel, Reach, Selector};
use crate::counts::Transport;
use crate::cursor::{Lineage, Name, Seq, Timeline};
use crate::event::Event;
use crate::identity::{ClientId, Publisher, SessionId};
use crate::interest::{Filter, Interest, Subscription};
use crate::record::{Draft, Record};
use crate::retention::Retention;
use crate::wire::notice::{self, Notice};
use crate::wire::{Encoding, Frames, Framing, sse};

/// As many as are tried, unless they take too long for a test that is run often.
const RUNS: u64 = 20_000;
const ENOUGH: Duration = Duration::from_secs(6);
const CLIENTS: usize = 3;
const ROUTE: Route = Route { worker: 0, encoding: Some(Encoding::SseRaw) };

/// The generator `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn bound(&mut self, from: usize, to: usize) -> usize {
        if self.one_in(3) { self.within(from, to) } else { usize::MAX }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket that takes so many pieces before one has to wait.
struct Socket {
    room: usize,
    taken: RefCell<VecDeque<Bytes>>,
    is_full: Cell<bool>,
}

impl Outlet for Socket {
    fn is_free(&self) -> bool {
        !self.is_full.get()
    }

    fn write(&self, bytes: Bytes) -> bool {
        assert!(!self.is_full.get(), "it was not free");
        let mut taken = self.taken.borrow_mut();
        taken.push_back(bytes);
        self.is_full.set(taken.len() > self.room);
        !self.is_full.get()
    }
}

enum Answer {
    Missed { after: Seq, slice: Slice },
    Behind { origin: Origin, head: Seq },
}

/// To the broker.
enum Ask {
    Attach { client: usize, id: ClientId, origin: Option<Origin> },
    Detached(ClientId),
}

/// To the worker.
enum Task {
    Deliver(Vec<(u64, Arc<Record>)>),
    Admit { id: ClientId, answer: Answer },
    Ping(Seq),
    Close(usize),
}

/// To a session.
enum Word {
    Admitted(Answer),
    Page(Page),
    Sought(Sought),
    Drained,
    FellOut,
    Ping,
    Close,
    Disconnected,
}

/// To the log, from the session of a client.
enum Query {
    Read { after: Seq, until: Seq },
    Seek { last: u64, until: Seq },
}

enum CatchUp {
    Done,
    Ring(Seq),
    Log { after: Seq, position: Seq, until: Seq, known_trim: Seq },
}

struct Client {
    id: ClientId,
    interest: Interest,
    sink: Rc<Sink>,
    woken: Arc<Woken>,
    /// What its worker may write to, if it is one that has that.
    socket: Option<Rc<Socket>>,
    /// It reads so seldom.
    slowness: usize,
    inbox: VecDeque<Word>,
    catch_up: CatchUp,
    is_welcomed: bool,
    /// Its session is there.
    is_open: bool,
    is_closing: bool,
    /// Its worker has seated it at some time.
    is_member: bool,
    reader: Reader,
}

/// An id that a client saw, and what it is still to be told to have lost before.
#[derive(Debug, Clone, Default)]
struct Seen {
    seq: Seq,
    untold: Vec<Seq>,
}

/// What a browser knows, over all of its connections.
struct Reader {
    seen: Vec<Seen>,
    /// Nothing before the first id, if it came without a cursor.
    now: Option<Seen>,
    started: Origin,
    /// What was removed up to here before it came, it was never promised.
    never_promised: Seq,
    /// The ephemeral events that its worker had for it and that have not come.
    expected: VecDeque<u64>,
    missed: u64,
    told: u64,
}

#[derive(Debug, Default)]
struct Tally {
    gaps: u64,
    falls: u64,
    lags: u64,
    ring_pages: u64,
    log_pages: u64,
    resumes: u64,
}

struct World<'a> {
    random: Random,
    tally: &'a mut Tally,
    timeline: Timeline,
    time: u64,
    published: u64,
    limit: PageLimit,
    feed_bounds: FeedBounds,
    sessions: Vec<SessionId>,
    // The log.
    store: Store,
    all: Vec<Arc<Record>>,
    commits: VecDeque<Vec<(Draft, bool)>>,
    queries: VecDeque<(usize, ClientId, Query)>,
    // The broker.
    committed: VecDeque<(Vec<Arc<Record>>, Vec<Trim>)>,
    asks: VecDeque<Ask>,
    ring: Ring,
    registry: Registry,
    head: Seq,
    delivered: u64,
    // The worker and its thread.
    tasks: VecDeque<Task>,
    feeds: Vec<(Subscription, Rc<RefCell<Feed>>)>,
    rounds: Rounds,
    clients: Vec<Client>,
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("valid")
}

fn subscription(number: usize) -> Subscription {
    const OF: [(&[&str], &[&str]); 8] = [
        (&["a"], &[]),
        (&["a", "b"], &[]),
        (&["b", "c/1"], &[]),
        (&["c/*"], &[]),
        (&["a", "c/**"], &[]),
        (&["**"], &[]),
        (&["a", "b"], &["k:1"]),
        (&["**"], &["k:1"]),
    ];
    let (selectors, terms) = OF[number % OF.len()];
    let selectors = selectors.iter().map(|text| Selector::new(text).expect("valid"));
    Subscription::new(selectors, Filter::parse(terms.iter().copied()).expect("valid"))
}

impl Client {
    fn new(
        random: &mut Random,
        interest: Interest,
        now: Option<Seen>,
        seen: Vec<Seen>,
        started: Origin,
    ) -> Self {
        let reader =
            Reader { seen, now, started, never_promised: 0, expected: VecDeque::new(), missed: 0, told: 0 };
        let sink = Sink::new(Framing::Bare);
        let socket = random.one_in(2).then(|| {
            let room = random.within(1, 4);
            Rc::new(Socket { room, taken: RefCell::default(), is_full: Cell::new(false) })
        });
        sink.lend(socket.clone().map(|socket| socket as Rc<dyn Outlet>));
        Self {
            id: ClientId::mint(),
            interest,
            sink,
            socket,
            woken: Arc::new(Woken(AtomicBool::new(true))),
            slowness: random.within(1, 12),
            inbox: VecDeque::new(),
            catch_up: CatchUp::Done,
            is_welcomed: false,
            is_open: true,
            is_closing: false,
            is_member: false,
            reader,
        }
    }
}

impl<'a> World<'a> {
    fn new(seed: u64, tally: &'a mut Tally) -> Self {
        let mut random = Random(seed);
        let mut retention = Retention::default();
        for rule in [
            format!("a=limits:max_events={}", random.within(1, 12)),
            format!("b=limits:max_bytes={}", random.within(400, 4000)),
            "c/1=none".to_owned(),
            format!("c/2=limits:max_age={}ms", random.within(1, 30)),
        ] {
            if random.one_in(3) {
                retention = retention.rule(rule.parse().expect("valid"));
            }
        }
        let sessions = vec![SessionId::mint(), SessionId::mint()];
        let mut world = Self {
            timeline: Lineage::new(Name::mint(), vec![], Name::mint(), 1).timeline(),
            tally,
            time: 0,
            published: 0,
            limit: PageLimit { events: random.within(1, 5), bytes: random.bound(100, 1500) },
            feed_bounds: FeedBounds { events: random.within(1, 6), bytes: random.bound(50, 400) },
            sessions,
            store: Store::new(random.within(4, 33), u64::MAX, retention),
            all: Vec::new(),
            commits: VecDeque::new(),
            queries: VecDeque::new(),
            committed: VecDeque::new(),
            asks: VecDeque::new(),
            ring: Ring::new(random.within(1, 12), random.bound(1000, 8000), 0),
            registry: Registry::default(),
            head: 0,
            delivered: 0,
            tasks: VecDeque::new(),
            feeds: Vec::new(),
            rounds: Rounds::new(),
            clients: Vec::new(),
            random,
        };
        for number in 0..CLIENTS {
            let session = world.sessions[number % world.sessions.len()];
            let interest = Interest::new(session, subscription(world.random.below(8)));
            let client = Client::new(
                &mut world.random,
                interest,
                Some(Seen::default()),
                vec![Seen::default()],
                Origin::After(0),
            );
            world.asks.push_back(Ask::Attach {
                client: number,
                id: client.id,
                origin: Some(Origin::After(0)),
            });
            world.clients.push(client);
        }
        world
    }

    fn run(mut self) {
        for _ in 0..120 {
            self.step(false);
        }
        let mut left = 50_000;
        while !self.is_quiet() {
            self.step(true);
            left -= 1;
            assert!(left > 0, "it goes on for ever");
        }
        for number in 0..CLIENTS {
            self.check_end(number);
            self.disconnect(number);
        }
        while !self.is_quiet() {
            self.step(true);
        }
        assert!(self.feeds.is_empty(), "a feed is left without a client");
        assert_eq!((self.registry.client_count(), self.registry.session_count()), (0, 0));
    }

    fn is_quiet(&self) -> bool {
        let is_idle = |client: &Client| {
            let is_read = client.socket.iter().all(|socket| socket.taken.borrow().is_empty());
            client.inbox.is_empty() && (!client.is_open || is_read && !client.woken.0.load(Ordering::Relaxed))
        };
        self.commits.is_empty()
            && self.queries.is_empty()
            && self.committed.is_empty()
            && self.asks.is_empty()
            && self.tasks.is_empty()
            && self.rounds.is_done()
            && self.clients.iter().all(is_idle)
    }

    fn step(&mut self, is_quiet: bool) {
        let number = self.random.below(CLIENTS);
        match self.random.below(100) {
            0..14 if !is_quiet => self.publish(),
            14 if !is_quiet => self.tasks.push_back(Task::Ping(self.head)),
            15 if !is_quiet => self.leave(number),
            16 if !is_quiet && self.random.one_in(2) => self.tasks.push_back(Task::Close(number)),
            17 if !is_quiet => {
                self.time += self.random.below(20) as u64;
                self.store.drop_aged(self.time);
                self.tell_trims();
                if self.random.one_in(10) {
                    self.store.forget(&channel("a"));
                    self.tell_trims();
                }
            }
            18..28 => self.commit(),
            28..36 => self.hear_of_commit(),
            36..44 => self.answer(),
            44..60 => self.work(),
            60..66 => self.wake(),
            66..74 => self.look_up(),
            74..86 => self.handle(number),
            86.. => self.poll(number, is_quiet),
            _ => {}
        }
    }

    // Publishing.

    fn publish(&mut self) {
        let mut group = Vec::new();
        if self.random.one_in(200) {
            // More than may wait for one client alone.
            let inbox = Channel::inbox(self.sessions[0]);
            for number in 0..300 {
                let draft = self.draft(vec![inbox.clone()]);
                group.push((draft, number % 100 != 0));
            }
        } else {
            for _ in 0..self.random.within(1, 3) {
                let channels = self.channels();
                let draft = self.draft(channels);
                group.push((draft, self.random.one_in(4)));
            }
        }
        if group.iter().all(|(_, ephemeral)| *ephemeral) {
            let records = group.into_iter().map(|(draft, _)| Arc::new(Record::ephemeral(draft)));
            self.route(records.collect());
        } else {
            self.commits.push_back(group);
        }
    }

    fn channels(&mut self) -> Vec<Channel> {
        const NAMES: [&str; 4] = ["a", "b", "c/1", "c/2"];
        match self.random.below(10) {
            0 => vec![Channel::everyone()],
            1 => vec![Channel::inbox(self.sessions[self.random.below(2)])],
            2 => self.sessions.iter().copied().map(Channel::inbox).collect(),
            3 | 4 => {
                let first = self.random.below(NAMES.len());
                let second = (first + self.random.within(1, NAMES.len() - 1)) % NAMES.len();
                vec![channel(NAMES[first]), channel(NAMES[second])]
            }
            _ => vec![channel(NAMES[self.random.below(NAMES.len())])],
        }
    }

    fn draft(&mut self, channels: Vec<Channel>) -> Draft {
        self.published += 1;
        let mut event = Event::text("x", self.published.to_string()).expect("valid");
        if self.random.one_in(2) {
            event = event.attribute("k", "1").expect("valid");
        }
        Draft::new(event, channels.into(), Publisher::HUB, self.time)
    }

    /// The log commits.
    fn commit(&mut self) {
        let Some(group) = self.commits.pop_front() else { return };
        let stored = group.iter().filter(|(_, ephemeral)| !ephemeral).map(|(draft, _)| draft.clone());
        let (records, _) = self.store.append(stored.collect(), Numbering::Next, 0);
        self.all.extend(records.iter().cloned());
        assert_eq!(self.all.last().and_then(|record| record.seq()), Some(self.all.len() as Seq));
        let mut records = records.into_iter();
        let all = group.into_iter().map(|(draft, ephemeral)| {
            let stored = if ephemeral { None } else { records.next() };
            stored.unwrap_or_else(|| Arc::new(Record::ephemeral(draft)))
        });
        let trims = self.store.take_trims();
        self.committed.push_back((all.collect(), trims));
    }

    /// The broker hears of a commit.
    fn hear_of_commit(&mut self) {
        if let Some((records, trims)) = self.committed.pop_front() {
            self.route(records);
            for Trim { channel, through } in trims {
                self.ring.trim(channel, through);
            }
        }
    }

    /// The log tells what it removed between commits.
    fn tell_trims(&mut self) {
        let trims = self.store.take_trims();
        self.committed.push_back((Vec::new(), trims));
    }

    fn route(&mut self, records: Vec<Arc<Record>>) {
        let mut parcels = Vec::new();
        for record in records {
            self.delivered += 1;
            let mut routes = Vec::new();
            for channel in record.draft.channels.iter() {
                self.registry.routes_to(channel, &mut routes);
            }
            if !routes.is_empty() {
                parcels.push((self.delivered, record.clone()));
            }
            if let Some(seq) = record.seq() {
                self.head = seq;
                self.ring.push(seq, record, Frames::default());
            }
        }
        if !parcels.is_empty() {
            self.tasks.push_back(Task::Deliver(parcels));
        }
    }

    // Coming and going.

    /// The broker answers who asks.
    fn answer(&mut self) {
        let (client, id, origin) = match self.asks.pop_front() {
            Some(Ask::Attach { client, id, origin }) => (client, id, origin),
            Some(Ask::Detached(id)) => return drop(self.registry.leave(id)),
            None => return,
        };
        let interest = &self.clients[client].interest;
        self.registry.enter(id, interest.clone(), ROUTE);
        let position = match origin {
            None => Some(self.head),
            Some(Origin::After(position)) => Some(position),
            Some(Origin::Earliest) => Some(0),
            Some(Origin::Last(last)) => self.ring.before_last(last, interest),
        };
        let answer = match position.filter(|&position| self.ring.covers(position, interest)) {
            Some(after) => {
                let slice = self.ring.after(after, interest, Encoding::SseRaw, &self.timeline, self.limit);
                assert!(slice.frames.len() <= self.limit.events, "a page is bounded");
                self.tally.ring_pages += u64::from(!slice.is_whole);
                Answer::Missed { after, slice }
            }
            None => Answer::Behind { origin: origin.unwrap_or(Origin::After(self.head)), head: self.head },
        };
        self.tasks.push_back(Task::Admit { id, answer });
    }

    /// The client is cut off, and comes back with an id that it saw, or anew.
    fn leave(&mut self, number: usize) {
        let id = self.clients[number].id;
        self.disconnect(number);
        // It was just told to go, and is back already.
        if self.clients[number].id == id {
            self.come_back(number);
        }
    }

    fn disconnect(&mut self, number: usize) {
        if self.clients[number].is_open {
            self.clients[number].inbox.push_back(Word::Disconnected);
            while !self.clients[number].inbox.is_empty() {
                self.handle(number);
            }
        }
    }

    fn come_back(&mut self, number: usize) {
        let before = &self.clients[number];
        assert!(!before.is_open);
        let (mut interest, mut seen) = (before.interest.clone(), before.reader.seen.clone());
        let mut never_promised = 0;
        let (now, origin) = if self.random.one_in(4) || seen.is_empty() {
            interest.subscription = subscription(self.random.below(8));
            seen.clear();
            let begin = [None, Some(Origin::Earliest), Some(Origin::Last(self.random.within(1, 9) as u64))];
            (None, begin[self.random.below(3)])
        } else {
            let back = if self.random.one_in(2) { 0 } else { self.random.below(seen.len()) };
            let resumed = seen[seen.len() - 1 - back].clone();
            self.tally.resumes += 1;
            never_promised = before.reader.never_promised;
            let origin = Origin::After(resumed.seq);
            (Some(resumed), Some(origin))
        };
        let started = origin.unwrap_or(Origin::After(0));
        let mut client = Client::new(&mut self.random, interest, now, seen, started);
        client.reader.never_promised = never_promised;
        self.asks.push_back(Ask::Attach { client: number, id: client.id, origin });
        self.clients[number] = client;
    }

    // The worker.

    fn work(&mut self) {
        match self.tasks.pop_front() {
            Some(Task::Deliver(parcels)) => {
                for (event, record) in parcels {
                    self.deliver(event, &record);
                }
            }
            Some(Task::Admit { id, answer }) => {
                let Some(number) = self.clients.iter().position(|client| client.id == id && client.is_open)
                else {
                    return;
                };
                if let Answer::Missed { slice: Slice { through, is_whole: true, .. }, .. } = &answer {
                    let feed = self.feed(number);
                    let client = &mut self.clients[number];
                    client.sink.seat(&feed, *through);
                    client.is_member = true;
                }
                self.clients[number].inbox.push_back(Word::Admitted(answer));
            }
            Some(Task::Ping(head)) => {
                let block = sse::ping(&self.timeline.cursor(head), false);
                for client in self.clients.iter_mut().filter(|client| client.is_open) {
                    if !client.sink.push_ping(block.clone(), head) {
                        client.inbox.push_back(Word::Ping);
                    }
                }
            }
            Some(Task::Close(number)) => self.clients[number].inbox.push_back(Word::Close),
            None => {}
        }
    }

    fn feed(&mut self, number: usize) -> Rc<RefCell<Feed>> {
        let subscription = &self.clients[number].interest.subscription;
        if let Some((_, feed)) = self.feeds.iter().find(|(known, _)| known == subscription) {
            return feed.clone();
        }
        let feed = Rc::new(RefCell::new(Feed::new(self.feed_bounds, Transport::Sse, SharedTally::default())));
        self.feeds.push((subscription.clone(), feed.clone()));
        feed
    }

    fn deliver(&mut self, event: u64, record: &Arc<Record>) {
        let number: u64 = record.draft.payload.as_str().parse().expect("a number");
        for client in self.clients.iter_mut().filter(|client| client.is_open && client.is_member) {
            if record.seq().is_none() && client.interest.covers_event(&record.draft) {
                client.reader.expected.push_back(number);
            }
        }
        let bytes = Frames::default().encode(Encoding::SseRaw, record, &self.timeline).clone();
        for channel in record.draft.channels.iter() {
            let reach = channel.reach();
            if let Reach::Session(session) = reach {
                for client in self.clients.iter().filter(|client| client.is_open) {
                    if client.interest.session == session {
                        client.sink.push_private(bytes.clone(), record.seq(), Instant::now());
                    }
                }
                continue;
            }
            for (subscription, feed) in &self.feeds {
                let is_followed = || subscription.admits(channel, &record.draft.attributes);
                if (reach == Reach::Everyone || is_followed()) && feed.borrow_mut().takes(event) {
                    feed.borrow_mut().append(bytes.clone(), record.seq(), Instant::now());
                    if feed.borrow_mut().wants_waking() {
                        self.rounds.push(feed.clone());
                    }
                }
            }
        }
    }

    /// A turn of waking, of few clients at a time.
    fn wake(&mut self) {
        self.rounds.wake(self.random.within(1, 3));
    }

    // The log's readers.

    fn look_up(&mut self) {
        if self.queries.is_empty() {
            return;
        }
        let at = self.random.below(self.queries.len());
        let Some((number, id, query)) = self.queries.remove(at) else { return };
        if self.clients[number].id != id {
            return;
        }
        self.store.drop_aged(self.time);
        self.tell_trims();
        let client = &mut self.clients[number];
        client.inbox.push_back(match query {
            Query::Read { after, until } => {
                let page = self.store.read(after, until, &client.interest, self.limit);
                assert!(page.records.len() <= self.limit.events, "a page is bounded");
                assert!(page.through <= until && (page.through > after || after == until));
                self.tally.log_pages += 1;
                Word::Page(page)
            }
            Query::Seek { last, until } => Word::Sought(self.store.seek(last, until, &client.interest)),
        });
    }

    // A session.

    fn handle(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(word) = client.inbox.pop_front() else { return };
        if !client.is_open {
            return;
        }
        let attach = |client: &Client, position| Ask::Attach {
            client: number,
            id: client.id,
            origin: Some(Origin::After(position)),
        };
        match word {
            Word::Disconnected => self.stop(number),
            _ if client.is_closing => {}
            Word::Admitted(Answer::Missed { after, slice }) => {
                self.welcome(number, after, false);
                self.tell_lag(number);
                let client = &mut self.clients[number];
                for frame in slice.frames {
                    client.sink.write(frame);
                }
                if slice.is_whole {
                    client.catch_up = CatchUp::Done;
                    client.sink.go_live();
                } else {
                    client.catch_up = CatchUp::Ring(slice.through);
                    client.sink.tell_when_drained();
                }
            }
            Word::Admitted(Answer::Behind { origin, head: until }) => {
                let (position, known_trim) = match origin {
                    Origin::After(position) => (position, 0),
                    Origin::Earliest | Origin::Last(_) => (0, Seq::MAX),
                };
                client.catch_up = CatchUp::Log { after: position, position, until, known_trim };
                let query = match origin {
                    Origin::Last(last) => Query::Seek { last, until },
                    Origin::After(_) | Origin::Earliest => Query::Read { after: position, until },
                };
                self.queries.push_back((number, client.id, query));
            }
            Word::Sought(Sought { position: sought, left: 0 }) => {
                if let CatchUp::Log { after, position, until, .. } = &mut client.catch_up {
                    (*after, *position) = (sought, sought);
                    self.queries.push_back((number, client.id, Query::Read { after: sought, until: *until }));
                }
            }
            Word::Sought(Sought { position, left }) => {
                self.queries.push_back((number, client.id, Query::Seek { last: left, until: position }));
            }
            Word::Page(page) => self.write_page(number, &page),
            Word::Drained => match client.catch_up {
                CatchUp::Log { position, until, .. } if position < until => {
                    self.queries.push_back((number, client.id, Query::Read { after: position, until }));
                }
                CatchUp::Log { position, .. } | CatchUp::Ring(position) => {
                    self.asks.push_back(attach(client, position));
                }
                CatchUp::Done => {}
            },
            Word::FellOut => {
                self.tally.falls += 1;
                self.tell_lag(number);
                let client = &self.clients[number];
                let position = client.sink.position().expect("it was seated");
                self.asks.push_back(attach(client, position));
            }
            Word::Ping => {
                let position = match client.catch_up {
                    CatchUp::Done => return,
                    CatchUp::Ring(position) | CatchUp::Log { position, .. } => position,
                };
                if client.is_welcomed {
                    client.sink.write(sse::ping(&self.timeline.cursor(position), false));
                }
            }
            Word::Close => {
                client.is_closing = true;
                // What is in the feed comes behind what it has not written yet.
                if self.random.one_in(2) {
                    client.sink.cut_off();
                }
                client.sink.end(None);
                self.stop(number);
            }
        }
    }

    /// The session stops; a writer that is still there reads to the end.
    fn stop(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.is_open = false;
        if client.sink.unseat().is_some() {
            let subscription = &client.interest.subscription;
            let at = self.feeds.iter().position(|(known, _)| known == subscription).expect("it has a feed");
            let (_, feed) = self.feeds.swap_remove(at);
            assert!(feed.borrow().is_unused());
            assert_eq!(feed.borrow().held(), (0, 0), "an unused feed holds nothing");
        }
        client.sink.end(None);
        self.asks.push_back(Ask::Detached(client.id));
        if client.is_closing {
            self.receive(number);
            while let Pull::Bytes(bytes) = self.clients[number].sink.pull(Waker::noop()) {
                self.read(number, &bytes);
            }
            self.come_back(number);
        }
    }

    fn welcome(&mut self, number: usize, position: Seq, is_notice_next: bool) {
        let client = &mut self.clients[number];
        if !std::mem::replace(&mut client.is_welcomed, true) {
            let cursor = self.timeline.cursor(position);
            let welcome = notice::Welcome {
                client: client.id,
                session: client.interest.session,
                heartbeat: Duration::ZERO,
            };
            let cursor = (!is_notice_next).then_some(&cursor);
            client.sink.write(Encoding::SseRaw.notice(cursor, &Notice::Welcome(welcome)));
        }
    }

    fn tell_lag(&mut self, number: usize) {
        let sink = &self.clients[number].sink;
        let dropped = sink.take_lost();
        if dropped > 0 {
            self.tally.lags += 1;
            sink.write(Encoding::SseRaw.notice(None, &Notice::Lag(notice::Lag { dropped })));
        }
    }

    fn write_page(&mut self, number: usize, page: &Page) {
        let CatchUp::Log { after, position, until, mut known_trim } = self.clients[number].catch_up else {
            return;
        };
        let trimmed = page.trimmed.map(|trimmed| trimmed.min(until));
        if known_trim == Seq::MAX {
            known_trim = trimmed.unwrap_or(0);
            self.clients[number].reader.never_promised = known_trim;
        }
        let lost = trimmed.filter(|&trimmed| trimmed > known_trim);
        let gap = lost.filter(|&resumed_at| resumed_at <= page.through);
        // Its id is before an event that is left at the very end of what was removed, since that comes after it.
        let is_left = |gap: Seq| page.records.iter().any(|record| record.seq() == Some(gap));
        let told = gap.map(|gap| if is_left(gap) { gap - 1 } else { gap });
        let before_gap = told.map_or(page.records.len(), |told| {
            page.records.partition_point(|record| record.seq().is_some_and(|seq| seq <= told))
        });
        let start = page.trimmed.map_or(0, |trimmed| {
            let first = page.records.first().and_then(|record| record.seq());
            trimmed.min(first.map_or(page.through, |first| first - 1))
        });
        self.welcome(number, position.max(start), gap.is_some() && before_gap == 0);
        let client = &mut self.clients[number];
        let frame =
            |record: &Arc<Record>| Frames::default().encode(Encoding::SseRaw, record, &self.timeline).clone();
        let (before, behind) = page.records.split_at(before_gap);
        before.iter().for_each(|record| client.sink.write(frame(record)));
        if let Some((resumed_at, trimmed)) = told.zip(gap) {
            let gap = notice::Gap { reason: "expired", after, resumed_at, head: until };
            let cursor = self.timeline.cursor(resumed_at);
            client.sink.write(Encoding::SseRaw.notice(Some(&cursor), &Notice::Gap(gap)));
            known_trim = trimmed;
        }
        behind.iter().for_each(|record| client.sink.write(frame(record)));
        client.catch_up = CatchUp::Log { after, position: page.through, until, known_trim };
        client.sink.tell_when_drained();
    }

    // The browser.

    fn poll(&mut self, number: usize, is_quiet: bool) {
        let client = &mut self.clients[number];
        let is_woken = client.woken.0.load(Ordering::Relaxed);
        let has_received = client.socket.iter().any(|socket| !socket.taken.borrow().is_empty());
        if !client.is_open || !(is_woken || has_received || !is_quiet && self.random.one_in(8)) {
            return;
        }
        if !is_quiet && !self.random.one_in(client.slowness) {
            return;
        }
        if self.receive(number) && !is_woken {
            return;
        }
        let client = &mut self.clients[number];
        match client.sink.pull(&Waker::from(client.woken.clone())) {
            Pull::Bytes(bytes) => self.read(number, &bytes),
            Pull::Drained => client.inbox.push_back(Word::Drained),
            Pull::FellOut => client.inbox.push_back(Word::FellOut),
            Pull::Pending | Pull::End => client.woken.0.store(false, Ordering::Relaxed),
        }
    }

    /// Reads what its socket has taken, which makes room there. True if there was something.
    fn receive(&mut self, number: usize) -> bool {
        let Some(socket) = self.clients[number].socket.clone() else { return false };
        let taken = socket.taken.take();
        socket.is_full.set(false);
        taken.iter().for_each(|bytes| self.read(number, bytes));
        !taken.is_empty()
    }

    fn read(&mut self, number: usize, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("text");
        for block in text.split_terminator("\n\n") {
            self.read_block(number, block);
        }
    }

    fn read_block(&mut self, number: usize, block: &str) {
        let (mut id, mut name, mut data, mut is_ping) = (None, "", "", false);
        for line in block.lines() {
            match line.split_once(": ").expect("a field") {
                ("id", token) => id = token.rsplit('.').next().and_then(|seq| seq.parse::<Seq>().ok()),
                ("event", value) => name = value,
                ("data", value) => data = value,
                (field, _) => is_ping |= field.is_empty(),
            }
        }
        let reader = &mut self.clients[number].reader;
        match (name, id) {
            ("$lag", _) => {
                let dropped = data.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches('}');
                reader.told += dropped.parse::<u64>().expect("a number");
            }
            ("$gap", Some(seq)) => {
                self.tally.gaps += 1;
                self.advance(number, seq);
                let reader = &mut self.clients[number].reader;
                let now = reader.now.as_mut().expect("it has a position");
                now.untold.retain(|&lost| lost > seq);
                self.see(number);
            }
            ("$welcome", None) => {}
            ("$welcome", Some(seq)) => {
                if reader.now.is_none() {
                    self.begin(number, seq);
                }
                self.advance(number, seq);
                self.see(number);
            }
            (_, Some(seq)) if is_ping => {
                self.advance(number, seq);
                self.see(number);
            }
            ("x", Some(seq)) => {
                let record = &self.all[seq as usize - 1];
                assert!(self.clients[number].interest.covers_event(&record.draft), "{seq} is not for it");
                assert_eq!(record.draft.payload.as_str(), data);
                self.advance(number, seq - 1);
                let now = self.clients[number].reader.now.as_mut().expect("it has a position");
                assert!(now.seq < seq, "{seq} comes again");
                now.seq = seq;
                self.see(number);
            }
            ("x", None) => {
                let event: u64 = data.parse().expect("a number");
                while let Some(expected) = reader.expected.pop_front() {
                    if expected == event {
                        return;
                    }
                    reader.missed += 1;
                }
                panic!("ephemeral event {event} comes again, or out of order, or to one that it is not for");
            }
            _ => panic!("{block:?}"),
        }
    }

    /// The place that a client without a cursor was given is the one that it asked for.
    fn begin(&mut self, number: usize, seq: Seq) {
        let reader = &mut self.clients[number].reader;
        reader.now = Some(Seen { seq, untold: Vec::new() });
        let started = reader.started;
        let interest = &self.clients[number].interest;
        let one = PageLimit { events: 1, bytes: usize::MAX };
        let is_more_kept = !self.store.read(0, seq, interest, one).records.is_empty();
        match started {
            Origin::Earliest => assert!(!is_more_kept, "the earliest is before {seq}"),
            // How many there are may change between its two questions.
            Origin::Last(_) | Origin::After(_) => {}
        }
    }

    /// The client has everything up to `seq`, or it was lost.
    fn advance(&mut self, number: usize, seq: Seq) {
        let Client { interest, reader, .. } = &mut self.clients[number];
        let now = reader.now.as_mut().expect("it has a position");
        assert!(seq >= now.seq, "back from {} to {seq}", now.seq);
        let one = PageLimit { events: 1, bytes: usize::MAX };
        for lost in now.seq + 1..=seq {
            let record = &self.all[lost as usize - 1];
            if interest.covers_event(&record.draft) {
                let kept = self.store.read(lost - 1, lost, interest, one).records;
                assert!(kept.is_empty(), "{lost} is passed over on the way to {seq}");
                if lost > reader.never_promised {
                    now.untold.push(lost);
                }
            }
        }
        now.seq = seq;
    }

    /// The client keeps an id: what it lost before, it will be told also if it comes back with this one.
    fn see(&mut self, number: usize) {
        let Client { interest, reader, .. } = &mut self.clients[number];
        let now = reader.now.as_ref().expect("it has a position");
        if !now.untold.is_empty() {
            let one = PageLimit { events: 1, bytes: usize::MAX };
            let page = self.store.read(now.seq, self.head.max(now.seq), interest, one);
            assert!(page.trimmed.is_some(), "back with {} it would not be told of {:?}", now.seq, now.untold);
        }
        reader.seen.push(now.clone());
    }

    fn check_end(&mut self, number: usize) {
        let Client { interest, reader, .. } = &self.clients[number];
        let now = reader.now.as_ref().expect("it has a position");
        assert!(now.untold.is_empty(), "never told of {:?}", now.untold);
        for record in &self.all[now.seq.max(reader.never_promised) as usize..] {
            assert!(
                !interest.covers_event(&record.draft),
                "{:?} never came, it is at {}",
                record.seq(),
                now.seq
            );
        }
        assert_eq!(reader.missed + reader.expected.len() as u64, reader.told, "ephemeral events");
    }
}

/// Says which schedule it was.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the schedule of seed {}", self.0);
        }
    }
}

#[test]
fn every_schedule_gives_each_client_its_events_once_and_in_order() {
    let runs = std::env::var("FANFARE_MODEL_RUNS").ok().map(|runs| runs.parse().expect("a number"));
    let (mut tally, started) = (Tally::default(), Instant::now());
    for seed in 0..runs.unwrap_or(RUNS) {
        if runs.is_none() && started.elapsed() > ENOUGH {
            break;
        }
        let _told = Told(seed);
        World::new(seed, &mut tally).run();
    }
    println!("{tally:?}");
    let Tally { gaps, falls, lags, ring_pages, log_pages, resumes } = tally;
    for count in [gaps, falls, lags, ring_pages, log_pages, resumes] {
        assert!(count > 0, "the schedules reach everything: {tally:?}");
    }
}
