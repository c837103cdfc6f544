//! How fast a crowd is sent away: evenly over a time, and a few at once. Pure.

use std::time::{Duration, Instant};

/// How often some are told.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// As many are no crowd.
const AT_ONCE: u32 = 4;

/// A plan to tell so many clients within a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waves {
    began: Instant,
    window: Duration,
    total: usize,
}

impl Waves {
    pub(crate) fn new(total: usize, window: Duration, now: Instant) -> Self {
        Self { began: now, window, total }
    }

    /// How many are to be told by now, all in all.
    pub(crate) fn due(&self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.began);
        if since >= self.window {
            return self.total;
        }
        let evenly = self.total as f64 * since.as_secs_f64() / self.window.as_secs_f64();
        let ticks = since.as_secs_f64() / TICK.as_secs_f64() + 1.0;
        let a_few = ticks.floor() * f64::from(AT_ONCE);
        (evenly.max(a_few) as usize).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_crowd_leaves_evenly_and_in_time() {
        let now = Instant::now();
        let waves = Waves::new(6000, 6 * SECOND, now);
        assert_eq!(waves.due(now), 4);
        for second in 1..6 {
            assert_eq!(waves.due(now + SECOND * second), 1000 * second as usize);
        }
        let ticks = (0..120).map(|tick| waves.due(now + TICK * (tick + 1)) - waves.due(now + TICK * tick));
        assert!(ticks.max() <= Some(51), "no wave is large");
        assert_eq!(waves.due(now + 6 * SECOND), 6000);
    }

    #[test]
    fn a_few_do_not_take_the_whole_time() {
        let now = Instant::now();
        let waves = Waves::new(20, 600 * SECOND, now);
        assert_eq!(waves.due(now), 4);
        assert_eq!(waves.due(now + 4 * TICK), 20);
        assert_eq!(Waves::new(3, 600 * SECOND, now).due(now), 3);
    }

    #[test]
    fn without_time_all_leave_at_once() {
        let now = Instant::now();
        assert_eq!(Waves::new(6000, Duration::ZERO, now).due(now), 6000);
        assert_eq!(Waves::new(0, SECOND, now).due(now), 0);
    }
}
