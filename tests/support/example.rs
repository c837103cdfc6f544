//! An example as a process of its own.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file includes it")]

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

/// A running example; ends with the test.
pub struct Example(Child);

impl Example {
    /// Starts it and waits until it listens.
    pub fn start(name: &str, addr: SocketAddr, args: &[&str]) -> Self {
        let child = Command::new(path(name)).args(["--listen", &addr.to_string()]).args(args).spawn();
        let mut example = Self(child.expect("the example starts"));
        let start = Instant::now();
        while TcpStream::connect(addr).is_err() {
            let ended = example.0.try_wait().expect("a child");
            let is_patient = start.elapsed() < Duration::from_secs(10);
            assert!(ended.is_none() && is_patient, "{name} does not listen: {ended:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        example
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }

    /// As whoever stops a service does; it ends when it has said goodbye.
    pub fn terminate(&self) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(status.success());
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where cargo puts an example, seen from where it puts this test.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let example = profile.join("examples").join(name);
    // Cargo builds it for all tests together, but not for a single one.
    let built = example.metadata().and_then(|about| about.modified()).ok();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    // They share some.
    let changed = newest(&sources.join(name)).max(newest(&sources.join("support")));
    assert!(built >= changed, "{} is older than its source: cargo build --example {name}", example.display());
    example
}

/// When a file in a folder was changed last.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().expect("a folder").map_while(Result::ok);
    let changed = entries.map(|entry| match entry.path() {
        path if path.is_dir() => newest(&path),
        path => path.metadata().and_then(|about| about.modified()).ok(),
    });
    changed.max().flatten()
}
