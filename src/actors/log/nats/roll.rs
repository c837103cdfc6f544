//! Who is on the other nodes. Each node says every second that it is there, and answers for its own clients when it is
//! asked: nobody counts for another, so a node that is gone takes its clients out of the count by being gone.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use actix::{WeakAddr, WeakRecipient};
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::front::{Front, HereIs};
use super::link::Link;
use super::live::{NODE, is_by};
use super::subject;
use crate::actors::log::{Relayed, Roll};
use crate::channel::Channel;

/// How often a node says that it is there.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(1);
/// A node that was not heard for so long is not waited for.
const SILENT: Duration = Duration::from_secs(3);
/// How long the nodes have to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// As many sessions as an answer names, so that it fits a message.
const NAMED: usize = 20_000;

/// The other nodes, by when they were heard last.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<String, Instant>);

impl Peers {
    /// Notes that a node is there. True if it was not known.
    pub(super) fn hear(&mut self, node: String, now: Instant) -> bool {
        self.0.retain(|_, heard| now.saturating_duration_since(*heard) < SILENT);
        self.0.insert(node, now).is_none()
    }

    /// How many are there.
    pub(super) fn count(&self, now: Instant) -> usize {
        self.0.values().filter(|heard| now.saturating_duration_since(**heard) < SILENT).count()
    }
}

fn headers(node: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NODE, node);
    headers
}

/// Says that this node is there, if anybody can hear it.
pub(super) async fn say(link: Link, node: String) {
    let saying = link.client.publish_with_headers(
        subject::here(&link.plan.stream),
        headers(&node),
        node.clone().into_bytes().into(),
    );
    if link.is_connected() {
        // The next will tell.
        let _ = tokio::time::timeout(PATIENCE, saying).await;
    }
}

/// Hands on who is there until the front is gone.
pub(super) async fn hear(mut heard: Subscriber, node: String, front: WeakAddr<Front>) {
    while let Some(message) = heard.next().await {
        let name = std::str::from_utf8(&message.payload).unwrap_or_default();
        // A name is short; whatever else is published there is none.
        if is_by(&message, &node) || name.is_empty() || name.len() > 64 {
            continue;
        }
        let Some(front) = front.upgrade() else { return };
        front.do_send(HereIs { node: name.to_owned() });
    }
}

/// Answers for the clients of this node until the broker is gone.
pub(super) async fn answer(mut asked: Subscriber, link: Link, node: String, broker: WeakRecipient<Relayed>) {
    while let Some(message) = asked.next().await {
        let Some(to) = message.reply.clone().filter(|_| !is_by(&message, &node)) else { continue };
        let channel = std::str::from_utf8(&message.payload).ok();
        let Some(channel) = channel.and_then(|channel| Channel::new(channel).ok()) else { continue };
        let Some(broker) = broker.upgrade() else { return };
        let (reply, answer) = oneshot::channel();
        broker.do_send(Relayed::Asked { channel, reply });
        let Ok(roll) = answer.await else { return };
        let sending = link.client.publish_with_headers(to, headers(&node), encode(&roll));
        let _ = tokio::time::timeout(PATIENCE, sending).await;
    }
}

/// Asks the other nodes, of which there are so many. Who does not answer in time has nobody.
pub(super) async fn ask(link: Link, node: String, channel: Channel, peers: usize) -> Vec<Roll> {
    let mut rolls = Vec::new();
    let asking = async {
        let inbox = link.client.new_inbox();
        let Ok(mut answers) = link.client.subscribe(inbox.clone()).await else { return };
        let subject = subject::who(&link.plan.stream);
        let question = Bytes::copy_from_slice(channel.as_str().as_bytes());
        let sent = link.client.publish_with_reply_and_headers(subject, inbox, headers(&node), question).await;
        if sent.is_err() {
            return;
        }
        while rolls.len() < peers
            && let Some(answer) = answers.next().await
        {
            // Without a node there is nobody to answer, and the server says so.
            let Some(roll) = decode(&answer.payload) else { break };
            rolls.push(roll);
        }
    };
    let _ = tokio::time::timeout(PATIENCE, asking).await;
    rolls
}

/// A line of figures, and a line for each session.
fn encode(roll: &Roll) -> Bytes {
    let mut text = format!("{} {}\n", roll.clients, roll.sessions);
    for (session, clients) in roll.named.iter().take(NAMED) {
        let _ = writeln!(text, "{session} {clients}");
    }
    text.into()
}

fn decode(bytes: &[u8]) -> Option<Roll> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines().map(|line| line.split_once(' '));
    let (clients, sessions) = lines.next()??;
    let (clients, sessions) = (clients.parse().ok()?, sessions.parse().ok()?);
    let named = lines.map(|line| {
        let (session, clients) = line?;
        Some((session.parse().ok()?, clients.parse().ok()?))
    });
    Some(Roll { clients, sessions, named: named.collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SessionId;

    #[test]
    fn a_roll_reads_back_and_nothing_else_does() {
        let named = [(SessionId::derived_from(b"a"), 2), (SessionId::derived_from(b"b"), 1)].into();
        let roll = Roll { clients: 3, sessions: 2, named };
        assert_eq!(decode(&encode(&roll)), Some(roll));
        for bad in ["", "3", "x 2\n", "3 2\nnobody 1\n", "3 2\n01ARZ3NDEKTSV4RRFFQ69G5FAV\n"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_large_roll_fits_a_message() {
        let named = (0..30_000_u32).map(|n| (SessionId::derived_from(&n.to_be_bytes()), 32));
        let roll = Roll { clients: 960_000, sessions: 30_000, named: named.collect() };
        let bytes = encode(&roll);
        assert!(bytes.len() < 1 << 20);
        let read = decode(&bytes).expect("a roll");
        assert_eq!((read.clients, read.sessions, read.named.len()), (960_000, 30_000, NAMED));
    }

    #[test]
    fn a_node_that_is_silent_is_not_waited_for() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        assert!(peers.hear("one".into(), now) && !peers.hear("one".into(), now));
        assert!(peers.hear("two".into(), now + SILENT / 2));
        assert_eq!(peers.count(now + SILENT / 2), 2);
        assert_eq!(peers.count(now + SILENT), 1);
        assert!(peers.hear("one".into(), now + SILENT), "it is new again");
    }
}
