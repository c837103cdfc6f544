//! W3C Trace Context: a request that comes with a `traceparent` is part of that trace.

use actix_web::http::header::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// Has a span go on with the trace that the request names, if it names one.
pub(super) fn go_on(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    // Nobody may be there who takes spans to OpenTelemetry; the span is as good without.
    if context.span().span_context().is_valid() && span.set_parent(context).is_err() {
        tracing::trace!("nobody goes on with a trace here");
    }
}
