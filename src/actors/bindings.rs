//! Which attributes an event gets from those that it has. Pure: the time comes in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spare::Spare;
use crate::binding::{Binding, check_count};
use crate::error::InvalidValue;
use crate::event::Attributes;

/// As many different sets of keys as the bindings may have in their `when`: each costs every event a look.
pub(crate) const MAX_KEY_SETS: usize = 64;

/// How many bindings there are at most, and how long one stays that is not used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindingBounds {
    pub(crate) count: usize,
    pub(crate) idle: Duration,
}

/// The bindings by what an event must have.
///
/// An event costs one look per set of keys in use and nothing per binding: its values for these keys, written down
/// in one way only, are the key of the table.
#[derive(Debug)]
pub(crate) struct Bindings {
    bounds: BindingBounds,
    table: HashMap<Arc<str>, Entry>,
    /// The sets of keys, each with the number of bindings that have it.
    key_sets: BTreeMap<Box<[Box<str>]>, usize>,
    /// By their last use, the oldest first.
    uses: BTreeMap<u64, Arc<str>>,
    /// Counts uses and binds, so that each is told from every other, also within one tick of the clock.
    turn: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    binding: Arc<Binding>,
    /// The turn in which it was bound.
    bound: u64,
    /// The turn of its last use, by which it is found among the uses.
    used: u64,
    used_at: Instant,
}

/// What came of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether there was a binding with the same `when`.
    pub(crate) replaced: bool,
    /// Whether another one had to leave.
    pub(crate) dropped: bool,
}

impl Bindings {
    pub(crate) fn new(bounds: BindingBounds) -> Self {
        Self {
            bounds,
            table: HashMap::new(),
            key_sets: BTreeMap::new(),
            uses: BTreeMap::new(),
            turn: 0,
            dropped: 0,
        }
    }

