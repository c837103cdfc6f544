//! Which strand of a client brings an event, when more than one could: the client gets it once. Pure.

use crate::channel::{Channel, Reach, Selector};
use crate::cursor::Seq;
use crate::identity::SessionId;
use crate::interest::Subscription;
use crate::record::Record;

/// What the base strand brings: everything after some position, of each thing that it follows.
#[derive(Debug)]
pub(super) struct Ledger {
    session: SessionId,
    /// What is sent to the session and to everyone it brings from here on.
    inbox_since: Seq,
    /// One for each selector and filter, so that it cannot grow beyond what the client may follow.
    followed: Vec<(Subscription, Seq)>,
}

impl Ledger {
    pub(super) fn new(session: SessionId) -> Self {
        Self { session, inbox_since: 0, followed: Vec::new() }
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// The client's base begins, and brings this and the inbox from here on.
    pub(super) fn begin(&mut self, subscription: &Subscription, position: Seq) {
        self.inbox_since = position;
        self.followed.clear();
        self.add(subscription, position);
    }

    /// Has the inbox brought from `since` on by somebody else, up to where the base brings it.
    pub(super) fn hand_inbox_over(&mut self, since: Seq) -> Seq {
        let until = self.inbox_since;
        self.inbox_since = until.min(since);
        until
    }

    /// The base follows this as well; all after `since` is or was brought.
    pub(super) fn add(&mut self, subscription: &Subscription, since: Seq) {
        for one in subscription.each() {
            match self.followed.iter_mut().find(|(known, _)| *known == one) {
                Some((_, known)) => *known = since.min(*known),
                None => self.followed.push((one, since)),
            }
        }
    }

    /// The base follows these no more.
    pub(super) fn remove(&mut self, selectors: &[Selector]) {
        self.followed.retain(|(one, _)| one.selectors().all(|selector| !selectors.contains(selector)));
    }

    /// Whether an event at `seq` is for another strand to bring, which follows `subscription` and brings the inbox up to
    /// `inbox_until`.
    pub(super) fn is_left_to(
        &self,
        record: &Record,
        seq: Seq,
        subscription: &Subscription,
        inbox_until: Seq,
    ) -> bool {
        let event = &record.draft;
        let is_brought = |channel: &Channel| match channel.reach() {
            Reach::Session(session) if session != self.session => false,
            // What is handed over is not the base's any more, up to there.
            Reach::Session(_) | Reach::Everyone => seq > self.inbox_since.max(inbox_until),
            Reach::Followers => {
                let mut followed = self.followed.iter().filter(|(_, since)| seq > *since);
                followed.any(|(one, _)| one.admits(channel, &event.attributes))
            }
        };
        let is_wanted = |channel: &Channel| match channel.reach() {
            Reach::Session(session) if session != self.session => false,
            Reach::Session(_) | Reach::Everyone => seq <= inbox_until,
            Reach::Followers => subscription.admits(channel, &event.attributes),
        };
        event.channels.iter().any(is_wanted) && !event.channels.iter().any(is_brought)
    }
}
