//! Which sessions were ended, and whose word is older than that. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::CloseReason;
use crate::identity::SessionId;

/// For how long a session that was revoked is refused.
pub(crate) const REVOKED_FOR: Duration = Duration::from_secs(24 * 3600);
/// As many are remembered; then the oldest is forgotten.
const REMEMBERED: usize = 100_000;
/// Longer than a grant is under way.
const ENDED_FOR: Duration = Duration::from_secs(600);

/// As whom somebody comes, and how old the word is that speaks for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) session: SessionId,
    /// When it was asked what they may do.
    pub(crate) asked: Instant,
    /// When what they show was issued; nothing if it does not say.
    pub(crate) issued: Option<SystemTime>,
}

/// Sessions that were ended, for as long as somebody may come with a word of before.
#[derive(Debug)]
pub(crate) struct Revoked {
    /// Whose streams were ended, and why: for who was let in before and has not come to its place yet.
    ended: Marks<CloseReason>,
    /// Who is not to come back with what was issued up to this second.
    revoked: Marks<u64>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self { ended: Marks::new(REMEMBERED, ENDED_FOR), revoked: Marks::new(REMEMBERED, REVOKED_FOR) }
    }
}

impl Revoked {
    /// The streams of a session end now. True if that made room by forgetting another.
    pub(crate) fn end(
        &mut self,
        session: SessionId,
        reason: CloseReason,
        now: Instant,
        time: SystemTime,
    ) -> bool {
        let has_forgotten = self.ended.set(session, reason, now);
        if reason == CloseReason::Revoked {
            return self.revoked.set(session, seconds(time), now);
        }
        has_forgotten
    }

    /// Why somebody gets no stream.
    pub(crate) fn bars(&self, standing: &Standing, now: Instant) -> Option<CloseReason> {
        if self.is_revoked(standing, now) {
            return Some(CloseReason::Revoked);
        }
        let (at, reason) = self.ended.get(standing.session, now)?;
        (standing.asked <= at).then_some(reason)
    }

    /// Whether what somebody shows was revoked.
    pub(crate) fn is_revoked(&self, standing: &Standing, now: Instant) -> bool {
        let Some((at, second)) = self.revoked.get(standing.session, now) else { return false };
        // Tokens say when they were issued in seconds, so what was issued in that second is as old.
        standing.asked <= at || standing.issued.is_none_or(|issued| seconds(issued) <= second)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is known of sessions since a moment; bounded by count and age.
#[derive(Debug)]
struct Marks<T> {
    by_session: HashMap<SessionId, (Instant, T)>,
    oldest_first: BTreeSet<(Instant, SessionId)>,
    count: usize,
    age: Duration,
}

impl<T: Copy> Marks<T> {
    fn new(count: usize, age: Duration) -> Self {
        Self { by_session: HashMap::new(), oldest_first: BTreeSet::new(), count, age }
    }

    /// True if one that still counted was forgotten for it.
    fn set(&mut self, session: SessionId, mark: T, now: Instant) -> bool {
        if let Some((before, _)) = self.by_session.insert(session, (now, mark)) {
            self.oldest_first.remove(&(before, session));
        }
        self.oldest_first.insert((now, session));
        let mut has_forgotten = false;
        while let Some(&(at, oldest)) = self.oldest_first.first() {
            let is_over = now.saturating_duration_since(at) > self.age;
            if !is_over && self.by_session.len() <= self.count {
                break;
            }
            has_forgotten |= !is_over;
            self.oldest_first.pop_first();
            self.by_session.remove(&oldest);
        }
        has_forgotten
    }

    fn get(&self, session: SessionId, now: Instant) -> Option<(Instant, T)> {
        let &(at, mark) = self.by_session.get(&session)?;
        (now.saturating_duration_since(at) <= self.age).then_some((at, mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The moment of a revocation, at 5.5 seconds of the clock, and somebody of that session.
    struct Scene {
        revoked: Revoked,
        session: SessionId,
        at: Instant,
    }

    fn clock(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    impl Scene {
        fn new(reason: CloseReason) -> Self {
            let (session, at) = (SessionId::mint(), Instant::now() + SECOND);
            let mut revoked = Revoked::default();
            revoked.end(session, reason, at, clock(5.5));
            Self { revoked, session, at }
        }

        fn who(&self, asked: Instant, issued: Option<f64>) -> Standing {
            Standing { session: self.session, asked, issued: issued.map(clock) }
        }
    }

    #[test]
    fn what_was_issued_up_to_that_second_is_refused_for_a_day() {
        let scene = Scene::new(CloseReason::Revoked);
        let (soon, late) = (scene.at + SECOND, scene.at + REVOKED_FOR + SECOND);
        for (issued, is_refused) in
            [(None, true), (Some(0.0), true), (Some(5.0), true), (Some(5.99), true), (Some(6.0), false)]
        {
            let who = scene.who(soon, issued);
            let reason = is_refused.then_some(CloseReason::Revoked);
            assert_eq!(scene.revoked.bars(&who, soon), reason, "{issued:?}");
            assert_eq!(scene.revoked.is_revoked(&who, soon), is_refused, "{issued:?}");
            assert_eq!(scene.revoked.bars(&scene.who(late, issued), late), None, "{issued:?}");
        }
        let other = Standing { session: SessionId::mint(), ..scene.who(soon, None) };
        assert_eq!(scene.revoked.bars(&other, soon), None);
    }

    #[test]
    fn who_was_let_in_before_is_refused_whatever_they_show() {
        for reason in [CloseReason::Revoked, CloseReason::ExpiredToken] {
            let scene = Scene::new(reason);
            let soon = scene.at + SECOND;
            for issued in [None, Some(9.0)] {
                assert_eq!(scene.revoked.bars(&scene.who(scene.at - SECOND, issued), soon), Some(reason));
            }
        }
    }

    #[test]
    fn ended_for_another_reason_they_come_back_at_once() {
        let scene = Scene::new(CloseReason::ExpiredToken);
        let soon = scene.at + SECOND;
        assert_eq!(scene.revoked.bars(&scene.who(soon, None), soon), None);
        assert!(!scene.revoked.is_revoked(&scene.who(scene.at - SECOND, None), soon));
    }

    #[test]
    fn a_revocation_is_not_undone_by_ending_again() {
        let mut scene = Scene::new(CloseReason::Revoked);
        let soon = scene.at + SECOND;
        scene.revoked.end(scene.session, CloseReason::ExpiredToken, soon, clock(6.5));
        let later = soon + SECOND;
        assert_eq!(scene.revoked.bars(&scene.who(later, None), later), Some(CloseReason::Revoked));
        assert_eq!(scene.revoked.bars(&scene.who(later, Some(6.0)), later), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let start = Instant::now();
        let mut marks = Marks::new(3, 10 * SECOND);
        let sessions: Vec<_> = (0..5).map(|_| SessionId::mint()).collect();
        for (n, &session) in sessions.iter().enumerate() {
            assert_eq!(marks.set(session, n, start + SECOND * n as u32), n >= 3);
            // Again, which takes no room.
            assert!(!marks.set(session, n, start + SECOND * n as u32 + SECOND / 2));
        }
        let now = start + 5 * SECOND;
        let known: Vec<_> = sessions.iter().map(|&session| marks.get(session, now).is_some()).collect();
        assert_eq!(known, [false, false, true, true, true]);
        assert!(!marks.set(SessionId::mint(), 9, start + 60 * SECOND), "the others were over");
        assert_eq!((marks.by_session.len(), marks.oldest_first.len()), (1, 1));
    }
}
