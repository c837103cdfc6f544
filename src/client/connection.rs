//! One connection over Server-Sent Events. What it gives is the same for any transport: [`Incoming`], or why there is no
//! more of it.

use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use tokio_util::codec::Decoder;

use super::error::{Problem, StreamError, words};
use super::item::{Cause, Position};
use super::read::{self, Incoming, malformed};

/// What is asked for, the same each time but for the position.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) http: reqwest::Client,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) max_event: usize,
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

    fn broken(error: &reqwest::Error) -> Self {
        Self::lost(Cause::Broken(words(error)))
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        Self::Fatal(error)
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    response: reqwest::Response,
    decoder: russe::Decoder,
    buffer: BytesMut,
    max_event: usize,
}

impl Connection {
    pub(super) async fn open(request: &Request, position: Option<&Position>) -> Result<Self, Failure> {
        let mut headers = request.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A position is of letters and digits.
        if let Some(Ok(position)) = position.map(|position| HeaderValue::from_str(position.as_str())) {
            headers.insert("last-event-id", position);
        }
        let get = request.http.get(request.url.clone()).headers(headers);
        let response = get.send().await.map_err(|error| Failure::broken(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NO_CONTENT => return Err(StreamError::Stopped.into()),
            _ => {
                let problem = Problem::read(response).await;
                if !problem.is_temporary() {
                    return Err(StreamError::Rejected(problem).into());
                }
                let retry_after = problem.retry_after;
                return Err(Failure::Lost { cause: Cause::Unavailable(problem), retry_after });
            }
        }
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(StreamError::NotAStream(kind.to_owned()).into());
        }
        let max_event = request.max_event;
        Ok(Self { response, decoder: russe::Decoder::default(), buffer: BytesMut::new(), max_event })
    }

    /// The next block; or nothing of note, when no more than a piece of one has come: that is a sign of life as well.
    pub(super) async fn next(&mut self) -> Result<Incoming, Failure> {
        let too_large = StreamError::TooLarge { limit: self.max_event };
        if let Some(block) = self.decoder.decode(&mut self.buffer).map_err(|error| malformed(&error))? {
            // One that came in a single piece has never waited in the buffer.
            if data_len(&block) > self.max_event {
                return Err(too_large.into());
            }
            return Ok(read::block(block)?);
        }
        if self.buffer.len() > self.max_event {
            return Err(too_large.into());
        }
        match self.response.chunk().await {
            Ok(Some(piece)) => self.buffer.extend_from_slice(&piece),
            Ok(None) => return Err(Failure::lost(Cause::Ended)),
            Err(error) => return Err(Failure::broken(&error)),
        }
        Ok(Incoming::default())
    }
}

fn data_len(block: &russe::Event) -> usize {
    match block {
        russe::Event::Message(message) => message.data.len(),
        russe::Event::Comment(comment) => comment.len(),
        _ => 0,
    }
}
