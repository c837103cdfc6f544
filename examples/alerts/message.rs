//! What is said to browsers, as types: the page and whoever else reads the streams can rely on these shapes.

use fanfare::{Event, EventId, InvalidValue};
use serde::{Deserialize, Serialize};

use crate::values::StreamName;

/// Everything that this server publishes. Its `type` is the name of the event as well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message {
    /// For those who may see its stream.
    Alert(Alert),
    /// For everyone.
    ControlPlane(ControlPlaneEvent),
    /// For one person, in all tabs of all that they are logged in with.
    Notice(Notice),
}

/// Something is wrong, or no longer: an alert is triggered and resolved under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Alert {
    pub(crate) stream: StreamName,
    pub(crate) name: String,
    pub(crate) criticality: Criticality,
    pub(crate) state: State,
    pub(crate) text: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Criticality {
    Info,
    Warn,
    Error,
}

/// Whether it is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    #[default]
    Triggered,
    Resolved,
}

/// What happens to the system itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ControlPlaneEvent {
    NodeJoined { node: String },
    NodeLeft { node: String },
    Maintenance { text: String },
}

/// A word to one person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Notice {
    pub(crate) from: String,
    pub(crate) text: String,
}

impl Criticality {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "triggered",
            Self::Resolved => "resolved",
        }
    }
}

impl Message {
    /// As an event under `id`: however often it is published, it is stored and delivered once. An alert can be filtered by its
    /// criticality and state.
    pub(crate) fn event(&self, id: EventId) -> Result<Event, InvalidValue> {
        let name = match self {
            Self::Alert(_) => "alert",
            Self::ControlPlane(_) => "control_plane",
            Self::Notice(_) => "notice",
        };
        let event = Event::json(name, self)?.id(id);
        match self {
            Self::Alert(alert) => event
                .attribute("criticality", alert.criticality.as_str())?
                .attribute("state", alert.state.as_str()),
            Self::ControlPlane(_) | Self::Notice(_) => Ok(event),
        }
    }
}
