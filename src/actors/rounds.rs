//! Whose readers are to be woken on one thread, and how far that has come. Pure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::sink::Sink;

/// As many readers of one feed are a crowd.
const CROWD: usize = 128;

/// Whoever has written to a crowd lets half as much time go by as that took before it begins anew, up to this: what is
/// published meanwhile leaves in one write for each client and not in several.
const REST: Duration = Duration::from_millis(5);

/// Feeds in the order in which their readers are woken.
pub(super) struct Rounds {
    due: VecDeque<Rc<RefCell<Feed>>>,
    /// How many of the first one's readers were looked at.
    woken: usize,
    /// When the first one was begun, if a crowd reads it.
    began: Option<Instant>,
    /// No crowd is written to before.
    rests_until: Instant,
    to_look: Vec<Rc<Sink>>,
}

/// What there is still to be done for those that have something to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    More,
    AfterRest(Duration),
}

impl Rounds {
    pub(super) fn new() -> Self {
        let (due, to_look) = (VecDeque::new(), Vec::new());
        Self { due, woken: 0, began: None, rests_until: Instant::now(), to_look }
    }

    /// Those who read this are to be woken.
    pub(super) fn push(&mut self, feed: Rc<RefCell<Feed>>) {
        self.due.push_back(feed);
    }

    /// Whether nobody is to be woken.
    #[cfg(test)]
    pub(super) fn is_done(&self) -> bool {
        self.due.is_empty()
    }

    /// Wakes so many of those that have something to read.
    pub(super) fn wake(&mut self, most: usize) -> Left {
        let mut left = most;
        while let Some(feed) = self.due.front().cloned() {
            if left == 0 {
                return Left::More;
            }
            if self.woken == 0 && feed.borrow().readers() >= CROWD {
                let now = Instant::now();
                let rest = self.rests_until.saturating_duration_since(now);
                if !rest.is_zero() {
                    return Left::AfterRest(rest);
                }
                self.began = Some(now);
            }
            left = left.saturating_sub(self.wake_first(&feed, left).max(1));
        }
        Left::Nothing
    }

    fn wake_first(&mut self, feed: &Rc<RefCell<Feed>>, most: usize) -> usize {
        let (looked_at, is_done) = feed.borrow_mut().wake(self.woken, most, &mut self.to_look);
        // They read the feed, so it is not held meanwhile.
        for sink in self.to_look.drain(..) {
            sink.let_out();
        }
        self.woken += looked_at;
        if is_done {
            self.woken = 0;
            self.due.pop_front();
            if feed.borrow_mut().woken() {
                self.due.push_back(feed.clone());
            }
            if let Some(began) = self.began.take() {
                self.rests_until = Instant::now() + (began.elapsed() / 2).min(REST);
            }
        }
        looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Transport;
    use crate::wire::Framing;

    fn feed(readers: usize) -> Rc<RefCell<Feed>> {
        let bounds = crate::config::Settings::default().worker.feed;
        let feed = Rc::new(RefCell::new(Feed::new(bounds, Transport::Sse, Rc::default())));
        for _ in 0..readers {
            let sink = Sink::new(Framing::Bare);
            sink.seat(&feed, 0);
            sink.go_live();
        }
        feed
    }

    fn publish(rounds: &mut Rounds, feed: &Rc<RefCell<Feed>>) {
        feed.borrow_mut().append(bytes::Bytes::from_static(b"x"), None, Instant::now());
        if feed.borrow_mut().wants_waking() {
            rounds.push(feed.clone());
        }
    }

    #[test]
    fn between_two_rounds_of_a_crowd_is_a_rest_and_others_do_not_wait_for_it() {
        let (mut rounds, crowd, few) = (Rounds::new(), feed(CROWD), feed(CROWD - 1));
        publish(&mut rounds, &crowd);
        assert_eq!(rounds.wake(CROWD / 2), Left::More);
        assert_eq!(rounds.wake(CROWD), Left::Nothing);
        rounds.rests_until = Instant::now() + REST;
        publish(&mut rounds, &few);
        assert_eq!(rounds.wake(CROWD), Left::Nothing);
        publish(&mut rounds, &crowd);
        assert!(matches!(rounds.wake(CROWD), Left::AfterRest(rest) if rest <= REST));
        rounds.rests_until = Instant::now();
        assert_eq!(rounds.wake(CROWD + 1), Left::Nothing);
    }
}
