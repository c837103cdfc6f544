//! The thread that writes: one commit after the other, and cleaning in between.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::Durability;
use super::checkpoint::Checkpoints;
use super::database::{Appended, Database};
use super::error::Failure;
use crate::actors::log::{
    Commit, CommitFailed, Committed, Follower, Forget, LogHealth, Opened, Settlement, Trim, Trimmed,
};
use crate::error::LogError;
use crate::retention::{Policy, Retention};

/// Commits that wait: the broker has one under way at a time.
const COMMITS: usize = 4;
/// How often the file is looked at when nothing is due: ids grow old, and a disk that was full may have room.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked at however much there is to commit.
const TEND_EVERY: Duration = Duration::from_millis(50);

/// The ways into the thread: commits, one at a time, and what is to be forgotten when there is time.
pub(super) struct Jobs {
    pub(super) commits: SyncSender<Commit>,
    pub(super) forgets: Sender<Forget>,
}

pub(super) struct Writer {
    path: PathBuf,
    database: Database,
    checkpoints: Checkpoints,
    follower: Follower,
    commits: Receiver<Commit>,
    forgets: Receiver<Forget>,
    forgetting: Option<Forget>,
    is_failing: bool,
    /// The file is ours as long as this is held.
    _lock: File,
}

impl Writer {
    pub(super) fn start(
        path: &Path,
        mut connection: Connection,
        lock: File,
        durability: Durability,
        retention: &Retention,
        follower: Follower,
    ) -> Result<(Jobs, Opened), LogError> {
        let failed = |error: rusqlite::Error| LogError::from(Failure::new(path, &error));
        let synchronous = match durability {
            Durability::Process => "NORMAL",
            Durability::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        let checkpoints = Checkpoints::start(&mut connection, path)?;
        let mut database = Database::new(connection, retention.clone()).map_err(failed)?;
        let lineage = database.begin_term().map_err(failed)?;
        let by_interest = |channel: &crate::Channel| matches!(retention.of(channel), Policy::Interest { .. });
        let held = database.held(by_interest).map_err(failed)?;
        let opened = Opened { lineage, head: database.head(), held };
        let (commits_in, commits) = sync_channel(COMMITS);
        let (forgets_in, forgets) = channel();
        let writer = Self {
            path: path.into(),
            database,
            checkpoints,
            follower,
            commits,
            forgets,
            forgetting: None,
            is_failing: false,
            _lock: lock,
        };
        let thread = std::thread::Builder::new().name("fanfare-write".into());
        thread.spawn(move || writer.run()).map_err(|error| LogError::from(Failure::thread(path, &error)))?;
        Ok((Jobs { commits: commits_in, forgets: forgets_in }, opened))
    }

    /// Works until nobody can give it work any more.
    fn run(mut self) {
        let mut wait = Duration::ZERO;
        let mut tended = Instant::now();
        loop {
            // Also in a flood, when there is always another commit.
            if tended.elapsed() >= TEND_EVERY {
                tended = Instant::now();
                wait = self.tend();
            }
            match self.commits.recv_timeout(wait) {
                Ok(commit) => {
                    self.commit(commit);
                    self.checkpoints.look(self.database.connection());
                }
                Err(RecvTimeoutError::Timeout) => {
                    tended = Instant::now();
                    wait = self.tend();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            wait = Duration::ZERO;
        }
    }

    fn commit(&mut self, Commit { ticket, drafts }: Commit) {
        let database = &mut self.database;
        let appended = catch_unwind(AssertUnwindSafe(|| database.append(drafts, now())));
        let error = match appended {
            Ok(Ok(Appended { records, outcomes, trims })) => {
                self.set_failing(None);
                if let Some(broker) = self.follower.committed.upgrade() {
                    broker.do_send(Committed {
                        records,
                        settles: Some(Settlement { ticket, outcomes }),
                        trims,
                    });
                }
                return;
            }
            Ok(Err(error)) => Failure::new(&self.path, &error),
            Err(_) => Failure::panicked(&self.path),
        };
        let error = LogError::from(error);
        self.set_failing(Some(&error));
        if let Some(broker) = self.follower.failed.upgrade() {
            broker.do_send(CommitFailed { ticket, error });
        }
    }

    /// One step of cleaning, or of finding out whether the file takes writes again. Returns how long to wait for work.
    fn tend(&mut self) -> Duration {
        let done = catch_unwind(AssertUnwindSafe(|| {
            if self.is_failing {
                return self.database.probe().map(|()| None);
            }
            match self.forget_some() {
                Ok(None) => self.database.clean(now()),
                done => done,
            }
        }));
        let done = match done {
            Ok(done) => done.map_err(|error| Failure::new(&self.path, &error)),
            Err(_) => Err(Failure::panicked(&self.path)),
        };
        self.checkpoints.look(self.database.connection());
        if self.note(done) {
            return Duration::ZERO;
        }
        if self.is_failing {
            return LOOK;
        }
        let due = self.database.next_due().ok().flatten();
        let until_due = due.map(|due| Duration::from_millis(u64::try_from(due - now()).unwrap_or(0)));
        until_due.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK)
    }

    /// A step of forgetting, if there is something to forget.
    fn forget_some(&mut self) -> rusqlite::Result<Option<Vec<Trim>>> {
        if self.forgetting.is_none() {
            self.forgetting = self.forgets.try_recv().ok();
        }
        let Some(Forget { channel }) = &self.forgetting else { return Ok(None) };
        let (trims, left) = self.database.forget(channel)?;
        if left == 0 {
            self.forgetting = None;
        }
        Ok(Some(trims))
    }

    /// Keeps account of whether the file takes writes, and tells what was removed. True if there may be more to do.
    fn note(&mut self, done: Result<Option<Vec<Trim>>, Failure>) -> bool {
        match done {
            Ok(trims) => {
                self.set_failing(None);
                let is_more = trims.is_some();
                if let Some(trims) = trims.filter(|trims| !trims.is_empty())
                    && let Some(broker) = self.follower.trimmed.upgrade()
                {
                    broker.do_send(Trimmed(trims));
                }
                is_more
            }
            Err(error) => {
                self.set_failing(Some(&error.into()));
                false
            }
        }
    }

    fn set_failing(&mut self, error: Option<&LogError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, error.is_some());
        if was_failing == self.is_failing {
            return;
        }
        if let Some(source) = error.and_then(std::error::Error::source) {
            tracing::error!("the log takes no events: {source}");
        } else {
            tracing::info!("the log takes events again");
        }
        if let Some(broker) = self.follower.health.upgrade() {
            broker.do_send(LogHealth { is_writable: !self.is_failing });
        }
    }
}

/// Wall-clock time in milliseconds: only ages are taken from it, never order.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
