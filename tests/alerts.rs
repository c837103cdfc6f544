//! The alerts example: an alert reaches those who may see it, in all their tabs, once and in order, and nobody else.
//!
//! The page needs `chromium` and `chromedriver`; see `scripts/test`.

#[path = "support/example.rs"]
mod example;
#[allow(dead_code, reason = "a part of it is the example's own")]
#[path = "../examples/alerts/message.rs"]
mod message;
mod support;
#[allow(dead_code, reason = "a part of it is the example's own")]
#[path = "../examples/alerts/values.rs"]
mod values;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use example::Example;
use futures_util::future::join_all;
use message::{Alert, ControlPlaneEvent, Criticality, Message, Notice, State};
use rand::RngExt;
use serde_json::{Value, json};
use support::http::{self, Answer};
use support::sse::{Block, SseClient};
use values::StreamName;
use webdriver::{Browser, Driver};

const SOON: Duration = Duration::from_secs(10);
const JSON: (&str, &str) = ("content-type", "application/json");
/// Olga may see everything and is the operator.
const PEOPLE: [&str; 6] =
    ["--person", "olga:olga:*:operator", "--person", "ada:ada:payments,web", "--person", "bob:bob:infra"];

/// The example on a port and in a folder of its own.
struct Alerts {
    addr: SocketAddr,
    folder: PathBuf,
    example: Option<Example>,
}

