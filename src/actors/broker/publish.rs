//! From a broadcast to its commit, and from the commit to the workers and the receipts.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use actix::prelude::*;
use tokio::sync::oneshot;
use tracing::debug_span;

use super::Broker;
use super::reply::{Deferred, Reply};
use super::survey::dropped;
use crate::actors::intake::{Group, Slot};
use crate::actors::log::{COMMIT_EVENTS, Outcome, Relay, Relayed};
use crate::actors::registry::Route;
use crate::actors::revoked::Standing;
use crate::actors::trace::Trace;
use crate::actors::worker::{Deliver, Parcel};
use crate::binding::{Binding, Rebinding};
use crate::channel::Channel;
use crate::cursor::{Cursor, Seq};
use crate::error::{InvalidValue, PublishError};
use crate::event::{Event, EventId};
use crate::identity::{Publisher, SessionId};
use crate::record::{Draft, Record};
use crate::wire::Frames;

/// Command: publish an event.
///
/// `do_send` is fire and forget: what the broker cannot take is counted, logged and dropped. `send().await` answers
/// with a [`Receipt`] once the event is committed. Keep the future until it answers: to drop it before may take the
/// message back.
///
/// ```
/// use fanfare::{Broadcast, Broker, Event};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// let event = Event::json("created", &serde_json::json!({"order": 7}))?;
/// broker.do_send(Broadcast::channel("orders/7", event.clone())?);
/// let receipt = broker.send(Broadcast::everyone(event)).await??;
/// assert_eq!(receipt.seq, Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Receipt, PublishError>")]
pub struct Broadcast {
    channels: Arc<[Channel]>,
    pub(super) event: Event,
    publisher: Publisher,
}

impl Broadcast {
    /// To those who follow `channel`.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if `channel` is no channel's name.
    pub fn channel<C>(channel: C, event: Event) -> Result<Self, InvalidValue>
    where
        C: TryInto<Channel>,
        InvalidValue: From<C::Error>,
    {
        Ok(Self::to(Arc::new([channel.try_into()?]), event))
    }

    /// To those who follow any of `channels`; once to each client, however many it follows.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if one is no channel's name, or there is none.
    pub fn channels<C>(channels: impl IntoIterator<Item = C>, event: Event) -> Result<Self, InvalidValue>
    where
        C: TryInto<Channel>,
        InvalidValue: From<C::Error>,
    {
        let channels = channels.into_iter().map(|channel| Ok(channel.try_into()?));
        let channels = channels.collect::<Result<Vec<Channel>, InvalidValue>>()?;
        if channels.is_empty() {
            return Err(InvalidValue::new("channels", "must not be empty"));
        }
        Ok(Self::to(each_once(channels), event))
    }

    /// To every client of these sessions. With no session at all it reaches nobody.
    #[must_use]
    pub fn sessions(sessions: impl IntoIterator<Item = SessionId>, event: Event) -> Self {
        Self::to(each_once(sessions.into_iter().map(Channel::inbox).collect()), event)
    }

    /// To every client.
    #[must_use]
    pub fn everyone(event: Event) -> Self {
        Self::to(Arc::new([Channel::everyone()]), event)
    }

    /// Says who publishes: an event's id is unique per publisher. Without it, it is the hub.
    #[must_use]
    pub fn publisher(mut self, publisher: Publisher) -> Self {
        self.publisher = publisher;
        self
    }

    /// Whom it is for, and the event: for those who send it elsewhere.
    #[cfg(feature = "client")]
    pub(crate) fn parts(&self) -> (&[Channel], &Event) {
        (&self.channels, &self.event)
    }

    fn to(channels: Arc<[Channel]>, event: Event) -> Self {
        Self { channels, event, publisher: Publisher::HUB }
    }
}

/// Keeps the first of each; the order is the publisher's, since the first channel is the one that `prev` is about.
fn each_once(channels: Vec<Channel>) -> Arc<[Channel]> {
    let mut seen = std::collections::HashSet::with_capacity(channels.len());
    channels.into_iter().filter(|channel| seen.insert(channel.clone())).collect()
}

