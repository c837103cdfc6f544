//! What is on the bus: sessions under the names that connectors give them, their events, and what binds them to scrolls.

use fanfare::{
    Bind, BindWith, Broadcast, Event, EventId, InvalidValue, Pairs, SubscribeOptions, Subscription, Unbind,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The attributes that events are found by.
pub(crate) const CONNECTOR: &str = "connector";
pub(crate) const NATIVE_SESSION: &str = "native_session";
pub(crate) const SCROLL: &str = "scroll";
pub(crate) const KIND: &str = "kind";

/// A session, as its connector knows it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Session {
    connector: String,
    native_session: String,
}

/// Something that happens in a session.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Happening {
    /// What kind of thing: an attribute, so that it can be filtered by, and not the event's name, because connectors choose
    /// it and a browser hears only names that it knows.
    kind: String,
    #[serde(default)]
    data: Value,
    /// Only of the moment: not stored.
    #[serde(default)]
    live: bool,
    /// Published twice under the same, it is there once.
    id: Option<String>,
}

/// The event that a session is registered by.
#[derive(Serialize)]
struct Registered<'a> {
    #[serde(flatten)]
    session: &'a Session,
    scroll: &'a str,
}

/// What a subscriber wants to hear, and how it reads.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Of these channels, of all if it says nothing.
    channels: Vec<String>,
    /// Only what is of this connector.
    connector: Option<String>,
    /// Only what is of a session that is bound to this scroll.
    scroll: Option<String>,
    /// How many items wait for it.
    pub(crate) queue: usize,
    /// Whether it does not read yet.
    pub(crate) held: bool,
}

impl Session {
    /// Binds the session to its scroll and says so, in one step.
    pub(crate) fn register(&self, scroll: &str) -> Result<BindWith, InvalidValue> {
        let event = self.event("registered", &Registered { session: self, scroll })?;
        let bind = Bind { when: self.names(), set: [(SCROLL, scroll)].into() };
        bind.with(Broadcast::channel(self.channel(false), event)?)
    }

    pub(crate) fn unbind(&self) -> Unbind {
        Unbind { when: self.names() }
    }

    pub(crate) fn publish(&self, what: Happening) -> Result<Broadcast, InvalidValue> {
        let Happening { kind, data, live, id } = what;
        let mut event = self.event(&kind, &data)?;
        if let Some(id) = id {
            event = event.id(EventId::new(id)?);
        }
        Broadcast::channel(self.channel(live), event)
    }

    fn channel(&self, live: bool) -> String {
        format!("{}/{}", if live { "live" } else { "kept" }, self.connector)
    }

    fn names(&self) -> Pairs {
        [(CONNECTOR, self.connector.as_str()), (NATIVE_SESSION, self.native_session.as_str())].into()
    }

    fn event(&self, kind: &str, data: &impl Serialize) -> Result<Event, InvalidValue> {
        Event::json("message", data)?
            .attribute(CONNECTOR, &self.connector)?
            .attribute(NATIVE_SESSION, &self.native_session)?
            .attribute(KIND, kind)
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            channels: vec!["kept/**".into(), "live/**".into()],
            connector: None,
            scroll: None,
            queue: SubscribeOptions::DEFAULT_QUEUE,
            held: false,
        }
    }
}

impl Wanted {
    pub(crate) fn subscription(&self) -> Result<Subscription, InvalidValue> {
        let start = Subscription::default();
        let channels = self.channels.iter().try_fold(start, |all, channel| all.and(channel))?;
        let terms = [(CONNECTOR, &self.connector), (SCROLL, &self.scroll)];
        let mut given = terms.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        given.try_fold(channels, |all, (key, value)| all.filter(key, value))
    }
}
