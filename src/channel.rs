//! Names of channels, and the selectors that clients follow them by.

use std::fmt;
use std::sync::Arc;

use crate::error::InvalidValue;
use crate::identity::SessionId;

const EVERYONE: &str = "$everyone";
const SESSION: &str = "$session";

/// The name of a channel: segments joined by `/`, such as `orders/7`.
///
/// At most 255 bytes of UTF-8; no empty segment, no control character, no segment `*` or `**`. A first segment
/// that begins with `$` is reserved for fanfare and cannot be built from outside. Cloning is cheap.
///
/// ```
/// use fanfare::Channel;
///
/// let channel = Channel::new("orders/7")?;
/// assert_eq!(channel.as_str(), "orders/7");
/// assert!(Channel::new("orders//7").is_err());
/// assert!(Channel::new("$everyone").is_err());
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Who a channel reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The clients that follow it.
    Followers,
    /// Every client of one session.
    Session(SessionId),
    /// Every client.
    Everyone,
}

impl Channel {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Builds a channel from its name.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the name breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let name = name.as_ref();
        check_name("channel", name)?;
        for segment in name.split('/') {
            check_segment("channel", segment)?;
            if matches!(segment, "*" | "**") {
                return Err(InvalidValue::new("channel", "must not have a wildcard segment"));
            }
        }
        Ok(Self(name.into()))
    }

    /// The channel whose name this is, reserved ones included: for logs, which read back what
    /// [`Channel::as_str`] gave.
    #[must_use]
    pub fn restore(name: &str) -> Self {
        Self(name.into())
    }

    pub(crate) fn everyone() -> Self {
        Self(EVERYONE.into())
    }

    pub(crate) fn inbox(session: SessionId) -> Self {
        Self(format!("{SESSION}/{session}").into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that a subscriber is shown: whose inbox it is stays with the server.
    pub(crate) fn public_name(&self) -> &str {
        match self.reach() {
            Reach::Session(_) => SESSION,
            Reach::Everyone | Reach::Followers => self.as_str(),
        }
    }

    pub(crate) fn reach(&self) -> Reach {
        if !self.0.starts_with('$') {
            return Reach::Followers;
        }
        if &*self.0 == EVERYONE {
            return Reach::Everyone;
        }
        self.0
            .strip_prefix(SESSION)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|id| id.parse().ok())
            .map_or(Reach::Followers, Reach::Session)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&str> for Channel {
    type Error = InvalidValue;

    fn try_from(name: &str) -> Result<Self, InvalidValue> {
        Self::new(name)
    }
}

impl TryFrom<String> for Channel {
    type Error = InvalidValue;

    fn try_from(name: String) -> Result<Self, InvalidValue> {
        Self::new(name)
    }
}

/// Channels to follow: a name whose segments may be `*` (exactly one segment) and whose last may be `**` (zero or
/// more segments).
///
/// `alerts/**` matches `alerts` and `alerts/eu/7`, never `alerts2`; `**` alone matches every unreserved channel.
/// The limits are those of [`Channel`]. Cloning is cheap.
///
/// ```
/// use fanfare::{Channel, Selector};
///
/// let alerts = Selector::new("alerts/**")?;
/// assert!(alerts.matches(&Channel::new("alerts")?));
/// assert!(alerts.matches(&Channel::new("alerts/eu/7")?));
/// assert!(!alerts.matches(&Channel::new("alerts2")?));
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    text: Arc<str>,
    is_pattern: bool,
}

impl Selector {
    /// Builds a selector from its text.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the text breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        check_name("channel", text)?;
        let mut is_pattern = false;
        let mut rest_seen = false;
        for segment in text.split('/') {
            check_segment("channel", segment)?;
            if rest_seen {
                return Err(InvalidValue::new("channel", "may have ** only as its last segment"));
            }
            rest_seen = segment == "**";
            is_pattern |= rest_seen || segment == "*";
        }
        Ok(Self { text: text.into(), is_pattern })
    }

    /// The selector as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has a wildcard; without one it names a single channel.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.is_pattern
    }

    /// The one channel that a selector without a wildcard names.
    pub(crate) fn as_exact(&self) -> Option<Channel> {
        (!self.is_pattern).then(|| Channel(self.text.clone()))
    }

    /// Whether it selects the channel. A reserved channel is selected by nothing.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        if channel.0.starts_with('$') {
            return false;
        }
        if !self.is_pattern {
            return self.text == channel.0;
        }
        let mut names = channel.0.split('/');
        for segment in self.text.split('/') {
            match (segment, names.next()) {
                ("**", _) => return true,
                (_, None) => return false,
                ("*", Some(_)) => {}
                (literal, Some(name)) if literal == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether it selects every channel that `other` selects.
    ///
    /// ```
    /// use fanfare::Selector;
    ///
    /// let one = Selector::new("a/*")?;
    /// let all = Selector::new("a/**")?;
    /// assert!(all.contains(&one) && !one.contains(&all));
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    #[must_use]
    pub fn contains(&self, other: &Selector) -> bool {
        let mut theirs = other.text.split('/');
        for mine in self.text.split('/') {
            match (mine, theirs.next()) {
                ("**", _) => return true,
                (_, None | Some("**")) => return false,
                ("*", Some(_)) => {}
                (literal, Some(segment)) if literal == segment => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<&str> for Selector {
    type Error = InvalidValue;

    fn try_from(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl From<Channel> for Selector {
    fn from(channel: Channel) -> Self {
        Self { text: channel.0, is_pattern: false }
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), InvalidValue> {
    if name.is_empty() {
        return Err(InvalidValue::new(field, "must not be empty"));
    }
    if name.len() > Channel::MAX_BYTES {
        return Err(InvalidValue::new(field, format!("must be at most {} bytes", Channel::MAX_BYTES)));
    }
    if name.starts_with('$') {
        return Err(InvalidValue::new(field, "must not begin with $, which is reserved"));
    }
    Ok(())
}

fn check_segment(field: &'static str, segment: &str) -> Result<(), InvalidValue> {
    if segment.is_empty() {
        return Err(InvalidValue::new(field, "must not have an empty segment"));
    }
    if segment.chars().any(char::is_control) {
        return Err(InvalidValue::new(field, "must not have a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn channel_names_obey_their_rules() {
        for good in ["a", "a/b", "ü/日本", "a*", "a/b c", "a$b/$c", &"x".repeat(255)] {
            assert!(Channel::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "*",
            "a/*",
            "**",
            "a\nb",
            "a\u{85}b",
            "$x",
            "$x/y",
            &"x".repeat(256),
        ] {
            assert!(Channel::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn selectors_match_on_segment_boundaries() {
        let check = |selector: &str, yes: &[&str], no: &[&str]| {
            let selector = Selector::new(selector).expect("valid");
            for name in yes {
                assert!(selector.matches(&Channel::new(name).expect("valid")), "{selector} {name}");
            }
            for name in no {
                assert!(!selector.matches(&Channel::new(name).expect("valid")), "{selector} {name}");
            }
        };
        check("alerts/**", &["alerts", "alerts/eu", "alerts/eu/7"], &["alerts2", "alert", "x/alerts"]);
        check("alerts", &["alerts"], &["alerts/eu", "alerts2"]);
        check("a/*", &["a/b", "a/*c"], &["a", "a/b/c", "b/a"]);
        check("*/b/**", &["a/b", "x/b/c/d"], &["b", "a/c/b"]);
        check("**", &["a", "a/b/c"], &[]);
        check("*", &["a"], &["a/b"]);
        for bad in ["**/a", "a/**/b", "", "a//*", "$everyone", "$session/**"] {
            assert!(Selector::new(bad).is_err(), "{bad}");
        }
        assert!(!Selector::new("**").expect("valid").matches(&Channel::everyone()));
    }

    #[test]
    fn reserved_channels_know_whom_they_reach() {
        let session = SessionId::mint();
        assert_eq!(Channel::inbox(session).reach(), Reach::Session(session));
        assert_eq!(Channel::inbox(session).public_name(), "$session");
        assert_eq!(Channel::everyone().reach(), Reach::Everyone);
    }

    fn text(wild: bool) -> impl Strategy<Value = String> {
        let segment = if wild { "[abc]|\\*" } else { "[abc]" };
        (prop::collection::vec(segment, 1..4), proptest::bool::ANY).prop_map(move |(mut segments, rest)| {
            if wild && rest {
                segments.push("**".into());
            }
            segments.join("/")
        })
    }

    /// What a pattern means, word by word.
    fn means(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            (["**"], _) | ([], []) => true,
            (["*", pattern @ ..], [_, name @ ..]) => means(pattern, name),
            ([segment, pattern @ ..], [same, name @ ..]) => segment == same && means(pattern, name),
            _ => false,
        }
    }

    fn segments(text: &str) -> Vec<&str> {
        text.split('/').collect()
    }

    /// Channels that stand for all that a pattern matches: a segment that no other pattern names for each `*`, and from none of
    /// them to more than another pattern is long for `**`.
    fn witnesses(pattern: &str) -> Vec<Channel> {
        let (pattern, longest) = pattern.strip_suffix("**").map_or((pattern, 0), |pattern| (pattern, 6));
        let names = (0..=longest).map(|rest| {
            let rest = std::iter::repeat_n("z", rest);
            let segments: Vec<_> = segments(pattern.trim_end_matches('/')).into_iter().chain(rest).collect();
            segments.join("/").replace('*', "z").trim_start_matches('/').to_owned()
        });
        names.filter_map(|name| Channel::new(name).ok()).collect()
    }

    proptest! {
        #[test]
        fn a_selector_matches_what_it_means(selector in text(true), name in text(false)) {
            let (pattern, segments) = (segments(&selector), segments(&name));
            let matches = Selector::new(&selector).expect("valid").matches(&Channel::new(&name).expect("valid"));
            prop_assert_eq!(matches, means(&pattern, &segments));
        }

        #[test]
        fn containment_is_exact(mine in text(true), other in text(true)) {
            let (selector, narrower) = (Selector::new(&mine).expect("valid"), Selector::new(&other).expect("valid"));
            let channels = witnesses(&other);
            prop_assert!(!channels.is_empty() && channels.iter().all(|channel| narrower.matches(channel)));
            let all = channels.iter().all(|channel| selector.matches(channel));
            prop_assert_eq!(selector.contains(&narrower), all, "{} and {}", mine, other);
        }

        #[test]
        fn what_is_taken_reads_back(text in prop::collection::vec("[ab]{1,3}|/|\\*{1,2}|\\$|\u{1}|\u{e9}", 0..9)) {
            let text = text.concat();
            let is_plain = !text.is_empty() && !segments(&text).contains(&"") && !text.contains('\u{1}') && !text.starts_with('$');
            match Channel::new(&text) {
                Ok(channel) => prop_assert!(channel.as_str() == text && is_plain && Selector::new(&text).is_ok()),
                Err(_) => prop_assert!(!is_plain || segments(&text).iter().any(|segment| ["*", "**"].contains(segment))),
            }
            if let Ok(selector) = Selector::new(&text) {
                prop_assert!(selector.as_str() == text && is_plain);
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (Channel::new(&text), Selector::new(&text));
        }
    }
}
