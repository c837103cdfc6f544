//! Late-bound routing: what events get added on their way in.

use std::time::Instant;

use actix::prelude::*;

use super::Broker;
use super::publish::{Broadcast, Receipt};
use super::reply::{Deferred, Reply};
use crate::actors::intake::Group;
use crate::actors::trace::Trace;
use crate::binding::{Binding, Pairs, Rebinding};
use crate::error::{InvalidValue, PublishError};
use crate::record::Draft;

/// Command: from now on, give events that have all the attributes of `when` those of `set` that they miss.
///
/// For publishers that know an event only by a name of their own (a connector and its session, say) while
/// subscribers filter by another (the conversation that it belongs to): who learns of the connection binds the one
/// to the other.
///
/// ```
/// use fanfare::{Bind, Broadcast, Broker, Event, Unbind};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// let alias = [("connector", "c"), ("native_session", "s")];
/// broker.send(Bind { when: alias.into(), set: [("scroll", "7")].into() }).await??;
///
/// // A subscription with `filter=scroll:7` gets this event.
/// let event = Event::text("line", "hello")?.attribute("connector", "c")?.attribute("native_session", "s")?;
/// broker.do_send(Broadcast::channel("lines", event)?);
///
/// assert!(broker.send(Unbind { when: alias.into() }).await??);
/// assert!(!broker.send(Unbind { when: alias.into() }).await??);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # What is promised
///
/// - **From when on.** An event is completed as the broker accepts it, ephemeral ones and those of a
///   [`Batch`](crate::Batch) too, and the broker takes one message after the other. So every event is completed that
///   is sent after a `do_send` of the bind by the same sender, or by anybody after the answer to its `send`. When both
///   are on their way at once, either may be first, and the log's order says which was. [`Bind::with`] publishes an
///   event with the binding, so that it is the first one completed.
/// - **Before.** An event that was accepted before the bind is never changed, not for live clients and not in the
///   log: it reaches those who follow the alias and no others. Nothing is held back for a bind to come.
/// - **Everywhere.** Filters, the log, resume, history and envelopes all see the event with what it was given.
/// - **Never overwritten.** An attribute that an event has stays, whatever its value.
/// - **Several bindings.** An event may meet several; each gives what is still missing. Of two that set the same
///   key the one with more attributes in its `when` wins, and of two with as many the one bound last. All look at
///   the event as it was published: what one sets does not set off another.
/// - **Binding again** with the same `when` replaces the whole `set`.
/// - **Published twice.** An event whose id was published before is a duplicate, whatever was bound in between: the
///   first one stands.
///
/// It routes and grants nothing: whoever may publish can give an event these attributes.
///
/// # Several nodes
///
/// With a log that nodes share a binding stands in its order, as events do: on whichever node it was made, and wherever an
/// event of the alias is published, the event is completed if it stands behind the binding there and not if it stands
/// before it. All nodes see one and the same event, also those that come later. So what is sent to any node after the
/// answer to a bind is completed by it. Only ephemeral events have no place in the order: they are completed by what the
/// node knows that takes them. A node that starts learns of the bindings that the stream still has. One that has left the
/// stream is known to the nodes that were there, and not to those that start later: bind again in good time before the
/// stream lets go of it. A stream that was made again has none.
///
/// # Limits
///
/// Bindings live in memory: after a restart of the only node there are none, so bind again what is still wanted. There are at most
/// as many as [`Builder::bindings`](crate::Builder::bindings) says, and one that no event met for as long leaves.
/// When there is no room, the one that was unused for longest leaves, for an alias that nobody uses must not keep a
/// new one out; [`BrokerStats`](crate::BrokerStats) counts those. The `when`s may have at most 64 different sets of
/// keys between them, because each costs every event a look; the number of bindings costs an event nothing.
///
/// An event that would have more than 16 attributes is refused with its whole batch, as [`PublishError::Invalid`]
/// and with 400 by HTTP, and counted as refused: to leave some out would send it astray in silence.
///
/// # Errors
///
/// [`PublishError::Invalid`] that names `when` or `set` and the rule: empty, more than 16 or together more than 16, a key
/// twice or in both, what is no attribute ([`Attributes`](crate::Attributes)), and the 65th set of keys.
/// [`Bind::new`] refuses all but the last at once. With `do_send` a refusal is logged. With a log that nodes share, the other
/// errors of a publish too.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<Bound, PublishError>")]
pub struct Bind {
    /// What an event must have, all of it.
    pub when: Pairs,
    /// What it then gets, unless it has the key.
    pub set: Pairs,
}

