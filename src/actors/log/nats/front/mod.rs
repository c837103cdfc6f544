//! The actor between the broker, the stream and the index.

mod beside;
mod fed;

use std::time::{Duration, Instant};

use actix::prelude::*;
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::sync::mpsc;

pub(super) use self::beside::{Heard, HereIs};
use self::fed::Filling;
pub(super) use self::fed::{AlignTo, Fed, Feeding, KnowsBindings, Message, Recalled, Said};
use super::batch::Batch;
use super::bindings::Changes;
use super::extent::Extent;
use super::failure::Failure;
use super::feed;
use super::link::Link;
use super::live::{self, Behind, Passing};
use super::publish::{self, DEADLINE, HEADERS};
use super::roll::{self, Peers};
use super::{batch, subject};
use crate::actors::log::index::{Index, IndexHandle};
use crate::actors::log::{BoundCommit, Commit, CommitFailed, Follower, LogHandle, LogHealth, LogSetup};
use crate::actors::tick::tick;
use crate::cursor::Seq;
use crate::error::LogError;

/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A feed that has been broken for so long is no blink.
const STARVED: Duration = Duration::from_secs(3);

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
    /// What the order says of bindings; nothing before it was asked.
    changes: Option<Changes>,
    peers: Peers,
    /// When it was said last that this node is there.
    said_here: Option<Instant>,
}

/// The commit that is not settled yet.
struct UnderWay {
    ticket: u64,
    /// Of its message.
    id: String,
    since: Instant,
}

/// Command to itself: look whether the connection stands, and what has waited for too long.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
struct Look;

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
            relay: Some(address.clone().recipient()),
            bound: Some(address.recipient()),
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
            changes: None,
            peers: Peers::default(),
            said_here: None,
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
        let (link, node, broker) = (self.link.clone(), self.node.clone(), self.follower.relayed.clone());
        actix::spawn(async move {
            let (client, stream) = (&link.client, &link.plan.stream);
            let live = client.subscribe(subject::live(stream)).await;
            let here = client.subscribe(subject::here(stream)).await;
            let who = client.subscribe(subject::who(stream)).await;
            match (live, here, who) {
                (Ok(live), Ok(here), Ok(who)) => {
                    actix::spawn(roll::hear(here, node.clone(), me.clone()));
                    actix::spawn(roll::answer(who, link.clone(), node.clone(), broker));
                    live::hear(live, node, me).await;
                }
                _ => tracing::error!("what other nodes say beside the stream is not heard"),
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
        self.commit(ticket, &Batch::settled(drafts), ctx);
    }
}

impl Handler<BoundCommit> for Front {
    type Result = ();

    fn handle(&mut self, BoundCommit { commit, known, change }: BoundCommit, ctx: &mut Self::Context) {
        let Commit { ticket, drafts } = commit;
        self.commit(ticket, &Batch { drafts, known, change }, ctx);
    }
}

impl Front {
    fn commit(&mut self, ticket: u64, batch: &Batch, ctx: &mut Context<Self>) {
        if !self.is_open() {
            return self.tell_failure(ticket, Failure::filling().into());
        }
        let stream = &self.link.plan.stream;
        let channel = batch.drafts.first().and_then(|draft| draft.channels.first());
        let subject = match batch.change {
            Some(_) => subject::changes(stream),
            None => subject::of(stream, channel),
        };
        // Where nothing comes from, nothing comes back.
        if self.starved.is_some_and(|since| since.elapsed() >= STARVED) {
            return self.tell_failure(ticket, Failure::disconnected().into());
        }
        let began = self.lost.unwrap_or_else(Instant::now);
        let message =
            publish::Message { subject, id: format!("{}-{ticket}", self.node), body: batch::encode(batch) };
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
        if self.said_here.is_none_or(|said| said.elapsed() >= roll::SAY_EVERY) {
            self.say_here();
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

impl Handler<LogHealth> for Front {
    type Result = ();

    fn handle(&mut self, LogHealth { is_writable }: LogHealth, _: &mut Self::Context) {
        self.is_index_writable = is_writable;
        self.tell_health();
    }
}
