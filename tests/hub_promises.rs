//! What is promised of the library, by the hub as its user has it: a process of its own, with its own server and settings.
//!
//! Slow and vanished crowds are in `slow_clients.rs`.

#![cfg(feature = "hub")]

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::http;
use support::hub::Hub;
use support::order::{is_nats, nth};
use support::prometheus::Metrics;
use support::sse::SseClient;
use support::token::{SECRET, base64url, granting, hmac, hs256, key, key_file, now, signed};
use support::ws::{CLOSE, PING, WsClient};

const SECOND: Duration = Duration::from_secs(1);

fn guarded(more: &[&str]) -> Hub {
    Hub::start(&[&["--jwt-key", &format!("HS256:{SECRET}")], more].concat())
}

async fn request(hub: &Hub, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> http::Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    http::request(hub.addr, method, path, &headers, body).await
}

async fn publish_as(hub: &Hub, token: &str, body: &str) -> http::Answer {
    request(hub, "POST", "/publish", &[("authorization", &format!("Bearer {token}"))], body).await
}

async fn live_as(hub: &Hub, token: &str, query: &str) -> SseClient {
    let authorization = format!("Bearer {token}");
    let path = format!("/events?{query}");
    let mut client = SseClient::open(hub.addr, &path, &[("authorization", &authorization)]).await;
    client.welcome().await;
    client
}

/// P4: whatever credentials come, the answer is a plain no, and the hub goes on.
#[actix_web::test]
async fn bad_credentials_are_refused_and_harm_nobody() {
    let mut hub = guarded(&[]);
    let path = "/events?channel=a";
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Basic dXNlcjpwYXNz")], 401),
        (vec![("authorization", "Bearer")], 401),
        (vec![("authorization", "Bearer a.b.c")], 401),
    ] {
        let answer = http::request(hub.addr, "GET", path, &headers, "").await;
        assert_eq!(answer.status(), status, "{headers:?}");
        answer.problem();
    }
    let mut state = 7_u64;
    for n in 0..1000 {
        let value: String = (0..n % 60)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'!' + (state >> 33) as u8 % 94)
            })
            .collect();
        let cookie = format!("fanfare_token={value}; fanfare_session={value}");
        let answer = http::request(hub.addr, "GET", path, &[("cookie", &cookie)], "").await;
        assert_eq!(answer.status(), 401, "{cookie}");
    }
    assert!(hub.child.try_wait().expect("a child").is_none(), "it has ended");
    live_as(&hub, &granting(json!({"subscribe": ["a"]})), "channel=a").await;
}

