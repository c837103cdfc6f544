//! One connection, whatever the transport: it gives [`Incoming`], or why there is no more of it.

mod joining;
mod sse;
mod ws;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode, Url};

use super::builder::Begin;
use super::error::{Problem, StreamError, words};
use super::item::{Cause, Position};
use super::read::Incoming;
use crate::channel::Selector;

/// What a stream is carried by. Both carry the same: a [position](super::EventStream::position) that was reached over one is
/// gone on from over the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Server-Sent Events: passes whatever passes HTTP.
    #[default]
    Sse,
    /// A WebSocket: for a network that holds back or cuts answers without an end.
    ///
    /// It differs where its protocol does:
    ///
    /// - It needs a [channel](super::Subscribe::channel), and keeps to HTTP/1.1.
    /// - The server's heartbeats are answered while the stream is polled. One that is left alone for two of them is cut
    ///   (`slow`), and comes back by its cursor.
    /// - [Strict](super::Subscribe::strict) is checked here: the stream is [connected](super::Item::Connected), and then ends.
    WebSocket,
}

/// What is asked for, the same each time but for the position.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) http: reqwest::Client,
    pub(super) transport: Transport,
    /// The transport's endpoint.
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) max_event: usize,
    pub(super) wanted: Wanted,
}

/// What to follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) selectors: Vec<Selector>,
    pub(super) filter: BTreeMap<String, String>,
    pub(super) begin: Option<Begin>,
    pub(super) is_strict: bool,
}

/// Why a connection gives no more.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt may do better.
    Lost { cause: Cause, retry_after: Option<Duration> },
    /// None will.
    Fatal(StreamError),
}

impl Failure {
    pub(super) fn lost(cause: Cause) -> Self {
        Self::Lost { cause, retry_after: None }
    }

    fn broken(error: &dyn std::error::Error) -> Self {
        Self::lost(Cause::Broken(words(error)))
    }

    /// A refusal, which may pass.
    fn refused(problem: Box<Problem>) -> Self {
        if !problem.is_temporary() {
            return StreamError::Rejected(problem).into();
        }
        let retry_after = problem.retry_after;
        Self::Lost { cause: Cause::Unavailable(problem), retry_after }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        Self::Fatal(error)
    }
}

#[derive(Debug)]
pub(super) enum Connection {
    Sse(Box<sse::Events>),
    WebSocket(Box<ws::Socket>),
}

impl Connection {
    pub(super) async fn open(request: &Request, position: Option<&Position>) -> Result<Self, Failure> {
        Ok(match request.transport {
            Transport::Sse => Self::Sse(Box::new(sse::Events::open(request, position).await?)),
            Transport::WebSocket => Self::WebSocket(Box::new(ws::Socket::open(request, position).await?)),
        })
    }

    /// What comes next; or nothing of note, when no more than a piece of it has come: that is a sign of life as well.
    pub(super) async fn next(&mut self) -> Result<Incoming, Failure> {
        match self {
            Self::Sse(events) => events.next().await,
            Self::WebSocket(socket) => socket.next().await,
        }
    }
}

/// Asks; the answer has the status that the transport begins with.
async fn ask(request: reqwest::RequestBuilder, wanted: StatusCode) -> Result<Response, Failure> {
    let response = request.send().await.map_err(|error| Failure::broken(&error))?;
    match response.status() {
        status if status == wanted => Ok(response),
        StatusCode::NO_CONTENT => Err(StreamError::Stopped.into()),
        status if status.is_success() => Err(StreamError::NotAStream(kind(&response)).into()),
        _ => Err(Failure::refused(Problem::read(response).await)),
    }
}

/// The content type of an answer, empty if it does not say.
fn kind(response: &Response) -> String {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().to_owned()
}
