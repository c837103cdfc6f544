//! How long events are kept, by channel.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::{Channel, Selector};
use crate::error::InvalidValue;

/// What is kept of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: every event is ephemeral.
    None,
    /// As much as fits all of these.
    Limits(Limits),
    /// What comes while a client that follows the channel is connected, or has been gone for less than `grace`.
    Interest {
        /// How long a client may be gone.
        grace: Duration,
    },
}

/// Bounds of what is kept of one channel; nothing for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// An event goes when it is as old as this.
    pub max_age: Option<Duration>,
    /// The oldest go when there are more.
    pub max_events: Option<u64>,
    /// The oldest go when they take more, by [`Draft::weight`](crate::Draft::weight).
    pub max_bytes: Option<u64>,
}

/// Which policy each channel has: that of the first rule whose selector matches.
///
/// Without a matching rule, and for what is sent to sessions and to everyone: 24 hours. The whole log is bounded
/// besides, 1 GiB by default.
///
/// ```
/// use fanfare::Retention;
///
/// let retention = Retention::default()
///     .rule("typing/**=none".parse()?)
///     .rule("orders/*=limits:max_age=48h,max_events=1000,max_bytes=64MiB".parse()?)
///     .rule("runs/**=interest:grace=30s".parse()?);
/// # let _ = retention;
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    rules: Arc<[Rule]>,
    max_log_bytes: u64,
}

/// A selector and the policy of the channels that it matches, written as `SELECTOR=none`,
/// `SELECTOR=limits:max_age=24h,max_events=1000,max_bytes=64MiB` or `SELECTOR=interest:grace=30s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which channels.
    pub selector: Selector,
    /// What is kept of each.
    pub policy: Policy,
}

const DEFAULT: Policy = Policy::Limits(Limits { max_age: Some(DAY), max_events: None, max_bytes: None });
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Retention {
    fn default() -> Self {
        Self { rules: Arc::new([]), max_log_bytes: 1 << 30 }
    }
}

impl Retention {
    /// Adds a rule behind those there are.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules = self.rules.iter().cloned().chain([rule]).collect();
        self
    }

    /// How much the whole log keeps at most, by [`Draft::weight`](crate::Draft::weight); the oldest events go first.
    #[must_use]
    pub fn max_log_bytes(mut self, max: u64) -> Self {
        self.max_log_bytes = max;
        self
    }

    /// The policy of a channel.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> Policy {
        let rule = self.rules.iter().find(|rule| rule.selector.matches(channel));
        rule.map_or(DEFAULT, |rule| rule.policy)
    }

    /// The bounds that a log holds a channel to; what depends on who is connected is the broker's to say.
    #[must_use]
    pub fn limits(&self, channel: &Channel) -> Limits {
        match self.of(channel) {
            Policy::Limits(limits) => limits,
            // An event may be of another channel, too, that keeps it.
            Policy::None => Limits { max_events: Some(0), ..Limits::default() },
            Policy::Interest { .. } => Limits::default(),
        }
    }

    /// How much the whole log keeps at most.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.max_log_bytes
    }

    /// The longest grace of all rules, nothing without a rule by interest.
    pub(crate) fn longest_grace(&self) -> Option<Duration> {
        let graces = self.rules.iter().filter_map(|rule| match rule.policy {
            Policy::Interest { grace } => Some(grace),
            Policy::None | Policy::Limits(_) => None,
        });
        graces.max()
    }
}

impl Limits {
    /// Whether a channel that keeps `events` of `bytes` in all has too many or too much.
    pub(crate) fn are_broken_by(&self, events: u64, bytes: u64) -> bool {
        self.max_events.is_some_and(|max| events > max) || self.max_bytes.is_some_and(|max| bytes > max)
    }

    /// How many of the oldest events must go, of a channel that keeps `events` of `bytes` in all; `weights` are their
    /// weights, oldest first.
    pub(crate) fn excess(&self, events: u64, bytes: u64, weights: impl IntoIterator<Item = u64>) -> u64 {
        let too_many = events.saturating_sub(self.max_events.unwrap_or(u64::MAX));
        let (mut gone, mut left) = (0, bytes);
        for weight in weights {
            if gone >= too_many && left <= self.max_bytes.unwrap_or(u64::MAX) {
                break;
            }
            gone += 1;
            left = left.saturating_sub(weight);
        }
        gone
    }
}

