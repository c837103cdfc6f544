//! What can be seen of a broker from outside: that its numbers move exactly with what was done, that they do not grow
//! with channels, and that it says of each client how it is and why it ended.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fanfare::http::{AuthError, Grant, HttpConfig};
use fanfare::{
    Batch, Broadcast, CloseReason, CloseSession, Delivery, Drain, Event, MemoryLog, Retention, Selector,
    SessionId, SqliteLog, SubscribeOptions, Subscription, Survey, subscribe, subscribe_with,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::order::{builder, nth, ordered};
use support::prometheus::Metrics;
use support::sse::SseClient;
use support::ws::WsClient;
use support::{TestServer, http, serve, serve_with};

/// The numbers of a broker whose log has opened: that it has would count as a move.
async fn metrics(server: &TestServer) -> Metrics {
    server.until(Duration::from_secs(10), |stats| stats.ready).await;
    Metrics::read(&server.broker.send(Survey).await.expect("answered").to_prometheus())
}

fn moves<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.into_iter().map(|(key, by)| (format!("fanfare_{key}"), by)).collect()
}

/// Waits until what has moved is as expected: what a client leaves behind is noticed a little later.
async fn until_moved<const N: usize>(server: &TestServer, before: &Metrics, expected: [(&str, f64); N]) {
    let (start, expected) = (Instant::now(), moves(expected));
    loop {
        let moved = metrics(server).await.moved_since(before);
        if moved == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "moved: {moved:#?}, expected: {expected:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(channel: &str, data: &str) -> Broadcast {
    Broadcast::channel(channel, Event::text("message", data).expect("valid")).expect("valid")
}

async fn publish(server: &TestServer, event: Broadcast) {
    server.broker.send(event).await.expect("answered").expect("committed");
}

/// The names, kinds and labels that dashboards are built on.
#[actix_web::test]
async fn names_and_kinds_are_as_promised() {
    let metrics = metrics(&serve(builder())).await;
    for (name, kind) in [
        ("connections", "gauge"),
        ("sessions", "gauge"),
        ("channels", "gauge"),
        ("published_total", "counter"),
        ("delivered_total", "counter"),
        ("dropped_total", "counter"),
        ("closed_total", "counter"),
        ("gaps_total", "counter"),
        ("replayed_total", "counter"),
        ("inflight", "gauge"),
        ("log_head", "gauge"),
        ("commit_seconds", "histogram"),
        ("fanout_seconds", "histogram"),
        ("delivery_seconds", "histogram"),
    ] {
        assert_eq!(metrics.kinds.get(&format!("fanfare_{name}")).map(String::as_str), Some(kind), "{name}");
    }
    for name in ["connections", "delivered_total"] {
        for transport in ["sse", "ws", "stream"] {
            assert_eq!(metrics.get(&format!("fanfare_{name}{{transport=\"{transport}\"}}")), 0.0);
        }
    }
    for (name, reasons) in [
        (
            "dropped_total",
            &["overloaded", "invalid", "draining", "revoked", "too_fast", "log_failed", "lag"][..],
        ),
        (
            "closed_total",
            &["draining", "slow", "unavailable", "limit", "expired_token", "revoked", "too_old", "client"],
        ),
        ("gaps_total", &["expired", "other_log", "lost_term", "ahead", "malformed"]),
    ] {
        for reason in reasons {
            assert_eq!(metrics.get(&format!("fanfare_{name}{{reason=\"{reason}\"}}")), 0.0);
        }
    }
}

/// Who is connected and what they were given is counted by their transports, and nothing else moves.
#[actix_web::test]
async fn what_is_delivered_is_counted_by_transport() {
    let server = serve(builder());
    let before = metrics(&server).await;
    let mut raw = server.live("channel=a&channel=b").await;
    let mut envelope = server.live("channel=*&format=envelope").await;
    let (mut socket, _) = WsClient::live(server.addr).await;
    socket.subscribe(&["a"], None).await;
    let a = Subscription::to("a").expect("valid");
    let mut stream = subscribe(&server.broker, a).await.expect("a stream");
    until_moved(
        &server,
        &before,
        [
            ("connections{transport=\"sse\"}", 2.0),
            ("connections{transport=\"ws\"}", 1.0),
            ("connections{transport=\"stream\"}", 1.0),
            ("sessions", 4.0),
            ("channels", 2.0),
        ],
    )
    .await;

    let before = metrics(&server).await;
    for data in ["1", "2", "3"] {
        publish(&server, text("a", data)).await;
    }
    publish(&server, text("b", "4")).await;
    publish(&server, text("nobody/follows", "5")).await;
    let ephemeral = Event::text("message", "6").expect("valid").ephemeral();
    publish(&server, Broadcast::everyone(ephemeral)).await;
    for data in ["1", "2", "3", "4", "6"] {
        assert_eq!(raw.data().await, data);
        assert!(envelope.event().await.is_some());
    }
    for _ in 0..4 {
        socket.event().await;
        assert!(matches!(stream.next().await, Some(Delivery::Event(_))));
    }
    let expected = [
        ("published_total", 6.0),
        ("log_head", nth(5) as f64),
        ("delivered_total{transport=\"sse\"}", 10.0),
        ("delivered_total{transport=\"ws\"}", 4.0),
        ("delivered_total{transport=\"stream\"}", 4.0),
    ];
    until_moved(&server, &before, expected).await;
    let timed = metrics(&server).await;
    // Each was published for itself; the ephemeral one was not committed.
    assert_eq!(timed.get("fanfare_commit_seconds_count"), 5.0);
    let pieces = timed.get("fanfare_delivery_seconds_count");
    assert!((4.0..=18.0).contains(&pieces), "{pieces}");
    assert!(timed.get("fanfare_fanout_seconds_count") >= 5.0);

    let before = metrics(&server).await;
    drop((raw, envelope, socket, stream));
    until_moved(
        &server,
        &before,
        [
            ("connections{transport=\"sse\"}", -2.0),
            ("connections{transport=\"ws\"}", -1.0),
            ("connections{transport=\"stream\"}", -1.0),
            ("sessions", -4.0),
            ("channels", -2.0),
            ("closed_total{reason=\"client\"}", 4.0),
        ],
    )
    .await;
}

/// What comes from the past is counted as delivered and as replayed, from the ring and from the log.
#[actix_web::test]
async fn what_is_replayed_is_counted() {
    for ring in [1000, 1] {
        let server = serve(builder().ring(ring, 1 << 20));
        for data in ["1", "2", "3"] {
            publish(&server, text("a", data)).await;
        }
        let before = metrics(&server).await;
        let mut client = server.live("channel=a&from=2").await;
        assert_eq!([client.data().await, client.data().await], ["2", "3"]);
        let (mut socket, _) = WsClient::live(server.addr).await;
        socket.ask(json!({"op": "subscribe", "ref": 1, "channels": ["a"], "from": "earliest"})).await;
        for data in ["1", "2", "3"] {
            assert_eq!(socket.event().await["data"], data);
        }
        let earliest = SubscribeOptions::default().earliest();
        let a = Subscription::to("a").expect("valid");
        let mut stream = subscribe_with(&server.broker, a, earliest).await.expect("a stream");
        for _ in 0..3 {
            assert!(matches!(stream.next().await, Some(Delivery::Event(_))));
        }
        let expected = [
            ("connections{transport=\"sse\"}", 1.0),
            ("connections{transport=\"ws\"}", 1.0),
            ("connections{transport=\"stream\"}", 1.0),
            ("sessions", 3.0),
            ("channels", 1.0),
            ("replayed_total", 8.0),
            ("delivered_total{transport=\"sse\"}", 2.0),
            ("delivered_total{transport=\"ws\"}", 3.0),
            ("delivered_total{transport=\"stream\"}", 3.0),
        ];
        until_moved(&server, &before, expected).await;
    }
}

/// Every word of something missing is counted by its reason.
#[actix_web::test]
async fn gaps_are_counted_by_reason() {
    let server =
        serve(builder().log(ordered(MemoryLog::bounded(2, 1 << 20).expect("valid"))).ring(1, 1 << 20));
    let receipt = server.broker.send(text("a", "0")).await.expect("answered").expect("committed");
    let cursor = receipt.cursor.expect("a cursor").to_string();
    for data in ["1", "2", "3", "4"] {
        publish(&server, text("a", data)).await;
    }
    let before = metrics(&server).await;
    let mut clients = Vec::new();
    let ahead = cursor
        .strip_suffix(&format!(".{}", nth(1)))
        .map(|order| format!("{order}.{}", nth(999)))
        .expect("the first event's");
    for last in [cursor.as_str(), "nonsense", "other1.abcdef.1", &ahead] {
        let mut client = server.open(&format!("channel=a&last_event_id={last}")).await;
        client.welcome().await;
        let notice = client.event().await.expect("a notice");
        assert!(notice.is("$gap") || notice.is("$reset"), "{notice:?}");
        clients.push(client);
    }
    let moved = metrics(&server).await.moved_since(&before);
    let gaps: BTreeMap<_, _> = moved.into_iter().filter(|(key, _)| key.contains("gaps")).collect();
    let reasons = [
        ("gaps_total{reason=\"expired\"}", 1.0),
        ("gaps_total{reason=\"malformed\"}", 1.0),
        ("gaps_total{reason=\"other_log\"}", 1.0),
        ("gaps_total{reason=\"ahead\"}", 1.0),
    ];
    assert_eq!(gaps, moves(reasons));
}

/// What was not taken, and what a slow subscriber has missed, is counted by its reason.
#[actix_web::test]
async fn what_is_dropped_is_counted_by_reason() {
    let server = serve(builder());
    let two = SubscribeOptions::default().queue(2).expect("valid");
    let a = Subscription::to("a").expect("valid");
    let mut slow = subscribe_with(&server.broker, a, two).await.expect("a stream");
    let before = metrics(&server).await;
    for data in ["1", "2", "3", "4", "5"] {
        let ephemeral = Event::text("message", data).expect("valid").ephemeral();
        publish(&server, Broadcast::channel("a", ephemeral).expect("valid")).await;
    }
    for _ in 0..2 {
        assert!(matches!(slow.next().await, Some(Delivery::Event(_))));
    }
    assert!(matches!(slow.next().await, Some(Delivery::Lag { dropped: 3 })));
    let expected = [
        ("published_total", 5.0),
        ("delivered_total{transport=\"stream\"}", 2.0),
        ("dropped_total{reason=\"lag\"}", 3.0),
    ];
    until_moved(&server, &before, expected).await;

    let before = metrics(&server).await;
    server.broker.send(Drain).await.expect("drained");
    assert!(server.broker.send(text("a", "late")).await.expect("answered").is_err());
    let expected = [
        ("dropped_total{reason=\"draining\"}", 1.0),
        ("closed_total{reason=\"draining\"}", 1.0),
        ("connections{transport=\"stream\"}", -1.0),
        ("sessions", -1.0),
        ("channels", -1.0),
    ];
    until_moved(&server, &before, expected).await;

    let broken = serve(builder().log(support::bad_log::BadLog { fails: true }));
    let before = metrics(&broken).await;
    assert!(broken.broker.send(text("a", "x")).await.expect("answered").is_err());
    until_moved(&broken, &before, [("dropped_total{reason=\"log_failed\"}", 1.0)]).await;

    let stuck = serve(builder().log(support::bad_log::BadLog { fails: false }).in_flight(2, 1 << 20));
    let before = metrics(&stuck).await;
    for _ in 0..5 {
        stuck.broker.do_send(text("a", "x"));
    }
    until_moved(&stuck, &before, [("dropped_total{reason=\"overloaded\"}", 3.0), ("inflight", 2.0)]).await;
}

fn by_header() -> HttpConfig {
    HttpConfig::default().authorize(|request| async move {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let Some(user) = header("user") else {
            return Err(AuthError::Unauthenticated("say who you are".into()));
        };
        let all = Selector::new("**").map_err(AuthError::Malformed)?;
        let grant =
            Grant::new(SessionId::derived_from(user.as_bytes())).subscribe([all.clone()]).publish([all]);
        let expires = header("expires-in").and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let grant = match expires {
            Some(left) => grant.expires(std::time::SystemTime::now() + left),
            None => grant,
        };
        Ok(if user == "admin" { grant.admin() } else { grant })
    })
}

/// Who is turned away at the door, publishes too fast, or goes on with what was revoked, is counted by the reason.
#[actix_web::test]
async fn who_is_turned_away_is_counted_by_reason() {
    let server = serve_with(builder().max_connections(1).publish_rate(1), by_header());
    let (mut ada, id) = open_as(&server, "ada", "channel=a").await;
    ada.welcome().await;
    let before = metrics(&server).await;
    open_as(&server, "bob", "channel=a").await;
    until_moved(&server, &before, [("closed_total{reason=\"limit\"}", 1.0)]).await;

    let event = r#"{"channel":"b","data":1}"#;
    let headers = [("user", "ada"), ("content-type", "application/json")];
    let say = || http::request(server.addr, "POST", "/rt/publish", &headers, event);
    assert_eq!(say().await.status(), 200);
    let before = metrics(&server).await;
    assert_eq!(say().await.status(), 429);
    until_moved(&server, &before, [("dropped_total{reason=\"too_fast\"}", 1.0)]).await;

    let before = metrics(&server).await;
    let revoke = CloseSession { session: SessionId::derived_from(b"ada"), reason: CloseReason::Revoked };
    assert_eq!(server.broker.send(revoke).await.expect("answered"), 1);
    until_client(&server, &id, |view| view["closed"]["reason"] == "revoked").await;
    assert_eq!(say().await.status(), 401);
    let expected = [
        ("closed_total{reason=\"revoked\"}", 1.0),
        ("dropped_total{reason=\"revoked\"}", 1.0),
        ("connections{transport=\"sse\"}", -1.0),
        ("sessions", -1.0),
        ("channels", -1.0),
    ];
    until_moved(&server, &before, expected).await;
}

async fn look(server: &TestServer, path: &str) -> http::Answer {
    http::request(server.addr, "GET", path, &[("user", "admin")], "").await
}

async fn client(server: &TestServer, id: &str) -> Value {
    let answer = look(server, &format!("/rt/clients/{id}")).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.json()
}

/// Waits until a client is as it should be.
async fn until_client(server: &TestServer, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let answer = look(server, &format!("/rt/clients/{id}")).await;
        if answer.status() == 200 && wanted(&answer.json()) {
            return answer.json();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn open_as(server: &TestServer, user: &str, query: &str) -> (SseClient, String) {
    let client = SseClient::open(server.addr, &format!("/rt/events?{query}"), &[("user", user)]).await;
    let id = client.head.header("fanfare-client").expect("an id").to_owned();
    (client, id)
}

/// A client is told of with every particular, while it is live, catches up, and after its end with the reason.
#[actix_web::test]
async fn a_client_is_told_of_from_its_begin_to_its_end() {
    let server = serve_with(builder().ring(1, 1 << 20), by_header());
    publish(&server, text("b/1", "x")).await;
    let (mut ada, id) = open_as(&server, "ada", "channel=a&channel=b/*").await;
    let session = ada.welcome().await.json()["session"].clone();
    let view = until_client(&server, &id, |view| view["state"] == "live").await;
    assert_eq!(view["client"], id);
    assert_eq!((&view["session"], &view["transport"]), (&session, &json!("sse")));
    assert_eq!(view["channels"], json!(["a", "b/*"]));
    assert!(view["connected_at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24), "{view}");
    assert!(
        view["cursor"].as_str().is_some_and(|cursor| cursor.ends_with(&format!(".{}", nth(1)))),
        "{view}"
    );
    assert_eq!((&view["queued"], &view["lag"], &view["closed"]), (&json!(0), &json!(0), &Value::Null));
    let mut keys: Vec<_> = view.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let all = [
        "channels",
        "client",
        "closed",
        "connected_at",
        "cursor",
        "lag",
        "queued",
        "session",
        "state",
        "transport",
    ];
    assert_eq!(keys, all);

    // One that does not read a large log catches up for as long as it likes.
    let large = "x".repeat(60_000);
    for _ in 0..200 {
        publish(&server, text("large", &large)).await;
    }
    let (slow, slow_id) = open_as(&server, "bob", "channel=large&from=earliest").await;
    let view = until_client(&server, &slow_id, |view| view["lag"].as_u64() > Some(0)).await;
    assert_eq!(view["state"], "catching_up", "{view}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let view = client(&server, &slow_id).await;
    assert_eq!(view["state"], "catching_up", "{view}");
    assert!(view["lag"].as_u64() > Some(50), "what the connection holds is little: {view}");
    assert_eq!(metrics(&server).await.get("fanfare_lagging"), 1.0);

    let (mut expiring, expiring_id) = {
        let headers = [("user", "eve"), ("expires-in", "150")];
        let client = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
        let id = client.head.header("fanfare-client").expect("an id").to_owned();
        (client, id)
    };
    expiring.welcome().await;
    let ended = |reason: &'static str| move |view: &Value| view["closed"]["reason"] == reason;
    until_client(&server, &expiring_id, ended("expired_token")).await;
    let session = session.as_str().and_then(|session| session.parse().ok()).expect("a session");
    let close = CloseSession { session, reason: CloseReason::Revoked };
    assert_eq!(server.broker.send(close).await.expect("answered"), 1);
    let view = until_client(&server, &id, ended("revoked")).await;
    assert_eq!((&view["state"], &view["transport"]), (&json!("closed"), &json!("sse")));
    assert_eq!(view["channels"], json!(["a", "b/*"]));
    assert!(view["closed"]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{view}");
    drop(slow);
    until_client(&server, &slow_id, ended("client")).await;
    assert_eq!(metrics(&server).await.get("fanfare_lagging"), 0.0);
}

/// A socket and a stream in the process are told of as well, by session too.
#[actix_web::test]
async fn sessions_are_told_with_their_clients() {
    let server = serve_with(builder(), by_header());
    let (mut one, first) = open_as(&server, "ada", "channel=a").await;
    let (mut two, second) = open_as(&server, "ada", "channel=b").await;
    one.welcome().await;
    two.welcome().await;
    let (mut socket, welcome) = WsClient::live_as(server.addr, &[("user", "bob")]).await;
    socket.subscribe(&["c/**"], None).await;
    let stream = subscribe(&server.broker, Subscription::to("d").expect("valid")).await.expect("a stream");
    let listed = look(&server, "/rt/sessions").await.json();
    assert_eq!(listed["more"], false);
    let sessions = listed["sessions"].as_array().expect("sessions");
    assert_eq!(sessions.len(), 3);
    let clients = |session: &Value| {
        let all = sessions.iter().find(|listed| listed["session"] == *session).expect("listed");
        all["clients"].as_array().expect("clients").clone()
    };
    let ada = clients(&json!(SessionId::derived_from(b"ada").to_string()));
    let mut ids: Vec<_> = ada.iter().map(|view| view["client"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    let mut expected = [first.as_str(), second.as_str()];
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let bob = clients(&welcome["session"]);
    assert_eq!((&bob[0]["transport"], &bob[0]["channels"]), (&json!("ws"), &json!(["c/**"])));
    let stream_view = sessions.iter().flat_map(|listed| listed["clients"].as_array().expect("clients"));
    let stream_view = stream_view.filter(|view| view["transport"] == "stream").collect::<Vec<_>>();
    assert_eq!((&stream_view[0]["channels"], &stream_view[0]["state"]), (&json!(["d"]), &json!("live")));
    drop(stream);
}

/// The first thousand sessions are listed, and that there are more is said.
#[actix_web::test]
async fn a_thousand_sessions_are_listed() {
    let server = serve_with(builder(), by_header());
    let mut streams = Vec::new();
    for _ in 0..1001 {
        streams
            .push(subscribe(&server.broker, Subscription::to("a").expect("valid")).await.expect("a stream"));
    }
    let listed = look(&server, "/rt/sessions").await.json();
    let sessions = listed["sessions"].as_array().expect("sessions");
    assert_eq!((sessions.len(), &listed["more"]), (1000, &json!(true)));
    assert!(sessions.iter().all(|session| session["clients"].as_array().is_some_and(|all| all.len() == 1)));
}

/// Only admins look into the broker; who is not known is not there.
#[actix_web::test]
async fn only_admins_see_and_nobody_else_is_there() {
    let server = serve_with(builder(), by_header());
    let unknown = format!("/rt/clients/{}", SessionId::mint());
    for path in ["/rt/status", "/rt/sessions", unknown.as_str()] {
        let as_user = http::request(server.addr, "GET", path, &[("user", "ada")], "").await;
        assert_eq!((as_user.status(), as_user.problem()["status"].as_u64()), (403, Some(403)), "{path}");
        assert_eq!(http::get(server.addr, path).await.status(), 401, "{path}");
        assert_eq!(http::request(server.addr, "POST", path, &[("user", "admin")], "").await.status(), 405);
    }
    for path in [&unknown, "/rt/clients/nonsense", "/rt/clients/"] {
        assert_eq!(look(&server, path).await.problem()["status"], 404, "{path}");
    }
}

/// What is only read answers HEAD with the head that GET has, and no body.
#[actix_web::test]
async fn head_is_answered() {
    let server = serve(builder());
    for path in ["/rt/status", "/rt/sessions", "/rt/presence?channel=a", "/rt/history?channel=a"] {
        let get = http::get(server.addr, path).await;
        let head = http::request(server.addr, "HEAD", path, &[], "").await;
        assert_eq!((get.status(), head.status()), (200, 200), "{path}");
        assert_eq!(head.head.header("content-type"), get.head.header("content-type"));
        assert!(head.body.is_empty() && head.head.header("content-length") != Some("0"), "{head:?}");
    }
    assert_eq!(http::request(server.addr, "HEAD", "/rt/events?channel=a", &[], "").await.status(), 405);
}

/// Everything that the status has to tell is there.
#[actix_web::test]
async fn the_status_tells_how_the_broker_stands() {
    let server = serve(builder());
    let mut client = server.live("channel=busy").await;
    for _ in 0..3 {
        publish(&server, text("busy", "x")).await;
        client.data().await;
    }
    let status = http::get(server.addr, "/rt/status").await.json();
    assert_eq!(status["connections"], json!({"sse": 1, "ws": 0, "stream": 0}));
    for (field, value) in [
        ("sessions", 1),
        ("channels", 1),
        ("head", nth(3)),
        ("in_flight", 0),
        ("queue_depth", 0),
        ("lagging", 0),
    ] {
        assert_eq!(status[field], value, "{field}: {status}");
    }
    assert_eq!((&status["ready"], &status["log"]["writable"]), (&json!(true), &json!(true)));
    assert!(status["log"]["name"].as_str().is_some_and(|name| name.len() == 6), "{status}");
    assert!(status["uptime"].is_u64() && status["dropped"]["lag"] == 0 && status["closed"]["slow"] == 0);
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        let status = http::get(server.addr, "/rt/status").await.json();
        if status["busiest"]["channels"] == json!([{"channel": "busy", "events": 3, "error": 0}]) {
            break;
        }
        assert!(Instant::now() < deadline, "{}", status["busiest"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Metrics by channel have filled the memory of other hubs: here, a hundred thousand channels leave nothing behind
/// (a million with `FANFARE_CHANNELS=full`).
#[actix_web::test]
async fn many_channels_do_not_make_the_numbers_larger() {
    let count =
        if std::env::var("FANFARE_CHANNELS").is_ok_and(|form| form == "full") { 1_000_000 } else { 100_000 };
    let server = serve(builder());
    publish(&server, text("warm", "up")).await;
    let survey = || async { server.broker.send(Survey).await.expect("answered") };
    let before = survey().await;
    let (mut start, mut followed) = (0, 0);
    while start < count {
        let to = (start + 4000).min(count);
        let events = (start..to).map(|n| text(&format!("once/{n}"), "x")).collect();
        server.broker.send(Batch::new(events).expect("valid")).await.expect("answered").expect("committed");
        if start % 20_000 == 0 {
            // Some of them are followed for a moment.
            let own = Subscription::to(format!("once/{start}")).expect("valid");
            drop(subscribe(&server.broker, own).await.expect("a stream"));
            followed += 1;
        }
        start = to;
    }
    let started = Instant::now();
    let after = loop {
        let after = survey().await;
        if after.stats.channels == before.stats.channels && after.closed.get("client") == followed {
            break after;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{after:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(after.published_total - before.published_total, count);
    let (text_before, text_after) = (before.to_prometheus(), after.to_prometheus());
    assert_eq!(text_before.lines().count(), text_after.lines().count());
    // Numbers have more digits than they had.
    assert!(
        text_after.len() < text_before.len() + 400,
        "{} and {} bytes",
        text_before.len(),
        text_after.len()
    );
    assert!(!text_after.contains("once"));
    assert_eq!(Metrics::read(&text_after).kinds, Metrics::read(&text_before).kinds);
    assert!(after.busiest.channels.len() <= 10);
}

/// Channels that were used once leave a file about as fast as they came, and it remembers a bounded number of them
/// (300,000 with `FANFARE_CHANNELS=full`).
#[actix_web::test]
async fn channels_that_were_used_once_are_cleaned_up() {
    let is_full = std::env::var("FANFARE_CHANNELS").is_ok_and(|form| form == "full");
    let channels = if is_full { 300_000 } else { 16_000 };
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("once-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("events.db");
    let log = SqliteLog::open(&path).expect("opened");
    let retention = Retention::default().rule("**=limits:max_age=100ms".parse().expect("a rule"));
    let server = serve(fanfare::Broker::builder().retention(retention).log(log));
    let start = Instant::now();
    for first in (0..channels).step_by(4000) {
        let event = |n| Broadcast::channel(format!("once/{n}"), Event::text("message", "x").expect("valid"));
        let batch = (first..first + 4000).map(|n| event(n).expect("valid")).collect();
        let batch = Batch::new(batch).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
    let published = start.elapsed();
    let file = rusqlite::Connection::open(&path).expect("opened");
    let count = |sql: &str| file.query_row(sql, [], |row| row.get::<_, u64>(0)).expect("counted");
    while count("SELECT count(*) FROM (SELECT 1 FROM events LIMIT 1)") > 0 {
        assert!(
            start.elapsed() < published * 10 + Duration::from_secs(10),
            "too slow: published in {published:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{channels} channels: published in {published:?}, gone after {:?}", start.elapsed());
    assert_eq!(count("SELECT count(*) FROM placements"), 0);
    assert!(count("SELECT count(*) FROM channels") < 66_000, "{}", count("SELECT count(*) FROM channels"));
    // Of those that are forgotten it is not known whether they lost something, so it is told.
    let answer = http::get(server.addr, "/rt/history?channel=once/0&after=1").await.json();
    assert_eq!(answer["gap"]["reason"].as_str(), is_full.then_some("expired"), "{answer}");
    let _ = std::fs::remove_dir_all(&folder);
}

/// A request's name comes back, or a new one does.
#[actix_web::test]
async fn a_request_keeps_its_name() {
    let server = serve(builder());
    let named = http::request(server.addr, "GET", "/rt/status", &[("x-request-id", "r-1")], "").await;
    assert_eq!(named.head.header("x-request-id"), Some("r-1"));
    for headers in [&[][..], &[("x-request-id", "not a name")]] {
        let answer = http::request(server.addr, "GET", "/rt/nothing", headers, "").await;
        assert_eq!((answer.status(), answer.head.header("x-request-id").map(str::len)), (404, Some(26)));
    }
}
