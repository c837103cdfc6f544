//! What was accepted and waits for its commit: a bounded queue, one batch under way at a time. Pure.
//!
//! A slow disk makes larger batches, not a longer queue.

use std::collections::VecDeque;
use std::sync::Arc;

use super::log::{COMMIT_EVENTS, Settlement};
use super::trace::Trace;
use crate::binding::Rebinding;
use crate::event::EventId;
use crate::record::{Draft, Record};

/// As many bytes as one commit carries if the log does not mind, unless a single group has more.
const COMMIT_BYTES: usize = 4 << 20;

/// How much waits at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntakeBounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// Events that are published together, and whom to tell.
#[derive(Debug)]
pub(crate) struct Group<R> {
    /// In the order they were published.
    pub(crate) slots: Vec<Slot>,
    pub(crate) reply: R,
    /// The publish that they came with.
    pub(crate) trace: Trace,
    /// The part of it until the commit.
    pub(crate) commit: Trace,
    /// What it changes of the bindings, if that is for the log to settle.
    pub(crate) change: Option<Rebinding>,
    /// What it takes, of the queue and of a commit.
    pub(crate) bytes: usize,
    drafts: Vec<Draft>,
}

/// One event of a group.
#[derive(Debug)]
pub(crate) enum Slot {
    /// In the log's hands.
    Stored(EventId),
    /// Kept here, to go out in its place among the others.
    Ephemeral(Arc<Record>),
}

impl<R> Group<R> {
    pub(crate) fn new(reply: R) -> Self {
        Self {
            slots: Vec::new(),
            reply,
            trace: Trace::default(),
            commit: Trace::default(),
            change: None,
            drafts: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, draft: Draft, ephemeral: bool) {
        self.bytes += draft.weight();
        if ephemeral {
            self.slots.push(Slot::Ephemeral(Arc::new(Record::ephemeral(draft))));
        } else {
            self.slots.push(Slot::Stored(draft.id.clone()));
            self.drafts.push(draft);
        }
    }

    /// Whether nothing of it is for the log.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.drafts.is_empty() && self.change.is_none()
    }

    /// What it counts for: its events, and what it changes.
    fn count(&self) -> usize {
        self.slots.len() + usize::from(self.change.is_some())
    }
}

#[derive(Debug)]
pub(crate) struct Intake<R> {
    bounds: IntakeBounds,
    commit_bytes: usize,
    waiting: VecDeque<Group<R>>,
    under_way: Option<UnderWay<R>>,
    /// Whether the log may have it begun again.
    keeps: bool,
    last_ticket: u64,
    events: usize,
    bytes: usize,
}

/// The batch under way.
#[derive(Debug)]
struct UnderWay<R> {
    ticket: u64,
    groups: Vec<Group<R>>,
    /// How often it has been begun.
    attempts: usize,
}

/// A batch for the log.
#[derive(Debug)]
pub(crate) struct NextCommit {
    pub(crate) ticket: u64,
    pub(crate) drafts: Vec<Draft>,
    /// Of its only group.
    pub(crate) change: Option<Rebinding>,
    pub(crate) attempts: usize,
}

impl<R> Intake<R> {
    /// `keeps` says whether events are kept as they came until their commit is over, so that it can be begun again.
    pub(crate) fn new(bounds: IntakeBounds, commit_bytes: Option<usize>, keeps: bool) -> Self {
        Self {
            bounds,
            commit_bytes: commit_bytes.unwrap_or(COMMIT_BYTES),
            waiting: VecDeque::new(),
            under_way: None,
            keeps,
            last_ticket: 0,
            events: 0,
            bytes: 0,
        }
    }

    /// The number of events that wait for their commit.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// Takes a group, or gives it back when the queue is full. An empty queue takes a group of any size.
    pub(crate) fn offer(&mut self, group: Group<R>) -> Result<(), Box<Group<R>>> {
        let events = self.events + group.count();
        let bytes = self.bytes + group.bytes;
        if self.events > 0 && (events > self.bounds.events || bytes > self.bounds.bytes) {
            return Err(Box::new(group));
        }
        (self.events, self.bytes) = (events, bytes);
        self.waiting.push_back(group);
        Ok(())
    }

    /// The next batch for the log, unless one is under way: whole groups, as many as fit. One that changes bindings leaves
    /// alone, so that there is no question which events come behind it.
    pub(crate) fn next_commit(&mut self) -> Option<NextCommit> {
        if self.under_way.is_some() {
            return None;
        }
        let (mut drafts, mut groups, mut bytes) = (Vec::new(), Vec::<Group<R>>::new(), 0);
        while let Some(group) = self.waiting.front() {
            let fits = drafts.len() + group.drafts.len() <= COMMIT_EVENTS
                && bytes + group.bytes <= self.commit_bytes
                && group.change.is_none()
                && groups.last().is_none_or(|last| last.change.is_none());
            if !groups.is_empty() && !fits {
                break;
            }
            let Some(mut group) = self.waiting.pop_front() else { break };
            bytes += group.bytes;
            if self.keeps {
                drafts.extend_from_slice(&group.drafts);
            } else {
                drafts.append(&mut group.drafts);
            }
            groups.push(group);
        }
        if groups.is_empty() {
            return None;
        }
        self.last_ticket += 1;
        let (ticket, change) = (self.last_ticket, groups.first().and_then(|group| group.change.clone()));
        self.under_way = Some(UnderWay { ticket, groups, attempts: 1 });
        Some(NextCommit { ticket, drafts, change, attempts: 1 })
    }

