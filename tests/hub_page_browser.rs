//! The hub's page in a real browser: what it shows of a hub that has work to do, and its consoles.
//!
//! Needs `chromium` and `chromedriver`; see `scripts/test`.

#![cfg(feature = "hub")]

mod support;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use support::hub::Hub;
use support::sse::SseClient;
use support::ws::WsClient;
use support::{http, token};
use tokio::io::AsyncReadExt;
use webdriver::{Browser, Driver};

const SOON: Duration = Duration::from_secs(15);

/// People who follow and publish, for as long as it lives.
struct Crowd {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn gather(addr: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let thread = std::thread::spawn(move || actix_web::rt::System::new().block_on(work(addr, until)));
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn work(addr: SocketAddr, is_over: Arc<AtomicBool>) {
    for n in 0..60 {
        let mut client = SseClient::open(addr, &format!("/events?channel=shop/{}/**", n % 4), &[]).await;
        actix_web::rt::spawn(async move {
            let mut piece = [0; 16_384];
            while client.socket.read(&mut piece).await.is_ok_and(|count| count > 0) {}
        });
    }
    for _ in 0..15 {
        let mut client = WsClient::open(addr, "/ws", &[]).await;
        client.json().await;
        client.subscribe(&["shop/*/orders"], None).await;
        actix_web::rt::spawn(async move {
            // It answers pings, or it would be taken for gone.
            while client.frame().await.is_some() {}
        });
    }
    let kinds = ["orders", "orders", "orders", "stock", "prices", "visits/today"];
    let mut round: u64 = 0;
    while !is_over.load(Ordering::Relaxed) {
        round += 1;
        // It comes and goes, as days do.
        let wave = (round as f64 / 12.0).sin() + 1.2;
        let events: Vec<_> = (0..(8.0 * wave) as u64)
            .map(|n| {
                let (shop, kind) = ((round * 7 + n * n) % 5 % 4, kinds[((round + n * 3) % 6) as usize]);
                json!({"channel": format!("shop/{shop}/{kind}"), "event": "changed", "data": {"round": round, "n": n}})
            })
            .collect();
        http::post_json(addr, "/publish", &json!(events).to_string()).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

fn text(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

/// Fills a field as a person would who has cleared it first.
fn fill(browser: &Browser<'_>, id: &str, value: &str) {
    browser.eval(&format!("document.getElementById('{id}').value = ''"));
    browser.type_into(&format!("#{id}"), value);
}

fn click(browser: &Browser<'_>, id: &str) {
    browser.eval(&format!("document.getElementById('{id}').click()"));
}

fn received(part: &str) -> String {
    format!("document.getElementById('blocks').textContent.includes({part:?})")
}

/// The page shows the work of a hub as it goes on, and both consoles do theirs, over either transport.
#[test]
fn the_page_shows_what_the_hub_does() {
    let hub = Hub::start(&[]);
    let crowd = Crowd::gather(hub.addr);
    let driver = Driver::start();
    let browser = driver.browser();
    browser.goto(&format!("http://{}/", hub.addr));
    browser.until("the hub is ready", SOON, &format!("{} === 'ready'", text("hub-state")));
    browser.until("75 clients are there", SOON, &format!("Number({}) >= 75", text("clients")));
    browser.until(
        "connections are told by transport",
        SOON,
        &format!("{} === '60' && {} === '15'", text("now-sse"), text("now-ws")),
    );
    browser.until(
        "rates are told",
        SOON,
        &format!("parseFloat({}) > 1 && parseFloat({}) > 1", text("now-published"), text("now-delivered")),
    );
    browser.until(
        "latency is told",
        SOON,
        &format!("{}.endsWith(' ms') && {}.endsWith(' ms')", text("now-p50"), text("now-p99")),
    );
    browser.until(
        "the busiest channels are told",
        SOON,
        "document.querySelectorAll('#busiest li').length === 6",
    );

    fill(&browser, "sub-channels", "shop/1/**");
    fill(&browser, "pub-channel", "shop/1/orders");
    fill(&browser, "pub-data", "{\"hello\":\"by SSE\"}");
    click(&browser, "connect");
    browser.until("the stream is there", SOON, &format!("{} === 'connected'", text("stream-state")));
    click(&browser, "send");
    browser.until("what was published has come", SOON, &received("by SSE"));
    browser.eval("document.getElementById('client-id').form.requestSubmit()");
    browser.until(
        "the own client is told of",
        SOON,
        &format!("{}.startsWith('live')", text("client-summary")),
    );
    let told = browser.eval(&text("client-body"));
    assert!(told.as_str().is_some_and(|told| told.contains("\"transport\": \"sse\"")), "{told}");

    browser.eval("document.getElementById('sub-by').value = 'ws'");
    click(&browser, "connect");
    browser.until(
        "the socket has welcomed",
        SOON,
        "document.getElementById('blocks').textContent.includes('has taken the subscription')",
    );
    fill(&browser, "pub-data", "{\"hello\":\"by WebSocket\"}");
    click(&browser, "send");
    browser.until("what was published has come", SOON, &received("by WebSocket"));
    browser.until(
        "the first client has ended",
        SOON,
        &format!(
            "(document.getElementById('client-id').form.requestSubmit(), {}.startsWith('closed: client'))",
            text("client-summary")
        ),
    );

    if std::env::var("FANFARE_PICTURES").is_ok() {
        std::thread::sleep(Duration::from_secs(50));
    }
    browser.eval("document.activeElement.blur()");
    for (name, part) in [("hub", ".top"), ("hub-plots", ".plots"), ("hub-consoles", ".consoles")] {
        // The page is laid out anew for each size, and is to show this part in each.
        browser.eval(&format!(
            "(window.keptInView?.disconnect(), window.keptInView = new ResizeObserver(() => \
             document.querySelector('{part}').scrollIntoView()), window.keptInView.observe(document.body), \
             document.querySelector('{part}').scrollIntoView())"
        ));
        browser.take_pictures(name);
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    drop(crowd);
}

/// A hub with keys asks for a token, and with one it is as open as the token says.
#[test]
fn a_token_opens_the_page_of_a_hub_with_keys() {
    let hub = Hub::start(&["--jwt-key", &format!("HS256:{}", token::SECRET)]);
    let driver = Driver::start();
    let browser = driver.browser();
    browser.goto(&format!("http://{}/", hub.addr));
    browser.until("a token is asked for", SOON, &format!("{} === 'needs a token'", text("hub-state")));
    browser.take_pictures("hub-token");
    let token = token::granting(json!({"subscribe": ["**"], "publish": ["**"], "admin": true}));
    browser.type_into("#token", &format!("{token}\n"));
    browser.until("the hub is ready", SOON, &format!("{} === 'ready'", text("hub-state")));
    let curl = browser.eval(&text("curl-publish"));
    assert!(curl.as_str().is_some_and(|curl| curl.contains("$TOKEN") && !curl.contains(&token)), "{curl}");
    for (transport, data) in [("sse", "one"), ("ws", "two")] {
        browser.eval(&format!("document.getElementById('sub-by').value = '{transport}'"));
        click(&browser, "connect");
        browser.until("the stream is there", SOON, &format!("{} === 'connected'", text("stream-state")));
        std::thread::sleep(Duration::from_millis(300));
        fill(&browser, "pub-data", &format!("{{\"number\":\"{data}\"}}"));
        click(&browser, "send");
        browser.until("what was published has come", SOON, &received(data));
    }
    browser.until("no token is left behind as a cookie", SOON, "!document.cookie.includes('fanfare_token')");
    // Each transport's complaint about the 401 of the first question is of the network, not of the page.
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
