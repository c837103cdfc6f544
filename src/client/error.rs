//! What can go wrong for a client.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;

/// As much of an answer as is read to learn what is wrong.
const MAX_PROBLEM: usize = 64 * 1024;

/// Why a stream has ended for good: to connect again in the same way would not help.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The server refuses the request: it is bad (400), its credentials are (401) or do not suffice (403), there is no
    /// such stream (404), something in between lets no WebSocket through (426), its cursor cannot be resumed without loss (410, with
    /// [`strict`](crate::client::Subscribe::strict)), or any other status that is not said to pass.
    #[error("the server refuses the stream: {0}")]
    Rejected(Box<Problem>),
    /// The server wants this stream not to come back (204, or a closing as `revoked`): its session was ended.
    #[error("the server wants the stream not to come back")]
    Stopped,
    /// The answer is no stream of events: the URL is not that of a fanfare scope.
    #[error("the answer is no stream of events, but {0}")]
    NotAStream(String),
    /// An event is larger than the [limit](crate::client::Client::max_event), and would be the next time.
    #[error("an event is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The server sent something that this client cannot read.
    #[error("cannot read what the server sent: {0}")]
    Malformed(String),
}

/// Why there is no receipt for what was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The server refuses it, and has stored nothing; but a 5xx may also be of a proxy, or of a log whose commit is in
    /// doubt: publish again with the same [`EventId`](crate::EventId).
    #[error("the server refuses the publish: {0}")]
    Rejected(Box<Problem>),
    /// No answer came. Whether the events are stored is not known: publish again with the same
    /// [`EventId`](crate::EventId), and they are stored once.
    #[error("no answer to the publish")]
    Unanswered(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server accepted it, and sent a receipt that this client cannot read.
    #[error("cannot read the receipt: {0}")]
    Malformed(String),
}

/// An answer that is an error, as the server explains it (RFC 9457).
///
/// An answer from something in between may have no more than a status.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, a URI; empty if the answer does not say.
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// What is wrong this time; may be empty.
    pub detail: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The element of the batch that is at fault.
    pub index: Option<usize>,
    /// How long to wait before another attempt (`Retry-After` in seconds; a date there is not read).
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    detail: String,
    field: Option<String>,
    index: Option<usize>,
}

impl Body {
    fn problem(self, status: StatusCode, retry_after: Option<Duration>) -> Box<Problem> {
        let Self { kind, mut title, detail, field, index } = self;
        if title.is_empty() {
            title = status.canonical_reason().unwrap_or("no reason given").to_owned();
        }
        Box::new(Problem { status: status.as_u16(), kind, title, detail, field, index, retry_after })
    }
}

impl Problem {
    /// Whether another attempt may fare better, as it is.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.status >= 500 || matches!(self.status, 408 | 425 | 429)
    }

    /// Reads an answer that is no success. What cannot be read of it is left out: the status says enough.
    pub(super) async fn read(response: reqwest::Response) -> Box<Self> {
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
        let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.contains("json"));
        let body = match body(response, MAX_PROBLEM).await {
            Ok(body) if is_problem => serde_json::from_slice(&body).unwrap_or_default(),
            Ok(_) | Err(_) => Body::default(),
        };
        body.problem(status, retry_after.map(Duration::from_secs))
    }

    /// Reads a refusal that is told on a socket.
    pub(super) fn told(message: &str) -> Box<Self> {
        #[derive(Deserialize)]
        struct Told {
            status: Option<u16>,
        }
        let status = serde_json::from_str(message).ok().and_then(|Told { status }| status);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let body: Body = serde_json::from_str(message).unwrap_or_default();
        body.problem(status.unwrap_or(StatusCode::BAD_REQUEST), None)
    }

    /// What a cursor that cannot be resumed without loss is answered, where the server has no word for it.
    pub(super) fn gone() -> Box<Self> {
        let detail = "the cursor cannot be resumed without loss".to_owned();
        Body { detail, field: Some("cursor".into()), ..Body::default() }.problem(StatusCode::GONE, None)
    }
}

/// A whole body, if it is not larger than `limit`.
pub(super) async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(transparent)]
    Broken(#[from] reqwest::Error),
}

/// An error with all that it comes from, in one line: for where only the words remain.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words.push_str(": ");
        words.push_str(&error.to_string());
        source = error.source();
    }
    words
}
