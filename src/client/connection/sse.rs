//! A connection over Server-Sent Events.

use bytes::BytesMut;
use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use tokio_util::codec::Decoder;

use super::{Failure, Request, ask, kind};
use crate::client::builder::Begin;
use crate::client::error::StreamError;
use crate::client::item::{Cause, Position};
use crate::client::read::{Incoming, malformed, sse};

#[derive(Debug)]
pub(in crate::client) struct Events {
    response: Response,
    decoder: russe::Decoder,
    buffer: BytesMut,
    max_event: usize,
}

impl Events {
    pub(super) async fn open(request: &Request, position: Option<&Position>) -> Result<Self, Failure> {
        let mut headers = request.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A position is of letters and digits.
        if let Some(Ok(position)) = position.map(|position| HeaderValue::from_str(position.as_str())) {
            headers.insert("last-event-id", position);
        }
        let response = ask(request.http.get(url(request)).headers(headers), StatusCode::OK).await?;
        let kind = kind(&response);
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(StreamError::NotAStream(kind).into());
        }
        let max_event = request.max_event;
        Ok(Self { response, decoder: russe::Decoder::default(), buffer: BytesMut::new(), max_event })
    }

    pub(super) async fn next(&mut self) -> Result<Incoming, Failure> {
        let too_large = StreamError::TooLarge { limit: self.max_event };
        if let Some(block) = self.decoder.decode(&mut self.buffer).map_err(|error| malformed(&error))? {
            // One that came in a single piece has never waited in the buffer.
            if data_len(&block) > self.max_event {
                return Err(too_large.into());
            }
            return Ok(sse::block(block)?);
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

fn url(request: &Request) -> Url {
    let mut url = request.url.clone();
    {
        let mut query = url.query_pairs_mut();
        // The particulars of an event are only in the envelope.
        query.append_pair("format", "envelope");
        for selector in &request.wanted.selectors {
            query.append_pair("channel", selector.as_str());
        }
        for (key, value) in &request.wanted.filter {
            query.append_pair("filter", &format!("{key}:{value}"));
        }
        match request.wanted.begin {
            Some(Begin::Now) => query.append_pair("from", "now"),
            Some(Begin::Earliest) => query.append_pair("from", "earliest"),
            Some(Begin::Last(count)) => query.append_pair("from", &count.to_string()),
            None => &mut query,
        };
        if request.wanted.is_strict {
            query.append_pair("strict", "1");
        }
    }
    url
}

fn data_len(block: &russe::Event) -> usize {
    match block {
        russe::Event::Message(message) => message.data.len(),
        russe::Event::Comment(comment) => comment.len(),
        _ => 0,
    }
}
