//! Ephemeral events on their way to other nodes: beside the stream, and kept nowhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::WeakAddr;
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::batch::{self, Batch};
use super::front::{Front, Heard};
use super::link::Link;
use super::subject;
use crate::cursor::Seq;
use crate::record::{Draft, Record};

/// Messages that wait to be sent, and that wait for the stored events they come behind.
const WAITING: usize = 1024;
/// How long one waits for the stored events it comes behind.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may take to be handed to the connection.
const SEND: Duration = Duration::from_secs(1);

pub(super) const NODE: &str = "Fanfare-Node";
const AFTER: &str = "Fanfare-After";

/// Ephemeral events on their way out, and the position that they come behind.
pub(super) struct Passing {
    pub(super) body: Bytes,
    pub(super) after: Seq,
}

/// Sends what comes in until the other end is gone. Without a connection it is dropped.
pub(super) async fn send(link: Link, node: String, mut passing: mpsc::Receiver<Passing>) {
    let subject = subject::live(&link.plan.stream);
    while let Some(Passing { body, after }) = passing.recv().await {
        if !link.is_connected() {
            continue;
        }
        let mut headers = HeaderMap::new();
        headers.insert(NODE, node.as_str());
        headers.insert(AFTER, after.to_string().as_str());
        let sending = link.client.publish_with_headers(subject.clone(), headers, body);
        if !matches!(tokio::time::timeout(SEND, sending).await, Ok(Ok(()))) {
            tracing::warn!("ephemeral events did not reach the other nodes");
        }
    }
}

/// Whether a message is by this node.
pub(super) fn is_by(message: &async_nats::Message, node: &str) -> bool {
    header(message, NODE).is_some_and(|by| by.as_str() == node)
}

fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a async_nats::HeaderValue> {
    message.headers.as_ref().and_then(|headers| headers.get(name))
}

/// A way in for [`send`]. More than it takes is dropped.
pub(super) fn outbox() -> (mpsc::Sender<Passing>, mpsc::Receiver<Passing>) {
    mpsc::channel(WAITING)
}

pub(super) fn encode(records: &[Arc<Record>]) -> Bytes {
    let drafts: Vec<Draft> = records.iter().map(|record| record.draft.clone()).collect();
    batch::encode(&Batch::settled(drafts))
}

/// Hands on what other nodes send until the front is gone.
pub(super) async fn hear(mut heard: Subscriber, node: String, front: WeakAddr<Front>) {
    while let Some(message) = heard.next().await {
        if is_by(&message, &node) {
            continue;
        }
        let after = header(&message, AFTER).and_then(|after| after.as_str().parse().ok()).unwrap_or_default();
        let Some(Batch { drafts, .. }) = batch::decode(&message.payload) else { continue };
        let records = drafts.into_iter().map(|draft| Arc::new(Record::ephemeral(draft))).collect();
        let Some(front) = front.upgrade() else { return };
        if front.send(Heard { records, after }).await.is_err() {
            return;
        }
    }
}

/// Ephemeral events of other nodes, in the order they came, each behind the stored ones that came before it there.
#[derive(Default)]
pub(super) struct Behind(VecDeque<(Heard, Instant)>);

impl Behind {
    /// Takes some in; when there are too many, the oldest go. Returns how many went.
    pub(super) fn push(&mut self, heard: Heard, now: Instant) -> usize {
        self.0.push_back((heard, now));
        if self.0.len() <= WAITING {
            return 0;
        }
        self.0.pop_front().map_or(0, |(heard, _)| heard.records.len())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }

    /// What may go on now that the index has everything up to `head`.
    pub(super) fn release(&mut self, head: Seq, now: Instant) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        while let Some((heard, since)) = self.0.front()
            && (heard.after <= head || now.saturating_duration_since(*since) >= PATIENCE)
            && let Some((heard, _)) = self.0.pop_front()
        {
            records.extend(heard.records);
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::identity::Publisher;

    fn heard(after: Seq) -> Heard {
        let draft = Draft::new(Event::text("x", "").expect("valid"), [].into(), Publisher::HUB, after);
        Heard { records: vec![Arc::new(Record::ephemeral(draft))], after }
    }

    #[test]
    fn each_waits_for_what_it_comes_behind_but_not_for_long() {
        let (mut behind, now) = (Behind::default(), Instant::now());
        for after in [5, 9, 3] {
            behind.push(heard(after), now);
        }
        let mut release =
            |head, now| behind.release(head, now).iter().map(|record| record.draft.time).collect::<Vec<_>>();
        assert_eq!(release(4, now), [0; 0]);
        assert_eq!(release(5, now), [5]);
        assert_eq!(release(8, now + PATIENCE / 2), [0; 0], "nor does one overtake another");
        assert_eq!(release(8, now + PATIENCE), [9, 3]);
    }
}
