//! WebSocket clients that others wrote, the one in Chromium and Python's package `websockets`: what they offer, how they
//! cut their messages, what they break, and every code that a conversation ends with.
//!
//! Needs `chromium`, `chromedriver`, and what `pip` puts into `tests/foreign/python`; see `scripts/test`.

mod support;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::future::ready;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime};

use fanfare::http::{Grant, HttpConfig};
use fanfare::{
    Batch, Broadcast, Broker, Builder, CloseReason, CloseSession, Drain, Event, Selector, SessionId,
};
use serde_json::{Value, json};
use support::{TestServer, serve_with};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use webdriver::{Browser, Driver};

const PATIENCE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(200);
const STALL: Duration = Duration::from_millis(800);

/// A server that grants everything, for as long as the query says in milliseconds, and tells what extensions it is offered.
fn server(builder: Builder) -> (TestServer, UnboundedReceiver<String>) {
    let (tell, offered) = unbounded_channel();
    let config = HttpConfig::default().authorize(move |request| {
        if let Some(extensions) = request.headers().get("sec-websocket-extensions") {
            // Most tests do not listen.
            let _ = tell.send(extensions.to_str().expect("text").to_owned());
        }
        let all = || Selector::new("**").expect("valid");
        let grant = Grant::new(SessionId::mint()).subscribe([all()]).publish([all()]);
        let expires = request.query_string().strip_prefix("expires=").and_then(|ms| ms.parse().ok());
        ready(Ok(match expires {
            Some(ms) => grant.expires(SystemTime::now() + Duration::from_millis(ms)),
            None => grant,
        }))
    });
    (serve_with(builder, config), offered)
}

fn small_buffers() -> Builder {
    Broker::builder().ring(64, 1 << 20).feed(32, 1 << 17).heartbeat(BEAT).stall_timeout(STALL)
}

async fn publish(server: &TestServer, channel: &str, data: &str) {
    let event = Event::text("message", data).expect("valid");
    let broadcast = Broadcast::channel(channel, event).expect("valid");
    server.broker.send(broadcast).await.expect("answered").expect("committed");
}

/// More than fits between a server and a client that does not read.
const FLOOD: usize = 6000;

