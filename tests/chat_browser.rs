//! The chat example in real browsers: two people see each other, and still do after the server was killed. What was said
//! meanwhile is there, and where it cannot be, they are told.
//!
//! Needs `chromium` and `chromedriver`; see `scripts/test`.

#![cfg(test)]

#[path = "support/example.rs"]
mod example;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use example::Example;
use webdriver::{Browser, Driver};

const SOON: Duration = Duration::from_secs(10);
/// How soon after the server's return every page must be live again.
const BACK: Duration = Duration::from_secs(6);
const LIVE: &str = "document.getElementById('state').dataset.state === 'live'";
const LOST: &str = "document.getElementById('state').dataset.state === 'reconnecting'";

#[test]
fn two_people_meet_and_meet_again_after_the_server_was_killed() {
    let (addr, folder) = (free_address(), Folder::new("meet"));
    let mut chat = start_chat(addr, &folder, &[]);
    let driver = Driver::start();
    let (ada, bob) = (driver.browser(), driver.browser());
    let url = format!("http://{addr}/rooms/tea-house");

    // Ada has two windows, which are one person; Bob cannot take her name.
    ada.goto(&url);
    introduce(&ada, "Ada");
    let (first, second) = (ada.window(), ada.new_window());
    ada.goto(&url);
    ada.until("the second window is live", SOON, LIVE);
    bob.goto(&url);
    bob.until("a name is asked for", SOON, "document.getElementById('who').open");
    bob.type_into("#name", " aDa \n");
    bob.until("a taken name is refused", SOON, "document.getElementById('name-error').textContent !== ''");
    bob.eval("document.getElementById('name').select()");
    introduce(&bob, "Bob");
    for window in [&first, &second] {
        ada.switch(window);
        ada.until("Ada sees two people", SOON, &people(&["Ada", "Bob"]));
    }
    bob.until("Bob sees two people", SOON, &people(&["Ada", "Bob"]));

    // What one types and says, the other sees; to the one who said it, in either window, it is their own.
    ada.switch(&first);
    bob.type_into("#text", "Hello from Bob");
    ada.until(
        "Ada sees Bob type",
        SOON,
        "document.getElementById('typing').innerText.includes('Bob is typing')",
    );
    bob.type_into("#text", "\n");
    ada.until("Ada sees Bob's message", SOON, &shown(&["Hello from Bob"]));
    ada.until(
        "nobody types any more",
        SOON,
        "!document.getElementById('typing').classList.contains('shown')",
    );
    ada.type_into("#text", "Hello from Ada\n");
    bob.until("Bob sees Ada's message", SOON, &shown(&["Hello from Bob", "Hello from Ada"]));
    ada.switch(&second);
    ada.until(
        "it is Ada's own in her other window",
        SOON,
        "document.querySelectorAll('#messages .own').length === 1",
    );
    ada.take_pictures("chat");
    is_told_what_is_refused(&ada);

    // The server is killed and started again. The browsers find back by themselves, and one has no network until Bob,
    // who is back before, has said something.
    chat.kill();
    until_everywhere(&ada, [&first, &second], &bob, SOON, LOST);
    ada.switch(&first);
    ada.cut(true);
    chat = start_chat(addr, &folder, &[]);
    let took = until_everywhere(&ada, [&second, &second], &bob, BACK, LIVE);
    println!("live again {took:?} after a restart");
    let mut said = vec!["Hello from Bob", "Hello from Ada"];
    for text in ["Is Ada away?", "She is"] {
        bob.type_into("#text", &format!("{text}\n"));
        said.push(text);
    }
    bob.until("Bob sees what he said", SOON, &shown(&said));
    ada.switch(&first);
    assert_eq!(ada.eval(LOST), true);
    ada.cut(false);
    ada.until("Ada is back", BACK, LIVE);
    ada.until("Ada sees what Bob said", SOON, &shown(&said));
    talk_again(&ada, &first, &bob, "once", &mut said);

    // Killed again, and this time something else answers 503 meanwhile. Then an EventSource gives up for good.
    chat.kill();
    let refusing = Refusing::start(addr);
    bob.type_into("#text", "Said while there was no server\n");
    until_everywhere(&ada, [&first, &second], &bob, SOON, LOST);
    refusing.until_refused(3);
    refusing.stop();
    chat = start_chat(addr, &folder, &[]);
    let took = until_everywhere(&ada, [&first, &second], &bob, BACK, LIVE);
    println!("live again {took:?} after refusals and a restart");
    said.push("Said while there was no server");
    ada.until("what was written meanwhile has arrived", SOON, &shown(&said));
    talk_again(&ada, &first, &bob, "twice", &mut said);

    // Who closes the last window is gone; who closes one of two is not.
    ada.switch(&second);
    ada.close_window();
    ada.switch(&first);
    bob.goto("about:blank");
    let took = ada.until("Bob is gone", Duration::from_secs(2), &people(&["Ada"]));
    println!("Bob was seen to be gone after {took:?}");

    assert_eq!(ada.complaints(), Vec::<String>::new());
    assert_eq!(bob.complaints(), Vec::<String>::new());
    chat.kill();
}

