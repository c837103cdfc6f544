//! What the order says of bindings: which of its messages changed them, and whether a batch was written without knowing of
//! one that stands before it.
//!
//! Who publishes completes its events by the bindings that it knows, and says up to where it knows them. A message that
//! comes behind a change it should have known is void: every node passes it over, since all see the same messages in the
//! same order, and who wrote it completes its events anew and publishes them again.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;

use super::batch;
use super::failure::Failure;
use super::link::Link;
use super::subject;
use crate::actors::log::Rebinding;
use crate::actors::log::index::Drafts;
use crate::event::Attributes;

/// As many changes as are remembered. Who is further behind publishes again.
const REMEMBERED: usize = 20_000;

/// The changes by their messages' sequence.
#[derive(Debug, Default)]
pub(super) struct Changes {
    whens: BTreeMap<u64, Attributes>,
    /// The newest that was forgotten.
    forgotten: u64,
}

impl Changes {
    pub(super) fn note(&mut self, sequence: u64, change: &Rebinding) {
        self.whens.insert(sequence, change.when().clone());
        while self.whens.len() > REMEMBERED {
            if let Some((sequence, _)) = self.whens.pop_first() {
                self.forgotten = sequence;
            }
        }
    }

    /// Whether events that stand in message `sequence` were completed without a change before it that concerns them. They
    /// are read only if there is one that could.
    pub(super) fn concern(&self, drafts: &mut Drafts, known: u64, sequence: u64) -> bool {
        if drafts.count() == 0 || known >= sequence {
            return false;
        }
        let mut missed = self.whens.range(known + 1..sequence).map(|(_, when)| when).peekable();
        if known >= self.forgotten && missed.peek().is_none() {
            return false;
        }
        let read = drafts.make_read();
        !read.is_empty()
            && (known < self.forgotten
                || missed.any(|when| read.iter().any(|draft| draft.attributes.contain(when))))
    }
}

/// The changes that the stream still has up to a message.
pub(super) async fn recall(link: &Link, until: u64) -> Result<Vec<(u64, Rebinding)>, Failure> {
    let stream = &link.plan.stream;
    let config = pull::Config {
        description: Some("bindings, for a node of fanfare that begins".into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        filter_subject: subject::changes(stream),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = link.context.create_consumer_on_stream(config, stream).await.map_err(Failure::broken)?;
    let (name, mut left) = (consumer.cached_info().name.clone(), consumer.cached_info().num_pending);
    let mut found = Vec::new();
    let reading = async {
        let mut messages = consumer.messages().await.map_err(Failure::broken)?;
        while left > 0 {
            let message = messages.next().await.ok_or_else(|| Failure::broken("it ended"))?;
            let message = message.map_err(Failure::broken)?;
            let info = message.info().map_err(Failure::broken)?;
            left = info.pending;
            if info.stream_sequence > until {
                break;
            }
            if let Some(batch) = batch::decode(&message.payload)
                && let Some(change) = batch.change
            {
                found.push((info.stream_sequence, change));
            }
        }
        Ok(())
    };
    let read = reading.await;
    // It goes by itself too, after some seconds.
    let _ = link.context.delete_consumer_from_stream(&name, stream).await;
    read.map(|()| found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::identity::Publisher;
    use crate::record::Draft;

    fn concern(changes: &Changes, drafts: &[Draft], known: u64, sequence: u64) -> bool {
        changes.concern(&mut Drafts::Read(drafts.to_vec()), known, sequence)
    }

    fn attributes(key: &str, value: &str) -> Attributes {
        Event::text("x", "").and_then(|event| event.attribute(key, value)).expect("valid").attributes
    }

    fn draft(key: &str, value: &str) -> Draft {
        let event = Event::text("x", "").and_then(|event| event.attribute(key, value)).expect("valid");
        Draft::new(event, [].into(), Publisher::HUB, 0)
    }

    #[test]
    fn who_did_not_know_of_a_change_before_is_void_if_it_is_concerned() {
        let mut changes = Changes::default();
        changes.note(5, &Rebinding::Unbind(attributes("alias", "a")));
        let concerned = [draft("alias", "b"), draft("alias", "a")];
        assert!(concern(&changes, &concerned, 4, 6));
        assert!(!concern(&changes, &concerned, 5, 6), "it was known");
        assert!(!concern(&changes, &concerned, 4, 5), "nor does it concern what stands before it");
        assert!(!concern(&changes, &concerned[..1], 0, 9), "another alias");
        assert!(!concern(&changes, &[], 0, 9));
        assert!(!concern(&changes, &concerned, u64::MAX, 9));
    }

    #[test]
    fn changes_are_forgotten_and_who_may_have_missed_one_is_void() {
        let mut changes = Changes::default();
        for sequence in 1..=REMEMBERED as u64 + 3 {
            changes.note(sequence, &Rebinding::Unbind(attributes("alias", "a")));
        }
        assert_eq!((changes.whens.len(), changes.forgotten), (REMEMBERED, 3));
        let other = [draft("alias", "b")];
        assert!(concern(&changes, &other, 2, u64::MAX) && !concern(&changes, &other, 3, u64::MAX));
    }
}
