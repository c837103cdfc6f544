//! What a client wants to hear.

use std::ops::Deref;
use std::sync::Arc;

use crate::channel::{Channel, Reach, Selector};
use crate::cursor::{Cursor, Seq, Tag};
use crate::error::InvalidValue;
use crate::event::{Attributes, check_attribute};
use crate::identity::SessionId;
use crate::record::Draft;

/// What a client follows: selectors, each with the filter put on it. Two clients with the same hear the same, their
/// sessions' own messages aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// One for each filter, in the filters' order. There is always one, so that a filter may come before its selectors.
    groups: Arc<[Group]>,
}

/// Selectors under one filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Group {
    selectors: Selectors,
    filter: Filter,
}

/// Selectors in their order, each once. Most clients follow one thing, and there may be very many of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Selectors {
    One(Selector),
    Other(Arc<[Selector]>),
}

impl Default for Selectors {
    fn default() -> Self {
        Self::Other(Arc::default())
    }
}

impl From<Vec<Selector>> for Selectors {
    fn from(mut selectors: Vec<Selector>) -> Self {
        match selectors.len() {
            0 => Self::default(),
            1 => selectors.pop().map_or_else(Self::default, Self::One),
            _ => Self::Other(selectors.into()),
        }
    }
}

impl Deref for Selectors {
    type Target = [Selector];

    fn deref(&self) -> &[Selector] {
        match self {
            Self::One(selector) => std::slice::from_ref(selector),
            Self::Other(selectors) => selectors,
        }
    }
}

impl Group {
    fn new(selectors: impl IntoIterator<Item = Selector>, filter: Filter) -> Self {
        let mut selectors: Vec<_> = selectors.into_iter().collect();
        selectors.sort_unstable();
        selectors.dedup();
        Self { selectors: selectors.into(), filter }
    }

    /// What the position of one of its selectors is called in a cursor.
    fn tag(&self, selector: &Selector) -> Tag {
        let filter = self.filter.0.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
        Tag::of([selector.as_str().as_bytes()].into_iter().chain(filter))
    }

    fn selects(&self, channel: &Channel) -> bool {
        self.selectors.iter().any(|selector| selector.matches(channel))
    }
}

impl Subscription {
    /// Follows whatever one of `selectors` selects and `filter` lets through.
    pub fn new(selectors: impl IntoIterator<Item = Selector>, filter: Filter) -> Self {
        Self { groups: [Group::new(selectors, filter)].into() }
    }

    /// Follows the channels that `selector` selects: a channel's name, or a pattern (`*` is one segment, `**` at the end
    /// any number).
    ///
    /// ```
    /// use fanfare::Subscription;
    ///
    /// let alerts = Subscription::to("alerts/**")?.and("orders/7")?.filter("kind", "system")?;
    /// assert_eq!(alerts.selectors().count(), 2);
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

    /// Follows the channels that `selector` selects as well, under the same filter. An event comes once, however many
    /// selectors match.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the selector breaks.
    pub fn and(self, selector: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let selector = Selector::new(selector)?;
        Ok(self.regrouped(|group| {
            Group::new(group.selectors.iter().cloned().chain([selector.clone()]), group.filter.clone())
        }))
    }

    /// Lets through only events whose attribute `key` is `value`; called again, all must hold. It narrows the channels
    /// that are followed, never what is sent to everyone.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for what no event can have, and for the seventeenth term.
    pub fn filter(self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidValue> {
        let (key, value) = (key.into(), value.into());
        let groups = self.groups.iter().map(|group| {
            Ok(Group {
                selectors: group.selectors.clone(),
                filter: group.filter.clone().and(key.clone(), value.clone())?,
            })
        });
        Ok(Self::of(groups.collect::<Result<_, InvalidValue>>()?))
    }

    /// Follows what either follows: what one of them lets through is let through.
    ///
    /// ```
    /// use fanfare::Subscription;
    ///
    /// let system = Subscription::to("alerts/**")?.filter("kind", "system")?;
    /// let both = system.clone().or(&Subscription::to("orders/7")?);
    /// assert_eq!(both.selectors().count(), 2);
    /// assert_eq!(both.clone().or(&system), both);
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self::of(self.groups.iter().chain(other.groups.iter()).cloned().collect())
    }

