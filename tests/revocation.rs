//! A session that was revoked is over: what it has is ended, and what it shows is worth nothing for a day.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::http::{AuthError, Grant, HttpConfig, Jwt, JwtKey, Origin};
use fanfare::{Broker, CloseReason, CloseSession, Drain, Selector, SessionId};
use serde_json::{Value, json};
use support::bad_log::UnopenedLog;
use support::http::{Answer, request};
use support::sse::SseClient;
use support::token::{SECRET, hs256, now};
use support::ws::WsClient;
use support::{TestServer, serve, serve_with};
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

fn jwt() -> HttpConfig {
    HttpConfig::default().jwt(Jwt::new([JwtKey::hs256(SECRET).expect("a valid secret")]))
}

/// A token of a session that may do everything but end others, with more claims.
fn token(session: SessionId, more: Value) -> String {
    let fanfare = json!({"subscribe": ["**"], "publish": ["**"]});
    let mut claims = json!({"sid": session, "exp": now() + 60.0, "fanfare": fanfare});
    let Value::Object(more) = more else { panic!("{more}") };
    claims.as_object_mut().expect("an object").extend(more);
    hs256(&claims)
}

fn admin() -> String {
    token(SessionId::mint(), json!({"fanfare": {"admin": true}}))
}

async fn with_token(server: &TestServer, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    request(server.addr, method, path, &headers, body).await
}

async fn revoke(server: &TestServer, session: SessionId) -> Answer {
    with_token(server, "DELETE", &format!("/rt/sessions/{session}"), &admin(), "").await
}

async fn stream(server: &TestServer, token: &str) -> SseClient {
    let bearer = format!("Bearer {token}");
    SseClient::open(server.addr, "/rt/events?channel=a", &[("authorization", &bearer)]).await
}

async fn socket(server: &TestServer, token: &str) -> WsClient {
    let bearer = format!("Bearer {token}");
    WsClient::open(server.addr, "/rt/ws", &[("authorization", &bearer)]).await
}

/// What each way in answers to a token: a stream, a socket, a publish, the history, presence.
async fn answers(server: &TestServer, token: &str) -> [u16; 5] {
    let event = r#"{"channel":"a","data":1}"#;
    [
        stream(server, token).await.head.status,
        socket(server, token).await.head.status,
        with_token(server, "POST", "/rt/publish", token, event).await.status(),
        with_token(server, "GET", "/rt/history?channel=a", token, "").await.status(),
        with_token(server, "GET", "/rt/presence?channel=a", token, "").await.status(),
    ]
}

const WELCOME: [u16; 5] = [200, 101, 200, 200, 200];
const REFUSED: [u16; 5] = [204, 401, 401, 401, 401];

/// Its streams end within a second, with the reason; those of others go on.
#[actix_web::test]
async fn the_streams_of_a_revoked_session_end() {
    let server = serve_with(Broker::builder(), jwt());
    let session = SessionId::mint();
    let (mut one, mut two) = (stream(&server, &token(session, json!({}))).await, {
        let mut socket = socket(&server, &token(session, json!({}))).await;
        assert_eq!(socket.json().await["op"], "welcome");
        socket
    });
    one.welcome().await;
    let mut other = stream(&server, &token(SessionId::mint(), json!({}))).await;
    other.welcome().await;

    let start = Instant::now();
    assert_eq!(revoke(&server, session).await.status(), 204);
    let retry = one.block().await.expect("a fresh retry");
    assert!(retry.retry.is_some());
    let closing = one.block().await.expect("last words");
    assert_eq!(closing.text, "event: $closing\ndata: {\"reason\":\"revoked\"}");
    assert_eq!(one.block().await, None);
    assert_eq!(two.json().await["reason"], "revoked");
    assert_eq!(two.closed().await, (4001, "revoked".into()));
    assert!(start.elapsed() < SECOND);

    let event = r#"{"channel":"a","data":"still here"}"#;
    let somebody = token(SessionId::mint(), json!({}));
    assert_eq!(with_token(&server, "POST", "/rt/publish", &somebody, event).await.status(), 200);
    assert_eq!(other.data().await, "still here");
}

