//! One subscriber in this process: a bounded queue, what comes before it, and what is to be done next. Pure but for the
//! queue's own sender, which is only ever tried.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::actors::broker::{At, Start};
use crate::actors::log::{Page, ReadAfter, Seek, Sought};
use crate::actors::replay::{NOTHING_PROMISED, find_loss, start_of};
use crate::actors::session::{Answer, LogReader, Origin, PAGE, Reset};
use crate::actors::tally::EXPIRED;
use crate::actors::view::{ClientState, ClientView};
use crate::counts::Transport;
use crate::cursor::{Cursor, Seq, Timeline};
use crate::delivery::{Delivery, Received};
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::Interest;
use crate::record::Record;

/// The last word of a stream.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reason: CloseReason,
    /// Ephemeral events that were dropped and not told yet.
    pub(crate) lost: u64,
}

/// Told once, when the position is settled: where the stream starts, if that is known already.
pub(crate) type Verdict = oneshot::Sender<Result<Option<Cursor>, CloseReason>>;

/// The near ends of a stream.
pub(crate) struct Ends {
    pub(crate) queue: mpsc::Sender<Delivery>,
    pub(crate) verdict: Verdict,
    pub(crate) ended: oneshot::Sender<Ended>,
}

pub(super) struct Subscriber {
    interest: Interest,
    start: Start,
    queue: mpsc::Sender<Delivery>,
    verdict: Option<Verdict>,
    ended: oneshot::Sender<Ended>,
    timeline: Option<Timeline>,
    state: State,
    /// What it missed and is still to be put into the queue: a page and its notices at most, and nothing while it is live.
    owed: VecDeque<Delivery>,
    /// Ephemeral events that were dropped and not told yet.
    lost: u64,
    /// What it was given of the past, and told to be missing, since that was counted last.
    news: News,
    /// For how long it has waited for the head to come to its cursor.
    pub(super) waited: Duration,
    /// Waits for room in the queue.
    pub(super) waiter: Option<JoinHandle<()>>,
}

enum State {
    /// It has asked the broker.
    Asking,
    /// Everything up to here is in its queue, and what comes goes there at once.
    Live(Seq),
    /// Everything up to here is in its queue or owed; then it asks the broker.
    Behind(Seq),
    /// It reads the log.
    Log(Chase),
}

/// A reading of the log under way.
struct Chase {
    /// Where it began.
    after: Seq,
    /// It is read up to here.
    position: Seq,
    until: Seq,
    /// How many of the last events are still to be found before it can be read, and up to where.
    to_seek: Option<Sought>,
    /// What was removed up to here it was never promised, or was told.
    known_trim: Seq,
    log: LogReader,
    reset: Option<Reset>,
    /// Where it was, if not everything that it follows was at one position.
    had: Option<Cursor>,
}

/// What is to be counted of a subscriber.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) replayed: u64,
    pub(super) lost: u64,
    pub(super) gaps: Vec<&'static str>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is in the queue.
    Taken,
    /// It will come from the log, or is counted.
    Done,
    /// The queue is full: from now on the subscriber is not live.
    FellOut,
    /// Nobody reads the queue any more.
    Gone,
}

/// What is to be done for a subscriber.
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// Wait until there is room in the queue.
    AwaitRoom,
    /// Ask the broker.
    Ask(At),
    /// Read a page.
    Read(LogReader, ReadAfter),
    /// Find where to begin.
    Find(LogReader, Seek),
    /// Forget it.
    Leave,
}

impl Subscriber {
    pub(super) fn new(interest: Interest, start: Start, ends: Ends) -> Self {
        let Ends { queue, verdict, ended } = ends;
        Self {
            interest,
            start,
            queue,
            verdict: Some(verdict),
            ended,
            timeline: None,
            state: State::Asking,
            owed: VecDeque::new(),
            lost: 0,
            news: News::default(),
            waited: Duration::ZERO,
            waiter: None,
        }
    }

    pub(super) fn interest(&self) -> &Interest {
        &self.interest
    }

    pub(super) fn start(&self) -> Start {
        self.start.clone()
    }

    pub(super) fn queue(&self) -> mpsc::Sender<Delivery> {
        self.queue.clone()
    }

