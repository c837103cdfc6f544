//! From a commit to the stream.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::failure::Failure;
use super::link::Link;
use crate::error::LogError;

/// A commit is settled or has failed by then.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How long a commit waits for a connection that was lost a moment ago.
const BLINK: Duration = Duration::from_millis(500);
/// How long one attempt waits for its answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(10);
/// What the headers of a message take at most.
pub(super) const HEADERS: usize = 256;

/// One message: a commit, by an id of its own that is the same in every attempt.
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) body: Bytes,
}

impl Message {
    pub(super) fn check(&self, link: &Link) -> Result<(), LogError> {
        let most = link.client.max_payload().saturating_sub(HEADERS);
        if self.body.len() <= most {
            return Ok(());
        }
        Err(LogError::oversized(format!("must fit one message of the stream, {most} bytes")))
    }
}

/// Publishes until the stream has it or time is over. It waits a moment for a connection, counted from `since`. What was
/// sent and not answered may be stored later: the client
/// library holds it for the next connection, and the server may have it already.
pub(super) async fn publish(
    link: &Link,
    message: &Message,
    since: std::time::Instant,
) -> Result<(), LogError> {
    let (start, mut last) = (Instant::now(), None);
    loop {
        let until = if last.is_some() { start + DEADLINE } else { Instant::from_std(since) + BLINK };
        if !is_connected_by(link, until).await {
            return Err(last.map_or_else(|| Failure::disconnected().into(), unknown));
        }
        let answer = timeout_at(start + DEADLINE, timeout(ATTEMPT, attempt(link, message))).await;
        match answer {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                return Err(LogError::oversized("must fit one message of the stream"));
            }
            Ok(Ok(Err(error))) => last = Some(error.to_string()),
            Ok(Err(_)) | Err(_) => last = Some("the server did not answer".into()),
        }
        if start.elapsed() + PAUSE >= DEADLINE {
            return Err(unknown(last.unwrap_or_default()));
        }
        sleep(PAUSE).await;
    }
}

fn unknown(why: String) -> LogError {
    LogError::unknown(Failure::no_answer(why))
}

async fn attempt(link: &Link, message: &Message) -> Result<(), PublishError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message.id.as_str());
    let publish = PublishMessage::build().payload(message.body.clone()).headers(headers);
    let answer = link.context.send_publish(message.subject.clone(), publish).await?;
    answer.await.map(drop)
}

async fn is_connected_by(link: &Link, until: Instant) -> bool {
    while !link.is_connected() {
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}
