//! What a broker is told of in numbers: counts by transport and by reason, histograms, and the channels that are busiest.
//!
//! None of it is larger for more channels, sessions or clients.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Server-Sent Events.
    Sse,
    /// A WebSocket.
    Ws,
    /// A stream in the broker's own process.
    Stream,
}

impl Transport {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Sse, Self::Ws, Self::Stream];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ws => "ws",
            Self::Stream => "stream",
        }
    }
}

/// A count for each transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ByTransport {
    /// Server-Sent Events.
    pub sse: u64,
    /// Each a `WebSocket`.
    pub ws: u64,
    /// Streams in the broker's own process.
    pub stream: u64,
}

impl ByTransport {
    /// The count of one.
    #[must_use]
    pub fn of(&self, transport: Transport) -> u64 {
        match transport {
            Transport::Sse => self.sse,
            Transport::Ws => self.ws,
            Transport::Stream => self.stream,
        }
    }

    pub(crate) fn add(&mut self, transport: Transport, count: u64) {
        match transport {
            Transport::Sse => self.sse += count,
            Transport::Ws => self.ws += count,
            Transport::Stream => self.stream += count,
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for transport in Transport::ALL {
            self.add(transport, other.of(transport));
        }
    }
}

/// Counts by a reason, of which there are few, all of them the broker's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct ByReason(BTreeMap<&'static str, u64>);

impl ByReason {
    /// With these reasons there from the start, so that whoever watches a count sees its first step.
    pub(crate) fn of(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        Self(reasons.into_iter().map(|reason| (reason, 0)).collect())
    }

    pub(crate) fn add(&mut self, reason: &'static str, count: u64) {
        *self.0.entry(reason).or_default() += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (reason, count) in other.iter() {
            self.add(reason, count);
        }
    }

    /// The count of one; zero for a word that is none.
    #[must_use]
    pub fn get(&self, reason: &str) -> u64 {
        self.0.get(reason).copied().unwrap_or(0)
    }

    /// Each with its count, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(&reason, &count)| (reason, count))
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The upper bounds of a histogram's buckets but for the last, in microseconds: 1, 2.5 and 5 in each decade.
const BOUNDS: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// How often something took how long. What it holds does not grow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// For each bucket, how often; the last is without a bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Something took so long, this often.
    pub(crate) fn observe(&mut self, took: Duration, times: u32) {
        let micros = took.as_micros();
        let bucket = BOUNDS.partition_point(|&bound| u128::from(bound) < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += u64::from(times);
        }
        self.sum = self.sum.saturating_add(took.saturating_mul(times));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How often there was something.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of it took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// For each upper bound, how often it took no longer; none for the last, which takes everything.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS.iter().map(|&bound| Some(Duration::from_micros(bound))).chain([None]);
        bounds.zip(self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}

/// As it can be read from JSON: pairs of an upper bound in seconds and how often it took no longer.
impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told {
            count: u64,
            sum: f64,
            buckets: Vec<(Option<f64>, u64)>,
        }
        let buckets = self.buckets().map(|(bound, count)| (bound.map(|bound| bound.as_secs_f64()), count));
        let told = Told { count: self.count(), sum: self.sum.as_secs_f64(), buckets: buckets.collect() };
        told.serialize(serializer)
    }
}

/// A channel, and how many events of it were sent on within a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BusyChannel {
    /// The channel.
    pub channel: String,
    /// As many events at most.
    pub events: u64,
    /// As many of these may be of other channels: there is room to count a few channels exactly, not all.
    pub error: u64,
}

/// The busiest channels of a while.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Busiest {
    /// How long the while was.
    #[serde(serialize_with = "seconds")]
    pub window: Duration,
    /// The busiest first; ten at most, and none of those that are for sessions or for everyone.
    pub channels: Vec<BusyChannel>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_micros(50), 1);
        histogram.observe(Duration::from_micros(51), 2);
        histogram.observe(Duration::from_secs(60), 1);
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets[0], (Some(Duration::from_micros(50)), 1));
        assert_eq!(buckets[1], (Some(Duration::from_micros(100)), 3));
        assert_eq!(buckets[16], (Some(Duration::from_secs(10)), 3));
        assert_eq!(buckets[17], (None, 4));
        assert_eq!((histogram.count(), histogram.sum()), (4, Duration::from_micros(60_000_152)));
        let mut both = histogram.clone();
        both.merge(&histogram);
        assert_eq!((both.count(), both.sum()), (8, Duration::from_micros(120_000_304)));
    }

    #[test]
    fn reasons_are_there_before_they_are_needed() {
        let mut reasons = ByReason::of(["slow", "client"]);
        reasons.add("slow", 2);
        reasons.merge(&ByReason::of(["limit"]));
        assert_eq!(reasons.iter().collect::<Vec<_>>(), [("client", 0), ("limit", 0), ("slow", 2)]);
        assert_eq!((reasons.get("slow"), reasons.get("unheard"), reasons.sum()), (2, 0, 2));
    }
}
