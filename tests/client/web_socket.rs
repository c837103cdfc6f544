//! What is of a WebSocket alone.

use std::time::Duration;

use fanfare::Broker;
use fanfare::client::{Begin, Cause, Client, Item, Position, StreamError, Subscribe, Transport};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::scripted::{
    Answer, HELLO, Say, Scripted, event_message, frame, frames, handshake, message, plain, read_frame,
    read_head, status, stream, text,
};
use crate::support::serve;
use crate::support::ws::{BINARY, CLOSE, PING, PONG, TEXT};
use crate::{client, connected, end, event, item, lost, publish};

const WS: Transport = Transport::WebSocket;

fn follow(client: &Client) -> Subscribe {
    crate::follow(client, WS)
}

fn subscribed(at: Option<&str>) -> Vec<u8> {
    text(&json!({"op": "subscribed", "cursor": at}).to_string())
}

fn welcome() -> Vec<u8> {
    message("welcome", HELLO, Some("a.b.9"))
}

/// The first message of what was asked.
fn first(asked: &str) -> Value {
    serde_json::from_str(asked.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

#[actix_web::test]
async fn the_handshake_is_a_request_of_the_client() {
    let mut server = Scripted::start([stream(WS, &[Say::Welcome]).held()]).await;
    let client = server.client().header("origin", "http://o").expect("valid").bearer("t").expect("valid");
    let client = client.header("cookie", "fanfare_session=c").expect("valid");
    let subscribe = client.subscribe().over(WS).channel("a/*").expect("valid").channel("b").expect("valid");
    let subscribe = subscribe.filter("k", "v:w").expect("valid").from(Begin::Last(3));
    connected(&mut subscribe.clone().open()).await;
    let asked = server.asked().await;
    assert!(asked.starts_with("GET /ws HTTP/1.1\r\n"), "{asked}");
    let head = asked.to_lowercase();
    for header in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: fanfare.v1.json",
        "origin: http://o",
        "cookie: fanfare_session=c",
        "authorization: bearer t",
    ] {
        assert!(head.contains(&format!("\r\n{header}\r\n")), "{header}: {asked}");
    }
    assert_eq!(
        first(&asked),
        json!({"op": "subscribe", "channels": ["a/*", "b"], "filter": {"k": "v:w"}, "cursor": null, "from": "3"})
    );
    let at: Position = "a.b.7".parse().expect("valid");
    connected(&mut follow(&client).after(at).open()).await;
    assert_eq!(
        first(&server.asked().await),
        json!({"op": "subscribe", "channels": ["a"], "cursor": "a.b.7"})
    );
}

#[actix_web::test]
async fn an_answer_that_is_no_web_socket_ends_the_stream() {
    let server = Scripted::start([plain("HTTP/1.1 204 No Content\r\n\r\n")]).await;
    assert!(matches!(end(&mut follow(&server.client()).open()).await, StreamError::Stopped));
    let upgraded = "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let accept =
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: fanfare.v1.json\r\n";
    for answer in [
        status("200 OK", "content-type: text/html\r\n", "<p>"),
        plain(format!("{upgraded}\r\n")),
        plain(format!("{upgraded}{accept}\r\n")),
    ] {
        let server = Scripted::start([answer]).await;
        let error = end(&mut follow(&server.client()).open()).await;
        assert!(matches!(&error, StreamError::NotAStream(_)), "{error}");
    }
}

/// The codes that say what a closing says, when there was none.
#[actix_web::test]
async fn a_close_code_is_a_reason() {
    for (code, reason) in
        [(1012_u16, "draining"), (4008, "slow"), (4002, "expired_token"), (1013, "unavailable")]
    {
        let end = frame(CLOSE, &code.to_be_bytes(), true);
        let server =
            Scripted::start([frames([welcome(), subscribed(Some("a.b.1")), end].concat()).held()]).await;
        let mut stream = follow(&server.client()).open();
        connected(&mut stream).await;
        assert_eq!(lost(&mut stream).await.0, Cause::Closing(reason.into()), "{code}");
    }
    for (payload, cause) in [
        (&[][..], Cause::Ended),
        (&1000_u16.to_be_bytes(), Cause::Ended),
        (b"\x03\xf3gone wrong", Cause::Broken("the server closed it with 1011 gone wrong".into())),
    ] {
        // Before the subscription is taken on as well.
        let server =
            Scripted::start([frames([welcome(), frame(CLOSE, payload, true)].concat()).held()]).await;
        assert_eq!(lost(&mut follow(&server.client()).open()).await.0, cause);
    }
    let revoked = frame(CLOSE, &4001_u16.to_be_bytes(), true);
    let mut server = Scripted::start([frames([welcome(), revoked].concat()).held()]).await;
    assert!(matches!(end(&mut follow(&server.client()).open()).await, StreamError::Stopped));
    server.asked().await;
    assert!(!server.was_asked_again());
}

#[actix_web::test]
async fn a_subscription_that_is_refused_ends_the_stream_unless_it_may_pass() {
    let refused = |status: u16| {
        let error = json!({"type": "urn:x", "title": "No", "status": status, "detail": "because", "field": "channels"});
        frames([welcome(), message("error", &error.to_string(), None)].concat()).held()
    };
    let server = Scripted::start([refused(503), refused(403)]).await;
    let mut stream = follow(&server.client()).open();
    let (Cause::Unavailable(problem), _) = lost(&mut stream).await else { panic!("not to be retried") };
    assert_eq!(problem.status, 503);
    let StreamError::Rejected(problem) = end(&mut stream).await else { panic!("not refused") };
    assert_eq!((problem.to_string(), problem.field.as_deref()), ("403 No: because".into(), Some("channels")));

    // There is nothing to resume without a channel, and a real server says so.
    let server = serve(Broker::builder());
    let StreamError::Rejected(problem) = end(&mut client(&server).subscribe().over(WS).open()).await else {
        panic!("not refused")
    };
    assert_eq!((problem.status, problem.field.as_deref()), (400, Some("channels")));
}

/// What is heard before the subscription is taken on comes behind it, and moves nothing: cut before, the stream is where it
/// was.
#[actix_web::test]
async fn a_stream_that_is_cut_before_it_began_keeps_its_start() {
    let early = [welcome(), event_message("early", "a.b.10"), event_message("more", "a.b.11")].concat();
    let late = [early.clone(), subscribed(Some("a.b.11~t-3")), event_message("late", "a.b.11~t-4")].concat();
    let answers = [frames(early.clone()), frames(late), frames(early), frames(vec![])];
    for start in [None, Some("a.b.3")] {
        let mut server = Scripted::start(answers.clone()).await;
        let mut subscribe = follow(&server.client()).from(Begin::Earliest);
        if let Some(start) = start {
            subscribe = subscribe.after(start.parse::<Position>().expect("valid"));
        }
        let mut stream = subscribe.open();
        let at = |stream: &fanfare::client::EventStream| stream.position().map(ToString::to_string);
        assert_eq!(lost(&mut stream).await.0, Cause::Ended);
        assert_eq!(at(&stream).as_deref(), start);
        connected(&mut stream).await;
        let early = event(&mut stream).await;
        assert_eq!((early.data.as_str(), early.position), ("early", None));
        assert_eq!(at(&stream).as_deref(), start);
        let more = event(&mut stream).await;
        assert_eq!(more.data.as_str(), "more");
        assert_eq!(more.position.map(|at| at.to_string()).as_deref(), Some("a.b.11~t-3"));
        assert_eq!(event(&mut stream).await.data.as_str(), "late");
        assert_eq!(lost(&mut stream).await.0, Cause::Ended);
        assert_eq!(lost(&mut stream).await.0, Cause::Ended);
        assert_eq!(at(&stream).as_deref(), Some("a.b.11~t-4"));
        for cursor in [start, start, Some("a.b.11~t-4")] {
            let asked = first(&server.asked().await);
            assert_eq!((&asked["cursor"], &asked["from"]), (&json!(cursor), &json!("earliest")));
        }
    }
}

/// A position that is not said with `subscribed` comes with the reset behind it.
#[actix_web::test]
async fn a_stream_that_is_cut_before_its_reset_is_told_again() {
    let cut = [welcome(), subscribed(None)].concat();
    let reset = message("reset", r#"{"reason":"ahead","head":9}"#, Some("a.c.0"));
    let answers = [frames(cut.clone()), frames([cut, reset].concat()).held()];
    let mut server = Scripted::start(answers).await;
    let start: Position = "a.b.3".parse().expect("valid");
    let mut stream = follow(&server.client()).after(start.clone()).open();
    connected(&mut stream).await;
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
    assert_eq!(stream.position(), Some(&start));
    connected(&mut stream).await;
    assert!(matches!(item(&mut stream).await, Ok(Item::Reset(reset)) if reset.reason == "ahead"));
    assert_eq!(stream.position().map(Position::as_str), Some("a.c.0"));
    for _ in 0..2 {
        assert_eq!(first(&server.asked().await)["cursor"], "a.b.3");
    }
}

#[actix_web::test]
async fn what_is_held_has_a_bound() {
    let flood = event_message("x", "a.b.10").repeat(100);
    let server = Scripted::start([frames([welcome(), flood].concat()).held()]).await;
    let mut stream = follow(&server.client().max_event(1000)).open();
    assert!(matches!(lost(&mut stream).await.0, Cause::Broken(_)));
}

/// Pings are answered with what they carry, between the fragments of a message too.
#[actix_web::test]
async fn a_message_may_come_in_fragments_with_pings_between() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = actix_web::rt::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let head = read_head(&mut socket).await.expect("a head");
        let start = [handshake(&head).into_bytes(), welcome(), subscribed(Some("a.b.1"))].concat();
        socket.write_all(&start).await.expect("written");
        assert_eq!(read_frame(&mut socket).await.0, TEXT);
        let whole = event_message(&"ä".repeat(50), "a.b.2");
        let (_, payload) = whole.split_at(4);
        let parts: Vec<_> = payload.chunks(37).collect();
        for (at, part) in parts.iter().enumerate() {
            let opcode = if at == 0 { TEXT } else { 0 };
            socket.write_all(&frame(opcode, part, at + 1 == parts.len())).await.expect("written");
            socket.write_all(&frame(PING, &[at as u8], true)).await.expect("written");
        }
        for at in 0..parts.len() {
            assert_eq!(read_frame(&mut socket).await, (PONG, vec![at as u8]));
        }
        // Without an end it grows no further than one that is whole.
        let _ = socket.write_all(&frame(TEXT, &[b'x'; 900], false)).await;
        let _ = socket.write_all(&frame(0, &[b'x'; 900], false)).await;
        socket
    });
    let mut stream = follow(&Client::new(url).expect("a URL").max_event(1000)).open();
    connected(&mut stream).await;
    assert_eq!(event(&mut stream).await.data.as_str(), "ä".repeat(50));
    let error = end(&mut stream).await;
    assert!(matches!(error, StreamError::TooLarge { limit: 1000 }), "{error}");
    server.await.expect("no panic");
}