    /// Takes an event of interest that was published now.
    pub(super) fn offer(&mut self, record: &Arc<Record>) -> Offered {
        // Before its position is settled nothing is promised.
        let Some(timeline) = &self.timeline else { return Offered::Done };
        let State::Live(position) = &mut self.state else {
            self.lost += u64::from(record.seq().is_none());
            return Offered::Done;
        };
        match self.queue.try_send(Delivery::Event(Received::new(record.clone(), timeline.clone()))) {
            Ok(()) => {
                *position = record.seq().unwrap_or(*position);
                Offered::Taken
            }
            Err(TrySendError::Full(_)) => {
                // All of interest before this event is in the queue.
                let position = record.seq().map_or(*position, |seq| seq - 1);
                self.lost += u64::from(record.seq().is_none());
                self.state = State::Behind(position);
                Offered::FellOut
            }
            Err(TrySendError::Closed(_)) => Offered::Gone,
        }
    }

    /// All of interest up to `head` was offered.
    pub(super) fn advance(&mut self, head: Seq) {
        if let State::Live(position) = &mut self.state {
            *position = head.max(*position);
        }
    }

    /// Takes the broker's answer, but for those that give it nothing to read. What was lost comes ahead of what was missed:
    /// that is where it stood when the queue was full.
    pub(super) fn admit(&mut self, answer: Answer<Arc<Record>>) {
        match answer {
            Answer::Missed { after, through, frames, is_whole, timeline, reset } => {
                self.settle(&timeline, Some(after));
                self.owe_reset(reset, after);
                self.owe_lag();
                self.owe_events(&frames);
                // Live only if all of it fits: else it asks again when it has read some.
                let is_live = is_whole && self.owed.len() <= self.queue.capacity();
                self.state = if is_live { State::Live(through) } else { State::Behind(through) };
            }
            Answer::Behind { origin, head, timeline, log, reset, had } => {
                let (after, known_trim, to_seek) = match origin {
                    Origin::After(position) => (position, 0, None),
                    Origin::Earliest => (0, NOTHING_PROMISED, None),
                    Origin::Last(left) => (0, NOTHING_PROMISED, Some(Sought { position: head, left })),
                };
                let is_known = matches!(origin, Origin::After(_)) && reset.is_none();
                self.settle(&timeline, is_known.then_some(after));
                self.owe_lag();
                let position = after;
                self.state =
                    State::Log(Chase { after, position, until: head, to_seek, known_trim, log, reset, had });
            }
            Answer::Ahead | Answer::Refused(_) => {}
        }
    }

    /// Takes a page of the log.
    pub(super) fn take_page(&mut self, page: &Page) {
        let State::Log(chase) = &mut self.state else { return };
        let loss = find_loss(page, chase.until, &mut chase.known_trim);
        let told = loss.and_then(|loss| loss.told);
        let (began, after, head) = (chase.position.max(start_of(page)), chase.after, chase.until);
        let reset = chase.reset.take();
        chase.position = page.through;
        self.owe_reset(reset, began);
        let before = told.map_or(page.records.len(), |told| told.before);
        let (before, behind) = page.records.split_at_checked(before).unwrap_or((&page.records, &[]));
        self.owe_events(before);
        if let Some((told, timeline)) = told.zip(self.timeline.as_ref()) {
            self.news.gaps.push(EXPIRED);
            let (resumed_at, cursor) = (told.position, timeline.cursor(told.position));
            self.owed.push_back(Delivery::Gap { after, resumed_at, head, cursor });
        }
        self.owe_events(behind);
    }

    /// Takes the position that its last events come after.
    pub(super) fn take_sought(&mut self, sought: Sought) {
        if let State::Log(chase) = &mut self.state {
            (chase.after, chase.position) = (sought.position, sought.position);
            chase.to_seek = (sought.left > 0).then_some(sought);
        }
    }

