//! A WebSocket follows, publishes, comes back and is ended, by every word and code.

mod support;

use std::time::Duration;

use fanfare::{Batch, Broadcast, CloseReason, CloseSession, Drain, Event};
use serde_json::{Value, json};
use support::order::{builder, nth};
use support::ws::{BINARY, CLOSE, PING, PONG, TEXT, WsClient, frame};
use support::{TestServer, serve, sse::SseClient};

async fn publish(server: &TestServer, channel: &str, data: impl Into<String>) {
    let broadcast = Broadcast::channel(channel, Event::text("message", data).expect("valid"));
    server.broker.send(broadcast.expect("valid")).await.expect("answered").expect("committed");
}

async fn publish_many(server: &TestServer, events: impl Iterator<Item = (String, String)>) {
    let events: Vec<_> = events
        .map(|(channel, data)| {
            Broadcast::channel(channel, Event::text("message", data).expect("valid")).expect("valid")
        })
        .collect();
    for batch in events.chunks(1000) {
        let batch = Batch::new(batch.to_vec()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
}

fn data(event: &Value) -> String {
    event["data"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned()
}

#[actix_web::test]
async fn the_handshake_chooses_the_protocol_and_refuses_strangers() {
    let server = serve(builder());
    let open = async |headers: &[(&str, &str)]| WsClient::open(server.addr, "/rt/ws", headers).await.head;
    let offered = "sec-websocket-protocol";
    let chosen = open(&[(offered, "chat, fanfare.v1.json")]).await;
    assert_eq!((chosen.status, chosen.header(offered)), (101, Some("fanfare.v1.json")));
    assert_eq!(chosen.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let silent = open(&[]).await;
    assert_eq!((silent.status, silent.header(offered)), (101, None));
    assert_eq!(open(&[(offered, "chat, fanfare.v2")]).await.status, 400);
    assert_eq!(open(&[("origin", "http://elsewhere.example")]).await.status, 403);
    assert_eq!(open(&[("origin", &format!("http://{}", server.addr))]).await.status, 101);
    let plain = support::http::get(server.addr, "/rt/ws").await;
    assert_eq!((plain.status(), plain.problem()["title"].is_string()), (426, true));
}

#[actix_web::test]
async fn the_first_word_is_the_welcome_and_requests_are_answered() {
    let server = serve(builder().heartbeat(Duration::from_secs(7)));
    let (mut client, welcome) = WsClient::live(server.addr).await;
    assert_eq!(welcome["heartbeat"], 7);
    assert_eq!(client.head.header("fanfare-client"), welcome["client"].as_str());
    assert_eq!(client.head.header("fanfare-session"), welcome["session"].as_str());
    assert!(welcome["cursor"].is_string());

    assert_eq!(client.ask(json!({"op": "ping", "ref": 4})).await, json!({"op": "pong", "ref": 4}));
    let subscribe = json!({"op": "subscribe", "ref": 1.5, "channels": ["a/*"], "filter": {"kind": "x"}});
    let subscribed = client.ask(subscribe).await;
    assert_eq!(subscribed["op"], "subscribed");
    assert_eq!(subscribed["cursor"], welcome["cursor"]);

    let hidden = json!({"op": "publish", "ref": 2, "channel": "a/1", "data": 1});
    let published = client.ask(hidden).await;
    assert_eq!((&published["op"], &published["duplicate"]), (&json!("published"), &json!(false)));
    let wanted = json!({"op": "publish", "ref": "3", "channel": "a/1", "data": {"x": [1, 2]}, "event": "made",
        "attributes": {"kind": "x"}, "id": "made-1"});
    client.send(&wanted).await;
    let (one, other) = (client.json().await, client.json().await);
    let (published, event) = if one["op"] == "event" { (other, one) } else { (one, other) };
    assert_eq!(
        published,
        json!({"op": "published", "ref": "3", "id": "made-1", "seq": nth(2),
        "cursor": event["cursor"], "duplicate": false})
    );
    assert_eq!(
        event,
        json!({"op": "event", "id": "made-1", "seq": nth(2), "prev": nth(1), "channel": "a/1",
        "channels": ["a/1"], "event": "made", "time": event["time"], "attributes": {"kind": "x"},
        "data": {"x": [1, 2]}, "cursor": event["cursor"]})
    );
    let again = client.ask(json!({"op": "publish", "ref": 5, "channel": "a/1", "id": "made-1"})).await;
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(nth(2)), &json!(true)));

    assert_eq!(
        client.ask(json!({"op": "unsubscribe", "ref": 6, "channels": ["a/*"]})).await,
        json!({"op": "unsubscribed", "ref": 6})
    );
    assert_eq!(
        client.ask(json!({"op": "unsubscribe", "ref": 7, "channels": ["a/*", "never"]})).await,
        json!({"op": "unsubscribed", "ref": 7})
    );
    publish(&server, "a/1", "unheard").await;
    assert_eq!(client.ask(json!({"op": "ping", "ref": 8})).await["op"], "pong");
    assert_eq!(server.stats().await.channels, 0);
}

/// What is wrong is told with the request's name, and the socket stays.
#[actix_web::test]
async fn a_bad_request_is_told_and_the_socket_stays() {
    let server = serve(builder());
    let (mut client, _) = WsClient::live(server.addr).await;
    for (message, field) in [
        (json!({"op": "shout", "ref": 1}), "op"),
        (json!({"op": "subscribe", "ref": 2, "channels": ["a//b"]}), "channels"),
        (json!({"op": "subscribe", "ref": 3, "channels": ["$everyone"]}), "channels"),
        (json!({"op": "publish", "ref": 4, "channel": "a", "event": "$x"}), "event"),
        (json!({"op": "publish", "ref": 5, "channel": "a", "data": "x".repeat(300_000)}), "data"),
        (json!({"op": "token", "ref": 6}), "token"),
    ] {
        let answer = client.ask(message).await;
        assert_eq!((&answer["op"], &answer["field"]), (&json!("error"), &json!(field)), "{answer}");
        assert!(answer["type"].is_string() && answer["title"].is_string() && answer["detail"].is_string());
    }
    let many: Vec<_> = (0..129).map(|n| format!("c/{n}")).collect();
    let answer = client.ask(json!({"op": "subscribe", "ref": 7, "channels": many})).await;
    assert_eq!((&answer["op"], &answer["field"]), (&json!("error"), &json!("channels")));
    client.send(&json!([1])).await;
    assert_eq!(client.json().await["op"], "error");
    assert_eq!(client.ask(json!({"op": "ping", "ref": 8})).await["op"], "pong");
}

#[actix_web::test]
async fn every_breach_has_its_code() {
    let server = serve(builder());
    let oversized = vec![b' '; (1 << 20) + 1];
    let breaches = [
        (1003, frame(true, TEXT, b"not json")),
        (1003, frame(true, BINARY, b"{}")),
        (1007, frame(true, TEXT, b"\"\xff\"")),
        (1009, frame(true, TEXT, &oversized)),
        (1009, [frame(false, TEXT, &oversized[1..]), frame(true, 0, b"xx")].concat()),
        // Announced alone: it is not waited for.
        (1009, [&[0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], oversized.as_slice(), &[0; 100]].concat()),
        (1002, frame(true, 0, b"nothing to continue")),
        (1002, [frame(false, TEXT, b"{"), frame(true, TEXT, b"{}")].concat()),
        (1002, frame(false, PING, b"")),
        (1002, frame(true, 3, b"")),
        (1002, vec![0x81, 0x02, b'{', b'}']),
        (1002, [vec![0xc1], frame(true, TEXT, b"{}")[1..].to_vec()].concat()),
    ];
    for (at, (code, bytes)) in breaches.into_iter().enumerate() {
        let (mut client, _) = WsClient::live(server.addr).await;
        client.send_raw(&bytes).await;
        assert_eq!(client.closed().await.0, code, "breach {at}");
    }
    server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
}

#[actix_web::test]
async fn a_message_may_come_in_fragments_with_control_frames_between() {
    let server = serve(builder());
    let (mut client, _) = WsClient::live(server.addr).await;
    let text = json!({"op": "ping", "ref": "ä".repeat(50)}).to_string();
    let parts: Vec<_> = text.as_bytes().chunks(7).collect();
    for (at, part) in parts.iter().enumerate() {
        let opcode = if at == 0 { TEXT } else { 0 };
        client.send_frame(at + 1 == parts.len(), opcode, part).await;
        client.send_frame(true, PING, &[at as u8]).await;
    }
    let mut pongs = Vec::new();
    let answer = loop {
        let frame = client.frame().await.expect("an answer");
        match frame.opcode {
            PONG => pongs.push(frame.payload),
            _ => break frame,
        }
    };
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!((&answer["op"], &answer["ref"]), (&json!("pong"), &json!("ä".repeat(50))));
    while pongs.len() < parts.len() {
        pongs.push(client.frame().await.expect("a pong").payload);
    }
    assert_eq!(pongs, (0..parts.len()).map(|at| vec![at as u8]).collect::<Vec<_>>());
}

/// V4: the close frame comes back, and nothing of the client is left, on a quiet channel.
#[actix_web::test]
async fn a_client_that_leaves_is_answered_and_forgotten() {
    let server = serve(builder());
    for code in [Some(1000_u16), Some(4321), None] {
        let (mut client, _) = WsClient::live(server.addr).await;
        client.subscribe(&["quiet"], None).await;
        let payload = code.map(u16::to_be_bytes).unwrap_or_default();
        client.send_frame(true, CLOSE, if code.is_some() { &payload } else { &[] }).await;
        assert_eq!(client.closed().await.0, code.unwrap_or(1005));
        assert_eq!(client.frame().await, None, "the server ends the connection");
    }
    let (gone, _) = WsClient::live(server.addr).await;
    drop(gone);
    let left = |stats: &fanfare::BrokerStats| stats.clients + stats.channels + stats.sessions == 0;
    server.until(Duration::from_secs(1), left).await;
}

#[actix_web::test]
async fn who_answers_no_ping_is_closed() {
    let server = serve(builder().heartbeat(Duration::from_millis(200)));
    let (mut lively, _) = WsClient::live(server.addr).await;
    let (mut silent, _) = WsClient::live(server.addr).await;
    silent.answers_pings = false;
    let start = std::time::Instant::now();
    let closed = tokio::join!(silent.closed(), async {
        while start.elapsed() < Duration::from_secs(2) {
            let frame = lively.frame().await.expect("no end");
            assert_eq!(frame.opcode, PING);
        }
    });
    assert_eq!(closed.0.0, 4008);
}

#[actix_web::test]
async fn the_server_says_why_it_ends() {
    let server = serve(builder());
    let (mut client, welcome) = WsClient::live(server.addr).await;
    let session = welcome["session"].as_str().expect("a session").parse().expect("a ULID");
    server.broker.do_send(CloseSession { session, reason: CloseReason::Revoked });
    let closing = client.json().await;
    assert_eq!((&closing["op"], &closing["reason"]), (&json!("closing"), &json!("revoked")));
    assert_eq!(client.closed().await, (4001, "revoked".into()));
    let (mut client, _) = WsClient::live(server.addr).await;
    server.broker.do_send(Drain);
    assert_eq!(client.json().await["reason"], "draining");
    assert_eq!(client.closed().await.0, 1012);
}

/// V5 and V6: from a cursor, from a count, from the beginning; on a channel that has nothing yet.
#[actix_web::test]
async fn a_subscription_begins_where_it_says() {
    for ring in [2, 1000] {
        let server = serve(builder().ring(ring, 1 << 20));
        let (mut client, welcome) = WsClient::live(server.addr).await;
        publish_many(&server, (0..3000).map(|n| (format!("c/{}", n % 2), n.to_string()))).await;
        for (from, first) in
            [(json!("earliest"), 0), (json!(10), 2980), (json!("10"), 2980), (json!(5000), 0)]
        {
            let (mut client, _) = WsClient::live(server.addr).await;
            let ask = json!({"op": "subscribe", "ref": 1, "channels": ["c/0"], "from": from});
            assert_eq!(client.ask(ask).await["op"], "subscribed");
            for n in (first..3000).step_by(2) {
                assert_eq!(data(&client.event().await), n.to_string(), "from {from}, ring {ring}");
            }
            client.subscribe(&["live"], None).await;
            publish(&server, "live", "live").await;
            assert_eq!(data(&client.event().await), "live");
        }
        let position = client.subscribe(&["c/1"], welcome["cursor"].as_str()).await;
        assert_eq!(Some(position.as_str()), welcome["cursor"].as_str());
        for n in (1..3000).step_by(2) {
            assert_eq!(data(&client.event().await), n.to_string());
        }
        let (mut early, _) = WsClient::live(server.addr).await;
        early.subscribe(&["nothing/yet"], None).await;
        publish(&server, "nothing/yet", "first").await;
        assert_eq!(data(&early.event().await), "first");
    }
}

#[actix_web::test]
async fn a_cursor_that_cannot_be_resumed_is_told() {
    let server = serve(builder());
    publish_many(&server, (0..3).map(|n| ("a".into(), n.to_string()))).await;
    for (cursor, reason) in [("nonsense", "malformed"), ("other.term.1", "other_log")] {
        let (mut client, _) = WsClient::live(server.addr).await;
        let ask = json!({"op": "subscribe", "ref": 1, "channels": ["a"], "cursor": cursor});
        assert_eq!(client.ask(ask).await["op"], "subscribed");
        let reset = client.json().await;
        assert_eq!(
            (&reset["op"], &reset["reason"], &reset["head"]),
            (&json!("reset"), &json!(reason), &json!(nth(1) + 2))
        );
        for n in 0..3 {
            assert_eq!(data(&client.event().await), n.to_string());
        }
    }
}

/// What a session and everyone are sent reaches sockets too, and is resumed with the first cursor.
#[actix_web::test]
async fn a_socket_hears_its_session_and_everyone() {
    let server = serve(builder());
    let (client, welcome) = WsClient::live(server.addr).await;
    let cookie = client.head.cookie().expect("a cookie");
    drop(client);
    let session = welcome["session"].as_str().expect("a session").parse().expect("a ULID");
    let text = |data: &str| Event::text("message", data).expect("valid");
    for missed in
        [Broadcast::sessions([session], text("to you, away")), Broadcast::everyone(text("to all, away"))]
    {
        server.broker.send(missed).await.expect("answered").expect("committed");
    }
    let (mut back, _) = WsClient::live_as(server.addr, &[("cookie", &cookie)]).await;
    server.broker.do_send(Broadcast::sessions([session], text("to you")));
    assert_eq!(data(&back.event().await), "to you");
    server.broker.do_send(Broadcast::everyone(text("to all").ephemeral()));
    let ephemeral = back.event().await;
    assert_eq!(
        (data(&ephemeral), &ephemeral["cursor"], &ephemeral["seq"]),
        ("to all".into(), &json!(null), &json!(null))
    );
    back.subscribe(&["a"], welcome["cursor"].as_str()).await;
    assert_eq!(data(&back.event().await), "to you, away");
    assert_eq!(data(&back.event().await), "to all, away");
    back.subscribe(&["b"], welcome["cursor"].as_str()).await;
    publish(&server, "b", "b").await;
    assert_eq!(data(&back.event().await), "b", "nothing of it a second time");
}

/// One cursor moves from SSE to a WebSocket and back while it is written.
#[actix_web::test]
async fn a_cursor_changes_transport() {
    let server = serve(builder().ring(64, 1 << 20));
    let broker = server.broker.clone();
    let flood = actix_web::rt::spawn(async move {
        for n in 0..5000 {
            let event = Event::text("message", n.to_string()).expect("valid");
            let broadcast = Broadcast::channel(["a/1", "b/1", "other"][n % 3], event).expect("valid");
            broker.send(broadcast).await.expect("answered").expect("committed");
        }
    });
    let mut cursor = None::<String>;
    let mut seen = Vec::new();
    let expected: Vec<_> = (0..5000).filter(|n| n % 3 != 2).map(|n| n.to_string()).collect();
    for turn in 0.. {
        let path = "/rt/events?channel=a/*&channel=b/*&from=earliest";
        if seen.len() == expected.len() {
            break;
        }
        let many = (turn * 7) % 150 + 1;
        if turn % 2 == 0 {
            let last = cursor.iter().map(|cursor| ("last-event-id", cursor.as_str())).collect::<Vec<_>>();
            let mut client = SseClient::open(server.addr, path, &last).await;
            client.welcome().await;
            for _ in 0..many.min(expected.len() - seen.len()) {
                let event = client.event().await.expect("an event");
                seen.push(event.data().to_owned());
                cursor = event.id;
            }
        } else {
            let (mut client, _) = WsClient::live(server.addr).await;
            client.subscribe(&["a/*", "b/*"], cursor.as_deref()).await;
            for _ in 0..many.min(expected.len() - seen.len()) {
                let event = client.event().await;
                seen.push(data(&event));
                cursor = Some(event["cursor"].as_str().expect("a cursor").to_owned());
            }
        }
    }
    assert_eq!(seen, expected);
    flood.await.expect("no panic");
}

/// What is added catches up beside what is there, and both come once; cut at any word, either transport has the rest.
#[actix_web::test]
async fn what_is_added_catches_up_beside_what_is_there() {
    for (ring, cut_after) in [(32, None), (32, Some(10)), (32, Some(700)), (32, Some(1900)), (100_000, None)]
    {
        let server = serve(builder().ring(ring, 8 << 20));
        publish_many(&server, (0..1000).map(|n| ("b/1".into(), format!("b{n}")))).await;
        let (mut client, welcome) = WsClient::live(server.addr).await;
        client.subscribe(&["a/*"], None).await;
        let start =
            welcome["cursor"].as_str().expect("a cursor").split('.').take(2).collect::<Vec<_>>().join(".");
        let start = format!("{start}.0");
        let broker = server.broker.clone();
        let flood = actix_web::rt::spawn(async move {
            for n in 0..1500 {
                let (channel, data) =
                    if n % 2 == 0 { ("a/1", format!("a{n}")) } else { ("b/1", format!("b{}", 1000 + n / 2)) };
                let event = Event::text("message", data).expect("valid");
                let broadcast = Broadcast::channel(channel, event).expect("valid");
                broker.send(broadcast).await.expect("answered").expect("committed");
            }
        });
        client.send(&json!({"op": "subscribe", "ref": 9, "channels": ["b/*"], "cursor": start})).await;
        let (mut a, mut b, mut cursor, mut with_exceptions) = (Vec::new(), Vec::new(), None, 0);
        let mut is_subscribed = false;
        let mut take = |text: String| if text.starts_with('a') { a.push(text) } else { b.push(text) };
        let mut taken = 0;
        while taken < 750 + 1750 {
            if cut_after.is_some_and(|cut| is_subscribed && taken >= cut) {
                break;
            }
            let message = client.json().await;
            if message["op"] == "subscribed" {
                is_subscribed = true;
                continue;
            }
            assert_eq!(message["op"], "event", "{message}");
            take(data(&message));
            taken += 1;
            cursor = Some(message["cursor"].as_str().expect("a cursor").to_owned());
            let token = cursor.as_deref().unwrap_or_default();
            assert!(token.len() <= 128, "{token}");
            with_exceptions += usize::from(token.contains('~'));
        }
        if taken < 2500 {
            drop(client);
            let cursor = cursor.expect("a cursor");
            let path = format!("/rt/events?channel=a/*&channel=b/*&last_event_id={cursor}");
            let mut rest = SseClient::open(server.addr, &path, &[]).await;
            rest.welcome().await;
            while taken < 2500 {
                take(rest.data().await);
                taken += 1;
            }
        }
        flood.await.expect("no panic");
        assert!(with_exceptions > 0, "nothing caught up beside anything");
        assert_eq!(
            a,
            (0..1500).step_by(2).map(|n| format!("a{n}")).collect::<Vec<_>>(),
            "ring {ring}, cut {cut_after:?}"
        );
        assert_eq!(
            b,
            (0..1750).map(|n| format!("b{n}")).collect::<Vec<_>>(),
            "ring {ring}, cut {cut_after:?}"
        );
    }
}
