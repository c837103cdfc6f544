//! The last word to a client: why its stream ends, and when it may come back.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::error::CloseReason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Farewell {
    pub(crate) reason: CloseReason,
    /// For how long there is nobody to come back to, from when that was known.
    away: Duration,
    since: Instant,
}

impl Farewell {
    /// This server goes away and is back after that time.
    pub(crate) fn draining(away: Duration) -> Self {
        Self { reason: CloseReason::Draining, away, since: Instant::now() }
    }

    /// When to come back, from now on, spread so that those who left together do not return together.
    pub(crate) fn retry_in(self) -> Duration {
        match self.reason {
            CloseReason::Draining => {
                self.away.saturating_sub(self.since.elapsed()).saturating_add(spread(1_000, 7_000))
            }
            CloseReason::Unavailable | CloseReason::Limit => spread(5_000, 30_000),
            CloseReason::Slow | CloseReason::ExpiredToken | CloseReason::Revoked | CloseReason::TooOld => {
                spread(2_000, 5_000)
            }
        }
    }
}

impl From<CloseReason> for Farewell {
    fn from(reason: CloseReason) -> Self {
        Self { reason, away: Duration::ZERO, since: Instant::now() }
    }
}

/// A random time from and to so many milliseconds.
pub(crate) fn spread(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(from_ms..=to_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn whoever_is_told_later_waits_for_less() {
        let away = 20 * SECOND;
        for told_after in [0, 12, 20, 30] {
            let told_after = told_after * SECOND;
            let Some(since) = Instant::now().checked_sub(told_after) else { continue };
            let retry_in = Farewell { since, ..Farewell::draining(away) }.retry_in();
            let back = told_after + retry_in;
            assert!(back > away.max(told_after), "before there is anybody: {back:?}");
            assert!(back <= away.max(told_after) + 7 * SECOND, "too long: {back:?}");
        }
        assert!(Farewell::draining(Duration::MAX).retry_in() > Duration::MAX / 2);
    }
}
