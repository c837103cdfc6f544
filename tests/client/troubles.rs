//! What goes wrong between a stream and its server, over either transport.

use std::time::{Duration, Instant};

use fanfare::client::{Cause, Client, Item, Position, StreamError, Transport};
use tokio::net::TcpListener;

use crate::scripted::{Answer, Say, Scripted, plain, status, stream};
use crate::{connected, end, event, follow, item, lost};

over_both![
    a_refusal_ends_the_stream,
    an_error_that_may_pass_is_waited_out,
    a_server_that_says_nothing_is_left,
    a_server_that_falls_silent_is_left,
    a_server_that_is_slow_is_not_left,
    notices_are_items,
    the_pauses_grow_until_something_is_delivered,
    a_server_that_is_not_there_is_tried_again,
    an_event_beyond_the_limit_ends_the_stream,
    what_cannot_be_read_ends_the_stream,
    a_closing_is_waited_out_and_gone_on_from,
];

/// Nothing that retrying cannot mend is retried.
async fn a_refusal_ends_the_stream(transport: Transport) {
    let problem = r#"{"type":"urn:x","title":"No","status":0,"detail":"because","field":"channel"}"#;
    for line in ["400 x", "401 x", "403 x", "404 x", "405 x", "410 x", "301 x"] {
        let answer = status(line, "content-type: application/problem+json\r\nlocation: /\r\n", problem);
        let mut server = Scripted::start([answer]).await;
        let StreamError::Rejected(problem) = end(&mut follow(&server.client(), transport).open()).await
        else {
            panic!("{line}")
        };
        assert_eq!(problem.status.to_string(), line[..3]);
        assert_eq!((&*problem.kind, problem.field.as_deref()), ("urn:x", Some("channel")));
        assert_eq!(problem.to_string(), format!("{} No: because", &line[..3]));
        server.asked().await;
        assert!(!server.was_asked_again(), "{line}");
    }
}

async fn an_error_that_may_pass_is_waited_out(transport: Transport) {
    let answers = ["503 x", "429 x", "500 x"].map(|line| status(line, "", ""));
    let live = stream(transport, &[Say::Welcome]).held();
    let mut server = Scripted::start(answers.into_iter().chain([live])).await;
    let mut stream = follow(&server.client(), transport).open();
    for expected in [503, 429, 500] {
        let (Cause::Unavailable(problem), _) = lost(&mut stream).await else { panic!("{expected}") };
        assert_eq!(problem.status, expected);
        server.asked().await;
    }
    connected(&mut stream).await;

    for line in ["503 x", "429 x"] {
        let server = Scripted::start([status(line, "retry-after: 7\r\n", "")]).await;
        let (_, retry_in) = lost(&mut follow(&server.client(), transport).open()).await;
        assert!(retry_in >= Duration::from_secs(7) && retry_in < Duration::from_secs(8), "{retry_in:?}");
    }
}

/// No answer at all, or one without a greeting.
async fn a_server_that_says_nothing_is_left(transport: Transport) {
    let answers =
        [plain("").held(), stream(transport, &[]).held(), stream(transport, &[Say::Welcome]).held()];
    let server = Scripted::start(answers).await;
    let timeout = Duration::from_millis(150);
    let mut stream = follow(&server.client().connect_timeout(timeout), transport).open();
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(lost(&mut stream).await.0, Cause::Silent);
        assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
    }
    connected(&mut stream).await;
}

/// Two heartbeats (of 100 ms) without a word.
async fn a_server_that_falls_silent_is_left(transport: Transport) {
    let mut server = Scripted::start([stream(transport, &[Say::Welcome]).held()]).await;
    let mut stream = follow(&server.client(), transport).open();
    for _ in 0..2 {
        connected(&mut stream).await;
        let start = Instant::now();
        assert_eq!(lost(&mut stream).await.0, Cause::Silent);
        let silence = start.elapsed();
        assert!(silence >= Duration::from_millis(200) && silence < Duration::from_secs(2), "{silence:?}");
        server.asked().await;
    }
}

/// An event may take longer than two heartbeats, as long as something of it comes.
async fn a_server_that_is_slow_is_not_left(transport: Transport) {
    let data = "x".repeat(10_000);
    let slow = stream(transport, &[Say::Welcome, Say::Event(&data, "a.b.5")]);
    let server = Scripted::start([Answer { pause: Duration::from_millis(50), ..slow }.held()]).await;
    let mut stream = follow(&server.client(), transport).open();
    connected(&mut stream).await;
    let start = Instant::now();
    assert_eq!(event(&mut stream).await.data.as_str(), data);
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
}

