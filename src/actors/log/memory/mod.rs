//! The log in memory: bounded, and gone with the process.

mod dedup;
mod emptied;
mod store;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::ArbiterHandle;
use actix::prelude::*;

pub(in crate::actors) use self::store::Store;
use super::index::{Align, Aligned, Apply, Index, IndexHandle, Lately, Numbering, Open, Stretch};
use super::{
    Commit, Committed, Follower, Forget, Log, LogHandle, LogSetup, Opened, Page, ReadAfter, Seek, Settlement,
    Sought, Trimmed,
};
use crate::actors::tick::tick;
use crate::cursor::{Lineage, Name, Seq};
use crate::error::{InvalidValue, LogError};
use crate::retention::{Policy, Retention};

/// A log in memory: the newest events, within a bound. A restart begins a new log, and clients are told (`$reset`).
///
/// ```
/// use fanfare::{Broker, MemoryLog};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().log(MemoryLog::bounded(10_000, 16 << 20)?).start()?;
/// # drop(broker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryLog {
    max_events: usize,
    max_bytes: u64,
}

impl MemoryLog {
    /// A log that holds at most `max_events` events and `max_bytes` bytes; the oldest leave first. What the broker's
    /// [`Retention`](crate::Retention) says holds besides.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a bound of zero.
    pub fn bounded(max_events: usize, max_bytes: u64) -> Result<Self, InvalidValue> {
        if max_events == 0 || max_bytes == 0 {
            return Err(InvalidValue::new("log", "must have room for at least one event"));
        }
        Ok(Self { max_events, max_bytes })
    }
}

impl Default for MemoryLog {
    /// 100,000 events and 256 MiB.
    fn default() -> Self {
        Self { max_events: 100_000, max_bytes: 256 << 20 }
    }
}

impl Log for MemoryLog {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        // Beside the broker, which is woken by nothing on another thread then. What a reader takes of that thread at a
        // time is bounded.
        let keeper = self.keeper(setup, Role::Log, None).start();
        Ok(LogHandle {
            commit: keeper.clone().recipient(),
            read: keeper.clone().recipient(),
            seek: keeper.clone().recipient(),
            forget: keeper.recipient(),
            commit_bytes: None,
            relay: None,
            bound: None,
        })
    }
}

impl Index for MemoryLog {
    fn follow(self: Box<Self>, setup: LogSetup) -> Result<IndexHandle, LogError> {
        // A thread of its own: it is filled with all that there is while others read.
        let arbiter = Arbiter::new();
        let role = Role::Index { order: None, through: 0, is_open: false };
        let keeper = self.keeper(setup, role, Some(arbiter.handle()));
        let keeper = Keeper::start_in_arbiter(&arbiter.handle(), move |_| keeper);
        Ok(IndexHandle {
            align: keeper.clone().recipient(),
            apply: keeper.clone().recipient(),
            open: keeper.clone().recipient(),
            read: keeper.clone().recipient(),
            seek: keeper.clone().recipient(),
            forget: keeper.recipient(),
        })
    }
}

impl MemoryLog {
    fn keeper(
        &self,
        LogSetup { follower, retention }: LogSetup,
        role: Role,
        arbiter: Option<ArbiterHandle>,
    ) -> Keeper {
        let store = Store::new(self.max_events, self.max_bytes, retention.clone());
        let lately = Lately::default();
        Keeper { store, follower, retention, role, lately, started: Instant::now(), arbiter }
    }
}

/// How often it is looked at when nothing is due.
const LOOK: Duration = Duration::from_millis(100);

/// Where the positions come from.
enum Role {
    /// From here.
    Log,
    /// From an order, of which everything up to `through` is kept or was.
    Index { order: Option<Name>, through: Seq, is_open: bool },
}

/// The actor that keeps the store.
struct Keeper {
    store: Store,
    follower: Follower,
    retention: Retention,
    role: Role,
    lately: Lately,
    started: Instant,
    /// The thread that goes with it.
    arbiter: Option<ArbiterHandle>,
}

impl Keeper {
    fn drop_aged(&mut self) {
        self.store.drop_aged(now());
        self.tell_trims();
    }

    fn is_open(&self) -> bool {
        !matches!(self.role, Role::Index { is_open: false, .. })
    }

    fn tell_trims(&mut self) {
        let trims = self.store.take_trims();
        if !trims.is_empty()
            && self.is_open()
            && let Some(follower) = self.follower.trimmed.upgrade()
        {
            follower.do_send(Trimmed(trims));
        }
    }
}