    /// Follows `selectors` no more, whatever the filter they were under. What follows the same by a wider selector goes
    /// on.
    #[must_use]
    pub fn without(self, selectors: &[Selector]) -> Self {
        self.regrouped(|group| {
            let left = group.selectors.iter().filter(|selector| !selectors.contains(selector));
            Group::new(left.cloned(), group.filter.clone())
        })
    }

    /// The selectors, each once.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.groups.iter().enumerate().flat_map(|(at, group)| {
            let earlier = self.groups.get(..at).unwrap_or_default();
            group.selectors.iter().filter(move |selector| {
                earlier.iter().all(|group| group.selectors.binary_search(selector).is_err())
            })
        })
    }

    /// What the positions of its selectors are called in a cursor while they catch up.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.groups.iter().flat_map(|group| group.selectors.iter().map(|selector| group.tag(selector)))
    }

    /// The same as one subscription for each selector and filter.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> {
        self.groups.iter().flat_map(|group| {
            let one = |selector: &Selector| Self::new([selector.clone()], group.filter.clone());
            group.selectors.iter().map(one)
        })
    }

    /// How many selectors there are, those under several filters counted with each.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.selectors.len()).sum()
    }

    /// Whether nothing is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.selectors.is_empty())
    }

    /// Whether an event with these attributes on a channel that people follow is let through.
    #[must_use]
    pub fn admits(&self, channel: &Channel, attributes: &Attributes) -> bool {
        self.groups.iter().any(|group| group.filter.admits(attributes) && group.selects(channel))
    }

    /// Whether some of it is let through only with the right attributes.
    pub(crate) fn is_filtered(&self) -> bool {
        self.groups.iter().any(|group| !group.filter.is_empty())
    }

    fn selects(&self, channel: &Channel) -> bool {
        self.groups.iter().any(|group| group.selects(channel))
    }

    fn regrouped(self, change: impl FnMut(&Group) -> Group) -> Self {
        Self::of(self.groups.iter().map(change).collect())
    }

    /// One group for each filter, in order, so that the same is equal however it was put together.
    fn of(mut groups: Vec<Group>) -> Self {
        groups.sort_by(|a, b| a.filter.cmp(&b.filter));
        groups.dedup_by(|next, group| {
            let is_same = next.filter == group.filter;
            if is_same && next.selectors != group.selectors {
                let both = group.selectors.iter().chain(next.selectors.iter()).cloned();
                *group = Group::new(both, group.filter.clone());
            }
            is_same
        });
        if groups.iter().any(|group| !group.selectors.is_empty()) {
            groups.retain(|group| !group.selectors.is_empty());
        } else {
            groups.truncate(1);
        }
        Self { groups: groups.into() }
    }
}

