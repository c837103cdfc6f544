//! What a client adds to what it follows, and takes away, while it is live.
//!
//! What is added catches up as a strand of its own: the feed that the client reads goes on meanwhile, with the strand's
//! position in the cursors. When the strand has come near enough for the broker's ring, the worker seats the client in the
//! feed of both, at one place: ahead of it everything from the old feed, then what the strand missed, then what comes.
//! A few strands catch up at a time, as many as a cursor has room for; others wait their turn.

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
use crate::cursor::{Cursor, Exceptions, Seq, Timeline};
use crate::identity::SessionId;
use crate::interest::{Interest, Subscription};
use crate::record::Record;
use crate::wire::notice::{self, Notice};
use crate::wire::ws::{Answer as Said, Recast};

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
    /// Whether something has gone on from a cursor, and with it what the client's session was sent.
    is_inbox_asked_for: bool,
    asked: Option<Asked>,
}

/// What the broker was asked.
struct Asked {
    what: What,
    /// What the base follows if it comes to that.
    joined: Subscription,
}

enum What {
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
            is_inbox_asked_for: false,
            asked: None,
        }
    }

    pub(super) fn strand(&mut self, key: u32) -> Option<&mut Strand> {
        self.added(key).map(|added| &mut added.strand)
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

    /// Lets the next that waits catch up, if there is room.
    fn begin_next(&mut self) -> bool {
        let taken: usize = self.added.iter().map(Added::bytes_needed).sum();
        let room = Exceptions::ROOM.saturating_sub(taken);
        let Some(next) = self.waiting.front_mut() else { return false };
        next.brings_inbox = next.is_resumed() && !self.is_inbox_asked_for;
        let has_room = next.bytes_needed() <= room;
        if has_room && let Some(next) = self.waiting.pop_front() {
            self.is_inbox_asked_for |= next.brings_inbox;
            self.added.push(next);
        }
        has_room
    }

    /// What the broker is to be asked next, and what to answer from, nothing for a change that brings nothing.
    fn next(&mut self) -> Option<(What, At, Subscription)> {
        if !self.leaving.is_empty() {
            let what = What::Leave(self.leaving.len());
            return Some((what, At::Start(Start::At(Begin::Now)), Subscription::default()));
        }
        loop {
            let asking = self.added.iter_mut().find_map(|added| {
                let at = added.strand.ask()?;
                Some((What::Join(added.key), at, added.strand.interest.subscription.clone()))
            });
            if asking.is_some() || !self.begin_next() {
                return asking;
            }
        }
    }
}