/// Command: publish several events in one commit, all or none, next to each other in the log.
///
/// At most [`Batch::MAX_EVENTS`], and at least one. `do_send` and `send` differ as for [`Broadcast`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Receipt>, PublishError>")]
pub struct Batch(Vec<Broadcast>);

impl Batch {
    /// The most events of a batch.
    pub const MAX_EVENTS: usize = COMMIT_EVENTS;

    /// Builds a batch.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is empty or has more than [`Batch::MAX_EVENTS`].
    pub fn new(events: Vec<Broadcast>) -> Result<Self, InvalidValue> {
        if events.is_empty() {
            return Err(InvalidValue::new("batch", "must not be empty"));
        }
        if events.len() > Self::MAX_EVENTS {
            let rule = format!("must be at most {} events", Self::MAX_EVENTS);
            return Err(InvalidValue::oversized("batch", rule));
        }
        Ok(Self(events))
    }
}

/// Command: as [`Batch`], answered through a channel, for those who may be gone before the answer and must not take
/// the events back by that, and whose word for it may be withdrawn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Publish {
    pub(crate) batch: Batch,
    pub(crate) standing: Standing,
    /// What is logged of it belongs to this.
    pub(crate) trace: Trace,
    pub(crate) reply: oneshot::Sender<Result<Vec<Receipt>, PublishError>>,
}

/// The answer to a publish: the event is committed, and on its way to this node's clients.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The event's identity, the publisher's or minted.
    #[serde(serialize_with = "display")]
    pub id: EventId,
    /// Its position in the log; an ephemeral event has none.
    pub seq: Option<Seq>,
    /// The position as a token that a client may start from.
    pub cursor: Option<Cursor>,
    /// Whether it was published before, within the window: then this is the first receipt again, and nothing was sent.
    pub duplicate: bool,
}

