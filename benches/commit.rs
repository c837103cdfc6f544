//! What a commit costs: publishes a second with one in flight and with 64, into each log. What waits while a commit is
//! under way leaves with the next, so 64 publishers share what one pays alone.
//!
//! In one process and without sockets, on the disk that holds `target`: `cargo bench --bench commit`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::path::PathBuf;

use actix::Addr;
use actix_web::rt::System;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::{Broadcast, Broker, Durability, Event, MemoryLog, SqliteLog};

fn publish(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish");
    group.sample_size(20);
    for log in ["memory", "process", "full"] {
        for in_flight in [1u64, 64] {
            let system = System::new();
            let (broker, folder) = system.block_on(async { start(log) });
            group.throughput(Throughput::Elements(in_flight));
            group.bench_function(BenchmarkId::new(log, in_flight), |b| {
                b.iter(|| {
                    system.block_on(async {
                        let sends = (0..in_flight).map(|_| broker.send(broadcast()));
                        for answer in futures_util::future::join_all(sends).await {
                            answer.unwrap().unwrap();
                        }
                    });
                });
            });
            drop(broker);
            drop(system);
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    group.finish();
}

fn start(log: &str) -> (Addr<Broker>, PathBuf) {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("commit-{}-{log}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let sqlite = || SqliteLog::open(folder.join("events.db")).unwrap();
    let builder = match log {
        "memory" => Broker::builder().log(MemoryLog::default()),
        "process" => Broker::builder().log(sqlite()),
        _ => Broker::builder().log(sqlite().durability(Durability::Full)),
    };
    (builder.start().unwrap(), folder)
}

fn broadcast() -> Broadcast {
    Broadcast::channel("orders/7", Event::text("created", "x".repeat(256)).unwrap()).unwrap()
}

criterion_group!(benches, publish);
criterion_main!(benches);
