//! Who may do what: tokens, where they come from, and pages of other origins. Tokens are signed by `openssl`.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fanfare::http::{HttpConfig, Jwt, JwtKey, Origin};
use fanfare::{Broadcast, Broker, Event};
use serde_json::{Value, json};
use support::http::{Answer, request};
use support::hub::Hub;
use support::sse::SseClient;
use support::token::{self, SECRET, base64url, granting, hs256, key, key_file, now, signed};
use support::{TestServer, serve_with};

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";

fn secret() -> JwtKey {
    JwtKey::hs256(SECRET).expect("a valid secret")
}

fn serve(jwt: Jwt) -> TestServer {
    let origin = Origin::new(APP).expect("valid");
    serve_with(Broker::builder(), HttpConfig::default().jwt(jwt).allow_origin(origin))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(server.addr, "GET", path, headers, "").await
}

async fn get_with(server: &TestServer, path: &str, token: &str) -> Answer {
    get(server, path, &[("authorization", &bearer(token))]).await
}

async fn publish_as(server: &TestServer, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    request(server.addr, "POST", "/rt/publish", &headers, body).await
}

async fn publish_with(server: &TestServer, token: &str, body: &str) -> Answer {
    publish_as(server, &[("authorization", &bearer(token))], body).await
}

/// Asserts a refusal in the form of a problem; returns its detail.
fn refused(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status(), status, "{answer:?}");
    let problem = answer.problem();
    assert_eq!(answer.head.header("www-authenticate").is_some(), status == 401, "{answer:?}");
    problem["detail"].as_str().expect("text").to_owned()
}

/// A token that allows to read `a/*`, with more claims or others.
fn claims(more: Value) -> Value {
    let fanfare = json!({"subscribe": ["a/*"], "admin": true});
    with(json!({"sub": "user 7", "exp": now() + 60.0, "fanfare": fanfare}), more)
}

fn with(mut claims: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    for (name, value) in more {
        claims[name] = value;
    }
    claims
}

const READ: &str = "/rt/history?channel=a/1";

/// Each algorithm, with a key in PEM and with one out of a set, opens what its token names.
#[actix_web::test]
async fn every_algorithm_is_understood() {
    let of_pem = [
        ("HS256", secret()),
        ("RS256", JwtKey::rs256(&key("rs256.public.pem")).expect("valid")),
        ("RS256", JwtKey::rs256(&key("rs256.pkcs1.pem")).expect("valid")),
        ("ES256", JwtKey::es256(&key("es256.public.pem")).expect("valid")),
        ("EdDSA", JwtKey::eddsa(&key("eddsa.public.pem")).expect("valid")),
    ];
    for (algorithm, key) in of_pem {
        let server = serve(Jwt::new([key]));
        let token = signed(algorithm, &json!({"alg": algorithm}), &claims(json!({})));
        assert_eq!(get_with(&server, READ, &token).await.status(), 200, "{algorithm}");
    }
    let server = serve(Jwt::new(JwtKey::from_jwks(&key("jwks.json")).expect("valid")));
    for (algorithm, kid) in [("HS256", "secret"), ("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        for header in [json!({"alg": algorithm, "kid": kid}), json!({"alg": algorithm})] {
            let token = signed(algorithm, &header, &claims(json!({})));
            assert_eq!(get_with(&server, READ, &token).await.status(), 200, "{header}");
        }
    }
    let token = signed("EdDSA", &json!({"alg": "Ed25519"}), &claims(json!({})));
    assert_eq!(get_with(&server, READ, &token).await.status(), 200, "the newer name");
}

