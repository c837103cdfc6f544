//! Something that a client follows, and how far it has come with it. Pure.
//!
//! What a client began with is its base strand; once that is live, what it adds catches up as a strand of its own beside
//! it, and then joins the base. Until then the cursor names its position.

use std::time::Duration;

use super::message::{LogReader, Origin, Reset};
use crate::actors::broker::{At, Begin, Start};
use crate::actors::log::{Page, Sought};
use crate::actors::replay::{Loss, NOTHING_PROMISED, find_loss, is_last_look, next_look, start_of};
use crate::channel::Selector;
use crate::cursor::{Cursor, Exceptions, Seq, Tag};
use crate::interest::{Interest, Subscription};
use crate::record::Record;
use crate::wire::ws::Reference;

/// How a strand gets what it missed.
pub(super) enum CatchUp {
    /// It has its start still to be settled by the broker.
    Starting,
    /// Its cursor is ahead, and it waits until it looks again.
    Waiting,
    /// The broker was asked.
    Asking,
    /// It is live; a strand that was added has then joined the base.
    Live,
    /// It asks the broker when all up to its position is written.
    Written,
    /// It reads the log.
    Log(Box<Chase>),
}

/// A reading of the log under way.
pub(super) struct Chase {
    /// Where it began.
    pub(super) after: Seq,
    /// It is read up to here.
    pub(super) position: Seq,
    pub(super) until: Seq,
    /// How many of the last events are still to be found before it can be read, and up to where.
    pub(super) to_seek: Sought,
    /// What was removed up to here the client was never promised, or was told.
    known_trim: Seq,
    pub(super) log: LogReader,
    pub(super) reset: Option<Reset>,
    /// Where the client was, if not everything was at one position.
    had: Option<Cursor>,
}

impl Chase {
    pub(super) fn new(
        origin: Origin,
        head: Seq,
        log: LogReader,
        reset: Option<Reset>,
        had: Option<Cursor>,
    ) -> Self {
        let (position, known_trim, left) = match origin {
            Origin::After(position) => (position, 0, 0),
            Origin::Earliest => (0, NOTHING_PROMISED, 0),
            Origin::Last(last) => (0, NOTHING_PROMISED, last),
        };
        let to_seek = Sought { position: head, left };
        Self { after: position, position, until: head, to_seek, known_trim, log, reset, had }
    }

    /// Takes the position that the last events come after.
    pub(super) fn take_sought(&mut self, sought: Sought) {
        self.to_seek = sought;
        (self.after, self.position) = (sought.position, sought.position);
    }

    /// What the page tells to be lost, and the position that it begins after.
    pub(super) fn take_page(&mut self, page: &Page) -> (Option<Loss>, Seq) {
        let loss = find_loss(page, self.until, &mut self.known_trim);
        let began = self.position.max(start_of(page));
        self.position = page.through;
        (loss, began)
    }

    /// Whether the client has had an event before this connection.
    pub(super) fn has_had(&self, interest: &Interest, record: &Record) -> bool {
        let had = self.had.as_ref().zip(record.seq());
        had.is_some_and(|(cursor, seq)| interest.has_had(cursor, &record.draft, seq))
    }

    /// The client's cursor when it has read up to `seq`, if that is not one position.
    pub(super) fn cursor_at(&self, seq: Seq) -> Option<Cursor> {
        self.had.as_ref().map(|had| had.advanced(seq))
    }
}

pub(super) struct Strand {
    pub(super) interest: Interest,
    /// Where it begins; nothing of a base once that is settled, which is for almost all of a client's life.
    beginning: Option<Box<Beginning>>,
    /// Up to here it is written, as far as it is not live.
    pub(super) position: Seq,
    pub(super) catch_up: CatchUp,
}

struct Beginning {
    start: Start,
    /// For how long it has waited for the head to come to its cursor.
    waited: Duration,
}

impl Strand {
    pub(super) fn new(interest: Interest, start: Start) -> Self {
        let beginning = Some(Box::new(Beginning { start, waited: Duration::ZERO }));
        Self { interest, beginning, position: 0, catch_up: CatchUp::Starting }
    }

    /// What to ask the broker for now; nothing while it reads, waits or is live.
    pub(super) fn ask(&mut self) -> Option<At> {
        let at = match &self.catch_up {
            CatchUp::Starting => self.beginning.as_ref()?.at(),
            CatchUp::Written => At::Position(self.position),
            CatchUp::Log(chase) if chase.is_read() => At::Position(chase.position),
            CatchUp::Waiting | CatchUp::Asking | CatchUp::Live | CatchUp::Log(_) => return None,
        };
        self.catch_up = CatchUp::Asking;
        Some(at)
    }

    /// Its cursor is beyond the head: how long to wait until it asks again.
    pub(super) fn wait_for_head(&mut self) -> Duration {
        self.catch_up = CatchUp::Waiting;
        self.beginning.as_mut().map_or(Duration::ZERO, |beginning| beginning.wait())
    }

    /// It need not know any more where it begins.
    pub(super) fn has_begun(&mut self) {
        self.beginning = None;
    }

