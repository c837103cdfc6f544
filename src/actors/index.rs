//! From a channel to what is kept under the selectors that match it.

use std::collections::HashMap;

use super::spare::Spare;
use crate::channel::{Channel, Selector};

/// A `T` for each selector, found by the channels that it matches.
///
/// A look-up costs one hash for the exact name and a walk along the wildcards that share segments with it, whatever
/// the number of other selectors.
#[derive(Debug)]
pub(crate) struct SelectorIndex<T> {
    exact: HashMap<Channel, T>,
    patterns: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    literal: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    /// A pattern that ends here.
    here: Option<T>,
    /// A pattern that goes on from here with `**`.
    rest: Option<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literal: HashMap::new(), any: None, here: None, rest: None }
    }
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), patterns: Node::default() }
    }
}

impl<T> SelectorIndex<T> {
    /// The number of selectors without a wildcard.
    pub(crate) fn exact_len(&self) -> usize {
        self.exact.len()
    }

    /// Calls `f` with what is kept under each selector that matches `channel`.
    pub(crate) fn for_each_match<'a>(&'a self, channel: &Channel, mut f: impl FnMut(&'a T)) {
        if let Some(found) = self.exact.get(channel) {
            f(found);
        }
        if !self.patterns.is_empty() {
            self.patterns.walk(Some(channel.as_str()), &mut f);
        }
    }

    /// What is kept under `selector`; nothing at first.
    pub(crate) fn entry(&mut self, selector: &Selector) -> &mut T
    where
        T: Default,
    {
        if let Some(channel) = selector.as_exact() {
            return self.exact.entry(channel).or_default();
        }
        let mut node = &mut self.patterns;
        for segment in selector.as_str().split('/') {
            node = match segment {
                "**" => return node.rest.get_or_insert_default(),
                "*" => node.any.get_or_insert_default(),
                literal => node.literal.entry(literal.into()).or_default(),
            };
        }
        node.here.get_or_insert_default()
    }

    /// Changes what is kept under `selector` and drops it when `keep` says that nothing is left of it.
    pub(crate) fn update(&mut self, selector: &Selector, keep: impl FnOnce(&mut T) -> bool) {
        let Some(channel) = selector.as_exact() else {
            self.patterns.update(selector.as_str().split('/'), keep);
            return;
        };
        if self.exact.get_mut(&channel).is_some_and(|kept| !keep(kept)) {
            self.exact.remove(&channel);
            self.exact.give_back();
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.here.is_none() && self.rest.is_none()
    }

    fn walk<'a>(&'a self, path: Option<&str>, f: &mut impl FnMut(&'a T)) {
        if let Some(rest) = &self.rest {
            f(rest);
        }
        let Some(path) = path else {
            if let Some(here) = &self.here {
                f(here);
            }
            return;
        };
        let (segment, path) = match path.split_once('/') {
            Some((segment, path)) => (segment, Some(path)),
            None => (path, None),
        };
        if let Some(any) = &self.any {
            any.walk(path, f);
        }
        if let Some(literal) = self.literal.get(segment) {
            literal.walk(path, f);
        }
    }

    fn update<'a>(&mut self, mut path: impl Iterator<Item = &'a str>, keep: impl FnOnce(&mut T) -> bool) {
        match path.next() {
            None => {
                self.here.take_if(|kept| !keep(kept));
            }
            Some("**") => {
                self.rest.take_if(|kept| !keep(kept));
            }
            Some("*") => {
                if let Some(any) = &mut self.any {
                    any.update(path, keep);
                    self.any.take_if(|any| any.is_empty());
                }
            }
            Some(segment) => {
                if let Some(literal) = self.literal.get_mut(segment) {
                    literal.update(path, keep);
                    if literal.is_empty() {
                        self.literal.remove(segment);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selector_text() -> impl Strategy<Value = String> {
        (prop::collection::vec("[ab]|\\*", 1..4), any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest {
                segments.push("**".into());
            }
            segments.join("/")
        })
    }

    proptest! {
        /// The index finds exactly the selectors that match by themselves, also after some were removed.
        #[test]
        fn finds_what_matches(
            texts in prop::collection::hash_set(selector_text(), 0..12),
            removed in prop::collection::hash_set(0usize..12, 0..6),
            name in prop::collection::vec("[abc]", 1..5),
        ) {
            let channel = Channel::new(name.join("/")).expect("valid");
            let selectors: Vec<_> = texts.iter().map(|text| Selector::new(text).expect("valid")).collect();
            let mut index = SelectorIndex::<Option<usize>>::default();
            for (n, selector) in selectors.iter().enumerate() {
                *index.entry(selector) = Some(n);
            }
            for n in &removed {
                if let Some(selector) = selectors.get(*n) {
                    index.update(selector, |_| false);
                }
            }
            let mut found = Vec::new();
            index.for_each_match(&channel, |n| found.extend(*n));
            found.sort_unstable();
            let expected: Vec<_> = (0..selectors.len())
                .filter(|n| !removed.contains(n) && selectors[*n].matches(&channel))
                .collect();
            prop_assert_eq!(found, expected);
            for selector in &selectors {
                index.update(selector, |_| false);
            }
            prop_assert!(index.exact.is_empty() && index.patterns.is_empty());
        }
    }
}
