//! What is counted where events are delivered: plain numbers of one thread, collected by the broker when it is asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::counts::{ByReason, ByTransport, Histogram, Transport};

/// The stream was ended by the client.
pub(crate) const BY_CLIENT: &str = "client";
/// It was to be resumed without loss or not at all.
pub(crate) const REFUSED: &str = "refused";
/// What the log had removed was to be replayed.
pub(crate) const EXPIRED: &str = "expired";

/// Why streams end.
const CLOSED: [&str; 9] =
    ["draining", "slow", "unavailable", "limit", "expired_token", "revoked", "too_old", BY_CLIENT, REFUSED];
/// Why clients are told that events may be missing.
const GAPS: [&str; 5] = [EXPIRED, "other_log", "lost_term", "ahead", "malformed"];

/// The counts of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: ByTransport,
    pub(crate) replayed: u64,
    /// Ephemeral events that slow clients were told to have missed.
    pub(crate) lost: u64,
    pub(crate) closed: ByReason,
    pub(crate) gaps: ByReason,
    pub(crate) fanout: Histogram,
    pub(crate) delivery: Histogram,
}

impl Tally {
    /// With every reason that there may be.
    pub(crate) fn with_reasons() -> Self {
        Self { closed: ByReason::of(CLOSED), gaps: ByReason::of(GAPS), ..Self::default() }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.delivered.merge(&other.delivered);
        self.replayed += other.replayed;
        self.lost += other.lost;
        self.closed.merge(&other.closed);
        self.gaps.merge(&other.gaps);
        self.fanout.merge(&other.fanout);
        self.delivery.merge(&other.delivery);
    }

    /// So many events were handed over together; the newest of them was committed then.
    pub(crate) fn hand_over(&mut self, transport: Transport, events: u64, committed: Instant) {
        self.delivered.add(transport, events);
        self.delivery.observe(committed.elapsed(), 1);
    }

    /// So many events of the past were given to a client.
    pub(crate) fn replay(&mut self, transport: Transport, events: u64) {
        self.delivered.add(transport, events);
        self.replayed += events;
    }

    /// These events are where their clients read them.
    pub(crate) fn fan_out(&mut self, took: Duration) {
        self.fanout.observe(took, 1);
    }
}

/// The counts of a thread, shared by those who count on it.
pub(crate) type SharedTally = Rc<RefCell<Tally>>;
