//! Numbers as Prometheus reads them: its text format, version 0.0.4.
//!
//! Written by hand: what is to be written was counted already, and the format has three kinds of lines. None of the
//! values needs to be escaped, since names, labels and help are words of our own.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::actors::Overview;
use crate::counts::{ByReason, ByTransport, Histogram, Transport};

/// All of it.
pub(crate) fn text(overview: &Overview) -> String {
    let Overview { stats, .. } = overview;
    let mut text = Text::default();
    text.by_transport("connections", "Clients that are connected.", "gauge", &overview.connections);
    text.gauge("sessions", "Sessions that have a client.", stats.sessions);
    text.gauge("channels", "Channels that a client follows by their very name.", stats.channels);
    text.counter("published_total", "Events sent on, the ephemeral ones too.", overview.published_total);
    text.by_transport("delivered_total", "Events handed to clients.", "counter", &overview.delivered);
    text.by_reason(
        "dropped_total",
        "Events not taken, or missed by a client that was slow.",
        &overview.dropped,
    );
    text.by_reason("closed_total", "Streams that have ended.", &overview.closed);
    text.by_reason("gaps_total", "Clients told that events are missing.", &overview.gaps);
    text.counter("replayed_total", "Events that clients were given from the past.", overview.replayed);
    text.gauge("inflight", "Events that wait for their commit.", stats.in_flight);
    text.gauge(
        "queue_depth",
        "Events sent to the threads that deliver, and still to be seen to.",
        overview.queue_depth,
    );
    text.gauge("lagging", "Clients that are being given what they missed.", overview.lagging);
    text.gauge("log_head", "The position of the newest event.", stats.head);
    text.gauge("log_ready", "Whether the log is open and takes events.", u8::from(stats.ready));
    text.gauge("uptime_seconds", "How long ago the broker was started.", stats.uptime.as_secs());
    text.histogram("commit_seconds", "How long commits took.", &overview.commit_seconds);
    text.histogram(
        "fanout_seconds",
        "From the commit to where a thread's clients read.",
        &overview.fanout_seconds,
    );
    text.histogram("delivery_seconds", "From the commit to a connection.", &overview.delivery_seconds);
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// Says what the lines after this are about.
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        // A string takes everything.
        let _ = writeln!(self.0, "# HELP fanfare_{name} {help}\n# TYPE fanfare_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "fanfare_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, "", value);
    }

    fn by_transport(&mut self, name: &str, help: &str, kind: &str, counts: &ByTransport) {
        self.head(name, help, kind);
        for transport in Transport::ALL {
            let labels = format!("{{transport=\"{}\"}}", transport.as_str());
            self.line(name, &labels, counts.of(transport));
        }
    }

    fn by_reason(&mut self, name: &str, help: &str, counts: &ByReason) {
        self.head(name, help, "counter");
        for (reason, count) in counts.iter() {
            self.line(name, &format!("{{reason=\"{reason}\"}}"), count);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.buckets() {
            let labels = match bound {
                Some(bound) => format!("{{le=\"{}\"}}", bound.as_secs_f64()),
                None => "{le=\"+Inf\"}".to_owned(),
            };
            self.line(&bucket, &labels, count);
        }
        self.line(&format!("{name}_sum"), "", seconds(histogram.sum()));
        self.line(&format!("{name}_count"), "", histogram.count());
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
