//! What a binding is made of: the attributes that an event must have, and those that it then gets.

use crate::error::InvalidValue;
use crate::event::{Attributes, check_attribute};

/// Keys and values as somebody wrote them down, for [`Bind`](crate::Bind) and [`Unbind`](crate::Unbind), which
/// check them.
///
/// ```
/// use fanfare::Pairs;
///
/// let one: Pairs = [("connector", "c"), ("native_session", "s")].into();
/// let same: Pairs = vec![("connector", "c"), ("native_session", "s")].into_iter().collect();
/// assert_eq!(one, same);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs(Vec<(String, String)>);

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Pairs {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Pairs {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Pairs {
    /// As attributes, if they keep their rules; `field` is named if not.
    pub(crate) fn attributes(&self, field: &'static str) -> Result<Attributes, InvalidValue> {
        if self.0.is_empty() {
            return Err(InvalidValue::new(field, "must not be empty"));
        }
        if self.0.len() > Attributes::MAX {
            return Err(InvalidValue::new(field, format!("must be at most {}", Attributes::MAX)));
        }
        let mut attributes = Attributes::default();
        for (key, value) in &self.0 {
            check_attribute(field, key, value)?;
            if attributes.get(key).is_some() {
                return Err(InvalidValue::new(field, "must not have a key twice"));
            }
            attributes.insert(key.clone(), value.clone())?;
        }
        Ok(attributes)
    }
}

/// A binding that some event could meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub(crate) when: Attributes,
    pub(crate) set: Attributes,
}

impl Binding {
    pub(crate) fn new(when: &Pairs, set: &Pairs) -> Result<Self, InvalidValue> {
        let (when, set) = (when.attributes("when")?, set.attributes("set")?);
        if when.iter().any(|(key, _)| set.get(key).is_some()) {
            // It could never be set: an event that has all of `when` has it already.
            return Err(InvalidValue::new("set", "must not have a key of when"));
        }
        if when.len() + set.len() > Attributes::MAX {
            let rule = format!("must be at most {} together with when", Attributes::MAX);
            return Err(InvalidValue::new("set", rule));
        }
        Ok(Self { when, set })
    }

    /// Whether an event can be published with this binding and be routed by it.
    pub(crate) fn check_event(&self, attributes: &Attributes) -> Result<(), InvalidValue> {
        if !attributes.contain(&self.when) {
            return Err(InvalidValue::new("attributes", "must have all of the binding's when"));
        }
        let mut attributes = attributes.clone();
        attributes.complete(&self.set);
        check_count(&attributes)
    }
}

/// A change of the bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebinding {
    /// This one is made, in the place of one with the same `when`.
    Bind(Binding),
    /// The one with this `when` is forgotten.
    Unbind(Attributes),
}

impl Rebinding {
    #[cfg(feature = "nats")]
    pub(crate) fn when(&self) -> &Attributes {
        match self {
            Self::Bind(binding) => &binding.when,
            Self::Unbind(when) => when,
        }
    }
}

/// Whether an event may have so many attributes now that bindings have added theirs.
pub(crate) fn check_count(attributes: &Attributes) -> Result<(), InvalidValue> {
    if attributes.len() > Attributes::MAX {
        let rule = format!("must be at most {}, with those that bindings set", Attributes::MAX);
        return Err(InvalidValue::new("attributes", rule));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn fault(when: impl Into<Pairs>, set: impl Into<Pairs>) -> (&'static str, String) {
        let invalid = Binding::new(&when.into(), &set.into()).expect_err("refused");
        (invalid.field(), invalid.rule().to_owned())
    }

    fn many(prefix: &str, count: usize) -> Pairs {
        (0..count).map(|n| (format!("{prefix}{n}"), "v")).collect()
    }

    #[test]
    fn what_can_be_wrong_is_refused_with_its_field_and_rule() {
        let good = || Pairs::from([("a", "1")]);
        assert_eq!(fault(Pairs::default(), good()), ("when", "must not be empty".into()));
        assert_eq!(fault(good(), Pairs::default()), ("set", "must not be empty".into()));
        assert_eq!(fault(good(), [("a", "2")]), ("set", "must not have a key of when".into()));
        assert_eq!(fault([("b", "1"), ("b", "2")], good()), ("when", "must not have a key twice".into()));
        assert_eq!(fault(good(), [("b\n", "1")]), ("set", "must not have a control character".into()));
        assert_eq!(fault([("", "1")], good()), ("when", "must not have an empty key".into()));
        let long = "v".repeat(Attributes::MAX_VALUE_BYTES + 1);
        assert_eq!(fault([("b", long)], good()).0, "when");
        assert_eq!(fault(many("w", 17), good()), ("when", "must be at most 16".into()));
        assert_eq!(
            fault(many("w", 8), many("s", 9)),
            ("set", "must be at most 16 together with when".into())
        );
        assert!(Binding::new(&many("w", 8), &many("s", 8)).is_ok());
    }

    #[test]
    fn an_event_that_the_binding_could_not_route_is_refused() {
        let binding = Binding::new(&[("alias", "a")].into(), &many("s", 8)).expect("valid");
        let event = |count: usize, alias: &str| {
            let mut event = Event::text("x", "").expect("valid").attribute("alias", alias).expect("valid");
            for n in 1..count {
                event = event.attribute(format!("own{n}"), "v").expect("valid");
            }
            event.attributes
        };
        assert!(binding.check_event(&event(8, "a")).is_ok());
        for bad in [event(9, "a"), event(1, "b")] {
            assert_eq!(binding.check_event(&bad).expect_err("refused").field(), "attributes");
        }
    }
}
