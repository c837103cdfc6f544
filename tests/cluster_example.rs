//! `examples/cluster/run`: one command, three hubs behind one nginx, and all of it ends with the command.

mod support;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::http;
use support::sse::SseClient;

struct Cluster {
    port: u16,
    child: Child,
}

impl Cluster {
    fn start() -> Self {
        let [first, ..] = support::addresses::<6>();
        let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cluster/run"))
            .env("PORT", first.port().to_string())
            .env("FANFARE", env!("CARGO_BIN_EXE_fanfare"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let greeting = lines.next().expect("its greeting, not its end").expect("text");
        assert!(greeting.contains(&format!("http://{first}/")), "{greeting}");
        std::thread::spawn(move || lines.for_each(drop));
        Self { port: first.port(), child }
    }

    fn addr(&self, offset: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.port + offset).into()
    }

    /// As Ctrl-C does, which a shell that was started without a terminal does not hear.
    fn terminate(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends its children, which a kill would leave behind.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let _ = self.child.wait();
        }
    }
}

/// What is published through nginx comes to whoever follows it there, whichever hub each of them is at; the page is
/// served; and nothing is left when it is told to end.
#[actix_web::test]
async fn three_hubs_behind_one_nginx_are_one_hub() {
    let mut cluster = Cluster::start();
    let front = cluster.addr(0);
    assert_eq!(http::get(front, "/").await.status(), 200, "the page");
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = SseClient::open(front, "/events?channel=demo/*", &[]).await;
        client.welcome().await;
        clients.push(client);
    }
    for number in 0..6 {
        let body = format!(r#"{{"channel":"demo/1","data":"{number}"}}"#);
        assert_eq!(http::post_json(front, "/publish", &body).await.status(), 200);
    }
    for client in &mut clients {
        for number in 0..6 {
            assert_eq!(client.data().await, number.to_string());
        }
    }
    let mut alone = Vec::new();
    for hub in 1..=3 {
        let status = http::get(cluster.addr(hub), "/status").await.json();
        alone.push(status["clients"].as_u64().expect("a number"));
    }
    assert_eq!(alone.iter().sum::<u64>(), 6);
    assert!(alone.iter().all(|&clients| clients > 0), "they are spread: {alone:?}");
    let present = http::get(front, "/presence?channel=demo/1").await.json();
    assert_eq!(present["clients"], 6, "{present}");

    cluster.terminate();
    let start = Instant::now();
    while cluster.child.try_wait().expect("a child").is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "it ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for offset in 0..=4 {
        assert!(TcpStream::connect(cluster.addr(offset)).is_err(), "nothing is left at {offset}");
    }
}
