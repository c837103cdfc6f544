//! The actor between the broker, the stream and the index.

use std::time::{Duration, Instant};

use actix::prelude::*;
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::sync::mpsc;

use super::batch::Content;
use super::extent::{Extent, first_of, last_of, sequence_of};
use super::failure::Failure;
use super::feed;
use super::link::Link;
use super::live::{self, Behind, Passing};
use super::publish::{self, DEADLINE, HEADERS};
use super::{batch, subject};
use crate::actors::log::index::{Apply, Index, IndexHandle, Open, Stretch};
use crate::actors::log::{Commit, CommitFailed, Follower, LogHandle, LogHealth, LogSetup, Relay, Relayed};
use crate::actors::tick::tick;
use crate::channel::Channel;
use crate::cursor::Seq;
use crate::error::{CloseReason, LogError};
use crate::identity::SessionId;
use crate::record::Record;

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A feed that has been broken for so long is no blink.
const STARVED: Duration = Duration::from_secs(3);
/// How often it is said how far the filling of the index has come.
const SAY_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Front {
    link: Link,
    index: IndexHandle,
    follower: Follower,
    /// This node's name, of this start alone.
    node: String,
    /// What the stream was when it was looked at last.
    extent: Option<Extent>,
    /// The newest message that the index has.
    last: u64,
    /// The newest position that the index has.
    head: Seq,
    filling: Option<Filling>,
    under_way: Option<UnderWay>,
    /// Sessions that were closed here.
    closed: u64,
    is_feeding: bool,
    is_index_writable: bool,
    /// Whether the broker has been told that the log is open.
    was_opened: bool,
    /// What the broker was told.
    is_writable: bool,
    /// Since when there is no connection.
    lost: Option<Instant>,
    /// Since when nothing comes, also if there is a connection.
    starved: Option<Instant>,
    outbox: mpsc::Sender<Passing>,
    /// Ephemeral events that there was no room for since it was said last.
    dropped: usize,
    behind: Behind,
}

/// The index is behind the stream as it was at the beginning, and the broker has not been told that the log is open.
struct Filling {
    until: u64,
    began_at: u64,
    said: Instant,
    /// It is over, and the index has been told to open the log.
    is_over: bool,
}

/// The commit that is not settled yet.
struct UnderWay {
    ticket: u64,
    /// Of its message.
    id: String,
    since: Instant,
}

/// A message of the stream.
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) id: Option<String>,
    pub(super) content: Content,
}

impl Message {
    pub(super) fn events(&self) -> usize {
        match &self.content {
            Content::Batch(drafts) => drafts.len(),
            Content::CloseSession { .. } => 0,
        }
    }
}

/// Command: hold the index against the stream. Answers with the newest message that the index has.
#[derive(Message)]
#[rtype(result = "Result<u64, LogError>")]
pub(super) struct AlignTo(pub(super) Extent);

/// Fact: messages come, or do not any more.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(super) enum Feeding {
    /// So many are still to come now.
    Begun {
        pending: u64,
    },
    Ended,
}

/// Fact: these messages came, each once, in the order of the stream. Answered when the broker has them.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(super) struct Fed {
    pub(super) messages: Vec<Message>,
    /// So many are still to come now.
    pub(super) pending: u64,
}

/// Command to itself: look whether the connection stands, and what has waited for too long.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct Look;

/// Fact: these ephemeral events were sent by another node, behind a position there.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Heard {
    pub(super) records: Vec<std::sync::Arc<Record>>,
    pub(super) after: Seq,
}

impl Front {
    /// Starts it on this arbiter, which ends with it.
    pub(super) fn start_with(
        link: Link,
        index: Box<dyn Index>,
        setup: LogSetup,
    ) -> Result<LogHandle, LogError> {
        let LogSetup { follower, retention } = setup;
        let ctx = Context::<Self>::new();
        let address = ctx.address();
        let told =
            Follower { health: address.clone().recipient::<LogHealth>().downgrade(), ..follower.clone() };
        let index = index.follow(LogSetup { follower: told, retention })?;
        let node: String = rand::rng().sample_iter(Alphanumeric).take(12).map(char::from).collect();
        let (outbox, passing) = live::outbox();
        actix::spawn(live::send(link.clone(), node.clone(), passing));
        let handle = LogHandle {
            commit: address.clone().recipient(),
            read: index.read.clone(),
            seek: index.seek.clone(),
            forget: index.forget.clone(),
            commit_bytes: Some(link.client.max_payload().saturating_sub(2 * HEADERS)),
            relay: Some(address.recipient()),
        };
        ctx.run(Self {
            link,
            index,
            follower,
            node,
            extent: None,
            last: 0,
            head: 0,
            filling: None,
            under_way: None,
            closed: 0,
            is_feeding: false,
            is_index_writable: true,
            was_opened: false,
            is_writable: true,
            lost: None,
            starved: None,
            outbox,
            dropped: 0,
            behind: Behind::default(),
        });
        Ok(handle)
    }

