//! Streams over real sockets: who gets what, how soon, and who is gone when.

mod support;

use std::time::{Duration, Instant};

use actix_web::cookie::Cookie;
use fanfare::http::{AuthError, Grant, HttpConfig};
use fanfare::{Broadcast, CloseReason, CloseSession, Drain, Event, Presence, Selector, SessionId, Sessions};
use support::order::{builder, nth};
use support::{http, serve, serve_with, sse::SseClient};

fn text(data: impl Into<String>) -> Event {
    Event::text("message", data).expect("a valid event")
}

/// A policy for applications with logins: the cookie `user` names the user, who follows and publishes below their name.
fn by_user() -> HttpConfig {
    HttpConfig::default().authorize(|request| async move {
        let Some(user) = request.cookie("user") else {
            return Err(AuthError::Unauthenticated("log in first".into()));
        };
        let user = user.value();
        if user == "gone" {
            return Err(AuthError::Ended);
        }
        if user == "stranger" {
            return Err(AuthError::Forbidden("not here".into()));
        }
        let own = Selector::new(format!("{user}/**")).map_err(AuthError::Malformed)?;
        Ok(Grant::new(SessionId::derived_from(user.as_bytes())).subscribe([own.clone()]).publish([own]))
    })
}

/// P1: a well-formed first block within 100 ms of connecting.
#[actix_web::test]
async fn the_first_block_comes_at_once() {
    let server = serve(builder());
    server.live("channel=a").await; // the thread's worker is started by the first stream
    let start = Instant::now();
    let mut client = server.open("channel=a").await;
    let retry = client.block().await.expect("a block");
    let welcome = client.block().await.expect("a block");
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert!(retry.retry.is_some_and(|ms| (2000..=5000).contains(&ms)));
    assert!(welcome.is("$welcome") && welcome.id.is_some());
    assert_eq!(client.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(client.head.header("cache-control"), Some("no-cache, no-transform"));
}

/// P2: every tab of a session gets what is sent to it, and nobody else does.
#[actix_web::test]
async fn a_session_is_reached_in_all_its_tabs_and_no_other() {
    let server = serve(builder());
    let mut first = server.open("").await;
    let cookie = first.head.cookie().expect("a new browser gets a cookie");
    let session: SessionId = first.head.header("fanfare-session").expect("named").parse().expect("a ULID");
    first.welcome().await;
    let mut tabs = vec![first];
    for _ in 0..2 {
        tabs.push(server.live_as(&cookie, "").await);
    }
    let mut other = server.live("").await;

    server.broker.do_send(Broadcast::sessions([session], text("for one")));
    server.broker.do_send(Broadcast::everyone(text("for all")));
    for tab in &mut tabs {
        assert_eq!(tab.data().await, "for one");
        assert_eq!(tab.data().await, "for all");
    }
    assert_eq!(other.data().await, "for all");
    assert_eq!(server.stats().await.sessions, 2);
}

/// P2: a grant keeps tenants apart, also where a selector would reach further.
#[actix_web::test]
async fn tenants_never_see_each_other() {
    let server = serve_with(builder(), by_user());
    let mut ada = server.live_as("user=ada", "channel=ada/**").await;
    let mut bob = server.live_as("user=bob", "channel=bob/**").await;
    for wide in ["bob/**", "**", "*/x", "*"] {
        let path = format!("/rt/events?channel={wide}");
        let refused = http::request(server.addr, "GET", &path, &[("cookie", "user=ada")], "").await;
        assert_eq!((refused.status(), &refused.problem()["field"]), (403, &"channel".into()), "{wide}");
    }
    for channel in ["bob/x", "ada/x"] {
        server.broker.do_send(Broadcast::channel(channel, text(channel)).expect("valid"));
    }
    assert_eq!(ada.data().await, "ada/x");
    assert_eq!(bob.data().await, "bob/x");
    server.broker.do_send(Broadcast::everyone(text("end")));
    assert_eq!((ada.data().await, bob.data().await), ("end".into(), "end".into()));
}

/// P3: everyone gets a broadcast exactly once, whatever they follow.
#[actix_web::test]
async fn everyone_gets_one_copy() {
    let server = serve(builder());
    let mut clients = Vec::new();
    for query in [
        "",
        "channel=a",
        "channel=a/*&channel=**&channel=a/b",
        "channel=a&filter=k:v",
        "channel=a&format=envelope",
    ] {
        for _ in 0..4 {
            clients.push(server.live(query).await);
        }
    }
    for n in 0..3 {
        server.broker.do_send(Broadcast::everyone(text(n.to_string())));
    }
    for client in &mut clients {
        for n in 0..3 {
            let event = client.event().await.expect("an event");
            let envelope = format!("\"data\":\"{n}\"}}");
            assert!(event.data() == n.to_string() || event.data().ends_with(&envelope), "{event:?}");
        }
    }
}

/// An event of several channels, and selectors that overlap, give one copy.
#[actix_web::test]
async fn overlapping_selectors_give_one_copy() {
    let server = serve(builder());
    let mut client = server.live("channel=a/*&channel=a/**&channel=**&channel=a/1&channel=b").await;
    let both = Broadcast::channels(["a/1", "b", "a/2"], text("both")).expect("valid");
    server.broker.do_send(both);
    server.broker.do_send(Broadcast::channel("b", text("end")).expect("valid"));
    assert_eq!((client.data().await, client.data().await), ("both".into(), "end".into()));
}

/// P4: bad credentials are 4xx, and no cookie whatever brings a handler down.
#[actix_web::test]
async fn bad_credentials_are_refused_and_nothing_panics() {
    let server = serve_with(builder(), by_user());
    let addr = server.addr;
    let ask = |cookie: &'static str| async move {
        http::request(addr, "GET", "/rt/events", &[("cookie", cookie)], "").await
    };
    let none = http::get(server.addr, "/rt/events").await;
    assert_eq!((none.status(), none.problem()["status"].clone()), (401, 401.into()));
    assert_eq!(ask("user=stranger").await.status(), 403);
    assert_eq!(ask("user=a//b").await.status(), 400);
    assert_eq!(ask("user=gone").await.status(), 204);

    let anonymous = serve(builder());
    let mut seed = 1u64;
    for _ in 0..1000 {
        let mut value = String::new();
        for _ in 0..seed % 40 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            value.push(char::from(b' ' + (seed >> 33) as u8 % 95));
        }
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let cookie = format!("fanfare_session={value}; user={value}");
        for server in [&server, &anonymous] {
            let headers = [("cookie", cookie.as_str()), ("content-type", "application/json")];
            let answer = http::request(server.addr, "POST", "/rt/publish", &headers, "{}").await;
            assert!((400..500).contains(&answer.status()), "{cookie:?} {answer:?}");
        }
    }
    let malformed =
        http::request(anonymous.addr, "GET", "/rt/events", &[("cookie", "fanfare_session=x")], "").await;
    assert_eq!((malformed.status(), &malformed.problem()["field"]), (400, &"fanfare_session".into()));
    assert!(server.stats().await.ready && anonymous.stats().await.ready);
}

