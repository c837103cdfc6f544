//! Keys: a channel each, under one root, so that what watches a prefix ends at its segments.

use fanfare::{Channel, InvalidValue};

const ROOT: &str = "kv/";

/// A key of one or more segments, such as `services/mail/7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new(text: &str) -> Result<Self, InvalidValue> {
        Channel::new(format!("{ROOT}{text}"))?;
        Ok(Self(text.to_owned()))
    }

    /// The key whose events a channel has.
    pub(crate) fn of_channel(channel: &str) -> Option<Self> {
        Some(Self(channel.strip_prefix(ROOT)?.to_owned()))
    }

    pub(crate) fn channel(&self) -> String {
        format!("{ROOT}{}", self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `prefix` or below: `a/b` is below `a`, and `ab` is not.
    pub(crate) fn is_within(&self, prefix: &str) -> bool {
        let rest = self.0.strip_prefix(prefix);
        prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
