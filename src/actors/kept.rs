//! Which channels are kept only while somebody is interested, and for how long nobody has been. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::index::SelectorIndex;
use super::spare::Spare;
use crate::channel::{Channel, Selector};
use crate::retention::{Policy, Retention};

/// As many channels as one sweep looks at.
const SWEEP: usize = 1024;
/// As many departures as are remembered; a crowd that leaves at once is all of the same moment.
const DEPARTURES: usize = 65_536;

#[derive(Debug)]
pub(crate) struct KeptByInterest {
    retention: Retention,
    /// Nothing to do without a rule by interest.
    longest_grace: Option<Duration>,
    /// Channels that have events, each with the moment since when nobody has been seen to follow it.
    held: HashMap<Channel, Option<Instant>>,
    to_sweep: VecDeque<Channel>,
    /// When somebody who followed this left last.
    departed: SelectorIndex<Option<Instant>>,
    departures: VecDeque<(Instant, Selector)>,
}

impl KeptByInterest {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            longest_grace: retention.longest_grace(),
            retention,
            held: HashMap::new(),
            to_sweep: VecDeque::new(),
            departed: SelectorIndex::default(),
            departures: VecDeque::new(),
        }
    }

    /// Whether any channel is kept by interest.
    pub(crate) fn is_in_use(&self) -> bool {
        self.longest_grace.is_some()
    }

    /// Channels that had events before this process; nobody has been seen to follow them yet.
    pub(crate) fn hold_all(&mut self, channels: Vec<Channel>, now: Instant) {
        for channel in channels {
            self.hold(&channel, Some(now));
        }
    }

    /// An event of these channels was stored by another node, for clients of its own.
    pub(crate) fn hold_of_others(&mut self, channels: &[Channel], now: Instant) {
        for channel in channels {
            if matches!(self.retention.of(channel), Policy::Interest { .. }) {
                self.hold(channel, Some(now));
            }
        }
    }

    fn hold(&mut self, channel: &Channel, unfollowed_since: Option<Instant>) {
        match self.held.get_mut(channel) {
            // Nobody came with it: the time runs on.
            Some(since) => *since = unfollowed_since.and(since.or(unfollowed_since)),
            None => {
                self.held.insert(channel.clone(), unfollowed_since);
                self.to_sweep.push_back(channel.clone());
            }
        }
    }

    /// Whether an event of these channels is to be stored at all.
    pub(crate) fn is_stored(
        &mut self,
        channels: &[Channel],
        now: Instant,
        is_followed: impl Fn(&Channel) -> bool,
    ) -> bool {
        let mut is_stored = channels.is_empty();
        let mut by_interest = Vec::new();
        for channel in channels {
            match self.retention.of(channel) {
                Policy::None => {}
                Policy::Limits(_) => is_stored = true,
                Policy::Interest { grace } => {
                    let followed = is_followed(channel);
                    is_stored |= followed || self.is_missed(channel, now, grace);
                    by_interest.push((channel, followed));
                }
            }
        }
        if is_stored {
            // Also a channel that alone would not keep it: another does, and then the event stands in both.
            for (channel, followed) in by_interest {
                self.hold(channel, (!followed).then_some(now));
            }
        }
        is_stored
    }

    /// Whether somebody who followed the channel has left only lately.
    fn is_missed(&self, channel: &Channel, now: Instant, grace: Duration) -> bool {
        let mut is_missed = false;
        self.departed.for_each_match(channel, |left| {
            is_missed |= left.is_some_and(|left| now.saturating_duration_since(left) < grace);
        });
        is_missed
    }

    /// A client that followed these has left.
    pub(crate) fn leave<'a>(&mut self, selectors: impl Iterator<Item = &'a Selector>, now: Instant) {
        let Some(grace) = self.longest_grace else { return };
        for selector in selectors {
            *self.departed.entry(selector) = Some(now);
            self.departures.push_back((now, selector.clone()));
        }
        while let Some((left, _)) = self.departures.front()
            && (self.departures.len() > DEPARTURES || now.saturating_duration_since(*left) >= grace)
            && let Some((left, selector)) = self.departures.pop_front()
        {
            self.departed.update(&selector, |last| *last != Some(left));
            self.departures.give_back();
        }
    }

    /// Channels whose events are to go, out of some that have any. Called again and again, it comes to all of them.
    pub(crate) fn sweep(&mut self, now: Instant, is_followed: impl Fn(&Channel) -> bool) -> Vec<Channel> {
        let mut gone = Vec::new();
        for _ in 0..self.to_sweep.len().min(SWEEP) {
            let Some(channel) = self.to_sweep.pop_front() else { break };
            let Policy::Interest { grace } = self.retention.of(&channel) else { continue };
            let is_missed = self.is_missed(&channel, now, grace);
            let Some(unfollowed_since) = self.held.get_mut(&channel) else { continue };
            if is_followed(&channel) {
                *unfollowed_since = None;
            } else {
                let since = *unfollowed_since.get_or_insert(now);
                if !is_missed && now.saturating_duration_since(since) >= grace {
                    self.held.remove(&channel);
                    gone.push(channel);
                    continue;
                }
            }
            self.to_sweep.push_back(channel);
        }
        self.held.give_back();
        self.to_sweep.give_back();
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const MS: Duration = Duration::from_millis(1);

    fn kept() -> KeptByInterest {
        KeptByInterest::new(Retention::default().rule("runs/**=interest:grace=30s".parse().expect("valid")))
    }

    fn channel(name: &str) -> Channel {
        Channel::new(name).expect("valid")
    }

    #[test]
    fn what_nobody_is_interested_in_is_not_stored() {
        let (mut kept, now) = (kept(), Instant::now());
        let run = [channel("runs/7")];
        assert!(!kept.is_stored(&run, now, |_| false));
        assert!(kept.is_stored(&run, now, |_| true));
        assert!(
            kept.is_stored(&[channel("runs/8"), channel("other")], now, |_| false),
            "another channel keeps it"
        );
        kept.leave([Selector::new("runs/*").expect("valid")].iter(), now);
        assert!(kept.is_stored(&run, now + GRACE - MS, |_| false), "somebody may come back");
        assert!(!kept.is_stored(&run, now + GRACE, |_| false));
    }

    #[test]
    fn what_was_stored_goes_when_the_last_has_been_gone_for_the_grace() {
        let (mut kept, now) = (kept(), Instant::now());
        kept.is_stored(&[channel("runs/7")], now, |_| true);
        assert!(kept.sweep(now + GRACE * 2, |_| true).is_empty());
        let left = now + GRACE * 3;
        kept.leave([Selector::new("runs/7").expect("valid")].iter(), left);
        assert!(kept.sweep(left, |_| false).is_empty());
        assert!(kept.sweep(left + GRACE - MS, |_| false).is_empty());
        assert_eq!(kept.sweep(left + GRACE, |_| false), [channel("runs/7")]);
        assert!(kept.sweep(left + GRACE * 9, |_| false).is_empty(), "once");
        assert!(kept.held.is_empty() && kept.to_sweep.is_empty());
    }

    #[test]
    fn after_a_restart_the_grace_begins_anew() {
        let (mut kept, now) = (kept(), Instant::now());
        kept.hold_all(vec![channel("runs/7")], now);
        assert!(kept.sweep(now + GRACE - MS, |_| false).is_empty());
        assert_eq!(kept.sweep(now + GRACE, |_| false), [channel("runs/7")]);
    }

    #[test]
    fn what_another_node_stored_goes_unless_somebody_here_follows() {
        let (mut kept, now) = (kept(), Instant::now());
        kept.hold_of_others(&[channel("runs/7"), channel("other")], now);
        assert!(kept.sweep(now + GRACE, |_| true).is_empty());
        kept.hold_of_others(&[channel("runs/7")], now + GRACE * 2);
        assert!(kept.sweep(now + GRACE * 3 - MS, |_| false).is_empty());
        assert_eq!(kept.sweep(now + GRACE * 3, |_| false), [channel("runs/7")]);
        assert!(kept.held.is_empty() && kept.to_sweep.is_empty());
    }

    #[test]
    fn departures_are_forgotten() {
        let (mut kept, now) = (kept(), Instant::now());
        for n in 0..100 {
            kept.leave([Selector::new(format!("runs/{n}")).expect("valid")].iter(), now);
        }
        kept.leave([Selector::new("runs/0").expect("valid")].iter(), now + GRACE);
        assert_eq!((kept.departures.len(), kept.departed.exact_len()), (1, 1));
    }
}
