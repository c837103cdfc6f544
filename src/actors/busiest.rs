//! Which channels have the most events, in a memory that does not grow with their number. Pure.
//!
//! Space-saving (Metwally, Agrawal, El Abbadi 2005): so many channels are counted; one that is not takes the place of the
//! one with the fewest events, and takes over its count as a possible error. Whatever has more events than all of them
//! divided by the number of places is among those that are counted. Counted is by windows, so that what was busy once
//! is forgotten.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::channel::{Channel, Reach};
use crate::counts::{self, BusyChannel};

/// How many channels are counted at a time.
const PLACES: usize = 64;
/// How many are told.
const TOLD: usize = 10;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Counted {
    channel: Channel,
    events: u64,
    error: u64,
}

#[derive(Debug)]
pub(crate) struct Busiest {
    began: Instant,
    counted: Vec<Counted>,
    places: HashMap<Channel, usize>,
    /// Where the last was counted.
    last: usize,
    /// What the last whole window has found.
    told: Vec<BusyChannel>,
}

impl Busiest {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, counted: Vec::new(), places: HashMap::new(), last: 0, told: Vec::new() }
    }

    /// An event of a channel was sent on, within the window that was begun last.
    pub(crate) fn count(&mut self, channel: &Channel) {
        // What is busy comes again and again.
        if let Some(counted) = self.counted.get_mut(self.last).filter(|counted| counted.channel == *channel) {
            counted.events += 1;
            return;
        }
        if channel.reach() != Reach::Followers {
            return;
        }
        if let Some(&place) = self.places.get(channel)
            && let Some(counted) = self.counted.get_mut(place)
        {
            counted.events += 1;
            self.last = place;
            return;
        }
        if self.counted.len() < PLACES {
            self.places.insert(channel.clone(), self.counted.len());
            self.counted.push(Counted { channel: channel.clone(), events: 1, error: 0 });
            return;
        }
        let least = self.counted.iter_mut().enumerate().min_by_key(|(_, counted)| counted.events);
        if let Some((place, counted)) = least {
            self.places.remove(&counted.channel);
            self.places.insert(channel.clone(), place);
            let error = counted.events;
            *counted = Counted { channel: channel.clone(), events: error + 1, error };
        }
    }

    /// What the last whole window has found; nothing if nobody has published since.
    pub(crate) fn told(&mut self, now: Instant) -> counts::Busiest {
        self.turn(now);
        counts::Busiest { window: WINDOW, channels: self.told.clone() }
    }

    /// Begins a new window if the last is over.
    pub(crate) fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < WINDOW {
            return;
        }
        let mut counted = std::mem::take(&mut self.counted);
        self.places = HashMap::new();
        if passed >= WINDOW * 2 {
            // The window before this one was empty.
            counted.clear();
        }
        counted
            .sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.channel.as_str().cmp(b.channel.as_str())));
        let told = counted.into_iter().take(TOLD).map(|Counted { channel, events, error }| BusyChannel {
            channel: channel.as_str().to_owned(),
            events,
            error,
        });
        self.told = told.collect();
        // Windows follow each other without a pause, as long as there is something to count.
        let over = passed.as_nanos() % WINDOW.as_nanos();
        self.began = now - Duration::from_nanos(u64::try_from(over).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: impl AsRef<str>) -> Channel {
        Channel::new(name).expect("valid")
    }

    fn told(busiest: &mut Busiest, now: Instant) -> Vec<(String, u64, u64)> {
        let told = busiest.told(now).channels.into_iter();
        told.map(|busy| (busy.channel, busy.events, busy.error)).collect()
    }

    #[test]
    fn the_busiest_are_told_when_their_window_is_over() {
        let start = Instant::now();
        let mut busiest = Busiest::new(start);
        for name in ["a", "b", "a", "c", "b", "a"] {
            busiest.count(&channel(name));
        }
        busiest.count(&Channel::everyone());
        assert!(told(&mut busiest, start + WINDOW / 2).is_empty());
        let expected = vec![("a".into(), 3, 0), ("b".into(), 2, 0), ("c".into(), 1, 0)];
        assert_eq!(told(&mut busiest, start + WINDOW), expected);
        assert_eq!(told(&mut busiest, start + WINDOW * 2 - Duration::from_millis(1)), expected);
        assert!(told(&mut busiest, start + WINDOW * 2).is_empty());
    }

    #[test]
    fn what_was_busy_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut busiest = Busiest::new(start);
        busiest.count(&channel("a"));
        assert!(told(&mut busiest, start + WINDOW * 3).is_empty());
    }

    #[test]
    fn a_million_channels_take_no_more_room_and_hide_none_that_is_busy() {
        let start = Instant::now();
        let mut busiest = Busiest::new(start);
        for n in 0..100_000 {
            busiest.count(&channel(format!("once/{n}")));
            if n % 10 == 0 {
                busiest.count(&channel("busy"));
            }
        }
        assert!(busiest.counted.len() <= PLACES && busiest.places.len() <= PLACES);
        let (name, events, error) = told(&mut busiest, start + WINDOW).swap_remove(0);
        assert_eq!(name, "busy");
        assert!(events - error <= 10_000 && events >= 10_000, "{events} ± {error}");
    }

    proptest! {
        /// What it promises: no count is too low, none is too high by more than its error, and who has more than
        /// their share has a place.
        #[test]
        fn counts_are_within_their_errors(events in proptest::collection::vec(0u32..200, 1..2000)) {
            let start = Instant::now();
            let mut busiest = Busiest::new(start);
            let mut exact = HashMap::<u32, u64>::new();
            for &event in &events {
                // Low numbers are more frequent.
                let event = event * event / 200;
                *exact.entry(event).or_default() += 1;
                busiest.count(&channel(event.to_string()));
            }
            for (event, &count) in &exact {
                let place = busiest.places.get(&channel(event.to_string()));
                if let Some(counted) = place.map(|&place| &busiest.counted[place]) {
                    prop_assert!(counted.events >= count && counted.events - counted.error <= count);
                } else {
                    prop_assert!(count <= events.len() as u64 / PLACES as u64);
                }
            }
            prop_assert_eq!(busiest.counted.iter().map(|counted| counted.events).sum::<u64>(), events.len() as u64);
        }
    }
}
