//! Moves what was committed from the write-ahead log into the database, beside the commits.
//!
//! SQLite would do so at the end of every commit that finds 1,000 pages waiting, and whoever publishes then would wait for
//! the disk. A thread of its own does it instead; it never keeps the writer from committing.

use std::ffi::c_int;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;

use super::schema;

/// Pages of the write-ahead log after which they are moved, 4 MiB, and after as many again.
const SOON: c_int = 1_000;
/// Pages after which the writer waits for it, 64 MiB: while commits never pause the write-ahead log is never moved whole,
/// and would grow on. So seldom that not one in a hundred commits waits.
const NOW: c_int = 16_000;
/// What the write-ahead log is cut to once it was moved whole, in bytes.
const KEPT: i64 = 4 << 20;

/// Starts the thread and has the writer's commits call for it. It ends with that connection.
pub(super) fn beside(writer: &mut Connection, path: &Path) -> rusqlite::Result<()> {
    let connection = schema::open_to_checkpoint(path)?;
    let (call, calls) = sync_channel(1);
    let thread = std::thread::Builder::new().name("fanfare-check".into());
    let started = thread.spawn(move || serve(&connection, &calls));
    started.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    writer.pragma_update_and_check(None, "journal_size_limit", KEPT, |_| Ok(()))?;
    call_from(writer, call)
}

fn call_from(writer: &mut Connection, call: SyncSender<()>) -> rusqlite::Result<()> {
    let mut next = SOON;
    writer.wal_hook(Some(move |wal: &mut rusqlite::hooks::Wal, pages: c_int| {
        if pages >= NOW {
            // What fails here is tried again with the next commit, which tells of it if it cannot be written either.
            let _ = wal.checkpoint();
        } else if pages < SOON {
            next = SOON;
        } else if pages >= next {
            next = pages + SOON;
            // One call is enough.
            let _ = call.try_send(());
        }
        Ok(())
    }))
}

fn serve(connection: &Connection, calls: &Receiver<()>) {
    while calls.recv().is_ok() {
        let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(%error, "the write-ahead log could not be moved yet");
        }
    }
}
