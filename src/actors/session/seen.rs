//! What can be seen of a session from outside: counts, and how its client is.

use actix::prelude::*;

use super::Session;
use super::message::{DescribeSelf, Refusal};
use super::strand::CatchUp;
use crate::actors::tally::{BY_CLIENT, REFUSED};
use crate::actors::view::{ClientState, ClientView};
use crate::cursor::Seq;
use crate::error::CloseReason;
use crate::interest::Subscription;

/// Why a stream has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    /// The client has left, as long as nothing else is known.
    ByClient,
    /// There was none.
    Refused,
    Closed(CloseReason),
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::ByClient => BY_CLIENT,
            Self::Refused => REFUSED,
            Self::Closed(reason) => reason.as_str(),
        }
    }
}

impl Session {
    /// How the client is, if the log stands at `head`.
    pub(super) fn describe(&self, head: Seq) -> ClientView {
        let is_live = self.is_all_live();
        let queued = self.sink.queued();
        // A live client has had everything of its channels up to the head but for what waits.
        let is_level = matches!(self.base.catch_up, CatchUp::Live) && self.sink.is_live() && queued == 0;
        let base = if is_level { self.base_position().max(head) } else { self.base_position() };
        let timeline = self.timeline.as_ref().filter(|_| self.is_welcomed);
        let added = self.beside.as_ref().and_then(|beside| beside.lowest()).unwrap_or(base);
        let beside = self.beside.iter().flat_map(|beside| beside.subscriptions());
        let followed = beside.fold(self.base.interest.subscription.clone(), Subscription::or);
        ClientView {
            client: self.pass.client,
            session: self.base.interest.session,
            transport: self.encoding.transport(),
            channels: followed,
            connected_at: self.pass.client.minted_at(),
            state: if is_live { ClientState::Live } else { ClientState::CatchingUp },
            cursor: timeline.map(|timeline| self.cursor(timeline, base)),
            queued,
            lag: head.saturating_sub(base.min(added)),
            closed: None,
        }
    }

    /// Whether the client is live with all that it follows.
    fn is_all_live(&self) -> bool {
        let is_beside_idle = self.beside.as_ref().is_none_or(|beside| beside.is_idle());
        self.base.is_live() && self.sink.is_live() && is_beside_idle
    }

    /// Counts the client among those that are behind, or no longer.
    pub(super) fn note_lag(&mut self) {
        let is_lagging = !self.is_closing && !self.is_all_live();
        if std::mem::replace(&mut self.is_counted_lagging, is_lagging) == is_lagging {
            return;
        }
        let mut floor = self.worker.floor.borrow_mut();
        floor.lagging = if is_lagging { floor.lagging + 1 } else { floor.lagging.saturating_sub(1) };
    }

    /// Counts events that the client is given from the past.
    pub(super) fn count_replayed(&self, events: u64) {
        if events > 0 {
            self.worker.floor.borrow().tally.borrow_mut().replay(self.encoding.transport(), events);
            tracing::debug!(client = %self.pass.client, events, "replayed");
        }
    }

    /// Counts that the client is told of something missing.
    pub(super) fn count_gap(&self, reason: &'static str) {
        self.worker.floor.borrow().tally.borrow_mut().gaps.add(reason, 1);
        tracing::debug!(client = %self.pass.client, reason, "events are missing");
    }

    /// Counts ephemeral events that the client has missed.
    pub(super) fn count_lost(&self, events: u64) {
        self.worker.floor.borrow().tally.borrow_mut().lost += events;
    }

    /// Counts the end, and says the last of the client.
    pub(super) fn count_end(&mut self) -> Box<ClientView> {
        self.count_lost(self.sink.take_lost());
        let last = self.describe(0).closed(self.ended.as_str());
        tracing::debug!(client = %self.pass.client, reason = self.ended.as_str(), "stream ends");
        self.is_closing = true;
        self.note_lag();
        self.worker.floor.borrow().tally.borrow_mut().closed.add(self.ended.as_str(), 1);
        Box::new(last)
    }
}

impl Refusal {
    /// Why the stream has ended before it began.
    pub(super) fn reason(&self) -> Ended {
        match self {
            Self::Closed { reason, .. } => Ended::Closed(*reason),
            Self::Reset(_) | Self::Gap { .. } => Ended::Refused,
        }
    }
}

impl Handler<DescribeSelf> for Session {
    type Result = ();

    fn handle(&mut self, DescribeSelf { head, tell }: DescribeSelf, _: &mut Self::Context) {
        // Whoever asked may have left.
        let _ = tell.send(self.describe(head));
    }
}
