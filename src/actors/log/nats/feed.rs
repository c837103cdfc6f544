//! The whole stream, in order, each message once: an ordered pull consumer, made by hand.
//!
//! All that decides what comes next is the newest message that the index has. On any trouble the consumer is thrown away
//! and made again behind that message, under the same name, so that a node has one at most; and whatever is not the next
//! delivery of that consumer is trouble.

use std::time::{Duration, Instant};

use actix::WeakAddr;
use async_nats::HeaderValue;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::task::unconstrained;

use super::batch::{self, Opened};
use super::bindings;
use super::extent::Extent;
use super::failure::Failure;
use super::front::{AlignTo, Fed, Feeding, Front, KnowsBindings, Message, Recalled, Said};
use super::link::{Link, pause};
use crate::actors::log::index::{Drafts, Lately};
use crate::error::LogError;

/// Messages that are asked for at a time, at most, and how many bytes they may be if they are as large as those in the
/// stream are on average: so much is read ahead.
const BATCH: u64 = 2048;
const BATCH_BYTES: u64 = 64 << 20;
/// The server says as often that it is still there; twice nothing is trouble. Soon enough that a node knows that it may be
/// behind before a client with a cursor of another node has waited for it in vain.
const HEARTBEAT: Duration = Duration::from_millis(750);
const EXPIRES: Duration = Duration::from_secs(5);
/// The server lets go of a consumer that nobody has asked for so long.
const INACTIVE: Duration = Duration::from_secs(30);
/// How often it is looked at what the stream has: often enough that a client that is ahead of this node waits for one look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// As much as is handed on in one go.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_EVENTS: usize = 4096;
/// A feed that ran for so long was no failure.
const FAIR_RUN: Duration = Duration::from_secs(10);

/// Feeds the front until it is gone. `node` is a name of this node's own.
pub(super) async fn run(link: Link, node: String, front: WeakAddr<Front>) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let end = feed(&link, &node, &front).await;
        let Some(front) = front.upgrade() else { return };
        front.do_send(Feeding::Ended);
        drop(front);
        let why = match end {
            End::Gone => return,
            End::Trouble(why) => why,
        };
        failures = if began.elapsed() >= FAIR_RUN { 0 } else { failures + 1 };
        tracing::warn!("{why}");
        actix::clock::sleep(pause(failures)).await;
    }
}

enum End {
    /// Nobody is there to be fed.
    Gone,
    Trouble(String),
}

impl<E: std::error::Error> From<E> for End {
    fn from(error: E) -> Self {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Self::Trouble(format!("{error}{source}"))
    }
}

/// Feeds until something is wrong.
async fn feed(link: &Link, node: &str, front: &WeakAddr<Front>) -> End {
    let mut handed = Handed::default();
    let end = match try_feed(link, node, front, &mut handed).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    // Whoever feeds next begins behind it.
    let _ = handed.settled().await;
    end
}

