//! The durable log: order and index in one SQLite database.
//!
//! One thread writes, one moves what was written to its place, a few read; the actor in front hands out work and never touches the disk.

mod checkpoint;
mod database;
mod error;
mod pass;
mod reader;
mod recent;
mod schema;
mod trim;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};

use actix::prelude::*;
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::error::Failure;
use self::reader::{ReadJob, Readers};
use self::writer::{Job, Jobs, Writer};
use super::index::{Align, Aligned, Apply, Index, IndexHandle, Open};
use super::{Commit, CommitFailed, Forget, Log, LogHandle, LogSetup, Opened, Page, ReadAfter, Seek, Sought};
use crate::cursor::Seq;
use crate::error::LogError;

/// What an acknowledged event survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A crash of the process, `kill -9` included. The default.
    #[default]
    Process,
    /// A power cut as well: each commit is on the disk before it is acknowledged.
    Full,
}

/// A log in a SQLite file. Events survive a restart, and clients resume over it.
///
/// The file belongs to one process at a time, and is a log of its own or the index of a shared order, never both. Beside it are its write-ahead log (`-wal`, `-shm`) and a lock
/// (`.lock`); a copy of the file alone is a backup only while nobody has it open.
///
/// ```
/// use fanfare::{Broker, Durability, SqliteLog};
///
/// # actix_web::rt::System::new().block_on(async {
/// # let path = std::env::temp_dir().join(format!("fanfare-doc-{}.db", std::process::id()));
/// let log = SqliteLog::open(&path)?.durability(Durability::Full);
/// let broker = Broker::builder().log(log).start()?;
/// # drop(broker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    connection: Connection,
    /// Held as long as the log is open.
    lock: File,
    durability: Durability,
}

/// Threads that read pages. Few: they compete with the publishers for the processor.
const READERS: usize = 2;

impl SqliteLog {
    /// Opens the log at `path`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`LogError`], whose source names the file and the remedy: it is open in another process, cannot be written, is
    /// no log, or is of a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let path = path.as_ref().to_path_buf();
        let lock = lock(&path)?;
        let connection = schema::open(&path).map_err(|error| Failure::new(&path, &error))?;
        Ok(Self { path, connection, lock, durability: Durability::default() })
    }

    /// What an acknowledged event survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }
}

/// Takes the file for this process, or says who else may have it.
fn lock(path: &Path) -> Result<File, LogError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let file = file.map_err(|error| Failure::io(&lock_path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Failure::taken(path).into()),
        Err(std::fs::TryLockError::Error(error)) => Err(Failure::io(&lock_path, &error).into()),
    }
}

impl Log for SqliteLog {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        let follower = setup.follower.clone();
        let (front, opened) = self.start_threads(setup, false)?;
        if let Some(broker) = follower.opened.upgrade()
            && let Some(opened) = opened
        {
            broker.do_send(opened);
        }
        let front = front.start();
        Ok(LogHandle {
            commit: front.clone().recipient(),
            read: front.clone().recipient(),
            seek: front.clone().recipient(),
            forget: front.recipient(),
            commit_bytes: None,
            relay: None,
            bound: None,
        })
    }
}

impl Index for SqliteLog {
    fn follow(self: Box<Self>, setup: LogSetup) -> Result<IndexHandle, LogError> {
        let (front, _) = self.start_threads(setup, true)?;
        let front = front.start();
        Ok(IndexHandle {
            align: front.clone().recipient(),
            apply: front.clone().recipient(),
            open: front.clone().recipient(),
            read: front.clone().recipient(),
            seek: front.clone().recipient(),
            forget: front.recipient(),
        })
    }
}

impl SqliteLog {
    fn start_threads(
        self,
        LogSetup { follower, retention }: LogSetup,
        is_index: bool,
    ) -> Result<(Front, Option<Opened>), LogError> {
        let Self { path, connection, lock, durability } = self;
        let readers = Readers::start(&path, READERS).map_err(|error| Failure::new(&path, &error))?;
        let failed = follower.failed.clone();
        let (writer, opened) =
            Writer::start(&path, connection, lock, durability, &retention, follower, is_index)?;
        Ok((Front { writer, readers, failed }, opened))
    }
}

/// The actor in front of the threads.
struct Front {
    writer: Jobs,
    readers: Readers,
    failed: actix::WeakRecipient<CommitFailed>,
}

impl Actor for Front {
    type Context = Context<Self>;
}

impl Handler<Commit> for Front {
    type Result = ();

    fn handle(&mut self, commit: Commit, _: &mut Self::Context) {
        let ticket = commit.ticket;
        // One commit is under way at a time, so there is always room unless the writer is gone.
        if self.writer.jobs.try_send(Job::Commit(commit)).is_err()
            && let Some(broker) = self.failed.upgrade()
        {
            broker.do_send(CommitFailed { ticket, error: LogError::new("the log's writer is gone") });
        }
    }
}

impl Front {
    /// Gives the writer a job of an index, and comes back with its answer.
    fn ask<T: 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Job,
    ) -> ResponseFuture<Result<T, LogError>> {
        let (reply, answer) = oneshot::channel();
        // The order waits for each answer before it asks again.
        let sent = self.writer.jobs.try_send(job(reply));
        Box::pin(async move {
            let gone = || LogError::new("the log's writer is gone");
            sent.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl Handler<Align> for Front {
    type Result = ResponseFuture<Result<Aligned, LogError>>;

    fn handle(&mut self, align: Align, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Align(align, reply))
    }
}

impl Handler<Apply> for Front {
    type Result = ResponseFuture<Result<Seq, LogError>>;

    fn handle(&mut self, apply: Apply, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Apply(apply, reply))
    }
}

impl Handler<Open> for Front {
    type Result = ResponseFuture<Result<(), LogError>>;

    fn handle(&mut self, open: Open, _: &mut Self::Context) -> Self::Result {
        self.ask(|reply| Job::Open(open, reply))
    }
}

impl Handler<Forget> for Front {
    type Result = ();

    fn handle(&mut self, forget: Forget, _: &mut Self::Context) {
        // As many as there are channels that the broker held; a writer that is gone has nothing to forget.
        let _ = self.writer.forgets.send(forget);
    }
}

impl Handler<ReadAfter> for Front {
    type Result = ResponseFuture<Result<Page, LogError>>;

    fn handle(&mut self, query: ReadAfter, _: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.readers.send(ReadJob::Page(query, reply));
        Box::pin(async { answer.await.unwrap_or_else(|_| Err(LogError::new("the log's readers are gone"))) })
    }
}

impl Handler<Seek> for Front {
    type Result = ResponseFuture<Result<Sought, LogError>>;

    fn handle(&mut self, query: Seek, _: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.readers.send(ReadJob::Seek(query, reply));
        Box::pin(async { answer.await.unwrap_or_else(|_| Err(LogError::new("the log's readers are gone"))) })
    }
}