    /// The batch under way once more, under a ticket of its own. Nothing if `ticket` is not its ticket.
    pub(crate) fn again(&mut self, ticket: u64) -> Option<NextCommit> {
        let under_way = self.under_way.as_mut().filter(|under_way| under_way.ticket == ticket)?;
        self.last_ticket += 1;
        under_way.ticket = self.last_ticket;
        under_way.attempts += 1;
        let groups = &under_way.groups;
        Some(NextCommit {
            ticket: under_way.ticket,
            drafts: groups.iter().flat_map(|group| group.drafts.iter().cloned()).collect(),
            change: groups.first().and_then(|group| group.change.clone()),
            attempts: under_way.attempts,
        })
    }

    /// The groups of the batch under way, which is over. Nothing if `ticket` is not its ticket.
    pub(crate) fn finish(&mut self, ticket: u64) -> Option<Vec<Group<R>>> {
        let UnderWay { groups, .. } = self.under_way.take_if(|under_way| under_way.ticket == ticket)?;
        for group in &groups {
            self.events -= group.count();
            self.bytes -= group.bytes;
        }
        Some(groups)
    }

    /// As [`Intake::finish`], if the settlement has an outcome for every stored event.
    pub(crate) fn settle(&mut self, settlement: &Settlement) -> Option<Vec<Group<R>>> {
        let groups = self.finish(settlement.ticket)?;
        let stored =
            |group: &Group<R>| group.slots.iter().filter(|slot| matches!(slot, Slot::Stored(_))).count();
        let expected: usize = groups.iter().map(stored).sum();
        if expected != settlement.outcomes.len() {
            tracing::error!(
                expected,
                got = settlement.outcomes.len(),
                "the log settled another number of events"
            );
        }
        Some(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;
    use crate::event::Event;
    use crate::identity::Publisher;

    fn group(reply: u32, events: usize) -> Group<u32> {
        let mut group = Group::new(reply);
        for _ in 0..events {
            let event = Event::text("x", "y").expect("valid");
            group.push(
                Draft::new(event, [Channel::new("a").expect("valid")].into(), Publisher::HUB, 0),
                false,
            );
        }
        group
    }

    fn intake(events: usize) -> Intake<u32> {
        Intake::new(IntakeBounds { events, bytes: usize::MAX }, None, true)
    }

    #[test]
    fn what_comes_while_a_batch_is_under_way_leaves_together() {
        let mut intake = intake(100);
        assert!(intake.offer(group(1, 1)).is_ok());
        let NextCommit { ticket: first, drafts, .. } = intake.next_commit().expect("a batch");
        assert_eq!(drafts.len(), 1);
        for reply in 2..5 {
            assert!(intake.offer(group(reply, 2)).is_ok());
        }
        assert!(intake.next_commit().is_none());
        assert_eq!(intake.finish(first).map(|groups| groups.len()), Some(1));
        assert_eq!(intake.next_commit().map(|next| next.drafts.len()), Some(6));
        assert!(intake.finish(first).is_none());
    }

    #[test]
    fn a_full_queue_gives_the_group_back() {
        let mut intake = intake(3);
        assert!(intake.offer(group(1, 2)).is_ok());
        assert_eq!(intake.offer(group(2, 2)).map_err(|group| group.reply), Err(2));
        assert!(intake.offer(group(3, 1)).is_ok());
        let ticket = intake.next_commit().expect("a batch").ticket;
        assert!(intake.offer(group(4, 1)).is_err(), "what is under way counts");
        intake.finish(ticket);
        assert_eq!(intake.events(), 0);
        assert!(intake.offer(group(5, 50)).is_ok(), "an empty queue takes any group");
    }

    #[test]
    fn what_changes_bindings_leaves_alone_and_counts() {
        let mut intake = intake(100);
        let change = || {
            let mut change = group(9, 0);
            change.change = Some(Rebinding::Unbind(crate::Attributes::default()));
            change
        };
        for next in [group(1, 2), change(), change(), group(2, 1), group(3, 1)] {
            assert!(!next.is_ephemeral() && intake.offer(next).is_ok());
        }
        assert_eq!(intake.events(), 6);
        let mut sizes = Vec::new();
        while let Some(next) = intake.next_commit() {
            sizes.push((next.drafts.len(), next.change.is_some()));
            intake.finish(next.ticket);
        }
        assert_eq!(sizes, [(2, false), (0, true), (0, true), (2, false)]);
        assert_eq!(intake.events(), 0);
    }

    #[test]
    fn a_batch_is_begun_again_as_it_came() {
        let mut intake = intake(100);
        assert!(intake.offer(group(1, 2)).is_ok());
        let first = intake.next_commit().expect("a batch");
        let again = intake.again(first.ticket).expect("the same");
        assert!(intake.again(first.ticket).is_none() && again.ticket != first.ticket);
        let ids = |drafts: &[Draft]| drafts.iter().map(|draft| draft.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&again.drafts), again.attempts), (ids(&first.drafts), 2));
        assert!(intake.finish(first.ticket).is_none());
        assert_eq!(intake.finish(again.ticket).map(|groups| groups.len()), Some(1));
    }

    #[test]
    fn a_group_is_never_split() {
        let mut intake = intake(100_000);
        for _ in 0..3 {
            assert!(intake.offer(group(0, COMMIT_EVENTS - 1)).is_ok());
        }
        for _ in 0..3 {
            let NextCommit { ticket, drafts, .. } = intake.next_commit().expect("a batch");
            assert_eq!(drafts.len(), COMMIT_EVENTS - 1);
            intake.finish(ticket);
        }
    }
}
