//! Clients that have ended, kept for a while for those who ask why. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::spare::Spare;
use super::view::ClientView;
use crate::identity::ClientId;

/// How long they are kept, and how many.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    age: Duration,
    count: usize,
    bytes: usize,
}

const BOUNDS: Bounds = Bounds { age: Duration::from_secs(300), count: 10_000, bytes: 8 << 20 };

#[derive(Debug)]
pub(crate) struct Tombstones {
    bounds: Bounds,
    ended: HashMap<ClientId, ClientView>,
    /// In the order in which they ended.
    order: VecDeque<(Instant, ClientId)>,
    bytes: usize,
}

impl Default for Tombstones {
    fn default() -> Self {
        Self::new(BOUNDS)
    }
}

impl Tombstones {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, ended: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// Remembers a client that has ended. One that is known already stays as it is.
    pub(crate) fn add(&mut self, view: ClientView, now: Instant) {
        self.expire(now);
        if self.ended.contains_key(&view.client) {
            return;
        }
        self.bytes += view.weight();
        self.order.push_back((now, view.client));
        self.ended.insert(view.client, view);
        while self.order.len() > self.bounds.count || self.bytes > self.bounds.bytes {
            self.drop_oldest();
        }
    }

    /// How a client ended, if that is not too long ago.
    pub(crate) fn find(&mut self, client: ClientId, now: Instant) -> Option<&ClientView> {
        self.expire(now);
        self.ended.get(&client)
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.bounds.age)
        {
            self.drop_oldest();
        }
        self.ended.give_back();
        self.order.give_back();
    }

    fn drop_oldest(&mut self) {
        if let Some(view) = self.order.pop_front().and_then(|(_, client)| self.ended.remove(&client)) {
            self.bytes -= view.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    use crate::actors::view::ClientState;
    use crate::counts::Transport;
    use crate::identity::SessionId;
    use crate::interest::Subscription;

    fn view() -> ClientView {
        let live = ClientView {
            client: ClientId::mint(),
            session: SessionId::mint(),
            transport: Transport::Sse,
            channels: Subscription::to("a").expect("valid"),
            connected_at: SystemTime::UNIX_EPOCH,
            state: ClientState::Live,
            cursor: None,
            queued: 0,
            lag: 0,
            closed: None,
        };
        live.closed("slow")
    }

    #[test]
    fn they_are_kept_for_their_time_and_no_longer() {
        let start = Instant::now();
        let mut past = Tombstones::default();
        let (first, second) = (view(), view());
        past.add(first.clone(), start);
        past.add(second.clone(), start + Duration::from_secs(10));
        let just_before = start + Duration::from_millis(299_999);
        let found = past.find(first.client, just_before).expect("kept");
        assert_eq!(
            (found.state, found.closed.as_ref().map(|closed| closed.reason)),
            (ClientState::Closed, Some("slow"))
        );
        assert!(past.find(first.client, start + Duration::from_secs(300)).is_none());
        assert!(past.find(second.client, start + Duration::from_secs(309)).is_some());
        assert!(past.find(second.client, start + Duration::from_secs(310)).is_none());
        assert_eq!((past.ended.len(), past.order.len(), past.bytes), (0, 0, 0));
    }

    #[test]
    fn they_are_bounded_by_count_and_by_bytes() {
        let start = Instant::now();
        let one = view().weight();
        for bounds in [Bounds { count: 3, ..BOUNDS }, Bounds { bytes: 3 * one + 1, ..BOUNDS }] {
            let mut past = Tombstones::new(bounds);
            let views: Vec<_> = (0..10).map(|_| view()).collect();
            for view in &views {
                past.add(view.clone(), start);
                past.add(view.clone(), start);
            }
            let kept: Vec<_> = views.iter().map(|view| past.find(view.client, start).is_some()).collect();
            assert_eq!(kept, [[false; 7].as_slice(), &[true; 3]].concat());
            assert_eq!(past.bytes, 3 * one);
        }
    }

    #[test]
    fn a_crowd_gives_its_memory_back() {
        let start = Instant::now();
        let mut past = Tombstones::default();
        for _ in 0..20_000 {
            past.add(view(), start);
        }
        assert_eq!(past.ended.len(), 10_000);
        assert!(past.find(ClientId::mint(), start + Duration::from_secs(300)).is_none());
        assert!(past.ended.capacity() < 100 && past.order.capacity() < 100);
    }
}
