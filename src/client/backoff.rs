//! How long to wait before the next attempt. Pure.

use std::time::Duration;

/// The longest time that a server may ask for: a wrong number there must not silence a client for good.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The bounds of the time between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` attempts in a row that delivered nothing. `random` is in 0 to 1.
    ///
    /// Half of it is random, so that clients that were cut together do not come back together. What the server asked
    /// for is a floor, with a little on top for the same reason: `Retry-After` is the same for all.
    pub(super) fn delay(self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        let random = random.clamp(0.0, 1.0);
        let doubled = 1_u32.checked_shl(failures).and_then(|factor| self.first.checked_mul(factor));
        let ceiling = doubled.map_or(self.max, |doubled| doubled.min(self.max));
        let own = ceiling.mul_f64(0.5 + random / 2.0);
        let floor = asked.map(|asked| asked.min(LONGEST_ASKED).mul_f64(1.0 + random / 10.0));
        floor.map_or(own, |floor| floor.max(own))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30) };

    #[test]
    fn it_doubles_up_to_its_limit() {
        let delays: Vec<_> = (0..8).map(|failures| BACKOFF.delay(failures, None, 1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
        for failures in [31, 32, 64, u32::MAX] {
            assert_eq!(BACKOFF.delay(failures, None, 1.0), BACKOFF.max);
        }
    }

    #[test]
    fn half_of_it_is_random() {
        assert_eq!(BACKOFF.delay(3, None, 0.0), Duration::from_secs(4));
        assert_eq!(BACKOFF.delay(3, None, 0.5), Duration::from_secs(6));
        assert_eq!(BACKOFF.delay(3, None, 1.0), Duration::from_secs(8));
    }

    #[test]
    fn what_the_server_asks_for_is_a_floor() {
        let asked = Duration::from_secs(5);
        assert_eq!(BACKOFF.delay(0, Some(asked), 0.0), asked);
        assert_eq!(BACKOFF.delay(0, Some(asked), 1.0), Duration::from_millis(5500));
        assert_eq!(BACKOFF.delay(4, Some(asked), 1.0), Duration::from_secs(16));
        // Also beyond the limit, but not without end.
        assert_eq!(BACKOFF.delay(0, Some(Duration::from_secs(60)), 0.0), Duration::from_secs(60));
        assert_eq!(BACKOFF.delay(0, Some(Duration::MAX), 0.0), LONGEST_ASKED);
    }

    proptest! {
        #[test]
        fn it_keeps_its_bounds(failures in any::<u32>(), asked in any::<Option<u64>>(), random in 0.0..=1.0) {
            let asked = asked.map(Duration::from_millis);
            let delay = BACKOFF.delay(failures, asked, random);
            let floor = asked.unwrap_or_default().min(LONGEST_ASKED);
            prop_assert!(delay >= floor.max(BACKOFF.first / 2), "{:?}", delay);
            prop_assert!(delay <= BACKOFF.max.max(floor.mul_f64(1.1)), "{:?}", delay);
        }
    }
}
