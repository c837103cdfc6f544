//! How many may be connected, and how fast they may come and publish. What is temporary is said in a stream that ends, since
//! an `EventSource` gives up on any status but 200; to everybody else by a status and `Retry-After`.

mod support;

use std::time::{Duration, Instant};

use fanfare::http::{HttpConfig, Jwt, JwtKey};
use fanfare::{Broadcast, Broker, Event};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::bad_log::UnansweringLog;
use support::hub::Hub;
use support::sse::SseClient;
use support::token::{SECRET, hs256, now};
use support::ws::WsClient;
use support::{TestServer, http, serve, serve_with};

const SECOND: Duration = Duration::from_secs(1);

/// Whether a stream was let in; if not, what it was told must be in order, and the time to come back is returned.
async fn told_to_come_back(client: &mut SseClient) -> Option<u64> {
    assert_eq!(client.head.status, 200);
    assert_eq!(client.head.header("content-type"), Some("text/event-stream"));
    let first = client.block().await.expect("a first block");
    let retry = first.retry.expect("a retry");
    let next = client.block().await.expect("a second block");
    if next.is("$welcome") {
        return None;
    }
    assert!((5_000..=30_000).contains(&retry), "{retry}");
    assert_eq!(next.text, "event: $closing\ndata: {\"reason\":\"limit\"}");
    assert_eq!(client.block().await, None);
    Some(retry)
}

/// What those who can read a status are told.
async fn refused(server: &TestServer, cookie: &str, status: u16) {
    let headers = [("cookie", cookie)];
    let strict = http::request(server.addr, "GET", "/rt/events?strict=1", &headers, "").await;
    let socket = WsClient::open(server.addr, "/rt/ws", &headers).await;
    strict.problem();
    for head in [&strict.head, &socket.head] {
        assert_eq!(head.status, status, "{head:?}");
        let seconds: u64 = head.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
        assert!((5..=30).contains(&seconds), "{seconds}");
    }
}

#[actix_web::test]
async fn a_session_has_so_many_clients() {
    let server = serve(Broker::builder().max_connections_per_session(3));
    let first = server.live("channel=a").await;
    let cookie = first.head.cookie().expect("a cookie");
    let headers = [("cookie", cookie.as_str())];
    let second = server.live_as(&cookie, "channel=b").await;
    let (socket, _) = WsClient::live_as(server.addr, &headers).await;
    let mut fourth = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
    assert!(told_to_come_back(&mut fourth).await.is_some());
    refused(&server, &cookie, 429).await;
    server.live("channel=a").await; // another session

    // A place that was left, by either transport, is free.
    for left in [Box::new(socket) as Box<dyn std::any::Any>, Box::new(second), Box::new(first)] {
        drop(left);
        let start = Instant::now();
        loop {
            let mut again = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
            if told_to_come_back(&mut again).await.is_none() {
                std::mem::forget(again); // it stays
                break;
            }
            assert!(start.elapsed() < 2 * SECOND, "the place is not free");
        }
        let mut beyond = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
        assert!(told_to_come_back(&mut beyond).await.is_some(), "and only one");
    }
}