async fn flood(server: &TestServer) {
    let padding = "x".repeat(4096);
    for first in (0..FLOOD).step_by(100) {
        let event = |n| Event::text("message", format!("{n} {padding}")).expect("valid");
        let batch = (first..first + 100).map(|n| Broadcast::channel("w", event(n)).expect("valid"));
        let batch = Batch::new(batch.collect::<Vec<_>>()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
    }
}

/// The package as a process that prints what happens.
struct Python {
    child: Child,
    input: ChildStdin,
    lines: UnboundedReceiver<Value>,
}

impl Python {
    fn start(server: &TestServer, args: [&str; 3], is_pausing: bool) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
        let python = folder.join("python/bin/python");
        assert!(python.exists(), "{} is not there: see scripts/test", python.display());
        let [what, path, argument] = args;
        let mut command = Command::new(python);
        command.arg(folder.join("sockets.py")).args([what, &format!("ws://{}{path}", server.addr)]);
        command.args(Some(argument).filter(|argument| !argument.is_empty()));
        if is_pausing {
            command.env("PAUSE", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let (tell, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in output {
                if tell.send(serde_json::from_str(&line).expect("JSON")).is_err() {
                    break;
                }
            }
        });
        Self { input: child.stdin.take().expect("piped"), child, lines }
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.expect("something within the test's patience").expect("not the end")
    }

    async fn message(&mut self) -> Value {
        let line = self.next().await;
        assert!(line["message"].is_object(), "{line}");
        line["message"].clone()
    }

    /// What it was offered and took, past which it is `subscribed`; its session.
    async fn subscribed(&mut self) -> SessionId {
        let opened = self.next().await;
        assert_eq!(opened["subprotocol"], "fanfare.v1.json", "of those offered");
        assert!(opened["offered"].as_str().is_some_and(|offered| offered.contains("permessage-deflate")));
        assert_eq!(opened["extensions"], Value::Null, "none is taken");
        let welcome = self.message().await;
        assert_eq!((&welcome["op"], &self.message().await["op"]), (&json!("welcome"), &json!("subscribed")));
        welcome["session"].as_str().and_then(|session| session.parse().ok()).expect("a session")
    }

    /// That the server ended the conversation with these, and was answered.
    async fn is_ended_with(&mut self, code: u16, reason: &str) {
        let end = self.next().await;
        assert_eq!(end["received"], json!([code, reason]), "{end}");
        assert_eq!((&end["sent"][0], &end["received_first"]), (&json!(code), &json!(true)), "{end}");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[actix_web::test]
async fn python_speaks_in_fragments_with_pings_between() {
    let (server, _) = server(Broker::builder());
    let mut python = Python::start(&server, ["fragments", "/rt/ws", ""], false);
    python.subscribed().await;
    let mut pongs = 0;
    let mut messages = Vec::new();
    while messages.len() < 2 {
        let line = python.next().await;
        if line["pong"].is_u64() {
            assert!(messages.is_empty(), "a pong comes while the message is on its way");
            pongs += 1;
        } else {
            messages.push(line["message"].clone());
        }
    }
    assert!(pongs > 50, "{pongs}");
    messages.sort_by_key(|message| message["op"].to_string());
    assert_eq!((&messages[0]["op"], &messages[0]["data"]), (&json!("event"), &json!("ä€𝄞".repeat(50))));
    assert_eq!((&messages[1]["op"], &messages[1]["ref"]), (&json!("published"), &json!(2)));
    let end = python.next().await;
    assert_eq!((&end["sent"], &end["received"][0]), (&json!([4321, "that is all"]), &json!(4321)));
    assert_eq!(end["received_first"], false);
    server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
}

#[actix_web::test]
async fn python_is_told_what_it_breaks() {
    let (server, _) = server(Broker::builder());
    for (kind, code) in [
        ("not_json", 1003),
        ("binary", 1003),
        ("invalid_utf8", 1007),
        ("invalid_utf8_in_fragments", 1007),
        ("oversized", 1009),
        ("oversized_in_fragments", 1009),
    ] {
        let mut python = Python::start(&server, ["breach", "/rt/ws", kind], false);
        assert_eq!(python.next().await["subprotocol"], Value::Null, "{kind}");
        assert_eq!(python.message().await["op"], "welcome");
        let end = python.next().await;
        assert_eq!(
            (&end["received"][0], &end["received_first"]),
            (&json!(code), &json!(true)),
            "{kind}: {end}"
        );
    }
    server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
}

#[actix_web::test]
async fn python_is_told_why_the_server_ends() {
    let (server, _) = server(small_buffers());
    // It answers pings by itself, for longer than a silent one would be kept.
    let mut python = Python::start(&server, ["follow", "/rt/ws", "w"], false);
    let session = python.subscribed().await;
    tokio::time::sleep(BEAT * 6).await;
    publish(&server, "w", "still there").await;
    assert_eq!(python.message().await["data"], "still there");
    server.broker.do_send(CloseSession { session, reason: CloseReason::Revoked });
    let closing = python.message().await;
    assert_eq!((&closing["op"], &closing["reason"]), (&json!("closing"), &json!("revoked")));
    python.is_ended_with(4001, "revoked").await;

    let mut python = Python::start(&server, ["follow", "/rt/ws?expires=1500", "none"], false);
    python.subscribed().await;
    assert_eq!(python.message().await["reason"], "expired_token");
    python.is_ended_with(4002, "expired_token").await;

    let mut python = Python::start(&server, ["follow", "/rt/ws", "none"], false);
    python.subscribed().await;
    server.broker.do_send(Drain);
    let closing = python.message().await;
    assert_eq!((&closing["reason"], closing["retry"].is_u64()), (&json!("draining"), true), "{closing}");
    python.is_ended_with(1012, "draining").await;
}

/// The package takes nothing more from the kernel while nobody takes its messages.
#[actix_web::test]
async fn python_that_does_not_read_is_told_when_it_does() {
    let (server, _) = server(small_buffers());
    let mut python = Python::start(&server, ["follow", "/rt/ws", "w"], true);
    python.subscribed().await;
    flood(&server).await;
    server.until(Duration::from_secs(5), |stats| stats.clients == 0).await;
    writeln!(python.input, "go on").expect("written");
    let mut seen = 0;
    let closing = loop {
        let message = python.message().await;
        if message["op"] != "event" {
            break message;
        }
        assert!(
            message["data"].as_str().is_some_and(|data| data.starts_with(&format!("{seen} "))),
            "in order"
        );
        seen += 1;
    };
    assert!((1..FLOOD).contains(&seen), "{seen}");
    assert_eq!((&closing["op"], &closing["reason"]), (&json!("closing"), &json!("slow")));
    python.is_ended_with(4008, "slow").await;
}

/// Opens a socket as `window.<name>`, which notes what happens.
fn open(browser: &Browser<'_>, name: &str, path: &str, protocols: &Value) {
    browser.eval(&format!(
        "(window.{name} = {{ messages: [], ended: null, isOpen: false, \
           socket: new WebSocket(location.origin.replace('http', 'ws') + '{path}', {protocols}) }}, \
         {name}.socket.onopen = () => {{ {name}.isOpen = true; }}, \
         {name}.socket.onmessage = ({{ data }}) => {name}.messages.push(JSON.parse(data)), \
         {name}.socket.onclose = ({{ code, reason, wasClean }}) => {{ {name}.ended = [code, reason, wasClean]; }}, 0)"
    ));
}

fn subscribe(browser: &Browser<'_>, name: &str, channel: &str) -> SessionId {
    browser.until("welcomed", PATIENCE, &format!("{name}.messages[0]?.op === 'welcome'"));
    let ask = json!({"op": "subscribe", "ref": 1, "channels": [channel], "from": "earliest"});
    browser.eval(&format!("{name}.socket.send(JSON.stringify({ask}))"));
    browser.until("subscribed", PATIENCE, &format!("{name}.messages[1]?.op === 'subscribed'"));
    let session = browser.eval(&format!("{name}.messages[0].session"));
    session.as_str().and_then(|session| session.parse().ok()).expect("a session")
}

fn ended(browser: &Browser<'_>, name: &str) -> Value {
    browser.until("the end", PATIENCE, &format!("{name}.ended !== null"));
    browser.eval(&format!("{name}.ended"))
}

/// Opens some page of the server, whose sockets it may open then.
async fn at_home(browser: &Browser<'_>, server: &TestServer) {
    // A browser is waited for in the way of everything else on this thread: the server runs before.
    assert_eq!(support::http::get(server.addr, "/rt/presence?channel=none").await.status(), 200);
    browser.goto(&format!("http://{}/rt/presence?channel=none", server.addr));
}

#[actix_web::test]
async fn chromium_speaks() {
    let (server, mut offered) = server(Broker::builder().heartbeat(BEAT));
    let driver = Driver::start();
    let browser = driver.browser();
    at_home(&browser, &server).await;
    open(&browser, "a", "/rt/ws", &json!(["chat", "fanfare.v1.json"]));
    subscribe(&browser, "a", "talk");
    assert_eq!(browser.eval("[a.socket.protocol, a.socket.extensions]"), json!(["fanfare.v1.json", ""]));
    let offer = offered.recv().await.expect("an offer");
    assert!(offer.starts_with("permessage-deflate"), "{offer}");

    // As large as a payload may be, in as many frames as it likes, and small ones.
    browser.eval(
        "(window.big = 'ä'.repeat(130000), [big, 'small'].forEach((data, ref) => \
         a.socket.send(JSON.stringify({ op: 'publish', ref, channel: 'talk', data }))))",
    );
    browser.until("both are told", PATIENCE, "a.messages.length === 6");
    let data = "a.messages.filter(({ op }) => op === 'event').map(({ data }) => data)";
    assert_eq!(browser.eval(&format!("JSON.stringify({data}) === JSON.stringify([big, 'small'])")), true);
    browser.eval("a.socket.send('{\"op\":\"ping\",\"ref\":7}')");
    browser.until("a pong", PATIENCE, "a.messages[6]?.op === 'pong'");

    // It answers pings by itself, for longer than a silent one would be kept.
    tokio::time::sleep(BEAT * 6).await;
    assert_eq!((browser.eval("a.ended"), server.stats().await.clients), (Value::Null, 1));
    browser.eval("a.socket.close(4321, 'that is all')");
    let end = ended(&browser, "a");
    assert_eq!((&end[0], &end[2]), (&json!(4321), &json!(true)), "{end}");
    open(&browser, "b", "/rt/ws", &json!([]));
    subscribe(&browser, "b", "talk");
    assert_eq!(browser.eval("b.socket.protocol"), "");
    browser.eval("b.socket.close()");
    assert_eq!(ended(&browser, "b"), json!([1005, "", true]));
    open(&browser, "c", "/rt/ws", &json!(["chat"]));
    assert_eq!((&ended(&browser, "c")[0], browser.eval("c.isOpen")), (&json!(1006), json!(false)));
    server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
}

#[actix_web::test]
async fn chromium_is_told_what_it_breaks() {
    let (server, _) = server(Broker::builder());
    let driver = Driver::start();
    let browser = driver.browser();
    at_home(&browser, &server).await;
    // What it has not sent yet when the end comes makes that unclean in its eyes.
    for (name, code, is_clean, message) in [
        ("text", 1003, true, "'{'"),
        ("binary", 1003, true, "new Uint8Array([123, 125])"),
        ("large", 1009, true, "'x'.repeat(1048577)"),
        ("larger", 1009, false, "'ä'.repeat(4000000)"),
    ] {
        open(&browser, name, "/rt/ws", &json!([]));
        subscribe(&browser, name, "w");
        browser.eval(&format!("{name}.socket.send({message})"));
        let end = ended(&browser, name);
        assert_eq!(end[0], code, "{name}: {end}");
        assert!(!is_clean || end[2] == true, "{name}: {end}");
    }
}

#[actix_web::test]
async fn chromium_is_told_why_the_server_ends() {
    // The page is busy for longer than this, and not for twice as long: it has this time once more to take the end.
    let stall = Duration::from_secs(4);
    let (server, _) = server(small_buffers().stall_timeout(stall));
    let driver = Driver::start();
    let browser = driver.browser();
    at_home(&browser, &server).await;
    open(&browser, "a", "/rt/ws", &json!([]));
    let session = subscribe(&browser, "a", "none");
    server.broker.do_send(CloseSession { session, reason: CloseReason::Revoked });
    assert_eq!(ended(&browser, "a"), json!([4001, "revoked", true]));
    assert_eq!(browser.eval("a.messages.at(-1).reason"), "revoked");

    open(&browser, "b", "/rt/ws?expires=1000", &json!([]));
    subscribe(&browser, "b", "none");
    assert_eq!(ended(&browser, "b"), json!([4002, "expired_token", true]));

    // A page that is busy takes nothing, and is told when it does again.
    open(&browser, "c", "/rt/ws", &json!([]));
    subscribe(&browser, "c", "w");
    // Later, or it would be busy before it has answered this.
    browser.eval(
        "(setTimeout(() => { c.socket.send('{\"op\":\"publish\",\"channel\":\"busy\"}'); \
         const end = Date.now() + 6500; while (Date.now() < end); }, 500), 0)",
    );
    server.until(PATIENCE, |stats| stats.published == 1).await;
    flood(&server).await;
    server.until(PATIENCE, |stats| stats.clients == 0).await;
    assert_eq!(ended(&browser, "c"), json!([4008, "slow", true]));
    let seen =
        browser.eval("c.messages.filter(({ op }) => op === 'event').map(({ data }) => parseInt(data))");
    let seen: Vec<usize> = serde_json::from_value(seen).expect("numbers");
    assert!(
        seen.len() < FLOOD && seen.iter().copied().eq(0..seen.len()),
        "a whole beginning: {}",
        seen.len()
    );
    assert_eq!(browser.eval("c.messages.at(-1).reason"), "slow");

    open(&browser, "d", "/rt/ws", &json!([]));
    subscribe(&browser, "d", "none");
    server.broker.do_send(Drain);
    assert_eq!(ended(&browser, "d"), json!([1012, "draining", true]));
    assert_eq!(browser.eval("Number.isInteger(d.messages.at(-1).retry)"), true);
}