impl Alerts {
    fn start(name: &str, args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        drop(listener);
        let folder = std::env::temp_dir().join(format!("fanfare-alerts-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut alerts = Self { addr, folder, example: None };
        alerts.start_again(args);
        alerts
    }

    fn start_again(&mut self, args: &[&str]) {
        let log = self.folder.join("alerts.db");
        let own = ["--log", log.to_str().expect("text")];
        self.example = Some(Example::start("alerts", self.addr, &[&own, &PEOPLE[..], args].concat()));
    }

    fn kill(&mut self) {
        self.example.take().expect("it runs").kill();
    }

    async fn put(&self, cookie: &str, path: &str, body: &Value) -> Answer {
        http::request(self.addr, "PUT", path, &[JSON, ("cookie", cookie)], &body.to_string()).await
    }

    async fn get(&self, cookie: &str, path: &str) -> Answer {
        http::request(self.addr, "GET", path, &[("cookie", cookie)], "").await
    }

    /// Logs in, and says the cookie.
    async fn log_in(&self, name: &str) -> String {
        let body = json!({"name": name, "password": name}).to_string();
        let answer = http::request(self.addr, "PUT", "/session", &[JSON], &body).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.head.header("set-cookie").is_some_and(|cookie| cookie.contains("HttpOnly")));
        answer.head.cookie().expect("a cookie")
    }

    /// Raises an alert on a stream; its text says which it is.
    async fn raise(&self, cookie: &str, stream: &str, text: &str) -> Answer {
        let id = format!("{stream}-{text}");
        let body = json!({"stream": stream, "name": "a", "criticality": "warn", "text": text});
        self.put(cookie, &format!("/alerts/{id}"), &body).await
    }

    async fn raised(&self, cookie: &str, stream: &str, text: &str) {
        let answer = self.raise(cookie, stream, text).await;
        assert_eq!((answer.status(), &answer.json()["duplicate"]), (200, &false.into()), "{answer:?}");
    }

    /// Tells everyone, so that whoever reads up to it has read what came before.
    async fn mark(&self, cookie: &str, mark: &str) {
        let event = json!({"event": "maintenance", "text": mark});
        assert_eq!(self.put(cookie, &format!("/control/{mark}"), &event).await.status(), 200);
    }

    async fn open(&self, cookie: &str, query: &str) -> SseClient {
        SseClient::open(self.addr, &format!("/rt/events?{query}"), &[("cookie", cookie)]).await
    }

    async fn live(&self, cookie: &str, query: &str) -> SseClient {
        let mut client = self.open(cookie, query).await;
        client.welcome().await;
        client
    }

    /// Waits until so many streams are open.
    async fn until_clients(&self, operator: &str, clients: u64, within: Duration) -> Value {
        let start = Instant::now();
        loop {
            let status = self.get(operator, "/rt/status").await.json();
            if status["clients"] == clients {
                return status;
            }
            assert!(start.elapsed() < within, "not {clients} clients within {within:?}: {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        self.example = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The next event, past pings, which must come soon: a stream that only pings is not waited for.
async fn next(client: &mut SseClient) -> Block {
    tokio::time::timeout(SOON, client.event())
        .await
        .expect("an event in time")
        .expect("an event, not the end")
}

/// What a stream of raw payloads says next, by the example's own types.
fn message(block: &Block) -> Message {
    let message = serde_json::from_str(block.data()).unwrap_or_else(|error| panic!("{error}: {block:?}"));
    let name = match message {
        Message::Alert(_) => "alert",
        Message::ControlPlane(_) => "control_plane",
        Message::Notice(_) => "notice",
    };
    assert!(block.is(name), "the event is named as its type: {block:?}");
    message
}

/// In short: an alert's stream and text, or what else is said.
fn short(block: &Block) -> String {
    match message(block) {
        Message::Alert(alert) => format!("{} {}", String::from(alert.stream), alert.text),
        Message::ControlPlane(ControlPlaneEvent::Maintenance { text }) => text,
        Message::ControlPlane(other) => format!("{other:?}"),
        Message::Notice(notice) => format!("{}: {}", notice.from, notice.text),
    }
}

/// All that comes up to `mark`, which is for everyone.
async fn until(client: &mut SseClient, mark: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let said = short(&next(client).await);
        if said == mark {
            return all;
        }
        all.push(said);
    }
}

/// P2, P3: an alert comes to every tab of those who may see its stream, once, and to no other; what is for everyone comes to all,
/// once. Who may not see a stream cannot follow it, and who is no operator cannot raise anything.
#[actix_web::test]
async fn an_alert_reaches_those_who_may_see_it() {
    let alerts = Alerts::start("permissions", &[]);
    let (olga, ada, bob) =
        (alerts.log_in("olga").await, alerts.log_in("ada").await, alerts.log_in("bob").await);
    let me = alerts.get(&ada, "/session").await.json();
    assert_eq!(me["channels"], json!(["alerts/payments", "alerts/web"]));
    assert_eq!((&me["name"], &me["operator"]), (&json!("ada"), &json!(false)));

    let mut adas = Vec::new();
    for query in [
        "channel=alerts/payments&channel=alerts/web",
        "channel=alerts/payments&channel=alerts/web",
        "channel=alerts/web",
    ] {
        adas.push(alerts.live(&ada, query).await);
    }
    let mut bobs = alerts.live(&bob, "channel=alerts/infra").await;
    let mut olgas = alerts.live(&olga, "channel=alerts/*").await;
    let mut nothing = alerts.live(&bob, "").await;
    for (who, query) in [
        (&ada, "channel=alerts/infra"),
        (&ada, "channel=alerts/*"),
        (&ada, "channel=alerts/web&channel=alerts/infra"),
        (&bob, "channel=alerts/payments"),
        (&bob, "channel=**"),
        (&olga, "channel=**"),
    ] {
        let refused = alerts.open(who, query).await;
        assert_eq!(refused.head.status, 403, "{query}");
    }
    let history = alerts.get(&ada, "/rt/history?channel=alerts/infra");
    assert_eq!(history.await.status(), 403);

    let mut expected = Vec::new();
    for n in 0..30 {
        let stream = ["payments", "infra", "web", "other"][n % 4];
        alerts.raised(&olga, stream, &n.to_string()).await;
        expected.push(format!("{stream} {n}"));
    }
    // Told again, it is not said again.
    let again = alerts.raise(&olga, "web", "2").await;
    assert_eq!((again.status(), &again.json()["duplicate"]), (200, &true.into()));
    for who in [&ada, &bob] {
        assert_eq!(alerts.raise(who, "web", "no").await.status(), 403);
        assert_eq!(
            alerts.put(who, "/control/no", &json!({"event": "node_left", "node": "x"})).await.status(),
            403
        );
        assert_eq!(alerts.put(who, "/people/bob/notices/no", &json!({"text": "x"})).await.status(), 403);
        assert_eq!(alerts.put(who, "/people/bob/streams", &json!({"streams": ["*"]})).await.status(), 403);
        let origin = format!("http://{}", alerts.addr);
        let headers = [JSON, ("cookie", who), ("origin", origin.as_str())];
        let forged = r#"{"channel":"alerts/web","data":"forged"}"#;
        let publish = http::request(alerts.addr, "POST", "/rt/publish", &headers, forged);
        assert_eq!(publish.await.status(), 403);
    }
    alerts.mark(&olga, "end").await;

    let of = |streams: &[&str]| {
        let is_of = |alert: &&String| streams.iter().any(|stream| alert.starts_with(&format!("{stream} ")));
        expected.iter().filter(is_of).cloned().collect::<Vec<_>>()
    };
    assert_eq!(until(&mut adas[0], "end").await, of(&["payments", "web"]));
    assert_eq!(until(&mut adas[1], "end").await, of(&["payments", "web"]));
    assert_eq!(until(&mut adas[2], "end").await, of(&["web"]));
    assert_eq!(until(&mut bobs, "end").await, of(&["infra"]));
    assert_eq!(until(&mut olgas, "end").await, expected);
    assert_eq!(until(&mut nothing, "end").await, [""; 0]);
    // Once: nothing of it comes again before the next.
    alerts.mark(&olga, "end-2").await;
    for client in adas.iter_mut().chain([&mut bobs, &mut olgas, &mut nothing]) {
        assert_eq!(until(client, "end-2").await, [""; 0]);
    }
}

/// What is sent is what these types say, byte by byte, and a filter lets one criticality through.
#[actix_web::test]
async fn messages_are_typed_and_filtered_by_criticality() {
    let alerts = Alerts::start("typed", &[]);
    let (olga, bob) = (alerts.log_in("olga").await, alerts.log_in("bob").await);
    let mut all = alerts.live(&bob, "channel=alerts/infra").await;
    let mut errors = alerts.live(&bob, "channel=alerts/infra&filter=criticality:error").await;
    let stream = || StreamName::try_from("infra".to_owned()).expect("a name");
    let mut sent = Vec::new();
    for (n, (criticality, state)) in [
        (Criticality::Info, State::Triggered),
        (Criticality::Error, State::Triggered),
        (Criticality::Warn, State::Triggered),
        (Criticality::Error, State::Resolved),
    ]
    .into_iter()
    .enumerate()
    {
        let alert = Alert {
            stream: stream(),
            name: "Disk \"1\"".into(),
            criticality,
            state,
            text: format!("é\n{n}"),
        };
        let body = serde_json::to_value(&alert).expect("JSON");
        assert_eq!(alerts.put(&olga, &format!("/alerts/{n}"), &body).await.status(), 200);
        sent.push(Message::Alert(alert));
    }
    for (n, event) in [
        ControlPlaneEvent::NodeJoined { node: "eu-7".into() },
        ControlPlaneEvent::NodeLeft { node: "eu-7".into() },
        ControlPlaneEvent::Maintenance { text: "now".into() },
    ]
    .into_iter()
    .enumerate()
    {
        let body = serde_json::to_value(&event).expect("JSON");
        assert_eq!(alerts.put(&olga, &format!("/control/{n}"), &body).await.status(), 200);
        sent.push(Message::ControlPlane(event));
    }
    let notice = alerts.put(&olga, "/people/bob/notices/1", &json!({"text": "Hello"})).await;
    assert_eq!(notice.status(), 200);
    sent.push(Message::Notice(Notice { from: "olga".into(), text: "Hello".into() }));

    for (n, expected) in sent.iter().enumerate() {
        let block = next(&mut all).await;
        assert_eq!(message(&block), *expected);
        if n == 1 {
            let data = r#"{"type":"alert","stream":"infra","name":"Disk \"1\"","criticality":"error","state":"triggered","text":"é\n1"}"#;
            let id = block.id.as_deref().expect("a cursor");
            assert_eq!(block.text, format!("id: {id}\nevent: alert\ndata: {data}"));
        }
        if !matches!(expected, Message::Alert(alert) if alert.criticality != Criticality::Error) {
            assert_eq!(message(&next(&mut errors).await), *expected);
        }
    }
    assert!(Criticality::Info < Criticality::Warn && Criticality::Warn < Criticality::Error);

    // What is not of these types is refused, and says why.
    for body in [
        json!({"stream": "infra", "name": "a", "criticality": "fatal"}),
        json!({"stream": "IN FRA", "name": "a", "criticality": "info"}),
        json!({"stream": "infra", "criticality": "info"}),
        json!({"stream": "infra", "name": "a", "criticality": "info", "tenant": "x"}),
    ] {
        let refused = alerts.put(&olga, "/alerts/bad", &body).await;
        assert_eq!(refused.status(), 400, "{body}");
        assert_eq!(refused.head.header("content-type"), Some("application/problem+json"));
    }
    let unknown = alerts.put(&olga, "/control/bad", &json!({"event": "node_lost", "node": "x"})).await;
    assert_eq!(unknown.status(), 400);
    assert_eq!(alerts.put(&olga, "/people/eve/notices/1", &json!({"text": "x"})).await.status(), 404);
}

/// P2, P9: what is sent to a person comes to every tab of every login; logging out ends the tabs of that login within a
/// second, and no others, and it stays over.
#[actix_web::test]
async fn logging_out_ends_the_tabs_of_that_login() {
    let alerts = Alerts::start("logout", &[]);
    let olga = alerts.log_in("olga").await;
    let (first, second, bob) =
        (alerts.log_in("ada").await, alerts.log_in("ada").await, alerts.log_in("bob").await);
    let mut tabs = Vec::new();
    for _ in 0..3 {
        tabs.push(alerts.live(&first, "channel=alerts/web").await);
    }
    let mut elsewhere = alerts.live(&second, "channel=alerts/web").await;
    let mut bobs = alerts.live(&bob, "channel=alerts/infra").await;
    let session = |client: &SseClient| client.head.header("fanfare-session").map(ToOwned::to_owned);
    assert!(session(&tabs[0]) == session(&tabs[2]) && session(&tabs[0]) != session(&elsewhere));

    assert_eq!(alerts.put(&olga, "/people/ada/notices/1", &json!({"text": "Call me"})).await.status(), 200);
    // The same word to another person is another one.
    assert_eq!(alerts.put(&olga, "/people/bob/notices/1", &json!({"text": "Not you"})).await.status(), 200);
    alerts.mark(&olga, "told").await;
    for tab in tabs.iter_mut().chain([&mut elsewhere]) {
        assert_eq!(until(tab, "told").await, ["olga: Call me"]);
    }
    assert_eq!(until(&mut bobs, "told").await, ["olga: Not you"]);

    let start = Instant::now();
    let logged_out = http::request(alerts.addr, "DELETE", "/session", &[("cookie", &first)], "").await;
    assert_eq!(logged_out.status(), 204);
    assert!(logged_out.head.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
    alerts.raised(&olga, "web", "later").await;
    for tab in &mut tabs {
        let closing = next(tab).await;
        assert_eq!(closing.text, "event: $closing\ndata: {\"reason\":\"revoked\"}");
        assert_eq!(tab.block().await, None);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // A browser that is answered 204 does not ask again.
    assert_eq!(alerts.open(&first, "channel=alerts/web").await.head.status, 204);
    let me = alerts.get(&first, "/session").await;
    assert_eq!(me.status(), 401);
    let again = http::request(alerts.addr, "DELETE", "/session", &[("cookie", &first)], "").await;
    assert_eq!(again.status(), 204, "to log out twice does no harm");

    assert_eq!(
        alerts.put(&olga, "/people/ada/notices/2", &json!({"text": "Still here?"})).await.status(),
        200
    );
    alerts.mark(&olga, "end").await;
    assert_eq!(until(&mut elsewhere, "end").await, ["web later", "olga: Still here?"]);
    assert_eq!(until(&mut bobs, "end").await, [""; 0]);
    // Who logs in again in the same browser leaves the login before.
    let renewed = alerts.put(&second, "/session", &json!({"name": "ada", "password": "ada"})).await;
    assert_eq!(renewed.status(), 200);
    assert!(next(&mut elsewhere).await.is("$closing"));
}

/// P9: who may not see a stream any more hears nothing of it from the answer on, and comes back to what they may see.
#[actix_web::test]
async fn a_permission_that_is_taken_ends_what_it_gave() {
    let alerts = Alerts::start("revoked", &[]);
    let (olga, ada) = (alerts.log_in("olga").await, alerts.log_in("ada").await);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(alerts.live(&ada, "channel=alerts/payments&channel=alerts/web").await);
    }
    alerts.raised(&olga, "payments", "before").await;
    let permitted = alerts.put(&olga, "/people/ada/streams", &json!({"streams": ["web", "infra"]})).await;
    assert_eq!(permitted.status(), 204);
    alerts.raised(&olga, "payments", "after").await;
    let mut last = String::new();
    for client in &mut clients {
        let event = next(client).await;
        assert_eq!(short(&event), "payments before");
        last = event.id.expect("a cursor");
        let closing = next(client).await;
        assert_eq!(closing.text, "event: $closing\ndata: {\"reason\":\"expired_token\"}");
        assert_eq!(client.block().await, None);
    }
    assert_eq!(alerts.open(&ada, "channel=alerts/payments").await.head.status, 403);
    alerts.raised(&olga, "infra", "new").await;
    let mut back =
        alerts.live(&ada, &format!("channel=alerts/web&channel=alerts/infra&last_event_id={last}")).await;
    alerts.mark(&olga, "end").await;
    assert_eq!(until(&mut back, "end").await, ["infra new"]);
    let bad = alerts.put(&olga, "/people/ada/streams", &json!({"streams": ["a/b"]})).await;
    assert_eq!(bad.status(), 400);
}

/// P9: a stream that begins in the very moment in which its login or its permission ends, ends as well.
#[actix_web::test]
async fn what_begins_while_it_ends_ends_too() {
    const ROUNDS: usize = 40;
    const TABS: usize = 12;
    let alerts = Alerts::start("race", &[]);
    let olga = alerts.log_in("olga").await;
    let mut opened = Vec::new();
    for round in 0..ROUNDS {
        let ada = alerts.log_in("ada").await;
        let opening = join_all((0..TABS).map(|_| alerts.open(&ada, "channel=alerts/payments")));
        let headers = [("cookie", ada.as_str())];
        let ending = async {
            // A little later each time.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            http::request(alerts.addr, "DELETE", "/session", &headers, "").await
        };
        let (clients, ended) = futures_util::future::join(opening, ending).await;
        assert_eq!(ended.status(), 204);
        opened.extend(clients);
    }
    alerts.until_clients(&olga, 0, SOON).await;

    // No session has more clients than it may.
    let adas = join_all((0..ROUNDS).map(|_| alerts.log_in("ada"))).await;
    let opening =
        join_all((0..ROUNDS * TABS).map(|n| alerts.open(&adas[n % ROUNDS], "channel=alerts/payments")));
    let streams = json!({"streams": ["web"]});
    let taking = alerts.put(&olga, "/people/ada/streams", &streams);
    let (clients, taken) = futures_util::future::join(opening, taking).await;
    assert_eq!(taken.status(), 204);
    opened.extend(clients);
    alerts.until_clients(&olga, 0, SOON).await;
    opened.retain(|client| client.head.status == 200);
    println!("{} of {} were begun", opened.len(), 2 * ROUNDS * TABS);
    for mut client in opened {
        while let Some(event) = client.event().await {
            assert!(event.is("$welcome") || event.is("$closing"), "{event:?}");
        }
    }
}

/// Who comes back with their last cursor gets exactly what they missed of all their streams: in order, once, and nothing
/// that they may not see. Also when the server was killed meanwhile.
#[actix_web::test]
async fn who_comes_back_gets_what_they_missed() {
    let mut alerts = Alerts::start("resume", &[]);
    let (olga, ada) = (alerts.log_in("olga").await, alerts.log_in("ada").await);
    let query = "channel=alerts/payments&channel=alerts/web";
    let mut client = alerts.live(&ada, query).await;
    for n in 0..3 {
        alerts.raised(&olga, "web", &n.to_string()).await;
    }
    let mut last = String::new();
    for n in 0..2 {
        let event = next(&mut client).await;
        assert_eq!(short(&event), format!("web {n}"));
        last = event.id.expect("a cursor");
    }
    drop(client);
    let mut missed = vec!["web 2".to_owned()];
    for n in 10..40 {
        let stream = ["payments", "infra", "web"][n % 3];
        alerts.raised(&olga, stream, &n.to_string()).await;
        if stream != "infra" {
            missed.push(format!("{stream} {n}"));
        }
    }
    alerts.mark(&olga, "mark-1").await;
    let headers = [("cookie", ada.as_str()), ("last-event-id", last.as_str())];
    let path = format!("/rt/events?{query}");
    let mut back = SseClient::open(alerts.addr, &path, &headers).await;
    back.welcome().await;
    assert_eq!(until(&mut back, "mark-1").await, missed);

    // Logins are forgotten with the process; what was raised is not.
    alerts.kill();
    alerts.start_again(&[]);
    assert_eq!(SseClient::open(alerts.addr, &path, &headers).await.head.status, 401);
    let (olga, ada) = (alerts.log_in("olga").await, alerts.log_in("ada").await);
    alerts.raised(&olga, "payments", "40").await;
    missed.extend(["mark-1".into(), "payments 40".into()]);
    let headers = [("cookie", ada.as_str()), ("last-event-id", last.as_str())];
    let mut back = SseClient::open(alerts.addr, &path, &headers).await;
    back.welcome().await;
    alerts.mark(&olga, "mark-2").await;
    assert_eq!(until(&mut back, "mark-2").await, missed);
    alerts.raised(&olga, "web", "live").await;
    assert_eq!(short(&next(&mut back).await), "web live");
}

/// P4: whatever is sent for a cookie, the answer is a plain no, and the server goes on.
#[actix_web::test]
async fn a_bad_cookie_is_refused_and_harms_nobody() {
    let alerts = Alerts::start("cookies", &[]);
    let olga = alerts.log_in("olga").await;
    let mut live = alerts.live(&olga, "channel=alerts/*").await;
    let path = "/rt/events?channel=alerts/web";
    assert_eq!(http::get(alerts.addr, path).await.status(), 401);
    assert_eq!(http::get(alerts.addr, "/session").await.status(), 401);
    let basic = http::request(alerts.addr, "GET", path, &[("authorization", "Basic b2xnYTpvbGdh")], "").await;
    assert_eq!(basic.status(), 403, "the wrong kind of credentials");
    let wrong =
        http::request(alerts.addr, "PUT", "/session", &[JSON], r#"{"name":"ada","password":"bob"}"#).await;
    assert_eq!(wrong.status(), 401);
    let cut_off = &olga[..olga.len() - 1];
    assert_eq!(alerts.open(cut_off, "channel=alerts/web").await.head.status, 401);

    let mut random = rand::rng();
    for n in 0..1000 {
        let length = random.random_range(0..64);
        let value: String = if n % 4 == 0 {
            // Well formed, and nobody's.
            (0..32).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
        } else {
            let text = |_| char::from(random.random_range(0x21..0x7f_u8));
            (0..length).map(text).collect()
        };
        let name = ["alerts_session", "other"][n % 7 / 6];
        let answer =
            http::request(alerts.addr, "GET", path, &[("cookie", &format!("{name}={value}"))], "").await;
        assert!((400..500).contains(&answer.status()), "{} for {value:?}", answer.status());
    }
    alerts.raised(&olga, "web", "still-here").await;
    assert_eq!(short(&next(&mut live).await), "web still-here");
}

/// P1, P5: the first block comes at once, and a quiet stream shows that it is alive.
#[actix_web::test]
async fn a_stream_begins_at_once_and_shows_that_it_is_alive() {
    let alerts = Alerts::start("alive", &["--heartbeat", "200ms"]);
    let ada = alerts.log_in("ada").await;
    let mut fastest = Duration::MAX;
    let mut client = None;
    // What else runs on this machine may hold up one or the other.
    for _ in 0..5 {
        let start = Instant::now();
        let mut opened = alerts.open(&ada, "channel=alerts/web").await;
        assert_eq!(opened.head.header("content-type"), Some("text/event-stream"));
        assert!(opened.head.header("cache-control").is_some_and(|value| value.contains("no-cache")));
        let first = opened.block().await.expect("a first block");
        assert!(first.retry.is_some(), "{first:?}");
        opened.welcome().await;
        fastest = fastest.min(start.elapsed());
        client = Some(opened);
    }
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    let (mut client, start) = (client.expect("the last one"), Instant::now());
    for _ in 0..5 {
        let ping = client.block().await.expect("a ping");
        assert_eq!((ping.comment.as_deref(), ping.data), (Some("ping"), None), "and nothing else comes");
    }
    // Within the heartbeat each, and as much again for a machine that is busy.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// P6: who is gone, with or without a farewell, is gone from the registry, on quiet streams too.
#[actix_web::test]
async fn who_is_gone_is_forgotten() {
    let alerts = Alerts::start("gone", &[]);
    let (olga, ada, bob) =
        (alerts.log_in("olga").await, alerts.log_in("ada").await, alerts.log_in("bob").await);
    let mut clients = Vec::new();
    for n in 0..40 {
        let (who, query) = [(&ada, "channel=alerts/web"), (&bob, "channel=alerts/infra")][n % 2];
        clients.push(alerts.live(who, query).await);
    }
    let status = alerts.until_clients(&olga, 40, SOON).await;
    assert_eq!(status["sessions"], 2);
    for (n, client) in clients.into_iter().enumerate() {
        if n % 4 < 2 {
            // A reset instead of a farewell.
            client.socket.set_zero_linger().expect("an option");
        }
        drop(client);
    }
    let status = alerts.until_clients(&olga, 0, SOON).await;
    assert_eq!((&status["sessions"], &status["channels"]), (&json!(0), &json!(0)), "{status}");
    let ada_again = alerts.get(&ada, "/rt/status").await;
    assert_eq!(ada_again.status(), 403, "for operators only");
}

/// P7, P8, P10, P11: nobody is there yet and an alert is kept; then a hundred come at once, some of the same new login,
/// while one does not read. Each gets every alert, at once, and the one that did not read gets them when it does.
#[actix_web::test]
async fn one_that_does_not_read_harms_nobody() {
    const FLOOD: usize = 100;
    const LIVE: usize = 30;
    let alerts = Alerts::start("crowd", &[]);
    let olga = alerts.log_in("olga").await;
    alerts.raised(&olga, "web", "first").await;

    let mut stalled = alerts.live(&olga, "channel=alerts/*").await;
    let long = "x".repeat(30_000);
    for n in 0..FLOOD {
        alerts.raised(&olga, "infra", &format!("{n:03}{long}")[..40]).await;
        let body =
            json!({"stream": "infra", "name": "long", "criticality": "info", "text": format!("{n} {long}")});
        assert_eq!(alerts.put(&olga, &format!("/alerts/long-{n}"), &body).await.status(), 200);
    }
    // No session has more clients than it may.
    let mut sessions = vec![olga.clone()];
    for name in ["ada", "olga", "ada", "olga"] {
        sessions.push(alerts.log_in(name).await);
    }
    let opening = (0..100).map(|n| alerts.live(&sessions[n % 5], "channel=alerts/web"));
    let mut clients = join_all(opening).await;
    alerts.until_clients(&olga, 101, SOON).await;

    let (mut answers, mut deliveries) = (Vec::new(), Vec::new());
    for n in 0..LIVE {
        let start = Instant::now();
        alerts.raised(&olga, "web", &n.to_string()).await;
        answers.push(start.elapsed());
        let expected = format!("web {n}");
        let reading = clients.iter_mut().map(async |client| {
            assert_eq!(short(&next(client).await), expected);
            start.elapsed()
        });
        deliveries.extend(join_all(reading).await);
    }
    answers.sort_unstable();
    deliveries.sort_unstable();
    let (answer, delivery) = (answers[LIVE * 9 / 10], deliveries[deliveries.len() * 9 / 10]);
    println!(
        "90% of answers within {answer:?}, of deliveries within {delivery:?}; the last {:?}",
        deliveries.last()
    );
    assert!(answer.max(delivery) < Duration::from_millis(500), "{answer:?} {delivery:?}");

    // It was behind by more than any buffer holds, and has missed nothing.
    for n in 0..FLOOD {
        let alert = short(&next(&mut stalled).await);
        assert!(alert.starts_with(&format!("infra {n:03}x")), "{n}: {}", &alert[..20]);
        let alert = short(&next(&mut stalled).await);
        assert!(alert.len() > 30_000 && alert.starts_with(&format!("infra {n} ")), "{n}: {}", &alert[..20]);
    }
    for n in 0..LIVE {
        assert_eq!(short(&next(&mut stalled).await), format!("web {n}"));
    }
    let mut early = alerts.live(&sessions[1], "channel=alerts/web&from=earliest").await;
    assert_eq!(short(&next(&mut early).await), "web first");
}

const LIVE: &str = "document.getElementById('state').dataset.state === 'live'";
const LOGIN: &str = "document.getElementById('login').open";

fn log_in(browser: &Browser<'_>, name: &str) {
    browser.until("a name is asked for", SOON, LOGIN);
    browser.eval("document.getElementById('login-form').reset()");
    browser.type_into("#name", name);
    browser.type_into("#password", &format!("{name}\n"));
    browser.until("the page is live", SOON, LIVE);
}

/// Whether the page shows exactly these alerts in the column of a criticality, from the top.
fn column(criticality: &str, alerts: &[&str]) -> String {
    let texts = format!(
        "[...document.querySelectorAll('#board [data-criticality={criticality}] .alert')].map((one) =>"
    );
    let parts =
        "['.name', '.badge', '.text'].map((part) => one.querySelector(part)?.textContent ?? '').join('|'))";
    format!("JSON.stringify({texts} {parts}) === JSON.stringify({})", json!(alerts))
}

fn notices(texts: &[&str]) -> String {
    let shown = "[...document.querySelectorAll('#notices p')].map((one) => one.textContent)";
    format!("JSON.stringify({shown}) === JSON.stringify({})", json!(texts))
}

/// The page shows what is raised over HTTP by its criticality, filters it, finds back by itself, and after a restart of the
/// server and another login; it shows nothing that its person may not see.
#[actix_web::test]
async fn the_page_shows_alerts_by_their_criticality() {
    let mut alerts = Alerts::start("page", &[]);
    let driver = Driver::start();
    let (page, adas) = (driver.browser(), driver.browser());
    let url = format!("http://{}/", alerts.addr);
    page.goto(&url);
    page.until("a name is asked for", SOON, LOGIN);
    page.type_into("#name", "olga");
    page.type_into("#password", "wrong\n");
    page.until("it is refused", SOON, "document.getElementById('login-error').textContent !== ''");
    log_in(&page, "olga");
    adas.goto(&url);
    log_in(&adas, "ada");

    let mut olga = alerts.log_in("olga").await;
    let raise = async |alerts: &Alerts, olga: &str, id: &str, alert: [&str; 4], state: &str| {
        let [stream, name, criticality, text] = alert;
        let body =
            json!({"stream": stream, "name": name, "criticality": criticality, "state": state, "text": text});
        assert_eq!(alerts.put(olga, &format!("/alerts/{id}"), &body).await.status(), 200);
    };
    for (id, alert) in [
        ("1", ["infra", "Disk full", "error", "eu-7 has 200 MB left of 2 TB"]),
        ("2", ["payments", "Card errors", "error", "9% of the last 5 minutes"]),
        ("3", ["web", "Slow pages", "warn", "Half of them take more than 2 s"]),
        ("4", ["web", "Deployed", "info", "Version 7 <b>runs</b>"]),
        ("5", ["infra", "Certificate", "warn", "Ends in 9 days"]),
    ] {
        raise(&alerts, &olga, id, alert, "triggered").await;
    }
    raise(&alerts, &olga, "6", ["web", "Slow pages", "warn", "0.3 s"], "resolved").await;
    let left = json!({"event": "node_left", "node": "eu-7"});
    assert_eq!(alerts.put(&olga, "/control/1", &left).await.status(), 200);
    let word = json!({"text": "Please look at the cards"});
    assert_eq!(alerts.put(&olga, "/people/ada/notices/1", &word).await.status(), 200);

    page.until("the notice is shown", SOON, &notices(&["Node eu-7 has left."]));
    let errors =
        ["Card errors|error|9% of the last 5 minutes", "Disk full|error|eu-7 has 200 MB left of 2 TB"];
    let warnings = ["Slow pages|resolved|0.3 s", "Certificate|warn|Ends in 9 days"];
    page.until("the errors are shown", SOON, &column("error", &errors));
    page.until("the warnings are shown", SOON, &column("warn", &warnings));
    page.until("the rest is shown", SOON, &column("info", &["Deployed|info|Version 7 <b>runs</b>"]));
    page.until("open ones are counted", SOON, "document.title === '(4) Alerts'");
    page.take_pictures("alerts");
    // Ada may not see the machines, and a word to her is hers.
    adas.until("Ada sees hers", SOON, &notices(&["olga: Please look at the cards", "Node eu-7 has left."]));
    adas.until("Ada sees her error", SOON, &column("error", &errors[..1]));
    adas.until("Ada sees her warning", SOON, &column("warn", &warnings[..1]));
    adas.until("Ada is no operator", SOON, "document.getElementById('raise').hidden");

    // Filtered by the server: what is kept out never comes.
    page.eval("document.querySelector('[data-filter=error]').click()");
    page.until("only errors are left", SOON, &column("error", &errors));
    raise(&alerts, &olga, "7", ["web", "Slow again", "warn", "4 s"], "triggered").await;
    raise(&alerts, &olga, "8", ["web", "Down", "error", ""], "triggered").await;
    let errors = ["Down|error|", errors[0], errors[1]];
    page.until("the new error is shown", SOON, &column("error", &errors));
    page.until("no warning is", SOON, &column("warn", &[]));
    page.eval("document.querySelector('[data-filter=\"\"]').click()");
    let warnings = ["Slow again|warn|4 s", warnings[0], warnings[1]];
    page.until("all are shown again", SOON, &column("warn", &warnings));

    // Without a network for a while: what was raised meanwhile comes, once.
    page.cut(true);
    page.until("it is not live", SOON, "document.getElementById('state').dataset.state === 'reconnecting'");
    raise(&alerts, &olga, "9", ["web", "Missed", "info", "1"], "triggered").await;
    raise(&alerts, &olga, "10", ["web", "Missed too", "info", "2"], "triggered").await;
    assert_eq!(
        alerts.put(&olga, "/control/2", &json!({"event": "node_joined", "node": "eu-8"})).await.status(),
        200
    );
    page.cut(false);
    page.until("it is back", SOON, LIVE);
    let infos = ["Missed too|info|2", "Missed|info|1", "Deployed|info|Version 7 <b>runs</b>"];
    page.until("what was missed is shown", SOON, &column("info", &infos));
    // What has no place in the streams that it follows anew was shown before and is not shown twice.
    page.until("also what is for everyone", SOON, &format!("{}.endsWith('{}')", NOTICES, "joined."));

    // The server forgets who is logged in, and not what was raised.
    alerts.kill();
    page.until(
        "the server is gone",
        SOON,
        "document.getElementById('state').dataset.state === 'reconnecting'",
    );
    alerts.start_again(&[]);
    olga = alerts.log_in("olga").await;
    raise(&alerts, &olga, "11", ["web", "After the restart", "info", "3"], "triggered").await;
    log_in(&page, "olga");
    let infos = ["After the restart|info|3", infos[0], infos[1], infos[2]];
    page.until("what was raised meanwhile is shown", SOON, &column("info", &infos));

    // Ada is given another stream, and her page follows that from now on.
    log_in(&adas, "ada");
    let streams = json!({"streams": ["infra"]});
    assert_eq!(alerts.put(&olga, "/people/ada/streams", &streams).await.status(), 204);
    adas.until(
        "Ada sees the machines",
        SOON,
        &column("error", &["Disk full|error|eu-7 has 200 MB left of 2 TB"]),
    );
    adas.until("and nothing else", SOON, &column("info", &[]));
    adas.until("she is live", SOON, LIVE);

    // A page that is logged out in another window shows nothing more.
    let first = page.window();
    page.new_window();
    page.goto(&url);
    page.until("the second window is live", SOON, LIVE);
    page.eval("document.getElementById('logout').click()");
    page.until("a name is asked for", SOON, LOGIN);
    page.switch(&first);
    page.until("also in the first", SOON, LOGIN);
    page.until("and nothing is left", SOON, &column("error", &[]));
    assert_eq!(page.complaints(), Vec::<String>::new());
    assert_eq!(adas.complaints(), Vec::<String>::new());
}

const NOTICES: &str = "document.querySelector('#notices p').textContent";