    /// How many there are.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.table.len()
    }

    /// How many had to leave for others.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether this one can be made now: whoever says yes here may bind it at the same `now`.
    pub(crate) fn check(&mut self, binding: &Binding, now: Instant) -> Result<(), InvalidValue> {
        self.expire(now);
        if self.key_sets.len() < MAX_KEY_SETS || self.key_sets.contains_key(&keys_of(&binding.when)) {
            return Ok(());
        }
        let rule = format!("must have one of at most {MAX_KEY_SETS} different sets of keys in use");
        Err(InvalidValue::new("when", rule))
    }

    /// Makes a binding that was checked. One of the same `when` is replaced; if there is no room, the one that was
    /// unused for longest leaves.
    pub(crate) fn bind(&mut self, binding: Binding, now: Instant) -> Outcome {
        self.expire(now);
        let key: Arc<str> = key_of(binding.when.iter()).into();
        let replaced = self.remove(&key);
        let mut dropped = false;
        while self.table.len() >= self.bounds.count {
            let Some((_, oldest)) = self.uses.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
            self.dropped += 1;
            dropped = true;
        }
        self.turn += 1;
        let turn = self.turn;
        *self.key_sets.entry(keys_of(&binding.when)).or_default() += 1;
        self.uses.insert(turn, key.clone());
        let entry = Entry { binding: Arc::new(binding), bound: turn, used: turn, used_at: now };
        self.table.insert(key, entry);
        Outcome { replaced, dropped }
    }

    /// Forgets the binding of `when`, and says whether there was one.
    pub(crate) fn unbind(&mut self, when: &Attributes, now: Instant) -> bool {
        self.expire(now);
        self.remove(&key_of(when.iter()))
    }

    /// Gives an event what the bindings that it meets set and it does not have. `candidate` counts as bound just
    /// now, in the place of the one with the same `when`.
    ///
    /// Bindings look at the event as it came, so that none sets off another. Of two that set the same key the one
    /// with more in its `when` wins, and of two with as much the newer.
    pub(crate) fn complete(
        &mut self,
        attributes: &mut Attributes,
        candidate: Option<&Binding>,
        now: Instant,
    ) -> Result<(), InvalidValue> {
        self.expire(now);
        let mut met = self.met_by(attributes, now);
        if let Some(candidate) = candidate
            && attributes.contain(&candidate.when)
        {
            met.retain(|(_, binding)| binding.when != candidate.when);
            met.push((u64::MAX, Arc::new(candidate.clone())));
        }
        if met.is_empty() {
            return Ok(());
        }
        met.sort_unstable_by_key(|(bound, binding)| Reverse((binding.when.len(), *bound)));
        for (_, binding) in met {
            attributes.complete(&binding.set);
        }
        check_count(attributes)
    }

    /// The bindings that an event meets, each with the turn in which it was bound. To be met is to be used.
    fn met_by(&mut self, attributes: &Attributes, now: Instant) -> Vec<(u64, Arc<Binding>)> {
        let mut met = Vec::new();
        for keys in self.key_sets.keys() {
            let pairs = keys.iter().map(|key| Some((&**key, attributes.get(key)?)));
            let Some(pairs) = pairs.collect::<Option<Vec<_>>>() else { continue };
            let Some(entry) = self.table.get_mut(key_of(pairs.into_iter()).as_str()) else { continue };
            met.push((entry.bound, entry.binding.clone()));
            self.turn += 1;
            if let Some(key) = self.uses.remove(&entry.used) {
                self.uses.insert(self.turn, key);
            }
            (entry.used, entry.used_at) = (self.turn, now);
        }
        met
    }

    /// Counts as used what an event that was completed elsewhere meets.
    pub(crate) fn touch(&mut self, attributes: &Attributes, now: Instant) {
        if !self.table.is_empty() {
            self.met_by(attributes, now);
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        let Self { bounds, dropped, turn, .. } = *self;
        *self = Self { dropped, turn, ..Self::new(bounds) };
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.uses.first_key_value() {
            let used_at = self.table.get(oldest).map(|entry| entry.used_at);
            if used_at.is_some_and(|at| now.saturating_duration_since(at) < self.bounds.idle) {
                return;
            }
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(entry) = self.table.remove(key) else { return false };
        self.uses.remove(&entry.used);
        let keys = keys_of(&entry.binding.when);
        if let Some(bindings) = self.key_sets.get_mut(&keys) {
            *bindings -= 1;
            if *bindings == 0 {
                self.key_sets.remove(&keys);
            }
        }
        self.table.give_back();
        true
    }
}

/// Attributes in one way only: they come in the order of their keys, and no attribute has a control character.
fn key_of<'a>(attributes: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (key, value) in attributes {
        for part in [key, "\0", value, "\0"] {
            text.push_str(part);
        }
    }
    text
}

