//! `POST publish`: what is taken, in which order it arrives, and what is answered.

mod support;

use std::collections::BTreeSet;

use fanfare::http::{Grant, HttpConfig};
use fanfare::{Broadcast, Event, PublishError, Publisher, Selector, SessionId};
use support::bad_log::BadLog;
use support::order::{builder, is_nats, nth};
use support::{http, serve, serve_with};

#[actix_web::test]
async fn a_receipt_says_where_the_event_stands() {
    let server = serve(builder());
    let first = server.publish(r#"{"channel":"a","id":"o-1"}"#).await.json();
    assert_eq!(
        (&first["id"], &first["seq"], &first["duplicate"]),
        (&"o-1".into(), &nth(1).into(), &false.into())
    );
    let keys: Vec<_> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["cursor", "duplicate", "id", "seq"], "and nothing else");

    // The cursor is a place to start from.
    let second = server.publish(r#"{"channel":"a","data":"next"}"#).await.json();
    assert_eq!(second["id"].as_str().map(str::len), Some(26), "a ULID is minted");
    let cursor = first["cursor"].as_str().expect("a cursor");
    let mut client = server.live(&format!("channel=a&last_event_id={cursor}")).await;
    assert_eq!(client.data().await, "next");

    let ephemeral = server.publish(r#"{"channel":"a","ephemeral":true}"#).await.json();
    assert!(ephemeral["seq"].is_null() && ephemeral["cursor"].is_null() && !ephemeral["id"].is_null());
}

#[actix_web::test]
async fn the_same_id_of_a_publisher_is_stored_and_sent_once() {
    let config = HttpConfig::default().authorize(|request| async move {
        let user = request.cookie("user").map_or_else(String::new, |user| user.value().to_owned());
        let all = Selector::new("**").ok();
        let grant = Grant::new(SessionId::mint()).subscribe(all.clone()).publish(all);
        Ok(grant.publisher(Publisher::named(user)))
    });
    let server = serve_with(builder(), config);
    let mut client = server.live("channel=a").await;
    let publish = |user: &'static str, data: &'static str| {
        let addr = server.addr;
        async move {
            let body = format!(r#"{{"channel":"a","id":"same","data":"{data}"}}"#);
            let headers = [("content-type", "application/json"), ("cookie", user)];
            http::request(addr, "POST", "/rt/publish", &headers, &body).await.json()
        }
    };
    let first = publish("user=ada", "one").await;
    let again = publish("user=ada", "two").await;
    let other = publish("user=bob", "three").await;
    assert_eq!(
        (&again["seq"], &again["cursor"], &again["duplicate"]),
        (&first["seq"], &first["cursor"], &true.into())
    );
    // In an order that others read too, what came again has a place of its own that stays empty.
    let place = if is_nats() { nth(3) } else { nth(2) };
    assert_eq!((&other["seq"], &other["duplicate"]), (&place.into(), &false.into()));
    assert_eq!((client.data().await, client.data().await), ("one".into(), "three".into()));
}

#[actix_web::test]
async fn a_batch_is_all_or_nothing_and_stays_together() {
    let server = serve(builder());
    let mut client = server.live("channel=a").await;
    let bad = server.publish(r#"[{"channel":"a","data":"lost"},{"channel":"a","event":"$x"}]"#).await;
    assert_eq!(
        (bad.status(), &bad.problem()["index"], &bad.problem()["field"]),
        (400, &1.into(), &"event".into())
    );

    let publishers = (0..10).map(|n| {
        let events =
            (0..50).map(|i| format!(r#"{{"channel":"a","data":"{n} {i}","ephemeral":{}}}"#, i % 5 == 4));
        let events: Vec<_> = events.collect();
        let addr = server.addr;
        async move { http::post_json(addr, "/rt/publish", &format!("[{}]", events.join(","))).await }
    });
    let mut places = BTreeSet::new();
    for answer in futures_util::future::join_all(publishers).await {
        let receipts = answer.json().as_array().expect("an array").clone();
        assert_eq!(receipts.len(), 50, "{answer:?}");
        places.extend(receipts.iter().filter_map(|receipt| receipt["seq"].as_u64()));
    }
    for _ in 0..10 {
        let first = client.data().await;
        let (batch, zero) = first.split_once(' ').expect("two numbers");
        assert_eq!(zero, "0");
        for i in 1..50 {
            assert_eq!(
                client.data().await,
                format!("{batch} {i}"),
                "in order, with the ephemeral ones in their places"
            );
        }
    }
    assert_eq!(
        (places.len(), places.last()),
        (400, Some(&server.stats().await.head)),
        "all but the ephemeral"
    );
}

#[actix_web::test]
async fn lines_of_json_are_a_batch_too() {
    let server = serve(builder());
    let lines = "{\"channel\":\"a\"}\n{\"channel\":\"b\"}\n";
    for content_type in ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8"] {
        let headers = [("content-type", content_type)];
        let answer = http::request(server.addr, "POST", "/rt/publish", &headers, lines).await;
        assert_eq!(answer.json().as_array().map(Vec::len), Some(2), "{answer:?}");
    }
    for content_type in ["text/plain", "application/jsonx", ""] {
        let headers = [("content-type", content_type)];
        let answer = http::request(server.addr, "POST", "/rt/publish", &headers, lines).await;
        assert_eq!(answer.status(), 415, "{content_type}");
    }
}

/// A hundred publishers at once: positions are unique and strictly increasing, and all subscribers see that order.
#[actix_web::test]
async fn all_see_one_order() {
    let server = serve(builder());
    let mut clients = Vec::new();
    for query in ["channel=a", "channel=*", "channel=**", "channel=a&format=envelope"] {
        clients.push(server.live(query).await);
    }
    let publishers = (0..100).map(|n| {
        let addr = server.addr;
        async move {
            let (mut places, mut last) = (Vec::new(), 0);
            for i in 0..5 {
                let body = format!(r#"{{"channel":"a","data":"{n}-{i}"}}"#);
                let seq =
                    http::post_json(addr, "/rt/publish", &body).await.json()["seq"].as_u64().expect("stored");
                assert!(seq > last);
                places.push(seq);
                last = seq;
            }
            places
        }
    });
    let all = futures_util::future::join_all(publishers).await;
    let places: BTreeSet<u64> = all.into_iter().flatten().collect();
    assert_eq!(places.len(), 500);
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        for seq in &places {
            let event = client.event().await.expect("an event");
            assert!(event.id.as_deref().is_some_and(|id| id.ends_with(&format!(".{seq}"))), "{event:?}");
            let data = event.data().to_owned();
            let json = serde_json::from_str::<serde_json::Value>(&data).ok();
            order.push(json.and_then(|json| Some(json["data"].as_str()?.to_owned())).unwrap_or(data));
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
}

#[actix_web::test]
async fn sizes_are_bounded() {
    let server = serve_with(builder(), HttpConfig::default().max_payload(1000).max_body(100_000));
    let event = |size: usize| format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(size));
    assert_eq!(server.publish(&event(1000)).await.status(), 200);
    let large = server.publish(&event(1001)).await;
    assert_eq!((large.status(), &large.problem()["field"]), (413, &"data".into()));
    assert_eq!(server.publish(&event(100_000)).await.status(), 413);
    let many = format!("[{}]", vec![r#"{"channel":"a"}"#; 4097].join(","));
    assert_eq!(server.publish(&many).await.status(), 413);
    assert_eq!(server.stats().await.head, nth(1));
}

/// A full queue says so, with a time to come back; and `do_send` loses nothing in silence: it is counted.
#[actix_web::test]
async fn a_full_queue_is_503() {
    let server = serve(builder().in_flight(10, 1 << 20).log(BadLog { fails: false }));
    let event = || Event::text("x", "y").expect("valid");
    for _ in 0..10 {
        server.broker.do_send(Broadcast::channel("a", event()).expect("valid"));
    }
    let refused = server.publish(r#"{"channel":"a"}"#).await;
    assert_eq!((refused.status(), refused.head.header("retry-after")), (503, Some("1")));
    refused.problem();
    server.broker.do_send(Broadcast::channel("a", event()).expect("valid"));
    let awaited =
        server.broker.send(Broadcast::channel("a", event()).expect("valid")).await.expect("answered");
    assert!(matches!(awaited, Err(PublishError::Overloaded)), "{awaited:?}");
    let stats = server.stats().await;
    assert_eq!((stats.in_flight, stats.refused, stats.head), (10, 3, 0));
    // What needs no log goes on.
    assert_eq!(server.publish(r#"{"channel":"a","ephemeral":true}"#).await.status(), 200);
}

/// A log that fails is a 503 to the publisher, and what it said stays in the log of the server.
#[actix_web::test]
async fn a_failing_log_is_503() {
    let server = serve(builder().log(BadLog { fails: true }));
    for _ in 0..3 {
        let failed = server.publish(r#"{"channel":"a"}"#).await;
        assert_eq!((failed.status(), failed.head.header("retry-after")), (503, Some("5")));
        assert!(!failed.body.contains("disk"), "{failed:?}");
    }
    assert_eq!(server.stats().await.in_flight, 0);
}

/// Cross-site pages cannot publish with the browser's cookie.
#[actix_web::test]
async fn another_sites_page_may_not_publish() {
    let server = serve(builder());
    let own = format!("http://{}", server.addr);
    let cookie = format!("fanfare_session={}", "s".repeat(32));
    let post = |headers: Vec<(&'static str, String)>| {
        let addr = server.addr;
        async move {
            let mut all: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            all.push(("content-type", "application/json"));
            http::request(addr, "POST", "/rt/publish", &all, r#"{"channel":"a"}"#).await.status()
        }
    };
    assert_eq!(post(vec![("origin", own.clone())]).await, 200);
    assert_eq!(post(vec![("origin", own.clone()), ("cookie", cookie.clone())]).await, 200);
    assert_eq!(post(vec![("sec-fetch-site", "same-origin".into()), ("cookie", cookie.clone())]).await, 200);
    assert_eq!(post(vec![("cookie", cookie.clone())]).await, 403);
    for origin in ["http://evil.example", "null", "http://localhost:1", ""] {
        assert_eq!(post(vec![("origin", origin.into())]).await, 403, "{origin:?}");
    }
}
