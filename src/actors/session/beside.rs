//! What a client adds to what it follows, and takes away, while it is live.
//!
//! What is added catches up as a strand of its own: the feed that the client reads goes on meanwhile, with the strand's
//! position in the cursors. When the strand has come near enough for the broker's ring, the worker seats the client in the
//! feed of both, at one place: ahead of it everything from the old feed, then what the strand missed, then what comes.
//! A few strands catch up at a time, as many as a cursor has room for; others wait their turn.
//!
//! Only what goes on from a cursor as the client's first word becomes the base itself: then the client is where a stream
//! would be that begins with that cursor.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::prelude::*;

use super::ledger::Ledger;
use super::message::{Answer, Follow, Joined, Unfollow};
use super::strand::{Added, CatchUp, Chase, Strand};
use super::{BASE, LookAgain, Pieces, Session};
use crate::actors::broker::{At, Begin, Join, Start};
use crate::actors::log::Page;
use crate::actors::replay::Told;
use crate::actors::tally::EXPIRED;
use crate::cursor::{Cursor, Exceptions, Seq, Timeline};
use crate::identity::SessionId;
use crate::interest::{Interest, Subscription};
use crate::record::Record;
use crate::wire::notice::{self, Notice};
use crate::wire::ws::{Answer as Said, Recast, Reference};

/// What is beside a client's base.
pub(super) struct Beside {
    pub(super) ledger: Ledger,
    last_key: u32,
    /// Catching up, in the order that they came.
    added: Vec<Added>,
    /// To catch up when there is room.
    waiting: VecDeque<Added>,
    /// To be taken out of the base.
    leaving: Vec<Unfollow>,
    first_word: FirstWord,
    /// Whether something has gone on from a cursor, and with it what the client's session was sent.
    is_inbox_asked_for: bool,
    asked: Option<Change>,
    /// What the request was called that the base goes on by, until it is answered.
    pub(super) base_asked: Option<Option<Reference>>,
}

/// Strands that catch up at a time at most.
const CATCHING_UP: usize = 4;

/// Whether the client has said where it goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstWord {
    /// It is not live yet.
    NotDue,
    Due,
    Said,
}

/// What the broker was asked.
enum Change {
    /// To let this strand join the base.
    Join(u32),
    /// To let so many be taken out of it.
    Leave(usize),
}

