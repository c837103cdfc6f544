//! Moves what was committed from the write-ahead log into the database, beside the commits.
//!
//! SQLite would do so at the end of every commit that finds 1,000 pages waiting, and whoever publishes then would wait for
//! the disk. A thread of its own does it instead, without keeping the writer from committing. What it cannot do is make
//! SQLite begin the write-ahead log anew while others commit and read all the time: for that the writer pauses, seldom.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::Failure;
use super::schema::{self, PATIENCE};
use crate::error::LogError;

/// Pages of the write-ahead log after which they are moved, 4 MiB, and after as many again.
const SOON: i32 = 1_000;
/// Pages after which the writer pauses until the write-ahead log can begin anew, 64 MiB. So seldom that not one in a
/// hundred commits waits.
const NOW: i32 = 16_000;
/// Pages after which something is wrong: a reader of long, most likely another program.
const FAR_TOO_MANY: i32 = 4 * NOW;
/// What the write-ahead log is cut to once it has begun anew, in bytes.
const KEPT: i64 = 4 << 20;
/// How long the writer waits for those who still read the old end.
const PAUSE: Duration = Duration::from_millis(250);
/// How soon it looks again whether the other thread is done.
const RETRY: Duration = Duration::from_millis(1);

/// The writer's side of it. The thread ends with this.
pub(super) struct Checkpoints {
    path: PathBuf,
    /// The size of the write-ahead log in pages, as of the last commit.
    pages: Arc<AtomicI32>,
    call: SyncSender<()>,
    schedule: Schedule,
}

impl Checkpoints {
    pub(super) fn start(writer: &mut Connection, path: &Path) -> Result<Self, LogError> {
        let failed = |error: rusqlite::Error| LogError::from(Failure::new(path, &error));
        let connection = schema::open_to_checkpoint(path).map_err(failed)?;
        let (call, calls) = sync_channel(1);
        let (owner, thread) = (path.to_path_buf(), std::thread::Builder::new().name("fanfare-check".into()));
        let started = thread.spawn(move || serve(&connection, &owner, &calls));
        started.map_err(|error| LogError::from(Failure::thread(path, &error)))?;
        writer.pragma_update_and_check(None, "journal_size_limit", KEPT, |_| Ok(())).map_err(failed)?;
        let pages = Arc::new(AtomicI32::new(0));
        let counted = pages.clone();
        // It replaces SQLite's own, which would move the pages here and now.
        let hook = move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(failed)?;
        Ok(Self { path: path.into(), pages, call, schedule: Schedule::default() })
    }

    /// Looks, after a commit, at what is to be done.
    pub(super) fn look(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        match self.schedule.next(pages) {
            Due::Nothing => {}
            // One call is enough.
            Due::Soon => drop(self.call.try_send(())),
            Due::Now => match begin_anew(writer) {
                Ok(true) => {}
                Ok(false) if pages < FAR_TOO_MANY => {}
                Ok(false) => tracing::warn!(
                    file = %self.path.display(),
                    pages,
                    "the write-ahead log grows: something reads the file for long; end other programs that have it open"
                ),
                Err(error) => tracing::error!("{}", Failure::new(&self.path, &error)),
            },
        }
    }
}

/// What a size of the write-ahead log calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    Soon,
    Now,
}

/// At which sizes something is due next.
#[derive(Debug)]
struct Schedule {
    last: i32,
    soon: i32,
    now: i32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { last: 0, soon: SOON, now: NOW }
    }
}

impl Schedule {
    fn next(&mut self, pages: i32) -> Due {
        if pages < self.last {
            // It has begun anew.
            *self = Self::default();
        }
        self.last = pages;
        if pages >= self.now {
            self.now = pages + SOON;
            Due::Now
        } else if pages >= self.soon {
            self.soon = pages + SOON;
            Due::Soon
        } else {
            Due::Nothing
        }
    }
}

/// Moves all pages and waits a moment for those who still need them. True if the next commit begins the write-ahead
/// log anew.
fn begin_anew(writer: &Connection) -> rusqlite::Result<bool> {
    let until = Instant::now() + PAUSE;
    let moved = loop {
        let left = until.saturating_duration_since(Instant::now());
        writer.busy_timeout(left)?;
        match writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0)) {
            // For readers it has waited, but not for the other thread, if that moves pages just now.
            Ok(true) if !left.is_zero() => std::thread::sleep(RETRY.min(left)),
            done => break done.map(|is_busy| !is_busy),
        }
    };
    writer.busy_timeout(PATIENCE)?;
    moved
}

fn serve(connection: &Connection, path: &Path, calls: &Receiver<()>) {
    while calls.recv().is_ok() {
        // The commits go on as long as there is room, and tell of it when there is none.
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::error!("{}", Failure::new(path, &error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_moved_each_so_many_and_the_writer_pauses_seldom() {
        let mut schedule = Schedule::default();
        let due: Vec<_> = (0..20_000).map(|pages| schedule.next(pages)).collect();
        let at = |wanted| due.iter().enumerate().filter(move |(_, due)| **due == wanted).map(|(at, _)| at);
        let soon: Vec<_> = at(Due::Soon).collect();
        assert_eq!((soon.first(), soon.get(1)), (Some(&1_000), Some(&2_000)));
        assert_eq!(at(Due::Now).collect::<Vec<_>>(), [16_000, 17_000, 18_000, 19_000]);
    }

    #[test]
    fn a_large_commit_at_the_new_beginning_calls_as_well() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(15_500), Due::Soon);
        assert_eq!(schedule.next(1_100), Due::Soon);
        assert_eq!(schedule.next(1_200), Due::Nothing);
    }
}
