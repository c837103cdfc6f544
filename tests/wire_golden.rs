//! The bytes of every kind of block and of every header, as a client gets them.

mod support;

use std::time::Duration;

use fanfare::{Broadcast, Broker, Drain, Event, MemoryLog, SessionId};
use russe::Decoder;
use support::sse::{Block, SseClient};
use support::{TestServer, http, serve};
use tokio_util::codec::Decoder as _;

/// The text of a block with what differs from run to run replaced.
fn golden(block: &Block, replace: &[(&str, &str)]) -> String {
    replace.iter().fold(block.text.clone(), |text, (from, to)| text.replace(from, to))
}

/// The name of the log and of its term, taken from a block's id.
fn timeline(block: &Block) -> String {
    let id = block.id.as_deref().expect("an id");
    id.rsplit_once('.').expect("a cursor").0.to_owned()
}

async fn published(
    server: &TestServer,
    query: &str,
    events: &[&str],
) -> (SseClient, String, Vec<serde_json::Value>) {
    let mut client = server.open(query).await;
    let timeline = timeline(&client.welcome().await);
    let mut receipts = Vec::new();
    for event in events {
        let answer = server.publish(event).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        receipts.push(answer.json());
    }
    (client, timeline, receipts)
}

#[actix_web::test]
async fn the_head_of_a_stream() {
    let server = serve(Broker::builder());
    let client = server.open("channel=a").await;
    let mut names: Vec<_> = client.head.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "cache-control",
        "content-encoding",
        "content-type",
        "date",
        "fanfare-client",
        "fanfare-session",
        "set-cookie",
        "transfer-encoding",
        "x-accel-buffering",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    for (name, value) in [
        ("cache-control", "no-cache, no-transform"),
        ("content-encoding", "identity"),
        ("content-type", "text/event-stream"),
        ("transfer-encoding", "chunked"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(client.head.header(name), Some(value), "{name}");
    }
    for name in ["fanfare-client", "fanfare-session"] {
        let ulid = client.head.header(name).expect("there");
        assert!(ulid.parse::<SessionId>().is_ok() && ulid.len() == 26, "{ulid}");
    }
    let cookie = client.head.header("set-cookie").expect("there");
    let (secret, attributes) = cookie.split_once(';').expect("attributes");
    assert_eq!(attributes, " HttpOnly; SameSite=Lax; Path=/");
    assert!(secret.starts_with("fanfare_session=") && secret.len() == 16 + 32, "{secret}");
    assert!(
        !cookie.contains(client.head.header("fanfare-session").expect("there")),
        "the session is no secret"
    );
}

#[actix_web::test]
async fn the_first_blocks() {
    let server = serve(Broker::builder());
    let mut client = server.open("channel=a").await;
    let retry = client.block().await.expect("a block");
    let ms = retry.retry.expect("a retry");
    assert_eq!(retry.text, format!("retry: {ms}"));
    let welcome = client.block().await.expect("a block");
    let (id, session) = (client.head.header("fanfare-client"), client.head.header("fanfare-session"));
    let expected = format!(
        "id: {}.0\nevent: $welcome\ndata: {{\"client\":\"{}\",\"session\":\"{}\",\"heartbeat\":15}}",
        timeline(&welcome),
        id.expect("there"),
        session.expect("there"),
    );
    assert_eq!(welcome.text, expected);
    let cursor = welcome.id.expect("a cursor");
    assert!(cursor.len() <= 128 && cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)));
}

#[actix_web::test]
async fn events_as_published() {
    let server = serve(Broker::builder());
    let (mut client, timeline, _) = published(
        &server,
        "channel=a",
        &[
            r#"{"channel":"a","event":"created","data":{"order": 7}}"#,
            r#"{"channel":"a","data":"plain"}"#,
            r#"{"channel":"a","event":"message","data":"one\ntwo\r\nthree\rfour\n"}"#,
            r#"{"channel":"a"}"#,
            r#"{"channel":"a","data":""}"#,
            r#"{"channel":"a","event":"typing","data":"ada","ephemeral":true}"#,
            r#"{"everyone":true,"data":[1, 2]}"#,
        ],
    )
    .await;
    let replace = [(timeline.as_str(), "LOG")];
    for expected in [
        "id: LOG.1\nevent: created\ndata: {\"order\":7}",
        "id: LOG.2\ndata: plain",
        "id: LOG.3\ndata: one\ndata: two\ndata: three\ndata: four\ndata: ",
        "id: LOG.4\ndata: null",
        "id: LOG.5\ndata: ",
        "event: typing\ndata: ada",
        "id: LOG.6\ndata: [1,2]",
    ] {
        assert_eq!(golden(&client.block().await.expect("a block"), &replace), expected);
    }
}

