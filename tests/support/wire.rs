//! Hosts of a test's own, in network namespaces, on a wire that can be cut: no FIN, no RST, no packet at all.
//!
//! Needs root and `ip` (iproute2), which `scripts/test` installs.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

/// As many hosts as were asked for, each with an address; they go with the test.
pub struct Wire {
    hosts: Vec<String>,
    middle: String,
    children: Vec<Child>,
}

impl Wire {
    pub fn lay(hosts: usize) -> Self {
        static LAID: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{}-{}", std::process::id(), LAID.fetch_add(1, Ordering::Relaxed));
        let hosts = (0..hosts).map(|host| format!("fanfare-{host}-{id}")).collect();
        let wire = Self { hosts, middle: format!("fanfare-wire-{id}"), children: Vec::new() };
        let middle = &wire.middle;
        for name in wire.hosts.iter().chain([middle]) {
            ip(&format!("netns add {name}"));
        }
        ip(&format!("-n {middle} link add bridge type bridge"));
        ip(&format!("-n {middle} link set bridge up"));
        for (host, name) in wire.hosts.iter().enumerate() {
            ip(&format!("-n {middle} link add to-{host} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {middle} link set to-{host} master bridge up"));
            ip(&format!("-n {name} address add {}/24 dev eth0", Self::address(host)));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        wire
    }

    pub fn address(host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// Does something on a host: its sockets, and the programs that it starts, are there.
    pub fn at<T: Send + 'static>(
        &self,
        host: usize,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.hosts[host]);
        std::thread::spawn(move || {
            let namespace = File::open(path).expect("a namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered; this needs root");
            act()
        })
    }

    /// Runs a program on a host until the test ends.
    pub fn spawn(&mut self, host: usize, program: &str, args: &[&str]) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[host], program]).args(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.expect("ip netns exec runs"));
    }

    /// From now on nothing goes from or to a host.
    pub fn cut(&self, host: usize) {
        ip(&format!("-n {} link set to-{host} down", self.middle));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in self.hosts.iter().chain([&self.middle]) {
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
