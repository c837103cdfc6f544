//! What people may call rooms and themselves, and what they may say: checked once, where the value is built.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::Refusal;

/// A room's name, as it stands in the address of its page: small letters of any script, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct RoomName(String);

impl RoomName {
    const MAX_CHARS: usize = 40;

    /// The channel that carries what happens in the room.
    pub(crate) fn channel(&self) -> String {
        format!("rooms/{}", self.0)
    }
}

impl TryFrom<String> for RoomName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let is_plain = |c: char| (c.is_alphanumeric() && !c.is_uppercase()) || matches!(c, '-' | '_');
        if !(1..=Self::MAX_CHARS).contains(&name.chars().count()) || !name.chars().all(is_plain) {
            return Err("A room's name is 1 to 40 small letters, digits, - and _.");
        }
        Ok(Self(name))
    }
}

/// What a person is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct PersonName(String);

impl PersonName {
    const MAX_CHARS: usize = 30;

    pub(crate) fn new(name: &str) -> Result<Self, Refusal> {
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        if !(1..=Self::MAX_CHARS).contains(&name.chars().count()) {
            return Err(Refusal::Invalid("A name has 1 to 30 characters."));
        }
        if name.chars().any(|c| c.is_control() || is_invisible(c)) {
            return Err(Refusal::Invalid("A name is made of characters that can be seen."));
        }
        Ok(Self(name))
    }

    /// The same for all names that people would take for one another by their case or spaces.
    pub(crate) fn folded(&self) -> String {
        self.0.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
    }
}

impl fmt::Display for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Characters without a shape, by which one name could pass for another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// What somebody says.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Text(String);

impl Text {
    const MAX_CHARS: usize = 2000;

    pub(crate) fn new(text: &str) -> Result<Self, Refusal> {
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        if text.is_empty() {
            return Err(Refusal::Invalid("There is nothing to send."));
        }
        if text.chars().count() > Self::MAX_CHARS {
            return Err(Refusal::Invalid("A message has at most 2000 characters."));
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err(Refusal::Invalid("The message has a control character."));
        }
        Ok(Self(text.to_owned()))
    }
}