/// The history is kept in part, and then not at all.
#[test]
fn who_was_away_for_too_long_is_told() {
    let (addr, folder) = (free_address(), Folder::new("away"));
    let keep_three = ["--retention", "rooms/*=limits:max_events=3"];
    let mut chat = start_chat(addr, &folder, &keep_three);
    let driver = Driver::start();
    let (ada, bob) = (driver.browser(), driver.browser());
    for (browser, name) in [(&ada, "Ada"), (&bob, "Bob")] {
        browser.goto(&format!("http://{addr}/rooms/tea-house"));
        introduce(browser, name);
    }
    bob.type_into("#text", "zero\n");
    ada.until("Ada sees the first", SOON, &shown(&["zero"]));
    ada.until("Ada sees two people", SOON, &people(&["Ada", "Bob"]));

    // She is away while more is said than is kept.
    ada.cut(true);
    ada.until("Ada has no network", SOON, LOST);
    for text in ["one", "two", "three", "four", "five"] {
        bob.type_into("#text", &format!("{text}\n"));
    }
    bob.until("Bob sees all", SOON, &shown(&["zero", "one", "two", "three", "four", "five"]));
    // What a server still has in memory, it sends; another has only what is kept.
    chat.kill();
    bob.until("the server is gone", SOON, LOST);
    chat = start_chat(addr, &folder, &keep_three);
    bob.until("Bob is back", BACK, LIVE);
    ada.cut(false);
    let mut said = vec!["zero", "three", "four", "five"];
    ada.until("Ada sees what is kept", BACK, &shown(&said));
    assert_eq!(notices(&ada), [GONE]);
    assert_eq!(notices(&bob), [""; 0]);
    ada.until("both are in the room again", SOON, &people(&["Ada", "Bob"]));
    take_picture(&ada, "gap");

    // The server comes back without its file, and Bob has said something to it before Ada is there.
    chat.kill();
    for browser in [&ada, &bob] {
        browser.until("the server is gone", SOON, LOST);
    }
    ada.cut(true);
    folder.clear();
    chat = start_chat(addr, &folder, &[]);
    bob.until("Bob is back", BACK, LIVE);
    bob.type_into("#text", "six\n");
    bob.until("nothing waits", SOON, "document.querySelector('#outbox').childElementCount === 0");
    ada.cut(false);
    said.push("six");
    ada.until("Ada sees the new history", BACK, &shown(&said));
    assert_eq!(notices(&ada), [GONE, ANEW]);
    assert_eq!(notices(&bob), [ANEW]);
    ada.until("both are in the room again", SOON, &people(&["Ada", "Bob"]));
    take_picture(&ada, "reset");

    // A page that is opened now has the history there is, and nothing to be told.
    bob.goto(&format!("http://{addr}/rooms/tea-house"));
    bob.until("Bob sees the history", SOON, &shown(&["six"]));
    assert_eq!(notices(&bob), [""; 0]);
    assert_eq!(ada.complaints(), Vec::<String>::new());
    assert_eq!(bob.complaints(), Vec::<String>::new());
    chat.kill();
}

const GONE: &str =
    "This page could not get everything. Some of what was said while you were away is no longer kept here.";
const ANEW: &str = "This page could not get everything. The server has begun a new history; \
                    what was said while you were away may be missing.";

/// What the room has told the page about the way to it, in order.
fn notices(browser: &Browser<'_>) -> Vec<String> {
    let texts =
        browser.eval("[...document.querySelectorAll('#messages .notice')].map((one) => one.textContent)");
    serde_json::from_value(texts).expect("texts")
}

fn introduce(browser: &Browser<'_>, name: &str) {
    browser.until("a name is asked for", SOON, "document.getElementById('who').open");
    browser.type_into("#name", &format!("{name}\n"));
    browser.until("the page is live", SOON, LIVE);
}

