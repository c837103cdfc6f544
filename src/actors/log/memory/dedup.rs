//! Remembers for a while which ids were published. Pure.

use std::collections::{HashMap, VecDeque};

use crate::actors::log::WINDOW;
use crate::actors::spare::Spare;
use crate::cursor::Seq;
use crate::event::EventId;
use crate::identity::Publisher;

type Key = (Publisher, EventId);

/// The ids of the window, and where their events stand. Events whose id was minted are not in it.
///
/// Moments are milliseconds of whatever clock the log goes by: what is known depends on them and on the order of the
/// ids alone, so that whoever sees the same ids decides the same.
#[derive(Debug)]
pub(super) struct Dedup {
    max: usize,
    known: HashMap<Key, (Seq, u64)>,
    order: VecDeque<(u64, Key)>,
}

impl Dedup {
    pub(super) fn new(max: usize) -> Self {
        Self { max, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn find(&mut self, key: &Key, now: u64) -> Option<Seq> {
        self.forget(now);
        self.known.get(key).filter(|(_, since)| !is_over(*since, now)).map(|(seq, _)| *seq)
    }

    pub(super) fn remember(&mut self, key: Key, seq: Seq, now: u64) {
        self.known.insert(key.clone(), (seq, now));
        self.order.push_back((now, key));
        self.forget(now);
    }

    fn forget(&mut self, now: u64) {
        while let Some((since, _)) = self.order.front()
            // For twice as long as it counts: a clock may go back.
            && (self.order.len() > self.max || is_over(since + WINDOW.as_millis() as u64, now))
            && let Some((since, key)) = self.order.pop_front()
        {
            // It may have come again, and then stands further back.
            if self.known.get(&key).is_some_and(|(_, at)| *at == since) {
                self.known.remove(&key);
            }
            self.known.give_back();
            self.order.give_back();
        }
    }
}

fn is_over(since: u64, now: u64) -> bool {
    now.saturating_sub(since) >= WINDOW.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(publisher: &str, id: &str) -> Key {
        (Publisher::named(publisher), EventId::new(id).expect("valid"))
    }

    #[test]
    fn an_id_is_known_for_the_window_and_per_publisher() {
        let (mut dedup, start, window) = (Dedup::new(10), 1_000, WINDOW.as_millis() as u64);
        dedup.remember(key("ada", "x"), 7, start);
        assert_eq!(dedup.find(&key("ada", "x"), start + window - 1), Some(7));
        assert_eq!(dedup.find(&key("bob", "x"), start), None);
        assert_eq!(dedup.find(&key("ada", "x"), start + window), None);
        assert_eq!(dedup.find(&key("ada", "x"), start), Some(7), "a clock that went back");
        assert_eq!(dedup.find(&key("ada", "x"), start + 2 * window), None);
        assert!(dedup.known.is_empty() && dedup.order.is_empty());
    }

    #[test]
    fn the_oldest_id_goes_when_there_are_too_many() {
        let (mut dedup, now) = (Dedup::new(2), 5);
        for (n, id) in ["a", "b", "c"].iter().enumerate() {
            dedup.remember(key("ada", id), n as Seq, now);
        }
        assert_eq!(dedup.find(&key("ada", "a"), now), None);
        assert_eq!(dedup.find(&key("ada", "c"), now), Some(2));
    }
}
