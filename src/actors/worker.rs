//! The actor that delivers on one HTTP thread. What it does there is the [`Floor`]'s, which the sessions and the bodies of the
//! thread share with it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::WeakAddr;
use actix::prelude::*;
use bytes::Bytes;

use super::backlog::Backlog;
use super::broker::{Broker, Counted, WorkerAddr, WorkerStopped};
use super::farewell::Farewell;
use super::feed::FeedBounds;
use super::floor::Floor;
use super::rounds::Left;
use super::session::{Admitted, Answer, Close, DescribeSelf, Joined, Ping};
use super::trace::Trace;
use super::view::Describe;
use crate::cursor::Cursor;
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::Subscription;
use crate::record::Record;
use crate::wire::{Encoding, Frames};

/// In a crowd of replays the next gets its turn only so often, which leaves the processor to those who publish for most
/// of the time.
const TURN: Duration = Duration::from_millis(3);

/// Command: deliver these events, in this order.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver {
    pub(crate) parcels: Vec<Parcel>,
    /// Where they are counted until they are handed on.
    pub(crate) backlog: Backlog,
}

/// An event on its way to a worker.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    /// Its number among all that the broker ever delivered.
    pub(crate) number: u64,
    pub(crate) record: Arc<Record>,
    pub(crate) frames: Frames,
    /// When the broker learned of its commit; when it accepted it, for an ephemeral one.
    pub(crate) committed: Instant,
    /// The publish that it came with.
    pub(crate) trace: Trace,
}

/// Command: tell what was counted.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Count {
    /// Comes back with the answer.
    pub(crate) round: u64,
}

/// Command: seat this client and tell its session. Comes behind everything that was delivered before the answer was
/// given, and ahead of everything after.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Admit<F: 'static = Bytes> {
    pub(crate) client: ClientId,
    pub(crate) answer: Answer<F>,
}

/// Command: let this client follow something else from here on, if it is live and its answer is whole, and tell its
/// session. Comes where [`Admit`] would.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Splice {
    pub(crate) client: ClientId,
    pub(crate) joined: Subscription,
    pub(crate) answer: Answer<Arc<Record>>,
}

/// Command: the heartbeat of the clients of one slot, with the newest position.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub(crate) struct PingSlot {
    pub(crate) slot: u32,
    pub(crate) slots: u32,
    pub(crate) cursor: Cursor,
    /// Whether the node has no way to the order that it shares, so that nothing stored can come.
    pub(crate) is_cut_off: bool,
}

/// Command: replays wait for their turns.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct TakeTurns;

/// Command: end the streams of these clients.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseClients {
    pub(crate) clients: Vec<ClientId>,
    pub(crate) farewell: Farewell,
}

/// Command: end all streams.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct CloseAll {
    pub(crate) farewell: Farewell,
}

/// Command: what the broker wants of its workers. The first thing that a worker hears from it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct WorkerSettings {
    pub(crate) feed: FeedBounds,
    pub(crate) heartbeat: Duration,
    pub(crate) stall_timeout: Duration,
}

/// Command: end all streams and stop; there is no broker any more.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Retire;

/// A worker, as the sessions and handlers of its thread know it. They share one: each copy of an address has memory of
/// its own.
pub(crate) struct WorkerHandle {
    pub(crate) addr: Addr<Worker>,
    pub(crate) broker: WeakAddr<Broker>,
    pub(crate) floor: Rc<RefCell<Floor>>,
}

pub(crate) struct Worker {
    floor: Rc<RefCell<Floor>>,
    broker: WeakAddr<Broker>,
    is_waking: bool,
    turns: Option<SpawnHandle>,
}

impl Worker {
    /// Starts a worker on this thread.
    pub(crate) fn start_here(broker: WeakAddr<Broker>) -> Rc<WorkerHandle> {
        let floor = Rc::new(RefCell::new(Floor::new()));
        let worker = Self { floor: floor.clone(), broker: broker.clone(), is_waking: false, turns: None };
        Rc::new(WorkerHandle { addr: worker.start(), broker, floor })
    }

    /// Wakes whom it must, at once if they are few; else a part of them each time that it is the worker's turn.
    fn wake(&mut self, ctx: &mut Context<Self>) {
        if self.is_waking || self.floor.borrow_mut().wake_some() == Left::Nothing {
            return;
        }
        self.is_waking = true;
        let floor = self.floor.clone();
        let rest = async move {
            // Behind what came from other threads and from the network meanwhile: what is published now leaves with
            // what is still to be written.
            tokio::task::yield_now().await;
            loop {
                let left = floor.borrow_mut().wake_some();
                match left {
                    Left::Nothing => return,
                    Left::More => tokio::task::yield_now().await,
                    Left::AfterRest(rest) => tokio::time::sleep(rest).await,
                }
            }
        };
        ctx.spawn(rest.into_actor(self).map(|(), worker, _| worker.is_waking = false));
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn stopped(&mut self, ctx: &mut Self::Context) {
        // Nobody would write to them any more.
        for (_, member) in self.floor.borrow().members.iter() {
            member.tell(Close(CloseReason::Unavailable.into()));
        }
        if let Some(broker) = self.broker.upgrade() {
            let tally = Box::new(self.floor.borrow().tally.borrow().clone());
            broker.do_send(WorkerStopped { worker: WorkerAddr::Thread(ctx.address()), tally });
        }
    }
}

impl Handler<WorkerSettings> for Worker {
    type Result = ();