/// P5: a stream shows that it is alive within the heartbeat, idle or busy, and moves the client's cursor.
#[actix_web::test]
async fn a_stream_has_a_ping_within_each_heartbeat() {
    let heartbeat = Duration::from_millis(400);
    let server = serve(builder().heartbeat(heartbeat));
    let mut client = server.live("channel=quiet").await;
    let mut last = Instant::now();
    for n in 1..=5 {
        server
            .broker
            .send(Broadcast::channel("busy", text("x")).expect("valid"))
            .await
            .expect("answered")
            .expect("committed");
        let ping = client.block().await.expect("a block");
        assert_eq!(ping.comment.as_deref(), Some("ping"), "{ping:?}");
        assert!(ping.data.is_none() && ping.event.is_none());
        let seq: u64 =
            ping.id.expect("a cursor").rsplit('.').next().expect("a number").parse().expect("a number");
        // One ping may have been on its way before the event.
        assert!(seq + 1 >= n, "the cursor moves on a quiet channel");
        assert!(last.elapsed() <= heartbeat + Duration::from_millis(200), "{:?}", last.elapsed());
        last = Instant::now();
    }
}

/// P6: a client that closed or was reset is gone at once, and its session with it.
#[actix_web::test]
async fn a_client_that_left_is_gone_from_the_registry() {
    let server = serve(builder());
    let closed = server.live("channel=a/*&channel=b").await;
    let reset = server.live("channel=a/1").await;
    let cookie = server.open("").await.head.cookie().expect("a cookie");
    let _stays = server.live_as(&cookie, "").await;
    let goes = server.live_as(&cookie, "").await;
    server.until(Duration::from_secs(1), |stats| stats.clients == 4).await;

    drop(closed);
    // The newest way to ask for it is not to linger at all: the peer gets a reset.
    reset.socket.set_zero_linger().expect("an option");
    drop(reset);
    drop(goes);
    server
        .until(Duration::from_secs(1), |stats| (stats.clients, stats.sessions, stats.channels) == (1, 1, 0))
        .await;
    assert_eq!(server.broker.send(Sessions).await.expect("answered").len(), 1);
}

