//! Why something was not done, in words for the person who asked.

use actix::MailboxError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use fanfare::{InvalidValue, PublishError};
use serde::Serialize;

use crate::values::BadName;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("The request is not what was expected: {0}")]
    Body(String),
    #[error("Not a good name: {0}.")]
    Name(#[from] BadName),
    #[error("{0}.")]
    Value(#[from] InvalidValue),
    #[error("Log in first.")]
    Unknown,
    #[error("You are logged out.")]
    Over,
    #[error("The name or the password is wrong.")]
    WrongPassword,
    #[error("Only an operator may do this, for streams that they may see.")]
    NotAllowed,
    #[error("There is nobody of this name.")]
    Nobody,
    #[error("Too many people are logged in. Try again later.")]
    Full,
    #[error("The server cannot take this now. Try again in a moment.")]
    Unavailable,
}

impl From<MailboxError> for Refusal {
    fn from(_: MailboxError) -> Self {
        Self::Unavailable
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        tracing::warn!(%error, "a message was not taken");
        Self::Unavailable
    }
}

#[derive(Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Name(_) | Self::Value(_) => StatusCode::BAD_REQUEST,
            Self::Unknown | Self::Over | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Nobody => StatusCode::NOT_FOUND,
            Self::Full | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let title = status.canonical_reason().unwrap_or_default();
        let mut response = HttpResponse::build(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        // The type is set after the body, which would set its own.
        let mut response =
            response.json(Problem { title, status: status.as_u16(), detail: self.to_string() });
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
