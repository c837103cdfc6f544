//! A stream over as many connections as it takes. Knows nothing of the transport.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::backoff::Backoff;
use super::connection::{Connection, Failure, Request};
use super::error::StreamError;
use super::item::{Cause, Disconnected, Item, Position};
use super::read::{Incoming, Word};
use crate::error::CloseReason;

/// More than this many heartbeats missing, and the server is taken for dead.
const PATIENCE: u32 = 2;

/// What a server has to tell, over any number of reconnects; see [the module](super) for what it guarantees.
///
/// It ends only after a [`StreamError`]. It does nothing while it is not polled, and closes its connection when it is
/// dropped.
pub struct EventStream {
    steps: Pin<Box<dyn Stream<Item = Step> + Send>>,
    position: Option<Position>,
}

struct Step {
    position: Option<Position>,
    item: Option<Result<Item, StreamError>>,
}

impl EventStream {
    pub(super) fn new(
        request: Request,
        position: Option<Position>,
        backoff: Backoff,
        connect_timeout: Duration,
    ) -> Self {
        let start = Follower {
            request,
            position: position.clone(),
            backoff,
            connect_timeout,
            failures: 0,
            asked: None,
            phase: Phase::Away(Duration::ZERO),
        };
        let steps = stream::unfold(start, |mut follower| async {
            if matches!(follower.phase, Phase::Ended) {
                return None;
            }
            let item = follower.step().await;
            Some((Step { position: follower.position.clone(), item }, follower))
        });
        Self { steps: Box::pin(steps.fuse()), position }
    }

    /// Where the stream is: behind the last item it gave, or further when the server has said that nothing of interest
    /// lies between. A stream opened [after](super::Subscribe::after) it goes on exactly there, in another process too.
    #[must_use]
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }
}

impl Stream for EventStream {
    type Item = Result<Item, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.steps.as_mut().poll_next(cx)) {
                Some(Step { position, item }) => {
                    self.position = position;
                    if item.is_some() {
                        return Poll::Ready(item);
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("position", &self.position).finish_non_exhaustive()
    }
}

struct Follower {
    request: Request,
    position: Option<Position>,
    backoff: Backoff,
    connect_timeout: Duration,
    /// Attempts in a row that delivered nothing.
    failures: u32,
    /// The last pause that the server has named.
    asked: Option<Duration>,
    phase: Phase,
}

enum Phase {
    /// To wait so long, and then to connect.
    Away(Duration),
    /// Connected, and not greeted yet.
    New {
        connection: Connection,
        until: Instant,
    },
    /// Greeted.
    Live {
        connection: Connection,
        silence: Duration,
    },
    Ended,
}

impl Follower {
    /// One thing after the other; most have something to tell.
    async fn step(&mut self) -> Option<Result<Item, StreamError>> {
        let incoming = match &mut self.phase {
            Phase::Away(wait) => {
                sleep(*wait).await;
                let until = Instant::now() + self.connect_timeout;
                let opening = Connection::open(&self.request, self.position.as_ref());
                match timeout_at(until, opening).await.unwrap_or_else(silent) {
                    Ok(connection) => {
                        self.phase = Phase::New { connection, until };
                        return None;
                    }
                    Err(failure) => Err(failure),
                }
            }
            Phase::New { connection, until } => {
                timeout_at(*until, connection.next()).await.unwrap_or_else(silent)
            }
            // The time begins when it begins to wait, so that a reader who was away does not blame the server.
            Phase::Live { connection, silence } => {
                timeout_at(Instant::now() + *silence, connection.next()).await.unwrap_or_else(silent)
            }
            Phase::Ended => return None,
        };
        match incoming {
            Ok(incoming) => self.take(incoming),
            Err(failure) => Some(self.fail(failure)),
        }
    }

    fn take(&mut self, incoming: Incoming) -> Option<Result<Item, StreamError>> {
        let Incoming { position, retry, word, is_heartbeat } = incoming;
        self.asked = retry.or(self.asked);
        let has_moved = position.is_some();
        self.position = position.or_else(|| self.position.take());
        let item = match word {
            Some(Word::Welcome(connected)) => {
                let silence = connected.heartbeat * PATIENCE;
                self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
                    Phase::New { connection, .. } | Phase::Live { connection, .. } => {
                        Phase::Live { connection, silence }
                    }
                    other => other,
                };
                // Not yet a delivery: a server that greets and falls over is not to be asked again at once.
                return Some(Ok(Item::Connected(connected)));
            }
            Some(Word::Closing(reason)) if reason == CloseReason::Revoked.as_str() => {
                return Some(self.fail(StreamError::Stopped.into()));
            }
            Some(Word::Closing(reason)) => return Some(self.fail(Failure::lost(Cause::Closing(reason)))),
            Some(Word::Event(event)) => Some(Item::Event(*event)),
            Some(Word::Gap(gap)) => Some(Item::Gap(gap)),
            Some(Word::Reset(reset)) => Some(Item::Reset(reset)),
            Some(Word::Lag(lag)) => Some(Item::Lag(lag)),
            None => None,
        };
        if item.is_some() || has_moved || is_heartbeat {
            self.failures = 0;
        }
        item.map(Ok)
    }

    fn fail(&mut self, failure: Failure) -> Result<Item, StreamError> {
        match failure {
            Failure::Fatal(error) => {
                self.phase = Phase::Ended;
                Err(error)
            }
            Failure::Lost { cause, retry_after } => {
                let asked = retry_after.or(self.asked);
                let retry_in = self.backoff.delay(self.failures, asked, rand::random());
                self.failures = self.failures.saturating_add(1);
                self.phase = Phase::Away(retry_in);
                Ok(Item::Disconnected(Disconnected { cause, retry_in }))
            }
        }
    }
}

fn silent<T>(_: tokio::time::error::Elapsed) -> Result<T, Failure> {
    Err(Failure::lost(Cause::Silent))
}
