//! A NATS server of the test's own, and a wire to it that the test can cut.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use tokio::sync::watch;

/// A server with JetStream and files. Ends with the test, and its files go.
pub struct NatsServer {
    pub addr: SocketAddr,
    folder: PathBuf,
    child: Child,
}

impl NatsServer {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines of configuration.
    pub fn start_with(more: &str) -> Self {
        let [addr] = super::addresses();
        Self::start_on(addr, more)
    }

    /// One that ends when this process does, however that is.
    pub fn start_with_this_process() -> Self {
        let server = Self::start();
        let (own, child) = (std::process::id(), server.child.id());
        let watch = format!(
            "while kill -0 {own} 2>/dev/null; do sleep 0.2; done; kill -9 {child}; rm -rf {:?}",
            server.folder
        );
        let watching = Command::new("setsid").args(["--fork", "sh", "-c", &watch]).status();
        assert!(watching.expect("setsid, of util-linux").success());
        server
    }

    fn start_on(addr: SocketAddr, more: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("fanfare-nats-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut file = std::fs::File::create(folder.join("nats.conf")).expect("a file");
        let store = folder.join("store");
        write!(
            file,
            "listen: \"{addr}\"\njetstream {{ store_dir: {store:?}, max_file_store: 1T }}\n{more}\n"
        )
        .expect("written");
        let child = Self::spawn(&folder, addr);
        Self { addr, folder, child }
    }

    fn spawn(folder: &std::path::Path, addr: SocketAddr) -> Child {
        let log =
            std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a file");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(folder.join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is installed: scripts/test does so");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < deadline, "the server listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Has it stand still: its connections stay, and nothing comes of them.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Starts it again, with what it had.
    pub fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, self.addr);
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.expect("it answers"))
    }

    /// How many consumers a stream has.
    pub async fn consumers(&self, stream: &str) -> usize {
        let stream = self.jetstream().await.get_stream(stream).await.expect("a stream");
        stream.cached_info().state.consumer_count
    }

    /// How many messages a stream has.
    pub async fn messages(&self, stream: &str) -> u64 {
        let stream = self.jetstream().await.get_stream(stream).await.expect("a stream");
        stream.cached_info().state.messages
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Three servers that keep three copies of a stream.
pub struct NatsCluster {
    pub servers: [NatsServer; 3],
}

impl NatsCluster {
    pub fn start() -> Self {
        let clients: [SocketAddr; 3] = super::addresses();
        let routes: [SocketAddr; 3] = super::addresses();
        let known: Vec<_> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
        let server = |number: usize| {
            let (listen, routes) = (routes[number], known.join(", "));
            let more = format!(
                "server_name: n{number}\ncluster {{ name: c, listen: \"{listen}\", routes: [{routes}] }}"
            );
            NatsServer::start_on(clients[number], &more)
        };
        Self { servers: [server(0), server(1), server(2)] }
    }

    /// All of them, for a client to choose from.
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until they have agreed on who leads, so that a stream can be made.
    pub async fn until_ready(&self) {
        let start = Instant::now();
        let context = self.servers[0].jetstream().await;
        let probe = || jetstream::stream::Config {
            name: "probe".into(),
            num_replicas: 3,
            ..jetstream::stream::Config::default()
        };
        while let Err(error) = context.create_stream(probe()).await {
            assert!(start.elapsed() < Duration::from_secs(30), "the servers find each other: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        context.delete_stream("probe").await.expect("deleted");
    }

    /// The number of the server that leads a stream, of those at `url`.
    pub async fn leader(url: &str, stream: &str) -> usize {
        let start = Instant::now();
        loop {
            let client = async_nats::connect(url.split(',').collect::<Vec<_>>()).await;
            let context = jetstream::new(client.expect("one of them answers"));
            if let Ok(stream) = context.get_stream(stream).await
                && let Some(leader) = stream.cached_info().cluster.as_ref().and_then(|it| it.leader.clone())
            {
                return leader[1..].parse().expect("a name of ours");
            }
            assert!(start.elapsed() < Duration::from_secs(30), "somebody leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A wire to a server: what comes in is passed on, until it is cut.
pub struct Wire {
    pub addr: SocketAddr,
    /// Whether new connections are passed on, and how often those there were have been cut.
    state: watch::Sender<(bool, u64)>,
}

impl Wire {
    /// It runs on a thread of its own: a node that starts keeps the test's waiting.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("an option");
        let addr = listener.local_addr().expect("bound");
        let (state, watched) = watch::channel((true, 0));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(pass_on(listener, server, watched));
        });
        Self { addr, state }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Cuts all connections; new ones are passed on.
    pub fn shake(&self) {
        self.state.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// Cuts all connections, and lets none in.
    pub fn cut(&self) {
        self.state.send_modify(|(is_open, cuts)| (*is_open, *cuts) = (false, *cuts + 1));
    }

    /// Lets connections in again.
    pub fn mend(&self) {
        self.state.send_modify(|(is_open, _)| *is_open = true);
    }
}

async fn pass_on(listener: TcpListener, server: SocketAddr, mut watched: watch::Receiver<(bool, u64)>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let mut near = tokio::select! {
            accepted = listener.accept() => accepted.expect("accepted").0,
            // The test is over.
            gone = watched.wait_for(|_| false) => return drop(gone),
        };
        if !watched.borrow_and_update().0 {
            continue;
        }
        let mut watched = watched.clone();
        tokio::spawn(async move {
            let Ok(mut far) = tokio::net::TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = watched.changed() => {}
            }
        });
    }
}
