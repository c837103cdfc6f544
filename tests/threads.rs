//! A broker that is dropped leaves nothing behind. Alone in its process, so that all threads are its own.

mod support;

use std::time::{Duration, Instant};

use fanfare::{Broker, Builder, MemoryLog, NatsLog, Retention, SqliteLog, Stats};
use support::nats::NatsServer;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux").count()
}

/// The threads of a broker and of its log end with its last address, whatever the log, and whatever it does every so often.
#[actix_web::test]
async fn the_threads_of_a_broker_end_with_it() {
    let server = NatsServer::start();
    let path = std::env::temp_dir().join(format!("fanfare-threads-{}.db", std::process::id()));
    let files = ["", "-wal", "-shm", ".lock"].map(|end| format!("{}{end}", path.display()));
    let shared = || NatsLog::new(&server.url()).expect("a URL");
    type Make<'a> = Box<dyn Fn() -> Builder + 'a>;
    let logs: [(&str, Make<'_>); 4] = [
        ("in memory", Box::new(|| Broker::builder().log(MemoryLog::default()))),
        ("in a file", Box::new(|| Broker::builder().log(SqliteLog::open(&path).expect("it opens")))),
        ("shared, in memory", Box::new(|| Broker::builder().log(shared()))),
        (
            "shared, in a file",
            Box::new(|| {
                files.iter().for_each(|file| drop(std::fs::remove_file(file)));
                Broker::builder().log(shared().index(SqliteLog::open(&path).expect("it opens")))
            }),
        ),
    ];
    for (name, builder) in logs {
        for rule in ["a=none", "a=interest:grace=1s"] {
            let before = threads();
            let retention = Retention::default().rule(rule.parse().expect("valid"));
            let broker = builder().retention(retention).start().expect("it starts");
            while !broker.send(Stats).await.expect("it lives").ready {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(threads() > before, "it has threads");
            drop(broker);
            let deadline = Instant::now() + Duration::from_secs(10);
            while threads() > before {
                assert!(
                    Instant::now() < deadline,
                    "a log {name}, with {rule}, leaves {}",
                    threads() - before
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    files.iter().for_each(|file| drop(std::fs::remove_file(file)));
}
