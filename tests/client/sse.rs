//! What is of Server-Sent Events alone.

use fanfare::client::{Begin, Cause, Position, StreamError};

use crate::scripted::{Scripted, plain, sse, status};
use crate::{connected, end, lost};

const WELCOME: &str = "retry: 1\n\nid: a.b.1\nevent: $welcome\ndata: {\"client\":\"01J00000000000000000000000\",\
    \"session\":\"01J00000000000000000000001\",\"heartbeat\":0.1}\n\n";

/// What moves the cursor without an event moves it all the same, and the next connection asks for what is behind it.
#[actix_web::test]
async fn a_ping_moves_the_cursor() {
    let blocks = format!("{WELCOME}: ping\nid: a.b.7\n\n");
    let mut server = Scripted::start([sse(&blocks), sse(WELCOME).held()]).await;
    let client = server.client().header("x-key", "k").expect("valid").bearer("t").expect("valid");
    let subscribe = client.subscribe().channel("a/*").expect("valid").channel("b").expect("valid");
    let mut stream = subscribe.filter("k", "v&w").expect("valid").from(Begin::Last(3)).open();
    connected(&mut stream).await;
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.1"));
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
    assert_eq!(stream.position().map(Position::as_str), Some("a.b.7"));
    connected(&mut stream).await;

    let first = server.asked().await.to_lowercase();
    let line = "get /events?format=envelope&channel=a%2f*&channel=b&filter=k%3av%26w&from=3 http/1.1\r\n";
    assert!(first.starts_with(line), "{first}");
    for header in ["accept: text/event-stream", "x-key: k", "authorization: bearer t"] {
        assert!(first.contains(&format!("\r\n{header}\r\n")), "{first}");
    }
    assert!(!first.contains("last-event-id"), "{first}");
    let second = server.asked().await.to_lowercase();
    assert!(second.starts_with(line) && second.contains("\r\nlast-event-id: a.b.7\r\n"), "{second}");
}

/// In pieces or in one, whole or without an end.
#[actix_web::test]
async fn a_block_beyond_the_limit_ends_the_stream() {
    let long = "x".repeat(100_000);
    let short = "x".repeat(2_000);
    for blocks in [
        format!("data: {short}\n\n"),
        format!("data: {long}\n\n"),
        format!("data: {long}"),
        format!(": {long}"),
        long.clone(),
    ] {
        let server = Scripted::start([sse(&format!("{WELCOME}{blocks}")).held()]).await;
        let mut stream = server.client().max_event(1000).subscribe().open();
        connected(&mut stream).await;
        let error = end(&mut stream).await;
        assert!(matches!(error, StreamError::TooLarge { limit: 1000 }), "{error}");
    }
    // The limit is of an event, not of what comes together.
    let blocks = ": ping\nid: a.b.7\n\n".repeat(1000);
    let server = Scripted::start([sse(&format!("{WELCOME}{blocks}"))]).await;
    let mut stream = server.client().max_event(1000).subscribe().open();
    connected(&mut stream).await;
    assert_eq!(lost(&mut stream).await.0, Cause::Ended);
}

#[actix_web::test]
async fn an_answer_that_is_no_stream_ends_it() {
    let server = Scripted::start([plain("HTTP/1.1 204 No Content\r\n\r\n")]).await;
    assert!(matches!(end(&mut server.client().subscribe().open()).await, StreamError::Stopped));
    let server = Scripted::start([status("200 OK", "content-type: text/html\r\n", "<p>")]).await;
    let error = end(&mut server.client().subscribe().open()).await;
    assert!(matches!(&error, StreamError::NotAStream(kind) if kind == "text/html"), "{error}");
}