impl Session {
    /// Asks the broker for the next change to what the client follows, one at a time and while it is live.
    pub(super) fn ask_beside(&mut self) {
        let Some(beside) = self.beside.as_mut().filter(|beside| beside.asked.is_none()) else { return };
        let Some(broker) = self.broker.upgrade().filter(|_| self.base.is_live() && self.sink.is_live())
        else {
            return;
        };
        let Some((what, at, subscription)) = beside.next() else { return };
        let mut joined = self.base.interest.subscription.clone().or(&subscription);
        for unfollow in &beside.leaving {
            joined = joined.without(&unfollow.selectors);
        }
        let followed = beside.added.iter().map(|added| &added.strand.interest.subscription);
        let session = self.base.interest.session;
        broker.do_send(Join {
            client: self.client,
            worker: self.worker.addr.clone(),
            added: Interest { session, subscription },
            joined: joined.clone(),
            followed: followed.fold(joined.clone(), Subscription::or),
            at,
        });
        beside.asked = Some(Asked { what, joined });
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
            // Whoever is cut before it has read of the reset is to be told again.
            let cursor = Some(&cursor).filter(|_| reset.is_none());
            self.sink.write(Said::Subscribed { r#ref: reference.as_deref(), cursor }.frame());
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
        if !is_told || reset.is_some() {
            self.tell_subscribed(key, began, reset);
        }
        let gap = loss.and_then(|loss| loss.told);
        let before_gap = gap.map_or(page.records.len(), |gap| gap.before);
        let (before, behind) = page.records.split_at_checked(before_gap).unwrap_or((&page.records, &[]));
        self.write_records_beside(key, before, &timeline);
        if let Some(Told { position: resumed_at, .. }) = gap {
            self.advance(key, resumed_at);
            let gap = notice::Gap { reason: "expired", after, resumed_at, head };
            self.tell(Some(&self.cursor(&timeline, self.base_position())), Notice::Gap(gap));
        }
        self.write_records_beside(key, behind, &timeline);
        self.advance(key, page.through);
        self.name_exceptions();
        self.pause();
    }

    fn advance(&mut self, key: u32, position: Seq) {
        if let Some(strand) = self.strand(key) {
            strand.position = position;
        }
    }

    /// Writes what the strand has to bring of these, each with the client's position after it.
    fn write_records_beside(&mut self, key: u32, records: &[Arc<Record>], timeline: &Timeline) {
        let (base, encoding) = (self.base_position(), self.encoding);
        let Some(beside) = &mut self.beside else { return };
        let mut pieces = Pieces::new(&self.sink);
        for record in records {
            let Some(seq) = record.seq() else { continue };
            let Beside { ledger, added, .. } = &mut **beside;
            let Some(added) = added.iter_mut().find(|added| added.key == key) else { return };
            added.strand.position = seq;
            let is_due = ledger.leaves(record, seq, &added.strand.interest.subscription, added.inbox_until);
            let had = match &added.strand.catch_up {
                CatchUp::Log(chase) => chase.has_had(&added.strand.interest, record),
                _ => false,
            };
            if is_due && !had && !beside.is_brought_by_another(key, record, seq) {
                let cursor = beside.cursor(timeline, base);
                pieces.push(&encoding.event(record, Some(&cursor)));
            }
        }
        pieces.finish();
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
        if is_whole && !is_seated && added.is_from_now() {
            // Now is when the client is live again.
            added.strand.catch_up = CatchUp::Starting;
            return;
        }
        if !added.is_told || reset.is_some() {
            self.tell_subscribed(key, after, reset);
        }
        if is_whole && !is_seated {
            // The client has fallen out of its feed meanwhile, and what was missed is in the log.
            if let Some(strand) = self.strand(key) {
                strand.catch_up = CatchUp::Written;
            }
            self.name_exceptions();
            return;
        }
        match records.split_last() {
            Some((last, rest)) => {
                self.write_records_beside(key, rest, &timeline);
                if is_whole {
                    // With it the client has everything up to where both go on together.
                    let is_due = self.is_due_beside(key, last);
                    self.join(key);
                    if is_due {
                        let cursor = self.cursor(&timeline, through);
                        self.sink.write(self.encoding.event(last, Some(&cursor)));
                    }
                } else {
                    self.write_records_beside(key, std::slice::from_ref(last), &timeline);
                }
            }
            None if is_whole => self.join(key),
            None => {}
        }
        if !is_whole {
            self.advance(key, through);
            if let Some(strand) = self.strand(key) {
                strand.catch_up = CatchUp::Written;
            }
            self.pause();
        }
        self.name_exceptions();
    }

    fn is_due_beside(&self, key: u32, record: &Record) -> bool {
        let Some((beside, seq)) = self.beside.as_ref().zip(record.seq()) else { return false };
        let Some(added) = beside.added.iter().find(|added| added.key == key) else { return false };
        let subscription = &added.strand.interest.subscription;
        beside.ledger.leaves(record, seq, subscription, added.inbox_until)
            && !beside.is_brought_by_another(key, record, seq)
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
        let strand = Strand::new(Interest { session, subscription }, start);
        beside.waiting.push_back(Added::new(beside.last_key, strand, reference));
        self.go_on(ctx);
    }
}

impl Handler<Unfollow> for Session {
    type Result = ();

    fn handle(&mut self, unfollow: Unfollow, ctx: &mut Self::Context) {
        let Some(beside) = &mut self.beside else { return };
        for added in beside.added.iter_mut().chain(&mut beside.waiting) {
            added.remove(&unfollow.selectors);
        }
        beside.ledger.remove(&unfollow.selectors);
        beside.leaving.push(unfollow);
        self.go_on(ctx);
    }
}

impl Handler<Joined> for Session {
    type Result = ();

    fn handle(&mut self, Joined { answer, is_seated }: Joined, ctx: &mut Self::Context) {
        let asked = self.beside.as_mut().and_then(|beside| beside.asked.take());
        let Some(Asked { what, joined }) = asked else { return };
        if is_seated {
            self.base.interest.subscription = joined;
        }
        match (what, answer) {
            (_, Answer::Refused(reason)) => return self.close(reason, ctx),
            (What::Leave(count), _) if is_seated => {
                let leaving = self.beside.iter_mut().flat_map(|beside| beside.leaving.drain(..count));
                for reference in leaving.filter_map(|unfollow| unfollow.reference) {
                    self.sink.write(Said::Unsubscribed { r#ref: reference.as_deref() }.frame());
                }
            }
            // The client has fallen out of its feed meanwhile; it is asked again when it is back.
            (What::Leave(_), _) => {}
            (
                What::Join(key),
                Answer::Missed { after, through, frames: records, is_whole, timeline, reset },
            ) => {
                let missed = Missed { after, through, records, is_whole, timeline, reset };
                self.take_missed(key, is_seated, missed);
            }
            (What::Join(key), Answer::Behind { origin, head, log, reset, had, .. }) => {
                let chase = Chase::new(origin, head, log, reset, had);
                if let Some(added) = self.beside.as_mut().and_then(|beside| beside.added(key)) {
                    added.chase(chase);
                }
            }
            (What::Join(key), Answer::Ahead) => {
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
