//! What a second node costs: from a publish on one node to its delivery on another, and how many events a second get there,
//! against one node with a file of its own.
//!
//! In one process and without sockets but those to NATS, on the disk that holds `target`: `cargo bench --bench cluster`.
//! Needs `nats-server`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::Addr;
use actix_web::rt::System;
use fanfare::{
    Batch, Broadcast, Broker, Deliveries, Delivery, Event, MemoryLog, NatsIndex, NatsLog, SqliteLog, Stats,
    SubscribeOptions, Subscription, subscribe_with,
};
use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use support::nats::NatsServer;

/// One at a time, so that each is measured alone.
const ALONE: usize = 2000;
const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 300;
const BATCH: usize = 100;
const BATCHES: usize = 600;

fn main() {
    // Cargo asks each bench whether it has tests.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let system = System::new();
    println!(
        "{:<34} {:>21} {:>21} {:>10} {:>10}",
        "", "receipt p50 / p99", "delivery p50 / p99", "64/flight", "batches"
    );
    println!("{:<34} {:>21} {:>21} {:>10} {:>10}", "", "ms", "ms", "events/s", "events/s");
    for setup in ["one node, a file", "two nodes, NATS, files", "two nodes, NATS, memory"] {
        system.block_on(measure(setup));
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{}", std::process::id()))
}

async fn node(server: Option<&NatsServer>, index: Option<&str>) -> Addr<Broker> {
    let file = index.map(|name| SqliteLog::open(folder().join(name)).unwrap());
    let builder = match (server, file) {
        (None, None) => Broker::builder(),
        (None, Some(file)) => Broker::builder().log(file),
        (Some(server), file) => {
            let index = file.map_or_else(|| NatsIndex::from(MemoryLog::default()), NatsIndex::from);
            Broker::builder().log(NatsLog::new(&server.url()).unwrap().index(index))
        }
    };
    let broker = builder.start().unwrap();
    while !broker.send(Stats).await.unwrap().ready {
        actix_web::rt::time::sleep(Duration::from_millis(5)).await;
    }
    broker
}

async fn measure(setup: &str) {
    std::fs::create_dir_all(folder()).unwrap();
    let server = setup.contains("NATS").then(NatsServer::start);
    let names = if setup.contains("file") { [Some("a.db"), Some("b.db")] } else { [None, None] };
    let here = node(server.as_ref(), names[0]).await;
    let there = match &server {
        Some(server) => node(Some(server), names[1]).await,
        None => here.clone(),
    };
    let options = SubscribeOptions::default().queue(65_536).unwrap();
    let mut deliveries = subscribe_with(&there, Subscription::to("bench/*").unwrap(), options).await.unwrap();

    let (mut receipts, mut delivered) = (Vec::new(), Vec::new());
    for _ in 0..ALONE {
        let began = Instant::now();
        let publishing = async {
            here.send(broadcast()).await.unwrap().unwrap();
            receipts.push(began.elapsed());
        };
        let delivering = async {
            take(&mut deliveries, 1).await;
            delivered.push(began.elapsed());
        };
        join(publishing, delivering).await;
    }
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let sends = join_all((0..IN_FLIGHT).map(|_| here.send(broadcast())));
        for answer in join(sends, take(&mut deliveries, IN_FLIGHT)).await.0 {
            answer.unwrap().unwrap();
        }
    }
    let singles = (ROUNDS * IN_FLIGHT) as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    for _ in 0..BATCHES / 4 {
        let batch = || Batch::new((0..BATCH).map(|_| broadcast()).collect()).unwrap();
        let sends = join_all((0..4).map(|_| here.send(batch())));
        for answer in join(sends, take(&mut deliveries, 4 * BATCH)).await.0 {
            answer.unwrap().unwrap();
        }
    }
    let batches = (BATCHES * BATCH) as f64 / began.elapsed().as_secs_f64();
    println!(
        "{setup:<34} {:>21} {:>21} {singles:>10.0} {batches:>10.0}",
        percentiles(receipts),
        percentiles(delivered)
    );
    drop((here, there, deliveries, server));
    let _ = std::fs::remove_dir_all(folder());
}

async fn take(deliveries: &mut Deliveries, count: usize) {
    let mut taken = 0;
    while taken < count {
        match deliveries.next().await.unwrap() {
            Delivery::Event(_) => taken += 1,
            other => panic!("{other:?}"),
        }
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    format!("{:.2} / {:.2}", at(0.5), at(0.99))
}

fn broadcast() -> Broadcast {
    Broadcast::channel("bench/7", Event::text("created", "x".repeat(256)).unwrap()).unwrap()
}
