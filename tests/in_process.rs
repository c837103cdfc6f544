//! Subscribers in this process: exactly what matches, in order, and never anybody else's burden.

mod support;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::{Duration, Instant};

use actix::prelude::*;
use fanfare::{
    Batch, Broadcast, Broker, Builder, Channel, CloseReason, Deliveries, Delivery, Drain, Event, MemoryLog,
    Presence, Receipt, ResetReason, SqliteLog, Stats, SubscribeError, SubscribeOptions, Subscription,
    subscribe, subscribe_with,
};
use futures_util::StreamExt;
use support::order::{builder, nth, ordered};
use support::until_open;
use tokio::sync::{mpsc, oneshot};

/// A broker with each log, to be changed and started.
fn builders(name: &str) -> [Builder; 2] {
    let folder = format!("in-process-{name}-{}", std::process::id());
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let log = SqliteLog::open(folder.join("events.db")).expect("opened");
    [builder(), Broker::builder().log(ordered(log))]
}

fn brokers(name: &str) -> [Addr<Broker>; 2] {
    builders(name).map(started)
}

fn started(builder: Builder) -> Addr<Broker> {
    let broker = builder.start().expect("started");
    until_open(&broker);
    broker
}

fn to(selectors: &[&str]) -> Subscription {
    let add = |all: Subscription, selector: &&str| all.and(selector).expect("valid");
    selectors.iter().fold(Subscription::default(), add)
}

fn queue(items: usize) -> SubscribeOptions {
    SubscribeOptions::default().queue(items).expect("valid")
}

fn text(data: impl Display) -> Event {
    Event::text("message", format!("{data}")).expect("valid")
}

fn on(channel: &str, event: Event) -> Broadcast {
    Broadcast::channel(channel, event).expect("valid")
}

async fn publish(broker: &Addr<Broker>, channel: &str, data: impl Display) -> Receipt {
    broker.send(on(channel, text(data))).await.expect("answered").expect("committed")
}

async fn publish_all(broker: &Addr<Broker>, events: Vec<Broadcast>) {
    let batch = Batch::new(events).expect("valid");
    broker.send(batch).await.expect("answered").expect("committed");
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

fn short(item: &Delivery) -> String {
    match item {
        Delivery::Event(event) => event.payload().as_str().to_owned(),
        Delivery::Lag { dropped } => format!("lag {dropped}"),
        Delivery::Gap { after, resumed_at, head, .. } => format!("gap {after} {resumed_at} {head}"),
        Delivery::Reset { reason, head, .. } => format!("reset {reason:?} {head}"),
        other => panic!("{other:?}"),
    }
}

async fn read(stream: &mut Deliveries) -> String {
    short(&within(stream.next()).await.expect("an item"))
}

async fn read_until(stream: &mut Deliveries, end: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let item = read(stream).await;
        if item == end {
            return all;
        }
        all.push(item);
    }
}

/// Waits until all that was published before has been offered to every subscriber.
async fn settle(broker: &Addr<Broker>, barrier: &mut Deliveries) {
    publish(broker, "barrier", "barrier").await;
    assert_eq!(read(barrier).await, "barrier");
}

async fn until_clients(broker: &Addr<Broker>, clients: usize) {
    let start = Instant::now();
    while broker.send(Stats).await.expect("answered").clients != clients {
        assert!(start.elapsed() < Duration::from_secs(1), "not {clients} clients within a second");
        tokio::task::yield_now().await;
    }
}

