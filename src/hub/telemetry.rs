//! What the hub says of itself: its log on stderr and, with the feature `otel`, spans for a collector.

use std::error::Error;
use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::settings::Settings;

/// Who is told, and may have something left to send.
#[derive(Clone)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otel")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Begins to listen to what the process says.
    pub(crate) fn start(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
        let levels = levels.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
        let to_stderr = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(levels);
        let listeners = tracing_subscriber::registry().with(to_stderr);
        #[cfg(feature = "otel")]
        {
            let spans = settings.otlp_endpoint.as_deref().map(otel::exporter).transpose();
            // What is wrong is said where somebody sees it.
            let (spans, wrong) = spans.map_or_else(|wrong| (None, Some(wrong)), |spans| (spans, None));
            listeners.with(spans.as_ref().map(otel::listener)).init();
            wrong.map_or(Ok(Self { spans }), Err)
        }
        #[cfg(not(feature = "otel"))]
        {
            let _ = settings;
            listeners.init();
            Ok(Self {})
        }
    }

    /// Sends what is left, if it can be sent within a time.
    pub(crate) async fn flush(&self, within: Duration) {
        #[cfg(feature = "otel")]
        if let Some(spans) = self.spans.clone() {
            let (done, is_done) = tokio::sync::oneshot::channel();
            // A thread that nobody waits for: a collector that does not answer keeps no process alive.
            std::thread::spawn(move || done.send(spans.force_flush()));
            match actix_web::rt::time::timeout(within, is_done).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans could not be sent"),
                Ok(Err(_)) | Err(_) => tracing::warn!("the last spans could not be sent in time"),
            }
        }
        #[cfg(not(feature = "otel"))]
        let _ = within;
    }
}

#[cfg(feature = "otel")]
mod otel {
    use std::error::Error;
    use std::time::Duration;

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::registry::LookupSpan;

    /// How long a collector may take; what it has not taken then is lost.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// Sends spans on from a thread of its own. What waits for it is bounded; beyond that, spans are lost.
    pub(super) fn exporter(endpoint: &str) -> Result<SdkTracerProvider, Box<dyn Error>> {
        if !endpoint.starts_with("http://") {
            return Err(format!("--otlp-endpoint must begin with http://, and is {endpoint}").into());
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(PATIENCE)
            .build()?;
        let resource = Resource::builder().with_service_name("fanfare").build();
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
    }

    /// Listens to the way of each publish, whatever is logged.
    pub(super) fn listener<S>(spans: &SdkTracerProvider) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let own = Targets::new().with_target("fanfare", tracing::Level::DEBUG);
        tracing_opentelemetry::layer().with_tracer(spans.tracer("fanfare")).with_filter(own)
    }
}
