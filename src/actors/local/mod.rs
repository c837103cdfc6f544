//! Delivery inside this process: the worker's role for subscribers that take events as they are.
//!
//! Each has a bounded queue. One whose queue is full is not live any more: when it has read, it gets what is stored from
//! the ring or the log, at its position, and is told how many ephemeral events it has lost. Nobody waits for it.

mod subscriber;

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;

use actix::WeakAddr;
use actix::prelude::*;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::select;
use tokio::sync::{Semaphore, oneshot};

pub(crate) use self::subscriber::{Ended, Ends};
use self::subscriber::{News, Next, Offered, Subscriber};
use super::broker::{At, Attach, Broker, Counted, Detached, Outlet, Start, WorkerAddr, WorkerStopped};
use super::log::{Page, Sought};
use super::registry::{Registry, Route};
use super::replay::{is_last_look, next_look};
use super::session::Answer;
use super::spare::Spare;
use super::tally::{BY_CLIENT, Tally};
use super::view::Describe;
use super::worker::{Admit, CloseAll, CloseClients, Count, Deliver, Parcel, PingSlot, Retire};
use crate::counts::Transport;
use crate::delivery::Delivery;
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::Interest;
use crate::record::Record;

/// Replays that read a page of the log at the same time.
const READING_AT_ONCE: usize = 2;
/// All clients of this worker take events in the same form.
const ROUTE: Route = Route { worker: 0, encoding: None };

/// Command: begin to deliver to this subscriber.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Enter {
    pub(crate) client: ClientId,
    pub(crate) interest: Interest,
    pub(crate) start: Start,
    pub(crate) ends: Ends,
}

/// Fact: nobody reads any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Left {
    pub(crate) client: ClientId,
}

/// Command: hand each item of a stream to an actor, until one of them or whoever holds the other end of `stop` is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Forward {
    pub(crate) items: Pin<Box<dyn Stream<Item = Delivery> + Send>>,
    pub(crate) recipient: Recipient<Delivery>,
    pub(crate) stop: oneshot::Receiver<()>,
}

/// Fact: there is room in the subscriber's queue.
#[derive(Message)]
#[rtype(result = "()")]
struct Roomy {
    client: ClientId,
}

/// Fact: the log has answered; nothing if it cannot.
#[derive(Message)]
#[rtype(result = "()")]
struct Answered {
    client: ClientId,
    found: Option<Found>,
}

enum Found {
    Page(Page),
    Last(Sought),
}

impl Message for Delivery {
    type Result = ();
}

pub(crate) struct Local {
    broker: WeakAddr<Broker>,
    registry: Registry,
    subscribers: HashMap<ClientId, Subscriber>,
    reading: Arc<Semaphore>,
    /// Whom an event may concern; kept for its memory.
    found: Vec<ClientId>,
    /// What was counted here.
    tally: Tally,
}

impl Local {
    /// Starts it on an arbiter of its own, so that a crowd here takes no time from the broker.
    pub(crate) fn start_apart(broker: WeakAddr<Broker>) -> Addr<Self> {
        Self::start_in_arbiter(&Arbiter::new().handle(), |_| Self {
            broker,
            registry: Registry::default(),
            subscribers: HashMap::new(),
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
            found: Vec::new(),
            tally: Tally::with_reasons(),
        })
    }