fn keys_of(attributes: &Attributes) -> Box<[Box<str>]> {
    attributes.iter().map(|(key, _)| key.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::Pairs;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn bindings(count: usize) -> (Bindings, Instant) {
        (Bindings::new(BindingBounds { count, idle: IDLE }), Instant::now())
    }

    fn binding(when: &[(&str, &str)], set: &[(&str, &str)]) -> Binding {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Pairs>();
        Binding::new(&pairs(when), &pairs(set)).expect("valid")
    }

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        if pairs.is_empty() {
            return Attributes::default();
        }
        pairs.iter().copied().collect::<Pairs>().attributes("attributes").expect("valid")
    }

    fn complete(table: &mut Bindings, event: &[(&str, &str)], now: Instant) -> Attributes {
        let mut event = attributes(event);
        table.complete(&mut event, None, now).expect("not too many");
        event
    }

    #[test]
    fn an_event_with_all_of_when_gets_what_it_misses_of_set() {
        let (mut table, now) = bindings(10);
        table.bind(binding(&[("c", "1"), ("s", "2")], &[("scroll", "x"), ("tenant", "t")]), now);
        let bound = complete(&mut table, &[("s", "2"), ("c", "1"), ("z", "z")], now);
        assert_eq!(
            bound,
            attributes(&[("c", "1"), ("s", "2"), ("scroll", "x"), ("tenant", "t"), ("z", "z")])
        );
        let own = complete(&mut table, &[("c", "1"), ("s", "2"), ("scroll", "own")], now);
        assert_eq!((own.get("scroll"), own.get("tenant")), (Some("own"), Some("t")));
        for other in [&[("c", "1")][..], &[("c", "1"), ("s", "3")], &[("c", "2"), ("s", "1")], &[]] {
            assert_eq!(complete(&mut table, other, now), attributes(other), "{other:?}");
        }
    }

    #[test]
    fn the_more_exact_wins_then_the_newer_and_none_sets_off_another() {
        let (mut table, now) = bindings(10);
        table.bind(binding(&[("a", "1"), ("b", "1")], &[("to", "both")]), now);
        table.bind(binding(&[("a", "1")], &[("to", "a"), ("only", "a")]), now);
        table.bind(binding(&[("b", "1")], &[("to", "b"), ("only", "b")]), now);
        table.bind(binding(&[("to", "both")], &[("chained", "yes")]), now);
        let event = complete(&mut table, &[("a", "1"), ("b", "1")], now);
        assert_eq!(
            (event.get("to"), event.get("only"), event.get("chained")),
            (Some("both"), Some("b"), None)
        );
        // Bound again, it is the newer.
        table.bind(binding(&[("a", "1")], &[("only", "a again")]), now);
        let event = complete(&mut table, &[("a", "1"), ("b", "1")], now);
        assert_eq!(event.get("only"), Some("a again"));
        assert_eq!(complete(&mut table, &[("a", "1")], now).get("to"), None, "what it set before is gone");
    }

    #[test]
    fn binding_again_replaces_and_unbinding_is_idempotent() {
        let (mut table, now) = bindings(1);
        let fresh = Outcome { replaced: false, dropped: false };
        assert_eq!(table.bind(binding(&[("a", "1"), ("b", "2")], &[("to", "x")]), now), fresh);
        let again = table.bind(binding(&[("b", "2"), ("a", "1")], &[("to", "y")]), now);
        assert_eq!(again, Outcome { replaced: true, dropped: false });
        assert_eq!(complete(&mut table, &[("a", "1"), ("b", "2")], now).get("to"), Some("y"));
        assert!(!table.unbind(&attributes(&[("a", "1")]), now));
        assert!(table.unbind(&attributes(&[("a", "1"), ("b", "2")]), now));
        assert!(!table.unbind(&attributes(&[("a", "1"), ("b", "2")]), now));
        assert_eq!(complete(&mut table, &[("a", "1"), ("b", "2")], now).get("to"), None);
        assert!(table.key_sets.is_empty() && table.uses.is_empty() && table.table.capacity() == 0);
    }

    #[test]
    fn a_full_table_drops_what_was_unused_for_longest() {
        let (mut table, now) = bindings(2);
        table.bind(binding(&[("a", "1")], &[("to", "1")]), now);
        table.bind(binding(&[("a", "2")], &[("to", "2")]), now);
        // Used in the same tick of the clock, so the other one is older.
        complete(&mut table, &[("a", "1")], now);
        assert!(table.bind(binding(&[("a", "3")], &[("to", "3")]), now).dropped);
        let found: Vec<_> =
            ["1", "2", "3"].map(|a| complete(&mut table, &[("a", a)], now).get("to").is_some()).into();
        assert_eq!(found, [true, false, true]);
        assert_eq!((table.count(now), table.dropped()), (2, 1));
    }

    #[test]
    fn what_is_not_used_for_its_time_leaves() {
        let (mut table, start) = bindings(10);
        let just_before = start + IDLE - Duration::from_millis(1);
        table.bind(binding(&[("a", "used")], &[("to", "x")]), start);
        table.bind(binding(&[("a", "unused")], &[("to", "x")]), start);
        assert_eq!(table.count(just_before), 2);
        complete(&mut table, &[("a", "used")], just_before);
        assert_eq!(complete(&mut table, &[("a", "unused")], start + IDLE).get("to"), None);
        assert_eq!(complete(&mut table, &[("a", "used")], start + IDLE).get("to"), Some("x"));
        assert_eq!((table.count(start + IDLE), table.dropped()), (1, 0));
        assert_eq!(table.count(start + IDLE * 2), 0);
        assert!(table.key_sets.is_empty() && table.uses.is_empty());
    }

    #[test]
    fn too_many_attributes_are_refused() {
        let (mut table, now) = bindings(10);
        table.bind(binding(&[("a", "1")], &[("x", "1"), ("y", "1")]), now);
        let names: Vec<_> = (0..13).map(|n| n.to_string()).collect();
        let mut pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        pairs.push(("a", "1"));
        assert_eq!(complete(&mut table, &pairs, now).len(), 16);
        pairs.push(("one", "more"));
        let refused = table.complete(&mut attributes(&pairs), None, now).expect_err("17");
        assert_eq!(
            (refused.field(), refused.rule()),
            ("attributes", "must be at most 16, with those that bindings set")
        );
    }

    #[test]
    fn a_candidate_counts_as_bound_and_leaves_the_table_as_it_was() {
        let (mut table, now) = bindings(10);
        table.bind(binding(&[("a", "1")], &[("to", "old"), ("old", "only")]), now);
        let candidate = binding(&[("a", "1")], &[("to", "new")]);
        let mut event = attributes(&[("a", "1")]);
        table.complete(&mut event, Some(&candidate), now).expect("not too many");
        assert_eq!((event.get("to"), event.get("old")), (Some("new"), None));
        assert_eq!(complete(&mut table, &[("a", "1")], now).get("to"), Some("old"));
    }

    #[test]
    fn sets_of_keys_are_few() {
        let (mut table, now) = bindings(1000);
        for n in 0..MAX_KEY_SETS {
            let next = binding(&[(&n.to_string(), "1")], &[("to", "x")]);
            assert!(table.check(&next, now).is_ok());
            table.bind(next, now);
        }
        let another = binding(&[("another", "1")], &[("to", "x")]);
        assert_eq!(table.check(&another, now).expect_err("one too many").field(), "when");
        assert!(table.check(&binding(&[("0", "2")], &[("to", "x")]), now).is_ok());
        table.unbind(&attributes(&[("0", "1")]), now);
        assert!(table.check(&another, now).is_ok());
    }

    /// What the table answers is what looking at each binding in turn would.
    fn by_hand(bound: &[Binding], event: &Attributes) -> Attributes {
        let mut met: Vec<_> = bound.iter().enumerate().filter(|(_, b)| event.contain(&b.when)).collect();
        met.sort_by_key(|(at, binding)| (binding.when.len(), *at));
        let mut out = event.clone();
        for (_, binding) in met.iter().rev() {
            out.complete(&binding.set);
        }
        out
    }

    fn some(keys: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let all = proptest::sample::subsequence(keys, 1..=keys.len());
        (all, prop::collection::vec(prop::sample::select(vec!["1", "2"]), keys.len()))
            .prop_map(|(keys, values)| keys.into_iter().zip(values).collect())
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_search_finds(
            steps in prop::collection::vec((some(&["a", "b", "c"]), some(&["x", "y"]), 0..4u8), 1..40),
            event in some(&["a", "b", "c", "x"]),
        ) {
            let (mut table, now) = bindings(1000);
            let mut bound: Vec<Binding> = Vec::new();
            for (when, set, kind) in steps {
                let next = binding(&when, &set);
                let before = bound.len();
                bound.retain(|known| known.when != next.when);
                let was_there = bound.len() < before;
                if kind == 0 {
                    prop_assert_eq!(table.unbind(&next.when, now), was_there);
                } else {
                    bound.push(next.clone());
                    prop_assert_eq!(table.bind(next, now).replaced, was_there);
                }
                let event = attributes(&event);
                let mut found = event.clone();
                table.complete(&mut found, None, now).expect("few");
                prop_assert_eq!(found, by_hand(&bound, &event));
                prop_assert_eq!(table.count(now), bound.len());
                prop_assert_eq!(table.uses.len(), bound.len());
            }
        }
    }
}