impl Default for Subscription {
    fn default() -> Self {
        Self::new([], Filter::default())
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
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

    pub(crate) fn of(mut parsed: Vec<(String, String)>) -> Result<Self, InvalidValue> {
        for (key, value) in &parsed {
            check_attribute("filter", key, value)?;
        }
        parsed.sort_unstable();
        parsed.dedup();
        if parsed.len() > Attributes::MAX {
            return Err(InvalidValue::new("filter", format!("must be at most {}", Attributes::MAX)));
        }
        // Most filters are empty, and the empty one is made once for all.
        Ok(if parsed.is_empty() { Self::default() } else { Self(parsed.into()) })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// Whether it hears its inbox and what is for everyone.
    hears_inbox: bool,
}

impl Interest {
    pub(crate) fn new(session: SessionId, subscription: Subscription) -> Self {
        Self { session, subscription, hears_inbox: true }
    }

    /// What it asked for, and nothing else.
    pub(crate) fn without_inbox(mut self) -> Self {
        self.hears_inbox = false;
        self
    }

    /// The channels that are heard by their names, the session's inbox and everyone's among them.
    pub fn named(&self) -> impl Iterator<Item = Channel> {
        let inbox = self.hears_inbox.then(|| [Channel::everyone(), Channel::inbox(self.session)]);
        let named = self.subscription.selectors().filter_map(Selector::as_exact);
        named.chain(inbox.into_iter().flatten())
    }

    fn hears(&self, reach: Reach) -> bool {
        self.hears_inbox && (reach == Reach::Everyone || reach == Reach::Session(self.session))
    }

    /// Whether an event of these channels and attributes is for this client. The filter narrows the channels that it
    /// asked for and nothing else.
    #[must_use]
    pub fn covers(&self, channels: &[Channel], attributes: &Attributes) -> bool {
        channels.iter().any(|channel| match channel.reach() {
            Reach::Followers => self.subscription.admits(channel, attributes),
            inbox => self.hears(inbox),
        })
    }

    /// What the position of the inbox, and of what is for everyone, is called in a cursor.
    pub(crate) fn inbox_tag() -> Tag {
        Tag::of([b"$".as_slice()])
    }

    /// The lowest and the highest of the positions that `cursor` says this is at.
    pub(crate) fn positions_in(&self, cursor: &Cursor) -> (Seq, Seq) {
        let inbox = self.hears_inbox.then(Self::inbox_tag);
        let named: Vec<_> = self.subscription.tags().chain(inbox).collect();
        let positions = || named.iter().map(|&tag| cursor.position_of(tag));
        (positions().min().unwrap_or(cursor.seq()), positions().max().unwrap_or(cursor.seq()))
    }

    /// Whether a client at `cursor`, which may stand for several positions, has had the event at `seq`: by everything
    /// that it is for. What is further than the rest may have been followed only lately.
    pub(crate) fn has_had(&self, cursor: &Cursor, event: &Draft, seq: Seq) -> bool {
        let groups = &self.subscription.groups;
        let mut lowest = None;
        let mut is_at = |tag| lowest = Some(cursor.position_of(tag).min(lowest.unwrap_or(Seq::MAX)));
        for channel in event.channels.iter() {
            if self.hears(channel.reach()) {
                is_at(Self::inbox_tag());
            }
            for group in groups.iter().filter(|group| group.filter.admits(&event.attributes)) {
                let matching = group.selectors.iter().filter(|selector| selector.matches(channel));
                matching.for_each(|selector| is_at(group.tag(selector)));
            }
        }
        lowest.is_some_and(|lowest| lowest >= seq)
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
            Reach::Followers => self.subscription.selects(channel),
            inbox => self.hears(inbox),
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
    fn what_is_put_together_is_the_same_in_any_order() {
        let to = |selector| Subscription::to(selector).expect("valid");
        let system = to("a/*").and("b").and_then(|both| both.filter("kind", "system")).expect("valid");
        let joined = system.clone().or(&to("b")).or(&to("c"));
        assert_eq!(joined, to("c").or(&to("b").or(&system)));
        assert_eq!(joined.selectors().map(Selector::as_str).collect::<Vec<_>>(), ["b", "c", "a/*"]);
        assert_eq!(joined.tags().collect::<std::collections::BTreeSet<_>>().len(), 4, "each its own");
        let selector = |text| Selector::new(text).expect("valid");
        assert_eq!(joined.clone().without(&[selector("b"), selector("c")]).selectors().count(), 1);
        assert_eq!(joined.clone().without(&[selector("a/1")]), joined);
        assert!(system.without(&[selector("a/*"), selector("b")]).is_empty());
        let (b, mut attributes) = (Channel::new("b").expect("valid"), Attributes::default());
        assert!(joined.admits(&b, &attributes), "one of the two filters lets it through");
        let a = Channel::new("a/1").expect("valid");
        assert!(!joined.admits(&a, &attributes));
        attributes.insert("kind".into(), "system".into()).expect("valid");
        assert!(joined.admits(&a, &attributes));
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