/// P7: clients that register while the heartbeat sweeps and one client is stuck are not lost from the registry.
#[actix_web::test]
async fn registering_during_a_sweep_loses_nobody() {
    let server = serve(builder().heartbeat(Duration::from_millis(100)));
    let _stuck = server.live("channel=a&channel=b").await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(server.live("channel=a").await);
        // More than the stuck client's kernel buffers take.
        server.broker.do_send(Broadcast::channel("b", text("x".repeat(64 * 1024))).expect("valid"));
    }
    server.broker.do_send(Broadcast::channel("a", text("here")).expect("valid"));
    for client in &mut clients {
        assert_eq!(client.data().await, "here");
    }
}

/// P8: a client that does not read costs the others nothing: p99 of delivery under 50 ms, and publishing returns.
#[actix_web::test]
async fn a_stuck_client_delays_nobody() {
    let server = serve(builder());
    let stuck = server.live("channel=a").await;
    let mut clients = Vec::new();
    for _ in 0..99 {
        clients.push(server.live("channel=a").await);
    }
    let padding = "x".repeat(32 * 1024);
    let mut latencies = Vec::new();
    for n in 0..100 {
        let start = Instant::now();
        let receipt =
            server.broker.send(Broadcast::channel("a", text(format!("{n} {padding}"))).expect("valid"));
        receipt.await.expect("answered").expect("committed");
        for client in &mut clients {
            assert!(client.data().await.starts_with(&format!("{n} ")));
            latencies.push(start.elapsed());
        }
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    // A build for tests is slower, and does not have the machine for itself.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 250 } else { 50 });
    assert!(p99 < most, "p99 {p99:?}");
    assert_eq!(server.stats().await.clients, 100, "and it is still there");
    drop(stuck);
}

/// A client that stops reading for a while and then reads on gets everything, in order, on the same stream.
#[actix_web::test]
async fn a_slow_client_goes_back_to_the_log_and_misses_nothing() {
    let server = serve(builder().feed(4, 64 * 1024).ring(16, 1 << 20));
    let mut slow = server.live("channel=a").await;
    let padding = "x".repeat(16 * 1024);
    for n in 0..400 {
        let event = Event::text("n", format!("{n} {padding}")).expect("valid");
        server
            .broker
            .send(Broadcast::channel("a", event).expect("valid"))
            .await
            .expect("answered")
            .expect("committed");
    }
    for n in 0..400 {
        let event = slow.event().await.expect("an event");
        assert!(event.data().starts_with(&format!("{n} ")), "{n}: {:?}", &event.data()[..8]);
    }
    server.broker.do_send(Broadcast::channel("a", text("live again")).expect("valid"));
    assert_eq!(slow.data().await, "live again");
}

/// What a slow client missed and cannot have is told at its place: as many as it did not get.
#[actix_web::test]
async fn lost_ephemeral_events_are_counted_in_the_stream() {
    let server = serve(builder().feed(8, 64 * 1024));
    let mut slow = server.live("channel=a").await;
    let padding = "x".repeat(16 * 1024);
    const PUBLISHED: u64 = 400;
    for n in 0..PUBLISHED {
        let event = text(format!("{n} {padding}")).ephemeral();
        server
            .broker
            .send(Broadcast::channel("a", event).expect("valid"))
            .await
            .expect("answered")
            .expect("sent");
    }
    let (mut delivered, mut dropped, mut next) = (0, 0, 0);
    while delivered + dropped < PUBLISHED {
        let event = slow.event().await.expect("an event");
        assert_eq!(event.id, None, "no position");
        if event.is("$lag") {
            let lost = event.json()["dropped"].as_u64().expect("a count");
            (dropped, next) = (dropped + lost, next + lost);
        } else {
            assert!(event.data().starts_with(&format!("{next} ")), "{next}: {:?}", &event.data()[..8]);
            (delivered, next) = (delivered + 1, next + 1);
        }
    }
    assert_eq!((delivered + dropped, dropped > 0), (PUBLISHED, true));
}

/// P9: closing a session's clients from a service ends its streams within a second, and no other.
#[actix_web::test]
async fn a_service_can_end_a_session() {
    let server = serve(builder());
    let mut first = server.live("channel=a").await;
    let session: SessionId = first.head.header("fanfare-session").expect("named").parse().expect("a ULID");
    let cookie = first.head.cookie().expect("a cookie");
    let mut second = server.live_as(&cookie, "channel=b").await;
    let mut other = server.live("channel=a").await;
    let start = Instant::now();
    let closed = server.broker.send(CloseSession { session, reason: CloseReason::Revoked }).await;
    assert_eq!(closed.expect("answered"), 2);
    for tab in [&mut first, &mut second] {
        let retry = tab.block().await.expect("a fresh retry");
        assert!(retry.retry.is_some());
        let closing = tab.block().await.expect("last words");
        assert_eq!(closing.text, "event: $closing\ndata: {\"reason\":\"revoked\"}");
        assert_eq!(tab.block().await, None);
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    server.until(Duration::from_secs(1), |stats| stats.clients == 1).await;
    server.broker.do_send(Broadcast::channel("a", text("still here")).expect("valid"));
    assert_eq!(other.data().await, "still here");
}

/// What was delivered before a stream is ended comes before its end, to every client.
#[actix_web::test]
async fn the_last_event_before_the_end_is_not_lost() {
    let server = serve(builder());
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(server.live("channel=a").await);
    }
    for n in 0..3 {
        server.broker.do_send(Broadcast::everyone(text(n.to_string())));
    }
    server.broker.do_send(Broadcast::channel("a", text("last").ephemeral()).expect("valid"));
    server.broker.send(Broadcast::everyone(text("end"))).await.expect("answered").expect("committed");
    server.broker.do_send(Drain);
    for client in &mut clients {
        let mut all = Vec::new();
        while let Some(event) = client.event().await {
            all.push(event.data().to_owned());
        }
        let closing = r#"{"reason":"draining"}"#;
        all.retain(|data| data != "last");
        assert_eq!(all, ["0", "1", "2", "end", closing]);
    }
}

/// Even a client that reads nothing for itself is not held for ever: it is told why, should it ever read again.
#[actix_web::test]
async fn a_client_that_takes_nothing_is_ended() {
    let heartbeat = Duration::from_millis(200);
    let server = serve(builder().heartbeat(heartbeat).stall_timeout(heartbeat * 3));
    let mut stuck = server.live("channel=a").await;
    for _ in 0..400 {
        let stored = Broadcast::channel("a", text("x".repeat(16 * 1024))).expect("valid");
        server.broker.send(stored).await.expect("answered").expect("committed");
    }
    server.until(Duration::from_secs(3), |stats| stats.clients == 0).await;
    let mut last = None;
    while let Some(event) = stuck.event().await {
        last = Some(event);
    }
    assert_eq!(last.expect("last words").data(), r#"{"reason":"slow"}"#);
}

/// A large event for one session arrives, whatever the bound of what waits for a client alone.
#[actix_web::test]
async fn a_large_private_event_arrives() {
    let server = serve(builder());
    let mut client = server.live("").await;
    let session: SessionId = client.head.header("fanfare-session").expect("named").parse().expect("a ULID");
    let large = text("x".repeat(256 * 1024));
    server.broker.do_send(Broadcast::sessions([session], large.clone().ephemeral()));
    server.broker.do_send(Broadcast::sessions([session], large));
    for _ in 0..2 {
        assert_eq!(client.data().await.len(), 256 * 1024);
    }
}

/// Clients that ask for much and read nothing hold a page each, and not all there is.
#[actix_web::test]
async fn a_replay_is_not_held_for_those_who_do_not_read() {
    let server = serve(builder());
    for _ in 0..100 {
        server
            .broker
            .send(Broadcast::channel("a", text("x".repeat(128 * 1024))).expect("valid"))
            .await
            .expect("answered")
            .expect("committed");
    }
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(server.live("channel=a&from=earliest").await);
    }
    let resident = || -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
    };
    let before = resident();
    let _idle: Vec<_> =
        futures_util::future::join_all((0..100).map(|_| server.live("channel=a&from=earliest"))).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 * 1024 * 1024, "{grown} bytes for 100 clients with 13 MB each to come");
    for reader in &mut readers {
        for _ in 0..100 {
            assert_eq!(reader.data().await.len(), 128 * 1024);
        }
    }
}