/// O2, D1: nothing that does not match, at segment boundaries, and one copy however many selectors match.
#[actix_web::test]
async fn a_subscriber_gets_what_matches_once() {
    for broker in brokers("matches") {
        let mut streams = Vec::new();
        for (subscription, expected) in [
            (to(&["alerts/**"]), "alerts alerts/eu alerts/eu/7 both end"),
            (to(&["alerts/*", "alerts/**", "alerts/eu"]), "alerts alerts/eu alerts/eu/7 both end"),
            (to(&["alerts"]), "alerts end"),
            (to(&["alerts", "other"]), "alerts other both end"),
            (to(&["alerts/*"]), "alerts/eu both end"),
            (to(&["**"]), "alerts alerts/eu alerts/eu/7 alerts2 other both end"),
            (to(&["**"]).filter("kind", "system").expect("valid"), "both end"),
            (to(&[]), "end"),
        ] {
            streams.push((subscribe(&broker, subscription).await.expect("a stream"), expected));
        }
        for channel in ["alerts", "alerts/eu", "alerts/eu/7", "alerts2", "other"] {
            publish(&broker, channel, channel).await;
        }
        let both = text("both").attribute("kind", "system").expect("valid");
        broker.do_send(Broadcast::channels(["alerts/us", "other"], both).expect("valid"));
        broker.do_send(Broadcast::everyone(text("end")));
        for (stream, expected) in &mut streams {
            let mut got = read_until(stream, "end").await;
            got.push("end".into());
            assert_eq!(got.join(" "), *expected);
        }
    }
}