/// The answer to [`Bind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// Whether a binding with the same `when` was replaced.
    pub replaced: bool,
}

impl Bind {
    /// A binding that is checked here, for those who do not wait for an answer.
    ///
    /// # Errors
    ///
    /// As for [`Bind`].
    pub fn new(when: impl Into<Pairs>, set: impl Into<Pairs>) -> Result<Self, InvalidValue> {
        let bind = Self { when: when.into(), set: set.into() };
        Binding::new(&bind.when, &bind.set)?;
        Ok(bind)
    }

    /// Publishes an event in the same step: it is the first that this binding completes, and nothing comes between.
    ///
    /// ```
    /// use fanfare::{Bind, Broadcast, Broker, Event};
    ///
    /// # actix_web::rt::System::new().block_on(async {
    /// let broker = Broker::builder().start()?;
    /// let registered = Event::text("registered", "")?.attribute("native_session", "s")?;
    /// let bind = Bind { when: [("native_session", "s")].into(), set: [("scroll", "7")].into() };
    /// let receipt = broker.send(bind.with(Broadcast::channel("sessions", registered)?)?).await??;
    /// assert_eq!(receipt.seq, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] as for [`Bind`], and that names `attributes` if the event does not have all of `when`, or
    /// would have too many.
    pub fn with(self, broadcast: Broadcast) -> Result<BindWith, InvalidValue> {
        let binding = Binding::new(&self.when, &self.set)?;
        binding.check_event(&broadcast.event.attributes)?;
        Ok(BindWith { binding, broadcast })
    }
}

/// Command: bind, and publish an event that is routed by the binding. Made by [`Bind::with`].
///
/// The binding is made if the event is accepted: if that is refused, nothing has changed. If the log fails later
/// ([`PublishError::Log`]), the binding stands, since events that came meanwhile were routed by it. `do_send` and
/// `send` differ as for [`Broadcast`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Receipt, PublishError>")]
pub struct BindWith {
    binding: Binding,
    broadcast: Broadcast,
}

/// Command: forget the binding of `when`. Answers whether there was one; to say it twice does no harm.
///
/// Events that were completed by it stay as they are.
///
/// # Errors
///
/// [`PublishError::Invalid`] for a `when` that no [`Bind`] could have. With a log that nodes share, the other errors of a
/// publish too.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "Result<bool, PublishError>")]
pub struct Unbind {
    /// As in [`Bind`], in any order.
    pub when: Pairs,
}

impl Broker {
    /// Gives events what bindings set. All are looked at before any is accepted.
    pub(super) fn complete(
        &mut self,
        events: &mut [Broadcast],
        candidate: Option<&Binding>,
        now: Instant,
    ) -> Result<(), PublishError> {
        let invalid = |index| move |invalid| PublishError::Invalid { index, invalid };
        if let Some(candidate) = candidate {
            self.bindings.check(candidate, now).map_err(invalid(0))?;
        }
        for (index, broadcast) in events.iter_mut().enumerate() {
            let attributes = &mut broadcast.event.attributes;
            self.bindings.complete(attributes, candidate, now).map_err(invalid(index))?;
        }
        Ok(())
    }

    /// As [`Broker::complete`], where events are completed for good at another place: only the ephemeral ones are here,
    /// but what would have too many attributes is refused. Returns how many bytes the others will get.
    pub(super) fn complete_accepted(
        &mut self,
        events: &mut [Broadcast],
        candidate: Option<&Binding>,
        now: Instant,
    ) -> Result<usize, PublishError> {
        if self.log.bound.is_none() {
            return self.complete(events, candidate, now).map(|()| 0);
        }
        let own: Vec<_> = events.iter().map(|broadcast| broadcast.event.attributes.clone()).collect();
        self.complete(events, candidate, now)?;
        let mut bytes = 0;
        for (broadcast, own) in events.iter_mut().zip(own).filter(|(broadcast, _)| !broadcast.event.ephemeral)
        {
            let completed = std::mem::replace(&mut broadcast.event.attributes, own);
            bytes += completed.weight() - broadcast.event.attributes.weight();
        }
        Ok(bytes)
    }

