//! So many a second, and as many at once. Pure: the clock is the caller's.

use std::time::{Duration, Instant};

/// A bucket that fills with `rate` a second and holds as many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one. A rate of 0 would never let anything pass.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate), level: f64::from(rate), at: now }
    }

    /// Takes `count` out, or says how long to wait for it.
    ///
    /// More than it ever holds is given by a full one, which is then in debt: so that the rate holds, and nothing has to
    /// wait for ever.
    pub(crate) fn take(&mut self, count: usize, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        let wanted = (count as f64).min(self.rate);
        if self.level < wanted {
            let wait = (wanted - self.level) / self.rate;
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        self.level -= count as f64;
        Ok(())
    }

    /// Whether it is as if it had never been used.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.rate
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.level = (self.level + since.as_secs_f64() * self.rate).min(self.rate);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn as_many_pass_as_the_rate_says() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        let passed = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(1, now).is_ok()).count();
        assert_eq!(passed(&mut bucket, start), 10);
        assert_eq!(passed(&mut bucket, start + SECOND / 2), 5);
        assert_eq!(passed(&mut bucket, start + SECOND), 5);
        // It holds no more than a second's worth.
        assert_eq!(passed(&mut bucket, start + 60 * SECOND), 10);
        assert_eq!(bucket.take(1, start + 60 * SECOND), Err(SECOND / 10));
        // A clock that goes backwards gives nothing.
        assert_eq!(passed(&mut bucket, start), 0);
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!(bucket.take(40, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(SECOND * 31 / 10));
        assert_eq!(bucket.take(40, start + 3 * SECOND), Err(SECOND));
        assert_eq!(bucket.take(1, start + SECOND * 31 / 10), Ok(()));
        assert!(!bucket.is_full(start + SECOND * 4));
        assert!(bucket.is_full(start + SECOND * 5));
    }
}