#[actix_web::test]
async fn events_in_an_envelope() {
    let server = serve(Broker::builder());
    let session = SessionId::derived_from("s".repeat(32).as_bytes());
    let cookie = format!("fanfare_session={}", "s".repeat(32));
    let path = "/rt/events?channel=a/*&format=envelope";
    let mut client = SseClient::open(server.addr, path, &[("cookie", &cookie)]).await;
    let timeline = timeline(&client.welcome().await);
    let to_session = format!(r#"{{"sessions":["{session}"],"id":"s-1","data":true}}"#);
    for event in [
        r#"{"channel":"a/1","id":"o-7","event":"created","data":{"z":1.0,"a":[]},"attributes":{"kind":"system"}}"#,
        r#"{"channels":["b","a/1","a/2"],"id":"o-8","data":"7"}"#,
        r#"{"channel":"a/1","id":"o-9","data":"\u2028\"","ephemeral":true}"#,
        &to_session,
        r#"{"everyone":true,"id":"e-1"}"#,
    ] {
        assert_eq!(server.publish(event).await.status(), 200);
    }
    let mut texts = Vec::new();
    for _ in 0..5 {
        let block = client.event().await.expect("an event");
        let time = block.json()["time"].as_str().expect("a time").to_owned();
        assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"), "{time}");
        texts.push(golden(&block, &[(timeline.as_str(), "LOG"), (time.as_str(), "TIME")]));
    }
    let expected = [
        r#"id: LOG.1|event: created|data: {"id":"o-7","seq":1,"prev":0,"channel":"a/1","channels":["a/1"],"event":"created","time":"TIME","attributes":{"kind":"system"},"data":{"z":1.0,"a":[]}}"#,
        r#"id: LOG.2|data: {"id":"o-8","seq":2,"prev":0,"channel":"b","channels":["b","a/1","a/2"],"event":"message","time":"TIME","attributes":{},"data":"7"}"#,
        "data: {\"id\":\"o-9\",\"seq\":null,\"prev\":null,\"channel\":\"a/1\",\"channels\":[\"a/1\"],\"event\":\"message\",\"time\":\"TIME\",\"attributes\":{},\"data\":\"\u{2028}\\\"\"}",
        r#"id: LOG.3|data: {"id":"s-1","seq":3,"prev":0,"channel":"$session","channels":["$session"],"event":"message","time":"TIME","attributes":{},"data":true}"#,
        r#"id: LOG.4|data: {"id":"e-1","seq":4,"prev":0,"channel":"$everyone","channels":["$everyone"],"event":"message","time":"TIME","attributes":{},"data":null}"#,
    ];
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(*text, expected.replace('|', "\n"));
    }
}