fn display<S: serde::Serializer>(id: &EventId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl Broker {
    /// The way in of every event. `binding` is made if the events are accepted, and applies to them already.
    pub(super) fn accept(
        &mut self,
        mut events: Vec<Broadcast>,
        binding: Option<Binding>,
        reply: Reply,
        trace: Trace,
    ) {
        trace.tell(|| tracing::debug!(events = events.len(), "to be published"));
        if self.draining.is_some() {
            self.measures.dropped.add(dropped::DRAINING, events.len() as u64);
            return reply.give(Err(PublishError::Draining));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let moment = Instant::now();
        let more = match self.complete_accepted(&mut events, binding.as_ref(), moment) {
            Ok(more) => more,
            Err(error) => {
                self.refused += events.len() as u64;
                self.measures.dropped.add(dropped::INVALID, events.len() as u64);
                self.complain(&error);
                return reply.give(Err(error));
            }
        };
        let mut group = Group::new(reply);
        group.bytes += more;
        group.commit = trace.part(|| debug_span!("commit"));
        group.trace = trace;
        for Broadcast { channels, event, publisher } in events {
            let registry = &self.registry;
            let is_followed = |channel: &Channel| registry.has_followers(channel);
            let ephemeral =
                event.ephemeral || !self.kept_by_interest.is_stored(&channels, moment, is_followed);
            group.push(Draft::new(event, channels, publisher, now), ephemeral);
        }
        if self.is_any_worker_behind() {
            return self.refuse(group);
        }
        let binding = if self.log.bound.is_some() {
            group.change = binding.map(Rebinding::Bind);
            None
        } else {
            binding
        };
        if group.is_ephemeral() {
            if let Some(binding) = binding {
                self.bind(binding, moment);
            }
            self.deliver_groups(vec![group], &[], Vec::new(), moment);
            return;
        }
        if self.take_in(group)
            && let Some(binding) = binding
        {
            self.bind(binding, moment);
        }
    }

    /// Has a group committed in its turn, or refuses it.
    pub(super) fn take_in(&mut self, group: Group<Reply>) -> bool {
        match self.intake.offer(group) {
            Ok(()) => {
                self.commit_next();
                true
            }
            Err(group) => {
                self.refuse(*group);
                false
            }
        }
    }

    /// Whether somebody from outside may publish this now. Services in this process may as fast as the log takes it.
    fn may_publish(&mut self, events: &[Broadcast], standing: &Standing) -> Result<(), PublishError> {
        let now = Instant::now();
        if self.revoked.is_revoked(standing, now) {
            return Err(PublishError::Revoked);
        }
        // What is refused for another reason is not counted.
        let Some(first) = events.first().filter(|_| self.draining.is_none()) else { return Ok(()) };
        let passed = self.admission.publish(&first.publisher, events.len(), now);
        passed.map_err(|retry_in| PublishError::TooFast { retry_in })
    }

    fn refuse(&mut self, group: Group<Reply>) {
        self.refused += group.slots.len() as u64;
        self.measures.dropped.add(dropped::OVERLOADED, group.slots.len() as u64);
        self.complain(&"too many events wait for their commit; refusing more");
        group.reply.give(Err(PublishError::Overloaded));
    }

    /// Whether a thread has been sent as much as may wait: then the way in is closed, not the queue in between longer.
    fn is_any_worker_behind(&self) -> bool {
        let bounds = self.settings.intake;
        self.workers.iter().any(|(_, worker)| {
            worker.backlog.events() >= bounds.events || worker.backlog.bytes() >= bounds.bytes
        })
    }

    /// Sends groups whose stored events are `records` to the workers, every event in its place, and then the receipts:
    /// who has one finds the broker's head at its event or beyond.
    pub(super) fn deliver_groups(
        &mut self,
        groups: Vec<Group<Reply>>,
        outcomes: &[Outcome],
        records: Vec<Arc<Record>>,
        committed: Instant,
    ) {
        let mut outcomes = outcomes.iter();
        let mut records = records.into_iter();
        self.measures.busiest.turn(committed);
        let mut out = Outbox::at(committed);
        let mut replies = Vec::with_capacity(groups.len());
        let mut relayed = Vec::new();
        for group in groups {
            // Ahead of the event that it came with, and of the answer.
            let was_there = group.change.is_some_and(|change| self.rebind(change, committed));
            let mut receipts = Vec::with_capacity(group.slots.len());
            out.trace = group.trace;
            drop(group.commit);
            for slot in group.slots {
                match slot {
                    Slot::Ephemeral(record) => {
                        receipts.push(Receipt {
                            id: record.draft.id.clone(),
                            seq: None,
                            cursor: None,
                            duplicate: false,
                        });
                        if self.log.relay.is_some() {
                            relayed.push(record.clone());
                        }
                        self.route(record, &mut out);
                    }
                    Slot::Stored(id) => {
                        let (seq, duplicate) = match outcomes.next() {
                            Some(&Outcome::New(seq)) => {
                                if let Some(record) = records.next() {
                                    self.route(record, &mut out);
                                }
                                (Some(seq), false)
                            }
                            Some(&Outcome::Duplicate(seq)) => (Some(seq), true),
                            None => (None, false),
                        };
                        let cursor =
                            self.timeline.as_ref().zip(seq).map(|(timeline, seq)| timeline.cursor(seq));
                        out.trace.tell(|| tracing::debug!(%id, seq, duplicate, "committed"));
                        receipts.push(Receipt { id, seq, cursor, duplicate });
                    }
                }
            }
            replies.push((group.reply, receipts, was_there));
        }
        out.trace = Trace::default();
        for record in records {
            if self.kept_by_interest.is_in_use() {
                self.kept_by_interest.hold_of_others(&record.draft.channels, committed);
            }
            if self.log.bound.is_some() {
                self.bindings.touch(&record.draft.attributes, committed);
            }
            self.route(record, &mut out);
        }
        self.send_out(out);
        if let Some(relay) = self.log.relay.as_ref().filter(|_| !relayed.is_empty()) {
            relay.do_send(Relay::Ephemeral { records: relayed, after: self.head });
        }
        for (reply, receipts, was_there) in replies {
            reply.give(Ok((receipts, was_there)));
        }
    }

    /// Puts one event into the ring and into the parcels of the workers that have somebody for it.
    fn route(&mut self, record: Arc<Record>, out: &mut Outbox) {
        let Some(timeline) = self.timeline.clone() else { return };
        self.delivered += 1;
        out.routes.clear();
        for channel in record.draft.channels.iter() {
            self.registry.routes_to(channel, &mut out.routes);
            self.measures.busiest.count(channel);
        }
        out.routes.sort_unstable();
        out.routes.dedup();
        let mut frames = Frames::default();
        for encoding in out.routes.iter().filter_map(|route| route.encoding) {
            frames.encode(encoding, &record, &timeline);
        }
        let mut last = None;
        for route in &out.routes {
            if last.replace(route.worker) == Some(route.worker) {
                continue;
            }
            if out.parcels.len() <= route.worker {
                out.parcels.resize_with(route.worker + 1, Vec::new);
            }
            if let Some(parcels) = out.parcels.get_mut(route.worker) {
                parcels.push(Parcel {
                    number: self.delivered,
                    record: record.clone(),
                    frames: frames.clone(),
                    committed: out.committed,
                    trace: out.trace.clone(),
                });
            }
        }
        let routes = out.routes.len();
        let tell = || tracing::debug!(id = %record.draft.id, seq = record.seq(), routes, "fanned out");
        out.trace.tell(tell);
        if let Some(seq) = record.seq() {
            self.head = self.head.max(seq);
            self.ring.push(seq, record, frames);
        }
    }

    fn send_out(&mut self, out: Outbox) {
        for (worker, parcels) in out.parcels.into_iter().enumerate() {
            if !parcels.is_empty()
                && let Some(worker) = self.workers.get_mut(worker)
            {
                let bytes = parcels.iter().map(|parcel| parcel.record.draft.weight()).sum();
                worker.backlog.send(parcels.len(), bytes);
                worker.addr.do_send(Deliver { parcels, backlog: worker.backlog.clone() });
            }
        }
    }
}

/// What goes to each worker, in one message.
struct Outbox {
    parcels: Vec<Vec<Parcel>>,
    routes: Vec<Route>,
    committed: Instant,
    /// The publish that what is routed came with.
    trace: Trace,
}

impl Outbox {
    fn at(committed: Instant) -> Self {
        Self { parcels: Vec::new(), routes: Vec::new(), committed, trace: Trace::default() }
    }
}

impl Handler<Broadcast> for Broker {
    type Result = Deferred<Result<Receipt, PublishError>>;

    fn handle(&mut self, broadcast: Broadcast, _: &mut Self::Context) -> Self::Result {
        let (deferred, reply) = Reply::one();
        self.accept(vec![broadcast], None, reply, Trace::start(|| debug_span!("publish")));
        deferred
    }
}

impl Handler<Batch> for Broker {
    type Result = Deferred<Result<Vec<Receipt>, PublishError>>;

    fn handle(&mut self, Batch(events): Batch, _: &mut Self::Context) -> Self::Result {
        let (deferred, reply) = Reply::many();
        self.accept(events, None, reply, Trace::start(|| debug_span!("publish")));
        deferred
    }
}

impl Handler<Publish> for Broker {
    type Result = ();

    fn handle(&mut self, publish: Publish, _: &mut Self::Context) {
        let Publish { batch: Batch(events), standing, trace, reply } = publish;
        let reply = Reply::Channel(reply);
        match self.may_publish(&events, &standing) {
            Ok(()) => self.accept(events, None, reply, trace),
            Err(error) => {
                self.measures.dropped.add(dropped::reason(&error), events.len() as u64);
                reply.give(Err(error));
            }
        }
    }
}

impl Handler<Relayed> for Broker {
    type Result = ();

    fn handle(&mut self, relayed: Relayed, _: &mut Self::Context) {
        let records = match relayed {
            Relayed::Ephemeral(records) => records,
            Relayed::Rebound { changes, known, is_anew } => return self.learn(changes, known, is_anew),
            Relayed::Reached(seq) => return self.reached = Some((seq, Instant::now())),
            Relayed::Stale { ticket } => return self.commit_again(ticket),
            Relayed::Asked { channel, reply } => return drop(reply.send(self.roll(&channel))),
            Relayed::Filling(progress) => return self.note_filling(progress),
            Relayed::CloseSession { session, reason } => {
                self.close_session(session, reason);
                return;
            }
        };
        let now = Instant::now();
        self.measures.busiest.turn(now);
        let mut out = Outbox::at(now);
        for record in records {
            self.route(record, &mut out);
        }
        self.send_out(out);
    }
}