impl Beside {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            ledger: Ledger::new(session),
            last_key: BASE,
            added: Vec::new(),
            waiting: VecDeque::new(),
            leaving: Vec::new(),
            first_word: FirstWord::NotDue,
            is_inbox_asked_for: false,
            asked: None,
            base_asked: None,
        }
    }

    pub(super) fn strand(&mut self, key: u32) -> Option<&mut Strand> {
        self.added(key).map(|added| &mut added.strand)
    }

    pub(super) fn interest(&self, key: u32) -> Option<Interest> {
        self.added.iter().find(|added| added.key == key).map(Added::interest)
    }

    /// Whether nothing catches up, or waits to.
    pub(super) fn is_idle(&self) -> bool {
        self.added.is_empty() && self.waiting.is_empty()
    }

    /// The lowest position of what catches up.
    pub(super) fn lowest(&self) -> Option<Seq> {
        let told = self.added.iter().filter(|added| added.is_told);
        told.map(|added| added.strand.position).min()
    }

    /// What catches up, or waits to, beside the base.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.added.iter().chain(&self.waiting).map(|added| &added.strand.interest.subscription)
    }

    pub(super) fn wanting_to_read(&self) -> impl Iterator<Item = u32> {
        self.added.iter().filter(|added| added.strand.wants_to_read()).map(|added| added.key)
    }

    /// The client's position when its base is at `base`.
    pub(super) fn cursor(&self, timeline: &Timeline, base: Seq) -> Cursor {
        // What has no name of its own there is not claimed to be further: whoever is cut then has some things twice,
        // which is better than not at all.
        let held_back = self.added.iter().filter_map(Added::holds_back).min();
        timeline.cursor_except(base.min(held_back.unwrap_or(base)), &self.exceptions())
    }

    /// What is to be said of it in the frames of the feed, whose cursors speak of the base alone.
    pub(super) fn recast(&self, timeline: &Timeline) -> Option<Recast> {
        if self.added.iter().any(|added| added.holds_back().is_some()) {
            return Some(Recast::Instead(self.cursor(timeline, Seq::MAX).to_string().into()));
        }
        let exceptions = self.exceptions();
        (!exceptions.is_empty()).then(|| Recast::Behind(exceptions.to_string().into()))
    }

    /// Where strands stand that are not where the base is.
    fn exceptions(&self) -> Exceptions {
        let exact = self.added.iter().flat_map(|added| added.exceptions(added.had.as_ref()));
        let exact = Exceptions::new(exact);
        if exact.fits() {
            return exact;
        }
        // Cut twice in a row, each time while much caught up: better twice than not at all.
        Exceptions::new(self.added.iter().flat_map(|added| added.exceptions(None)))
    }

    fn added(&mut self, key: u32) -> Option<&mut Added> {
        self.added.iter_mut().find(|added| added.key == key)
    }

    /// Lets the next that waits catch up, if there is room; who begins with what comes needs none.
    fn begin_next(&mut self) -> bool {
        let taken: usize = self.added.iter().map(Added::bytes_needed).sum();
        let room = Exceptions::ROOM.saturating_sub(taken);
        let Some(first) = self.waiting.front_mut() else { return false };
        first.brings_inbox = first.is_resumed() && !self.is_inbox_asked_for;
        let has_room = self.added.len() < CATCHING_UP && first.bytes_needed() <= room;
        let from_now = || self.waiting.iter().position(Added::is_from_now);
        let Some(next) = (if has_room { Some(0) } else { from_now() }) else { return false };
        let Some(next) = self.waiting.remove(next) else { return false };
        self.is_inbox_asked_for |= next.brings_inbox;
        self.added.push(next);
        true
    }

    /// The first that the client asked for, if it goes on from a cursor.
    fn take_first_resumed(&mut self) -> Option<Added> {
        let is_idle = self.added.is_empty() && self.leaving.is_empty() && self.asked.is_none();
        let first = self.waiting.front().filter(|first| is_idle && first.is_resumed());
        if first.is_some() { self.waiting.pop_front() } else { None }
    }

    /// What the broker is to be asked next, and what to answer from, nothing for a change that brings nothing.
    fn next(&mut self) -> Option<(Change, At, Interest)> {
        let session = self.ledger.session();
        if !self.leaving.is_empty() {
            let nothing = Interest::new(session, Subscription::default()).without_inbox();
            return Some((Change::Leave(self.leaving.len()), At::Start(Start::At(Begin::Now)), nothing));
        }
        loop {
            let asking = self.added.iter_mut().find_map(|added| {
                let at = added.strand.ask()?;
                Some((Change::Join(added.key), at, added.interest()))
            });
            if asking.is_some() || !self.begin_next() {
                return asking;
            }
        }
    }

    /// All that the client follows beside its base, or is to.
    fn followed(&self, base: &Subscription) -> Subscription {
        let beside = self.added.iter().chain(&self.waiting);
        beside.fold(base.clone(), |all, added| all.or(&added.strand.interest.subscription))
    }
}

impl Session {
    /// Asks the broker for the next change to what the client follows, one at a time and while it is live.
    pub(super) fn ask_beside(&mut self) {
        let Some(beside) = self.beside.as_mut().filter(|beside| beside.asked.is_none()) else { return };
        let Some(broker) =
            self.worker.broker.upgrade().filter(|_| self.base.is_live() && self.sink.is_live())
        else {
            return;
        };
        let Some((change, at, added)) = beside.next() else { return };
        let mut joined = self.base.interest.subscription.clone().or(&added.subscription);
        for unfollow in &beside.leaving {
            joined = joined.without(&unfollow.selectors);
        }
        let followed = beside.followed(&joined);
        beside.asked = Some(change);
        let (client, worker) = (self.pass.client, self.worker.addr.clone());
        broker.do_send(Join { client, worker, added, joined, followed, at });
    }

