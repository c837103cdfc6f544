//! Names, checked once, where the value is built.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a person is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PersonName(String);

/// What an alert stream is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct StreamName(String);

impl StreamName {
    /// The channel that carries its alerts.
    pub(crate) fn channel(&self) -> String {
        format!("alerts/{}", self.0)
    }
}

/// A name was of other characters, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 40 of the characters a-z 0-9 _ -")]
pub(crate) struct BadName;

fn check(name: String) -> Result<String, BadName> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if (1..=40).contains(&name.len()) && name.bytes().all(is_plain) { Ok(name) } else { Err(BadName) }
}

impl TryFrom<String> for PersonName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        check(name).map(Self)
    }
}

impl TryFrom<String> for StreamName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        check(name).map(Self)
    }
}

impl From<PersonName> for String {
    fn from(name: PersonName) -> Self {
        name.0
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
