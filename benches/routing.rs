//! What a publish costs the broker and one thread's worker, from the message to the bytes at ten subscribers, with few
//! and with many other clients on other channels, by their names and by wildcards: it must not matter how many.
//!
//! In one process and without sockets: `cargo bench --bench routing`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

mod support;

use std::time::Duration;

use actix_web::App;
use actix_web::rt::System;
use actix_web::test::init_service;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broadcast, Broker, Event};

use self::support::{open, settle, take};

const SUBSCRIBERS: usize = 10;
const PAYLOAD: usize = 256;
/// Published in a row, so that the figure is of work and not of the wake-ups between two threads.
const ROW: u64 = 64;

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish to 10 subscribers");
    group.throughput(Throughput::Elements(ROW));
    for (kind, target, other) in [
        ("names", "target/7", "other/{n}"),
        ("one segment", "target/*", "other/{n}/*"),
        ("any number", "target/**", "other/{n}/**"),
    ] {
        for others in [100, 100_000] {
            let system = System::new();
            let (broker, mut bodies) = system.block_on(async {
                let broker = Broker::builder().heartbeat(Duration::from_secs(3600)).start().unwrap();
                let app = init_service(App::new().service(scope("", &broker, HttpConfig::default()))).await;
                let mut bodies = Vec::new();
                for n in 0..SUBSCRIBERS + others {
                    let selector = if n < SUBSCRIBERS {
                        target.to_owned()
                    } else {
                        other.replace("{n}", &n.to_string())
                    };
                    bodies.push(open(&app, &format!("channel={selector}"), None).await);
                }
                settle(&broker, &mut bodies).await;
                (broker, bodies)
            });
            let mut head = 0;
            group.bench_function(BenchmarkId::new(format!("others by {kind}"), others), |b| {
                b.iter(|| {
                    system.block_on(async {
                        for _ in 0..ROW {
                            let event = Event::text("message", "x".repeat(PAYLOAD)).unwrap();
                            broker.do_send(Broadcast::channel("target/7", event).unwrap());
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
    }
    group.finish();
}

/// `id: LLLLLL.TTTTTT.<seq>`, the data, and the blank line.
fn frame_bytes(seq: u64) -> usize {
    "id: LLLLLL.TTTTTT.\n".len() + seq.to_string().len() + "data: \n\n".len() + PAYLOAD
}

criterion_group!(benches, publish);
criterion_main!(benches);
