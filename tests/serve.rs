//! The server that lets a stream's HTTP go: what a client may notice of that, which is nothing.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use actix::Addr;
use actix_web::App;
use actix_web::dev::ServerHandle;
use fanfare::http::{HttpConfig, scope, serve};
use fanfare::{Broadcast, Broker, Drain, Event};
use support::http::{read_head, send_head};
use support::sse::SseClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn event(data: impl Into<String>) -> Event {
    Event::text("message", data).expect("valid")
}

/// Reads until the peer closes.
async fn rest_of(socket: &mut tokio::net::TcpStream, already: Vec<u8>) -> String {
    let mut all = already;
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut all)).await;
    read.expect("an end in time").expect("no reset");
    String::from_utf8(all).expect("text")
}

/// What was published before and after the socket was taken comes once and in order, and a stop lets all of the end out:
/// the notice, the last chunk, and a closed connection.
#[actix_web::test]
async fn a_stream_is_whole_from_its_head_to_its_end() {
    let server = support::serve(Broker::builder());
    let mut client = server.live("channel=a").await;
    for n in 0..100 {
        server
            .broker
            .send(Broadcast::channel("a", event(n.to_string())).expect("valid"))
            .await
            .expect("alive")
            .expect("stored");
        if n % 10 == 0 {
            assert_eq!(client.data().await, n.to_string());
        } else {
            assert_eq!(client.event().await.expect("an event").data(), n.to_string());
        }
    }
    server.broker.send(Drain).await.expect("alive");
    let closing = client.event().await.expect("a last word");
    assert!(closing.is("$closing"), "{closing:?}");
    assert!(client.block().await.is_none(), "something behind the last word");
    assert!(client.is_ended(), "the connection broke before the last chunk");
    server.handle.stop(true).await;
    assert_eq!(rest_of(&mut client.socket, Vec::new()).await, "", "something behind the last chunk");
}

/// Large events and many of them reach a client that reads in fits and starts, whatever part of a frame its socket took.
#[actix_web::test]
async fn a_socket_that_takes_a_part_is_given_the_rest() {
    let server = support::serve(Broker::builder());
    let mut client = server.live("channel=a").await;
    let all: Vec<String> = (0..60).map(|n| format!("{n}:{}", "x".repeat(1 + n * 4_000))).collect();
    for text in &all {
        let broadcast = Broadcast::channel("a", event(text.clone())).expect("valid");
        server.broker.send(broadcast).await.expect("alive").expect("stored");
    }
    for text in &all {
        let data = client.data().await;
        assert_eq!((data.len(), data.split(':').next()), (text.len(), text.split(':').next()));
    }
}

/// An older client has no chunks: its body is as it is, and ends with the connection.
#[actix_web::test]
async fn a_client_of_http_1_0_has_a_body_without_chunks() {
    let server = support::serve(Broker::builder());
    let request = format!("GET /rt/events?channel=a HTTP/1.0\r\nhost: {}\r\n\r\n", server.addr);
    let mut socket = send_head(server.addr, &request).await;
    let (head, raw) = read_head(&mut socket).await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    server.until(Duration::from_secs(5), |stats| stats.clients == 1).await;
    server
        .broker
        .send(Broadcast::channel("a", event("old")).expect("valid"))
        .await
        .expect("alive")
        .expect("stored");
    server.broker.send(Drain).await.expect("alive");
    let text = rest_of(&mut socket, raw).await;
    assert!(text.starts_with("retry: ") && text.contains("\ndata: old\n\n"), "{text}");
    assert!(text.trim_end().ends_with(r#""reason":"draining"}"#), "{text}");
}

/// What a client sends behind its request disturbs nothing, and nobody waits for it.
#[actix_web::test]
async fn what_is_sent_on_a_stream_is_not_heard() {
    let (broker, addr, _handle) = own("127.0.0.1:0");
    let mut client = SseClient::open(addr, "/rt/events?channel=a", &[]).await;
    client.welcome().await;
    for n in 0..50 {
        client.socket.write_all(&[b'!'; 4096]).await.expect("taken");
        let broadcast = Broadcast::channel("a", event(n.to_string())).expect("valid");
        broker.send(broadcast).await.expect("alive").expect("stored");
        assert_eq!(client.data().await, n.to_string());
    }
}

/// Fanfare's own server, whichever the other tests are run with.
fn own(listen: &str) -> (Addr<Broker>, SocketAddr, ServerHandle) {
    let broker = Broker::builder().start().expect("started");
    let served = broker.clone();
    let server = serve(move || App::new().service(scope("/rt", &served, HttpConfig::default())))
        .workers(1)
        .disable_signals()
        .bind(listen)
        .expect("a free port");
    let addr = *server.addrs().first().expect("bound");
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (broker, addr, handle)
}

/// Anonymous clients are served on a loopback address alone; the server says where it listens.
#[actix_web::test]
async fn anonymous_clients_are_served_on_loopback_alone() {
    for (listen, wanted) in [("127.0.0.1:0", 200), ("0.0.0.0:0", 401)] {
        let (_broker, addr, _handle) = own(listen);
        let answer = support::http::get(([127, 0, 0, 1], addr.port()).into(), "/rt/status").await;
        assert_eq!(answer.status(), wanted, "{listen}");
    }
}