    fn handle(&mut self, settings: WorkerSettings, _: &mut Self::Context) {
        self.floor.borrow_mut().settings = settings;
    }
}

impl Handler<Deliver> for Worker {
    type Result = ();

    fn handle(&mut self, Deliver { parcels, backlog }: Deliver, ctx: &mut Self::Context) {
        let mut floor = self.floor.borrow_mut();
        let (mut events, mut bytes) = (0, 0);
        for parcel in &parcels {
            events += 1;
            bytes += parcel.record.draft.weight();
            floor.deliver(parcel);
        }
        if let Some(newest) = parcels.last() {
            floor.tally.borrow_mut().fan_out(newest.committed.elapsed());
        }
        drop(floor);
        backlog.hand_on(events, bytes);
        self.wake(ctx);
    }
}

impl Handler<Admit> for Worker {
    type Result = ();

    fn handle(&mut self, Admit { client, answer }: Admit, _: &mut Self::Context) {
        let mut floor = self.floor.borrow_mut();
        if let Answer::Missed { through, is_whole: true, .. } = &answer {
            floor.seat(client, *through);
        }
        // A client that left meanwhile has said so to the broker itself.
        if let Some(member) = floor.members.get(&client) {
            member.tell(Admitted(answer));
        }
    }
}

impl Handler<Splice> for Worker {
    type Result = ();

    fn handle(&mut self, Splice { client, joined, answer }: Splice, _: &mut Self::Context) {
        let mut floor = self.floor.borrow_mut();
        let seated = match &answer {
            Answer::Missed { through, is_whole: true, .. } => floor.reseat(client, joined, *through),
            _ => None,
        };
        if let Some(member) = floor.members.get(&client) {
            member.tell(Joined { answer, seated });
        }
    }
}

impl Handler<PingSlot> for Worker {
    type Result = ();

    fn handle(&mut self, ping: PingSlot, _: &mut Self::Context) {
        let now = Instant::now();
        let mut floor = self.floor.borrow_mut();
        let patience = floor.settings.stall_timeout;
        floor.lingering.see_off(now, patience);
        let block = |encoding: Encoding| encoding.ping(&ping.cursor, ping.is_cut_off);
        let (stream, socket) = (block(Encoding::SseRaw), block(Encoding::Ws));
        let head = ping.cursor.seq();
        for (client, member) in floor.members.iter() {
            if client.slot(ping.slots) != ping.slot {
                continue;
            }
            let block = if member.encoding == Encoding::Ws { &socket } else { &stream };
            // Each ping asks for a sign of life; who owes two has had the time of both.
            let is_silent = member.sink.silent_for(now) >= floor.settings.heartbeat * 2;
            if is_silent || member.sink.stalled_for(now) >= floor.settings.stall_timeout {
                member.tell(Close(CloseReason::Slow.into()));
            } else if !member.sink.push_ping(block.clone(), head) {
                member.tell(Ping);
            }
        }
    }
}

impl Handler<TakeTurns> for Worker {
    type Result = ();

    fn handle(&mut self, _: TakeTurns, ctx: &mut Self::Context) {
        if self.turns.is_some() {
            return;
        }
        self.turns = Some(ctx.run_interval(TURN, |worker, ctx| {
            if !worker.floor.borrow_mut().take_turns()
                && let Some(turns) = worker.turns.take()
            {
                ctx.cancel_future(turns);
            }
        }));
    }
}

impl Handler<Count> for Worker {
    type Result = ();

    fn handle(&mut self, Count { round }: Count, ctx: &mut Self::Context) {
        let Some(broker) = self.broker.upgrade() else { return };
        let floor = self.floor.borrow();
        let tally = Box::new(floor.tally.borrow().clone());
        let worker = WorkerAddr::Thread(ctx.address());
        broker.do_send(Counted { worker, round, tally, lagging: floor.lagging });
    }
}

impl Handler<Describe> for Worker {
    type Result = ();

    fn handle(&mut self, Describe { clients, head, tell }: Describe, _: &mut Self::Context) {
        let floor = self.floor.borrow();
        for member in clients.iter().filter_map(|client| floor.members.get(client)) {
            member.tell(DescribeSelf { head, tell: tell.clone() });
        }
    }
}

impl Handler<CloseClients> for Worker {
    type Result = ();

    fn handle(&mut self, CloseClients { clients, farewell }: CloseClients, _: &mut Self::Context) {
        let floor = self.floor.borrow();
        for member in clients.iter().filter_map(|client| floor.members.get(client)) {
            member.close(farewell);
        }
    }
}

impl Handler<CloseAll> for Worker {
    type Result = ();

    fn handle(&mut self, CloseAll { farewell }: CloseAll, _: &mut Self::Context) {
        for (_, member) in self.floor.borrow().members.iter() {
            member.close(farewell);
        }
    }
}

impl Handler<Retire> for Worker {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.handle(CloseAll { farewell: CloseReason::Unavailable.into() }, ctx);
        ctx.stop();
    }
}
