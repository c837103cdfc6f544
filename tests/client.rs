//! The client: what it promises, against real servers, and against sockets that answer what no good server would.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfare::client::{
    Begin, Cause, Client, EventStream, Item, Position, PublishError, Received, StreamError,
};
use fanfare::{Broadcast, Broker, Drain, Event, EventId, MemoryLog};
use futures_util::StreamExt;
use support::hub::Hub;
use support::{TestServer, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(server: &TestServer) -> Client {
    Client::new(format!("http://{}/rt", server.addr)).expect("a URL")
}

async fn item(stream: &mut EventStream) -> Result<Item, StreamError> {
    let item =
        tokio::time::timeout(PATIENCE, stream.next()).await.expect("something within the test's patience");
    item.expect("an item, not the end")
}

/// The next event, which must come before anything else.
async fn event(stream: &mut EventStream) -> Received {
    match item(stream).await {
        Ok(Item::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

async fn connected(stream: &mut EventStream) {
    let item = item(stream).await;
    assert!(matches!(item, Ok(Item::Connected(_))), "{item:?}");
}

/// Why the connection is lost, which must come next, and the pause.
async fn lost(stream: &mut EventStream) -> (Cause, Duration) {
    match item(stream).await {
        Ok(Item::Disconnected(lost)) => (lost.cause, lost.retry_in),
        other => panic!("not lost: {other:?}"),
    }
}

/// How the stream ends, which must come next.
async fn end(stream: &mut EventStream) -> StreamError {
    let error = item(stream).await.expect_err("the end");
    assert!(stream.next().await.is_none(), "after {error}");
    assert!(stream.next().await.is_none(), "after {error}");
    error
}

fn to(channel: &str, data: impl Into<String>) -> Broadcast {
    Broadcast::channel(channel, Event::text("message", data).expect("valid")).expect("valid")
}

async fn publish(server: &TestServer, channel: &str, data: impl Into<String>) -> Position {
    let receipt = server.broker.send(to(channel, data)).await.expect("answered").expect("committed");
    receipt.cursor.expect("stored").into()
}

/// One connection's answer: written at once or in ten pieces with a pause between them, then held open or closed.
#[derive(Clone)]
struct Answer {
    text: String,
    pause: Duration,
    is_held: bool,
}

fn status(line: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    Answer { text, pause: Duration::ZERO, is_held: false }
}

const WELCOME: &str = "retry: 1\n\nid: a.b.1\nevent: $welcome\ndata: {\"client\":\"01J00000000000000000000000\",\
    \"session\":\"01J00000000000000000000001\",\"heartbeat\":0.1}\n\n";

fn stream(blocks: &str) -> Answer {
    let text =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{blocks}");
    Answer { text, pause: Duration::ZERO, is_held: false }
}

impl Answer {
    fn held(mut self) -> Self {
        self.is_held = true;
        self
    }
}

/// A server that gives one answer after the other, the last one for ever, and tells what it was asked.
struct Scripted {
    addr: SocketAddr,
    heads: mpsc::UnboundedReceiver<String>,
}

impl Scripted {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (asked, heads) = mpsc::unbounded_channel();
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        actix_web::rt::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
                let answer = answer.expect("an answer");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.expect("a head"));
                }
                let _ = asked.send(String::from_utf8(head).expect("text"));
                let pieces = if answer.pause.is_zero() { 1 } else { 10 };
                for piece in answer.text.as_bytes().chunks(answer.text.len() / pieces + 1) {
                    let _ = socket.write_all(piece).await;
                    if pieces > 1 {
                        tokio::time::sleep(answer.pause).await;
                    }
                }
                if answer.is_held {
                    held.push(socket);
                }
            }
        });
        Self { addr, heads }
    }

    /// A client that tries again at once.
    fn client(&self) -> Client {
        let client = Client::new(format!("http://{}", self.addr)).expect("a URL");
        client.backoff(Duration::from_millis(1), Duration::from_millis(1)).expect("valid")
    }

    async fn head(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.heads.recv()).await.expect("asked").expect("it runs")
    }
}

