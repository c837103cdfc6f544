//! What a run comes to.

use serde::Serialize;

use crate::tally::{Counts, Latency};

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub clients: u32,
    pub channels: u32,
    /// Seconds until all had their status.
    pub connect_s: f64,
    pub memory_before_kib: u64,
    pub memory_connected_kib: u64,
    /// When all was delivered, the clients still there.
    pub memory_after_kib: u64,
    pub bytes_per_client: f64,
    /// What the kernel keeps, for both ends of a connection.
    pub kernel_bytes_per_client: f64,

    pub seconds: f64,
    pub published_per_s: f64,
    pub deliveries: u64,
    pub deliveries_per_s: f64,
    pub cpu_us_per_delivery: Option<f64>,
    pub cpu_us_per_publish: Option<f64>,
    /// In cores.
    pub server_cpu: f64,
    pub load_cpu: f64,
    pub foreign_cpu: f64,

    /// From the moment an event was due to the client; for those who come back, from the connect to the last event.
    pub latency_us: Quantiles,
    /// From the publish to its answer.
    pub receipt_us: Quantiles,

    /// Over the whole run, not only the seconds measured.
    pub due: u64,
    /// Due, and not there when the run ended.
    pub lost: u64,
    pub refused: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Debug, Default, Serialize)]
pub struct Quantiles {
    pub samples: u64,
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    pub max: Option<u64>,
}

impl From<&Latency> for Quantiles {
    fn from(latency: &Latency) -> Self {
        Self {
            samples: latency.count(),
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
            max: latency.max(),
        }
    }
}
