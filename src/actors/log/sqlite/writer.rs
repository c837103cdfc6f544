//! The thread that writes: one commit after the other, and cleaning in between.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Durability;
use super::checkpoint::Checkpoints;
use super::database::{Appended, Batch, Database};
use super::error::Failure;
use crate::actors::log::index::{Align, Aligned, Apply, Lately, Numbering, Open};
use crate::actors::log::{
    Commit, CommitFailed, Committed, Follower, Forget, LogHealth, Opened, Settlement, Trim, Trimmed,
};
use crate::cursor::Seq;
use crate::error::LogError;
use crate::retention::{Policy, Retention};

/// Jobs that wait: the broker has one commit under way at a time, and so has an order.
const JOBS: usize = 4;
/// How often the file is looked at when nothing is due: ids grow old, and a disk that was full may have room.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked at however much there is to commit.
const TEND_EVERY: Duration = Duration::from_millis(50);

/// The ways into the thread: what is done one at a time, and what is to be forgotten when there is time.
pub(super) struct Jobs {
    pub(super) jobs: SyncSender<Job>,
    pub(super) forgets: Sender<Forget>,
}

type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What the thread is given to do: commits of the broker's, or what an order tells its index.
pub(super) enum Job {
    Commit(Commit),
    Align(Align, Answer<Aligned>),
    Apply(Apply, Answer<Seq>),
    Open(Open, Answer<()>),
}

pub(super) struct Writer {
    path: PathBuf,
    database: Database,
    checkpoints: Checkpoints,
    follower: Follower,
    retention: Retention,
    jobs: Receiver<Job>,
    forgets: Receiver<Forget>,
    forgetting: Option<Forget>,
    is_failing: bool,
    /// Whether the broker has been told that it is open, and may be told of what comes.
    is_open: bool,
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
        is_index: bool,
    ) -> Result<(Jobs, Option<Opened>), LogError> {
        let failed = |error: rusqlite::Error| LogError::from(Failure::new(path, &error));
        let synchronous = match durability {
            Durability::Process => "NORMAL",
            Durability::Full => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        let checkpoints = Checkpoints::start(&mut connection, path)?;
        let mut database = Database::new(connection, retention.clone()).map_err(failed)?;
        if !database.is_fit(is_index).map_err(failed)? {
            return Err(Failure::misfit(path, is_index).into());
        }
        let opened = if is_index {
            database.follow_order().map_err(failed)?;
            None
        } else {
            let lineage = database.begin_term().map_err(failed)?;
            Some(opened(&database, retention, lineage).map_err(failed)?)
        };
        let (jobs_in, jobs) = sync_channel(JOBS);
        let (forgets_in, forgets) = channel();
        let writer = Self {
            path: path.into(),
            database,
            checkpoints,
            follower,
            retention: retention.clone(),
            jobs,
            forgets,
            forgetting: None,
            is_failing: false,
            is_open: !is_index,
            _lock: lock,
        };
        let thread = std::thread::Builder::new().name("fanfare-write".into());
        thread.spawn(move || writer.run()).map_err(|error| LogError::from(Failure::thread(path, &error)))?;
        Ok((Jobs { jobs: jobs_in, forgets: forgets_in }, opened))
    }

    /// Works until nobody can give it work any more.
    fn run(mut self) {
        let mut tended = Instant::now();
        let mut wait = Duration::ZERO;
        loop {
            // Also in a flood, when there is always another commit.
            if tended.elapsed() >= wait.max(TEND_EVERY) {
                (tended, wait) = (Instant::now(), self.tend());
            }
            match self.jobs.recv_timeout(wait.saturating_sub(tended.elapsed())) {
                Ok(job) => {
                    self.work(job);
                    self.checkpoints.look(self.database.connection());
                    // There may be more to do now than there was, but not much.
                    wait = wait.min(TEND_EVERY);
                }
                Err(RecvTimeoutError::Timeout) => (tended, wait) = (Instant::now(), self.tend()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn work(&mut self, job: Job) {
        // Who asked may have left.
        match job {
            Job::Commit(commit) => self.commit(commit),
            Job::Align(align, answer) => {
                let aligned = self.attempt(|database| database.align(&align));
                if let Ok(Aligned { is_anew: true, .. }) = aligned {
                    self.is_open = false;
                }
                drop(answer.send(aligned));
            }
            Job::Apply(apply, answer) => drop(answer.send(self.apply(apply))),
            Job::Open(open, answer) => drop(answer.send(self.open(open))),
        }
    }

    /// Does something to the file, and keeps account of whether it takes writes.
    fn attempt<T>(&mut self, deed: impl FnOnce(&mut Database) -> rusqlite::Result<T>) -> Result<T, LogError> {
        let database = &mut self.database;
        let done = match catch_unwind(AssertUnwindSafe(|| deed(database))) {
            Ok(done) => done.map_err(|error| Failure::new(&self.path, &error)),
            Err(_) => Err(Failure::panicked(&self.path)),
        };
        let done = done.map_err(LogError::from);
        self.set_failing(done.as_ref().err());
        done
    }

    fn commit(&mut self, Commit { ticket, drafts }: Commit) {
        let batch = Batch { drafts, numbering: Numbering::Next, now: now(), through: None };
        match self.attempt(|database| database.append(vec![batch])) {
            Ok(appended) => self.tell(appended.into_iter().map(|appended| (appended, Some(ticket)))),
            Err(error) => {
                if let Some(broker) = self.follower.failed.upgrade() {
                    broker.do_send(CommitFailed { ticket, error });
                }
            }
        }
    }

    fn apply(&mut self, Apply(stretches): Apply) -> Result<Seq, LogError> {
        let tickets: Vec<_> = stretches.iter().map(|stretch| stretch.ticket).collect();
        let mut lately = Lately::default();
        let batches = stretches.into_iter().map(|stretch| Batch {
            drafts: stretch.drafts.read(&mut lately),
            numbering: Numbering::From(stretch.first),
            now: i64::try_from(stretch.time).unwrap_or(i64::MAX),
            through: Some(stretch.through),
        });
        let batches = batches.collect();
        let appended = self.attempt(|database| database.append(batches))?;
        self.tell(appended.into_iter().zip(tickets));
        Ok(self.database.head())
    }

    fn open(&mut self, Open(lineage): Open) -> Result<(), LogError> {
        let retention = self.retention.clone();
        let opened = self.attempt(|database| opened(database, &retention, lineage))?;
        self.is_open = true;
        if let Some(broker) = self.follower.opened.upgrade() {
            broker.do_send(opened);
        }
        Ok(())
    }

    fn tell(&self, appended: impl Iterator<Item = (Appended, Option<u64>)>) {
        let Some(broker) = self.follower.committed.upgrade().filter(|_| self.is_open) else { return };
        for (Appended { records, outcomes, trims }, ticket) in appended {
            let settles = ticket.map(|ticket| Settlement { ticket, outcomes });
            let committed = Committed { records, settles, trims };
            if !committed.is_empty() {
                broker.do_send(committed);
            }
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
                if let Some(trims) = trims.filter(|trims| !trims.is_empty() && self.is_open)
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

fn opened(
    database: &Database,
    retention: &Retention,
    lineage: crate::cursor::Lineage,
) -> rusqlite::Result<Opened> {
    let by_interest = |channel: &crate::Channel| matches!(retention.of(channel), Policy::Interest { .. });
    Ok(Opened { lineage, head: database.head(), held: database.held(by_interest)? })
}

/// Wall-clock time in milliseconds: only ages are taken from it, never order.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
