//! Errors as `application/problem+json` (RFC 9457): what clients are told, apart from what the log is told.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::actors::farewell::spread;
use crate::error::{CloseReason, InvalidValue, PublishError};

/// An error as a client sees it.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

macro_rules! kinds {
    ($($name:ident: $status:ident, $slug:literal, $title:literal;)*) => {
        $(pub(super) fn $name(detail: impl Into<String>) -> Self {
            Self {
                kind: concat!("urn:fanfare:problem:", $slug),
                title: $title,
                status: StatusCode::$status,
                detail: detail.into(),
                field: None,
                index: None,
                retry_after: None,
            }
        })*
    };
}

impl Problem {
    kinds! {
        bad_request: BAD_REQUEST, "bad-request", "The request is not well formed";
        bad_value: BAD_REQUEST, "bad-value", "A value breaks its rule";
        too_large: PAYLOAD_TOO_LARGE, "too-large", "Too large";
        unauthenticated: UNAUTHORIZED, "unauthenticated", "Credentials are missing or not valid";
        forbidden: FORBIDDEN, "forbidden", "Not allowed";
        not_found: NOT_FOUND, "not-found", "There is nothing here";
        method_not_allowed: METHOD_NOT_ALLOWED, "method-not-allowed", "Not with this method";
        timed_out: REQUEST_TIMEOUT, "timed-out", "Too slow";
        gone: GONE, "cannot-resume", "The cursor cannot be resumed without loss";
        unsupported_media_type: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Not in this format";
        misdirected: MISDIRECTED_REQUEST, "misdirected", "Not under this name";
        upgrade_required: UPGRADE_REQUIRED, "upgrade-required", "This is a WebSocket";
        too_many: TOO_MANY_REQUESTS, "too-many", "Too many at once";
        unavailable: SERVICE_UNAVAILABLE, "unavailable", "Try again later";
    }

    pub(super) fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The element of a batch that is at fault.
    pub(super) fn index(mut self, index: Option<usize>) -> Self {
        self.index = index;
        self
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    pub(super) fn closed(reason: CloseReason, delay: Duration) -> Self {
        let detail = match reason {
            CloseReason::Draining => "this server is going away",
            CloseReason::Unavailable => "the broker or its log is not available",
            CloseReason::Revoked | CloseReason::ExpiredToken => {
                return Self::unauthenticated("the session was ended");
            }
            CloseReason::Slow => "the client did not read",
            CloseReason::Limit => "as many clients are connected, or come, as may",
            CloseReason::TooOld => "the connection is too old",
        };
        Self::unavailable(detail).retry_after(delay)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if let Some(delay) = self.retry_after {
            response.insert_header((RETRY_AFTER, delay.as_secs_f64().ceil().to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        // Of words and numbers alone.
        response.body(serde_json::to_string(self).unwrap_or_default())
    }
}

impl From<InvalidValue> for Problem {
    fn from(invalid: InvalidValue) -> Self {
        let problem = if invalid.is_oversized() { Self::too_large } else { Self::bad_value };
        problem(invalid.to_string()).field(invalid.field())
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let delay = match error {
            PublishError::Invalid { index, invalid } => return Self::from(invalid).index(Some(index)),
            PublishError::Revoked => return Self::unauthenticated(error.to_string()),
            PublishError::TooFast { retry_in } => {
                return Self::too_many(error.to_string())
                    .retry_after(retry_in.saturating_add(spread(0, 1_000)));
            }
            PublishError::Overloaded => Duration::from_secs(1),
            PublishError::Draining => spread(5_000, 30_000),
            PublishError::Log(_) => Duration::from_secs(5),
        };
        Self::unavailable(error.to_string()).retry_after(delay)
    }
}