/// What the front was handed and has not come to the end of. The next is read meanwhile, and waits.
#[derive(Default)]
struct Handed(Option<LocalBoxFuture<'static, Result<(), End>>>);

impl Handed {
    /// Hands on what came. There must be nothing before it.
    fn hand(&mut self, front: &WeakAddr<Front>, fed: Fed) -> Result<(), End> {
        // On its way at once, and not when it is waited for.
        let sending = front.upgrade().ok_or(End::Gone)?.send(fed);
        self.0 = Some(Box::pin(async { sending.await.map_err(|_| End::Gone)?.map_err(End::from) }));
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until there is nothing.
    async fn settled(&mut self) -> Result<(), End> {
        if self.0.is_some() { self.done().await } else { Ok(()) }
    }

    /// Waits until what there is is done; for ever if there is nothing.
    async fn done(&mut self) -> Result<(), End> {
        let Some(handed) = &mut self.0 else { return std::future::pending().await };
        let done = handed.await;
        self.0 = None;
        done
    }
}

async fn try_feed(
    link: &Link,
    node: &str,
    front: &WeakAddr<Front>,
    handed: &mut Handed,
) -> Result<std::convert::Infallible, End> {
    let mut connections = link.connections.clone();
    connections.mark_unchanged();
    let stream = link.stream().await?;
    let extent = Extent::of(&stream);
    let batch = batch_of(stream.state.messages, stream.state.bytes);
    let mut last = align(link, front, extent.clone()).await?;
    let consumer = consumer(link, node, last).await?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(batch)
        .expires(EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await;
    let mut messages = messages.map_err(Failure::broken)?;
    ask(front, Feeding::Begun { pending: consumer.cached_info().num_pending }).await?;
    let mut delivery = 0;
    let mut look = actix::clock::interval_at(actix::clock::Instant::now() + LOOK_EVERY, LOOK_EVERY);
    let mut ahead = Ahead::default();
    loop {
        tokio::select! {
            biased;
            done = handed.done() => done?,
            // What the old connection still owed may never come, and be missed only when a heartbeat is.
            _ = connections.changed() => return Err(Failure::broken("there is a new connection").into()),
            _ = look.tick() => {
                ahead.hand(handed, front).await?;
                handed.settled().await?;
                // As soon as by the heartbeat it is known here that nothing comes.
                let looking = tokio::time::timeout(LOOK_EVERY, link.stream()).await;
                let now = Extent::of(&looking.map_err(Failure::broken)??);
                if now.log != extent.log || now.last < last {
                    return Err(Failure::broken("the stream is another, or has lost its end").into());
                }
                last = last.max(align(link, front, now).await?);
            }
            next = messages.next(), if !ahead.is_full() => {
                let mut next = Some(next);
                while let Some(item) = next {
                    let item = item.ok_or("it ended".to_owned());
                    let item = item.and_then(|item| item.map_err(|error| error.to_string()));
                    match item.and_then(|message| read(&message, node, &mut delivery)) {
                        Ok((message, size)) => {
                            last = last.max(message.sequence);
                            ahead.push(message, &size);
                        }
                        Err(why) => {
                            ahead.hand(handed, front).await?;
                            return Err(Failure::broken(why).into());
                        }
                    }
                    // How much is taken at once is bounded here.
                    next = if ahead.is_full() { None } else { unconstrained(messages.next()).now_or_never() };
                }
            }
        }
        if handed.is_done() {
            ahead.hand(handed, front).await?;
        }
    }
}

/// What was read and not handed on yet: reading goes on while the front is busy, so that neither waits for the other.
#[derive(Default)]
struct Ahead {
    messages: Vec<Message>,
    bytes: usize,
    events: usize,
    pending: u64,
}

impl Ahead {
    fn push(&mut self, message: Message, size: &Size) {
        self.bytes += size.bytes;
        self.events += message.events();
        self.pending = size.pending;
        self.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES || self.events >= CHUNK_EVENTS || self.messages.len() >= CHUNK_EVENTS
    }

    /// Hands it on, behind what was handed on before.
    async fn hand(&mut self, handed: &mut Handed, front: &WeakAddr<Front>) -> Result<(), End> {
        if self.messages.is_empty() {
            return Ok(());
        }
        handed.settled().await?;
        let Self { messages, pending, .. } = std::mem::take(self);
        handed.hand(front, Fed { messages, pending })
    }
}

/// Has the front hold its index against the stream, and sees to it that it knows the bindings up to there.
async fn align(link: &Link, front: &WeakAddr<Front>, extent: Extent) -> Result<u64, End> {
    let last = ask(front, AlignTo(extent)).await?;
    if !ask(front, KnowsBindings).await? {
        ask(front, Recalled(bindings::recall(link, last).await?)).await?;
    }
    Ok(last)
}

/// Asks the front, and waits for what comes of it.
async fn ask<M, T>(front: &WeakAddr<Front>, message: M) -> Result<T, End>
where
    M: actix::Message<Result = Result<T, LogError>> + Send + 'static,
    T: Send + 'static,
    Front: actix::Handler<M>,
{
    let front = front.upgrade().ok_or(End::Gone)?;
    front.send(message).await.map_err(|_| End::Gone)?.map_err(End::from)
}

/// A new consumer behind a message, in the place of an old one.
async fn consumer(link: &Link, node: &str, last: u64) -> Result<Consumer<pull::Config>, Failure> {
    let stream = &link.plan.stream;
    // There may be none.
    let _ = link.context.delete_consumer_from_stream(node, stream).await;
    let start = DeliverPolicy::ByStartSequence { start_sequence: last + 1 };
    let config = pull::Config {
        name: Some(node.into()),
        description: Some("a node of fanfare".into()),
        deliver_policy: start,
        ack_policy: AckPolicy::None,
        inactive_threshold: INACTIVE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let made = link.context.create_consumer_on_stream(config, stream).await;
    let made: Consumer<pull::Config> = made.map_err(Failure::broken)?;
    let info = made.cached_info();
    if info.config.deliver_policy != start || info.delivered.consumer_sequence != 0 {
        return Err(Failure::broken("the old consumer is still there"));
    }
    Ok(made)
}

/// How many messages to ask for at a time of a stream that has so many of so many bytes.
fn batch_of(messages: u64, bytes: u64) -> usize {
    let mean = bytes.checked_div(messages).unwrap_or(0).max(1);
    usize::try_from((BATCH_BYTES / mean).clamp(16, BATCH)).unwrap_or(16)
}

/// How much a message is, and how many are to come after it.
struct Size {
    bytes: usize,
    pending: u64,
}

/// A message, if it is the next delivery.
fn read(message: &jetstream::Message, node: &str, delivery: &mut u64) -> Result<(Message, Size), String> {
    let info = message.info().map_err(|error| error.to_string())?;
    if info.consumer_sequence != *delivery + 1 {
        return Err(format!("delivery {} came after {delivery}", info.consumer_sequence));
    }
    *delivery = info.consumer_sequence;
    let (sequence, size) =
        (info.stream_sequence, Size { bytes: message.payload.len(), pending: info.pending });
    let said = said(&message.payload).unwrap_or_else(|| {
        tracing::warn!(sequence, subject = %message.subject, "a message of the stream is no batch; passed over");
        Said::nothing()
    });
    let id = message.headers.as_ref().and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
    let own_id = id.map(HeaderValue::as_str).filter(|id| id.starts_with(node));
    let read = Message {
        sequence,
        time: u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
        own_id: own_id.map(ToOwned::to_owned),
        said,
    };
    Ok((read, size))
}

/// What a message says. What it changes counts only if its events are events.
fn said(payload: &Bytes) -> Option<Said> {
    Some(match batch::open(payload)? {
        Opened::CloseSession { session, reason } => Said::CloseSession { session, reason },
        Opened::Batch { known, change: None, count, events } => {
            let drafts = Drafts::Unread { bytes: events, count, read: batch::read };
            Said::Batch { drafts, known, change: None }
        }
        Opened::Batch { known, change, count, events } => {
            let drafts = batch::read(&events, count, &mut Lately::default())?;
            Said::Batch { drafts: Drafts::Read(drafts), known, change }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_large_messages_fewer_are_read_ahead() {
        assert_eq!([batch_of(0, 0), batch_of(10, 5_000), batch_of(1000, 1 << 30)], [2048, 2048, 62]);
        assert_eq!(batch_of(1, u64::MAX), 16);
    }
}
