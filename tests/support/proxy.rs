//! nginx and HAProxy in front of hubs, as processes of their own, with the very configurations of `examples/proxies`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificate::Certificate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
}

/// A proxy that ends with the test. What is asked for in the clear, it passes on as it does what comes by TLS.
pub struct Proxy {
    /// Where it speaks HTTP/1.1.
    pub plain: SocketAddr,
    /// Where it speaks HTTP/2 and HTTP/1.1, over TLS.
    pub tls: SocketAddr,
    pub certificate: Certificate,
    child: Child,
}

impl Proxy {
    pub fn start(kind: Kind, hubs: &[SocketAddr]) -> Self {
        let certificate = Certificate::make();
        let [plain, tls] = free();
        let config = match kind {
            Kind::Nginx => nginx(plain, tls, &certificate, hubs),
            Kind::HaProxy => haproxy(plain, tls, &certificate, hubs),
        };
        let folder = &certificate.folder;
        let path = folder.join("proxy.conf");
        std::fs::write(&path, config).expect("written");
        let log =
            || File::options().create(true).append(true).open(folder.join("proxy.log")).expect("a file");
        let mut command = Command::new(match kind {
            Kind::Nginx => "nginx",
            Kind::HaProxy => "haproxy",
        });
        match kind {
            Kind::Nginx => {
                let own = format!("daemon off; pid {};", folder.join("nginx.pid").display());
                command.args(["-e", "stderr", "-g", &own, "-p"]).arg(folder).arg("-c").arg(&path)
            }
            Kind::HaProxy => command.arg("-db").arg("-f").arg(&path),
        };
        let child = command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn();
        let child = child.expect("nginx and haproxy are installed: scripts/test does so");
        let mut this = Self { plain, tls, certificate, child };
        this.until_it_listens();
        this
    }

    fn until_it_listens(&mut self) {
        let begin = Instant::now();
        while [self.plain, self.tls].iter().any(|&address| TcpStream::connect(address).is_err()) {
            let has_ended = self.child.try_wait().expect("a child").is_some();
            assert!(
                !has_ended && begin.elapsed() < Duration::from_secs(10),
                "it does not listen: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has said.
    fn log(&self) -> String {
        std::fs::read_to_string(self.certificate.folder.join("proxy.log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has processes of its own, which it ends when it is told to.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log: {}", self.log());
        }
    }
}

/// Two addresses that nobody listens on.
fn free() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound"))
}

fn nginx(plain: SocketAddr, tls: SocketAddr, certificate: &Certificate, hubs: &[SocketAddr]) -> String {
    let config = example("nginx.conf");
    let config = put(&config, "65536", &descriptors().to_string());
    let config = put(&config, "listen 443 ssl http2;", &format!("listen {plain}; listen {tls} ssl http2;"));
    let config = put(&config, "/etc/ssl/fanfare.crt", &text(&certificate.cert()));
    let config = put(&config, "/etc/ssl/fanfare.key", &text(&certificate.key()));
    let servers = hubs.iter().map(|hub| format!("server {hub};")).collect::<String>();
    put(&config, "server 127.0.0.1:8080;", &servers)
}

fn haproxy(plain: SocketAddr, tls: SocketAddr, certificate: &Certificate, hubs: &[SocketAddr]) -> String {
    let config = example("haproxy.cfg");
    // Two descriptors each, and some for itself.
    let config = put(&config, "maxconn 30000", &format!("maxconn {}", (descriptors() - 200) / 2));
    let config = put(&config, "bind :443 ", &format!("bind {plain}\n    bind {tls} "));
    let config = put(&config, "/etc/ssl/fanfare.pem", &text(&certificate.both()));
    let mut lines = Vec::new();
    for line in config.lines() {
        if !line.contains("127.0.0.1:8080") {
            lines.push(line.to_owned());
            continue;
        }
        for (n, hub) in (1..).zip(hubs) {
            lines.push(line.replace("127.0.0.1:8080", &hub.to_string()).replace("hub1", &format!("hub{n}")));
        }
    }
    lines.join("\n") + "\n"
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxies").join(name);
    std::fs::read_to_string(path).expect("an example")
}

/// Puts something in a place that is there once.
fn put(config: &str, place: &str, with: &str) -> String {
    assert_eq!(config.matches(place).count(), 1, "{place:?} in {config}");
    config.replace(place, with)
}

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

/// How many descriptors a process may have here, as far as the examples want them.
fn descriptors() -> u64 {
    let output = Command::new("sh").args(["-c", "ulimit -Hn"]).output().expect("a shell");
    let limit = String::from_utf8(output.stdout).expect("text");
    limit.trim().parse().unwrap_or(65_536).min(65_536)
}