#[actix_web::test]
async fn events_come_in_order_with_all_that_is_known_of_them() {
    let server = serve(Broker::builder());
    let client = client(&server);
    let subscribe = client.subscribe().channel("a/*").expect("valid").filter("kind", "x y").expect("valid");
    let mut stream = subscribe.open();
    let Ok(Item::Connected(me)) = item(&mut stream).await else { panic!("not connected") };
    assert_eq!(me.heartbeat, Duration::from_secs(15));
    let start = stream.position().cloned().expect("the head");

    let tagged = |data: &str| {
        let event = Event::text("created", data).expect("valid");
        event.attribute("kind", "x y").expect("valid")
    };
    let json = Event::json("message", &serde_json::json!({"n": [1, 2]})).expect("valid");
    let json = json.attribute("kind", "x y").expect("valid").id(EventId::new("mine").expect("valid"));
    let all = [
        Broadcast::channels(["a/1", "b"], tagged("line\r\nline")).expect("valid"),
        to("a/1", "not of this kind"),
        Broadcast::channel("a/1", json).expect("valid"),
        Broadcast::channel("a/2", tagged("{}").ephemeral()).expect("valid"),
        Broadcast::sessions([me.session], Event::text("message", "me").expect("valid")),
        Broadcast::everyone(Event::text("message", "all").expect("valid")),
    ];
    let receipts = client.publish_all(&all).await.expect("committed");

    let first = event(&mut stream).await;
    assert_eq!(first.data.as_str(), "line\r\nline");
    assert_eq!(
        (first.name.as_str(), &*first.channel, first.seq, first.prev),
        ("created", "a/1", Some(1), Some(0))
    );
    assert_eq!(first.channels, ["a/1", "b"]);
    assert_eq!((first.attributes.get("kind"), first.id.clone()), (Some("x y"), receipts[0].id.clone()));
    assert_eq!((&first.position, stream.position()), (&receipts[0].position, receipts[0].position.as_ref()));
    assert!(first.time.elapsed().expect("in the past") < PATIENCE);
    let second = event(&mut stream).await;
    assert_eq!((second.id.as_str(), second.seq, second.prev), ("mine", Some(3), Some(2)));
    let read: BTreeMap<String, Vec<u8>> = second.json().expect("JSON");
    assert_eq!((read["n"].as_slice(), second.data.is_json()), (&[1, 2][..], true));
    let ephemeral = event(&mut stream).await;
    assert_eq!((ephemeral.data.as_str(), ephemeral.data.is_json()), ("{}", false));
    assert_eq!((ephemeral.position, ephemeral.seq, ephemeral.prev), (None, None, None));
    assert_eq!(stream.position(), receipts[2].position.as_ref());
    let inbox = event(&mut stream).await;
    assert_eq!((&*inbox.channel, inbox.data.as_str()), ("$session", "me"));
    let everyone = event(&mut stream).await;
    assert_eq!((&*everyone.channel, everyone.data.as_str()), ("$everyone", "all"));

    // The same again, for one who comes later.
    let mut later = client.subscribe().channel("a/*").expect("valid").after(start).open();
    connected(&mut later).await;
    assert_eq!(event(&mut later).await.id, receipts[0].id);
}

#[actix_web::test]
async fn where_to_begin_can_be_chosen() {
    let server = serve(Broker::builder());
    for n in 0..5 {
        publish(&server, "a", n.to_string()).await;
    }
    for (begin, expected) in [(Begin::Earliest, "0"), (Begin::Last(2), "3"), (Begin::Now, "live")] {
        let mut stream = client(&server).subscribe().channel("a").expect("valid").from(begin).open();
        connected(&mut stream).await;
        if begin == Begin::Now {
            publish(&server, "a", "live").await;
        }
        assert_eq!(event(&mut stream).await.data.as_str(), expected);
    }
}