/// What was issued up to that second is refused everywhere, and what has no `iat`; what is issued later is welcome, and so is
/// everybody else.
#[actix_web::test]
async fn what_a_revoked_session_has_is_refused_and_what_it_gets_later_is_not() {
    let server = serve_with(Broker::builder(), jwt());
    let (session, other) = (SessionId::mint(), SessionId::mint());
    let old = token(session, json!({"iat": now() - 5.0}));
    let undated = token(session, json!({}));
    assert_eq!(answers(&server, &old).await, WELCOME);

    let before = now();
    assert_eq!(revoke(&server, session).await.status(), 204);
    let after = now();
    let of_that_second = token(session, json!({"iat": before.floor()}));
    for refused in [&old, &undated, &of_that_second] {
        assert_eq!(answers(&server, refused).await, REFUSED);
    }
    let answer = with_token(&server, "POST", "/rt/publish", &old, r#"{"channel":"a"}"#).await;
    assert!(answer.head.header("www-authenticate").is_some());
    assert_eq!(answer.problem()["detail"], "the session was ended");
    let bearer = format!("Bearer {old}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(request(server.addr, "GET", "/rt/events?strict=1", &headers, "").await.status(), 204);

    let later = token(session, json!({"iat": after.floor() + 1.0}));
    assert_eq!(answers(&server, &later).await, WELCOME);
    assert_eq!(answers(&server, &token(other, json!({}))).await, WELCOME);
}

/// Whether or not there is a stream: what is shown the first time afterwards is refused all the same.
#[actix_web::test]
async fn a_session_without_a_stream_is_revoked_as_well() {
    let server = serve_with(Broker::builder(), jwt());
    let session = SessionId::mint();
    assert_eq!(revoke(&server, session).await.status(), 204);
    assert_eq!(revoke(&server, session).await.status(), 204, "again");
    assert_eq!(answers(&server, &token(session, json!({"iat": now() - 5.0}))).await, REFUSED);
}

/// A socket that is still open takes no token of before, and publishes nothing.
#[actix_web::test]
async fn a_socket_cannot_go_on_with_a_token_of_before() {
    let server = serve_with(Broker::builder(), jwt());
    let session = SessionId::mint();
    let mut client = socket(&server, &token(session, json!({}))).await;
    client.json().await;
    // Another of the hub's sockets tries with it; the first is closed.
    assert_eq!(revoke(&server, session).await.status(), 204);
    client.send(&json!({"op": "publish", "ref": 1, "channel": "a", "data": "too late"})).await;
    assert_eq!(client.closed().await.0, 4001);
    let somebody = token(SessionId::mint(), json!({}));
    let history = with_token(&server, "GET", "/rt/history?channel=a", &somebody, "").await;
    assert_eq!(history.json()["events"], json!([]));
}

/// A browser without a login is known by its cookie; that is refused, and a browser without one is somebody else.
#[actix_web::test]
async fn the_cookie_of_a_revoked_session_is_refused() {
    let server = serve(Broker::builder());
    let mut first = server.open("channel=a").await;
    let session = first.welcome().await.json()["session"].as_str().expect("a session").to_owned();
    let cookie = first.head.cookie().expect("a cookie");
    let delete = request(server.addr, "DELETE", &format!("/rt/sessions/{session}"), &[], "").await;
    assert_eq!((delete.status(), delete.body.as_str()), (204, ""));
    assert_eq!(first.event().await.expect("last words").data(), r#"{"reason":"revoked"}"#);

    let with_cookie = [("cookie", cookie.as_str())];
    let again = SseClient::open(server.addr, "/rt/events?channel=a", &with_cookie).await;
    assert_eq!(again.head.status, 204);
    for path in ["/rt/history?channel=a", "/rt/presence?channel=a", "/rt/status"] {
        assert_eq!(request(server.addr, "GET", path, &with_cookie, "").await.status(), 401, "{path}");
    }
    let own = format!("http://{}", server.addr);
    let page = [("cookie", cookie.as_str()), ("origin", &own), ("content-type", "application/json")];
    let publish = request(server.addr, "POST", "/rt/publish", &page, r#"{"channel":"a"}"#).await;
    assert_eq!(publish.status(), 401);
    assert_eq!(WsClient::open(server.addr, "/rt/ws", &with_cookie).await.head.status, 401);
    server.live("channel=a").await;
}

/// A stream that was granted before and comes to the broker after is refused like all others: there is no moment in between in
/// which a stream lives on.
#[actix_web::test]
async fn a_stream_that_was_granted_before_and_comes_after_is_refused() {
    let session = SessionId::mint();
    let gate = Arc::new(Semaphore::new(0));
    let (arrived, hook) = (Arc::new(Semaphore::new(0)), gate.clone());
    let told = arrived.clone();
    let config = HttpConfig::default().authorize(move |_| {
        let (hook, told) = (hook.clone(), told.clone());
        async move {
            let all = Selector::new("**").map_err(AuthError::Malformed)?;
            // Good for ever, as the hook sees it.
            let grant =
                Grant::new(session).subscribe([all]).issued_at(std::time::SystemTime::now() + 60 * SECOND);
            told.add_permits(1);
            hook.acquire().await.expect("open").forget();
            Ok(grant)
        }
    });
    let server = serve_with(Broker::builder(), config);
    for (reason, status) in [(CloseReason::Revoked, 204), (CloseReason::ExpiredToken, 200)] {
        let coming = async {
            let mut client = SseClient::open(server.addr, "/rt/events?channel=a", &[]).await;
            let last = if status == 200 { client.event().await } else { None };
            (client.head.status, last.map(|block| block.data().to_owned()))
        };
        let close = async {
            arrived.acquire().await.expect("open").forget();
            let closed = server.broker.send(CloseSession { session, reason }).await.expect("answered");
            assert_eq!(closed, 0, "it has no stream yet");
            gate.add_permits(1);
        };
        let (answer, ()) = tokio::join!(coming, close);
        let last = (status == 200).then(|| r#"{"reason":"expired_token"}"#.to_owned());
        assert_eq!(answer, (status, last));
        assert_eq!(server.stats().await.clients, 0);
    }
    // Asked again, it is granted what holds now.
    gate.add_permits(1);
    server.live("channel=a").await;
}

/// A stream that has its answer and not yet its place, because the log is not open, ends as well.
#[actix_web::test]
async fn a_stream_that_waits_for_the_log_is_revoked() {
    let server = serve_with(Broker::builder().log(UnopenedLog), jwt());
    let (session, other) = (SessionId::mint(), SessionId::mint());
    let mut client = stream(&server, &token(session, json!({}))).await;
    let mut waiting = stream(&server, &token(other, json!({}))).await;
    for client in [&mut client, &mut waiting] {
        assert!(client.block().await.expect("a first block").retry.is_some());
    }
    assert_eq!(revoke(&server, session).await.status(), 204);
    assert_eq!(client.event().await.expect("last words").data(), r#"{"reason":"revoked"}"#);
    server.broker.do_send(Drain);
    assert_eq!(waiting.event().await.expect("last words").data(), r#"{"reason":"draining"}"#);
}

/// Streams that open while their session is revoked again and again: none is left over, whatever came first.
#[actix_web::test]
async fn no_stream_of_a_revoked_session_is_left_over() {
    let server = serve_with(Broker::builder().max_connections_per_session(0), jwt());
    let session = SessionId::mint();
    let token = token(session, json!({"iat": now() + 30.0}));
    let mut ended = 0;
    for _ in 0..20 {
        let opening = (0..10).map(|_| stream(&server, &token));
        let opening = futures_util::future::join_all(opening);
        let close = server.broker.send(CloseSession { session, reason: CloseReason::Revoked });
        let (mut clients, _) = tokio::join!(opening, close);
        // Whoever came after the first may be welcome; the second ends them.
        server.broker.send(CloseSession { session, reason: CloseReason::Revoked }).await.expect("answered");
        for client in &mut clients {
            if client.head.status == 200 {
                let mut last = None;
                while let Some(block) = client.event().await {
                    last = Some(block);
                }
                assert_eq!(last.expect("last words").data(), r#"{"reason":"revoked"}"#);
                ended += 1;
            } else {
                assert_eq!(client.head.status, 204);
            }
        }
        server.until(SECOND, |stats| stats.clients == 0).await;
    }
    assert!(ended > 0, "none was ever let in: nothing was tried");
}

/// Who may: an admin, from a page that may; and what is wrong is named.
#[actix_web::test]
async fn revoking_needs_an_admin_and_an_allowed_page() {
    let origin = Origin::new("https://app.example").expect("valid");
    let server = serve_with(Broker::builder(), jwt().allow_origin(origin));
    let session = SessionId::mint();
    let path = format!("/rt/sessions/{session}");
    assert_eq!(with_token(&server, "DELETE", &path, &token(session, json!({})), "").await.status(), 403);
    assert_eq!(request(server.addr, "DELETE", &path, &[], "").await.status(), 401);
    let (admin, mut statuses) = (admin(), Vec::new());
    for origin in ["https://evil.example", "https://app.example"] {
        let bearer = format!("Bearer {admin}");
        let headers = [("authorization", bearer.as_str()), ("origin", origin)];
        statuses.push(request(server.addr, "DELETE", &path, &headers, "").await.status());
        let cookie = format!("fanfare_token={admin}");
        let headers = [("cookie", cookie.as_str()), ("origin", origin)];
        statuses.push(request(server.addr, "DELETE", &path, &headers, "").await.status());
    }
    assert_eq!(statuses, [403, 403, 204, 204]);
    let by_cookie = [("cookie", &*format!("fanfare_token={admin}"))];
    assert_eq!(request(server.addr, "DELETE", &path, &by_cookie, "").await.status(), 403);
    let bad = with_token(&server, "DELETE", "/rt/sessions/nobody", &admin, "").await;
    assert_eq!((bad.status(), &bad.problem()["field"]), (400, &json!("session")));
    let post = with_token(&server, "POST", &path, &admin, "").await;
    assert_eq!((post.status(), post.head.header("allow")), (405, Some("DELETE")));
    // An admin that was revoked is none.
    let own = token(session, json!({"fanfare": {"admin": true}}));
    assert_eq!(with_token(&server, "DELETE", &path, &own, "").await.status(), 401);
}
