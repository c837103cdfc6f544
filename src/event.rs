//! What is published: an event's name, payload, attributes and identity.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use ulid::Ulid;

use crate::error::InvalidValue;

/// An event, before it has a place in the log.
///
/// ```
/// use fanfare::Event;
///
/// let order = Event::json("created", &serde_json::json!({"order": 7}))?.attribute("kind", "sale")?;
/// let typing = Event::text("typing", "ada")?.ephemeral();
/// # let _ = (order, typing);
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) id: Option<EventId>,
    pub(crate) name: EventName,
    pub(crate) payload: Payload,
    pub(crate) attributes: Attributes,
    pub(crate) ephemeral: bool,
}

impl Event {
    /// An event with a ready payload.
    #[must_use]
    pub fn new(name: EventName, payload: Payload) -> Self {
        Self { id: None, name, payload, attributes: Attributes::default(), ephemeral: false }
    }

    /// An event whose payload is `value` as compact JSON. A `value` that is a string is sent as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a bad name, a value that cannot be written as JSON, and a payload of more than
    /// [`Payload::MAX_BYTES`].
    pub fn json(name: impl AsRef<str>, value: &impl Serialize) -> Result<Self, InvalidValue> {
        Ok(Self::new(EventName::new(name)?, Payload::json(value)?))
    }

    /// An event whose payload is `text` as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a bad name and for a payload of more than [`Payload::MAX_BYTES`].
    pub fn text(name: impl AsRef<str>, text: impl Into<String>) -> Result<Self, InvalidValue> {
        Ok(Self::new(EventName::new(name)?, Payload::text(text)?))
    }

    /// Gives the event an identity of the publisher's own. Published twice within the window, it is stored and
    /// delivered once. Without it the broker mints one.
    #[must_use]
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// Adds an attribute, which subscriptions may filter by; one of the same key is replaced.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a control character, a key of more than 64 bytes, a value of more than 256 bytes, and
    /// the seventeenth attribute.
    pub fn attribute(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, InvalidValue> {
        self.attributes.insert(key.into(), value.into())?;
        Ok(self)
    }

    /// Makes the event ephemeral: never stored, delivered to the clients that are live now.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }
}

/// An event's name, the type that a browser listens for; `message` if none is given.
///
/// At most 64 bytes, not empty, no control character, not beginning with `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName(Option<Box<str>>);

impl EventName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;
    /// The name of events that have none.
    pub const MESSAGE: Self = Self(None);

    /// Builds a name.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the name breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let name = name.as_ref();
        let refuse = |rule: String| Err(InvalidValue::new("event", rule));
        if name.is_empty() {
            return refuse("must not be empty".into());
        }
        if name.len() > Self::MAX_BYTES {
            return refuse(format!("must be at most {} bytes", Self::MAX_BYTES));
        }
        if name.starts_with('$') {
            return refuse("must not begin with $, which is reserved".into());
        }
        if name.chars().any(char::is_control) {
            return refuse("must not have a control character".into());
        }
        Ok(Self((name != "message").then(|| name.into())))
    }

    /// The name that was validated before: for logs, which read back what [`EventName::explicit`] gave.
    #[must_use]
    pub fn restore(name: Option<&str>) -> Self {
        Self(name.map(Into::into))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("message")
    }

    /// The name, unless it is `message`, which goes without saying.
    #[must_use]
    pub fn explicit(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// An event's identity and its publisher's idempotency key: 1 to 64 characters of `[A-Za-z0-9._:-]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Builds an id.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the id breaks.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let id = id.as_ref();
        if id.is_empty() {
            return Err(InvalidValue::new("id", "must not be empty"));
        }
        if id.len() > Self::MAX_BYTES {
            return Err(InvalidValue::new("id", format!("must be at most {} bytes", Self::MAX_BYTES)));
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)) {
            return Err(InvalidValue::new("id", "must be of the characters A-Z a-z 0-9 . _ : -"));
        }
        Ok(Self(id.into()))
    }

    /// The id that was validated before: for logs, which read back what [`EventId::as_str`] gave.
    #[must_use]
    pub fn restore(id: &str) -> Self {
        Self(id.into())
    }

    pub(crate) fn mint() -> Self {
        let mut buffer = [0; ulid::ULID_LEN];
        Self((&*Ulid::generate().array_to_str(&mut buffer)).into())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an event carries: UTF-8 text, and whether it is to be read as a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    text: Box<str>,
    is_json: bool,
}

impl Payload {
    /// The largest payload that is taken unless a larger limit is named, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// `value` as compact JSON; a string is sent as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it cannot be written as JSON or has more than [`Payload::MAX_BYTES`].
    pub fn json(value: &impl Serialize) -> Result<Self, InvalidValue> {
        let refuse = |_| InvalidValue::new("data", "cannot be written as JSON");
        let text = serde_json::to_string(value).map_err(refuse)?;
        if text.starts_with('"') {
            return Self::text(serde_json::from_str::<String>(&text).map_err(refuse)?);
        }
        Self::raw_json_within(text, Self::MAX_BYTES)
    }