/// Over a `kill -9` of the hub, with events before, at and after it: each once and in order.
#[actix_web::test]
async fn a_restart_loses_nothing_and_repeats_nothing() {
    const EVENTS: usize = 300;
    let log = std::env::temp_dir().join(format!("fanfare-client-{}.db", std::process::id()));
    let args = ["--log", log.to_str().expect("text")];
    let hub = Hub::start(&args);
    let addr = hub.addr;
    let client = Client::new(format!("http://{addr}/")).expect("a URL");
    let mut stream = client.subscribe().channel("a").expect("valid").open();
    connected(&mut stream).await;

    let publishing = async {
        let mut hub = Some(hub);
        for n in 0..EVENTS {
            if n == EVENTS / 2 {
                drop(hub.take());
                hub = Some(Hub::start_on(&addr.to_string(), &args));
            }
            let event = Event::text("message", n.to_string()).expect("valid");
            let event = event.id(EventId::new(format!("n-{n}")).expect("valid"));
            let event = Broadcast::channel("a", event).expect("valid");
            // As a careful publisher: again with the same id, until there is a receipt.
            while let Err(error) = client.publish(&event).await {
                assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        hub
    };
    let reading = async {
        let (mut seen, mut losses) = (Vec::new(), 0);
        while seen.len() < EVENTS {
            match item(&mut stream).await.expect("no end") {
                Item::Event(event) => seen.push(event.data.as_str().to_owned()),
                Item::Disconnected(_) => losses += 1,
                Item::Connected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        (seen, losses)
    };
    let (_hub, (seen, losses)) = futures_util::future::join(publishing, reading).await;
    assert_eq!(seen, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(losses > 0, "it was never cut");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", log.display()));
    }
}

#[actix_web::test]
async fn what_is_gone_is_told_at_its_place() {
    let log = MemoryLog::bounded(3, 1 << 20).expect("valid");
    let server = serve(Broker::builder().ring(1, 1 << 20).log(log));
    let first = publish(&server, "a", "0").await;
    for n in 1..10 {
        publish(&server, "a", n.to_string()).await;
    }
    let behind = || client(&server).subscribe().channel("a").expect("valid").after(first.clone());
    let mut stream = behind().open();
    connected(&mut stream).await;
    let Ok(Item::Gap(gap)) = item(&mut stream).await else { panic!("no gap") };
    assert_eq!((&*gap.reason, gap.after, gap.head), ("expired", 1, 10));
    let next = event(&mut stream).await;
    assert!(next.seq > Some(gap.resumed_at) || next.seq == Some(gap.resumed_at), "{next:?} {gap:?}");

    let error = end(&mut behind().strict().open()).await;
    let StreamError::Rejected(problem) = error else { panic!("{error}") };
    assert_eq!((problem.status, problem.field.as_deref()), (410, Some("last_event_id")));
}

#[actix_web::test]
async fn a_cursor_of_another_log_is_told() {
    let elsewhere = publish(&serve(Broker::builder()), "a", "elsewhere").await;
    let server = serve(Broker::builder());
    publish(&server, "a", "here").await;
    let mut stream = client(&server).subscribe().channel("a").expect("valid").after(elsewhere).open();
    connected(&mut stream).await;
    let Ok(Item::Reset(reset)) = item(&mut stream).await else { panic!("no reset") };
    assert_eq!((&*reset.reason, reset.head), ("other_log", 1));
    assert_eq!(event(&mut stream).await.data.as_str(), "here");
}

#[actix_web::test]
async fn dropping_the_stream_closes_the_connection() {
    let server = serve(Broker::builder());
    let mut stream = client(&server).subscribe().channel("a").expect("valid").open();
    connected(&mut stream).await;
    assert_eq!(server.stats().await.clients, 1);
    drop(stream);
    server.until(Duration::from_secs(2), |stats| stats.clients == 0).await;
}

#[actix_web::test]
async fn a_server_that_goes_away_says_so() {
    let server = serve(Broker::builder());
    let mut stream = client(&server).subscribe().channel("a").expect("valid").open();
    connected(&mut stream).await;
    server.broker.do_send(Drain);
    let (cause, retry_in) = lost(&mut stream).await;
    assert_eq!(cause, Cause::Closing("draining".into()));
    assert!(retry_in >= Duration::from_secs(5), "{retry_in:?}");
}

/// Nothing that retrying cannot mend is retried.
#[actix_web::test]
async fn a_refusal_ends_the_stream() {
    let problem = r#"{"type":"urn:x","title":"No","status":0,"detail":"because","field":"channel"}"#;
    for line in ["400 x", "401 x", "403 x", "404 x", "405 x", "410 x", "301 x"] {
        let answer = status(line, "content-type: application/problem+json\r\nlocation: /\r\n", problem);
        let mut server = Scripted::start([answer]).await;
        let StreamError::Rejected(problem) = end(&mut server.client().subscribe().open()).await else {
            panic!("{line}")
        };
        assert_eq!(problem.status.to_string(), line[..3]);
        assert_eq!((&*problem.kind, problem.field.as_deref()), ("urn:x", Some("channel")));
        assert_eq!(problem.to_string(), format!("{} No: because", &line[..3]));
        server.head().await;
        assert!(server.heads.try_recv().is_err(), "{line}: asked again");
    }
    let stop =
        Answer { text: "HTTP/1.1 204 No Content\r\n\r\n".into(), pause: Duration::ZERO, is_held: false };
    let server = Scripted::start([stop]).await;
    assert!(matches!(end(&mut server.client().subscribe().open()).await, StreamError::Stopped));
    let server = Scripted::start([status("200 OK", "content-type: text/html\r\n", "<p>")]).await;
    let error = end(&mut server.client().subscribe().open()).await;
    assert!(matches!(&error, StreamError::NotAStream(kind) if kind == "text/html"), "{error}");
}

#[actix_web::test]
async fn a_real_refusal_is_explained() {
    let server = serve(Broker::builder());
    let mut subscribe = client(&server).subscribe();
    for n in 0..129 {
        subscribe = subscribe.channel(format!("a/{n}")).expect("valid");
    }
    let StreamError::Rejected(problem) = end(&mut subscribe.open()).await else { panic!("not refused") };
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("channel")));
    let nowhere = Client::new(format!("http://{}/nowhere", server.addr)).expect("a URL");
    let StreamError::Rejected(problem) = end(&mut nowhere.subscribe().open()).await else { panic!("found") };
    assert_eq!(problem.status, 404);
}

#[actix_web::test]
async fn an_error_that_may_pass_is_waited_out() {
    let answers = ["503 x", "429 x", "500 x"].map(|line| status(line, "", ""));
    let mut server = Scripted::start(answers.into_iter().chain([stream(WELCOME).held()])).await;
    let mut stream = server.client().subscribe().open();
    for expected in [503, 429, 500] {
        let (Cause::Unavailable(problem), _) = lost(&mut stream).await else { panic!("{expected}") };
        assert_eq!(problem.status, expected);
        server.head().await;
    }
    connected(&mut stream).await;

    for line in ["503 x", "429 x"] {
        let server = Scripted::start([status(line, "retry-after: 7\r\n", "")]).await;
        let (_, retry_in) = lost(&mut server.client().subscribe().open()).await;
        assert!(retry_in >= Duration::from_secs(7) && retry_in < Duration::from_secs(8), "{retry_in:?}");
    }
}

#[actix_web::test]
async fn a_server_that_says_nothing_is_left() {
    let nothing = Answer { text: String::new(), pause: Duration::ZERO, is_held: true };
    let server = Scripted::start([nothing, stream("retry: 1\n\n").held(), stream(WELCOME).held()]).await;
    let timeout = Duration::from_millis(150);
    let mut stream = server.client().connect_timeout(timeout).subscribe().open();
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(lost(&mut stream).await.0, Cause::Silent);
        assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
    }
    connected(&mut stream).await;
}

/// Two heartbeats (of 100 ms) without a word; pings in between count as one.
#[actix_web::test]
async fn a_server_that_falls_silent_is_left() {
    let mut server = Scripted::start([stream(WELCOME).held()]).await;
    let mut stream = server.client().subscribe().open();
    for _ in 0..2 {
        connected(&mut stream).await;
        let start = Instant::now();
        assert_eq!(lost(&mut stream).await.0, Cause::Silent);
        let silence = start.elapsed();
        assert!(silence >= Duration::from_millis(200) && silence < Duration::from_secs(2), "{silence:?}");
        server.head().await;
    }

    let server = serve(Broker::builder().heartbeat(Duration::from_secs(1)));
    let mut stream = client(&server).subscribe().open();
    connected(&mut stream).await;
    let more = tokio::time::timeout(Duration::from_millis(2500), stream.next()).await;
    assert!(more.is_err(), "a live server was left: {more:?}");
}

/// An event may take longer than two heartbeats, as long as something of it comes.
#[actix_web::test]
async fn a_server_that_is_slow_is_not_left() {
    let comment = "x".repeat(10_000);
    let slow = stream(&format!("{WELCOME}: {comment}\nid: a.b.5\nevent: $lag\ndata: {{\"dropped\":1}}\n\n"));
    let server = Scripted::start([Answer { pause: Duration::from_millis(50), ..slow }.held()]).await;
    let mut stream = server.client().subscribe().open();
    connected(&mut stream).await;
    let start = Instant::now();
    let lag = item(&mut stream).await;
    assert!(matches!(lag, Ok(Item::Lag(_))), "{lag:?}");
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
}

/// What moves the cursor without an event moves it all the same, and the next connection asks for what is behind it.
#[actix_web::test]
async fn a_ping_moves_the_cursor() {
    let blocks = format!("{WELCOME}: ping\nid: a.b.7\n\n");
    let mut server = Scripted::start([stream(&blocks), stream(WELCOME).held()]).await;
    let client = server.client().header("x-key", "k").expect("valid").bearer("t").expect("valid");
    let subscribe = client.subscribe().channel("a/*").expect("valid").channel("b").expect("valid");
    let mut stream = subscribe.filter("k", "v&w").expect("valid").from(Begin::Last(3)).open();
    connected(&mut stream).await;
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.1"));
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.7"));
    connected(&mut stream).await;

    let first = server.head().await.to_lowercase();
    let line = "get /events?format=envelope&channel=a%2f*&channel=b&filter=k%3av%26w&from=3 http/1.1\r\n";
    assert!(first.starts_with(line), "{first}");
    for header in ["accept: text/event-stream", "x-key: k", "authorization: bearer t"] {
        assert!(first.contains(&format!("\r\n{header}\r\n")), "{first}");
    }
    assert!(!first.contains("last-event-id"), "{first}");
    let second = server.head().await.to_lowercase();
    assert!(second.starts_with(line) && second.contains("\r\nlast-event-id: a.b.7\r\n"), "{second}");
}

#[actix_web::test]
async fn notices_are_items() {
    let blocks = format!(
        "{WELCOME}event: $lag\ndata: {{\"dropped\":3}}\n\n\
         id: a.b.9\nevent: $gap\ndata: {{\"reason\":\"expired\",\"after\":1,\"resumed_at\":9,\"head\":20}}\n\n\
         retry: 40\n\nevent: $closing\ndata: {{\"reason\":\"limit\"}}\n\n"
    );
    let server = Scripted::start([stream(&blocks).held()]).await;
    let mut stream = server.client().subscribe().open();
    connected(&mut stream).await;
    assert!(matches!(item(&mut stream).await, Ok(Item::Lag(lag)) if lag.dropped == 3));
    assert!(matches!(item(&mut stream).await, Ok(Item::Gap(gap)) if gap.resumed_at == 9));
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.9"));
    let (cause, retry_in) = lost(&mut stream).await;
    assert_eq!(cause, Cause::Closing("limit".into()));
    assert!(retry_in >= Duration::from_millis(40), "{retry_in:?}");
}

/// Attempts that bring nothing, greeting or not, are ever further apart; one that delivers begins anew.
#[actix_web::test]
async fn the_pauses_grow_until_something_is_delivered() {
    let greeted = stream(WELCOME);
    let delivering = stream(&format!("{WELCOME}: ping\nid: a.b.2\n\n"));
    let cut = stream("");
    let answers = [&cut, &greeted, &cut, &cut, &cut, &delivering, &cut].map(Clone::clone);
    let server = Scripted::start(answers).await;
    let unit = Duration::from_millis(8);
    let client = server.client().backoff(unit, unit * 8).expect("valid");
    let mut stream = client.subscribe().open();
    let mut pauses = Vec::new();
    while pauses.len() < 7 {
        match item(&mut stream).await.expect("no end") {
            Item::Disconnected(lost) => pauses.push(lost.retry_in),
            Item::Connected(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for (pause, times) in pauses.iter().zip([1, 2, 4, 8, 8, 1, 2]) {
        assert!(*pause >= unit * times / 2 && *pause <= unit * times, "{pauses:?}");
    }
}

#[actix_web::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = free.local_addr().expect("bound");
    drop(free);
    let client = Client::new(format!("http://{addr}")).expect("a URL");
    let client = client.backoff(Duration::from_millis(1), Duration::from_millis(2)).expect("valid");
    let mut stream = client.subscribe().open();
    for _ in 0..20 {
        assert!(matches!(lost(&mut stream).await.0, Cause::Broken(_)));
    }
}

/// In pieces or in one, whole or without an end.
#[actix_web::test]
async fn an_event_beyond_the_limit_ends_the_stream() {
    let long = "x".repeat(100_000);
    let short = "x".repeat(2_000);
    for blocks in [
        format!("data: {short}\n\n"),
        format!("data: {long}\n\n"),
        format!("data: {long}"),
        format!(": {long}"),
        long.clone(),
    ] {
        let server = Scripted::start([stream(&format!("{WELCOME}{blocks}")).held()]).await;
        let mut stream = server.client().max_event(1000).subscribe().open();
        connected(&mut stream).await;
        let error = end(&mut stream).await;
        assert!(matches!(error, StreamError::TooLarge { limit: 1000 }), "{error}");
    }
    // The limit is of an event, not of what comes together.
    let blocks = ": ping\nid: a.b.7\n\n".repeat(1000);
    let server = Scripted::start([stream(&format!("{WELCOME}{blocks}"))]).await;
    let mut stream = server.client().max_event(1000).subscribe().open();
    connected(&mut stream).await;
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
}

#[actix_web::test]
async fn what_is_no_envelope_ends_the_stream() {
    for blocks in ["data: plain\n\n", "id: a.b.2\nevent: x\ndata: {}\n\n"] {
        let server = Scripted::start([stream(&format!("{WELCOME}{blocks}"))]).await;
        let mut stream = server.client().subscribe().open();
        connected(&mut stream).await;
        assert!(matches!(end(&mut stream).await, StreamError::Malformed(_)));
    }
}

#[actix_web::test]
async fn a_publish_has_its_receipt() {
    let server = serve(Broker::builder());
    let client = client(&server);
    let mine = Event::text("x", "y").expect("valid").id(EventId::new("mine").expect("valid"));
    let mine = Broadcast::channel("a", mine).expect("valid");
    let first = client.publish(&mine).await.expect("committed");
    assert_eq!((first.id.as_str(), first.seq, first.duplicate), ("mine", Some(1), false));
    assert!(first.position.is_some());
    let again = client.publish(&mine).await.expect("committed");
    assert!(again.duplicate);
    assert_eq!((again.seq, again.position), (first.seq, first.position));
    let ephemeral = Broadcast::everyone(Event::text("x", "y").expect("valid").ephemeral());
    let ephemeral = client.publish(&ephemeral).await.expect("sent");
    assert_eq!((ephemeral.seq, ephemeral.position), (None, None));
    let all = client.publish_all(&[to("a", "1"), to("a", "2")]).await.expect("committed");
    assert_eq!(all.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [Some(2), Some(3)]);
}

#[actix_web::test]
async fn a_publish_that_is_refused_says_why() {
    let server = serve(Broker::builder());
    let client = client(&server);
    let refused = |error| match error {
        PublishError::Rejected(problem) => problem,
        other => panic!("{other}"),
    };
    let nobody = Broadcast::sessions([], Event::text("x", "y").expect("valid"));
    let problem = refused(client.publish_all(&[to("a", "1"), nobody]).await.expect_err("refused"));
    assert_eq!((problem.status, problem.index, problem.is_temporary()), (400, Some(1), false), "{problem}");
    let problem = refused(client.publish_all(&[]).await.expect_err("refused"));
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("batch")));
    let large: Vec<_> = (0..6).map(|_| to("a", "x".repeat(200_000))).collect();
    let problem = refused(client.publish_all(&large).await.expect_err("refused"));
    assert_eq!((problem.status, problem.field.as_deref()), (413, Some("body")));
    assert_eq!(server.stats().await.head, 0);

    let busy = Scripted::start([status("503 x", "retry-after: 2\r\n", "busy")]).await;
    let problem = refused(busy.client().publish(&to("a", "1")).await.expect_err("refused"));
    assert!(problem.is_temporary());
    assert_eq!((problem.status, problem.retry_after), (503, Some(Duration::from_secs(2))));
}

#[actix_web::test]
async fn a_publish_without_an_answer_is_in_doubt() {
    let nothing = Answer { text: String::new(), pause: Duration::ZERO, is_held: true };
    let silent = Scripted::start([nothing.clone()]).await;
    let client = silent.client().publish_timeout(Duration::from_millis(100));
    let error = client.publish(&to("a", "1")).await.expect_err("no answer");
    assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
    let cut = Scripted::start([Answer { is_held: false, ..nothing }]).await;
    let error = cut.client().publish(&to("a", "1")).await.expect_err("no answer");
    assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
    let strange = Scripted::start([status("200 OK", "content-type: application/json\r\n", "{}")]).await;
    let error = strange.client().publish(&to("a", "1")).await.expect_err("no receipt");
    assert!(matches!(error, PublishError::Malformed(_)), "{error}");
}