/// Each way to get more than was granted is refused, with the form of an error.
#[actix_web::test]
async fn nobody_gets_more_than_was_granted() {
    let public = key("rs256.public.pem");
    let file = key_file("rs256.public.pem");
    let hub = Hub::start(&["--jwt-key", &format!("RS256:@{}", file.display())]);
    let claims = |more: Value| {
        let mut claims = json!({"sub": "user 7", "exp": now() + 60.0,
            "fanfare": {"subscribe": ["a/*"], "publish": ["a/*"]}});
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    let rs256 = |more: Value| signed("RS256", &json!({"alg": "RS256"}), &claims(more));
    let good = rs256(json!({}));
    let content = |alg: &str| {
        format!("{}.{}", base64url(json!({"alg": alg}).to_string()), base64url(claims(json!({})).to_string()))
    };
    let confused = |alg: &str| {
        format!("{0}.{1}", content(alg), base64url(hmac(public.as_bytes(), content(alg).as_bytes())))
    };
    let read = |channel: &str| format!("/history?channel={channel}");
    for (why, token) in [
        ("algorithm confusion", confused("HS256")),
        ("algorithm confusion", confused("RS256")),
        ("no algorithm", format!("{}.", content("none"))),
        ("no algorithm, signed", format!("{}.{}", content("none"), good.rsplit_once('.').expect("dots").1)),
        ("another's key", signed("another RS256", &json!({"alg": "RS256"}), &claims(json!({})))),
        ("another's algorithm", hs256(&claims(json!({})))),
        ("expired", rs256(json!({"exp": now() - 1.0}))),
        ("not valid yet", rs256(json!({"nbf": now() + 60.0}))),
        ("oversized", rs256(json!({"more": "x".repeat(8 * 1024)}))),
    ] {
        let authorization = format!("Bearer {token}");
        for (method, path) in
            [("GET", read("a/1")), ("GET", "/events?channel=a/1".into()), ("POST", "/publish".into())]
        {
            let headers = [("authorization", authorization.as_str())];
            let answer = request(&hub, method, &path, &headers, r#"{"channel":"a/1"}"#).await;
            assert_eq!(answer.status(), 401, "{why}: {method} {path}");
            answer.problem();
        }
    }
    let cookie = format!("fanfare_token={good}");
    for (origin, site, status) in [
        (Some("https://evil.example"), Some("cross-site"), 403),
        (None, Some("cross-site"), 403),
        (None, None, 403),
        (None, Some("same-origin"), 200),
    ] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        let answer = request(&hub, "POST", "/publish", &headers, r#"{"channel":"a/1"}"#).await;
        assert_eq!(answer.status(), status, "{origin:?} {site:?}");
    }
    let authorization = format!("Bearer {good}");
    for (channel, status) in [
        ("a/1", 200),
        ("a%2F1", 200),
        ("a/**", 403),
        ("a%2F%2a%2A", 403),
        ("*/1", 403),
        ("**", 403),
        ("a", 403),
        ("$everyone", 400),
        ("%24everyone", 400),
        ("%24session%2F%2A%2A", 400),
    ] {
        for path in [read(channel), format!("/events?channel={channel}&strict=1")] {
            let client = SseClient::open(hub.addr, &path, &[("authorization", &authorization)]).await;
            assert_eq!(client.head.status, status, "{path}");
        }
    }
    for (body, status) in [
        (r#"{"channel":"b/1"}"#, 403),
        (r#"{"everyone":true}"#, 403),
        (r#"{"channel":"\u0024everyone"}"#, 400),
        (r#"{"channels":["a/1","%24everyone"]}"#, 403),
    ] {
        assert_eq!(publish_as(&hub, &good, body).await.status(), status, "{body}");
    }
}

/// P6: a client that closed or was reset is gone from the registry at once, and its session with its last stream.
#[actix_web::test]
async fn who_has_left_is_gone_at_once() {
    let hub = Hub::start(&[]);
    for how in ["closed", "reset"] {
        let mut first = SseClient::open(hub.addr, "/events?channel=quiet", &[]).await;
        first.welcome().await;
        let cookie = first.head.cookie().expect("a cookie");
        let mut second = SseClient::open(hub.addr, "/events?channel=quiet", &[("cookie", &cookie)]).await;
        second.welcome().await;
        let status = hub.status().await;
        assert_eq!((&status["clients"], &status["sessions"]), (&2.into(), &1.into()), "{how}");
        if how == "reset" {
            first.socket.set_zero_linger().expect("an option");
        }
        drop(first);
        hub.until_clients(1, SECOND).await;
        assert_eq!(hub.status().await["sessions"], 1, "{how}: one stream is left");
        drop(second);
        hub.until_clients(0, SECOND).await;
        let status = hub.status().await;
        assert_eq!((&status["sessions"], &status["channels"]), (&0.into(), &0.into()), "{how}");
    }
}

/// P9: a stream ends with its token, within a second, and says so.
#[actix_web::test]
async fn a_stream_ends_with_its_token() {
    let hub = guarded(&[]);
    let expires = now() + 2.0;
    let short = hs256(&json!({"sub": "a", "exp": expires, "fanfare": {"subscribe": ["a"]}}));
    let mut ends = live_as(&hub, &short, "channel=a").await;
    let long = granting(json!({"subscribe": ["a"], "publish": ["a"]}));
    let mut stays = live_as(&hub, &long, "channel=a").await;
    assert_eq!(ends.event().await.expect("last words").data(), r#"{"reason":"expired_token"}"#);
    assert!((0.0..1.0).contains(&(now() - expires)), "{}", now() - expires);
    assert_eq!(ends.block().await, None);
    assert_eq!(publish_as(&hub, &long, r#"{"channel":"a","data":"on"}"#).await.status(), 200);
    assert_eq!(stays.data().await, "on");
}

/// P9, H8: a session that is revoked loses its streams within a second, and what it has is refused; with a new token it goes on
/// without a loss.
#[actix_web::test]
async fn a_revoked_session_goes_on_with_a_new_token() {
    let hub = guarded(&[]);
    let session = "01J00000000000000000000000";
    let issued = |at: f64| {
        hs256(&json!({"sub": "a", "sid": session, "iat": at, "exp": now() + 60.0,
            "fanfare": {"subscribe": ["a"], "publish": ["a"], "admin": true}}))
    };
    let old = issued(now().floor() - 1.0);
    let mut client = live_as(&hub, &old, "channel=a").await;
    let other = granting(json!({"publish": ["a"], "admin": true}));
    assert_eq!(publish_as(&hub, &other, r#"{"channel":"a","data":"1"}"#).await.status(), 200);
    let seen = client.event().await.expect("an event");
    let authorization = format!("Bearer {other}");
    let begin = Instant::now();
    let path = format!("/sessions/{session}");
    let revoked = request(&hub, "DELETE", &path, &[("authorization", &authorization)], "").await;
    assert_eq!(revoked.status(), 204);
    assert_eq!(client.event().await.expect("last words").data(), r#"{"reason":"revoked"}"#);
    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
    for n in 2..=4 {
        assert_eq!(
            publish_as(&hub, &other, &format!(r#"{{"channel":"a","data":"{n}"}}"#)).await.status(),
            200
        );
    }
    assert_eq!(publish_as(&hub, &old, r#"{"channel":"a"}"#).await.status(), 401);
    let authorization = format!("Bearer {old}");
    let headers = [("authorization", authorization.as_str())];
    let refused = SseClient::open(hub.addr, "/events?channel=a", &headers);
    assert_eq!(refused.await.head.status, 204, "a browser does not come back");
    let cursor = seen.id.expect("a cursor");
    let mut back =
        live_as(&hub, &issued(now().floor() + 2.0), &format!("channel=a&last_event_id={cursor}")).await;
    for n in 2..=4 {
        assert_eq!(back.data().await, n.to_string());
    }
}

/// V3, D2: who falls behind has every stored event once and in order; what was not stored and not delivered is counted, in the
/// stream at the place of the hole and in the metrics, so that delivered and lost are all.
#[actix_web::test]
async fn who_falls_behind_is_told_exactly() {
    const EVENTS: usize = 300;
    let hub = Hub::start(&[]);
    let mut slow = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    slow.welcome().await;
    let padding = "x".repeat(32 * 1024);
    for n in 0..EVENTS {
        let body = format!(
            r#"[{{"channel":"a","event":"kept","data":"{n} {padding}"}},{{"channel":"a","ephemeral":true,"data":"{n} {padding}"}}]"#
        );
        assert_eq!(hub.publish(&body).await.status(), 200);
    }
    let (mut kept, mut delivered, mut dropped) = (0, 0, 0);
    while kept < EVENTS || delivered + dropped < EVENTS {
        let event = slow.event().await.expect("no end");
        let number = event.data().split(' ').next().and_then(|number| number.parse::<usize>().ok());
        if event.is("$lag") {
            dropped += event.json()["dropped"].as_u64().expect("a count") as usize;
        } else if event.is("kept") {
            assert_eq!(number, Some(kept), "each once, in order");
            kept += 1;
        } else {
            assert_eq!(number, Some(delivered + dropped), "the hole is where it was told");
            delivered += 1;
        }
    }
    assert_eq!((kept, delivered + dropped), (EVENTS, EVENTS));
    assert!(dropped > 0, "it did not fall behind");
    let metrics = Metrics::read(&http::get(hub.addr, "/metrics").await.body);
    assert_eq!(metrics.get(r#"fanfare_dropped_total{reason="lag"}"#), dropped as f64);
}

/// V4: pings are answered and asked for, who owes two is closed, a close comes back; nothing remains, on a quiet channel.
#[actix_web::test]
async fn a_socket_lives_by_its_pings() {
    let hub = Hub::start(&["--heartbeat", "1s"]);
    let open = || async {
        let mut client = WsClient::open(hub.addr, "/ws", &[]).await;
        assert_eq!(client.json().await["op"], "welcome");
        client.subscribe(&["quiet"], None).await;
        client
    };
    let (mut lively, mut silent, mut leaving) = (open().await, open().await, open().await);
    assert_eq!(lively.ask(json!({"op": "ping", "ref": 1})).await["op"], "pong");
    leaving.send_frame(true, CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(leaving.closed().await.0, 1000);
    silent.answers_pings = false;
    let begin = Instant::now();
    let (closed, pings) = tokio::join!(silent.closed(), async {
        let mut pings = 0;
        while begin.elapsed() < 4 * SECOND {
            assert_eq!(lively.frame().await.expect("no end").opcode, PING);
            pings += 1;
        }
        pings
    });
    assert_eq!(closed.0, 4008);
    assert!((3..=6).contains(&pings), "{pings} pings in four heartbeats");
    hub.until_clients(1, SECOND).await;
    drop(lively);
    hub.until_clients(0, SECOND).await;
    let status = hub.status().await;
    assert_eq!((&status["sessions"], &status["channels"]), (&0.into(), &0.into()));
}

/// P8, D3: of a hundred one does not read: the others have everything within 50 ms at the 99th of 100, publishing returns, and every
/// event is either in the log or was refused aloud.
#[actix_web::test]
async fn one_that_does_not_read_costs_the_others_nothing() {
    let hub = Hub::start(&[]);
    let addr = hub.addr;
    let opening = (0..100).map(|_| async move {
        let mut client = SseClient::open(addr, "/events?channel=a", &[]).await;
        client.welcome().await;
        client
    });
    let mut clients = join_all(opening).await;
    let stalled = clients.pop();
    let padding = "x".repeat(16 * 1024);
    let mut latencies = Vec::new();
    for n in 0..60 {
        let begin = Instant::now();
        assert_eq!(hub.publish(&format!(r#"{{"channel":"a","data":"{n} {padding}"}}"#)).await.status(), 200);
        for client in &mut clients {
            assert!(client.data().await.starts_with(&format!("{n} ")));
            latencies.push(begin.elapsed());
        }
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    // A build for tests is slower, and does not have the machine for itself.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
    assert!(p99 < most, "p99 {p99:?}");
    assert_eq!(hub.status().await["clients"], 100, "the one that does not read is there");
    drop((clients, stalled));

    let before = hub.status().await["head"].as_u64().expect("a position");
    let batch = format!("[{}]", vec![r#"{"channel":"b"}"#; 4000].join(","));
    let flood = (0..60).map(|_| hub.publish(&batch));
    let answers = join_all(flood).await;
    let taken = answers.iter().filter(|answer| answer.status() == 200).count();
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status())), "refused aloud");
    // Each is a commit of its own: two do not fit one.
    let end = if is_nats() { before + nth(taken) + 3999 } else { before + nth(taken * 4000) };
    assert_eq!(hub.status().await["head"].as_u64(), Some(end), "and nothing in silence");
}

/// Each channel with one event, and then never again.
async fn publish_once(hub: &Hub, name: &str, channels: usize) {
    let mut batch = Vec::new();
    for n in 0..channels {
        batch.push(format!(r#"{{"channel":"{name}/{n}","data":"x"}}"#));
        if batch.len() == 4000 || n + 1 == channels {
            let answer = hub.publish(&format!("[{}]", std::mem::take(&mut batch).join(","))).await;
            assert_eq!(answer.status(), 200, "{answer:?}");
        }
    }
}

/// Waits until nothing is kept any more.
async fn until_forgotten(hub: &Hub) {
    let begin = Instant::now();
    loop {
        let page = http::get(hub.addr, "/history?channel=**&after=0&limit=1").await.json();
        if page["events"].as_array().is_some_and(Vec::is_empty) {
            return;
        }
        assert!(begin.elapsed() < 60 * SECOND, "still kept: {page}");
        tokio::time::sleep(SECOND / 10).await;
    }
}

/// Channels that had their event, and whose events have left, are nothing to a hub: its memory and its metrics come back to
/// where they were when it was started, but for its ring and what it remembers of a bounded number of channels.
/// `FANFARE_CHANNELS=full` is a million of them, twice.
#[actix_web::test]
async fn many_channels_leave_nothing_behind() {
    let is_full = std::env::var("FANFARE_CHANNELS").is_ok_and(|form| form == "full");
    let count = if is_full { 1_000_000 } else { 50_000 };
    let hub = Hub::start(&["--retention", "**=limits:max_age=1s"]);
    let metrics = || async { http::get(hub.addr, "/metrics").await.body };
    let (before, told) = (hub.resident(), metrics().await);
    for name in ["once", "again"] {
        publish_once(&hub, name, count).await;
        let full = hub.resident();
        until_forgotten(&hub).await;
        // Free memory goes back to the system within some ten seconds.
        let begin = Instant::now();
        while hub.resident() > before + (28 << 20) {
            let more = (hub.resident() - before) >> 10;
            assert!(begin.elapsed() < 40 * SECOND, "{more} KiB more than before");
            tokio::time::sleep(SECOND / 10).await;
        }
        println!(
            "{count} channels: {} KiB before, {} when all were there, {} after {:?}",
            before >> 10,
            full >> 10,
            hub.resident() >> 10,
            begin.elapsed()
        );
    }
    let told_after = metrics().await;
    assert_eq!(told.lines().count(), told_after.lines().count());
    // Numbers have more digits than they had.
    assert!(told_after.len() < told.len() + 400);
}