    fn deliver(&mut self, parcel: &Parcel, ctx: &mut Context<Self>) {
        let step = parcel.trace.part(|| tracing::debug_span!("deliver"));
        let mut found = std::mem::take(&mut self.found);
        for channel in parcel.record.draft.channels.iter() {
            self.registry.clients_on(channel, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        let mut taken = 0;
        for client in found.drain(..) {
            let Some(subscriber) = self.subscribers.get_mut(&client) else { continue };
            if !subscriber.interest().covers_event(&parcel.record.draft) {
                // What its filter keeps out is behind it too, and never a gap.
                subscriber.advance(parcel.record.seq().unwrap_or(0));
                continue;
            }
            match subscriber.offer(&parcel.record) {
                Offered::Taken => taken += 1,
                Offered::Done => {}
                Offered::FellOut => self.await_room(client, ctx),
                Offered::Gone => self.end(client, BY_CLIENT, CloseReason::Unavailable),
            }
        }
        self.found = found;
        if taken > 0 {
            self.tally.hand_over(Transport::Stream, taken, parcel.committed);
        }
        step.tell(|| tracing::debug!(id = %parcel.record.draft.id, taken, "put into queues"));
    }

    /// Counts what a subscriber was given of the past, and told to be missing.
    fn note_news(&mut self, client: ClientId) {
        let Some(subscriber) = self.subscribers.get_mut(&client) else { return };
        let News { replayed, lost, gaps } = subscriber.take_news();
        self.tally.replay(Transport::Stream, replayed);
        self.tally.lost += lost;
        for reason in gaps {
            self.tally.gaps.add(reason, 1);
        }
    }

    fn go_on(&mut self, client: ClientId, ctx: &mut Context<Self>) {
        let Some(subscriber) = self.subscribers.get_mut(&client) else { return };
        match subscriber.next() {
            Next::Nothing => {}
            Next::AwaitRoom => self.await_room(client, ctx),
            Next::Ask(at) => self.ask(client, at, ctx),
            Next::Leave => self.end(client, BY_CLIENT, CloseReason::Unavailable),
            Next::Read(log, query) => {
                let page = async move { log.read.send(query).await.ok()?.ok().map(Found::Page) };
                self.look_up(client, ctx, page);
            }
            Next::Find(log, query) => {
                let sought = async move { log.seek.send(query).await.ok()?.ok().map(Found::Last) };
                self.look_up(client, ctx, sought);
            }
        }
    }

    fn ask(&self, client: ClientId, at: At, ctx: &Context<Self>) {
        let Some(subscriber) = self.subscribers.get(&client) else { return };
        let Some(broker) = self.broker.upgrade() else { return };
        let interest = subscriber.interest().clone();
        broker.do_send(Attach { client, outlet: Outlet::Local(ctx.address()), interest, followed: None, at });
    }

    // What is waited for here is a task of its own: an actor would look at all that it waits for at each message.

    fn await_room(&mut self, client: ClientId, ctx: &Context<Self>) {
        let Some(subscriber) = self.subscribers.get_mut(&client) else { return };
        let (queue, me) = (subscriber.queue(), ctx.address().downgrade());
        subscriber.waiter = Some(actix::spawn(async move {
            let has_room = queue.reserve_owned().await.is_ok();
            if let Some(me) = me.upgrade().filter(|_| has_room) {
                me.do_send(Roomy { client });
            }
        }));
    }

    fn look_up(
        &self,
        client: ClientId,
        ctx: &Context<Self>,
        answer: impl Future<Output = Option<Found>> + 'static,
    ) {
        let (reading, me) = (self.reading.clone(), ctx.address().downgrade());
        actix::spawn(async move {
            let _turn = reading.acquire_owned().await;
            let found = answer.await;
            if let Some(me) = me.upgrade() {
                me.do_send(Answered { client, found });
            }
        });
    }

    /// Ends a stream; `why` is what is said of it to those who ask, `reason` what its reader is told.
    fn end(&mut self, client: ClientId, why: &'static str, reason: CloseReason) {
        let Some(subscriber) = self.subscribers.remove(&client) else { return };
        let last = Some(Box::new(subscriber.describe(client, 0).closed(why)));
        self.tally.closed.add(why, 1);
        self.tally.lost += subscriber.untold();
        subscriber.end(reason);
        self.subscribers.give_back();
        self.registry.leave(client);
        if let Some(broker) = self.broker.upgrade() {
            broker.do_send(Detached { client, last });
        }
    }

    fn end_all(&mut self, reason: CloseReason) {
        let clients: Vec<_> = self.subscribers.keys().copied().collect();
        for client in clients {
            self.end(client, reason.as_str(), reason);
        }
    }
}

impl Actor for Local {
    type Context = Context<Self>;

    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.end_all(CloseReason::Unavailable);
        if let Some(broker) = self.broker.upgrade() {
            let tally = Box::new(self.tally.clone());
            broker.do_send(WorkerStopped { worker: WorkerAddr::Local(ctx.address()), tally });
        }
        Arbiter::current().stop();
    }
}

impl Handler<Enter> for Local {
    type Result = ();

    fn handle(&mut self, Enter { client, interest, start, ends }: Enter, ctx: &mut Self::Context) {
        let is_served = self.broker.upgrade().is_some();
        self.registry.enter(client, interest.clone(), ROUTE);
        self.subscribers.insert(client, Subscriber::new(interest, start.clone(), ends));
        if is_served {
            self.ask(client, At::Start(start), ctx);
        } else {
            self.end(client, CloseReason::Unavailable.as_str(), CloseReason::Unavailable);
        }
    }
}

impl Handler<Left> for Local {
    type Result = ();

    fn handle(&mut self, Left { client }: Left, _: &mut Self::Context) {
        self.end(client, BY_CLIENT, CloseReason::Unavailable);
    }
}

impl Handler<Deliver> for Local {
    type Result = ();

