//! The broker's settings, and what they must be to one another.

use std::time::Duration;

use crate::actors::{AdmissionLimits, BindingBounds, FeedBounds, IntakeBounds, WorkerSettings};
use crate::error::InvalidValue;
use crate::retention::Retention;

/// What a broker is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) intake: IntakeBounds,
    pub(crate) bindings: BindingBounds,
    pub(crate) ring_events: usize,
    pub(crate) ring_bytes: usize,
    pub(crate) retention: Retention,
    pub(crate) worker: WorkerSettings,
    /// How long going away takes.
    pub(crate) drain: Duration,
    pub(crate) admission: AdmissionLimits,
    /// How old a connection may become.
    pub(crate) max_age: Option<Duration>,
}

const MIN_HEARTBEAT: Duration = Duration::from_millis(100);
const MIN_AGE: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(365 * 24 * 3600);
const MAX_DRAIN: Duration = Duration::from_secs(3600);
const MAX_HEARTBEAT: Duration = Duration::from_secs(3600);

impl Default for Settings {
    fn default() -> Self {
        Self {
            intake: IntakeBounds { events: 65_536, bytes: 64 << 20 },
            bindings: BindingBounds { count: 10_000, idle: Duration::from_secs(24 * 3600) },
            ring_events: 8192,
            ring_bytes: 32 << 20,
            retention: Retention::default(),
            worker: WorkerSettings {
                feed: FeedBounds { events: 1024, bytes: 1 << 20 },
                heartbeat: Duration::from_secs(15),
                stall_timeout: Duration::from_secs(30),
            },
            drain: Duration::from_secs(10),
            admission: AdmissionLimits {
                connections: 100_000,
                per_session: 32,
                per_address: 0,
                connect_rate: 0,
                publish_rate: 0,
            },
            max_age: None,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), InvalidValue> {
        if !(MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&self.worker.heartbeat) {
            return Err(InvalidValue::new("heartbeat", "must be from 100 ms to 1 h"));
        }
        if self.worker.stall_timeout < self.worker.heartbeat {
            return Err(InvalidValue::new("stall_timeout", "must not be less than the heartbeat"));
        }
        if self.drain > MAX_DRAIN {
            return Err(InvalidValue::new("drain", "must be at most 1 h"));
        }
        if self.max_age.is_some_and(|age| !(MIN_AGE..=MAX_AGE).contains(&age)) {
            return Err(InvalidValue::new(
                "max_connection_age",
                "must be 0 for any, or from 1 s to 365 days",
            ));
        }
        if self.bindings.count == 0 || self.bindings.idle.is_zero() {
            return Err(InvalidValue::new(
                "bindings",
                "must have room for at least one, and a time to be kept",
            ));
        }
        let bounds = [
            ("intake", self.intake.events.min(self.intake.bytes)),
            ("ring", self.ring_events.min(self.ring_bytes)),
            ("feed", self.worker.feed.events.min(self.worker.feed.bytes)),
        ];
        for (field, least) in bounds {
            if least == 0 {
                return Err(InvalidValue::new(field, "must have room for at least one event"));
            }
        }
        Ok(())
    }
}