#[actix_web::test]
async fn what_is_no_message_is_not_taken_for_one() {
    let after = |bytes: Vec<u8>| frames([welcome(), subscribed(Some("a.b.1")), bytes].concat()).held();
    for unreadable in [frame(BINARY, b"{}", true), frame(TEXT, b"\"\xff\"", true)] {
        let server = Scripted::start([after(unreadable)]).await;
        let mut stream = follow(&server.client()).open();
        connected(&mut stream).await;
        assert!(matches!(end(&mut stream).await, StreamError::Malformed(_)));
    }
    // No frames of a server at all: something in between is broken, and may be mended.
    for broken in [vec![0x81, 0x80, 0, 0, 0, 0], frame(3, b"", true), frame(0, b"", true)] {
        let server: Answer = after(broken);
        let server = Scripted::start([server]).await;
        let mut stream = follow(&server.client()).open();
        connected(&mut stream).await;
        assert!(matches!(lost(&mut stream).await.0, Cause::Broken(_)));
    }
    let early = frames([subscribed(Some("a.b.1"))].concat()).held();
    let server = Scripted::start([early]).await;
    assert!(matches!(end(&mut follow(&server.client()).open()).await, StreamError::Malformed(_)));
}

/// One that is announced larger than it may be is not waited for.
#[actix_web::test]
async fn an_event_that_would_be_too_large_ends_the_stream() {
    let all = frame(TEXT, &[b'x'; 100_000], true);
    let begun = [welcome(), subscribed(Some("a.b.1")), all[..5000].to_vec()].concat();
    let server = Scripted::start([frames(begun).held()]).await;
    let mut stream = follow(&server.client().max_event(1000)).open();
    connected(&mut stream).await;
    let error = end(&mut stream).await;
    assert!(matches!(error, StreamError::TooLarge { limit: 1000 }), "{error}");
}