/// The key says how a signature is checked. Nothing that a token says of itself makes it valid.
#[actix_web::test]
async fn a_token_does_not_choose_its_algorithm() {
    let public = key("rs256.public.pem");
    let server = serve(Jwt::new([JwtKey::rs256(&public).expect("valid")]));
    let good = signed("RS256", &json!({"alg": "RS256"}), &claims(json!({})));
    assert_eq!(get_with(&server, READ, &good).await.status(), 200);

    let content = |header: Value| {
        format!("{}.{}", base64url(header.to_string()), base64url(claims(json!({})).to_string()))
    };
    let mut bad = Vec::new();
    // The public key as a secret, as its file is and without its line end.
    for secret in [public.as_bytes(), public.trim_end().as_bytes()] {
        for alg in ["HS256", "RS256"] {
            let content = content(json!({"alg": alg}));
            bad.push(format!("{content}.{}", base64url(token::hmac(secret, content.as_bytes()))));
        }
    }
    for none in ["none", "None", "NONE", "nOnE", ""] {
        bad.push(format!("{}.", content(json!({"alg": none}))));
        bad.push(format!("{}.{}", content(json!({"alg": none})), good.rsplit_once('.').expect("dots").1));
    }
    for (how, alg) in [
        ("ES256", "ES256"),
        ("ES256", "RS256"),
        ("EdDSA", "RS256"),
        ("another RS256", "RS256"),
        ("RS256", "ES256"),
        ("RS256", "RS512"),
        ("RS256", "PS256"),
        ("RS256", "rs256"),
    ] {
        bad.push(signed(how, &json!({"alg": alg}), &claims(json!({}))));
    }
    // A key that the token brings along.
    let jwks: Value = serde_json::from_str(&key("jwks.json")).expect("JSON");
    let own = json!({"alg": "ES256", "jwk": jwks["keys"][6]});
    bad.push(signed("ES256", &own, &claims(json!({}))));
    for token in &bad {
        refused(&get_with(&server, READ, token).await, 401);
    }

    let server = serve(Jwt::new([JwtKey::es256(&key("es256.public.pem")).expect("valid")]));
    for (how, alg) in [("RS256", "RS256"), ("RS256", "ES256"), ("ES256 in DER", "ES256"), ("ES256", "RS256")]
    {
        let token = signed(how, &json!({"alg": alg}), &claims(json!({})));
        refused(&get_with(&server, READ, &token).await, 401);
    }
}