    fn is_open(&self) -> bool {
        self.extent.is_some() && self.filling.as_ref().is_none_or(|filling| filling.is_over)
    }

    /// Tells the broker when it has changed whether commits may succeed. It knows by itself that the log is not open yet.
    fn tell_health(&mut self) {
        let (is_connected, now) = (self.link.is_connected(), Instant::now());
        self.lost = if is_connected { None } else { self.lost.or(Some(now)) };
        self.starved = if self.is_feeding { None } else { self.starved.or(Some(now)) };
        let is_writable = self.is_open() && self.is_feeding && self.is_index_writable && is_connected;
        if !self.was_opened || std::mem::replace(&mut self.is_writable, is_writable) == is_writable {
            return;
        }
        if is_writable {
            tracing::info!("the log takes events again");
        } else {
            tracing::error!("the log takes no events: the stream is not to be had");
        }
        if let Some(broker) = self.follower.health.upgrade() {
            broker.do_send(LogHealth { is_writable });
        }
    }

    /// The commit is over, and it is not known or known not to be stored.
    fn fail(&mut self, ticket: u64, error: LogError) {
        if self.under_way.take_if(|under_way| under_way.ticket == ticket).is_some() {
            self.tell_failure(ticket, error);
        }
    }

    fn tell_failure(&self, ticket: u64, error: LogError) {
        if let Some(broker) = self.follower.failed.upgrade() {
            broker.do_send(CommitFailed { ticket, error });
        }
    }

    /// Hands on the ephemeral events whose turn it is. The answer comes when the broker has gone through them and all
    /// that it was told before: who waits for it is never ahead of the broker.
    fn release(&mut self) -> ResponseFuture<()> {
        let records = self.behind.release(self.head, Instant::now());
        let Some(broker) = self.follower.relayed.upgrade() else { return Box::pin(std::future::ready(())) };
        let released = broker.send(Relayed::Ephemeral(records));
        // Nobody is told anything if there is no broker any more.
        Box::pin(async move { released.await.unwrap_or_default() })
    }

    /// Tells the other nodes by the stream that a session was closed: who is cut off now is told later.
    fn pass_on(&mut self, session: SessionId, reason: CloseReason, ctx: &mut Context<Self>) {
        self.closed += 1;
        let message = publish::Message {
            subject: subject::of(&self.link.plan.stream, Some(&Channel::inbox(session))),
            id: format!("{}-closed-{}", self.node, self.closed),
            body: batch::close_session(session, reason),
        };
        let link = self.link.clone();
        let publishing = async move {
            if let Err(error) = publish::publish(&link, &message, Instant::now()).await {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(why, %session, "the session may have been closed on this node alone");
            }
        };
        ctx.spawn(publishing.into_actor(self));
    }

    /// Opens the log once the index has what the stream had when the filling began, or what was left of it.
    fn open_if_filled(&mut self, pending: Option<u64>) -> ResponseActFuture<Self, Result<(), LogError>> {
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

/// What came of a question to the index.
fn answered<T>(answer: Result<Result<T, LogError>, MailboxError>) -> Result<T, LogError> {
    answer.map_err(|_| LogError::new("the index is gone"))?
}

impl Actor for Front {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let me = ctx.address().downgrade();
        actix::spawn(feed::run(self.link.clone(), self.node.clone(), me.clone()));
        let (link, node) = (self.link.clone(), self.node.clone());
        actix::spawn(async move {
            match link.client.subscribe(subject::live(&link.plan.stream)).await {
                Ok(heard) => live::hear(heard, node, me).await,
                Err(error) => tracing::error!("ephemeral events of other nodes are not heard: {error}"),
            }
        });
        tick(&ctx.address(), LOOK, Look);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // The arbiter was made for this actor; the connection and the feed go with it.
        Arbiter::current().stop();
    }
}

impl Handler<Commit> for Front {
    type Result = ();

