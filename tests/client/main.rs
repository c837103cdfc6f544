//! The client: what it promises, against real servers, and against sockets that answer what no good server would.

/// Makes a test over each transport of every function named.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use fanfare::client::Transport;

            #[actix_web::test]
            async fn over_sse() {
                super::$name(Transport::Sse).await;
            }

            #[actix_web::test]
            async fn over_a_web_socket() {
                super::$name(Transport::WebSocket).await;
            }
        }
    )* };
}

mod both;
mod cut;
mod publish;
mod scripted;
mod sse;
#[path = "../support/mod.rs"]
mod support;
mod troubles;
mod web_socket;

use std::time::Duration;

use fanfare::client::{
    Cause, Client, EventStream, Item, Position, Received, StreamError, Subscribe, Transport,
};
use fanfare::{Broadcast, Event};
use futures_util::StreamExt;
use support::TestServer;

/// Longer than anything that a test waits for on purpose.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(server: &TestServer) -> Client {
    Client::new(format!("http://{}/rt", server.addr)).expect("a URL")
}

/// What most tests follow.
fn follow(client: &Client, transport: Transport) -> Subscribe {
    client.subscribe().over(transport).channel("a").expect("valid")
}

async fn item(stream: &mut EventStream) -> Result<Item, StreamError> {
    let item =
        tokio::time::timeout(PATIENCE, stream.next()).await.expect("something within the test's patience");
    item.expect("an item, not the end")
}

/// The next event, which must come before anything else.
async fn event(stream: &mut EventStream) -> Received {
    match item(stream).await {
        Ok(Item::Event(event)) => event,
        other => panic!("no event: {other:?}"),
    }
}

async fn connected(stream: &mut EventStream) {
    let item = item(stream).await;
    assert!(matches!(item, Ok(Item::Connected(_))), "{item:?}");
}

/// Why the connection is lost, which must come next, and the pause.
async fn lost(stream: &mut EventStream) -> (Cause, Duration) {
    match item(stream).await {
        Ok(Item::Disconnected(lost)) => (lost.cause, lost.retry_in),
        other => panic!("not lost: {other:?}"),
    }
}

/// How the stream ends, which must come next.
async fn end(stream: &mut EventStream) -> StreamError {
    let error = item(stream).await.expect_err("the end");
    assert!(stream.next().await.is_none(), "after {error}");
    assert!(stream.next().await.is_none(), "after {error}");
    error
}

fn to(channel: &str, data: impl Into<String>) -> Broadcast {
    Broadcast::channel(channel, Event::text("message", data).expect("valid")).expect("valid")
}

async fn publish(server: &TestServer, channel: &str, data: impl Into<String>) -> Position {
    let receipt = server.broker.send(to(channel, data)).await.expect("answered").expect("committed");
    receipt.cursor.expect("stored").into()
}