/// Whoever is away for longer than the server waits for its heartbeats to be answered has all of it later.
#[actix_web::test]
async fn a_stream_that_is_left_alone_is_cut_and_comes_back() {
    let server = serve(Broker::builder().heartbeat(Duration::from_millis(200)));
    let mut stream = follow(&client(&server)).open();
    connected(&mut stream).await;
    publish(&server, "a", "before").await;
    server.until(Duration::from_secs(5), |stats| stats.clients == 0).await;
    publish(&server, "a", "after").await;
    assert_eq!(event(&mut stream).await.data.as_str(), "before");
    assert_eq!(lost(&mut stream).await.0, Cause::Closing("slow".into()));
    connected(&mut stream).await;
    assert_eq!(event(&mut stream).await.data.as_str(), "after");
}

/// Strict is as over a stream of events: a hole is the end, at the beginning and not later.
#[actix_web::test]
async fn a_strict_stream_ends_at_a_hole_that_it_begins_with() {
    let gap = Say::Notice("gap", r#"{"reason":"expired","after":1,"resumed_at":9,"head":9}"#, Some("a.b.9"));
    let says = [Say::Welcome, Say::Event("x", "a.b.2"), gap];
    let server = Scripted::start([stream(WS, &says).held()]).await;
    let mut later = follow(&server.client()).strict().open();
    connected(&mut later).await;
    event(&mut later).await;
    assert!(matches!(item(&mut later).await, Ok(Item::Gap(_))));
    let server = Scripted::start([stream(WS, &[Say::Welcome, gap]).held()]).await;
    let mut first = follow(&server.client()).strict().open();
    connected(&mut first).await;
    let StreamError::Rejected(problem) = end(&mut first).await else { panic!("it goes on") };
    assert_eq!((problem.status, problem.field.as_deref()), (410, Some("cursor")));
}