impl FromStr for Rule {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse = |rule: &str| InvalidValue::new("retention", rule.to_owned());
        // A channel may have a `=` in its name; a policy has none before its first `:`.
        let policy_at = ["=none", "=limits", "=interest"].iter().filter_map(|start| text.rfind(start)).max();
        let (selector, policy) = policy_at
            .map(|at| text.split_at(at))
            .ok_or_else(|| refuse("must be SELECTOR=none, SELECTOR=limits:… or SELECTOR=interest:…"))?;
        let selector = Selector::new(selector)?;
        let (kind, arguments) = policy.split_once(':').unwrap_or((policy, ""));
        let arguments = arguments.split(',').filter(|argument| !argument.is_empty()).map(|argument| {
            argument.split_once('=').ok_or_else(|| refuse("must have its bounds as name=value"))
        });
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let policy = match kind {
            "=none" if arguments.is_empty() => Policy::None,
            "=limits" if !arguments.is_empty() => Policy::Limits(limits(&arguments)?),
            "=interest" => match arguments.as_slice() {
                [("grace", grace)] => Policy::Interest { grace: duration(grace)? },
                _ => return Err(refuse("by interest needs grace=DURATION")),
            },
            _ => {
                return Err(refuse(
                    "must be none, limits:max_age=…,max_events=…,max_bytes=… or interest:grace=…",
                ));
            }
        };
        Ok(Self { selector, policy })
    }
}

fn limits(arguments: &[(&str, &str)]) -> Result<Limits, InvalidValue> {
    let mut limits = Limits::default();
    for (name, value) in arguments {
        match *name {
            "max_age" => limits.max_age = Some(duration(value)?),
            "max_events" => limits.max_events = Some(number(value)?),
            "max_bytes" => limits.max_bytes = Some(size(value)?),
            _ => {
                return Err(InvalidValue::new(
                    "retention",
                    "has the bounds max_age, max_events and max_bytes",
                ));
            }
        }
    }
    Ok(limits)
}

fn duration(text: &str) -> Result<Duration, InvalidValue> {
    humantime::parse_duration(text)
        .map_err(|_| InvalidValue::new("retention", "must have durations such as 15s, 2m or 24h"))
}

fn number(text: &str) -> Result<u64, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::new("retention", "must have a whole number for max_events"))
}

fn size(text: &str) -> Result<u64, InvalidValue> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1u64 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let size = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, count)| count.checked_mul(unit));
    size.ok_or_else(|| InvalidValue::new("retention", "must have sizes such as 64KiB or 1GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, InvalidValue> {
        text.parse()
    }

    #[test]
    fn rules_are_read() {
        assert_eq!(rule("a/**=none").map(|rule| rule.policy), Ok(Policy::None));
        let limits = Limits { max_age: Some(DAY), max_events: Some(1000), max_bytes: Some(64 << 20) };
        let read = rule("a=limits:max_age=24h,max_events=1000,max_bytes=64MiB").map(|rule| rule.policy);
        assert_eq!(read, Ok(Policy::Limits(limits)));
        let grace = Duration::from_secs(30);
        assert_eq!(rule("k=v=interest:grace=30s").map(|rule| rule.policy), Ok(Policy::Interest { grace }));
        for bad in [
            "",
            "a",
            "a=",
            "=none",
            "a=none:x=1",
            "a=limits",
            "a=limits:",
            "a=limits:max_age",
            "a=limits:max_age=x",
            "a=limits:max_bytes=1XB",
            "a=limits:max_events=-1",
            "a=limits:least=1",
            "a=interest",
            "a=interest:grace=x",
            "a//b=none",
            "$everyone=none",
            "a=sometimes",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_matching_rule_counts() {
        let retention = Retention::default()
            .rule("a/x=none".parse().expect("valid"))
            .rule("a/**=limits:max_events=1".parse().expect("valid"));
        let of = |name: &str| retention.of(&Channel::new(name).expect("valid"));
        assert_eq!(of("a/x"), Policy::None);
        assert_eq!(of("a/y"), Policy::Limits(Limits { max_events: Some(1), ..Limits::default() }));
        assert_eq!(of("b"), DEFAULT);
        assert_eq!(retention.of(&Channel::everyone()), DEFAULT);
    }

    #[test]
    fn excess_is_exact() {
        let limits = |max_events, max_bytes| Limits { max_age: None, max_events, max_bytes };
        let weights = [10, 20, 30, 40];
        assert_eq!(limits(Some(4), None).excess(4, 100, weights), 0);
        assert_eq!(limits(Some(3), None).excess(4, 100, weights), 1);
        assert_eq!(limits(None, Some(100)).excess(4, 100, weights), 0);
        assert_eq!(limits(None, Some(99)).excess(4, 100, weights), 1);
        assert_eq!(limits(None, Some(69)).excess(4, 100, weights), 3);
        assert_eq!(limits(Some(3), Some(39)).excess(4, 100, weights), 4);
    }
}