    /// Puts what is owed into the queue, and says what is to be done then.
    pub(super) fn next(&mut self) -> Next {
        while let Some(item) = self.owed.pop_front() {
            match self.queue.try_send(item) {
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.owed.push_front(item);
                    return Next::AwaitRoom;
                }
                Err(TrySendError::Closed(_)) => return Next::Leave,
            }
        }
        self.owed = VecDeque::new();
        let interest = self.interest.clone();
        let position = match &self.state {
            State::Asking | State::Live(_) => return Next::Nothing,
            State::Behind(position) => *position,
            State::Log(Chase { to_seek: Some(Sought { position, left }), log, .. }) => {
                return Next::Find(log.clone(), Seek { last: *left, until: *position, interest });
            }
            State::Log(Chase { position, until, log, .. }) if position < until => {
                let query = ReadAfter { after: *position, until: *until, interest, limit: PAGE };
                return Next::Read(log.clone(), query);
            }
            State::Log(Chase { position, .. }) => *position,
        };
        self.state = State::Asking;
        Next::Ask(At::Position(position))
    }

    /// Ends the stream behind what is in its queue. What is owed and stored is in the log still.
    pub(super) fn end(mut self, reason: CloseReason) {
        if let Some(waiter) = self.waiter.take() {
            waiter.abort();
        }
        let owed = self.owed.iter().map(|item| match item {
            Delivery::Lag { dropped } => *dropped,
            _ => 0,
        });
        let lost = self.lost + owed.sum::<u64>();
        // The reader may be gone.
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Err(reason));
        }
        let _ = self.ended.send(Ended { reason, lost });
    }

    fn settle(&mut self, timeline: &Timeline, position: Option<Seq>) {
        self.timeline = Some(timeline.clone());
        if let Some(verdict) = self.verdict.take() {
            let _ = verdict.send(Ok(position.map(|position| timeline.cursor(position))));
        }
    }

    fn owe_reset(&mut self, reset: Option<Reset>, position: Seq) {
        if let Some((Reset { reason, head }, timeline)) = reset.zip(self.timeline.as_ref()) {
            self.news.gaps.push(reason.as_str());
            self.owed.push_back(Delivery::Reset { reason, head, cursor: timeline.cursor(position) });
        }
    }

    fn owe_lag(&mut self) {
        let dropped = std::mem::take(&mut self.lost);
        if dropped > 0 {
            self.news.lost += dropped;
            self.owed.push_back(Delivery::Lag { dropped });
        }
    }

    fn owe_events(&mut self, records: &[Arc<Record>]) {
        let Some(timeline) = &self.timeline else { return };
        let had = match &self.state {
            State::Log(chase) => chase.had.as_ref(),
            _ => None,
        };
        let is_new = |record: &&Arc<Record>| {
            let had = had.zip(record.seq());
            !had.is_some_and(|(had, seq)| self.interest.has_had(had, &record.draft, seq))
        };
        let event = |record: &Arc<Record>| Received::new(record.clone(), timeline.clone());
        let before = self.owed.len();
        self.owed.extend(records.iter().filter(is_new).map(event).map(Delivery::Event));
        self.news.replayed += (self.owed.len() - before) as u64;
    }

    /// What is to be counted; from now on it is.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Ephemeral events that were dropped and never told within the stream.
    pub(super) fn untold(&self) -> u64 {
        self.lost
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// How it is, if the log stands at `head`.
    pub(super) fn describe(&self, client: ClientId, head: Seq) -> ClientView {
        let position = match &self.state {
            State::Live(position) => Some((*position).max(head)),
            State::Behind(position) => Some(*position),
            State::Log(chase) => Some(chase.position),
            State::Asking => None,
        };
        let queued = self.queue.max_capacity() - self.queue.capacity() + self.owed.len();
        ClientView {
            client,
            session: self.interest.session,
            transport: Transport::Stream,
            channels: self.interest.subscription.clone(),
            connected_at: client.minted_at(),
            state: if self.is_live() { ClientState::Live } else { ClientState::CatchingUp },
            cursor: self
                .timeline
                .as_ref()
                .zip(position)
                .map(|(timeline, position)| timeline.cursor(position)),
            queued: queued as u64,
            lag: position.map_or(0, |position| head.saturating_sub(position)),
            closed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::broker::Begin;
    use crate::channel::Channel;
    use crate::cursor::{Lineage, Name};
    use crate::event::Event;
    use crate::identity::{Publisher, SessionId};
    use crate::interest::Subscription;
    use crate::record::Draft;

    struct Reader {
        items: mpsc::Receiver<Delivery>,
        ended: oneshot::Receiver<Ended>,
        timeline: Timeline,
    }

    impl Reader {
        /// All that is in the queue, in short.
        fn read(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.items.try_recv().ok()).map(|item| in_short(&item)).collect()
        }
    }

    fn in_short(item: &Delivery) -> String {
        match item {
            Delivery::Event(event) => event.seq().map_or("e".into(), |seq| seq.to_string()),
            Delivery::Lag { dropped } => format!("lag {dropped}"),
            Delivery::Gap { after, resumed_at, .. } => format!("gap {after}-{resumed_at}"),
            Delivery::Reset { cursor, .. } => format!("reset {}", cursor.seq()),
        }
    }

    fn record(seq: Option<Seq>) -> Arc<Record> {
        let event = Event::text("message", "x").expect("valid");
        let draft = Draft::new(event, [Channel::everyone()].into(), Publisher::HUB, 0);
        Arc::new(
            seq.map_or_else(
                || Record::ephemeral(draft.clone()),
                |seq| Record::committed(draft.clone(), seq, 0),
            ),
        )
    }

    fn subscriber(queue: usize) -> (Subscriber, Reader) {
        let (queue, items) = mpsc::channel(queue);
        let (verdict, _) = oneshot::channel();
        let (ended, last) = oneshot::channel();
        let interest = Interest::new(SessionId::mint(), Subscription::default());
        let subscriber = Subscriber::new(interest, Start::At(Begin::Now), Ends { queue, verdict, ended });
        let timeline = Lineage::new(Name::mint(), Vec::new(), Name::mint(), 1).timeline();
        (subscriber, Reader { items, ended: last, timeline })
    }

    fn missed(reader: &Reader, after: Seq, seqs: &[Seq], through: Seq) -> Answer<Arc<Record>> {
        Answer::Missed {
            after,
            through,
            frames: seqs.iter().map(|&seq| record(Some(seq))).collect(),
            is_whole: true,
            timeline: reader.timeline.clone(),
            reset: None,
        }
    }

    fn live(queue: usize, position: Seq) -> (Subscriber, Reader) {
        let (mut subscriber, reader) = subscriber(queue);
        subscriber.admit(missed(&reader, position, &[], position));
        assert!(matches!(subscriber.next(), Next::Nothing));
        (subscriber, reader)
    }

    fn asks_after(subscriber: &mut Subscriber) -> Seq {
        match subscriber.next() {
            Next::Ask(At::Position(position)) => position,
            _ => panic!("it does not ask"),
        }
    }

    #[test]
    fn who_falls_out_is_told_what_was_lost_and_goes_on_where_it_was() {
        let (mut subscriber, mut reader) = live(2, 0);
        let offers = [Some(3), None, None, Some(5), None].map(|seq| subscriber.offer(&record(seq)));
        use Offered::{Done, FellOut, Taken};
        assert_eq!(offers, [Taken, Taken, FellOut, Done, Done]);
        assert_eq!(reader.read(), ["3", "e"]);
        assert_eq!(asks_after(&mut subscriber), 3);
        subscriber.offer(&record(None));
        subscriber.admit(missed(&reader, 3, &[5], 6));
        assert!(matches!(subscriber.next(), Next::Nothing));
        assert_eq!(reader.read(), ["lag 3", "5"]);
        assert_eq!(subscriber.offer(&record(Some(7))), Taken, "live again");
        assert_eq!(reader.read(), ["7"]);
    }

    #[test]
    fn a_stored_event_that_does_not_fit_is_the_first_to_come_again() {
        let (mut subscriber, mut reader) = live(1, 0);
        subscriber.offer(&record(None));
        subscriber.advance(8);
        assert_eq!(subscriber.offer(&record(Some(10))), Offered::FellOut);
        assert_eq!(asks_after(&mut subscriber), 9);
        subscriber.admit(missed(&reader, 9, &[], 9));
        assert!(matches!(subscriber.next(), Next::Nothing));
        assert_eq!(reader.read(), ["e"], "nothing was lost, so no lag");
    }

    #[test]
    fn who_cannot_take_all_that_it_missed_is_not_live() {
        let (mut subscriber, mut reader) = subscriber(2);
        subscriber.admit(missed(&reader, 0, &[1, 2, 3], 4));
        assert!(matches!(subscriber.next(), Next::AwaitRoom));
        assert_eq!(subscriber.offer(&record(Some(5))), Offered::Done, "it comes from the log");
        assert_eq!(reader.read(), ["1", "2"]);
        assert_eq!(asks_after(&mut subscriber), 4);
        assert_eq!(reader.read(), ["3"]);
    }

    #[test]
    fn the_end_counts_what_was_not_told() {
        let (mut subscriber, mut reader) = live(1, 0);
        for _ in 0..4 {
            subscriber.offer(&record(None));
        }
        subscriber.owe_lag();
        assert!(matches!(subscriber.next(), Next::AwaitRoom));
        subscriber.offer(&record(None));
        subscriber.end(CloseReason::Draining);
        assert_eq!(reader.read(), ["e"]);
        let Ended { reason, lost } = reader.ended.try_recv().expect("the last word");
        assert_eq!((reason, lost), (CloseReason::Draining, 4));
    }

    #[test]
    fn who_is_gone_is_noticed_by_the_next_event() {
        let (mut subscriber, reader) = live(1, 0);
        drop(reader);
        assert_eq!(subscriber.offer(&record(None)), Offered::Gone);
    }
}
