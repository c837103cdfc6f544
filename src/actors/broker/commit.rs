//! What is under way to the log, and what comes of it.

use std::time::Instant;

use actix::prelude::*;

use super::Broker;
use super::survey::dropped;
use crate::actors::intake::NextCommit;
use crate::actors::log::{BoundCommit, Commit, CommitFailed, Committed, Settlement};
use crate::error::{LogError, PublishError};

/// How often a batch is published whose bindings change meanwhile: each time somebody else has got on.
const ATTEMPTS: usize = 100;

impl Broker {
    pub(super) fn commit_next(&mut self) {
        if let Some(next) = self.intake.next_commit() {
            self.measures.commit_began = Some(Instant::now());
            self.commit(next);
        }
    }

    /// Sends a batch to the log. Where the order settles bindings, its events are completed now, and not before.
    fn commit(&mut self, next: NextCommit) {
        let NextCommit { ticket, mut drafts, change, attempts } = next;
        let Some(bound) = self.log.bound.clone() else {
            return self.log.commit.do_send(Commit { ticket, drafts });
        };
        if attempts > ATTEMPTS || !self.complete_drafts(&mut drafts, change.as_ref()) {
            let error = LogError::new("bindings changed while it was published; nothing was stored");
            return self.fail_commit(ticket, &error);
        }
        bound.do_send(BoundCommit { commit: Commit { ticket, drafts }, known: self.known, change });
    }

    fn fail_commit(&mut self, ticket: u64, error: &LogError) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(source, "a commit failed");
        self.measures.end_commit(Instant::now());
        for group in self.intake.finish(ticket).unwrap_or_default() {
            let error = PublishError::from(error.clone());
            self.measures.dropped.add(dropped::reason(&error), group.slots.len() as u64);
            group.reply.give(Err(error));
        }
        self.commit_next();
    }

    /// Publishes a batch again that was void where it stood.
    pub(super) fn commit_again(&mut self, ticket: u64) {
        if let Some(next) = self.intake.again(ticket) {
            self.commit(next);
        }
    }
}

impl Handler<Committed> for Broker {
    type Result = ();

    fn handle(&mut self, Committed { records, settles, trims }: Committed, _: &mut Self::Context) {
        let now = Instant::now();
        if settles.is_some() {
            self.measures.end_commit(now);
        }
        self.committed += records.len() as u64;
        let groups = settles.as_ref().and_then(|settlement| self.intake.settle(settlement));
        let outcomes = settles.map(|Settlement { outcomes, .. }| outcomes).unwrap_or_default();
        self.deliver_groups(groups.unwrap_or_default(), &outcomes, records, now);
        self.trim(trims);
        self.commit_next();
    }
}

impl Handler<CommitFailed> for Broker {
    type Result = ();

    fn handle(&mut self, CommitFailed { ticket, error }: CommitFailed, _: &mut Self::Context) {
        self.fail_commit(ticket, &error);
    }
}