    fn handle(&mut self, Commit { ticket, drafts }: Commit, ctx: &mut Self::Context) {
        if !self.is_open() {
            return self.tell_failure(ticket, Failure::filling().into());
        }
        let channel = drafts.first().and_then(|draft| draft.channels.first());
        // Where nothing comes from, nothing comes back.
        if self.starved.is_some_and(|since| since.elapsed() >= STARVED) {
            return self.tell_failure(ticket, Failure::disconnected().into());
        }
        let began = self.lost.unwrap_or_else(Instant::now);
        let message = publish::Message {
            subject: subject::of(&self.link.plan.stream, channel),
            id: format!("{}-{ticket}", self.node),
            body: batch::encode(&drafts),
        };
        if let Err(error) = message.check(&self.link) {
            return self.tell_failure(ticket, error);
        }
        self.under_way = Some(UnderWay { ticket, id: message.id.clone(), since: Instant::now() });
        let link = self.link.clone();
        let publishing = async move { publish::publish(&link, &message, began).await };
        // That the stream has it settles nothing: it is settled when it comes back.
        ctx.spawn(publishing.into_actor(self).map(move |published, me, _| {
            if let Err(error) = published {
                me.fail(ticket, error);
            }
        }));
    }
}

impl Handler<Look> for Front {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        self.tell_health();
        if self.dropped > 0 {
            let events = std::mem::take(&mut self.dropped);
            tracing::warn!(events, "ephemeral events between nodes were too many or too large; dropped");
        }
        if self.behind.is_waiting() {
            ctx.spawn(self.release().into_actor(self));
        }
        if let Some(UnderWay { ticket, since, .. }) = self.under_way
            && since.elapsed() >= DEADLINE + LOOK
        {
            self.fail(ticket, LogError::unknown(Failure::no_answer("it did not come back in time")));
        }
    }
}

impl Handler<AlignTo> for Front {
    type Result = ResponseActFuture<Self, Result<u64, LogError>>;

    fn handle(&mut self, AlignTo(extent): AlignTo, _: &mut Self::Context) -> Self::Result {
        let aligning = self.index.align.send(extent.align()).into_actor(self);
        Box::pin(aligning.then(|aligned, me, _| {
            let aligned = match answered(aligned) {
                Ok(aligned) => aligned,
                Err(error) => return Box::pin(fut::ready(Err(error))) as ResponseActFuture<Self, _>,
            };
            let is_first = me.extent.is_none();
            if aligned.is_anew || is_first {
                me.last = sequence_of(aligned.through);
                me.head = aligned.head;
                let (until, began_at) = (extent.last, me.last);
                me.filling = Some(Filling { until, began_at, said: Instant::now(), is_over: false });
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
        let mut closed = Vec::new();
        for Message { sequence, time, id, content } in messages {
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
            let own = self.under_way.take_if(|under_way| Some(&under_way.id) == id.as_ref());
            let ticket = own.map(|own| own.ticket);
            claimed = claimed.or(ticket);
            let drafts = match content {
                Content::Batch(drafts) => drafts,
                Content::CloseSession { session, reason } => {
                    // Here it is done; and nobody has a stream before the log is open.
                    if self.is_open() && !id.is_some_and(|id| id.starts_with(&self.node)) {
                        closed.push(Relayed::CloseSession { session, reason });
                    }
                    Vec::new()
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

impl Handler<LogHealth> for Front {
    type Result = ();

    fn handle(&mut self, LogHealth { is_writable }: LogHealth, _: &mut Self::Context) {
        self.is_index_writable = is_writable;
        self.tell_health();
    }
}

impl Handler<Relay> for Front {
    type Result = ();

    fn handle(&mut self, relay: Relay, ctx: &mut Self::Context) {
        let (records, after) = match relay {
            Relay::Ephemeral { records, after } => (records, after),
            Relay::CloseSession { session, reason } => return self.pass_on(session, reason, ctx),
        };
        let body = live::encode(&records);
        if body.len() + HEADERS > self.link.client.max_payload()
            || self.outbox.try_send(Passing { body, after }).is_err()
        {
            self.dropped += records.len();
        }
    }
}

impl Handler<Heard> for Front {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, heard: Heard, _: &mut Self::Context) -> Self::Result {
        self.dropped += self.behind.push(heard, Instant::now());
        self.release()
    }
}
