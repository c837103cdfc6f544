//! What a thread was sent and has not handed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A count that a thread takes down by itself, so that the broker is not woken to be told of every commit that it was
/// through with. Nothing else is shared, and nobody waits for anybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

// The messages themselves carry the order; these are numbers only.
const ORDER: Ordering = Ordering::Relaxed;

impl Backlog {
    /// So much is on its way. Said before it is sent.
    pub(crate) fn send(&self, events: usize, bytes: usize) {
        self.0.events.fetch_add(events, ORDER);
        self.0.bytes.fetch_add(bytes, ORDER);
    }

    /// So much has been handed on.
    pub(crate) fn hand_on(&self, events: usize, bytes: usize) {
        self.0.events.fetch_sub(events, ORDER);
        self.0.bytes.fetch_sub(bytes, ORDER);
    }

    pub(crate) fn events(&self) -> usize {
        self.0.events.load(ORDER)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(ORDER)
    }
}