    /// Gives the events of a batch what bindings set; false if one would have too many attributes by a binding that came
    /// since it was accepted.
    pub(super) fn complete_drafts(&mut self, drafts: &mut [Draft], change: Option<&Rebinding>) -> bool {
        let (now, candidate) = (
            Instant::now(),
            match change {
                Some(Rebinding::Bind(binding)) => Some(binding),
                Some(Rebinding::Unbind(_)) | None => None,
            },
        );
        drafts.iter_mut().all(|draft| self.bindings.complete(&mut draft.attributes, candidate, now).is_ok())
    }

    /// Changes a binding. Says whether there was one.
    pub(super) fn rebind(&mut self, change: Rebinding, now: Instant) -> bool {
        match change {
            Rebinding::Bind(binding) => self.bind(binding, now).replaced,
            Rebinding::Unbind(when) => self.bindings.unbind(&when, now),
        }
    }

    /// Takes over what the order says of bindings.
    pub(super) fn learn(&mut self, changes: Vec<Rebinding>, known: u64, is_anew: bool) {
        if is_anew {
            self.bindings.clear();
        }
        let now = Instant::now();
        for change in changes {
            self.rebind(change, now);
        }
        self.known = known;
    }

    /// Has the log settle a change.
    fn have_rebound(&mut self, change: Rebinding, reply: Reply) {
        if self.draining.is_some() {
            return reply.give(Err(PublishError::Draining));
        }
        let mut group = Group::new(reply);
        group.change = Some(change);
        self.take_in(group);
    }

    pub(super) fn bind(&mut self, binding: Binding, now: Instant) -> Bound {
        let outcome = self.bindings.bind(binding, now);
        if outcome.dropped {
            self.complain(&"there are too many bindings; dropping those that were unused for longest");
        }
        Bound { replaced: outcome.replaced }
    }
}

impl Handler<Bind> for Broker {
    type Result = Deferred<Result<Bound, PublishError>>;

    fn handle(&mut self, Bind { when, set }: Bind, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let checked = Binding::new(&when, &set).and_then(|binding| {
            self.bindings.check(&binding, now)?;
            Ok(binding)
        });
        let (deferred, reply) = Reply::bound();
        match checked {
            Ok(binding) if self.log.bound.is_some() => self.have_rebound(Rebinding::Bind(binding), reply),
            Ok(binding) => {
                let was_there = self.bind(binding, now).replaced;
                reply.give(Ok((Vec::new(), was_there)));
            }
            Err(invalid) => {
                self.complain(&format_args!("a binding was refused: {invalid}"));
                reply.give(Err(PublishError::Invalid { index: 0, invalid }));
            }
        }
        deferred
    }
}

impl Handler<BindWith> for Broker {
    type Result = Deferred<Result<Receipt, PublishError>>;

    fn handle(&mut self, BindWith { binding, broadcast }: BindWith, _: &mut Self::Context) -> Self::Result {
        let (deferred, reply) = Reply::one();
        self.accept(vec![broadcast], Some(binding), reply, Trace::start(|| tracing::debug_span!("publish")));
        deferred
    }
}

impl Handler<Unbind> for Broker {
    type Result = Deferred<Result<bool, PublishError>>;

    fn handle(&mut self, Unbind { when }: Unbind, _: &mut Self::Context) -> Self::Result {
        let (deferred, reply) = Reply::unbound();
        match when.attributes("when") {
            Ok(when) if self.log.bound.is_some() => self.have_rebound(Rebinding::Unbind(when), reply),
            Ok(when) => reply.give(Ok((Vec::new(), self.bindings.unbind(&when, Instant::now())))),
            Err(invalid) => reply.give(Err(PublishError::Invalid { index: 0, invalid })),
        }
        deferred
    }
}