/// Command to itself: let go of what is too old.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct Tend;

impl Actor for Keeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if matches!(self.role, Role::Log)
            && let Some(follower) = self.follower.opened.upgrade()
        {
            let lineage = Lineage::new(Name::mint(), Vec::new(), Name::mint(), 1);
            follower.do_send(Opened { lineage, head: 0, held: Vec::new() });
        }
        tick(&ctx.address(), LOOK, Tend);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(arbiter) = &self.arbiter {
            arbiter.stop();
        }
    }
}

impl Handler<Commit> for Keeper {
    type Result = ();

    fn handle(&mut self, Commit { ticket, drafts }: Commit, _: &mut Self::Context) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (records, outcomes) = self.store.append(drafts, Numbering::Next, now);
        if let Some(follower) = self.follower.committed.upgrade() {
            let trims = self.store.take_trims();
            follower.do_send(Committed { records, settles: Some(Settlement { ticket, outcomes }), trims });
        }
    }
}

impl Handler<Align> for Keeper {
    type Result = Result<Aligned, LogError>;

    fn handle(&mut self, align: Align, _: &mut Self::Context) -> Self::Result {
        let Role::Index { order, through, is_open } = &mut self.role else {
            return Err(LogError::new("this log makes its own order"));
        };
        let is_anew = !align.is_continued_by(order.as_ref(), *through);
        if is_anew {
            self.store.begin_anew(align.start());
            (*through, *is_open) = (align.start(), false);
        }
        let through = *through;
        *order = Some(align.order);
        self.store.drop_before(align.first);
        self.tell_trims();
        Ok(Aligned { through, head: self.store.head(), is_anew })
    }
}

impl Handler<Apply> for Keeper {
    type Result = Result<Seq, LogError>;

    fn handle(&mut self, Apply(stretches): Apply, _: &mut Self::Context) -> Self::Result {
        let follower = self.follower.committed.upgrade().filter(|_| self.is_open());
        let (mut records, mut outcomes) = (Vec::new(), Vec::new());
        for Stretch { first, through, time, ticket, drafts } in stretches {
            let drafts = drafts.read(&mut self.lately);
            self.store.append_to(drafts, Numbering::From(first), time, &mut records, &mut outcomes);
            if let Role::Index { through: up_to, .. } = &mut self.role {
                *up_to = through;
            }
            let Some(follower) = &follower else {
                // Of what an index is filled with nobody is told.
                records.clear();
                outcomes.clear();
                continue;
            };
            let settles = ticket.map(|ticket| Settlement { ticket, outcomes: std::mem::take(&mut outcomes) });
            outcomes.clear();
            let records = std::mem::take(&mut records);
            let committed = Committed { records, settles, trims: self.store.take_trims() };
            if !committed.is_empty() {
                follower.do_send(committed);
            }
        }
        if follower.is_none() {
            drop(self.store.take_trims());
        }
        Ok(self.store.head())
    }
}

impl Handler<Open> for Keeper {
    type Result = Result<(), LogError>;

    fn handle(&mut self, Open(lineage): Open, _: &mut Self::Context) -> Self::Result {
        if let Role::Index { is_open, .. } = &mut self.role {
            *is_open = true;
        }
        let by_interest =
            |channel: &crate::Channel| matches!(self.retention.of(channel), Policy::Interest { .. });
        let (head, held) = (self.store.head(), self.store.held(by_interest));
        if let Some(follower) = self.follower.opened.upgrade() {
            follower.do_send(Opened { lineage, head, held });
        }
        Ok(())
    }
}

impl Handler<ReadAfter> for Keeper {
    type Result = Result<Page, LogError>;

    fn handle(&mut self, query: ReadAfter, _: &mut Self::Context) -> Self::Result {
        self.drop_aged();
        Ok(self.store.read(query.after, query.until, &query.interest, query.limit))
    }
}

impl Handler<Seek> for Keeper {
    type Result = Result<Sought, LogError>;

    fn handle(&mut self, query: Seek, _: &mut Self::Context) -> Self::Result {
        self.drop_aged();
        Ok(self.store.seek(query.last, query.until, &query.interest))
    }
}

impl Handler<Forget> for Keeper {
    type Result = ();

    fn handle(&mut self, Forget { channel }: Forget, _: &mut Self::Context) {
        self.store.forget(&channel);
        self.tell_trims();
    }
}

impl Handler<Tend> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Tend, _: &mut Self::Context) {
        self.drop_aged();
    }
}

/// Wall-clock time in milliseconds: only ages are taken from it, never order.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