async fn notices_are_items(transport: Transport) {
    let gap = r#"{"reason":"expired","after":1,"resumed_at":9,"head":20}"#;
    let says = [
        Say::Welcome,
        Say::Notice("lag", r#"{"dropped":3}"#, None),
        Say::Notice("gap", gap, Some("a.b.9")),
        Say::Notice("reset", r#"{"reason":"lost_term","head":20}"#, Some("a.c.20")),
        Say::Notice("news", "{}", None),
        Say::Closing("limit", 40),
    ];
    let server = Scripted::start([stream(transport, &says).held()]).await;
    let mut stream = follow(&server.client(), transport).open();
    connected(&mut stream).await;
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.1"));
    assert!(matches!(item(&mut stream).await, Ok(Item::Lag(lag)) if lag.dropped == 3));
    assert!(matches!(item(&mut stream).await, Ok(Item::Gap(gap)) if gap.resumed_at == 9));
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.9"));
    assert!(matches!(item(&mut stream).await, Ok(Item::Reset(reset)) if reset.reason == "lost_term"));
    assert_eq!(stream.position().map(Position::as_str), Some("a.c.20"));
    let (cause, retry_in) = lost(&mut stream).await;
    assert_eq!(cause, Cause::Closing("limit".into()));
    assert!(retry_in >= Duration::from_millis(40), "{retry_in:?}");
}

/// Attempts that bring nothing, greeting or not, are ever further apart; one that delivers begins anew. Half of each pause
/// is random.
async fn the_pauses_grow_until_something_is_delivered(transport: Transport) {
    let greeted = stream(transport, &[Say::Welcome]);
    let delivering = stream(transport, &[Say::Welcome, Say::Event("x", "a.b.2")]);
    let alive = stream(transport, &[Say::Welcome, Say::Heartbeat("a.b.3")]);
    let cut = stream(transport, &[]);
    let answers = [&cut, &greeted, &cut, &cut, &cut, &delivering, &cut, &alive, &cut].map(Clone::clone);
    let server = Scripted::start(answers).await;
    let unit = Duration::from_millis(8);
    let client = server.client().backoff(unit, unit * 8).expect("valid");
    let mut stream = follow(&client, transport).open();
    let mut pauses = Vec::new();
    while pauses.len() < 9 {
        match item(&mut stream).await.expect("no end") {
            Item::Disconnected(lost) => pauses.push(lost.retry_in),
            Item::Connected(_) | Item::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for (pause, times) in pauses.iter().zip([1, 2, 4, 8, 8, 1, 2, 1, 2]) {
        assert!(*pause >= unit * times / 2 && *pause <= unit * times, "{pauses:?}");
    }
}

async fn a_server_that_is_not_there_is_tried_again(transport: Transport) {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = free.local_addr().expect("bound");
    drop(free);
    let client = Client::new(format!("http://{addr}")).expect("a URL");
    let client = client.backoff(Duration::from_millis(1), Duration::from_millis(2)).expect("valid");
    let mut stream = follow(&client, transport).open();
    for _ in 0..20 {
        assert!(matches!(lost(&mut stream).await.0, Cause::Broken(_)));
    }
}

async fn an_event_beyond_the_limit_ends_the_stream(transport: Transport) {
    for size in [1000, 2000, 100_000] {
        let data = "x".repeat(size);
        let says = [Say::Welcome, Say::Event(&data, "a.b.2")];
        let server = Scripted::start([stream(transport, &says).held()]).await;
        let mut stream = follow(&server.client().max_event(1000), transport).open();
        connected(&mut stream).await;
        let error = end(&mut stream).await;
        assert!(matches!(error, StreamError::TooLarge { limit: 1000 }), "{size}: {error}");
    }
    // The limit is of an event, not of what comes together.
    let events: Vec<_> = (0..100).map(|_| Say::Event("x", "a.b.2")).collect();
    let server = Scripted::start([stream(transport, &[&[Say::Welcome], &events[..]].concat())]).await;
    let mut stream = follow(&server.client().max_event(1000), transport).open();
    connected(&mut stream).await;
    for _ in 0..100 {
        event(&mut stream).await;
    }
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
}

async fn what_cannot_be_read_ends_the_stream(transport: Transport) {
    for nonsense in ["plain", "{}", r#"{"op":"event"}"#] {
        let says = [Say::Welcome, Say::Nonsense(nonsense)];
        let server = Scripted::start([stream(transport, &says)]).await;
        let mut stream = follow(&server.client(), transport).open();
        connected(&mut stream).await;
        assert!(matches!(end(&mut stream).await, StreamError::Malformed(_)), "{nonsense}");
    }
}

/// The pause that it names is kept, and the next connection goes on from the last event.
async fn a_closing_is_waited_out_and_gone_on_from(transport: Transport) {
    let closing = [Say::Welcome, Say::Event("x", "a.b.2"), Say::Closing("draining", 300)];
    let answers =
        [stream(transport, &closing).held(), stream(transport, &[Say::Welcome]), stream(transport, &[])];
    let mut server = Scripted::start(answers).await;
    let mut stream = follow(&server.client(), transport).open();
    connected(&mut stream).await;
    event(&mut stream).await;
    let start = Instant::now();
    let (cause, retry_in) = lost(&mut stream).await;
    assert_eq!(cause, Cause::Closing("draining".into()));
    assert!(retry_in >= Duration::from_millis(300) && retry_in <= Duration::from_millis(330), "{retry_in:?}");
    connected(&mut stream).await;
    assert!(start.elapsed() >= retry_in, "{:?}", start.elapsed());
    server.asked().await;
    let again = server.asked().await;
    assert!(again.contains("last-event-id: a.b.2\r\n") || again.contains(r#""cursor":"a.b.2""#), "{again}");
    // What was asked then is over.
    let (_, retry_in) = lost(&mut stream).await;
    assert!(retry_in < Duration::from_millis(300), "{retry_in:?}");
}
