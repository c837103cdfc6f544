//! A peer that vanishes without a word: no FIN, no RST, no packet at all. Three network namespaces of the test's own: the
//! hub's, the client's, and a wire between them that can be cut.
//!
//! Needs root and `ip` (iproute2), which `scripts/test` installs.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HUB: &str = "10.77.0.1";
const CLIENT: &str = "10.77.0.2";
/// A heartbeat that is not acknowledged within `TCP_USER_TIMEOUT`, with a margin for a busy machine.
const BOUND: Duration = Duration::from_secs(1 + 30 + 6);

struct Wire {
    names: [String; 3],
    children: Vec<Child>,
}

impl Wire {
    fn lay() -> Self {
        let id = std::process::id();
        let names = ["hub", "client", "wire"].map(|name| format!("fanfare-{name}-{id}"));
        let wire = Self { names, children: Vec::new() };
        let [hub, client, middle] = &wire.names;
        for name in &wire.names {
            ip(&format!("netns add {name}"));
        }
        ip(&format!("-n {middle} link add bridge type bridge"));
        ip(&format!("-n {middle} link set bridge up"));
        for (name, address, end) in [(hub, HUB, "to-hub"), (client, CLIENT, "to-client")] {
            ip(&format!("-n {middle} link add {end} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {middle} link set {end} master bridge up"));
            ip(&format!("-n {name} address add {address}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        wire
    }

    fn spawn(&mut self, at: usize, program: &str, args: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[at], program]).args(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.expect("ip netns exec runs"));
    }

    fn clients(&self) -> Option<u64> {
        let url = format!("http://{HUB}:8080/status");
        let answer = Command::new("ip").args(["netns", "exec", &self.names[0], "curl", "-s", &url]).output();
        let status: serde_json::Value = serde_json::from_slice(&answer.expect("curl runs").stdout).ok()?;
        status["clients"].as_u64()
    }

    fn until_clients(&self, wanted: u64, within: Duration) -> Duration {
        let start = Instant::now();
        while self.clients() != Some(wanted) {
            assert!(start.elapsed() < within, "not {wanted} within {within:?}: {:?}", self.clients());
            std::thread::sleep(Duration::from_millis(100));
        }
        start.elapsed()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    let status = status
        .unwrap_or_else(|error| panic!("ip (iproute2) does not run: {error}; scripts/test installs it"));
    assert!(status.success(), "`ip {args}` failed; this test needs root");
}

/// P6, the third way to leave: the entry is gone in bounded time.
#[test]
fn a_client_whose_link_is_cut_is_gone_in_bounded_time() {
    let mut wire = Wire::lay();
    let listen = format!("{HUB}:8080");
    let hub = ["serve", "--log", "memory", "--listen", &listen, "--insecure", "--heartbeat", "1s"];
    wire.spawn(0, env!("CARGO_BIN_EXE_fanfare"), &hub);
    wire.until_clients(0, Duration::from_secs(10));
    let url = format!("http://{HUB}:8080/events?channel=a");
    wire.spawn(1, "curl", &["-sN", &url]);
    wire.until_clients(1, Duration::from_secs(10));

    ip(&format!("-n {} link set to-client down", wire.names[2]));
    let took = wire.until_clients(0, BOUND);
    assert!(took > Duration::from_secs(5), "it was noticed by something else than the timeout: {took:?}");
}