    /// Whether the client, which is live, is to say first where it goes on from. What comes waits for it.
    pub(super) fn awaits_first_word(&mut self) -> bool {
        let Some(beside) = &mut self.beside else { return false };
        // A second time it has fallen out meanwhile, and goes on with what comes.
        let is_first = beside.first_word == FirstWord::NotDue;
        beside.first_word = if is_first { FirstWord::Due } else { FirstWord::Said };
        if !beside.waiting.is_empty() || !beside.leaving.is_empty() {
            self.take_first_word();
        }
        self.beside.as_ref().is_some_and(|beside| beside.first_word == FirstWord::Due)
    }

    /// The client has said its first word, or has had its time for it. If it goes on from a cursor, that is its base: it is
    /// where a stream would be that begins so. Else it goes on with what comes.
    pub(super) fn take_first_word(&mut self) {
        let is_live = self.base.is_live();
        let due = self.beside.as_mut().filter(|beside| is_live && beside.first_word == FirstWord::Due);
        let Some(beside) = due else { return };
        beside.first_word = FirstWord::Said;
        let Some(Added { strand, reference, .. }) = beside.take_first_resumed() else {
            return self.sink.go_live();
        };
        beside.is_inbox_asked_for = true;
        beside.base_asked = Some(reference);
        self.sink.let_go();
        self.tell_lag();
        self.worker.floor.borrow_mut().unseat(self.pass.client, strand.interest.subscription.clone());
        self.base = strand;
        self.is_follow_changed = true;
    }

