//! Clients whose streams have ended and that have not taken the end: how long they may take is bounded, since nobody
//! counts them any more.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::line::Line;
use super::sink::Sink;

/// Those of one thread.
#[derive(Debug, Default)]
pub(crate) struct Lingering(Vec<Guest>);

#[derive(Debug)]
struct Guest {
    since: Instant,
    line: Line,
    /// Gone with the writer.
    sink: Weak<Sink>,
}

impl Lingering {
    /// A client's stream has ended; its connection is there as long as its writer is, or beyond.
    pub(crate) fn enter(&mut self, sink: &Rc<Sink>, now: Instant) {
        if let Some(line) = sink.line() {
            self.0.push(Guest { since: now, line, sink: Rc::downgrade(sink) });
        }
    }

    /// Cuts off those that have taken too long, and forgets those that need no bound any more.
    pub(crate) fn see_off(&mut self, now: Instant, patience: Duration) {
        self.0.retain_mut(|guest| {
            if guest.sink.strong_count() == 0 {
                // Even a weak reference holds the memory of what it refers to.
                guest.sink = Weak::new();
                if guest.line.is_kept() {
                    return false;
                }
            }
            let is_due = now.saturating_duration_since(guest.since) >= patience;
            if is_due {
                guest.line.cut();
            }
            !is_due
        });
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }
}