    /// `text` as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it has more than [`Payload::MAX_BYTES`].
    pub fn text(text: impl Into<String>) -> Result<Self, InvalidValue> {
        Self::text_within(text.into(), Self::MAX_BYTES)
    }

    pub(crate) fn text_within(text: String, max: usize) -> Result<Self, InvalidValue> {
        Self::within(text, false, max)
    }

    /// `text` must be JSON already, other than a string.
    pub(crate) fn raw_json_within(text: String, max: usize) -> Result<Self, InvalidValue> {
        Self::within(text, true, max)
    }

    /// The payload that was validated before: for logs, which read back what [`Payload::as_str`] and
    /// [`Payload::is_json`] gave.
    #[must_use]
    pub fn restore(text: String, is_json: bool) -> Self {
        Self { text: text.into_boxed_str(), is_json }
    }

    fn within(text: String, is_json: bool, max: usize) -> Result<Self, InvalidValue> {
        if text.len() > max {
            return Err(InvalidValue::oversized("data", format!("must be at most {max} bytes")));
        }
        Ok(Self { text: text.into_boxed_str(), is_json })
    }

    /// The text that is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text was published as a JSON value other than a string.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.is_json
    }
}

/// Strings by strings that an event carries beside its payload and that subscriptions may filter by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// As many as an event may have.
    pub const MAX: usize = 16;
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 64;
    /// The longest value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 256;

    pub(crate) fn insert(&mut self, key: String, value: String) -> Result<(), InvalidValue> {
        check_attribute("attributes", &key, &value)?;
        self.0.insert(key, value);
        if self.0.len() > Self::MAX {
            return Err(InvalidValue::new("attributes", format!("must be at most {}", Self::MAX)));
        }
        Ok(())
    }

    /// The attributes that were validated before: for logs, which read back their JSON.
    #[must_use]
    pub fn restore(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether all of `others` are among these, with the same values.
    pub(crate) fn contain(&self, others: &Self) -> bool {
        others.iter().all(|(key, value)| self.get(key) == Some(value))
    }

    /// Takes over those of `others` whose keys are missing here. There may be too many afterwards.
    pub(crate) fn complete(&mut self, others: &Self) {
        for (key, value) in others.iter() {
            if !self.0.contains_key(key) {
                self.0.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    pub(crate) fn weight(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

pub(crate) fn check_attribute(field: &'static str, key: &str, value: &str) -> Result<(), InvalidValue> {
    if key.is_empty() {
        return Err(InvalidValue::new(field, "must not have an empty key"));
    }
    if key.len() > Attributes::MAX_KEY_BYTES {
        return Err(InvalidValue::new(
            field,
            format!("must have keys of at most {} bytes", Attributes::MAX_KEY_BYTES),
        ));
    }
    if value.len() > Attributes::MAX_VALUE_BYTES {
        let rule = format!("must have values of at most {} bytes", Attributes::MAX_VALUE_BYTES);
        return Err(InvalidValue::new(field, rule));
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return Err(InvalidValue::new(field, "must not have a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_obey_their_rules() {
        for bad in ["", "$welcome", "a\nb", "a\rb", "a\0b", &"x".repeat(65)] {
            assert!(EventName::new(bad).is_err(), "{bad:?}");
            assert!(EventId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(EventName::new("message").expect("valid"), EventName::MESSAGE);
        assert!(EventId::new("A-z.0_9:x").is_ok());
        assert!(EventId::new("ü").is_err());
        assert_eq!(EventId::mint().as_str().len(), 26);
    }

    #[test]
    fn a_payload_keeps_what_was_published() {
        assert_eq!(Payload::json(&"a\nb").expect("valid").as_str(), "a\nb");
        assert!(!Payload::json(&"7").expect("valid").is_json());
        let seven = Payload::json(&7).expect("valid");
        assert_eq!((seven.as_str(), seven.is_json()), ("7", true));
        assert!(Payload::text("x".repeat(Payload::MAX_BYTES)).is_ok());
        assert!(Payload::text("x".repeat(Payload::MAX_BYTES + 1)).is_err_and(|error| error.is_oversized()));
    }

    #[test]
    fn attributes_are_bounded() {
        let mut event = Event::text("x", "").expect("valid");
        for n in 0..16 {
            event = event.attribute(n.to_string(), "v").expect("valid");
        }
        assert!(event.clone().attribute("0", "again").is_ok());
        assert!(event.attribute("16", "v").is_err());
        for (key, value) in
            [("", "v"), ("k\n", "v"), ("k", "\u{7f}"), (&*"k".repeat(65), "v"), ("k", &*"v".repeat(257))]
        {
            assert!(Event::text("x", "").expect("valid").attribute(key, value).is_err(), "{key:?} {value:?}");
        }
    }
}