#[actix_web::test]
async fn the_heartbeat() {
    let server = serve(Broker::builder().heartbeat(Duration::from_millis(500)));
    let (mut client, timeline, _) = published(&server, "channel=a", &[r#"{"channel":"b"}"#]).await;
    // The first may have been on its way before the event.
    let mut ping = client.block().await.expect("a block");
    if ping.id.as_deref().is_some_and(|id| id.ends_with(".0")) {
        ping = client.block().await.expect("a block");
    }
    assert_eq!(golden(&ping, &[(timeline.as_str(), "LOG")]), ": ping\nid: LOG.1");
    let welcome = server.open("").await.welcome().await;
    assert!(welcome.data().ends_with("\"heartbeat\":0.5}"), "{welcome:?}");
}

#[actix_web::test]
async fn notices() {
    let server =
        serve(Broker::builder().ring(1, 1 << 20).log(MemoryLog::bounded(2, 1 << 20).expect("valid")));
    let (client, timeline, _) = published(&server, "channel=a", &[r#"{"channel":"a","data":1}"#; 5]).await;
    drop(client);
    let replace = [(timeline.as_str(), "LOG")];

    let mut late = server.open(&format!("channel=a&last_event_id={timeline}.1")).await;
    let welcome = late.welcome().await;
    assert_eq!(welcome.id, None, "a client that is cut here is told again");
    let gap = late.event().await.expect("a gap");
    let expected =
        "id: LOG.3\nevent: $gap\ndata: {\"reason\":\"expired\",\"after\":1,\"resumed_at\":3,\"head\":5}";
    assert_eq!(golden(&gap, &replace), expected);
    assert_eq!(golden(&late.event().await.expect("an event"), &replace), "id: LOG.4\ndata: 1");

    for (cursor, reason) in [("nonsense", "malformed"), ("xxxxxx.yyyyyy.1", "other_log")] {
        let mut reset = server.open(&format!("channel=a&from=now&last_event_id={cursor}")).await;
        assert_eq!(reset.welcome().await.id, None);
        let notice = reset.event().await.expect("a reset");
        let expected = format!("id: LOG.5\nevent: $reset\ndata: {{\"reason\":\"{reason}\",\"head\":5}}");
        assert_eq!(golden(&notice, &replace), expected);
    }

    server.broker.do_send(Drain);
    assert_eq!(golden(&late.event().await.expect("an event"), &replace), "id: LOG.5\ndata: 1");
    let retry = late.block().await.expect("a block");
    let ms = retry.retry.expect("a retry");
    assert_eq!(retry.text, format!("retry: {ms}"));
    assert!(ms > 10_000, "beyond the drain: {ms}");
    assert_eq!(late.block().await.expect("a block").text, "event: $closing\ndata: {\"reason\":\"draining\"}");
    assert_eq!(late.block().await, None);
}

/// CR, LF and NUL in any field can forge neither a field nor an event: refused where they have no place, and split into
/// lines in data. Read back with a decoder that is not ours.
#[actix_web::test]
async fn nothing_can_be_forged_from_inside_a_value() {
    let server = serve(Broker::builder());
    for bad in ["\r", "\n", "\r\n", "\0", "x\nid: 9", "x\rdata: evil", "\u{85}", "x\n\nevent: $reset"] {
        let json = serde_json::to_string(bad).expect("JSON");
        for body in [
            format!(r#"{{"channel":{json}}}"#),
            format!(r#"{{"channels":["a",{json}]}}"#),
            format!(r#"{{"channel":"a","event":{json}}}"#),
            format!(r#"{{"channel":"a","id":{json}}}"#),
            format!(r#"{{"channel":"a","attributes":{{{json}:"v"}}}}"#),
            format!(r#"{{"channel":"a","attributes":{{"k":{json}}}}}"#),
            format!(r#"{{"sessions":[{json}]}}"#),
        ] {
            let answer = server.publish(&body).await;
            assert_eq!(answer.status(), 400, "{body}");
            answer.problem();
        }
    }
    let mut raw = server.live("channel=a").await;
    let mut envelope = server.live("channel=a&format=envelope").await;
    let nasty = "x\n\nevent: $reset\rid: 9\r\n\r\nretry: 1\0\n: y";
    server.broker.do_send(Broadcast::channel("a", Event::text("n", nasty).expect("valid")).expect("valid"));
    for client in [&mut raw, &mut envelope] {
        let block = client.event().await.expect("an event");
        let mut bytes = bytes::BytesMut::from(format!("{}\n\n", block.text).as_bytes());
        let Ok(Some(russe::Event::Message(message))) = Decoder::default().decode(&mut bytes) else {
            panic!("no message: {block:?}");
        };
        assert!(bytes.is_empty(), "one event and nothing behind it");
        assert_eq!((message.event.as_deref(), message.retry), (Some("n"), None));
        assert!(message.id.as_deref().is_some_and(|id| id.ends_with(".1")), "{message:?}");
        let data = serde_json::from_str::<serde_json::Value>(&message.data)
            .ok()
            .and_then(|envelope| Some(envelope["data"].as_str()?.to_owned()))
            .unwrap_or_else(|| message.data.to_string());
        let as_lines = nasty.replace("\r\n", "\n").replace('\r', "\n");
        assert!(data == as_lines || data == nasty, "{data:?}");
    }
}

/// Every error of every endpoint has the same form.
#[actix_web::test]
async fn errors_are_problems() {
    let server = serve(Broker::builder());
    let json = [("content-type", "application/json")];
    let cases = [
        ("GET", "/rt/nothing", &json[..0], "", 404),
        ("GET", "/rt", &json[..0], "", 404),
        ("GET", "/rt/publish", &json[..0], "", 405),
        ("POST", "/rt/events", &json, "", 405),
        ("POST", "/rt/status", &json, "", 405),
        ("GET", "/rt/events?channel=a//b", &json[..0], "", 400),
        ("GET", "/rt/events?channel=%FF", &json[..0], "", 400),
        ("GET", "/rt/events?strict=1&last_event_id=x", &json[..0], "", 400),
        ("GET", "/rt/events?strict=1&last_event_id=x.y.1", &json[..0], "", 410),
        ("GET", "/rt/presence", &json[..0], "", 400),
        ("POST", "/rt/publish", &json[..0], "{}", 415),
        ("POST", "/rt/publish", &json, "{", 400),
        ("POST", "/rt/publish", &json, "[]", 400),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = http::request(server.addr, method, path, headers, body).await;
        assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
        answer.problem();
    }
    let refused = http::request(server.addr, "GET", "/rt/publish", &[], "").await;
    assert_eq!(refused.head.header("allow"), Some("POST"));
}
