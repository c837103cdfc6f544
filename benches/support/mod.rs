//! What the benches share: clients of a scope in the same process, without sockets.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each bench uses a part of it"
)]

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use actix::Addr;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::{TestRequest, call_service};
use fanfare::{Broker, Stats};

/// The body of one stream.
pub type Body = Pin<Box<BoxBody>>;

/// Opens a stream, from a cursor if there is one.
pub async fn open<S>(app: &S, query: &str, cursor: Option<&str>) -> Body
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = actix_web::Error>,
{
    let mut request = TestRequest::get().uri(&format!("/events?{query}"));
    if let Some(cursor) = cursor {
        request = request.insert_header(("last-event-id", cursor));
    }
    Box::pin(call_service(app, request.to_request()).await.into_body())
}

/// Waits until all of them are live, and takes their first blocks.
pub async fn settle(broker: &Addr<Broker>, bodies: &mut [Body]) {
    while broker.send(Stats).await.unwrap().clients < bodies.len() {
        tokio::task::yield_now().await;
    }
    for body in bodies {
        let mut text = Vec::new();
        while !text.ends_with(b"}\n\n") {
            take(body, |piece| text.extend_from_slice(piece));
            tokio::task::yield_now().await;
        }
    }
}

/// Takes what a body has now.
pub fn take(body: &mut Body, mut with: impl FnMut(&[u8])) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(piece))) = body.as_mut().poll_next(&mut context) {
        with(black_box(&piece));
    }
}