/// What was signed is what counts: another payload, header or form is refused.
#[actix_web::test]
async fn a_token_that_was_changed_is_refused() {
    let server = serve(Jwt::new([secret()]));
    let good = hs256(&claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let richer = base64url(claims(json!({"fanfare": {"subscribe": ["**"]}})).to_string());
    for token in [
        format!("{}.{richer}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", base64url(r#"{"alg":"HS256"}"#), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}="),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][..parts[2].len() - 2]),
        "x".into(),
        "..".into(),
        "é.é.é".into(),
    ] {
        refused(&get_with(&server, READ, &token).await, 401);
    }
    assert_eq!(get_with(&server, READ, &good).await.status(), 200);
}

/// A token that names a key is checked with the keys of that name alone, if there are any.
#[actix_web::test]
async fn a_named_key_is_the_only_one_tried() {
    let other = JwtKey::hs256("another secret, and it has 32 bytes too").expect("valid");
    let server = serve(Jwt::new([secret().named("mine"), other.named("theirs")]));
    for (header, status) in [
        (json!({"alg": "HS256", "kid": "mine"}), 200),
        (json!({"alg": "HS256", "kid": "theirs"}), 401),
        (json!({"alg": "HS256", "kid": "nobody's"}), 200),
        (json!({"alg": "HS256"}), 200),
    ] {
        let token = signed("HS256", &header, &claims(json!({})));
        assert_eq!(get_with(&server, READ, &token).await.status(), status, "{header}");
    }
    let none = serve(Jwt::new([]));
    refused(&get_with(&none, READ, &hs256(&claims(json!({})))).await, 401);
}

/// Each claim that breaks its rule is refused, and the answer says which.
#[actix_web::test]
async fn bad_claims_are_refused_by_name() {
    let server = serve(Jwt::new([secret()]));
    let without = |name: &str| {
        let mut claims = claims(json!({}));
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    for (claims, part) in [
        (without("exp"), "exp"),
        (claims(json!({"exp": null})), "exp"),
        (claims(json!({"exp": "9999999999"})), "exp"),
        (claims(json!({"exp": -1})), "exp"),
        (claims(json!({"exp": 1e300})), "exp"),
        (claims(json!({"exp": now() - 1.0})), "expired"),
        (claims(json!({"exp": now() - 0.001})), "expired"),
        (claims(json!({"nbf": now() + 30.0})), "not valid yet"),
        (claims(json!({"nbf": "soon"})), "nbf"),
        (claims(json!({"iat": "then"})), "iat"),
        (without("sub"), "sid or sub"),
        (claims(json!({"sub": ""})), "sub"),
        (claims(json!({"sub": "a\nb"})), "sub"),
        (claims(json!({"sub": "x".repeat(256)})), "sub"),
        (claims(json!({"sub": 7})), "sub"),
        (claims(json!({"sid": "no ulid"})), "sid"),
        (claims(json!({"fanfare": "all"})), "fanfare"),
        (claims(json!({"fanfare": {"subscribe": "a"}})), "fanfare"),
        (claims(json!({"fanfare": {"subscribe": ["a//b"]}})), "fanfare.subscribe"),
        (claims(json!({"fanfare": {"subscribe": ["$everyone"]}})), "fanfare.subscribe"),
        (claims(json!({"fanfare": {"publish": ["**/a"]}})), "fanfare.publish"),
        (claims(json!({"fanfare": {"publish": ["$session/*"]}})), "fanfare.publish"),
        (claims(json!({"fanfare": {"admin": "yes"}})), "fanfare"),
        (claims(json!({"fanfare": {"subscibe": ["a"]}})), "subscibe"),
        (json!(["exp"]), "object"),
    ] {
        let detail = refused(&get_with(&server, READ, &hs256(&claims)).await, 401);
        assert!(detail.contains(part), "{claims}: {detail}");
    }
    let critical =
        signed("HS256", &json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims(json!({})));
    assert!(refused(&get_with(&server, READ, &critical).await, 401).contains("critical"));
    let far = hs256(&claims(json!({"exp": 32_503_680_000u64, "nbf": now() + 2.0, "iat": now()})));
    assert_eq!(get_with(&server, READ, &far).await.status(), 200);
}

/// 8 KiB and no byte more.
#[actix_web::test]
async fn an_oversized_token_is_refused() {
    let server = serve(Jwt::new([secret()]));
    let sign = |content: &str| token::hmac(SECRET.as_bytes(), content.as_bytes());
    // A byte more of claims is one or two more of token: the headers see to it that 8192 can be had.
    let contents =
        || [" ", "  ", ""].into_iter().flat_map(|gap| (5900..6100).map(move |fill| content(gap, fill)));
    for (size, is_good) in [(8192, true), (8193, false), (8194, false)] {
        let content = contents().find(|content| content.len() + 44 == size).expect("a token of this size");
        let token = format!("{content}.{}", base64url(sign(&content)));
        assert_eq!(token.len(), size);
        let answer = get_with(&server, READ, &token).await;
        match is_good {
            true => assert_eq!(answer.status(), 200),
            false => assert!(refused(&answer, 401).contains("8192")),
        }
    }
}

fn content(gap: &str, fill: usize) -> String {
    let claims = json!({"sub": "u", "exp": 32_503_680_000u64, "fanfare": {"subscribe": ["a/*"]}, "x": "x".repeat(fill)});
    format!("{}.{}", base64url(format!(r#"{{"alg":{gap}"HS256"}}"#)), base64url(claims.to_string()))
}

/// The header is looked at first, then the query if it may be, then the cookie; what is there counts.
#[actix_web::test]
async fn a_token_is_taken_from_its_places_only() {
    let (good, bad) = (granting(json!({"subscribe": ["a/*"]})), "bad");
    let in_query = |token: &str| format!("{READ}&access_token={token}");
    let cookie = |token: &str| format!("other=1; fanfare_token={token}");
    let closed = serve(Jwt::new([secret()]));
    let open = serve(Jwt::new([secret()]).token_in_query());

    for server in [&closed, &open] {
        assert!(refused(&get(server, READ, &[]).await, 401).contains("Bearer"));
        for (headers, status) in [
            (vec![("authorization", bearer(&good))], 200),
            (vec![("authorization", format!("bearer {good}"))], 200),
            (vec![("authorization", good.clone())], 401),
            (vec![("authorization", format!("Basic {good}"))], 401),
            (vec![("cookie", cookie(&good))], 200),
            (vec![("cookie", cookie(bad))], 401),
            (vec![("authorization", bearer(bad)), ("cookie", cookie(&good))], 401),
            (vec![("authorization", bearer(&good)), ("cookie", cookie(bad))], 200),
            (vec![("authorization", "Basic dXNlcjpwYXNz".into()), ("cookie", cookie(&good))], 200),
        ] {
            let lines: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(get(server, READ, &lines).await.status(), status, "{headers:?}");
        }
    }

    refused(&get(&closed, &in_query(&good), &[]).await, 401);
    assert_eq!(get(&open, &in_query(&good), &[]).await.status(), 200);
    refused(&get(&open, &in_query(bad), &[]).await, 401);
    refused(&get(&open, &format!("{}&access_token={good}", in_query(&good)), &[]).await, 400);
    assert_eq!(get(&open, &in_query(&good), &[("cookie", &cookie(bad))]).await.status(), 200);
    refused(&get(&open, &in_query(&good), &[("authorization", &bearer(bad))]).await, 401);
    assert_eq!(get(&closed, &in_query(bad), &[("cookie", &cookie(&good))]).await.status(), 200);
}

/// A change needs a page that may ask for it, and a page at all if a cookie speaks for it.
#[actix_web::test]
async fn changes_come_from_pages_that_may_ask() {
    let server = serve(Jwt::new([secret()]));
    let token = granting(json!({"publish": ["a/*"]}));
    let by_cookie = ("cookie", format!("fanfare_token={token}"));
    let by_header = ("authorization", bearer(&token));
    let own = format!("http://{}", server.addr);
    let foreign_port = "http://127.0.0.1:1";
    let sub = "https://sub.app.example";
    for (who, origin, site, status) in [
        (&by_cookie, None, None, 403),
        (&by_cookie, None, Some("same-origin"), 200),
        (&by_cookie, None, Some("same-site"), 403),
        (&by_cookie, None, Some("cross-site"), 403),
        (&by_cookie, Some(own.as_str()), None, 200),
        (&by_cookie, Some(APP), Some("cross-site"), 200),
        (&by_cookie, Some(EVIL), Some("cross-site"), 403),
        (&by_cookie, Some(EVIL), Some("same-origin"), 403),
        (&by_cookie, Some("null"), None, 403),
        (&by_cookie, Some(sub), None, 403),
        (&by_cookie, Some(foreign_port), None, 403),
        (&by_header, None, None, 200),
        (&by_header, Some(own.as_str()), None, 200),
        (&by_header, Some(APP), None, 200),
        (&by_header, Some(EVIL), None, 403),
    ] {
        let mut headers = vec![(who.0, who.1.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        let answer = publish_as(&server, &headers, r#"{"channel":"a/1"}"#).await;
        assert_eq!(answer.status(), status, "{} {origin:?} {site:?}", who.0);
        if status == 403 {
            assert_eq!(answer.problem()["field"], "origin");
        }
    }
    assert_eq!(server.stats().await.head, 6, "what was refused was not stored");
}

/// Nobody follows more than was granted: not by a wider wildcard, nor by another spelling.
#[actix_web::test]
async fn a_selector_does_not_widen_the_grant() {
    let server = serve(Jwt::new([secret()]));
    let token = granting(json!({"subscribe": ["a/*", "b/**", "c"]}));
    let all = granting(json!({"subscribe": ["**"]}));
    for (token, channel, status) in [
        (&token, "a/1", 200),
        (&token, "a/*", 200),
        (&token, "a%2F1", 200),
        (&token, "a/**", 403),
        (&token, "a%2F%2A%2A", 403),
        (&token, "a", 403),
        (&token, "a/1/2", 403),
        (&token, "*/1", 403),
        (&token, "*", 403),
        (&token, "**", 403),
        (&token, "b", 200),
        (&token, "b/1/**", 200),
        (&token, "b2", 403),
        (&token, "c", 200),
        (&token, "c/**", 403),
        (&token, "C", 403),
        (&all, "**", 200),
        (&all, "x/*/y", 200),
        (&all, "$everyone", 400),
        (&all, "%24everyone", 400),
        (&all, "%24session/**", 400),
        (&all, "%24session%2F01J00000000000000000000000", 400),
        (&token, "%24everyone", 400),
    ] {
        let answer = get_with(&server, &format!("/rt/history?channel={channel}"), token).await;
        assert_eq!(answer.status(), status, "history of {channel}");
        let path = format!("/rt/events?channel={channel}");
        let stream = SseClient::open(server.addr, &path, &[("authorization", &bearer(token))]).await;
        assert_eq!(stream.head.status, status, "stream of {channel}");
        if status != 200 {
            assert_eq!(answer.problem()["field"], "channel", "{channel}");
            assert_eq!(stream.head.header("content-type"), Some("application/problem+json"));
        }
        if !channel.contains(['*', '%']) {
            let answer = get_with(&server, &format!("/rt/presence?channel={channel}"), token).await;
            assert_eq!(answer.status(), status, "presence of {channel}");
        }
    }
    // One of several is enough to refuse.
    refused(&get_with(&server, "/rt/history?channel=a/1&channel=d", &token).await, 403);
    // Without the claim there is what is sent to the session and to everyone.
    let poor = hs256(&json!({"sub": "user 8", "exp": now() + 60.0}));
    refused(&get_with(&server, READ, &poor).await, 403);
    let mut stream = SseClient::open(server.addr, "/rt/events", &[("authorization", &bearer(&poor))]).await;
    stream.welcome().await;
    let hello = Event::text("message", "hello").expect("valid");
    server.broker.do_send(Broadcast::everyone(hello));
    assert_eq!(stream.data().await, "hello");
}

/// Everyone and sessions are reached by those whose token names them, and `**` does not.
#[actix_web::test]
async fn publishing_needs_the_audience_to_be_named() {
    let server = serve(Jwt::new([secret()]));
    let channel = r#"{"channel":"a/1"}"#;
    let everyone = r#"{"everyone":true}"#;
    let sessions = r#"{"sessions":["01J00000000000000000000000"]}"#;
    let batch = r#"[{"channel":"a/1"},{"everyone":true}]"#;
    for (publish, allowed) in [
        (json!([]), [false; 4]),
        (json!(["**"]), [true, false, false, false]),
        (json!(["a/*"]), [true, false, false, false]),
        (json!(["b/**"]), [false; 4]),
        (json!(["$everyone"]), [false, true, false, false]),
        (json!(["$session/**"]), [false, false, true, false]),
        (json!(["a/1", "$everyone"]), [true, true, false, true]),
        (json!(["**", "$everyone", "$session/**"]), [true; 4]),
    ] {
        let token = granting(json!({"publish": publish.clone(), "subscribe": ["**"]}));
        for (body, is_allowed) in [channel, everyone, sessions, batch].into_iter().zip(allowed) {
            let answer = publish_with(&server, &token, body).await;
            assert_eq!(answer.status(), if is_allowed { 200 } else { 403 }, "{publish} {body}");
            if !is_allowed {
                let problem = answer.problem();
                assert_eq!(problem.get("index").is_some(), body == batch, "{problem}");
            }
        }
    }
    // A reserved name is no channel, whatever is granted.
    let token = granting(json!({"publish": ["**", "$everyone", "$session/**"]}));
    for body in [r#"{"channel":"$everyone"}"#, r#"{"channels":["a","\u0024session/x"]}"#] {
        refused(&publish_with(&server, &token, body).await, 400);
    }
    refused(&publish_as(&server, &[], channel).await, 401);
}

/// The state of the broker is for admins.
#[actix_web::test]
async fn status_needs_an_admin() {
    let server = serve(Jwt::new([secret()]));
    for (granted, status) in
        [(json!({"admin": true}), 200), (json!({"admin": false}), 403), (json!({"subscribe": ["**"]}), 403)]
    {
        let answer = get_with(&server, "/rt/status", &granting(granted.clone())).await;
        assert_eq!(answer.status(), status, "{granted}");
    }
    refused(&get(&server, "/rt/status", &[]).await, 401);
}

/// Event ids are a subject's own; the session is the one named, or the subject's.
#[actix_web::test]
async fn a_subject_is_a_publisher_and_a_session() {
    let server = serve(Jwt::new([secret()]));
    let token = |more: Value| {
        let fanfare = json!({"publish": ["a"], "subscribe": ["a"]});
        hs256(&with(json!({"exp": now() + 60.0, "fanfare": fanfare}), more))
    };
    let sid = "01J00000000000000000000000";
    let (ann, bob) = (token(json!({"sub": "ann"})), token(json!({"sub": "bob"})));
    let body = r#"{"channel":"a","id":"one"}"#;
    let mut receipts = Vec::new();
    for token in [&ann, &bob, &ann] {
        receipts.push(publish_with(&server, token, body).await.json());
    }
    assert_eq!(
        receipts.iter().map(|receipt| &receipt["duplicate"]).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(receipts[0]["seq"], receipts[2]["seq"]);

    let mut sessions = Vec::new();
    for token in [&ann, &bob, &ann, &token(json!({"sub": "ann", "sid": sid})), &token(json!({"sid": sid}))] {
        let headers = [("authorization", bearer(token))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let stream = SseClient::open(server.addr, "/rt/events?channel=a", &headers).await;
        sessions.push(stream.head.header("fanfare-session").expect("a session").to_owned());
        assert_eq!(stream.head.header("set-cookie"), None);
    }
    assert_eq!((&sessions[0], &sessions[3], &sessions[4]), (&sessions[2], &sid.to_owned(), &sid.to_owned()));
    assert_ne!(sessions[0], sessions[1]);
}

/// A stream ends at `exp`, within a second, with a time to come back and the reason; others go on.
#[actix_web::test]
async fn a_stream_ends_when_its_token_expires() {
    let server = serve(Jwt::new([secret()]));
    let path = "/rt/events?channel=a/*";
    let long = hs256(&claims(json!({"exp": 32_503_680_000u64})));
    // Time enough for a busy machine to open the stream.
    let expires = now() + 3.0;
    let short = hs256(&claims(json!({"exp": expires})));
    let mut ending = SseClient::open(server.addr, path, &[("authorization", &bearer(&short))]).await;
    let mut staying = SseClient::open(server.addr, path, &[("authorization", &bearer(&long))]).await;
    ending.welcome().await;
    staying.welcome().await;
    let event = |data: &str| Event::text("message", data).expect("valid");
    server.broker.do_send(Broadcast::channel("a/1", event("before")).expect("valid"));
    assert_eq!(ending.data().await, "before");
    assert_eq!(staying.data().await, "before");

    let last = loop {
        match ending.block().await.expect("a fresh retry") {
            ping if ping.comment.as_deref() == Some("ping") => {}
            block => break block,
        }
    };
    assert!(last.retry.is_some(), "{last:?}");
    let closing = ending.event().await.expect("last words");
    assert!(closing.is("$closing"), "{closing:?}");
    assert_eq!(closing.data(), r#"{"reason":"expired_token"}"#);
    assert_eq!(ending.block().await, None);
    let late = now() - expires;
    assert!((-0.01..1.0).contains(&late), "ended {late} s after exp");

    refused(&get_with(&server, path, &short).await, 401);
    server.broker.do_send(Broadcast::channel("a/1", event("after")).expect("valid"));
    assert_eq!(staying.data().await, "after");
}

/// What was missed is given out by what is granted now, not by what was granted when the cursor was.
#[actix_web::test]
async fn a_replay_is_for_the_grant_of_today() {
    let server = serve(Jwt::new([secret()]));
    let before = granting(json!({"subscribe": ["a/*", "b/*"]}));
    let today = granting(json!({"subscribe": ["b/*"]}));
    let both = "/rt/events?channel=a/*&channel=b/*";
    let mut stream = SseClient::open(server.addr, both, &[("authorization", &bearer(&before))]).await;
    let cursor = stream.welcome().await.id.expect("a cursor");
    drop(stream);
    for channel in ["a/1", "b/1"] {
        let event = Event::text("message", channel).expect("valid");
        server
            .broker
            .send(Broadcast::channel(channel, event).expect("valid"))
            .await
            .expect("sent")
            .expect("kept");
    }
    let headers = [("authorization", bearer(&today)), ("last-event-id", cursor)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(SseClient::open(server.addr, both, &headers).await.head.status, 403);
    let mut stream = SseClient::open(server.addr, "/rt/events?channel=b/*", &headers).await;
    stream.welcome().await;
    assert_eq!(stream.data().await, "b/1");
}

fn assert_readable_by(answer: &support::http::Head, origin: Option<&str>) {
    assert_eq!(answer.header("vary"), Some("origin"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), origin, "{answer:?}");
    let credentials = origin.map(|_| "true");
    assert_eq!(answer.header("access-control-allow-credentials"), credentials, "{answer:?}");
    let exposed = origin.map(|_| "fanfare-client, fanfare-session, retry-after, x-request-id");
    assert_eq!(answer.header("access-control-expose-headers"), exposed, "{answer:?}");
}

/// Every answer of the scope, streams and errors too, can be read by pages of an allowed origin and of no other.
#[actix_web::test]
async fn answers_are_readable_by_allowed_origins_only() {
    let server = serve(Jwt::new([secret()]));
    let token = bearer(&granting(json!({"subscribe": ["a/*"], "publish": ["a/*"]})));
    for (origin, readable) in [(Some(APP), true), (Some(EVIL), false), (Some("null"), false), (None, false)] {
        let readable = origin.filter(|_| readable);
        let mut with = vec![("authorization", token.as_str())];
        with.extend(origin.map(|origin| ("origin", origin)));
        let without = with[1..].to_vec();
        for (path, headers, status) in [
            (READ, &with, 200),
            (READ, &without, 401),
            ("/rt/history?channel=b", &with, 403),
            ("/rt/history?channel=a//b", &with, 400),
            ("/rt/nowhere", &with, 404),
            ("/rt/publish", &with, 405),
            ("/rt/status", &with, 403),
        ] {
            let answer = get(&server, path, headers).await;
            assert_eq!(answer.status(), status, "{path}");
            assert_readable_by(&answer.head, readable);
        }
        let published = publish_as(&server, &with, r#"{"channel":"a/1"}"#).await;
        assert_eq!(published.status(), if origin.is_none() || readable.is_some() { 200 } else { 403 });
        assert_readable_by(&published.head, readable);

        let mut stream = SseClient::open(server.addr, "/rt/events?channel=a/*", &with).await;
        stream.welcome().await;
        assert_readable_by(&stream.head, readable);
        let bad = SseClient::open(server.addr, "/rt/events?from=later", &with).await;
        assert_eq!(bad.head.status, 400);
        assert_readable_by(&bad.head, readable);
    }
}

/// A browser asks before it sends what a form could not; it needs no credentials for that.
#[actix_web::test]
async fn preflights_are_answered() {
    let server = serve(Jwt::new([secret()]));
    let ask = |path: &'static str, origin: &'static str, method: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let addr = server.addr;
        async move { request(addr, "OPTIONS", path, &headers, "").await }
    };
    for (path, method) in [("/rt/publish", "POST"), ("/rt/events", "GET"), ("/rt/sessions/x", "DELETE")] {
        let answer = ask(path, APP, method).await;
        assert_eq!((answer.status(), answer.body.as_str()), (204, ""), "{path}");
        assert_readable_by(&answer.head, Some(APP));
        let methods = answer.head.header("access-control-allow-methods").expect("methods");
        assert!(methods.split(", ").any(|allowed| allowed == method), "{methods}");
        let headers = answer.head.header("access-control-allow-headers").expect("headers");
        for needed in ["authorization", "content-type", "last-event-id"] {
            assert!(headers.split(", ").any(|allowed| allowed == needed), "{headers}");
        }
        assert!(answer.head.header("access-control-max-age").is_some());

        let answer = ask(path, EVIL, method).await;
        refused(&answer, 403);
        assert_readable_by(&answer.head, None);
        assert_eq!(answer.head.header("access-control-allow-methods"), None);
    }
    // Without a page that asks it is a method like another.
    refused(&request(server.addr, "OPTIONS", "/rt/publish", &[("origin", APP)], "").await, 405);
}

/// Who allows no origin says nothing about origins.
#[actix_web::test]
async fn without_origins_there_is_no_cors() {
    let server = serve_with(Broker::builder(), HttpConfig::default());
    let answer = get(&server, READ, &[("origin", APP)]).await;
    assert_eq!(answer.status(), 200);
    for name in ["vary", "access-control-allow-origin", "access-control-allow-credentials"] {
        assert_eq!(answer.head.header(name), None);
    }
}

fn hs256_setting() -> String {
    format!("HS256:{SECRET}")
}

/// With a key nobody is served without a token, but for the open pages.
#[actix_web::test]
async fn a_hub_with_a_key_serves_tokens_only() {
    let hub = Hub::start(&["--jwt-key", &hs256_setting(), "--allow-origin", APP]);
    for path in ["/events?channel=a", "/history?channel=a", "/presence?channel=a", "/status"] {
        let answer = request(hub.addr, "GET", path, &[("origin", APP)], "").await;
        refused(&answer, 401);
        assert_readable_by(&answer.head, Some(APP));
    }
    refused(&hub.publish(r#"{"channel":"a"}"#).await, 401);
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(support::http::get(hub.addr, path).await.status(), 200, "{path}");
    }
    let token = granting(json!({"subscribe": ["a"], "admin": true}));
    let as_token = [("authorization", bearer(&token))];
    let as_token = as_token.each_ref().map(|(name, value)| (*name, value.as_str()));
    for path in ["/history?channel=a", "/status"] {
        assert_eq!(request(hub.addr, "GET", path, &as_token, "").await.status(), 200, "{path}");
    }
    let in_query = format!("/history?channel=a&access_token={token}");
    refused(&support::http::get(hub.addr, &in_query).await, 401);
    // Whatever name it is called by: a token is for whoever has it.
    let elsewhere =
        format!("GET /status HTTP/1.1\r\nhost: hub.example\r\nauthorization: Bearer {token}\r\n\r\n");
    let mut socket = support::http::send_head(hub.addr, &elsewhere).await;
    assert_eq!(support::http::read_head(&mut socket).await.0.status, 200);
}

/// Keys come from flags, files and sets, and one of them is enough to listen on every address.
#[actix_web::test]
async fn a_hub_takes_its_keys_from_files() {
    let secret = std::env::temp_dir().join(format!("fanfare-secret-{}", std::process::id()));
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let at = |algorithm: &str, path: &std::path::Path| format!("{algorithm}:@{}", path.display());
    let (hs256, es256) = (at("HS256", &secret), at("ES256", &key_file("es256.public.pem")));
    let jwks = key_file("jwks.json");
    let jwks = jwks.to_str().expect("text");
    for (args, algorithms) in [
        (vec!["--jwt-key", &hs256, "--jwt-key", &es256, "--token-in-query"], vec!["HS256", "ES256"]),
        (vec!["--jwks", jwks, "--token-in-query"], vec!["HS256", "RS256", "ES256", "EdDSA"]),
    ] {
        let hub = Hub::start_on("0.0.0.0:0", &args);
        let addr = (std::net::Ipv4Addr::LOCALHOST, hub.addr.port()).into();
        for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
            let token = signed(algorithm, &json!({"alg": algorithm}), &claims(json!({})));
            let answer = support::http::get(addr, &format!("/status?access_token={token}")).await;
            let expected = if algorithms.contains(&algorithm) { 200 } else { 401 };
            assert_eq!(answer.status(), expected, "{algorithm} with {args:?}");
        }
    }
    std::fs::remove_file(secret).expect("removed");
}

/// A key that cannot be used is said at the start, without the secret, and before anything is made.
#[actix_web::test]
async fn a_hub_does_not_start_with_a_bad_key() {
    let dir = std::env::temp_dir().join(format!("fanfare-bad-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let of = |algorithm: &str, name: &str| format!("{algorithm}:@{}", key_file(name).display());
    let short = "hunter2hunter2";
    let short_file = format!("HS256:@{}", file("short", short));
    for (setting, value, part) in [
        ("--jwt-key", format!("HS256:{short}"), "at least 32 bytes"),
        ("--jwt-key", short_file, "at least 32 bytes"),
        ("--jwt-key", format!("HS512:{short}"), "ALG:SECRET"),
        ("--jwt-key", short.into(), "ALG:SECRET"),
        ("--jwt-key", of("RS256", "rs256-short.public.pem"), "2048"),
        ("--jwt-key", of("RS256", "es256.public.pem"), "RSA"),
        ("--jwt-key", of("ES256", "es384.public.pem"), "P-256"),
        ("--jwt-key", of("EdDSA", "eddsa.private.pem"), "private key"),
        ("--jwt-key", of("HS256", "rs256.public.pem"), "no secret"),
        ("--jwt-key", of("RS256", "none.pem"), "none.pem"),
        ("--jwks", "/nonexistent.json".into(), "/nonexistent.json"),
        ("--jwks", file("text.json", "{"), "keys"),
        ("--jwks", file("empty.json", r#"{"keys":[]}"#), "must have a key"),
        ("--jwks", file("other.json", r#"{"keys":[{"kty":"RSA","use":"enc"}]}"#), "must have a key"),
        ("--jwks", file("bad.json", r#"{"keys":[{"kty":"oct","alg":"HS256","k":"aHVudGVyMg"}]}"#), "keys[0]"),
    ] {
        let mut hub = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .current_dir(&dir)
            .args(["--listen", "127.0.0.1:0", setting, &value])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let start = Instant::now();
        while hub.try_wait().expect("a child").is_none() && start.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = hub.kill();
        let output = hub.wait_with_output().expect("ended");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(part), "{value}: {said}");
        assert!(said.contains(setting) && !said.contains("hunter2"), "{value}: {said}");
        assert!(!dir.join("fanfare.db").exists(), "{value}");
    }
    std::fs::remove_dir_all(dir).expect("removed");
}

/// The environment's secret is not shown to who asks for help, and works.
#[actix_web::test]
async fn a_secret_in_the_environment_is_not_shown() {
    let help = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["serve", "--help"])
        .env("FANFARE_JWT_KEY", hs256_setting())
        .output()
        .expect("runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("FANFARE_JWT_KEY") && !help.contains(SECRET), "{help}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["--listen", "0.0.0.0:0", "--log", "memory"])
        .env("FANFARE_JWT_KEY", hs256_setting())
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut greeting = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    for _ in 0..3 {
        std::io::BufRead::read_line(&mut stdout, &mut greeting).expect("a line");
    }
    child.kill().expect("killed");
    let output = child.wait_with_output().expect("ended");
    let said = greeting + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Bearer $TOKEN") && !said.contains(SECRET), "{said}");
}
