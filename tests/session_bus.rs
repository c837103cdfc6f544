//! The session bus example, over its HTTP API: subscribers in its process get exactly what matches, count what they lose, and
//! harm nobody; a session is routed to its scroll from the moment that it is bound.
//!
//! The page needs `chromium` and `chromedriver`; see `scripts/test`.

#[path = "support/example.rs"]
mod example;
mod support;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use example::Example;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::{Value, json};
use support::http::{self, Answer};
use support::sse::{Block, SseClient};
use webdriver::Driver;

const SOON: Duration = Duration::from_secs(10);

/// The example on a port and in a folder of its own.
struct Bus {
    addr: SocketAddr,
    folder: PathBuf,
    example: Option<Example>,
}

impl Bus {
    fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        drop(listener);
        let folder = std::env::temp_dir().join(format!("fanfare-bus-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut bus = Self { addr, folder, example: None };
        bus.start_again();
        bus
    }

    fn start_again(&mut self) {
        let log = self.folder.join("bus.db");
        self.example =
            Some(Example::start("session_bus", self.addr, &["--log", log.to_str().expect("text")]));
    }

    fn kill(&mut self) {
        self.example.take().expect("it runs").kill();
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        http::request(self.addr, method, path, &headers, &body.to_string()).await
    }

    /// Binds a session to a scroll, and says the position of the event that says so.
    async fn register(&self, connector: &str, session: &str, scroll: &str) -> u64 {
        let path = format!("/connectors/{connector}/sessions/{session}");
        let answer = self.ask("PUT", &path, &json!({"scroll": scroll})).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()["seq"].as_u64().expect("it is stored")
    }

    async fn publish(&self, connector: &str, session: &str, events: &[Value]) -> Vec<Value> {
        let path = format!("/connectors/{connector}/sessions/{session}/events");
        let answer = self.ask("POST", &path, &json!(events)).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json().as_array().expect("receipts").clone()
    }

    async fn subscribe(&self, name: &str, wanted: Value) {
        let answer = self.ask("PUT", &format!("/subscribers/{name}"), &wanted).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }

    async fn hold(&self, name: &str, held: bool) {
        let answer = self.ask("PUT", &format!("/subscribers/{name}/pace"), &json!({"held": held})).await;
        assert_eq!(answer.status(), 204);
    }

    async fn look(&self, name: &str) -> Report {
        let report = http::get(self.addr, &format!("/subscribers/{name}")).await.json();
        let count = |field: &str| report[field].as_u64().expect("a count");
        Report {
            delivered: count("delivered"),
            lagged: count("lagged"),
            items: report["items"].as_array().expect("items").clone(),
        }
    }

    /// Waits until a subscriber stands as wanted.
    async fn until(&self, name: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.look(name).await;
            if wanted(&report) {
                return report;
            }
            assert!(
                start.elapsed() < SOON,
                "{name}: {} and {}: {:?}",
                report.delivered,
                report.lagged,
                report.short()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn live(&self, query: &str) -> SseClient {
        let mut client =
            SseClient::open(self.addr, &format!("/rt/events?format=envelope&{query}"), &[]).await;
        client.welcome().await;
        client
    }

    async fn status(&self) -> Value {
        http::get(self.addr, "/rt/status").await.json()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.example = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The next event, past pings, which must come soon: a stream that only pings is not waited for.
async fn next(client: &mut SseClient) -> Block {
    tokio::time::timeout(SOON, client.event())
        .await
        .expect("an event in time")
        .expect("an event, not the end")
}

struct Report {
    delivered: u64,
    lagged: u64,
    items: Vec<Value>,
}

impl Report {
    fn total(&self) -> u64 {
        self.delivered + self.lagged
    }

    /// The items in short: an event's data, or what is missing.
    fn short(&self) -> Vec<String> {
        let short = |item: &Value| match item.as_object().and_then(|item| item.iter().next()) {
            Some((kind, about)) if kind == "event" => match &about["data"] {
                Value::String(text) => text.clone(),
                _ => about["kind"].as_str().expect("a kind").to_owned(),
            },
            Some((kind, about)) if kind == "lag" => format!("lag {}", about["dropped"]),
            _ => item.to_string(),
        };
        self.items.iter().map(short).collect()
    }

    fn seqs(&self) -> Vec<u64> {
        self.items.iter().filter_map(|item| item["event"]["seq"].as_u64()).collect()
    }

    fn ends_with(&self, data: &str) -> bool {
        self.items.last().is_some_and(|item| item["event"]["data"] == data)
    }
}

fn kept(data: impl Display) -> Value {
    json!({"kind": "said", "data": format!("{data}")})
}

fn live(data: impl Display) -> Value {
    json!({"kind": "typed", "data": format!("{data}"), "live": true})
}

/// D1: all, exact channels, several, a wildcard, by connector, by scroll and both: nothing that does not match, each once.
#[actix_web::test]
async fn a_subscriber_gets_what_it_asked_for() {
    let bus = Bus::start("filters");
    bus.register("irc", "1", "story").await;
    bus.register("mail", "1", "story").await;
    bus.register("irc", "2", "other").await;
    let cases = [
        (json!({}), "irc1 irc1live irc2 mail1 mail1live news1 ircx1 end"),
        (json!({"channels": ["kept/irc"]}), "irc1 irc2 end"),
        (json!({"channels": ["kept/irc", "live/mail"]}), "irc1 irc2 mail1live end"),
        (json!({"channels": ["kept/*", "kept/irc", "**"], "connector": "irc"}), "irc1 irc1live irc2 end"),
        (json!({"channels": ["kept/*"]}), "irc1 irc2 mail1 news1 ircx1 end"),
        (json!({"connector": "irc"}), "irc1 irc1live irc2 end"),
        (json!({"scroll": "story"}), "irc1 irc1live mail1 mail1live end"),
        (json!({"scroll": "story", "connector": "irc"}), "irc1 irc1live end"),
    ];
    for (n, (wanted, _)) in cases.iter().enumerate() {
        bus.subscribe(&n.to_string(), wanted.clone()).await;
    }
    for (connector, session) in [("irc", "1"), ("irc", "2"), ("mail", "1"), ("news", "1"), ("ircx", "1")] {
        let name = format!("{connector}{session}");
        let mut events = vec![kept(&name)];
        // Sent together, so that all see them in this order.
        if session == "1" && ["irc", "mail"].contains(&connector) {
            events.push(live(format!("{name}live")));
        }
        bus.publish(connector, session, &events).await;
    }
    // All of them want this one.
    bus.publish("irc", "1", &[kept("end")]).await;
    for (n, (wanted, expected)) in cases.iter().enumerate() {
        let report = bus.until(&n.to_string(), |report| report.ends_with("end")).await;
        assert_eq!(report.short().join(" "), *expected, "{wanted}");
        assert_eq!((report.delivered, report.lagged), (report.items.len() as u64, 0));
    }
}

/// D2: one that does not read gets the first n, then the exact count of what was lost, at its place, and then what is stored; and
/// what is delivered and what is told as lost is what was published, exactly.
#[actix_web::test]
async fn what_is_lost_is_counted_exactly_and_at_its_place() {
    const QUEUE: usize = 4;
    let bus = Bus::start("lag");
    bus.subscribe("slow", json!({"queue": QUEUE, "held": true})).await;
    // All that it has read, the other was offered, too.
    bus.subscribe("all", json!({"queue": 1000})).await;
    let lives: Vec<_> = (0..10).map(live).collect();
    bus.publish("irc", "1", &lives).await;
    bus.publish("irc", "1", &[kept("stored"), kept("too")]).await;
    bus.until("all", |report| report.delivered == 12).await;
    let slow = bus.look("slow").await;
    assert_eq!((slow.delivered, slow.lagged), (0, 0), "it has read nothing");

    bus.hold("slow", false).await;
    let slow = bus.until("slow", |report| report.total() == 12).await;
    assert_eq!(slow.short(), ["0", "1", "2", "3", "lag 6", "stored", "too"]);
    assert_eq!((slow.delivered, slow.lagged), (6, 6));

    // And again, now that it goes on and stops whenever it likes.
    bus.hold("slow", true).await;
    bus.publish("irc", "1", &(0..20).map(|n| live(format!("held {n}"))).collect::<Vec<_>>()).await;
    let publishing = async {
        for n in 0..60 {
            let events: Vec<_> = (0..20).map(|m| live(format!("{n}.{m}"))).collect();
            bus.publish("irc", "1", &events).await;
        }
        bus.publish("irc", "1", &[kept("end")]).await;
    };
    let pacing = async {
        for n in 0..40 {
            bus.hold("slow", n % 2 == 0).await;
        }
        bus.hold("slow", false).await;
    };
    futures_util::future::join(publishing, pacing).await;
    let published = 12 + 20 + 60 * 20 + 1;
    let all = bus.until("all", |report| report.total() == published).await;
    let slow = bus.until("slow", |report| report.total() == published).await;
    assert_eq!(all.lagged, 0, "there was room for all");
    assert!(slow.ends_with("end") && slow.lagged >= 6 + 20 - QUEUE as u64, "{}", slow.lagged);
    // At its place: what comes after a count was published after what it counts.
    let lags = |item: &&Value| item["lag"].is_object();
    let told: u64 =
        slow.items.iter().filter(lags).map(|item| item["lag"]["dropped"].as_u64().expect("a count")).sum();
    assert_eq!(told, slow.lagged);
    let order: Vec<_> = all.short();
    let mut before = 0;
    for (n, item) in slow.short().iter().enumerate() {
        if item.starts_with("lag ") {
            continue;
        }
        let place = order.iter().position(|other| other == item).expect("published");
        let (delivered, lagged) = counted(&slow.items[..n]);
        assert!(place >= before, "in order, and once: {item}");
        assert!(place as u64 >= delivered + lagged, "{item} is at {place}, behind {delivered} and {lagged}");
        before = place + 1;
    }
}

/// How many events are among these items, and how many are told as lost.
fn counted(items: &[Value]) -> (u64, u64) {
    let dropped = |item: &Value| item["lag"]["dropped"].as_u64();
    let lagged = items.iter().filter_map(dropped).sum();
    (items.iter().filter(|item| dropped(item).is_none()).count() as u64, lagged)
}

/// D3: those that do not read cost the others nothing, and publishers neither; they get all that is stored when they go
/// on. What cannot be taken is refused aloud.
#[actix_web::test]
async fn slow_subscribers_cost_nobody_anything() {
    let bus = Bus::start("slow");
    for n in 0..20 {
        bus.subscribe(&format!("held{n}"), json!({"queue": 1, "held": true})).await;
    }
    bus.subscribe("fast", json!({"queue": 5000})).await;
    for n in 0..15 {
        let events: Vec<_> =
            (0..100).map(|m| if m % 10 == 0 { live(n * 100 + m) } else { kept(n * 100 + m) }).collect();
        bus.publish("irc", "1", &events).await;
    }
    let fast = bus.until("fast", |report| report.total() == 1500).await;
    let expected: Vec<_> = (0..1500).map(|n| n.to_string()).collect();
    assert!(fast.short() == expected && fast.lagged == 0);
    assert_eq!(bus.status().await["refused"], 0);
    for n in [0, 7, 19] {
        let name = format!("held{n}");
        bus.hold(&name, false).await;
        let held = bus.until(&name, |report| report.total() == 1500).await;
        // The first event, which was live, was in its queue.
        assert_eq!((held.delivered, held.lagged), (1 + 1350, 149));
        let stored: Vec<_> = held.short().into_iter().filter(|item| !item.starts_with("lag ")).collect();
        let expected = expected.iter().enumerate().filter(|(n, _)| *n == 0 || n % 10 != 0);
        assert!(stored.iter().eq(expected.map(|(_, data)| data)));
    }
    let head = bus.status().await["head"].as_u64();
    let too_many: Vec<_> = (0..4097).map(kept).collect();
    let refused = bus.ask("POST", "/connectors/irc/sessions/1/events", &json!(too_many)).await;
    assert_eq!((refused.status(), &refused.json()["field"]), (413, &"batch".into()));
    assert_eq!(bus.status().await["head"].as_u64(), head, "nothing of it was published");
}

/// D4: events of a session reach its scroll from the bind on; the event that binds is routed by its own binding; what was before is
/// with those who follow the connector; bound again, it moves; unbound, it is nowhere.
#[actix_web::test]
async fn a_session_is_routed_from_its_registration_on() {
    let bus = Bus::start("bind");
    bus.subscribe("story", json!({"scroll": "story"})).await;
    bus.subscribe("sequel", json!({"scroll": "sequel"})).await;
    bus.subscribe("irc", json!({"connector": "irc"})).await;
    let mut page = bus.live("channel=kept/**&channel=live/**&filter=scroll:story").await;
    bus.publish("irc", "7", &[kept("before"), live("before live")]).await;
    let seq = bus.register("irc", "7", "story").await;
    bus.publish("irc", "7", &[kept("after"), live("after live")]).await;
    bus.publish("irc", "8", &[kept("another session")]).await;
    bus.publish("mail", "7", &[kept("another connector")]).await;
    bus.register("irc", "7", "sequel").await;
    bus.publish("irc", "7", &[kept("moved")]).await;
    for _ in 0..2 {
        let unbound = bus.ask("DELETE", "/connectors/irc/sessions/7", &Value::Null).await;
        assert_eq!(unbound.status(), 204, "twice is fine");
    }
    assert_eq!(bus.status().await["bindings"], 0);
    bus.publish("irc", "7", &[kept("unbound")]).await;
    bus.register("mail", "1", "story").await;
    bus.register("mail", "2", "sequel").await;
    bus.publish("irc", "9", &[kept("end")]).await;

    let story = bus.until("story", |report| report.delivered == 4).await;
    assert_eq!(story.short(), ["registered", "after", "after live", "registered"]);
    let (first, data) =
        (&story.items[0]["event"], json!({"connector": "irc", "native_session": "7", "scroll": "story"}));
    assert_eq!((&first["seq"], &first["scroll"], &first["data"]), (&json!(seq), &json!("story"), &data));
    let sequel = bus.until("sequel", |report| report.delivered == 3).await;
    assert_eq!(sequel.short(), ["registered", "moved", "registered"]);
    let irc = bus.until("irc", |report| report.ends_with("end")).await;
    let expected = [
        "before",
        "before live",
        "registered",
        "after",
        "after live",
        "another session",
        "registered",
        "moved",
        "unbound",
        "end",
    ];
    assert_eq!(irc.short(), expected);
    // The page's stream has the same.
    for expected in ["registered", "said", "typed", "registered"] {
        let event = next(&mut page).await.json();
        assert_eq!(
            (&event["attributes"]["kind"], &event["attributes"]["scroll"]),
            (&json!(expected), &json!("story"))
        );
    }
    let refused = bus.ask("PUT", "/connectors/irc/sessions/7", &json!({"scroll": "a\nb"})).await;
    assert_eq!((refused.status(), &refused.json()["field"]), (400, &"set".into()));
    assert_eq!(bus.status().await["bindings"], 2);
}

/// D4: a thousand sessions are bound while they are published to: each event is either of its own scroll or of none, and of its own
/// from the bind on, in the order of the log.
#[actix_web::test]
async fn concurrent_binds_and_events_never_misroute() {
    const SESSIONS: usize = 1000;
    let bus = Bus::start("storm");
    for scroll in ["scroll-0", "scroll-999"] {
        bus.subscribe(scroll, json!({"scroll": scroll})).await;
    }
    let sessions = stream::iter(0..SESSIONS).for_each_concurrent(32, async |n| {
        let (session, scroll) = (n.to_string(), format!("scroll-{n}"));
        let racing = [kept(format!("{n} racing"))];
        let (_, _) = futures_util::future::join(
            bus.register("irc", &session, &scroll),
            bus.publish("irc", &session, &racing),
        )
        .await;
        bus.publish("irc", &session, &[kept(format!("{n} bound"))]).await;
    });
    sessions.await;
    assert_eq!(bus.status().await["bindings"], SESSIONS);

    let mut log = bus.live("channel=kept/**&from=earliest").await;
    let mut seen = BTreeMap::<String, Vec<(String, bool)>>::new();
    let mut late = 0;
    for _ in 0..3 * SESSIONS {
        let event = next(&mut log).await.json();
        let session = event["attributes"]["native_session"].as_str().expect("a session").to_owned();
        let scroll = event["attributes"]["scroll"].as_str();
        assert!(scroll.is_none_or(|scroll| scroll == format!("scroll-{session}")), "misrouted: {event}");
        if let Some(data) = event["data"].as_str() {
            assert_eq!(data.split(' ').next(), Some(session.as_str()));
        }
        late += usize::from(scroll.is_none());
        let what = event["data"].as_str().map_or("registered", |data| &data[session.len() + 1..]);
        seen.entry(session).or_default().push((what.to_owned(), scroll.is_some()));
    }
    assert_eq!(seen.len(), SESSIONS);
    for (session, events) in &seen {
        let bound = events.iter().position(|(what, _)| what == "registered").expect("registered");
        assert_eq!(events.len(), 3, "{session}: {events:?}");
        for (n, (what, is_bound)) in events.iter().enumerate() {
            assert_eq!(*is_bound, n >= bound, "{session}: {what} in {events:?}");
        }
        assert_eq!(events[2], ("bound".to_owned(), true), "{session}");
    }
    println!("{late} of {SESSIONS} were before their bind");
    for n in [0, 999] {
        let own = &seen[&n.to_string()];
        let expected = own.iter().filter(|(_, is_bound)| *is_bound).count() as u64;
        let report = bus.until(&format!("scroll-{n}"), |report| report.delivered == expected).await;
        assert!(report.ends_with(&format!("{n} bound")), "{:?}", report.short());
    }
}

/// D5, D6: a subscriber that is ended is gone without anything being published, and to end it twice does no harm. A queue for
/// nothing, and whatever else cannot be, is refused.
#[actix_web::test]
async fn who_is_ended_is_gone_and_nonsense_is_refused() {
    let bus = Bus::start("gone");
    for n in 0..10 {
        let held = n % 2 == 0;
        bus.subscribe(
            &n.to_string(),
            json!({"channels": [format!("kept/quiet{n}")], "scroll": "none", "held": held}),
        )
        .await;
    }
    let status = bus.status().await;
    assert_eq!((&status["clients"], &status["channels"]), (&json!(10), &json!(10)), "{status}");
    for n in 0..10 {
        for _ in 0..2 {
            let ended = bus.ask("DELETE", &format!("/subscribers/{n}"), &Value::Null).await;
            assert_eq!(ended.status(), 204);
        }
        assert_eq!(http::get(bus.addr, &format!("/subscribers/{n}")).await.status(), 404);
    }
    let start = Instant::now();
    while bus.status().await["clients"] != 0 {
        assert!(start.elapsed() < SOON, "{}", bus.status().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let status = bus.status().await;
    assert_eq!(
        (&status["channels"], &status["sessions"], &status["head"]),
        (&json!(0), &json!(0), &json!(0))
    );
    // Another of the same name takes the place of the one before.
    for _ in 0..3 {
        bus.subscribe("same", json!({})).await;
    }
    let start = Instant::now();
    while bus.status().await["clients"] != 1 {
        assert!(start.elapsed() < SOON, "{}", bus.status().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    for (wanted, field) in [
        (json!({"queue": 0}), json!("queue")),
        (json!({"queue": 65_537}), json!("queue")),
        (json!({"channels": ["kept//irc"]}), json!("channel")),
        (json!({"scroll": "a\nb"}), json!("filter")),
        (json!({"queue": -1}), Value::Null),
        (json!({"que": 1}), Value::Null),
    ] {
        let refused = bus.ask("PUT", "/subscribers/bad", &wanted).await;
        assert_eq!((refused.status(), &refused.json()["field"]), (400, &field), "{wanted}: {}", refused.body);
    }
    assert_eq!(http::get(bus.addr, "/subscribers/bad").await.status(), 404);
    let status = bus.status().await;
    assert_eq!(status["clients"], 1, "nothing of it is left: {status}");
}

/// D7: all see the same order, in the process and over HTTP, however fast they read.
#[actix_web::test]
async fn all_see_the_same_order() {
    let bus = Bus::start("order");
    bus.subscribe("all", json!({"queue": 2000})).await;
    bus.subscribe("slow", json!({"queue": 2, "held": true})).await;
    bus.subscribe("irc", json!({"connector": "irc"})).await;
    let mut page = bus.live("channel=kept/**").await;
    let publishers = (0..4).map(async |publisher| {
        for n in 0..50 {
            let connector = ["irc", "mail"][(publisher + n) % 2];
            bus.publish(connector, &publisher.to_string(), &[kept(format!("{publisher}.{n}"))]).await;
        }
    });
    join_all(publishers).await;
    let all = bus.until("all", |report| report.delivered == 200).await;
    bus.hold("slow", false).await;
    let slow = bus.until("slow", |report| report.delivered == 200).await;
    let irc = bus.until("irc", |report| report.delivered == 100).await;
    assert_eq!(slow.items, all.items);
    assert!(all.seqs().is_sorted() && all.seqs().len() == 200);
    let is_irc = |item: &&Value| item["event"]["channel"] == "kept/irc";
    assert!(all.items.iter().filter(is_irc).eq(&irc.items));
    for expected in &all.items {
        let event = next(&mut page).await.json();
        assert_eq!((&event["seq"], &event["data"]), (&expected["event"]["seq"], &expected["event"]["data"]));
    }
}

/// What is stored comes to whoever comes back to a scroll, exactly and with what it was bound to then, also when the program was
/// killed meanwhile; what is live does not come later.
#[actix_web::test]
async fn what_is_stored_is_resumed_and_what_is_live_is_not() {
    let mut bus = Bus::start("resume");
    bus.register("irc", "1", "story").await;
    let query = "channel=kept/**&channel=live/**&filter=scroll:story";
    let mut page = bus.live(query).await;
    bus.publish("irc", "1", &[kept("seen"), live("live")]).await;
    let seen = next(&mut page).await;
    assert_eq!(seen.json()["data"], "seen");
    let live_one = next(&mut page).await;
    assert_eq!((live_one.id.as_ref(), &live_one.json()["seq"]), (None, &Value::Null));
    drop(page);
    for n in 0..50 {
        let receipts = bus.publish("irc", "1", &[kept(n), live("lost")]).await;
        assert!(receipts[0]["seq"].is_u64() && receipts[1]["seq"].is_null());
        bus.publish("irc", "2", &[kept("of another session")]).await;
    }
    bus.kill();
    bus.start_again();
    // Bindings are in memory: the connector registers again.
    bus.register("irc", "1", "story").await;
    bus.publish("irc", "1", &[kept("end")]).await;
    let last = seen.id.expect("a cursor");
    let mut page = bus.live(&format!("{query}&last_event_id={last}")).await;
    for n in 0..50 {
        assert_eq!(next(&mut page).await.json()["data"], n.to_string());
    }
    assert_eq!(next(&mut page).await.json()["attributes"]["kind"], "registered");
    assert_eq!(next(&mut page).await.json()["data"], "end");
}

/// The page shows a session that was bound late, what the subscribers of the process were delivered and have lost, and events by
/// their scroll as they come.
#[actix_web::test]
async fn the_page_shows_what_is_on_the_bus() {
    const LIVE: &str = "document.getElementById('state').dataset.state === 'live'";
    let mut bus = Bus::start("page");
    let driver = Driver::start();
    let page = driver.browser();
    page.goto(&format!("http://{}/", bus.addr));
    page.until("the page is live", SOON, LIVE);

    bus.subscribe("all", json!({})).await;
    bus.subscribe("slow", json!({"queue": 4, "held": true})).await;
    bus.publish("irc", "7", &[kept("Whose is this?"), live("3 letters")]).await;
    bus.register("irc", "7", "story").await;
    bus.register("mail", "1", "story").await;
    bus.publish("mail", "2", &[json!({"kind": "attached", "data": {"bytes": 7}})]).await;
    let lives: Vec<_> = (0..10).map(|n| live(format!("{n} <i>letters</i>"))).collect();
    bus.publish("irc", "7", &lives).await;
    bus.publish("irc", "7", &[kept("The story goes on.")]).await;

    let rows = |table: &str, wanted: &[&[&str]]| {
        let cells = "[...row.cells].map((cell) => cell.textContent)";
        let rows = format!("[...document.getElementById('{table}').tBodies[0].rows].map((row) => {cells})");
        format!("JSON.stringify({rows}) === JSON.stringify({})", json!(wanted))
    };
    let scroll = |selector: &str, wanted: &[&str]| {
        let texts =
            format!("[...document.querySelectorAll('{selector} .text')].map((one) => one.textContent)");
        format!("JSON.stringify({texts}) === JSON.stringify({})", json!(wanted))
    };
    let irc = ["irc", "7", "storybound late", "2", "11"];
    let sessions: [&[&str]; 3] =
        [&irc, &["mail", "2", "not bound", "1", "0"], &["mail", "1", "story", "0", "0"]];
    page.until("the sessions are shown", SOON, &rows("sessions", &sessions));
    // Seven that are stored or that are live were before it was bound, or of others: 16 in all, with the two bindings.
    let standing = |delivered: &str, lost: &str, tag: &str, pace: &str| {
        rows(
            "subscribers",
            &[&["all", "256", "16", "0", "Hold"], &[&format!("slow{tag}"), "4", delivered, lost, pace]],
        )
    };
    page.until("the subscribers are shown", SOON, &standing("0", "0", "does not read", "Go on"));
    let shown = [
        "The story goes on.",
        "9 <i>letters</i>",
        "8 <i>letters</i>",
        "7 <i>letters</i>",
        "6 <i>letters</i>",
    ];
    page.until("the newest are shown", SOON, &scroll("[data-scroll=story] .event:nth-child(-n+5)", &shown));
    let none = ["{\"bytes\":7}", "3 letters", "Whose is this?"];
    page.until("what belongs to no scroll, too", SOON, &scroll(".scroll.none", &none));
    page.eval("document.querySelector('[data-name=slow] button').click()");
    // In its queue were what was before, the bindings; then ten live events are lost, and what is stored comes.
    page.until("what was lost is shown", SOON, &standing("6", "10", "", "Hold"));
    page.take_pictures("session-bus");

    // After a restart the subscribers of the process are gone with it, and what is stored is not.
    bus.kill();
    page.until("the bus is gone", SOON, "document.getElementById('state').dataset.state === 'reconnecting'");
    bus.start_again();
    page.until("it is back", SOON, LIVE);
    page.until("the subscribers are gone", SOON, &rows("subscribers", &[]));
    bus.register("irc", "7", "sequel").await;
    bus.publish("irc", "7", &[kept("And on.")]).await;
    let sequel = ["And on.", "irc 7 is bound to sequel"];
    page.until("it goes on", SOON, &scroll("[data-scroll=sequel]", &sequel));
    page.until("nothing comes twice", SOON, &scroll(".scroll.none", &none));

    // The demonstration does what the page says.
    page.eval("document.getElementById('try').click()");
    page.until("it is shown", SOON, "document.querySelector('[data-scroll=\"story 1\"]') !== null");
    page.until(
        "there is one that reads",
        SOON,
        "document.querySelector('[data-name=all] .delivered')?.textContent === '13'",
    );
    page.eval("document.querySelector('[data-name=slow] button').click()");
    page.until(
        "and one that has lost",
        SOON,
        "document.querySelector('[data-name=slow] .lagged')?.textContent === '8'",
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
}