/// P9: a stream ends when the grant that it was opened with does.
#[actix_web::test]
async fn a_stream_ends_with_its_grant() {
    let config = HttpConfig::default().authorize(|_| async {
        let soon = std::time::SystemTime::now() + Duration::from_millis(300);
        Ok(Grant::new(SessionId::mint()).expires(soon))
    });
    let server = serve_with(builder(), config);
    let mut client = server.live("").await;
    let closing = client.event().await.expect("last words");
    assert_eq!(closing.data(), r#"{"reason":"expired_token"}"#);
    assert_eq!(client.block().await, None);
}

/// P10: publishing when nobody ever connected is fine.
#[actix_web::test]
async fn publishing_to_nobody_is_no_crash() {
    let server = serve(builder());
    server.broker.do_send(Broadcast::everyone(text("x")));
    let receipt = server.broker.send(Broadcast::sessions([SessionId::mint()], text("y"))).await;
    assert_eq!(receipt.expect("answered").expect("committed").seq, Some(nth(2)));
    let nobody = server.broker.send(Broadcast::sessions([], text("z"))).await;
    assert!(nobody.expect("answered").is_ok());
    assert_eq!(server.publish(r#"{"channel":"a"}"#).await.status(), 200);
}

/// P11: tabs of one session that register at the same moment all receive.
#[actix_web::test]
async fn first_registrations_at_once_all_count() {
    let server = serve(builder().max_connections_per_session(50));
    let cookie = Cookie::new("fanfare_session", "s".repeat(32)).to_string();
    let open = (0..50).map(|_| server.live_as(&cookie, "channel=a"));
    let mut tabs: Vec<SseClient> = futures_util::future::join_all(open).await;
    let session: SessionId = tabs[0].head.header("fanfare-session").expect("named").parse().expect("a ULID");
    server.broker.do_send(Broadcast::sessions([session], text("hello")));
    for tab in &mut tabs {
        assert_eq!(tab.data().await, "hello");
    }
    let members =
        server.broker.send(Presence { channel: "a".try_into().expect("valid") }).await.expect("answered");
    assert_eq!((members.clients, members.sessions), (50, 1));
}