/// What the server does not take stays, with the reason, and can be had back.
fn is_told_what_is_refused(browser: &Browser<'_>) {
    // No keyboard types this; it comes in by pasting.
    browser.eval("document.getElementById('text').value = 'ding \\u0007', document.getElementById('text').dispatchEvent(new Event('input'))");
    browser.type_into("#text", "\n");
    browser.until(
        "the refusal is shown",
        SOON,
        "document.querySelector('#outbox .failed')?.innerText.includes('control character')",
    );
    browser.eval("document.querySelector('#outbox .failed button:last-child').click()");
    browser.until("the text is back", SOON, "document.getElementById('text').value === 'ding \\u0007'");
    browser.until("nothing waits", SOON, "document.querySelector('#outbox').childElementCount === 0");
    browser.eval("document.getElementById('text').value = ''");
}

/// Both say something, both see it, nothing is shown twice, and nothing was missed.
fn talk_again(ada: &Browser<'_>, window: &str, bob: &Browser<'_>, time: &str, said: &mut Vec<&str>) {
    let (from_ada, from_bob) = match time {
        "once" => ("Ada is back", "Bob is back"),
        _ => ("Ada is back again", "Bob is back again"),
    };
    ada.switch(window);
    ada.type_into("#text", &format!("{from_ada}\n"));
    said.push(from_ada);
    bob.until("Bob sees Ada again", SOON, &shown(said));
    bob.type_into("#text", &format!("{from_bob}\n"));
    said.push(from_bob);
    ada.until("Ada sees Bob again", SOON, &shown(said));
    for browser in [ada, bob] {
        browser.until("both are in the room again", SOON, &people(&["Ada", "Bob"]));
        browser.until("nothing waits", SOON, "document.querySelector('#outbox').childElementCount === 0");
        assert_eq!(notices(browser), [""; 0]);
    }
}

/// Waits for the same on all three pages; says how long it took until the last was so.
fn until_everywhere(
    ada: &Browser<'_>,
    windows: [&str; 2],
    bob: &Browser<'_>,
    within: Duration,
    what: &str,
) -> Duration {
    let start = Instant::now();
    for window in windows {
        ada.switch(window);
        ada.until(what, within.saturating_sub(start.elapsed()), what);
    }
    bob.until(what, within.saturating_sub(start.elapsed()), what);
    start.elapsed()
}

/// Whether the room's messages are exactly these, in this order.
fn shown(texts: &[&str]) -> String {
    format!(
        "JSON.stringify([...document.querySelectorAll('#messages .text')].map((one) => one.textContent)) === \
         JSON.stringify({})",
        serde_json::json!(texts)
    )
}

fn people(names: &[&str]) -> String {
    format!(
        "JSON.stringify([...document.querySelectorAll('#people .name')].map((one) => one.textContent)) === \
         JSON.stringify({})",
        serde_json::json!(names)
    )
}

fn take_picture(browser: &Browser<'_>, name: &str) {
    browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chat-{name}.png")));
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// Where a chat keeps what is said. Goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chat-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    fn clear(&self) {
        std::fs::remove_dir_all(&self.0).expect("removed");
        std::fs::create_dir(&self.0).expect("made again");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the chat on its file in `folder`.
fn start_chat(addr: SocketAddr, folder: &Folder, args: &[&str]) -> Example {
    let log = folder.0.join("chat.db");
    let own = ["--log", log.to_str().expect("text")];
    Example::start("chat", addr, &[&own, args].concat())
}

/// Something that has the server's port and answers 503, as a proxy does whose server is away.
struct Refusing {
    addr: SocketAddr,
    streams: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Refusing {
    fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("the port is free again");
        let (streams, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (streams.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming().take_while(|_| !stop.load(Ordering::SeqCst)) {
                let Ok(mut socket) = socket else { continue };
                // A browser may open a connection and say nothing on it yet.
                let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
                let mut head = [0; 4096];
                let length = socket.read(&mut head).unwrap_or(0);
                let answer =
                    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let is_stream = head[..length].starts_with(b"GET /rt/events");
                if socket.write_all(answer).is_ok() && is_stream {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { addr, streams, is_over, thread }
    }

    fn until_refused(&self, streams: usize) {
        let start = Instant::now();
        while self.streams.load(Ordering::SeqCst) < streams {
            assert!(start.elapsed() < Duration::from_secs(20), "the browsers do not come back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Frees the port.
    fn stop(self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        self.thread.join().expect("ended");
    }
}
