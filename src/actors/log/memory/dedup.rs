//! Remembers for a while which ids were published. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::cursor::Seq;
use crate::event::EventId;
use crate::identity::Publisher;

/// How long an id is remembered.
const WINDOW: Duration = Duration::from_secs(120);

type Key = (Publisher, EventId);

/// The ids of the window, and where their events stand. Events whose id was minted are not in it.
#[derive(Debug)]
pub(super) struct Dedup {
    max: usize,
    known: HashMap<Key, Seq>,
    order: VecDeque<(Instant, Key)>,
}

impl Dedup {
    pub(super) fn new(max: usize) -> Self {
        Self { max, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<Seq> {
        self.forget(now);
        self.known.get(key).copied()
    }

    pub(super) fn remember(&mut self, key: Key, seq: Seq, now: Instant) {
        self.known.insert(key.clone(), seq);
        self.order.push_back((now, key));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front()
            && (self.order.len() > self.max || now.saturating_duration_since(*since) >= WINDOW)
            && let Some((_, key)) = self.order.pop_front()
        {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(publisher: &str, id: &str) -> Key {
        (Publisher::named(publisher), EventId::new(id).expect("valid"))
    }

    #[test]
    fn an_id_is_known_for_the_window_and_per_publisher() {
        let (mut dedup, start) = (Dedup::new(10), Instant::now());
        dedup.remember(key("ada", "x"), 7, start);
        assert_eq!(dedup.find(&key("ada", "x"), start + WINDOW - Duration::from_millis(1)), Some(7));
        assert_eq!(dedup.find(&key("bob", "x"), start), None);
        assert_eq!(dedup.find(&key("ada", "x"), start + WINDOW), None);
        assert!(dedup.known.is_empty() && dedup.order.is_empty());
    }

    #[test]
    fn the_oldest_id_goes_when_there_are_too_many() {
        let (mut dedup, now) = (Dedup::new(2), Instant::now());
        for (n, id) in ["a", "b", "c"].iter().enumerate() {
            dedup.remember(key("ada", id), n as Seq, now);
        }
        assert_eq!(dedup.find(&key("ada", "a"), now), None);
        assert_eq!(dedup.find(&key("ada", "c"), now), Some(2));
    }
}