    fn start(&self) -> Option<&Start> {
        self.beginning.as_ref().map(|beginning| &beginning.start)
    }

    /// It has waited.
    pub(super) fn look_again(&mut self) {
        if matches!(self.catch_up, CatchUp::Waiting) {
            self.catch_up = CatchUp::Starting;
        }
    }

    /// Whether there is something to read from the log.
    pub(super) fn wants_to_read(&self) -> bool {
        matches!(&self.catch_up, CatchUp::Log(chase) if !chase.is_read())
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.catch_up, CatchUp::Live)
    }
}

impl Beginning {
    fn at(&self) -> At {
        let start = self.start.clone();
        if self.waited.is_zero() {
            At::Start(start)
        } else {
            At::Again { start, is_last: is_last_look(self.waited) }
        }
    }

    fn wait(&mut self) -> Duration {
        let wait = next_look(self.waited);
        self.waited += wait;
        wait
    }
}

impl Chase {
    fn is_read(&self) -> bool {
        self.position >= self.until && self.to_seek.left == 0
    }
}

/// A strand beside the base.
pub(super) struct Added {
    /// Tells it from the others of this client; the base is 0.
    pub(super) key: u32,
    pub(super) strand: Strand,
    pub(super) reference: Option<Reference>,
    /// Whether the client was told that it follows this.
    pub(super) is_told: bool,
    /// What it is called in a cursor, each selector by a name of its own; nothing if these do not fit.
    tags: Option<Vec<Tag>>,
    /// Whatever came before this it was never to bring.
    pub(super) since: Seq,
    /// Whether it is also to bring what the client's session and everyone were sent before the client came: what goes
    /// on from a cursor first does.
    pub(super) brings_inbox: bool,
    /// Up to here it does.
    pub(super) inbox_until: Seq,
    /// Where the client was, if not everything of this was at one position.
    pub(super) had: Option<Cursor>,
}

impl Added {
    pub(super) fn new(key: u32, strand: Strand, reference: Option<Reference>) -> Self {
        let tags = names(&strand.interest.subscription);
        Self {
            key,
            strand,
            reference,
            is_told: false,
            tags,
            since: 0,
            brings_inbox: false,
            inbox_until: 0,
            had: None,
        }
    }

    /// Follows these no more; a cursor names them no more either, since they may be added again.
    pub(super) fn remove(&mut self, selectors: &[Selector]) {
        let subscription = &mut self.strand.interest.subscription;
        *subscription = std::mem::take(subscription).without(selectors);
        // What had no names gets none: there may be no room for them.
        self.tags = self.tags.as_ref().and_then(|_| names(subscription));
    }

    /// Whether there is something left for it to do.
    pub(super) fn is_needed(&self) -> bool {
        !self.strand.interest.subscription.is_empty() || self.inbox_until > self.strand.position
    }

    /// What it asks the broker and the log for.
    pub(super) fn interest(&self) -> Interest {
        let interest = self.strand.interest.clone();
        if self.brings_inbox { interest } else { interest.without_inbox() }
    }

    /// Whether it follows with what comes and has nothing to catch up with.
    pub(super) fn is_from_now(&self) -> bool {
        matches!(self.strand.start(), Some(Start::At(Begin::Now | Begin::Last(0))))
    }

    /// Whether it goes on from a cursor.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.strand.start(), Some(Start::After { .. }))
    }

    /// How many bytes of a cursor it may take.
    pub(super) fn bytes_needed(&self) -> usize {
        if self.is_from_now() {
            return 0;
        }
        let tags = self.tags.as_ref().map_or(0, Vec::len) + usize::from(self.brings_inbox);
        if tags == 0 { 0 } else { Exceptions::bytes_for(tags) }
    }

    /// Where it stands, by the names that a cursor has for it; nothing before its start is settled. `had` is where it
    /// stood before.
    pub(super) fn exceptions(&self, had: Option<&Cursor>) -> impl Iterator<Item = (Tag, Seq)> {
        let position = self.strand.position;
        let inbox = (self.inbox_until > position).then(Interest::inbox_tag);
        let tags = self.tags.iter().flatten().copied().chain(inbox);
        tags.filter(|_| self.is_told).map(move |tag| {
            let had = had.map_or(0, |had| had.position_of(tag));
            (tag, position.max(had))
        })
    }

    /// Up to here the client has everything, as far as this goes, if a cursor has no names for it: then the client's
    /// cursor is no further.
    pub(super) fn holds_back(&self) -> Option<Seq> {
        (self.is_told && self.tags.is_none()).then_some(self.strand.position)
    }

    /// Reads the log from now on.
    pub(super) fn chase(&mut self, chase: Chase) {
        self.had = chase.had.clone();
        self.strand.catch_up = CatchUp::Log(Box::new(chase));
    }
}

/// As many names as fit a cursor; one more is left for the inbox.
const MAX_TAGS: usize = 10;

fn names(subscription: &Subscription) -> Option<Vec<Tag>> {
    (subscription.len() <= MAX_TAGS).then(|| subscription.tags().collect())
}
