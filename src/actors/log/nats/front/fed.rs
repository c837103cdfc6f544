//! What the feed brings, and how the index follows it.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{Front, UnderWay, answered};
use crate::actors::log::index::{Apply, Drafts, Open, Stretch};
use crate::actors::log::nats::bindings::Changes;
use crate::actors::log::nats::extent::{Extent, first_of, last_of, sequence_of};
use crate::actors::log::nats::failure::Failure;
use crate::actors::log::{Progress, Rebinding, Relayed};
use crate::error::{CloseReason, LogError};
use crate::identity::SessionId;

/// How often it is said how far the filling of the index has come.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// How often the broker is told of it. Who comes before it is told for the first time waits, since that is soon over.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The index is behind the stream as it was at the beginning, and the broker has not been told that the log is open.
pub(super) struct Filling {
    until: u64,
    began_at: u64,
    said: Instant,
    told: Instant,
    /// It is over, and the index has been told to open the log.
    pub(super) is_over: bool,
}

/// A message of the stream.
pub(in crate::actors::log::nats) struct Message {
    pub(in crate::actors::log::nats) sequence: u64,
    pub(in crate::actors::log::nats) time: u64,
    /// Its id, if this node has written it.
    pub(in crate::actors::log::nats) own_id: Option<String>,
    pub(in crate::actors::log::nats) said: Said,
}

/// What a message says: events, what they were completed by and what they change of it, or that a session was closed.
pub(in crate::actors::log::nats) enum Said {
    Batch { drafts: Drafts, known: u64, change: Option<Rebinding> },
    CloseSession { session: SessionId, reason: CloseReason },
}

impl Said {
    pub(in crate::actors::log::nats) fn nothing() -> Self {
        Self::Batch { drafts: Drafts::Read(Vec::new()), known: u64::MAX, change: None }
    }
}

impl Message {
    pub(in crate::actors::log::nats) fn events(&self) -> usize {
        match &self.said {
            Said::Batch { drafts, .. } => drafts.count(),
            Said::CloseSession { .. } => 0,
        }
    }
}

/// Command: hold the index against the stream. Answers with the newest message that the index has.
#[derive(Message)]
#[rtype(result = "Result<u64, LogError>")]
pub(in crate::actors::log::nats) struct AlignTo(pub(in crate::actors::log::nats) Extent);

/// Query: is it known what the order says of bindings up to the newest message that the index has?
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<bool, LogError>")]
pub(in crate::actors::log::nats) struct KnowsBindings;

/// Fact: so the order has it, oldest first.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(in crate::actors::log::nats) struct Recalled(pub(in crate::actors::log::nats) Vec<(u64, Rebinding)>);

/// Fact: messages come, or do not any more.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(in crate::actors::log::nats) enum Feeding {
    /// So many are still to come now.
    Begun {
        pending: u64,
    },
    Ended,
}

/// Fact: these messages came, each once, in the order of the stream. Answered when the broker has them.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(in crate::actors::log::nats) struct Fed {
    pub(in crate::actors::log::nats) messages: Vec<Message>,
    /// So many are still to come now.
    pub(in crate::actors::log::nats) pending: u64,
}

impl Front {
    /// Opens the log once the index has what the stream had when the filling began, or what was left of it.
    pub(super) fn open_if_filled(
        &mut self,
        pending: Option<u64>,
    ) -> ResponseActFuture<Self, Result<(), LogError>> {
        let (Some(filling), Some(extent)) = (&mut self.filling, &self.extent) else {
            return Box::pin(fut::ready(Ok(())));
        };
        if filling.is_over {
            return Box::pin(fut::ready(Ok(())));
        }
        if pending == Some(0) {
            filling.until = filling.until.min(self.last);
        }
        if self.last < filling.until {
            if filling.said.elapsed() >= SAY_EVERY {
                filling.said = Instant::now();
                tracing::info!(at = self.last, of = filling.until, "filling the index from the stream");
            }
            if filling.told.elapsed() >= TELL_EVERY
                && !self.was_opened
                && let Some(broker) = self.follower.relayed.upgrade()
            {
                filling.told = Instant::now();
                let (done, of) = (self.last - filling.began_at, filling.until - filling.began_at);
                broker.do_send(Relayed::Filling(Progress { done, of }));
            }
            return Box::pin(fut::ready(Ok(())));
        }
        if self.last > filling.began_at {
            let messages = self.last - filling.began_at;
            tracing::info!(messages, at = self.last, "the index is filled");
        }
        // The broker may hear of it, and commit, before we do.
        filling.is_over = true;
        let opening = self.index.open.send(Open(extent.lineage())).into_actor(self);
        Box::pin(opening.map(|opened, me, _| {
            let opened = answered(opened);
            match (&opened, &mut me.filling) {
                (Err(_), Some(filling)) => filling.is_over = false,
                _ => (me.filling, me.was_opened) = (None, true),
            }
            me.tell_health();
            opened
        }))
    }
}

impl Handler<AlignTo> for Front {
    type Result = ResponseActFuture<Self, Result<u64, LogError>>;

