//! The span that a publish takes along, from its request to those who deliver. It is not there at all unless somebody
//! listens at debug: then it costs a look at a pointer.

use std::sync::Arc;

use tracing::Span;

#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Option<Arc<Span>>);

impl Trace {
    /// Of a span that is made if somebody listens.
    #[inline]
    pub(crate) fn start(span: impl FnOnce() -> Span) -> Self {
        Self(tracing::enabled!(tracing::Level::DEBUG).then(|| Arc::new(span())))
    }

    /// A part of it, that lasts until it is dropped.
    #[inline]
    pub(crate) fn part(&self, span: impl FnOnce() -> Span) -> Self {
        Self(self.0.as_ref().map(|whole| Arc::new(whole.in_scope(span))))
    }

    /// Says something within it, if somebody listens.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce()) {
        if let Some(span) = &self.0 {
            span.in_scope(event);
        }
    }
}
