//! All logs keep the promises of the role.

mod support;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use fanfare::testing::log_contract;
use fanfare::{Durability, Log, MemoryLog, NatsIndex, NatsLog, SqliteLog};
use support::nats::NatsServer;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-contract-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn open(&self, name: &str, durability: Durability) -> Box<dyn Log> {
        Box::new(SqliteLog::open(self.0.join(name)).expect("it opens").durability(durability))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[actix_web::test]
async fn the_log_in_memory_keeps_its_promises() {
    log_contract::check(|| Box::new(MemoryLog::default()) as Box<dyn Log>).await;
}

#[actix_web::test]
async fn the_durable_log_keeps_its_promises() {
    for durability in [Durability::Process, Durability::Full] {
        let (folder, count) = (Folder::new(&format!("{durability:?}")), Cell::new(0));
        log_contract::check(|| {
            count.set(count.get() + 1);
            folder.open(&format!("{}.db", count.get()), durability)
        })
        .await;
    }
}

#[actix_web::test]
async fn the_durable_log_keeps_them_over_a_restart() {
    for durability in [Durability::Process, Durability::Full] {
        let folder = Folder::new(&format!("reopen-{durability:?}"));
        log_contract::check_reopen_in_terms(|| folder.open("log.db", durability)).await;
    }
}

/// A log whose order is a stream of its own.
fn shared(server: &NatsServer, stream: &str, index: impl Into<NatsIndex>) -> Box<dyn Log> {
    let log = NatsLog::new(&server.url()).expect("a URL").stream(stream).expect("a name");
    Box::new(log.keep(Duration::from_secs(3600), 16 << 20, 1).index(index))
}

#[actix_web::test]
async fn the_shared_log_keeps_its_promises_with_an_index_in_memory() {
    let (server, count) = (NatsServer::start(), Cell::new(0));
    log_contract::check(|| {
        count.set(count.get() + 1);
        shared(&server, &format!("memory-{}", count.get()), MemoryLog::default())
    })
    .await;
}

#[actix_web::test]
async fn the_shared_log_keeps_its_promises_with_an_index_in_a_file() {
    let (server, folder, count) = (NatsServer::start(), Folder::new("shared"), Cell::new(0));
    log_contract::check(|| {
        count.set(count.get() + 1);
        let index = SqliteLog::open(folder.0.join(format!("{}.db", count.get()))).expect("it opens");
        shared(&server, &format!("file-{}", count.get()), index)
    })
    .await;
}

#[actix_web::test]
async fn the_shared_log_keeps_them_over_a_restart() {
    let (server, folder) = (NatsServer::start(), Folder::new("shared-reopen"));
    log_contract::check_reopen(|| {
        shared(&server, "file", SqliteLog::open(folder.0.join("index.db")).expect("it opens"))
    })
    .await;
    // One in memory is filled from the stream.
    log_contract::check_reopen(|| shared(&server, "memory", MemoryLog::default())).await;
}
