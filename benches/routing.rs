//! What a publish costs the broker and one thread's worker, from the message to the bytes at ten subscribers, with few
//! and with many other clients on other channels: it must not matter how many.
//!
//! In one process and without sockets: `cargo bench --bench routing`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::rt::System;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, dev::ServiceResponse};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broadcast, Broker, Event, Stats};

const SUBSCRIBERS: usize = 10;
const PAYLOAD: usize = 256;
/// Published in a row, so that the figure is of work and not of the wake-ups between two threads.
const ROW: u64 = 64;

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to 10 subscribers");
    group.throughput(Throughput::Elements(ROW));
    for others in [100, 100_000] {
        let system = System::new();
        let (broker, mut bodies) = system.block_on(async {
            let broker = Broker::builder().heartbeat(Duration::from_secs(3600)).start().unwrap();
            let app = init_service(App::new().service(scope("", &broker, HttpConfig::default()))).await;
            let mut bodies: Vec<Pin<Box<BoxBody>>> = Vec::new();
            for n in 0..SUBSCRIBERS + others {
                let channel = if n < SUBSCRIBERS { "target".into() } else { format!("other/{n}") };
                let request = TestRequest::get().uri(&format!("/events?channel={channel}"));
                let response: ServiceResponse = call_service(&app, request.to_request()).await;
                bodies.push(Box::pin(response.into_body()));
            }
            while broker.send(Stats).await.unwrap().clients < bodies.len() {
                tokio::task::yield_now().await;
            }
            // Everybody has had their first blocks.
            for body in &mut bodies {
                let mut text = Vec::new();
                while !text.ends_with(b"}\n\n") {
                    take(body, |piece| text.extend_from_slice(piece));
                    tokio::task::yield_now().await;
                }
            }
            (broker, bodies)
        });
        let mut head = 0;
        group.bench_function(BenchmarkId::new("other clients", others), |b| {
            b.iter(|| {
                system.block_on(async {
                    for _ in 0..ROW {
                        let event = Event::text("message", "x".repeat(PAYLOAD)).unwrap();
                        broker.do_send(Broadcast::channel("target", event).unwrap());
                    }
                    let due: usize = (head + 1..=head + ROW).map(frame_bytes).sum();
                    head += ROW;
                    let mut left = [due; SUBSCRIBERS];
                    while left.iter().any(|&left| left > 0) {
                        for (left, body) in left.iter_mut().zip(&mut bodies) {
                            take(body, |piece| *left -= piece.len());
                        }
                        tokio::task::yield_now().await;
                    }
                });
            });
        });
        drop(bodies);
    }
    group.finish();
}

/// `id: LLLLLL.TTTTTT.<seq>`, the data, and the blank line.
fn frame_bytes(seq: u64) -> usize {
    "id: LLLLLL.TTTTTT.\n".len() + seq.to_string().len() + "data: \n\n".len() + PAYLOAD
}

/// Takes what a body has now.
fn take(body: &mut Pin<Box<BoxBody>>, mut with: impl FnMut(&[u8])) {
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(piece))) = body.as_mut().poll_next(&mut context) {
        with(black_box(&piece));
    }
}

criterion_group!(benches, publish);
criterion_main!(benches);
