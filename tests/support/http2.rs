//! An HTTP/2 connection by a client that others wrote: Node's own, which `tests/foreign/http2.mjs` drives.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::certificate::Certificate;
use super::http::{Answer, Head};
use super::sse::Block;

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to `localhost`; breaks with the test.
pub struct Http2 {
    child: Child,
    commands: ChildStdin,
    lines: UnboundedReceiver<Value>,
    streams: HashMap<u64, Stream>,
    authority: String,
}

/// What has come of a request, and was not asked for yet.
#[derive(Default)]
struct Stream {
    head: Option<Head>,
    text: String,
    end: Option<String>,
}

impl Http2 {
    pub async fn connect(addr: SocketAddr, certificate: &Certificate) -> Self {
        let authority = format!("localhost:{}", addr.port());
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/http2.mjs"))
            .arg(format!("https://{authority}"))
            .arg(certificate.cert())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed: scripts/test does so");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let (tell, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in output {
                // Nobody listens any more when the test is over.
                let _ = tell.send(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let commands = child.stdin.take().expect("piped");
        let mut this = Self { child, commands, lines, streams: HashMap::new(), authority };
        assert_eq!(this.line().await, json!({"protocol": "h2"}));
        this
    }

    /// Asks for something; the name of the stream.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> u64 {
        let id = self.streams.len() as u64;
        let mut all = json!({":method": method, ":path": path, ":authority": self.authority});
        for (name, value) in headers {
            // What is said twice is sent twice.
            match &mut all[*name] {
                Value::Array(values) => values.push(json!(value)),
                one @ Value::Null => *one = json!([value]),
                ours => *ours = json!(value),
            }
        }
        let mut command = json!({"ask": id, "headers": all});
        if let Some(body) = body {
            command["body"] = json!(body);
        }
        self.command(&command);
        self.streams.insert(id, Stream::default());
        id
    }

    /// Opens a stream of events.
    pub fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> u64 {
        self.ask("GET", path, headers, None)
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let id = self.open(path, &[]);
        self.answer(id).await
    }

    pub async fn publish(&mut self, body: &str) -> Answer {
        let id = self.ask("POST", "/publish", &[("content-type", "application/json")], Some(body));
        self.answer(id).await
    }

    /// A whole answer.
    pub async fn answer(&mut self, id: u64) -> Answer {
        let head = self.head(id).await;
        assert_eq!(self.end(id).await, "clean");
        Answer { head, body: std::mem::take(&mut self.stream(id).text) }
    }

    pub async fn head(&mut self, id: u64) -> Head {
        loop {
            if let Some(head) = &self.stream(id).head {
                return head.clone();
            }
            self.take().await;
        }
    }

    /// How a stream ended, once it did: `clean`, or by which error.
    pub async fn end(&mut self, id: u64) -> String {
        loop {
            if let Some(end) = &self.stream(id).end {
                return end.clone();
            }
            self.take().await;
        }
    }

    /// The next block of a stream; nothing at its end.
    pub async fn block(&mut self, id: u64) -> Option<Block> {
        loop {
            let stream = self.stream(id);
            if let Some(end) = stream.text.find("\n\n") {
                let block = Block::parse(&stream.text[..end]);
                stream.text.drain(..end + 2);
                return Some(block);
            }
            if stream.end.is_some() {
                assert!(stream.text.is_empty(), "half a block: {:?}", stream.text);
                return None;
            }
            self.take().await;
        }
    }

    /// The next event of a stream, past retries and pings, which must come.
    pub async fn event(&mut self, id: u64) -> Block {
        loop {
            let block = self.block(id).await.expect("an event, not the end");
            if block.data.is_some() {
                return block;
            }
        }
    }

    pub async fn welcome(&mut self, id: u64) -> Block {
        assert_eq!(self.head(id).await.status, 200);
        let block = self.event(id).await;
        assert!(block.is("$welcome"), "{block:?}");
        block
    }

    /// Gives a stream up.
    pub fn reset(&mut self, id: u64) {
        self.command(&json!({"reset": id}));
    }

    /// Does not read a stream any more.
    pub fn pause(&mut self, id: u64) {
        self.command(&json!({"pause": id}));
    }

    /// Reads it again.
    pub fn resume(&mut self, id: u64) {
        self.command(&json!({"resume": id}));
    }

    /// Breaks the connection.
    pub fn cut(&mut self) {
        self.command(&json!({"cut": true}));
    }

    /// Waits until the number of the hub's clients is as wanted, and says for how long.
    pub async fn until_clients(&mut self, wanted: u64, within: Duration) -> Duration {
        let start = std::time::Instant::now();
        loop {
            let status = self.get("/status").await.json();
            if status["clients"] == wanted {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not within {within:?}: {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn command(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").expect("node listens");
    }

    fn stream(&mut self, id: u64) -> &mut Stream {
        self.streams.get_mut(&id).expect("a stream that was asked for")
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.expect("something within the test's patience").expect("a line, not the end")
    }

    /// Puts the next thing that happened in its place.
    async fn take(&mut self) {
        let line = self.line().await;
        let Some(id) = line["id"].as_u64() else { return };
        let stream = self.stream(id);
        if let Some(head) = line["head"].as_array() {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let headers: Vec<_> = head.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
            let status = headers.iter().find(|(name, _)| name == ":status").expect("a status");
            stream.head = Some(Head { status: status.1.parse().expect("a number"), headers });
        } else if let Some(text) = line["text"].as_str() {
            stream.text.push_str(text);
        } else {
            stream.end = Some(line["end"].as_str().expect("an end").to_owned());
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
