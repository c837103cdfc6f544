//! The service side: who may send from where, what is answered, and what stops with what.

mod support;

use std::time::Duration;

use actix_web::App;
use actix_web::body::MessageBody;
use actix_web::test::{TestRequest, call_service, init_service};
use fanfare::http::{HttpConfig, scope};
use fanfare::{Batch, Broadcast, Broker, Event, InvalidValue, StartError};
use support::order::{builder, nth};
use support::serve;

fn text(data: &str) -> Event {
    Event::text("message", data).expect("a valid event")
}

#[actix_web::test]
async fn any_thread_may_publish() {
    let server = serve(builder());
    let mut client = server.live("channel=a").await;
    let broker = server.broker.clone();
    let plain = std::thread::spawn(move || {
        for n in 0..100 {
            broker.do_send(Broadcast::channel("a", text(&n.to_string())).expect("valid"));
        }
    });
    for n in 0..100 {
        assert_eq!(client.data().await, n.to_string());
    }
    plain.join().expect("no panic");
}

#[actix_web::test]
async fn a_receipt_comes_with_the_commit() {
    let server = serve(builder());
    let receipt = server.broker.send(Broadcast::channel("a", text("x")).expect("valid")).await;
    let receipt = receipt.expect("answered").expect("committed");
    assert_eq!((receipt.seq, receipt.duplicate), (Some(nth(1)), false));
    assert_eq!(receipt.cursor.expect("a cursor").seq(), nth(1));
    assert_eq!(server.stats().await.head, nth(1), "who has a receipt finds the head there");

    let batch = vec![Broadcast::everyone(text("y")), Broadcast::everyone(text("z").ephemeral())];
    let receipts =
        server.broker.send(Batch::new(batch).expect("valid")).await.expect("answered").expect("committed");
    assert_eq!(receipts.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [Some(nth(2)), None]);
    assert!(Batch::new(Vec::new()).is_err());
}

#[actix_web::test]
async fn a_broker_whose_last_address_is_dropped_ends_its_streams_and_stops() {
    let server = serve(builder().heartbeat(Duration::from_millis(200)));
    let mut client = server.live("channel=a").await;
    let mut second = server.live("channel=b").await;
    let weak = server.broker.downgrade();
    let addr = server.addr;
    let (broker, handle) = (server.broker, server.handle);
    drop(broker);
    for client in [&mut client, &mut second] {
        let closing = client.event().await.expect("last words");
        assert!(closing.is("$closing"), "{closing:?}");
        assert_eq!(closing.data(), r#"{"reason":"unavailable"}"#);
        assert_eq!(client.block().await, None);
    }
    // Its last words are heard a moment before it is gone.
    let start = std::time::Instant::now();
    while weak.upgrade().is_some() {
        assert!(start.elapsed() < Duration::from_secs(5), "it is still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // The server is still there, and says so in the form that a browser understands, or plainly.
    let mut late = support::sse::SseClient::open(addr, "/rt/events?channel=a", &[]).await;
    assert_eq!(late.head.status, 200);
    assert_eq!(late.event().await.expect("last words").data(), r#"{"reason":"unavailable"}"#);
    for path in ["/rt/events?strict=1", "/rt/status", "/rt/presence?channel=a"] {
        let answer = support::http::get(addr, path).await;
        assert_eq!((answer.status(), answer.head.header("retry-after").is_some()), (503, true), "{path}");
        answer.problem();
    }
    assert_eq!(support::http::post_json(addr, "/rt/publish", r#"{"channel":"a"}"#).await.status(), 503);
    handle.stop(true).await;
}

/// The scope does not hold the broker: without a server in between, the last address is the application's.
#[actix_web::test]
async fn a_scope_does_not_keep_a_broker_alive() {
    let broker = Broker::builder().start().expect("started");
    let app = init_service(App::new().service(scope("/rt", &broker, HttpConfig::default()))).await;
    let request = TestRequest::get().uri("/rt/events?channel=a").to_request();
    let response = call_service(&app, request).await;
    let mut body = std::pin::pin!(response.into_body());
    drop(broker);
    let mut text = String::new();
    while let Some(bytes) = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await {
        text.push_str(std::str::from_utf8(&bytes.expect("infallible")).expect("UTF-8"));
    }
    assert!(text.ends_with("event: $closing\ndata: {\"reason\":\"unavailable\"}\n\n"), "{text}");
}

#[actix_web::test]
async fn dropping_the_body_is_the_disconnect() {
    let broker = Broker::builder().start().expect("started");
    let app = init_service(App::new().service(scope("/rt", &broker, HttpConfig::default()))).await;
    let mut responses = Vec::new();
    for n in 0..50 {
        let uri = format!("/rt/events?channel=own/{n}");
        responses.push(call_service(&app, TestRequest::get().uri(&uri).to_request()).await);
    }
    let stats = || async { broker.send(fanfare::Stats).await.expect("answered") };
    while stats().await.clients < 50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stats().await.channels, 50);
    drop(responses);
    while stats().await.clients > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((stats().await.sessions, stats().await.channels), (0, 0));
}

#[test]
fn a_broker_needs_an_actix_system() {
    assert!(matches!(Broker::builder().start(), Err(StartError::NoSystem)));
}

#[actix_web::test]
async fn bad_settings_never_run() {
    let field = |builder: fanfare::Builder| match builder.start() {
        Err(StartError::Setting(invalid)) => InvalidValue::field(&invalid),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Broker::builder().heartbeat(Duration::ZERO)), "heartbeat");
    assert_eq!(field(Broker::builder().heartbeat(Duration::from_secs(7200))), "heartbeat");
    assert_eq!(field(Broker::builder().stall_timeout(Duration::from_secs(1))), "stall_timeout");
    assert_eq!(field(Broker::builder().in_flight(0, 1)), "intake");
    assert_eq!(field(Broker::builder().ring(1, 0)), "ring");
    assert_eq!(field(Broker::builder().feed(0, 0)), "feed");
    assert_eq!(field(Broker::builder().bindings(0, Duration::from_secs(1))), "bindings");
    assert_eq!(field(Broker::builder().bindings(1, Duration::ZERO)), "bindings");
    assert_eq!(field(Broker::builder().drain(Duration::MAX)), "drain");
    assert!(Broker::builder().heartbeat(Duration::from_secs(60)).start().is_ok());
}
