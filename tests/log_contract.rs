//! Both logs keep the promises of the role.

use std::cell::Cell;
use std::path::PathBuf;

use fanfare::testing::log_contract;
use fanfare::{Durability, Log, MemoryLog, SqliteLog};

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
        log_contract::check_reopen(|| folder.open("log.db", durability)).await;
    }
}
