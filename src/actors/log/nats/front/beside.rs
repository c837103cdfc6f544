//! What goes beside the stream, between the nodes.

use std::time::Instant;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::Front;
use crate::actors::log::nats::live::{self, Passing};
use crate::actors::log::nats::publish::{self, HEADERS};
use crate::actors::log::nats::{batch, roll, subject};
use crate::actors::log::{Relay, Relayed, Roll};
use crate::channel::Channel;
use crate::cursor::Seq;
use crate::error::CloseReason;
use crate::identity::SessionId;
use crate::record::Record;

/// Fact: these ephemeral events were sent by another node, behind a position there.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors::log::nats) struct Heard {
    pub(in crate::actors::log::nats) records: Vec<std::sync::Arc<Record>>,
    pub(in crate::actors::log::nats) after: Seq,
}

/// Fact: another node is there.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors::log::nats) struct HereIs {
    pub(in crate::actors::log::nats) node: String,
}

impl Front {
    pub(super) fn say_here(&mut self) {
        self.said_here = Some(Instant::now());
        actix::spawn(roll::say(self.link.clone(), self.node.clone()));
    }

    /// Has the other nodes say who follows a channel there.
    fn ask(&self, channel: Channel, reply: oneshot::Sender<Vec<Roll>>) {
        let peers = self.peers.count(Instant::now());
        if peers == 0 || !self.link.is_connected() {
            // Who asked may have left, here and below.
            return drop(reply.send(Vec::new()));
        }
        let asking = roll::ask(self.link.clone(), self.node.clone(), channel, peers);
        actix::spawn(async move { drop(reply.send(asking.await)) });
    }

    /// Hands on the ephemeral events whose turn it is. The answer comes when the broker has gone through them and all
    /// that it was told before: who waits for it is never ahead of the broker.
    pub(super) fn release(&mut self) -> ResponseFuture<()> {
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
}

impl Handler<Relay> for Front {
    type Result = ();

    fn handle(&mut self, relay: Relay, ctx: &mut Self::Context) {
        let (records, after) = match relay {
            Relay::Ephemeral { records, after } => (records, after),
            Relay::CloseSession { session, reason } => return self.pass_on(session, reason, ctx),
            Relay::Ask { channel, reply } => return self.ask(channel, reply),
        };
        let body = live::encode(&records);
        if body.len() + HEADERS > self.link.client.max_payload()
            || self.outbox.try_send(Passing { body, after }).is_err()
        {
            self.dropped += records.len();
        }
    }
}

impl Handler<HereIs> for Front {
    type Result = ();

    fn handle(&mut self, HereIs { node }: HereIs, _: &mut Self::Context) {
        // One that has just come does not know of this one.
        if self.peers.hear(node, Instant::now()) {
            self.say_here();
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
