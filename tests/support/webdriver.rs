//! A real browser, driven over the `WebDriver` protocol: JSON over HTTP/1.1, one request a connection.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const MISSING: &str =
    "is not there; scripts/test installs what the tests need (Debian: chromium, chromium-driver)";

/// A running chromedriver on a port of its own choice. Ends with the test.
pub struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    pub fn start() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver {MISSING}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok())
            .expect("chromedriver says its port");
        // Whoever prints to a closed pipe dies of it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    /// A new browser with a profile of its own: to a server, another person.
    pub fn browser(&self) -> Browser<'_> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("browser-{}-{number}", std::process::id()));
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,800",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium(), "args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = self.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session");
        Browser { driver: self, path: format!("/session/{id}"), profile }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let answer = self.exchange(method, path, body).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole head")?;
        let answer: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
        if head.starts_with("HTTP/1.1 200") {
            return Ok(answer["value"].clone());
        }
        Err(format!("{}: {}", answer["value"]["error"], answer["value"]["message"]))
    }

    fn exchange(&self, method: &str, path: &str, body: &Value) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n", self.port);
        let fields = "content-type: application/json\r\nconnection: close\r\n";
        socket.write_all(format!("{head}{fields}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        let mut reader = BufReader::new(socket);
        let mut answer = String::new();
        let mut length = 0;
        while reader.read_line(&mut answer)? > 2 {
            let line = answer.lines().next_back().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        reader.take(length).read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("chromium {MISSING}"))
}

/// One browser. Its commands go to the window that was switched to last.
pub struct Browser<'a> {
    driver: &'a Driver,
    path: String,
    profile: PathBuf,
}

impl Browser<'_> {
    pub fn post(&self, command: &str, body: &Value) -> Value {
        self.driver.call("POST", &format!("{}{command}", self.path), body)
    }

    fn get(&self, command: &str) -> Value {
        self.driver.call("GET", &format!("{}{command}", self.path), &Value::Null)
    }

    pub fn goto(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    pub fn window(&self) -> String {
        self.get("/window").as_str().expect("a handle").to_owned()
    }

    /// Opens another window and switches to it.
    pub fn new_window(&self) -> String {
        let handle = self.post("/window/new", &json!({"type": "window"}))["handle"]
            .as_str()
            .expect("a handle")
            .to_owned();
        self.switch(&handle);
        handle
    }

    pub fn switch(&self, handle: &str) {
        self.post("/window", &json!({"handle": handle}));
    }

    pub fn close_window(&self) {
        self.driver.call("DELETE", &format!("{}/window", self.path), &Value::Null);
    }

    /// The value of an expression on the page.
    pub fn eval(&self, expression: &str) -> Value {
        self.post("/execute/sync", &json!({"script": format!("return ({expression});"), "args": []}))
    }

    /// Waits until an expression on the page is true, and says for how long.
    pub fn until(&self, what: &str, within: Duration, expression: &str) -> Duration {
        let start = Instant::now();
        while self.eval(expression) != true {
            if start.elapsed() >= within {
                let seen = self.eval("document.body.innerText");
                panic!("not within {within:?}: {what}\n{}", seen.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        start.elapsed()
    }

    /// Types with the keys of a keyboard; `\n` is Enter.
    pub fn type_into(&self, selector: &str, text: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|found| found.values().next()?.as_str()).expect("an element");
        self.post(&format!("/element/{id}/value"), &json!({"text": text.replace('\n', "\u{e007}")}));
    }

    /// A command of Chromium's own protocol.
    pub fn cdp(&self, command: &str, params: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Takes the network from the window, or gives it back.
    pub fn cut(&self, is_cut: bool) {
        self.cdp("Network.enable", &json!({}));
        let conditions =
            json!({"offline": is_cut, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.cdp("Network.emulateNetworkConditions", &conditions);
        if is_cut {
            // An open stream stays open: the page is told to make it anew, and cannot.
            self.eval("dispatchEvent(new Event('online'))");
        }
    }

    /// Pictures of the page, wide and on a phone, light and dark; to be looked at.
    pub fn take_pictures(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for scheme in ["light", "dark"] {
            for (screen, width, height) in [("wide", 1200, 760), ("phone", 390, 780)] {
                self.look(width, height, screen == "phone", scheme);
                self.screenshot(&folder.join(format!("{name}-{screen}-{scheme}.png")));
            }
        }
        self.look(1200, 760, false, "light");
    }

    /// As on a screen of this size, with light or dark colours.
    pub fn look(&self, width: u32, height: u32, is_mobile: bool, scheme: &str) {
        let metrics =
            json!({"width": width, "height": height, "mobile": is_mobile, "deviceScaleFactor": 1.5});
        self.cdp("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", &features);
    }

    /// What the console complains of; what the network did is not among it.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default().into_iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network");
        bad.map(|entry| entry["message"].to_string()).collect()
    }

    pub fn screenshot(&self, file: &Path) {
        let picture = self.get("/screenshot");
        let bytes = from_base64(picture.as_str().expect("a picture"));
        std::fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.try_call("DELETE", &self.path, &Value::Null);
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