#[actix_web::test]
async fn an_event_comes_with_all_that_is_known_of_it() {
    for broker in brokers("particulars") {
        let mut stream = subscribe(&broker, to(&["a/*"])).await.expect("a stream");
        publish(&broker, "a/1", 1).await;
        let event = Event::json("created", &serde_json::json!({"order": 7})).expect("valid");
        let event = event.attribute("kind", "sale").expect("valid");
        let to = Broadcast::channels(["a/1", "b"], event).expect("valid");
        let receipt = broker.send(to).await.expect("answered").expect("committed");
        broker.do_send(on("a/1", text("typing").ephemeral()));
        read(&mut stream).await;
        let Some(Delivery::Event(event)) = within(stream.next()).await else { panic!("no event") };
        assert_eq!((event.seq(), event.prev(), event.id()), (Some(nth(2)), Some(nth(1)), &receipt.id));
        assert_eq!(event.channels().collect::<Vec<_>>(), ["a/1", "b"]);
        assert_eq!((event.channel(), event.event()), ("a/1", "created"));
        assert_eq!(event.attributes().get("kind"), Some("sale"));
        assert_eq!((event.payload().as_str(), event.payload().is_json()), (r#"{"order":7}"#, true));
        assert_eq!(event.cursor(), receipt.cursor);
        assert!(event.time().elapsed().expect("not of the future") < Duration::from_secs(60));
        let Some(Delivery::Event(event)) = within(stream.next()).await else { panic!("no event") };
        assert_eq!((event.seq(), event.prev(), event.cursor()), (None, None, None));
        assert_eq!(stream.cursor(), receipt.cursor.as_ref(), "an ephemeral event has no position");
    }
}

/// D2: the first n arrive, then the exact count of what did not, at its place, and then what follows.
#[actix_web::test]
async fn lost_ephemeral_events_are_counted_at_their_place() {
    // From the ring, and from the log.
    for (builder, ring) in
        builders("lag").into_iter().zip([1000, 1]).chain(builders("lag-log").into_iter().zip([1, 1000]))
    {
        let broker = started(builder.ring(ring, 1 << 20));
        let mut barrier = subscribe(&broker, to(&["barrier"])).await.expect("a stream");
        let mut stream = subscribe_with(&broker, to(&["a"]), queue(4)).await.expect("a stream");
        for n in 0..10 {
            broker.do_send(on("a", text(n).ephemeral()));
        }
        publish(&broker, "a", "stored").await;
        publish(&broker, "a", "end").await;
        settle(&broker, &mut barrier).await;
        let got = read_until(&mut stream, "end").await;
        assert_eq!(got, ["0", "1", "2", "3", "lag 6", "stored"]);
    }
}

/// D2: delivered and told as dropped is what was published, exactly, whatever the reader's pace.
#[actix_web::test]
async fn what_is_delivered_and_what_is_told_is_what_was_published() {
    for broker in brokers("sum") {
        let mut stream = subscribe_with(&broker, to(&["a"]), queue(3)).await.expect("a stream");
        let publisher = broker.clone();
        actix_web::rt::spawn(async move {
            for n in 0..100 {
                let events = (0..20).map(|m| on("a", text(n * 20 + m).ephemeral())).collect();
                publish_all(&publisher, events).await;
            }
            publish(&publisher, "a", "end").await;
        });
        let (mut delivered, mut dropped, mut last) = (0, 0, None);
        for item in read_until(&mut stream, "end").await {
            if let Some(count) = item.strip_prefix("lag ") {
                dropped += count.parse::<u64>().expect("a number");
            } else {
                let n = item.parse::<u64>().expect("a number");
                assert!(last.replace(n) < Some(n), "in order, and once");
                assert!(n >= delivered + dropped, "what was told before it was published before it");
                delivered += 1;
            }
        }
        assert_eq!(delivered + dropped, 2000);
        assert!(dropped > 0 && delivered > 0, "{delivered} and {dropped}");
    }
}

/// A reader that is slower than a flood gets all of it, from the ring and the log: once, in order.
#[actix_web::test]
async fn a_flood_reaches_a_slow_reader_whole() {
    const EVENTS: usize = 20_000;
    for builder in builders("flood") {
        let broker = started(builder.ring(64, 1 << 20));
        let mut slow = subscribe_with(&broker, to(&["a/*"]), queue(16)).await.expect("a stream");
        let mut none = subscribe_with(&broker, to(&["a/*"]), queue(1)).await.expect("a stream");
        let publisher = broker.clone();
        let flood = actix_web::rt::spawn(async move {
            for first in (0..EVENTS).step_by(100) {
                let event = |n| on(["a/1", "other", "a/2"][n % 3], text(n));
                publish_all(&publisher, (first..first + 100).map(event).collect()).await;
            }
        });
        let expected = (0..EVENTS).filter(|n| n % 3 != 1);
        for n in expected.clone().take(1000) {
            assert_eq!(read(&mut slow).await, n.to_string());
            tokio::task::yield_now().await;
        }
        flood.await.expect("no panic");
        for n in expected.clone().skip(1000) {
            assert_eq!(read(&mut slow).await, n.to_string());
        }
        for n in expected {
            assert_eq!(read(&mut none).await, n.to_string());
        }
        publish(&broker, "a/1", "live").await;
        assert_eq!((read(&mut slow).await, read(&mut none).await), ("live".into(), "live".into()));
    }
}

/// O6, D3: those that stop reading delay neither others nor new ones, nor publishers.
#[actix_web::test]
async fn one_that_stops_reading_delays_nobody() {
    for broker in brokers("stuck") {
        let mut stuck = Vec::new();
        for _ in 0..50 {
            stuck.push(subscribe_with(&broker, to(&["**"]), queue(1)).await.expect("a stream"));
        }
        let mut other = subscribe_with(&broker, to(&["a"]), queue(5000)).await.expect("a stream");
        for n in 0..2000 {
            broker.do_send(on("a", text(n)));
        }
        for n in 0..2000 {
            assert_eq!(read(&mut other).await, n.to_string());
        }
        let mut new = subscribe_with(&broker, to(&["a"]), SubscribeOptions::default().last(1)).await;
        assert_eq!(read(new.as_mut().expect("a stream")).await, "1999");
        assert_eq!(broker.send(Stats).await.expect("answered").refused, 0);
        // And they go on where they stopped.
        for n in 0..2000 {
            assert_eq!(read(&mut stuck[7]).await, n.to_string());
        }
    }
}

/// O5: a subscriber that panics takes nobody with it.
#[actix_web::test]
async fn one_that_panics_stops_nobody() {
    for broker in brokers("panic") {
        let mut other = subscribe(&broker, to(&["a"])).await.expect("a stream");
        let mut bad = subscribe(&broker, to(&["a"])).await.expect("a stream");
        until_clients(&broker, 2).await;
        let task = actix_web::rt::spawn(async move {
            read(&mut bad).await;
            panic!("on purpose");
        });
        for n in 0..10 {
            publish(&broker, "a", n).await;
            assert_eq!(read(&mut other).await, n.to_string());
        }
        assert!(task.await.is_err());
        until_clients(&broker, 1).await;
    }
}

/// O7, D5: whoever is dropped is gone at once, on a quiet channel too, and also while it waits for its answer or its turn.
#[actix_web::test]
async fn who_is_dropped_is_gone() {
    for broker in brokers("drop") {
        let presence = async || {
            let channel = Channel::new("quiet/1").expect("valid");
            broker.send(Presence { channel }).await.expect("answered").clients
        };
        let stream = subscribe(&broker, to(&["quiet/1", "quiet/*"])).await.expect("a stream");
        assert_eq!(presence().await, 1);
        drop(stream);
        until_clients(&broker, 0).await;
        assert_eq!(presence().await, 0);

        for n in 0..100 {
            publish(&broker, "busy", n).await;
        }
        let from = queue(1).earliest();
        let behind = subscribe_with(&broker, to(&["busy"]), from).await.expect("a stream");
        until_clients(&broker, 1).await;
        drop(behind);
        until_clients(&broker, 0).await;

        for yields in 0..20 {
            let mut asking = Box::pin(subscribe(&broker, to(&["quiet/1"])));
            for _ in 0..yields {
                if futures_util::poll!(&mut asking).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Some of them may not have come yet, and to wait for nobody would be to wait for nothing. Whoever asks last comes
        // last.
        drop(subscribe(&broker, to(&["quiet/1"])).await.expect("a stream"));
        until_clients(&broker, 0).await;
        let stats = broker.send(Stats).await.expect("answered");
        assert_eq!((stats.sessions, stats.channels), (0, 0));
    }
}

/// D6: what cannot be is refused where it is built, or told by whoever takes it; nothing panics.
#[actix_web::test]
async fn what_cannot_be_is_refused() {
    let broker = started(builder());
    assert_eq!(SubscribeOptions::default().queue(0).expect_err("refused").field(), "queue");
    assert!(SubscribeOptions::default().queue(usize::MAX).is_err());
    let bad = Subscription::to("alerts/**").expect("valid").filter("", "system");
    let Err(SubscribeError::Invalid(invalid)) = subscribe(&broker, bad).await else { panic!("taken") };
    assert_eq!(invalid.field(), "filter");
    // As the contract has it: the last step of building is handed on.
    let good = Subscription::to("alerts/**").expect("valid").filter("kind", "system");
    assert!(subscribe(&broker, good).await.is_ok());
}

/// D7: all see the same order, however fast they read and whatever else they follow.
#[actix_web::test]
async fn all_see_the_same_order() {
    for builder in builders("order") {
        let broker = started(builder.ring(32, 1 << 20));
        let mut all = subscribe_with(&broker, to(&["**"]), queue(65_536)).await.expect("a stream");
        let mut slow = subscribe_with(&broker, to(&["a/*"]), queue(2)).await.expect("a stream");
        let publishers = (0..4).map(|channel| {
            let broker = broker.clone();
            std::thread::spawn(move || {
                for n in 0..500 {
                    broker.do_send(on(&format!("a/{channel}"), text(format!("{channel}.{n}"))));
                }
            })
        });
        for publisher in publishers.collect::<Vec<_>>() {
            publisher.join().expect("no panic");
        }
        let mut seen = Vec::new();
        for _ in 0..2000 {
            seen.push(read(&mut all).await);
        }
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 2000);
        for item in seen {
            assert_eq!(read(&mut slow).await, item);
        }
    }
}

/// The first event that is to come, of so many.
type FirstOf = fn(usize) -> usize;

/// From the ring, and from the log.
#[actix_web::test]
async fn where_to_begin_can_be_chosen() {
    for (ring, name) in [(2, "begin-log"), (1000, "begin-ring")] {
        for builder in builders(name) {
            let broker = started(builder.ring(ring, 1 << 20));
            let mut cursors = Vec::new();
            for n in 0..600 {
                cursors.push(publish(&broker, ["a", "b"][n % 2], n).await.cursor.expect("a position"));
            }
            let mut all: Vec<_> = (0..600).step_by(2).map(|n| n.to_string()).collect();
            let any = SubscribeOptions::default;
            let rounds: [(SubscribeOptions, FirstOf); 8] = [
                (any().earliest(), |_| 0),
                (any().last(3), |len| len - 3),
                (any().last(10_000), |_| 0),
                (any().after(cursors[100].clone()), |_| 51),
                (any().after(cursors[101].clone()), |_| 51),
                (any().after(cursors[599].clone()), |_| 300),
                (any().last(0), |len| len),
                (any().earliest().now(), |len| len),
            ];
            for (round, (options, first)) in rounds.into_iter().enumerate() {
                let first = first(all.len());
                let mut stream = subscribe_with(&broker, to(&["a"]), options).await.expect("a stream");
                let end = format!("end {round}");
                publish(&broker, "a", &end).await;
                assert_eq!(read_until(&mut stream, &end).await, all[first..], "round {round}");
                all.push(end);
            }
        }
    }
}

#[actix_web::test]
async fn a_gap_is_told_at_its_place_and_not_told_twice() {
    let log = MemoryLog::bounded(10, 1 << 20).expect("valid");
    let broker = started(Broker::builder().ring(2, 1 << 20).log(ordered(log)));
    let start = publish(&broker, "b", "0").await.cursor.expect("a position");
    for n in 1..=100 {
        publish(&broker, ["a", "b"][n % 2], n).await;
    }
    let options = SubscribeOptions::default().after(start);
    let mut stream = subscribe_with(&broker, to(&["a"]), options.clone()).await.expect("a stream");
    let gap = within(stream.next()).await.expect("an item");
    let Delivery::Gap { after, resumed_at, head, cursor } = gap else { panic!("{gap:?}") };
    assert_eq!((after, head), (nth(1), nth(101)));
    assert!((nth(90)..=nth(92)).contains(&resumed_at), "{resumed_at}");
    assert_eq!(stream.cursor(), Some(&cursor));
    let again = SubscribeOptions::default().after(cursor);
    let mut again = subscribe_with(&broker, to(&["a"]), again).await.expect("a stream");
    for n in ["92", "94", "96", "98", "100"] {
        assert_eq!((read(&mut stream).await, read(&mut again).await), (n.into(), n.into()));
    }
    // Nothing of a channel that nobody published to is missing.
    let mut quiet = subscribe_with(&broker, to(&["quiet"]), options).await.expect("a stream");
    publish(&broker, "quiet", "first").await;
    assert_eq!(read(&mut quiet).await, "first");
}

/// What retention takes from one that has stopped reading is told to it, behind what was in its queue.
#[actix_web::test]
async fn what_goes_while_one_does_not_read_is_told() {
    let log = MemoryLog::bounded(10, 1 << 20).expect("valid");
    let broker = started(Broker::builder().ring(2, 1 << 20).log(ordered(log)));
    let mut barrier = subscribe(&broker, to(&["barrier"])).await.expect("a stream");
    let mut stream = subscribe_with(&broker, to(&["a"]), queue(3)).await.expect("a stream");
    for n in 1..=100 {
        publish(&broker, "a", n).await;
    }
    settle(&broker, &mut barrier).await;
    // The barrier has taken the place of one.
    let got = read_until(&mut stream, "100").await.join(", ");
    let gap = format!("gap {} {} {}", nth(4) - 1, nth(91), nth(101));
    assert_eq!(got, format!("1, 2, 3, {gap}, 92, 93, 94, 95, 96, 97, 98, 99"));
}

#[actix_web::test]
async fn a_cursor_of_another_log_is_told() {
    let [one, two] = brokers("reset");
    let other = publish(&one, "a", "x").await.cursor.expect("a position");
    for n in 0..3 {
        publish(&two, "a", n).await;
    }
    let reset = format!("reset OtherLog {}", nth(3));
    for (options, rest) in [
        (SubscribeOptions::default().after(other.clone()), "0, 1, 2"),
        (SubscribeOptions::default().after(other).last(1), "2"),
    ] {
        let mut stream = subscribe_with(&two, to(&["a"]), options).await.expect("a stream");
        two.do_send(on("a", text("end").ephemeral()));
        assert_eq!(read_until(&mut stream, "end").await.join(", "), format!("{reset}, {rest}"));
    }
    let unknown = fanfare::Cursor::parse("x.y.1").expect("a cursor");
    let mut stream = subscribe_with(&one, to(&["a"]), SubscribeOptions::default().after(unknown)).await;
    let item = within(stream.as_mut().expect("a stream").next()).await;
    assert!(matches!(item, Some(Delivery::Reset { reason: ResetReason::OtherLog, .. })), "{item:?}");
}

/// What is in the queue is read, the last count is told, and then the stream says why it has ended.
#[actix_web::test]
async fn a_broker_that_stops_ends_its_streams() {
    for broker in brokers("stop") {
        let mut barrier = subscribe(&broker, to(&["barrier"])).await.expect("a stream");
        let mut stream = subscribe_with(&broker, to(&["a"]), queue(2)).await.expect("a stream");
        let mut quiet = subscribe(&broker, to(&["quiet"])).await.expect("a stream");
        let stored = publish(&broker, "a", "stored").await;
        for n in 0..5 {
            broker.do_send(on("a", text(n).ephemeral()));
        }
        settle(&broker, &mut barrier).await;
        let weak = broker.downgrade();
        drop(broker);
        for expected in ["stored", "0", "lag 4"] {
            assert_eq!(read(&mut stream).await, expected);
        }
        assert!(within(stream.next()).await.is_none() && within(stream.next()).await.is_none());
        assert!(within(quiet.next()).await.is_none());
        assert_eq!(stream.end_reason(), Some(CloseReason::Unavailable));
        assert_eq!(stream.cursor(), stored.cursor.as_ref());
        // Its streams end while it stops; nothing of theirs keeps it.
        let gone = async {
            while weak.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        within(gone).await;
    }
}

#[actix_web::test]
async fn a_broker_that_drains_ends_its_streams_and_gives_no_more() {
    for broker in brokers("drain") {
        let mut stream = subscribe(&broker, to(&["a"])).await.expect("a stream");
        publish(&broker, "a", "last").await;
        broker.send(Drain).await.expect("answered");
        assert_eq!(read(&mut stream).await, "last");
        assert!(within(stream.next()).await.is_none());
        assert_eq!(stream.end_reason(), Some(CloseReason::Draining));
        let late = within(subscribe(&broker, to(&["a"]))).await;
        assert_eq!(late.err(), Some(SubscribeError::Closed(CloseReason::Draining)));
        until_clients(&broker, 0).await;
    }
}

#[test]
fn a_stream_may_go_anywhere() {
    fn check<T: futures_util::Stream<Item = Delivery> + Send + Unpin>() {}
    check::<Deliveries>();
}

/// A filter that keeps everything out hides what retention removes as well: no false gap.
#[actix_web::test]
async fn what_a_filter_keeps_out_is_no_gap() {
    let log = MemoryLog::bounded(5, 1 << 20).expect("valid");
    let broker = started(Broker::builder().ring(2, 1 << 20).log(ordered(log)));
    let mut barrier = subscribe(&broker, to(&["barrier"])).await.expect("a stream");
    let only = to(&["a"]).filter("kind", "system").expect("valid");
    let mut stream = subscribe_with(&broker, only, queue(1)).await.expect("a stream");
    for n in 0..50 {
        publish(&broker, "a", n).await;
    }
    let system = |data: &str| text(data).attribute("kind", "system").expect("valid");
    broker.do_send(on("a", system("1").ephemeral()));
    broker.do_send(on("a", system("2").ephemeral()));
    settle(&broker, &mut barrier).await;
    broker.do_send(on("a", system("end")));
    assert_eq!(read_until(&mut stream, "end").await, ["1", "lag 1"]);
}

/// On a thread that has neither an actix system nor an arbiter.
#[actix_web::test]
async fn any_thread_may_subscribe() {
    for broker in brokers("thread") {
        let (ready, is_ready) = oneshot::channel();
        let theirs = broker.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(async move {
                let mut stream = subscribe(&theirs, to(&["a"])).await.expect("a stream");
                drop(theirs);
                ready.send(()).expect("somebody waits");
                read_until(&mut stream, "end").await
            })
        });
        is_ready.await.expect("subscribed");
        for data in ["1", "2", "end"] {
            publish(&broker, "a", data).await;
        }
        let got = actix_web::rt::task::spawn_blocking(move || thread.join()).await.expect("joined");
        assert_eq!(got.expect("no panic"), ["1", "2"]);
    }
}

/// Takes an item only when the test lets it.
struct Slow {
    may_go_on: mpsc::UnboundedReceiver<()>,
    got: mpsc::UnboundedSender<String>,
}

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Slow {
    type Result = ();

    fn handle(&mut self, item: Delivery, ctx: &mut Context<Self>) {
        self.got.send(short(&item)).expect("the test reads");
        let mut may_go_on = std::mem::replace(&mut self.may_go_on, mpsc::unbounded_channel().1);
        let wait = async move {
            may_go_on.recv().await;
            may_go_on
        };
        ctx.wait(wait.into_actor(self).map(|may_go_on, slow, _| slow.may_go_on = may_go_on));
    }
}

/// A slow actor holds one item in its mailbox; what is stored waits in the log, and comes whole.
#[actix_web::test]
async fn an_actor_is_handed_what_it_can_take() {
    for broker in brokers("actor") {
        let mut barrier = subscribe(&broker, to(&["barrier"])).await.expect("a stream");
        let (go_on, may_go_on) = mpsc::unbounded_channel();
        let (got, mut taken) = mpsc::unbounded_channel();
        let slow = Slow { may_go_on, got }.start();
        let stream = subscribe_with(&broker, to(&["a"]), queue(4)).await.expect("a stream");
        let handle = stream.deliver_to(slow.recipient());
        for n in 0..500 {
            publish(&broker, "a", n).await;
        }
        for n in 0..20 {
            broker.do_send(on("a", text(n).ephemeral()));
        }
        settle(&broker, &mut barrier).await;
        // Until here the actor has had one item, so that none of the ephemeral events found room.
        publish(&broker, "a", "end").await;
        let mut all = Vec::new();
        loop {
            let item = within(taken.recv()).await.expect("an item");
            go_on.send(()).expect("it waits");
            if item == "end" {
                break;
            }
            all.push(item);
        }
        let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
        let (lags, events): (Vec<_>, Vec<_>) = all.into_iter().partition(|item| item.starts_with("lag"));
        assert_eq!(events, expected);
        assert_eq!(lags, ["lag 20"]);
        drop(handle);
        until_clients(&broker, 1).await;
        publish(&broker, "a", "late").await;
        settle(&broker, &mut barrier).await;
        assert!(taken.try_recv().is_err(), "nothing comes after the handle is dropped");
    }
}
