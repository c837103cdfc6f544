//! What the server says beside events, whatever the form that it is written in.

use std::time::Duration;

use serde::Serialize;

use crate::cursor::{ResetReason, Seq};
use crate::error::CloseReason;
use crate::identity::{ClientId, SessionId};

/// A word of the server's own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice {
    Welcome(Welcome),
    Gap(Gap),
    Reset(Reset),
    Lag(Lag),
    Closing(Closing),
}

/// Who the client is here, and what it can count on.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Welcome {
    pub(crate) client: ClientId,
    pub(crate) session: SessionId,
    #[serde(serialize_with = "seconds")]
    pub(crate) heartbeat: Duration,
}

/// Events that the client was promised are gone.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Gap {
    pub(crate) reason: &'static str,
    pub(crate) after: Seq,
    pub(crate) resumed_at: Seq,
    pub(crate) head: Seq,
}

/// The client's cursor could not be resumed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Reset {
    pub(crate) reason: ResetReason,
    pub(crate) head: Seq,
}

/// Ephemeral events were dropped.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Lag {
    pub(crate) dropped: u64,
}

/// The server ends the stream.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Closing {
    pub(crate) reason: CloseReason,
    /// When to come back; said in each form in its own way.
    #[serde(skip)]
    pub(crate) retry_in: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if duration.subsec_nanos() == 0 {
        serializer.serialize_u64(duration.as_secs())
    } else {
        serializer.serialize_f64(duration.as_secs_f64())
    }
}

impl Notice {
    /// Its name, without what marks it as the server's own.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Gap(_) => "gap",
            Self::Reset(_) => "reset",
            Self::Lag(_) => "lag",
            Self::Closing(_) => "closing",
        }
    }

    /// Its particulars as a JSON object.
    pub(super) fn json(&self) -> String {
        let json = match self {
            Self::Welcome(welcome) => serde_json::to_string(welcome),
            Self::Gap(gap) => serde_json::to_string(gap),
            Self::Reset(reset) => serde_json::to_string(reset),
            Self::Lag(lag) => serde_json::to_string(lag),
            Self::Closing(closing) => serde_json::to_string(closing),
        };
        // Our own structs of numbers and words.
        json.unwrap_or_default()
    }
}
