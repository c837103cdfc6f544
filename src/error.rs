//! What can go wrong, one closed enum for each thing a caller may want to branch on.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A value that breaks one of the rules of its type, refused where it is built.
///
/// Names the field and the rule, and never repeats the refused value: it may be long, or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidValue {
    field: &'static str,
    rule: Cow<'static, str>,
    oversized: bool,
}

impl InvalidValue {
    pub(crate) fn new(field: &'static str, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { field, rule: rule.into(), oversized: false }
    }

    pub(crate) fn oversized(field: &'static str, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { field, rule: rule.into(), oversized: true }
    }

    /// The field at fault, by its name in the wire format.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The rule that was broken.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Whether the value is only too large: HTTP answers 413 instead of 400.
    #[must_use]
    pub fn is_oversized(&self) -> bool {
        self.oversized
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.rule)
    }
}

impl std::error::Error for InvalidValue {}

impl From<std::convert::Infallible> for InvalidValue {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Why [`Builder::start`](crate::Builder::start) did not start a broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No actix system runs on this thread; start the broker inside `#[actix_web::main]`.
    #[error("no actix system runs on this thread: start the broker inside #[actix_web::main]")]
    NoSystem,
    /// A setting is out of range, or contradicts another.
    #[error("bad setting: {0}")]
    Setting(#[from] InvalidValue),
    /// The log could not be started.
    #[error("the log could not be started")]
    Log(#[from] LogError),
}

/// Why a broadcast was not accepted. Nothing of it was sent, and nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// As many events or bytes wait for their commit as the broker takes on. Try again later.
    #[error("too many events wait for their commit")]
    Overloaded,
    /// The broker is draining and takes no more events.
    #[error("the broker is draining")]
    Draining,
    /// The session that publishes was ended ([`CloseSession`](crate::CloseSession)).
    #[error("the session was ended")]
    Revoked,
    /// The publisher publishes faster than it may ([`Builder::publish_rate`](crate::Builder::publish_rate)).
    #[error("more events in a second than this publisher may publish")]
    TooFast {
        /// When there is room for these events.
        retry_in: std::time::Duration,
    },
    /// Bindings ([`Bind`](crate::Bind)) would have given an event more attributes than it may have, a binding that
    /// was to be made with its event cannot be made, or what is published together is more than the log can commit as
    /// one. The same publish is refused again as long as that holds.
    #[error("{invalid}")]
    Invalid {
        /// Which event of the batch is at fault; 0 if it was published alone.
        index: usize,
        /// The field and the rule.
        invalid: InvalidValue,
    },
    /// The log did not commit. Whether it holds the events is known only to the log:
    /// publish again with the same [`EventId`](crate::EventId), and it is stored once.
    #[error("{}", .0.for_publishers())]
    Log(#[source] LogError),
}

impl From<LogError> for PublishError {
    fn from(error: LogError) -> Self {
        match error.kind {
            LogErrorKind::Oversized { rule } => {
                Self::Invalid { index: 0, invalid: InvalidValue::oversized("batch", rule.to_string()) }
            }
            LogErrorKind::Failed | LogErrorKind::Unknown => Self::Log(error),
        }
    }
}

/// Why [`subscribe`](crate::subscribe()) gave no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The subscription could not be built.
    #[error("bad subscription: {0}")]
    Invalid(#[from] InvalidValue),
    /// There is no stream to be had: the broker is draining or gone.
    #[error("no stream: {}", .0.as_str())]
    Closed(CloseReason),
}

/// A failure of a log, opaque: its source is for the operator's eyes, not for the publisher's.
#[derive(Debug, Clone)]
pub struct LogError {
    source: Arc<dyn std::error::Error + Send + Sync>,
    kind: LogErrorKind,
}

#[derive(Debug, Clone)]
enum LogErrorKind {
    Failed,
    Unknown,
    Oversized { rule: Arc<str> },
}

impl LogError {
    /// Wraps what the log's library reported.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(source.into()), kind: LogErrorKind::Failed }
    }

    /// The log did not answer in time: what was to be stored may be, now or later.
    pub fn unknown(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind: LogErrorKind::Unknown, ..Self::new(source) }
    }

    /// What was published together is more than the log can commit as one, and nothing of it was stored. `rule` says
    /// how much may be; publishers are told.
    pub fn oversized(rule: impl Into<Arc<str>>) -> Self {
        let rule = rule.into();
        Self { source: Arc::from(Box::from(&*rule)), kind: LogErrorKind::Oversized { rule } }
    }

    fn for_publishers(&self) -> &'static str {
        match self.kind {
            LogErrorKind::Unknown => {
                "the log did not answer in time, and may have the events or not: \
                 publish again with the same id, and they are stored once"
            }
            LogErrorKind::Failed | LogErrorKind::Oversized { .. } => "the log did not commit",
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("log failure")
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Why the server ends a stream. Sent to the client in `$closing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// This server goes away soon; come back after the announced time.
    Draining,
    /// The client did not read for longer than it may.
    Slow,
    /// There is no broker or no log to serve the stream.
    Unavailable,
    /// The grant that the stream was opened with has expired; come back with a new one.
    ExpiredToken,
    /// The session was ended; do not come back with it.
    Revoked,
    /// As many clients are connected, or come, as may.
    Limit,
    /// The connection is as old as it may become; come back.
    TooOld,
}

impl CloseReason {
    /// The reason that a word on the wire stands for.
    #[cfg(feature = "nats")]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Draining, Self::Slow, Self::Unavailable, Self::ExpiredToken, Self::Revoked];
        all.into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Slow => "slow",
            Self::Unavailable => "unavailable",
            Self::ExpiredToken => "expired_token",
            Self::Revoked => "revoked",
            Self::Limit => "limit",
            Self::TooOld => "too_old",
        }
    }
}
