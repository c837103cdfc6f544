//! What a client wants to hear.

use std::sync::Arc;

use crate::channel::{Channel, Reach, Selector};
use crate::error::InvalidValue;
use crate::event::{Attributes, check_attribute};
use crate::identity::SessionId;
use crate::record::Draft;

/// The channels that a client follows and the filter it puts on them: two clients with the same hear the same,
/// their sessions' own messages aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Subscription {
    selectors: Arc<[Selector]>,
    filter: Filter,
}

impl Subscription {
    /// Follows whatever one of `selectors` selects and `filter` lets through.
    pub fn new(selectors: impl IntoIterator<Item = Selector>, filter: Filter) -> Self {
        let mut selectors: Vec<_> = selectors.into_iter().collect();
        selectors.sort_unstable();
        selectors.dedup();
        Self { selectors: selectors.into(), filter }
    }

    /// Follows the channels that `selector` selects: a channel's name, or a pattern (`*` is one segment, `**` at the end
    /// any number).
    ///
    /// ```
    /// use fanfare::Subscription;
    ///
    /// let alerts = Subscription::to("alerts/**")?.and("orders/7")?.filter("kind", "system")?;
    /// assert_eq!(alerts.selectors().len(), 2);
    /// assert!(Subscription::to("alerts//eu").is_err());
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the selector breaks.
    pub fn to(selector: impl AsRef<str>) -> Result<Self, InvalidValue> {
        Ok(Self::new([Selector::new(selector)?], Filter::default()))
    }

    /// Follows the channels that `selector` selects as well. An event comes once, however many selectors match.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the selector breaks.
    pub fn and(self, selector: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let selectors = self.selectors.iter().cloned().chain([Selector::new(selector)?]);
        Ok(Self::new(selectors, self.filter))
    }

    /// Lets through only events whose attribute `key` is `value`; called again, all must hold. It narrows the channels
    /// that are followed, never what is sent to everyone.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for what no event can have, and for the seventeenth term.
    pub fn filter(self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidValue> {
        Ok(Self { selectors: self.selectors, filter: self.filter.and(key.into(), value.into())? })
    }

    /// The selectors, each once.
    #[must_use]
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// What an event's attributes must be.
    #[must_use]
    pub fn wanted(&self) -> &Filter {
        &self.filter
    }
}

/// So that the last step of building may be handed on as it is; what is wrong with it is told by whoever takes it.
impl TryFrom<Result<Self, InvalidValue>> for Subscription {
    type Error = InvalidValue;

    fn try_from(built: Result<Self, InvalidValue>) -> Result<Self, InvalidValue> {
        built
    }
}

/// Attributes that an event must have, all of them, with these values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Filter(Arc<[(String, String)]>);

impl Filter {
    /// Builds a filter from `key:value` terms.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a term without a colon, one that breaks a rule of attributes, and the seventeenth.
    pub fn parse<'a>(terms: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidValue> {
        let mut parsed = Vec::new();
        for term in terms {
            let (key, value) =
                term.split_once(':').ok_or_else(|| InvalidValue::new("filter", "must be key:value"))?;
            parsed.push((key.to_owned(), value.to_owned()));
        }
        Self::of(parsed)
    }

    fn and(self, key: String, value: String) -> Result<Self, InvalidValue> {
        Self::of(self.0.iter().cloned().chain([(key, value)]).collect())
    }

    fn of(mut parsed: Vec<(String, String)>) -> Result<Self, InvalidValue> {
        for (key, value) in &parsed {
            check_attribute("filter", key, value)?;
        }
        parsed.sort_unstable();
        parsed.dedup();
        if parsed.len() > Attributes::MAX {
            return Err(InvalidValue::new("filter", format!("must be at most {}", Attributes::MAX)));
        }
        Ok(Self(parsed.into()))
    }

    /// Whether an event with these attributes passes.
    #[must_use]
    pub fn admits(&self, attributes: &Attributes) -> bool {
        self.0.iter().all(|(key, value)| attributes.get(key) == Some(value))
    }
}

/// All that reaches one client: what it subscribed to, its session's inbox, and what is for everyone.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Whose inbox it hears.
    pub session: SessionId,
    /// What it asked for.
    pub subscription: Subscription,
}

impl Interest {
    /// Whether an event of these channels and attributes is for this client. The filter narrows the channels that it
    /// asked for and nothing else.
    #[must_use]
    pub fn covers(&self, channels: &[Channel], attributes: &Attributes) -> bool {
        channels.iter().any(|channel| match channel.reach() {
            Reach::Everyone => true,
            Reach::Session(session) => session == self.session,
            Reach::Followers => self.selects(channel) && self.subscription.filter.admits(attributes),
        })
    }

    /// Whether an event is for this client.
    #[must_use]
    pub fn covers_event(&self, event: &Draft) -> bool {
        self.covers(&event.channels, &event.attributes)
    }

    /// Whether a channel is one that this client hears.
    #[must_use]
    pub fn selects(&self, channel: &Channel) -> bool {
        match channel.reach() {
            Reach::Everyone => true,
            Reach::Session(session) => session == self.session,
            Reach::Followers => self.subscription.selectors.iter().any(|selector| selector.matches(channel)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_made_of_key_value_terms() {
        assert!(Filter::parse(["kind:system", "kind:a:b", "x:"]).is_ok());
        for bad in ["kind", ":v", "k\n:v"] {
            assert!(Filter::parse([bad]).is_err(), "{bad:?}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("k{n}:v")).collect();
        assert!(Filter::parse(many.iter().map(String::as_str)).is_err());
    }

    #[test]
    fn a_subscription_is_built_step_by_step() {
        let selectors = ["b", "a/*"].map(|text| Selector::new(text).expect("valid"));
        let filter = Filter::parse(["kind:a:b", "x:1"]).expect("valid");
        let built = Subscription::to("a/*").and_then(|subscription| subscription.and("b"));
        let built = built.and_then(|built| built.and("b")?.filter("x", "1")?.filter("kind", "a:b"));
        assert_eq!(built, Ok(Subscription::new(selectors, filter)));
        assert!(Subscription::default().filter("", "x").is_err());
        assert!(Subscription::to("a/**/b").is_err());
        assert!(Subscription::default().and("$everyone").is_err());
    }

    #[test]
    fn all_terms_of_a_filter_must_hold() {
        let mut attributes = Attributes::default();
        attributes.insert("a".into(), "1".into()).expect("valid");
        attributes.insert("b".into(), "2".into()).expect("valid");
        assert!(Filter::parse(["a:1", "b:2"]).expect("valid").admits(&attributes));
        assert!(!Filter::parse(["a:1", "b:3"]).expect("valid").admits(&attributes));
        assert!(!Filter::parse(["a:1", "a:2"]).expect("valid").admits(&attributes));
        assert!(Filter::default().admits(&attributes));
    }
}
