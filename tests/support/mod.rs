//! What the tests share: a real server on a real port, and a client that sees every byte.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

pub mod bad_log;
pub mod certificate;
pub mod disk;
pub mod fleet;
pub mod hopper;
pub mod http;
pub mod http2;
pub mod hub;
pub mod nats;
pub mod nodes;
pub mod order;
pub mod prometheus;
pub mod proxy;
pub mod sse;
pub mod token;
pub mod wire;
pub mod ws;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer};
use fanfare::http::{HttpConfig, scope, tune_socket};
use fanfare::{Broker, BrokerStats, Builder, Stats};

/// Addresses to come back to. Below the ports that the system gives to clients: one of those could take it meanwhile.
pub fn addresses<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).expect("small");
    std::array::from_fn(|_| {
        loop {
            let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                return listener.local_addr().expect("bound");
            }
        }
    })
}

/// A broker behind a server with two threads. Stops with the test.
pub struct TestServer {
    pub broker: Addr<Broker>,
    pub addr: SocketAddr,
    pub handle: ServerHandle,
}

pub fn serve(builder: Builder) -> TestServer {
    serve_with(builder, HttpConfig::default())
}

/// Whether actix-web's own server is to be tested in the place of fanfare's.
pub fn is_standard() -> bool {
    match std::env::var("FANFARE_TEST_SERVER").as_deref() {
        Ok("standard") => true,
        Ok(other) => panic!("FANFARE_TEST_SERVER must be standard, not {other}"),
        Err(_) => false,
    }
}

pub fn serve_with(builder: Builder, config: HttpConfig) -> TestServer {
    let broker = builder.start().expect("the broker starts");
    until_open(&broker);
    let served = broker.downgrade();
    let app = move || {
        let broker = served.upgrade().expect("the broker lives while the server starts");
        App::new().service(scope("/rt", &broker, config.clone()))
    };
    let (server, addr) = if is_standard() {
        let server = HttpServer::new(app)
            .workers(2)
            .h1_allow_half_closed(false)
            .tcp_nodelay(true)
            .on_connect(tune_socket)
            .disable_signals()
            .shutdown_timeout(1)
            .bind("127.0.0.1:0")
            .expect("a free port");
        let addr = *server.addrs().first().expect("bound");
        (server.run(), addr)
    } else {
        let server = fanfare::http::serve(app)
            .workers(2)
            .disable_signals()
            .shutdown_timeout(1)
            .bind("127.0.0.1:0")
            .expect("a free port");
        let addr = *server.addrs().first().expect("bound");
        (server.run(), addr)
    };
    let handle = server.handle();
    actix_web::rt::spawn(server);
    TestServer { broker, addr, handle }
}

/// Waits until a node has its order: other logs are open at once. From a thread of its own, since who asks for a server goes
/// on without waiting.
pub fn until_open(broker: &Addr<Broker>) {
    if !order::is_nats() {
        return;
    }
    let broker = broker.clone();
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let start = Instant::now();
            while !broker.send(Stats).await.expect("the broker lives").ready {
                // A log that is made to fail never is.
                if start.elapsed() > Duration::from_secs(10) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    });
    waiting.join().expect("no panic");
}

impl TestServer {
    pub async fn stats(&self) -> BrokerStats {
        self.broker.send(Stats).await.expect("the broker lives")
    }

    /// Waits until the broker's figures are as wanted, and says for how long.
    pub async fn until(&self, within: Duration, wanted: impl Fn(&BrokerStats) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let stats = self.stats().await;
            if wanted(&stats) {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not within {within:?}: {stats:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn open(&self, query: &str) -> sse::SseClient {
        sse::SseClient::open(self.addr, &format!("/rt/events?{query}"), &[]).await
    }

    /// Opens a stream and reads its first block.
    pub async fn live(&self, query: &str) -> sse::SseClient {
        let mut client = self.open(query).await;
        client.welcome().await;
        client
    }

    /// Opens a stream as the browser that has this cookie.
    pub async fn live_as(&self, cookie: &str, query: &str) -> sse::SseClient {
        let path = format!("/rt/events?{query}");
        let mut client = sse::SseClient::open(self.addr, &path, &[("cookie", cookie)]).await;
        client.welcome().await;
        client
    }

    pub async fn publish(&self, body: &str) -> http::Answer {
        http::post_json(self.addr, "/rt/publish", body).await
    }
}