#[actix_web::test]
async fn a_server_has_so_many_clients_and_an_address_too() {
    for (builder, status) in
        [(Broker::builder().max_connections(2), 503), (Broker::builder().max_connections_per_address(2), 429)]
    {
        let server = serve(builder);
        let _one = server.live("channel=a").await;
        let _two = WsClient::live(server.addr).await;
        let mut third = server.open("channel=a").await;
        assert!(told_to_come_back(&mut third).await.is_some());
        refused(&server, "", status).await;
        // Who only asks or publishes is no connection.
        assert_eq!(server.publish(r#"{"channel":"a"}"#).await.status(), 200);
        assert_eq!(http::get(server.addr, "/rt/history?channel=a").await.status(), 200);
    }
}

/// A header that anybody can write decides nothing unless proxies are trusted.
#[actix_web::test]
async fn an_address_is_believed_only_from_a_trusted_proxy() {
    for (proxies, is_let_in) in [(0, false), (1, true)] {
        let builder = Broker::builder().max_connections_per_address(1);
        let server = serve_with(builder, HttpConfig::default().trusted_proxies(proxies));
        let mut clients = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2"] {
            let headers = [("x-forwarded-for", address)];
            clients.push(SseClient::open(server.addr, "/rt/events?channel=a", &headers).await);
        }
        assert!(told_to_come_back(&mut clients[0]).await.is_none());
        assert_eq!(told_to_come_back(&mut clients[1]).await.is_none(), is_let_in, "{proxies}");
        let headers = [("x-forwarded-for", "10.0.0.9, 10.0.0.1")];
        let mut same = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
        assert!(told_to_come_back(&mut same).await.is_some(), "{proxies}");
    }
}

/// Exactly as many as may are let in, however they come at the same time on several threads, and those that are not come
/// back spread.
#[actix_web::test]
async fn a_limit_cannot_be_outrun() {
    const MAX: usize = 50;
    let server = serve(Broker::builder().max_connections(MAX));
    for _ in 0..3 {
        let mut clients = join_all((0..4 * MAX).map(|_| server.open("channel=a"))).await;
        let told = join_all(clients.iter_mut().map(told_to_come_back)).await;
        let mut retries: Vec<_> = told.into_iter().flatten().collect();
        assert_eq!(retries.len(), 3 * MAX);
        assert_eq!(server.stats().await.clients, MAX);
        retries.sort_unstable();
        retries.dedup();
        assert!(retries.len() > 2 * MAX, "they come back together: {retries:?}");
        drop(clients);
        server.until(2 * SECOND, |stats| stats.clients == 0).await;
    }
}

/// Whoever goes while they are being let in takes no place with them.
#[actix_web::test]
async fn no_place_is_lost_with_those_who_leave_at_the_door() {
    use tokio::io::AsyncWriteExt;

    let server = serve(Broker::builder().max_connections(20));
    for n in 0..300 {
        let mut socket = tokio::net::TcpStream::connect(server.addr).await.expect("connected");
        let path = if n % 3 == 0 {
            "/rt/events?strict=1&last_event_id=xxxxxx.yyyyyy.1"
        } else {
            "/rt/events?channel=a"
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr);
        socket.write_all(request.as_bytes()).await.expect("written");
    }
    server.until(2 * SECOND, |stats| stats.clients == 0).await;
    let start = Instant::now();
    loop {
        let mut clients = join_all((0..20).map(|_| server.open("channel=a"))).await;
        let told = join_all(clients.iter_mut().map(told_to_come_back)).await;
        if told.iter().all(Option::is_none) {
            break;
        }
        assert!(start.elapsed() < 5 * SECOND, "places were lost: {told:?}");
    }
}

#[actix_web::test]
async fn clients_come_only_so_fast() {
    const RATE: u32 = 20;
    let server = serve(Broker::builder().connect_rate(RATE));
    let start = Instant::now();
    let mut clients = join_all((0..5 * RATE).map(|_| server.open("channel=a"))).await;
    let told = join_all(clients.iter_mut().map(told_to_come_back)).await;
    let most = f64::from(RATE) * (1.0 + start.elapsed().as_secs_f64());
    let let_in = told.iter().filter(|told| told.is_none()).count();
    assert!(let_in >= RATE as usize && let_in as f64 <= most, "{let_in} of at most {most}");
    // There is room for one more every 50 ms, so not all of these are refused.
    let strict = join_all((0..5 * RATE).map(|_| server.open("channel=a&strict=1"))).await;
    let sockets = join_all((0..5 * RATE).map(|_| WsClient::open(server.addr, "/rt/ws", &[]))).await;
    let strict: Vec<_> = strict.iter().map(|client| &client.head).filter(|head| head.status != 200).collect();
    let sockets: Vec<_> =
        sockets.iter().map(|client| &client.head).filter(|head| head.status != 101).collect();
    for refused in [strict, sockets] {
        assert!(!refused.is_empty());
        for head in refused {
            assert_eq!(head.status, 503);
            let seconds: u64 = head.header("retry-after").expect("a time").parse().expect("seconds");
            assert!((5..=30).contains(&seconds), "{seconds}");
        }
    }
}

fn publisher(name: &str) -> String {
    let fanfare = json!({"publish": ["**"], "subscribe": ["**"]});
    format!("Bearer {}", hs256(&json!({"sub": name, "exp": now() + 60.0, "fanfare": fanfare})))
}

async fn publish_as(server: &TestServer, bearer: &str, body: &str) -> http::Answer {
    let headers = [("authorization", bearer), ("content-type", "application/json")];
    http::request(server.addr, "POST", "/rt/publish", &headers, body).await
}

/// Each publisher has a rate of its own; what is beyond is refused as a whole, and told when to try again. Services in the
/// process have none.
#[actix_web::test]
async fn a_publisher_publishes_only_so_fast() {
    let config = HttpConfig::default().jwt(Jwt::new([JwtKey::hs256(SECRET).expect("valid")]));
    let server = serve_with(Broker::builder().publish_rate(5), config);
    let (ada, bob) = (publisher("ada"), publisher("bob"));
    let batch = |count: usize| {
        let events: Vec<Value> = (0..count).map(|n| json!({"channel": "a", "data": n})).collect();
        Value::from(events).to_string()
    };
    // Larger than the rate: taken once, and paid for.
    assert_eq!(publish_as(&server, &ada, &batch(20)).await.status(), 200);
    let refused = publish_as(&server, &ada, &batch(1)).await;
    assert_eq!(refused.status(), 429);
    refused.problem();
    let seconds: u64 =
        refused.head.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((3..=5).contains(&seconds), "{seconds}");
    assert_eq!(publish_as(&server, &bob, &batch(4)).await.status(), 200);

    let (mut socket, _) = WsClient::live_as(server.addr, &[("authorization", &bob)]).await;
    let publish = json!({"op": "publish", "ref": 1, "channel": "a", "data": "x"});
    assert_eq!(socket.ask(publish.clone()).await["op"], "published");
    let error = socket.ask(publish).await;
    assert_eq!((&error["op"], &error["status"]), (&json!("error"), &json!(429)), "{error}");
    for n in 0..50 {
        let event = Event::text("message", n.to_string()).expect("valid");
        server
            .broker
            .send(Broadcast::channel("a", event).expect("valid"))
            .await
            .expect("answered")
            .expect("taken");
    }
    // Nothing of what was refused is there, and all of the rest.
    assert_eq!(server.stats().await.published, 20 + 4 + 1 + 50);
    let start = Instant::now();
    while publish_as(&server, &ada, &batch(1)).await.status() != 200 {
        assert!(start.elapsed().as_secs() <= seconds, "not when it was told");
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(start.elapsed() > 2 * SECOND, "the rate does not hold");
}

/// A connection ends before it is too old, each at a moment of its own, and the next goes on where it was.
#[actix_web::test]
async fn no_connection_grows_older_than_it_may() {
    let age = 2 * SECOND;
    let server = serve(Broker::builder().max_connection_age(age));
    let mut socket = WsClient::live(server.addr).await.0;
    let mut ages = Vec::new();
    let clients = join_all((0..30).map(|_| async {
        let start = Instant::now();
        (server.live("channel=a").await, start)
    }));
    let lives = clients.await.into_iter().map(|(mut client, start)| async move {
        let mut last_id = None;
        loop {
            let block = client.block().await.expect("last words");
            last_id = block.id.clone().or(last_id);
            if block.is("$closing") {
                assert_eq!(block.data(), r#"{"reason":"too_old"}"#);
                assert_eq!(client.block().await, None);
                return (start.elapsed(), last_id);
            }
        }
    });
    server.publish(r#"{"channel":"a","data":"seen"}"#).await;
    let ended = join_all(lives).await;
    server.publish(r#"{"channel":"a","data":"missed"}"#).await;
    for (age_at_end, last_id) in ended {
        assert!((age * 8 / 10..age + SECOND).contains(&age_at_end), "{age_at_end:?}");
        ages.push(age_at_end.as_millis() / 20);
        let cursor = last_id.expect("a cursor");
        let mut next = server.live(&format!("channel=a&last_event_id={cursor}")).await;
        assert_eq!(next.data().await, "missed");
    }
    ages.sort_unstable();
    ages.dedup();
    assert!(ages.len() > 5, "they all went together: {ages:?}");
    let closing = socket.json().await;
    assert_eq!((&closing["op"], &closing["reason"]), (&json!("closing"), &json!("too_old")));
    assert_eq!(socket.closed().await.0, 1012);
}

/// So many read the history at the same time and so many wait; whoever has gone makes room.
#[actix_web::test]
async fn reads_of_the_history_are_bounded() {
    const AT_ONCE: usize = 64;
    let server = serve(Broker::builder().log(UnansweringLog));
    let ask = async || {
        let request = format!("GET /rt/history?channel=a HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr);
        http::send_head(server.addr, &request).await
    };
    let mut asked = join_all((0..AT_ONCE + 16).map(|_| ask())).await;
    let answers = asked.iter_mut().map(|socket| tokio::time::timeout(SECOND, http::read_head(socket)));
    let answers: Vec<_> = join_all(answers).await.into_iter().flatten().map(|(head, _)| head).collect();
    assert_eq!(answers.len(), 16, "the others are read or wait");
    for head in &answers {
        assert_eq!(head.status, 503);
        let seconds: u64 = head.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=5).contains(&seconds), "{seconds}");
    }
    drop(asked);
    let start = Instant::now();
    while let Ok((head, _)) = tokio::time::timeout(SECOND / 5, http::read_head(&mut ask().await)).await {
        assert_eq!(head.status, 503);
        assert!(start.elapsed() < 5 * SECOND, "the places are lost");
    }
}

#[actix_web::test]
async fn an_age_that_cannot_be_is_refused() {
    for age in [Duration::from_millis(1), Duration::MAX] {
        let refused = Broker::builder().max_connection_age(age).start().expect_err("out of range");
        assert!(refused.to_string().contains("max_connection_age"), "{refused}");
    }
    Broker::builder().max_connection_age(Duration::ZERO).start().expect("any age");
}

/// The program's settings arrive, by flag and by environment, and are in its help.
#[actix_web::test]
async fn the_hub_has_the_limits_of_its_settings() {
    let hub = Hub::start(&["--max-connections", "1", "--publish-rate", "1"]);
    let _first = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    let mut second = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    assert!(told_to_come_back(&mut second).await.is_some());
    assert_eq!(hub.publish(r#"{"channel":"a"}"#).await.status(), 200);
    assert_eq!(hub.publish(r#"{"channel":"a"}"#).await.status(), 429);

    let help = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare")).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.expect("runs").stdout).expect("text");
    for flag in [
        "max-connections",
        "max-connections-per-session",
        "max-connections-per-address",
        "max-connection-age",
        "connect-rate",
        "publish-rate",
        "trusted-proxies",
    ] {
        let variable = format!("FANFARE_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("--{flag} ")) && help.contains(&variable), "{flag}: {help}");
    }
    for default in ["[default: 100000]", "[default: 32]", "[default: 0s]"] {
        assert!(help.contains(default), "{default}: {help}");
    }
}