    fn handle(&mut self, Deliver { parcels, backlog }: Deliver, ctx: &mut Self::Context) {
        let mut bytes = 0;
        for parcel in &parcels {
            bytes += parcel.record.draft.weight();
            self.deliver(parcel, ctx);
        }
        if let Some(newest) = parcels.last() {
            self.tally.fan_out(newest.committed.elapsed());
        }
        backlog.hand_on(parcels.len(), bytes);
    }
}

impl Handler<Admit<Arc<Record>>> for Local {
    type Result = ();

    fn handle(&mut self, Admit { client, answer }: Admit<Arc<Record>>, ctx: &mut Self::Context) {
        let Some(subscriber) = self.subscribers.get_mut(&client) else { return };
        match answer {
            Answer::Refused(farewell) => self.end(client, farewell.reason.as_str(), farewell.reason),
            Answer::Ahead => {
                let wait = next_look(subscriber.waited);
                subscriber.waited += wait;
                let at = At::Again { start: subscriber.start(), is_last: is_last_look(subscriber.waited) };
                ctx.run_later(wait, move |local, ctx| local.ask(client, at, ctx));
            }
            Answer::Missed { .. } | Answer::Behind { .. } => {
                subscriber.admit(answer);
                self.note_news(client);
                self.go_on(client, ctx);
            }
        }
    }
}

impl Handler<Roomy> for Local {
    type Result = ();

    fn handle(&mut self, Roomy { client }: Roomy, ctx: &mut Self::Context) {
        if let Some(subscriber) = self.subscribers.get_mut(&client) {
            subscriber.waiter = None;
            self.go_on(client, ctx);
        }
    }
}

impl Handler<Answered> for Local {
    type Result = ();

    fn handle(&mut self, Answered { client, found }: Answered, ctx: &mut Self::Context) {
        let Some(subscriber) = self.subscribers.get_mut(&client) else { return };
        match found {
            Some(Found::Page(page)) => subscriber.take_page(&page),
            Some(Found::Last(sought)) => subscriber.take_sought(sought),
            None => {
                tracing::warn!(%client, "a replay ends because the log cannot be read");
                return self.end(client, CloseReason::Unavailable.as_str(), CloseReason::Unavailable);
            }
        }
        self.note_news(client);
        self.go_on(client, ctx);
    }
}

impl Handler<Forward> for Local {
    type Result = ();

    fn handle(&mut self, Forward { mut items, recipient, stop }: Forward, _: &mut Self::Context) {
        actix::spawn(async move {
            let forwarding = pin!(async move {
                while let Some(item) = items.next().await {
                    // The next is taken when this one is done with: a slow actor is a subscriber that does not read.
                    if recipient.send(item).await.is_err() {
                        break;
                    }
                }
            });
            select(forwarding, stop).await;
        });
    }
}

impl Handler<PingSlot> for Local {
    type Result = ();

    fn handle(&mut self, PingSlot { slot, slots, cursor, .. }: PingSlot, _: &mut Self::Context) {
        for (client, subscriber) in &mut self.subscribers {
            if client.slot(slots) == slot {
                subscriber.advance(cursor.seq());
            }
        }
    }
}

impl Handler<Count> for Local {
    type Result = ();

    fn handle(&mut self, Count { round }: Count, ctx: &mut Self::Context) {
        let Some(broker) = self.broker.upgrade() else { return };
        let lagging = self.subscribers.values().filter(|subscriber| !subscriber.is_live()).count() as u64;
        let worker = WorkerAddr::Local(ctx.address());
        broker.do_send(Counted { worker, round, tally: Box::new(self.tally.clone()), lagging });
    }
}

impl Handler<Describe> for Local {
    type Result = ();

    fn handle(&mut self, Describe { clients, head, tell }: Describe, _: &mut Self::Context) {
        for client in clients {
            let Some(subscriber) = self.subscribers.get(&client) else { continue };
            // Whoever asked may have left.
            let _ = tell.send(subscriber.describe(client, head));
        }
    }
}

impl Handler<CloseClients> for Local {
    type Result = ();

    fn handle(&mut self, CloseClients { clients, farewell }: CloseClients, _: &mut Self::Context) {
        for client in clients {
            self.end(client, farewell.reason.as_str(), farewell.reason);
        }
    }
}

impl Handler<CloseAll> for Local {
    type Result = ();

    fn handle(&mut self, CloseAll { farewell }: CloseAll, _: &mut Self::Context) {
        self.end_all(farewell.reason);
    }
}

impl Handler<Retire> for Local {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.end_all(CloseReason::Unavailable);
        ctx.stop();
    }
}
