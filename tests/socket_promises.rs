//! What a client may count on when it is cut, falls behind, asks for much or is told to go.

mod support;

use std::time::Duration;

use fanfare::{Batch, Broadcast, CloseReason, CloseSession, Event, Retention};
use serde_json::{Value, json};
use support::order::{builder, nth};
use support::sse::SseClient;
use support::ws::WsClient;
use support::{TestServer, serve};

fn event(data: impl Into<String>) -> Event {
    Event::text("message", data).expect("valid")
}

async fn publish_many(server: &TestServer, events: Vec<Broadcast>) {
    // As much as one message of an order takes.
    for batch in events.chunks(250) {
        let batch = Batch::new(batch.to_vec()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
}

fn on(channel: &str, data: impl Into<String>) -> Broadcast {
    Broadcast::channel(channel, event(data)).expect("valid")
}

fn names(cursor: &Value) -> String {
    cursor.as_str().expect("a cursor").split('.').take(2).collect::<Vec<_>>().join(".")
}

fn base_of(cursor: &str) -> u64 {
    cursor.split(['.', '~']).nth(2).and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("{cursor}"))
}

#[actix_web::test]
async fn from_n_is_n_events_of_the_channels() {
    for ring in [4, 1000] {
        let server = serve(builder().ring(ring, 1 << 20));
        publish_many(&server, (0..5).map(|n| on("c", n.to_string())).collect()).await;
        publish_many(&server, (0..5).map(|n| Broadcast::everyone(event(format!("all {n}")))).collect()).await;
        let (mut client, _) = WsClient::live(server.addr).await;
        client.ask(json!({"op": "subscribe", "ref": 1, "channels": ["c"], "from": 5})).await;
        for n in 0..5 {
            let next = tokio::time::timeout(Duration::from_secs(1), client.event()).await;
            assert_eq!(
                next.unwrap_or_else(|_| panic!("ring {ring}: event {n} does not come"))["data"],
                n.to_string()
            );
        }
    }
}

#[actix_web::test]
async fn a_lag_does_not_claim_what_comes_after_it() {
    let server = serve(builder().feed(8, 1 << 20).ring(8192, 32 << 20));
    let (mut client, _) = WsClient::live(server.addr).await;
    client.subscribe(&["a"], None).await;
    for round in 0..400 {
        let mut all = Vec::new();
        for n in 0..20 {
            all.push(on("a", format!("{round} {n} {}", "x".repeat(2000))));
            all.push(Broadcast::channel("a", event("gone").ephemeral()).expect("valid"));
        }
        server.broker.send(Batch::new(all).expect("valid")).await.expect("answered").expect("committed");
    }
    let broker = server.broker.clone();
    let flood = actix_web::rt::spawn(async move {
        for _ in 0..3000 {
            let mut all: Vec<_> = (0..6).map(|n| on("a", format!("{n} {}", "x".repeat(500)))).collect();
            all.extend((0..6).map(|_| Broadcast::channel("a", event("gone").ephemeral()).expect("valid")));
            let _ = broker.send(Batch::new(all).expect("valid")).await;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    let (mut seen, mut lags) = (0, 0);
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(2), client.json()).await {
        match message["op"].as_str().expect("an op") {
            "event" => seen = message["seq"].as_u64().unwrap_or(seen),
            "lag" => {
                lags += 1;
                let claimed = base_of(message["cursor"].as_str().expect("a cursor"));
                // The log holds only events of this channel: whatever is claimed was due.
                assert!(claimed <= seen, "lag {lags}: {claimed} is claimed and {seen} was the last");
            }
            _ => panic!("{message}"),
        }
    }
    flood.await.expect("no panic");
    assert!(lags > 0);
}

#[actix_web::test]
async fn what_two_selectors_match_is_not_lost_by_a_cut() {
    let server = serve(builder().ring(4, 1 << 20));
    let pad = "x".repeat(1000);
    publish_many(&server, (0..6000).map(|n| on("a/1", format!("{n} {pad}"))).collect()).await;
    let (mut client, _) = WsClient::live(server.addr).await;
    client.subscribe(&["a/*"], None).await;
    publish_many(&server, vec![on("a/1", "6000 ")]).await;
    assert_eq!(client.event().await["data"], "6000 ");
    client.ask(json!({"op": "subscribe", "ref": 1, "channels": ["**"], "from": "earliest"})).await;
    let mut cursor = String::new();
    for n in 0..100 {
        let message = client.event().await;
        assert!(message["data"].as_str().expect("text").starts_with(&format!("{n} ")));
        cursor = message["cursor"].as_str().expect("a cursor").to_owned();
    }
    drop(client);
    let path = format!("/rt/events?channel=a/*&channel=**&last_event_id={cursor}");
    let mut rest = SseClient::open(server.addr, &path, &[]).await;
    rest.welcome().await;
    let next = tokio::time::timeout(Duration::from_secs(2), rest.data()).await;
    let next = next.unwrap_or_else(|_| panic!("{cursor}: nothing comes, 5900 are lost"));
    assert!(next.starts_with("100 "), "{cursor}: {}", &next[..10]);
}

#[actix_web::test]
async fn a_gap_is_told_again_to_who_was_cut_before_it() {
    let retention = Retention::default().rule("b=limits:max_events=10".parse().expect("a rule"));
    let server = serve(builder().ring(4, 1 << 20).retention(retention));
    publish_many(&server, (0..100).map(|n| on("b", n.to_string())).collect()).await;
    let (mut client, welcome) = WsClient::live(server.addr).await;
    let start = format!("{}.{}", names(&welcome["cursor"]), nth(1) + 4);
    let ask = json!({"op": "subscribe", "ref": 1, "channels": ["b"], "cursor": start});
    let subscribed = client.ask(ask).await;
    let gap = client.json().await;
    assert_eq!(gap["op"], "gap", "{gap}");
    // Cut here, all that the client has is the cursor of `subscribed`.
    let cursor = subscribed["cursor"].as_str().expect("a cursor");
    let (mut back, _) = WsClient::live(server.addr).await;
    back.ask(json!({"op": "subscribe", "ref": 1, "channels": ["b"], "cursor": cursor})).await;
    assert_eq!(back.json().await["op"], "gap", "{cursor}");
}

#[actix_web::test]
async fn a_cursor_fits_also_after_something_was_left() {
    let server = serve(builder().ring(4, 1 << 20));
    let pad = "x".repeat(2000);
    let channels: Vec<_> =
        (0..11).map(|n| format!("y/{n}")).chain((0..4).map(|n| format!("x/{n}"))).collect();
    publish_many(&server, (0..9000).map(|n| on(&channels[n % 15], pad.clone())).collect()).await;
    let (mut client, _) = WsClient::live(server.addr).await;
    client.send(&json!({"op": "subscribe", "ref": 0, "channels": channels[..11], "from": "earliest"})).await;
    for x in &channels[11..] {
        client.send(&json!({"op": "subscribe", "ref": x, "channels": [x], "from": "earliest"})).await;
    }
    let mut told = 0;
    // Some of it is left on the way.
    for n in 0..8400 {
        let message = client.json().await;
        if message["op"] == "subscribed" {
            told += 1;
            if told == 5 {
                client.send(&json!({"op": "unsubscribe", "ref": "u", "channels": ["y/0"]})).await;
            }
        }
        if let Some(cursor) = message["cursor"].as_str() {
            assert!(cursor.len() <= 128, "message {n}, {} bytes: {cursor}", cursor.len());
        }
    }
    assert_eq!(told, 5);
}

#[actix_web::test]
async fn who_was_revoked_publishes_no_more() {
    let server = serve(builder());
    let (mut client, welcome) = WsClient::live(server.addr).await;
    let (mut other, _) = WsClient::live(server.addr).await;
    other.subscribe(&["a"], None).await;
    let session = welcome["session"].as_str().expect("a session").parse().expect("a ULID");
    server.broker.do_send(CloseSession { session, reason: CloseReason::Revoked });
    assert_eq!(client.closed().await.0, 4001);
    client.send(&json!({"op": "publish", "ref": 1, "channel": "a", "data": "from beyond"})).await;
    assert!(other.is_quiet_for(Duration::from_secs(1)).await, "a revoked client's event was sent");
}

#[actix_web::test]
async fn unsubscribe_is_answered_behind_the_subscribe_before_it() {
    let server = serve(builder());
    publish_many(&server, (0..10).map(|n| on("a", n.to_string())).collect()).await;
    let (mut client, _) = WsClient::live(server.addr).await;
    let asks = [
        json!({"op": "subscribe", "ref": 0, "channels": ["b"]}),
        json!({"op": "subscribe", "ref": 1, "channels": ["a"], "from": "earliest"}),
        json!({"op": "unsubscribe", "ref": 2, "channels": ["a"]}),
    ];
    let asks: Vec<_> =
        asks.iter().flat_map(|ask| support::ws::frame(true, 1, ask.to_string().as_bytes())).collect();
    client.send_raw(&asks).await;
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let message = client.json().await;
        if message["op"] != "event" {
            answers.push(message["ref"].as_u64().expect("a ref"));
        }
    }
    assert_eq!(answers.last(), Some(&2));
}

#[actix_web::test]
async fn who_is_behind_can_leave() {
    let server = serve(builder().ring(4, 1 << 20).feed(8, 1 << 20));
    let (mut client, _) = WsClient::live(server.addr).await;
    client.subscribe(&["a"], None).await;
    publish_many(&server, (0..15_000).map(|n| on("a", format!("{n} {}", "x".repeat(1000)))).collect()).await;
    client.send(&json!({"op": "unsubscribe", "ref": "u", "channels": ["a"]})).await;
    // It is taken while nothing is read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut events = 0;
    while client.json().await["op"] != "unsubscribed" {
        events += 1;
    }
    assert!(events < 10_000, "{events} of 15000 events came before `unsubscribed`");
}
