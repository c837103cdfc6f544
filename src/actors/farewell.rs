//! The last word to a client: why its stream ends, and when it may come back.

use std::time::Duration;

use rand::RngExt;

use crate::error::CloseReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Farewell {
    pub(crate) reason: CloseReason,
    /// For how long there is nobody to come back to.
    away: Duration,
}

impl Farewell {
    /// This server goes away and is back after that time.
    pub(crate) fn draining(away: Duration) -> Self {
        Self { reason: CloseReason::Draining, away }
    }

    /// When to come back, spread so that those who left together do not return together.
    pub(crate) fn retry_in(self) -> Duration {
        match self.reason {
            CloseReason::Draining => self.away.saturating_add(spread(1_000, 5_000)),
            CloseReason::Unavailable | CloseReason::Limit => spread(5_000, 30_000),
            CloseReason::Slow | CloseReason::ExpiredToken | CloseReason::Revoked | CloseReason::TooOld => {
                spread(2_000, 5_000)
            }
        }
    }
}

impl From<CloseReason> for Farewell {
    fn from(reason: CloseReason) -> Self {
        Self { reason, away: Duration::ZERO }
    }
}

/// A random time from and to so many milliseconds.
pub(crate) fn spread(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(from_ms..=to_ms))
}