    fn handle(&mut self, AlignTo(extent): AlignTo, _: &mut Self::Context) -> Self::Result {
        if let Some(broker) = self.follower.relayed.upgrade() {
            broker.do_send(Relayed::Reached(if extent.last == 0 { 0 } else { last_of(extent.last) }));
        }
        let aligning = self.index.align.send(extent.align()).into_actor(self);
        Box::pin(aligning.then(|aligned, me, _| {
            let aligned = match answered(aligned) {
                Ok(aligned) => aligned,
                Err(error) => return Box::pin(fut::ready(Err(error))) as ResponseActFuture<Self, _>,
            };
            let is_first = me.extent.is_none();
            if aligned.is_anew || is_first {
                me.changes = None;
                me.last = sequence_of(aligned.through);
                me.head = aligned.head;
                let (until, began_at) = (extent.last, me.last);
                let now = Instant::now();
                me.filling = Some(Filling { until, began_at, said: now, told: now, is_over: false });
            }
            if aligned.is_anew && !is_first {
                let stream = &me.link.plan.stream;
                tracing::warn!(
                    stream,
                    "the stream is another, or has lost what this node did not see; beginning anew"
                );
                if let Some(UnderWay { ticket, .. }) = me.under_way {
                    me.fail(ticket, LogError::unknown(Failure::no_answer("the stream is another one")));
                }
            }
            me.extent = Some(extent);
            // What was still to come may be gone.
            let opening = if me.is_feeding { me.open_if_filled(None) } else { Box::pin(fut::ready(Ok(()))) };
            Box::pin(opening.map(|opened, me, _| opened.map(|()| me.last)))
        }))
    }
}

impl Handler<Feeding> for Front {
    type Result = ResponseActFuture<Self, Result<(), LogError>>;

    fn handle(&mut self, feeding: Feeding, _: &mut Self::Context) -> Self::Result {
        self.is_feeding = matches!(feeding, Feeding::Begun { .. });
        self.tell_health();
        match feeding {
            Feeding::Begun { pending } => self.open_if_filled(Some(pending)),
            Feeding::Ended => Box::pin(fut::ready(Ok(()))),
        }
    }
}

impl Handler<Fed> for Front {
    type Result = ResponseActFuture<Self, Result<(), LogError>>;

    fn handle(&mut self, Fed { messages, pending }: Fed, _: &mut Self::Context) -> Self::Result {
        let (mut stretches, mut newest, mut claimed) = (Vec::with_capacity(messages.len()), self.last, None);
        let (mut closed, mut rebound, mut stale) = (Vec::new(), Vec::new(), None);
        for Message { sequence, time, own_id, said } in messages {
            // A server may begin before where it was told to.
            if sequence <= newest {
                continue;
            }
            let Some(first) = first_of(sequence) else {
                let why = LogError::new("the stream has no more positions; begin another");
                return Box::pin(fut::ready(Err(why)));
            };
            newest = sequence;
            // From here on nobody else settles it.
            let own = self.under_way.take_if(|under_way| Some(&under_way.id) == own_id.as_ref());
            let mut ticket = own.map(|own| own.ticket);
            claimed = claimed.or(ticket);
            let changes = self.changes.get_or_insert_default();
            let drafts = match said {
                Said::Batch { mut drafts, known, change } => {
                    if changes.concern(&mut drafts, known, sequence) {
                        stale = stale.or(ticket.take());
                        drafts = Drafts::Read(Vec::new());
                    } else if let Some(change) = change {
                        changes.note(sequence, &change);
                        rebound.push((sequence, change));
                    }
                    drafts
                }
                Said::CloseSession { session, reason } => {
                    // Here it is done; and nobody has a stream before the log is open.
                    if self.is_open() && own_id.is_none() {
                        closed.push(Relayed::CloseSession { session, reason });
                    }
                    Drafts::Read(Vec::new())
                }
            };
            stretches.push(Stretch { first, through: last_of(sequence), time, ticket, drafts });
        }
        let applying = self.index.apply.send(Apply(stretches)).into_actor(self);
        let applied = applying.then(move |applied, me, _| match answered(applied) {
            Ok(head) => {
                (me.last, me.head) = (newest, head);
                if let Some(broker) = me.follower.relayed.upgrade() {
                    closed.into_iter().for_each(|closed| broker.do_send(closed));
                    if let Some(&(known, _)) = rebound.last() {
                        let changes = rebound.into_iter().map(|(_, change)| change).collect();
                        broker.do_send(Relayed::Rebound { changes, known, is_anew: false });
                    }
                    if let Some(ticket) = stale {
                        broker.do_send(Relayed::Stale { ticket });
                    }
                }
                let told = me.release().into_actor(me);
                let opening = told.then(move |(), me: &mut Self, _| me.open_if_filled(Some(pending)));
                Box::pin(opening) as ResponseActFuture<Self, _>
            }
            Err(error) => {
                if let Some(ticket) = claimed {
                    me.tell_failure(ticket, LogError::unknown(error.clone()));
                }
                Box::pin(fut::ready(Err(error)))
            }
        });
        Box::pin(applied)
    }
}

impl Handler<KnowsBindings> for Front {
    type Result = Result<bool, LogError>;

    fn handle(&mut self, _: KnowsBindings, _: &mut Self::Context) -> Self::Result {
        Ok(self.changes.is_some())
    }
}

impl Handler<Recalled> for Front {
    type Result = Result<(), LogError>;

    fn handle(&mut self, Recalled(recalled): Recalled, _: &mut Self::Context) -> Self::Result {
        let changes = self.changes.insert(Changes::default());
        recalled.iter().for_each(|(sequence, change)| changes.note(*sequence, change));
        if let Some(broker) = self.follower.relayed.upgrade() {
            let known = recalled.last().map_or(0, |(sequence, _)| *sequence);
            let changes = recalled.into_iter().map(|(_, change)| change).collect();
            broker.do_send(Relayed::Rebound { changes, known, is_anew: true });
        }
        Ok(())
    }
}
