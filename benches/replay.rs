//! What it costs to give a client what it missed, from the request to the bytes.
//!
//! - `encoding`: from the log, where each event is written anew, in each format of a stream.
//! - `ring`: from the ring, whose events are written already, for a client that follows all of them, a tenth, a hundredth.
//! - `hand-off`: a client that missed little, until it is live and has the first event that was published after it came.
//!
//! In one process and without sockets: `cargo bench --bench replay`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

mod support;

use std::time::Duration;

use actix::Addr;
use actix_web::App;
use actix_web::rt::System;
use actix_web::test::init_service;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broadcast, Broker, Builder, Event};

use self::support::{Body, open, take};

/// The ring holds them all, if it is to.
const EVENTS: u64 = 4_096;
/// Ends each payload, and is nowhere else.
const END: u8 = b'!';

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoding");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(20);
    for size in [64, 1024] {
        for format in ["raw", "envelope"] {
            let query = format!("channel=replay/0&format={format}");
            let replay = Replay::new(Broker::builder().ring(1, 1), size, 1);
            group.bench_function(BenchmarkId::new(format, size), |b| b.iter(|| replay.once(&query, EVENTS)));
        }
    }
    group.finish();
}

fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.sample_size(20);
    for channels in [1, 10, 100] {
        let replay = Replay::new(Broker::builder(), 256, channels);
        let missed = EVENTS.div_ceil(channels);
        group.throughput(Throughput::Elements(missed));
        group.bench_function(BenchmarkId::new("one of channels", channels), |b| {
            b.iter(|| replay.once("channel=replay/0", missed));
        });
    }
    group.finish();
}

fn hand_off(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand-off");
    // Of 256 channels, so that a client has missed 16 events. In turns with what is published, the ring moves on.
    let replay = Replay::new(Broker::builder(), 256, 256);
    group.bench_function("to live", |b| {
        b.iter(|| {
            replay.system.block_on(async {
                let app =
                    init_service(App::new().service(scope("", &replay.broker, HttpConfig::default()))).await;
                let mut body = open(&app, "channel=replay/0&channel=live", Some(&replay.cursor)).await;
                read(&mut body, EVENTS.div_ceil(256)).await;
                replay.broker.do_send(ephemeral("live"));
                read(&mut body, 1).await;
            });
        });
    });
    group.finish();
}

/// A broker with a history, and the cursor of its beginning.
struct Replay {
    system: actix_web::rt::SystemRunner,
    broker: Addr<Broker>,
    cursor: String,
}

impl Replay {
    /// The events are on so many channels in turn.
    fn new(builder: Builder, size: usize, channels: u64) -> Self {
        let system = System::new();
        let (broker, cursor) = system.block_on(async {
            let broker = builder.heartbeat(Duration::from_secs(3600)).start().unwrap();
            let begin = broker.send(stored("begin", size)).await.unwrap().unwrap();
            for n in 0..EVENTS {
                let event = stored(&format!("replay/{}", n % channels), size);
                broker.send(event).await.unwrap().unwrap();
            }
            (broker, begin.cursor.unwrap().to_string())
        });
        Self { system, broker, cursor }
    }

    /// One client comes, reads what it missed, and goes.
    fn once(&self, query: &str, missed: u64) {
        self.system.block_on(async {
            let app = init_service(App::new().service(scope("", &self.broker, HttpConfig::default()))).await;
            let mut body = open(&app, query, Some(&self.cursor)).await;
            read(&mut body, missed).await;
        });
    }
}

fn stored(channel: &str, size: usize) -> Broadcast {
    let payload = "x".repeat(size - 1) + "!";
    Broadcast::channel(channel, Event::text("message", payload).unwrap()).unwrap()
}

/// Leaves the history as it is.
fn ephemeral(channel: &str) -> Broadcast {
    Broadcast::channel(channel, Event::text("message", "!").unwrap().ephemeral()).unwrap()
}

async fn read(body: &mut Body, mut events: u64) {
    while events > 0 {
        take(body, |piece| events -= piece.iter().filter(|byte| **byte == END).count() as u64);
        tokio::task::yield_now().await;
    }
}

criterion_group!(benches, encoding, ring, hand_off);
criterion_main!(benches);
