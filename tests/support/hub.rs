//! The hub as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{http, order};

/// A running hub; ends with the test.
pub struct Hub {
    pub addr: SocketAddr,
    pub child: Child,
}

impl Hub {
    /// Starts a hub on a free port and waits until it says where it is.
    pub fn start(args: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", args)
    }

    pub fn start_on(listen: &str, args: &[&str]) -> Self {
        Self::start_logging(listen, args, Stdio::inherit())
    }

    /// Starts one whose log goes somewhere.
    pub fn start_logging(listen: &str, args: &[&str], log: Stdio) -> Self {
        let order = order::hub_args(args);
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--listen", listen])
            .args(if args.contains(&"--log") { &[][..] } else { &["--log", "memory"] })
            .args(args)
            .args(&order)
            // Here it says which form of a test is wanted.
            .env_remove("FANFARE_DRAIN")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the hub starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("a line").expect("text");
        let addr =
            first.split_once("://").expect("its URL").1.trim_end_matches('/').parse().expect("an address");
        // Whoever prints to a closed pipe dies of it.
        std::thread::spawn(move || lines.for_each(drop));
        if !order.is_empty() {
            let admin = args.iter().skip_while(|arg| **arg != "--admin-listen").nth(1);
            order::until_ready(admin.map_or(addr, |admin| admin.parse().expect("an address")));
        }
        Self { addr, child }
    }

    pub fn terminate(&self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let status = Command::new("kill").args(["-TERM", &id.to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// The memory that it has, in bytes.
    pub fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("it runs");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
    }

    pub async fn status(&self) -> serde_json::Value {
        http::get(self.addr, "/status").await.json()
    }

    /// Waits until the number of clients is as wanted, and says for how long.
    pub async fn until_clients(&self, wanted: u64, within: Duration) -> Duration {
        let start = std::time::Instant::now();
        loop {
            let status = self.status().await;
            if status["clients"] == wanted {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not within {within:?}: {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn publish(&self, body: &str) -> http::Answer {
        http::post_json(self.addr, "/publish", body).await
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
