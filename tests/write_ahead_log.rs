//! What SQLite keeps beside the file is bounded too.

mod support;

use fanfare::{Batch, Broadcast, Broker, Event, SqliteLog};
use support::{http, serve};

/// The write-ahead log stays bounded also while readers never leave the file alone.
#[actix_web::test]
async fn readers_do_not_make_the_write_ahead_log_grow() {
    let name = format!("write-ahead-{}", std::process::id());
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("log.db");
    let server = serve(Broker::builder().log(SqliteLog::open(&path).expect("opened")));
    let addr = server.addr;
    let readers: Vec<_> = (0..8)
        .map(|_| {
            actix_web::rt::spawn(async move {
                loop {
                    assert_eq!(
                        http::get(addr, "/rt/history?channel=**&filter=kind:none").await.status(),
                        200
                    );
                }
            })
        })
        .collect();
    let mut largest = 0;
    for _ in 0..100 {
        let events = (0..100).map(|_| {
            let event = Event::text("message", "x".repeat(20_000)).expect("valid");
            Broadcast::channel("large", event).expect("valid")
        });
        let batch = Batch::new(events.collect::<Vec<_>>()).expect("valid");
        server.broker.send(batch).await.expect("answered").expect("committed");
        let wal = std::fs::metadata(path.with_extension("db-wal")).expect("a file");
        largest = largest.max(wal.len());
    }
    assert!(readers.iter().all(|reader| !reader.is_finished()), "they read all the time");
    readers.iter().for_each(actix_web::rt::task::JoinHandle::abort);
    println!("200 MB published, the write-ahead log was {largest} bytes at most");
    assert!(largest < 100 << 20, "{largest}");
    let _ = std::fs::remove_dir_all(&folder);
}