    /// Lets a client leave that is not live: it need not take part in it.
    pub(super) fn leave_now(&mut self) {
        let is_apart = !self.base.is_live() && !matches!(self.base.catch_up, CatchUp::Asking);
        let Some(beside) = self.beside.as_mut().filter(|beside| is_apart && beside.asked.is_none()) else {
            return;
        };
        let leaving = std::mem::take(&mut beside.leaving);
        if leaving.is_empty() {
            return;
        }
        let base_asked = beside.base_asked.take();
        self.tell_lag();
        if let Some(reference) = base_asked {
            self.sink.answer(Said::Subscribed { r#ref: reference.as_deref(), cursor: None }.frame());
        }
        for Unfollow { reference, is_asked, selectors } in leaving {
            let subscription = &mut self.base.interest.subscription;
            *subscription = std::mem::take(subscription).without(&selectors);
            if is_asked {
                self.sink.answer(Said::Unsubscribed { r#ref: reference.as_deref() }.frame());
            }
        }
        let subscription = self.base.interest.subscription.clone();
        self.worker.floor.borrow_mut().unseat(self.pass.client, subscription);
        self.is_follow_changed = true;
    }

    /// What the broker is to be told that the client follows, if it does not know.
    pub(super) fn take_follow_change(&mut self) -> Option<Subscription> {
        let is_changed = std::mem::take(&mut self.is_follow_changed);
        let beside = self.beside.as_ref().filter(|_| is_changed)?;
        Some(beside.followed(&self.base.interest.subscription))
    }

    /// Tells the client that it follows what was added, and from where; then the reset, if there was one.
    fn tell_subscribed(&mut self, key: u32, position: Seq, reset: Option<super::Reset>) {
        let base = self.base_position();
        let Some((beside, timeline)) = self.beside.as_mut().zip(self.timeline.clone()) else { return };
        let Beside { ledger, added, .. } = &mut **beside;
        let Some(strand) = added.iter_mut().find(|added| added.key == key) else { return };
        let is_first = !std::mem::replace(&mut strand.is_told, true);
        strand.strand.position = position;
        if is_first {
            strand.since = position;
            if strand.brings_inbox {
                strand.inbox_until = ledger.hand_inbox_over(position);
            }
        }
        let reference = strand.reference.clone();
        let cursor = beside.cursor(&timeline, base);
        if is_first {
            // Nor is a reset to be taken for read.
            let cursor = Some(&cursor).filter(|_| reset.is_none());
            self.sink.answer(Said::Subscribed { r#ref: reference.as_deref(), cursor }.frame());
        }
        self.tell_reset(&cursor, reset);
    }

    /// Writes a page of a strand beside the base.
    pub(super) fn write_page_beside(&mut self, key: u32, page: &Page) {
        let Some(timeline) = self.timeline.clone() else { return };
        let Some(added) = self.beside.as_mut().and_then(|beside| beside.added(key)) else { return };
        let is_told = added.is_told;
        let CatchUp::Log(chase) = &mut added.strand.catch_up else { return };
        let (loss, began) = chase.take_page(page);
        let (after, head, reset) = (chase.after, chase.until, chase.reset.take());
        let gap = loss.and_then(|loss| loss.told);
        let before_gap = gap.map_or(page.records.len(), |gap| gap.before);
        if !is_told || reset.is_some() {
            // Who is cut before it has read of the gap is to be told again.
            let is_gap_next = gap.is_some() && before_gap == 0 && reset.is_none();
            self.tell_subscribed(key, if is_gap_next { after } else { began }, reset);
        }
        let (before, behind) = page.records.split_at_checked(before_gap).unwrap_or((&page.records, &[]));
        self.write_records_beside(key, before, &timeline, None);
        if let Some(Told { position: resumed_at, .. }) = gap {
            self.advance(key, resumed_at);
            self.count_gap(EXPIRED);
            let gap = notice::Gap { reason: EXPIRED, after, resumed_at, head };
            self.tell(Some(&self.cursor(&timeline, self.base_position())), Notice::Gap(gap));
        }
        self.write_records_beside(key, behind, &timeline, None);
        self.advance(key, page.through);
        self.name_exceptions();
        self.pause();
    }

    fn advance(&mut self, key: u32, position: Seq) {
        if let Some(strand) = self.strand(key) {
            strand.position = position;
        }
    }

    /// Writes what the strand has to bring of these, each with the client's position after it. With the last it is at
    /// `through`, if that is given.
    fn write_records_beside(
        &mut self,
        key: u32,
        records: &[Arc<Record>],
        timeline: &Timeline,
        through: Option<Seq>,
    ) {
        let (base, encoding) = (self.base_position(), self.encoding);
        let Some(beside) = &mut self.beside else { return };
        let mut pieces = Pieces::new(&self.sink);
        for (at, record) in records.iter().enumerate() {
            let Some(seq) = record.seq() else { continue };
            let is_last = at + 1 == records.len();
            let Beside { ledger, added, .. } = &mut **beside;
            let Some(added) = added.iter_mut().find(|added| added.key == key) else { return };
            added.strand.position = through.filter(|_| is_last).unwrap_or(seq);
            let is_due =
                ledger.is_left_to(record, seq, &added.strand.interest.subscription, added.inbox_until);
            let had = match &added.strand.catch_up {
                CatchUp::Log(chase) => chase.has_had(&added.strand.interest, record),
                _ => false,
            };
            if is_due && !had && !beside.is_brought_by_another(key, record, seq) {
                let cursor = beside.cursor(timeline, base);
                pieces.push(&encoding.event(record, Some(&cursor)));
            }
        }
        let events = pieces.finish();
        self.count_replayed(events);
    }

    /// Has the feed's frames say where the strands stand.
    fn name_exceptions(&self) {
        let known = self.beside.as_ref().zip(self.timeline.as_ref());
        self.sink.recast(known.and_then(|(beside, timeline)| beside.recast(timeline)));
    }

    /// What the strand missed last was written, and the base follows it from here on.
    fn join(&mut self, key: u32) {
        let Some(beside) = &mut self.beside else { return };
        let at = beside.added.iter().position(|added| added.key == key);
        if let Some(added) = at.map(|at| beside.added.remove(at)) {
            beside.ledger.add(&added.strand.interest.subscription, added.since);
        }
    }

    fn take_missed(&mut self, key: u32, is_seated: bool, missed: Missed) {
        let Missed { after, through, records, is_whole, timeline, reset } = missed;
        let Some(added) = self.beside.as_mut().and_then(|beside| beside.added(key)) else { return };
        let is_early = is_whole && !is_seated;
        if is_early && added.is_from_now() {
            // Now is when the client is live again.
            added.strand.catch_up = CatchUp::Starting;
            return;
        }
        added.strand.catch_up = CatchUp::Written;
        if !added.is_told || reset.is_some() {
            self.tell_subscribed(key, after, reset);
        }
        // If the client has fallen out of its feed meanwhile, what was missed is in the log.
        if !is_early {
            self.write_records_beside(key, &records, &timeline, is_whole.then_some(through));
            self.advance(key, through);
            if is_whole {
                self.join(key);
            }
            if !records.is_empty() {
                self.pause();
            }
        }
        self.name_exceptions();
    }
}

/// What the ring had of a strand.
struct Missed {
    after: Seq,
    through: Seq,
    records: Vec<Arc<Record>>,
    is_whole: bool,
    timeline: Timeline,
    reset: Option<super::Reset>,
}

impl Beside {
    /// Whether a strand that is further has brought this already.
    fn is_brought_by_another(&self, key: u32, record: &Record, seq: Seq) -> bool {
        let mut others = self.added.iter().filter(|added| added.key != key && added.is_told);
        others.any(|other| {
            let subscription = &other.strand.interest.subscription;
            other.since < seq
                && seq <= other.strand.position
                && record
                    .draft
                    .channels
                    .iter()
                    .any(|channel| subscription.admits(channel, &record.draft.attributes))
        })
    }
}

impl Handler<Follow> for Session {
    type Result = ();

    fn handle(&mut self, Follow { reference, subscription, start }: Follow, ctx: &mut Self::Context) {
        let session = self.base.interest.session;
        let Some(beside) = &mut self.beside else { return };
        beside.last_key += 1;
        let strand = Strand::new(Interest::new(session, subscription), start);
        beside.waiting.push_back(Added::new(beside.last_key, strand, reference));
        self.take_first_word();
        self.go_on(ctx);
    }
}

impl Handler<Unfollow> for Session {
    type Result = ();

    fn handle(&mut self, unfollow: Unfollow, ctx: &mut Self::Context) {
        let base = self.base_position();
        let Some(beside) = &mut self.beside else { return };
        for added in beside.added.iter_mut().chain(&mut beside.waiting) {
            added.remove(&unfollow.selectors);
        }
        let cursor = self.timeline.as_ref().map(|timeline| beside.cursor(timeline, base));
        // What nothing is left of is over, and who has asked for it and was not told is told first.
        let mut is_left = |added: &Added| {
            if added.is_told || !added.strand.interest.subscription.is_empty() {
                return added.is_needed();
            }
            let said = Said::Subscribed { r#ref: added.reference.as_deref(), cursor: cursor.as_ref() };
            self.sink.answer(said.frame());
            false
        };
        beside.added.retain(&mut is_left);
        beside.waiting.retain(is_left);
        beside.ledger.remove(&unfollow.selectors);
        beside.leaving.push(unfollow);
        self.name_exceptions();
        self.take_first_word();
        self.go_on(ctx);
    }
}

impl Handler<Joined> for Session {
    type Result = ();

    fn handle(&mut self, Joined { answer, seated }: Joined, ctx: &mut Self::Context) {
        let Some(change) = self.beside.as_mut().and_then(|beside| beside.asked.take()) else { return };
        let is_seated = seated.is_some();
        if let Some(joined) = seated {
            self.base.interest.subscription = joined;
        }
        match (change, answer) {
            (_, Answer::Refused(farewell)) => return self.close(farewell, ctx),
            (Change::Leave(count), _) if is_seated => {
                let leaving = self.beside.iter_mut().flat_map(|beside| beside.leaving.drain(..count));
                for Unfollow { reference, .. } in leaving.filter(|unfollow| unfollow.is_asked) {
                    self.sink.answer(Said::Unsubscribed { r#ref: reference.as_deref() }.frame());
                }
            }
            // The client has fallen out of its feed meanwhile; it leaves when that is known here.
            (Change::Leave(_), _) => {}
            (
                Change::Join(key),
                Answer::Missed { after, through, frames: records, is_whole, timeline, reset },
            ) => {
                let missed = Missed { after, through, records, is_whole, timeline, reset };
                self.take_missed(key, is_seated, missed);
            }
            (Change::Join(key), Answer::Behind { origin, head, log, reset, had, .. }) => {
                let chase = Chase::new(origin, head, log, reset, had);
                if let Some(added) = self.beside.as_mut().and_then(|beside| beside.added(key)) {
                    added.chase(chase);
                }
            }
            (Change::Join(key), Answer::Ahead) => {
                if let Some(strand) = self.strand(key) {
                    let wait = strand.wait_for_head();
                    ctx.notify_later(LookAgain(key), wait);
                }
            }
        }
        if is_seated {
            self.sink.go_live();
        }
        self.go_on(ctx);
    }
}
