//! The hub's page: that it is served whole, that its policy lets nothing else in, and that it needs nothing else.

#![cfg(feature = "hub")]
#![expect(clippy::expect_used, reason = "a helper of a test fails the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A hub of its own. Ends with the test, also with one that fails.
struct Hub {
    process: Child,
    /// Kept open: the hub has more to say, and could not say it into a closed pipe.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Hub {
    /// Starts a hub on a port that is free, and learns which from what it prints.
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["--listen", "127.0.0.1:0", "--log", "memory"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the hub starts");
        let output = process.stdout.take().expect("piped");
        let mut output = BufReader::new(output);
        let mut greeting = String::new();
        output.read_line(&mut greeting).expect("the hub greets");
        let address =
            greeting.split_once("http://").and_then(|(_, rest)| rest.trim_end_matches("/\n").parse().ok());
        Self { process, _output: output, address: address.expect("the greeting names the address") }
    }

    fn get(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("the hub listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("the hub reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the hub answers in UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        Answer { head: head.to_owned(), body: body.to_owned() }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
            .unwrap_or_default()
    }
}

/// What the page is made of, as its own text says: each file that it names, and each that those name.
fn files(hub: &Hub) -> Vec<(String, String)> {
    let mut files = vec![("/".to_owned(), hub.get("/").body)];
    let mut at = 0;
    while let Some((from, body)) = files.get(at).cloned() {
        at += 1;
        let quoted = |start: &str| -> Vec<String> {
            body.split(start).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
        };
        let folder = &from[..=from.rfind('/').expect("a path")];
        let named =
            [quoted("src=\""), quoted("<link rel=\"stylesheet\" href=\""), quoted("from \"./")].concat();
        for name in named.into_iter().map(|name| format!("{folder}{name}")) {
            if !files.iter().any(|(known, _)| *known == name) {
                let body = hub.get(&name).body;
                files.push((name, body));
            }
        }
    }
    files
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        _ => "text/html",
    }
}

#[test]
fn every_file_of_the_page_comes_with_its_type_and_the_policy() {
    let hub = Hub::start();
    let files = files(&hub);
    assert!(files.len() > 10, "{files:?}");
    for (path, _) in files {
        let path = path.as_str();
        let answer = hub.get(path);
        assert_eq!(answer.status(), "200", "{path}");
        assert_eq!(answer.header("content-type"), format!("{}; charset=utf-8", content_type(path)), "{path}");
        for (header, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(header), value, "{path} {header}");
        }
        let policy = answer.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
            assert!(policy.split(';').any(|given| given.trim() == rule), "{path}: no {rule} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert!(!answer.body.is_empty(), "{path}");
    }
}

#[test]
fn health_and_readiness_are_answered() {
    let hub = Hub::start();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(hub.get(path).status(), "200", "{path}");
    }
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let hub = Hub::start();
    for (path, body) in files(&hub) {
        // The name of a namespace is not fetched.
        let body = body.replace("xmlns='http://www.w3.org/2000/svg'", "");
        for outside in ["http://", "https://", "src=\"//", "href=\"//", " url(", "@import"] {
            assert!(!body.contains(outside), "{path} has {outside}");
        }
    }
}

/// What the policy would block does not fail loudly in a browser: it is missing without a word.
#[test]
fn the_page_has_nothing_that_its_policy_blocks() {
    let page = Hub::start().get("/").body;
    for blocked in [" style=", "<style", " onclick=", " onsubmit=", "javascript:", "<iframe", "<base"] {
        assert!(!page.contains(blocked), "the page has {blocked}");
    }
    let scripts = page.matches("<script").count();
    assert_eq!(scripts, page.matches("src=\"page/main.js\"></script>").count(), "a script is inline");
}

/// The script finds its elements by their ids, and a name that one of the two files has changed ends it at the start.
#[test]
fn the_page_has_every_element_that_its_script_asks_for() {
    let hub = Hub::start();
    let page = hub.get("/").body;
    let scripts = files(&hub).into_iter().filter(|(path, _)| path.ends_with(".js"));
    let script: String = scripts.map(|(_, body)| body).collect();
    let ids: Vec<_> = script.split("$(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(ids.len() > 20, "the script no longer asks in this way: {ids:?}");
    for id in ids {
        assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "#{id}");
    }
    for text in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.contains(text), "what is received is shown as text, not by {text}");
    }
}
