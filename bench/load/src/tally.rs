//! What arrived.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Microseconds.
pub struct Latency(Histogram<u64>);

impl Latency {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds"))
    }

    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos / 1000);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn quantile(&self, q: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(q))
    }

    pub fn max(&self) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.max())
    }

    pub fn pairs(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    pub fn add(&mut self, pairs: &[(u64, u64)]) {
        for (value, count) in pairs {
            self.0.saturating_record_n(*value, *count);
        }
    }
}

/// Counts over all clients of a process. All but `delivered` should stay 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that arrived, each once.
    pub delivered: u64,
    /// Passed over: a later one of its channel came first.
    pub skipped: u64,
    /// Came again, or behind a later one.
    pub repeated: u64,
    /// Of a channel that the client does not follow, or not as it was published.
    pub strange: u64,
    /// Words of the server about its stream (`$gap`, `$reset`, `$lag`, `$closing`).
    pub notices: u64,
    /// Streams that ended, or never began.
    pub ended: u64,
}

impl std::ops::AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.skipped += other.skipped;
        self.repeated += other.repeated;
        self.strange += other.strange;
        self.notices += other.notices;
        self.ended += other.ended;
    }
}

pub struct Tally {
    pub counts: Counts,
    pub latency: Latency,
    /// Events that were due in it count for the latency.
    pub measured: std::ops::Range<u64>,
}

impl Tally {
    pub fn new() -> Self {
        Self { counts: Counts::default(), latency: Latency::new(), measured: 0..0 }
    }
}
