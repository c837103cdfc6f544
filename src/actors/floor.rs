//! Who is live on one HTTP thread, the feeds that they read, and who is to be woken: what the [worker](super::worker) of the
//! thread does, and what its sessions and bodies share. Nothing of it ever leaves the thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use actix::WeakAddr;
use actix::prelude::*;

use super::farewell::Farewell;
use super::feed::Feed;
use super::index::SelectorIndex;
use super::keys::Keys;
use super::lingering::Lingering;
use super::roster::{Key, Roster};
use super::rounds::{Left, Rounds};
use super::session::{Close, MayRead, Session};
use super::sink::Sink;
use super::tally::{SharedTally, Tally};
use super::turns::{Turn, Turns};
use super::worker::{Parcel, WorkerSettings};
use crate::channel::Reach;
use crate::config::Settings;
use crate::cursor::Seq;
use crate::identity::{ClientId, SessionId};
use crate::interest::Subscription;
use crate::wire::{Encoding, Frames, Framing};

/// Clients that are woken before the other tasks of the thread get their turn.
const WAKE_AT_ONCE: usize = 32;

/// A client as its thread knows it.
pub(super) struct Member {
    /// Weak: a session lives as long as its writer, and may take nothing of what it is told at its end.
    pub(super) session: WeakAddr<Session>,
    pub(super) session_id: SessionId,
    pub(super) subscription: Subscription,
    pub(super) encoding: Encoding,
    pub(super) sink: Rc<Sink>,
}

impl Member {
    /// Tells its session to close. What comes behind this is not for the client any more, however soon.
    pub(super) fn close(&self, farewell: Farewell) {
        self.sink.cut_off();
        self.tell(Close(farewell));
    }

    pub(super) fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Session: Handler<M>,
    {
        if let Some(session) = self.session.upgrade() {
            session.do_send(message);
        }
    }

    fn feed_key(&self, subscription: Subscription) -> FeedKey {
        FeedKey { subscription, encoding: self.encoding, framing: self.sink.framing() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FeedKey {
    subscription: Subscription,
    encoding: Encoding,
    framing: Framing,
}

/// The clients of a thread, and the feeds that they read.
pub(crate) struct Floor {
    pub(crate) settings: WorkerSettings,
    pub(super) members: Roster<ClientId, Member>,
    sessions: Roster<SessionId, Keys>,
    feeds: Roster<FeedKey, Rc<RefCell<Feed>>>,
    index: SelectorIndex<Keys>,
    rounds: Rounds,
    /// Who of the replays reads.
    turns: Turns,
    /// Who is to take the end of its stream.
    pub(super) lingering: Lingering,
    found: Vec<Key>,
    /// What was counted on this thread.
    pub(crate) tally: SharedTally,
    /// Clients that are being given what they missed.
    pub(crate) lagging: u64,
}

impl Floor {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default().worker,
            members: Roster::default(),
            sessions: Roster::default(),
            feeds: Roster::default(),
            index: SelectorIndex::default(),
            rounds: Rounds::new(),
            turns: Turns::default(),
            lingering: Lingering::default(),
            found: Vec::new(),
            tally: Rc::new(RefCell::new(Tally::with_reasons())),
            lagging: 0,
        }
    }

    pub(crate) fn enter(
        &mut self,
        client: ClientId,
        session_id: SessionId,
        subscription: Subscription,
        encoding: Encoding,
        sink: Rc<Sink>,
        session: WeakAddr<Session>,
    ) {
        let key = self.members.insert(client, Member { session, session_id, subscription, encoding, sink });
        self.sessions.update(session_id, |members| {
            members.insert(key);
        });
    }

    /// Forgets a client, and its feed with the last that reads it. Idempotent.
    pub(crate) fn leave(&mut self, client: ClientId) {
        let Some(key) = self.members.key(&client) else { return };
        let Some(member) = self.members.remove(&client) else { return };
        self.turns.forget(client);
        self.has_read(client);
        self.lingering.enter(&member.sink, Instant::now());
        if let Some(members) = self.sessions.get_mut(&member.session_id) {
            members.remove(key);
            if members.is_empty() {
                self.sessions.remove(&member.session_id);
            }
        }
        if member.sink.unseat().is_some() {
            self.drop_feed(&member.feed_key(member.subscription.clone()));
        }
        let Self { members, sessions, .. } = self;
        members.compact(|_, member, from, to| {
            if let Some(members) = sessions.get_mut(&member.session_id) {
                members.renumber(from, to);
            }
        });
        sessions.compact(|_, _, _, _| {});
    }

    /// The subscription of those who follow the same, so that a crowd has one and not each its own.
    pub(crate) fn share(
        &self,
        subscription: Subscription,
        encoding: Encoding,
        framing: Framing,
    ) -> Subscription {
        let key = FeedKey { subscription, encoding, framing };
        let known = self.feeds.key(&key).and_then(|id| self.feeds.at(id));
        known.map_or(key.subscription, |(known, _)| known.subscription.clone())
    }

    /// Asks for a turn at reading a page.
    pub(crate) fn ask_to_read(&mut self, client: ClientId) -> Turn {
        self.turns.ask(client)
    }

    /// A replay has its page, or has ended: the next may, unless there are very many. Idempotent.
    pub(crate) fn has_read(&mut self, client: ClientId) {
        if self.turns.has_read(client) {
            self.give_turn();
        }
    }

    /// A client has nothing to read any more.
    pub(crate) fn is_read_out(&mut self, client: ClientId) {
        self.turns.forget(client);
    }

    /// Gives the next replay its turn, if there is one to give.
    fn give_turn(&mut self) {
        while let Some(next) = self.turns.next() {
            if let Some(member) = self.members.get(&next) {
                return member.tell(MayRead);
            }
            // A turn must not go with somebody who left.
            self.turns.forget(next);
            self.turns.has_read(next);
        }
    }

    /// What is done each turn. True if others wait.
    pub(super) fn take_turns(&mut self) -> bool {
        self.give_turn();
        self.turns.is_awaited()
    }

    pub(super) fn seat(&mut self, client: ClientId, position: Seq) {
        let Some(member) = self.members.get(&client).filter(|member| !member.sink.is_ended()) else { return };
        let sink = member.sink.clone();
        let key = member.feed_key(member.subscription.clone());
        let feed = self.feed(key);
        sink.seat(&feed, position);
    }

    /// Moves a client to the feed of those who follow `joined`; what it was given of the old one and has not taken comes
    /// first. Nothing for a client that is not live: nothing is changed then.
    pub(super) fn reseat(
        &mut self,
        client: ClientId,
        joined: Subscription,
        position: Seq,
    ) -> Option<Subscription> {
        let member = self.members.get(&client)?;
        member.sink.keep_delivered();
        if !member.sink.is_live() || member.sink.is_ended() {
            return None;
        }
        self.unseat(client, joined.clone());
        self.seat(client, position);
        Some(joined)
    }

    /// Takes a client out of its feed; it follows `subscription` when it is seated again.
    pub(crate) fn unseat(&mut self, client: ClientId, subscription: Subscription) {
        let Some(member) = self.members.get_mut(&client) else { return };
        let left = std::mem::replace(&mut member.subscription, subscription);
        if member.sink.unseat().is_some() {
            let key = member.feed_key(left);
            self.drop_feed(&key);
        }
    }

    fn feed(&mut self, key: FeedKey) -> Rc<RefCell<Feed>> {
        if let Some(feed) = self.feeds.get(&key) {
            return feed.clone();
        }
        let feed = Feed::new(self.settings.feed, key.encoding.transport(), self.tally.clone());
        let feed = Rc::new(RefCell::new(feed));
        let subscription = key.subscription.clone();
        let id = self.feeds.insert(key, feed.clone());
        for selector in subscription.selectors() {
            self.index.entry(selector).insert(id);
        }
        feed
    }

    fn drop_feed(&mut self, key: &FeedKey) {
        let Some(id) = self.feeds.key(key) else { return };
        self.feeds.remove(key);
        for selector in key.subscription.selectors() {
            self.index.update(selector, |ids| {
                ids.remove(id);
                !ids.is_empty()
            });
        }
        let Self { feeds, index, .. } = self;
        feeds.compact(|key, _, from, to| {
            for selector in key.subscription.selectors() {
                index.entry(selector).renumber(from, to);
            }
        });
    }

    pub(super) fn deliver(&mut self, parcel: &Parcel) {
        let step = parcel.trace.part(|| tracing::debug_span!("deliver"));
        let mut found = std::mem::take(&mut self.found);
        for channel in parcel.record.draft.channels.iter() {
            match channel.reach() {
                Reach::Followers => self.index.for_each_match(channel, |ids| found.extend(ids.iter())),
                Reach::Everyone => found.extend(self.feeds.keys()),
                Reach::Session(session) => self.deliver_privately(session, parcel),
            }
        }
        let draft = &parcel.record.draft;
        let is_for_followers = draft.channels.iter().all(|channel| channel.reach() == Reach::Followers);
        let mut feeds = 0;
        let mut framed = Frames::default();
        for id in found.drain(..) {
            let Some((key, feed)) = self.feeds.at(id) else { continue };
            let subscription = &key.subscription;
            let admits = |channel| subscription.admits(channel, &draft.attributes);
            let is_kept_out =
                is_for_followers && subscription.is_filtered() && !draft.channels.iter().any(admits);
            if is_kept_out || !feed.borrow_mut().takes(parcel.number) {
                continue;
            }
            let &FeedKey { encoding, framing, .. } = key;
            let Some(bytes) = parcel.frames.get(encoding) else {
                // The broker knows before the worker that a client follows less.
                tracing::debug!(?encoding, "an event came without the bytes of an encoding in use");
                continue;
            };
            let bytes = match framing {
                Framing::Bare => bytes.clone(),
                Framing::Chunked => framed.get_or_insert(encoding, || framing.frame(bytes.clone())).clone(),
            };
            let mut reading = feed.borrow_mut();
            reading.append(bytes, parcel.record.seq(), parcel.committed);
            feeds += 1;
            if reading.wants_waking() {
                self.rounds.push(feed.clone());
            }
        }
        self.found = found;
        step.tell(|| tracing::debug!(id = %draft.id, feeds, "handed to those who follow it"));
    }

    fn deliver_privately(&self, session: SessionId, parcel: &Parcel) {
        let members = self.sessions.get(&session).into_iter().flat_map(Keys::iter);
        for (_, member) in members.filter_map(|key| self.members.at(key)) {
            if let Some(bytes) = parcel.frames.get(member.encoding) {
                member.sink.push_private(bytes.clone(), parcel.record.seq(), parcel.committed);
            }
        }
    }

    /// Wakes some of those that have something to read.
    pub(super) fn wake_some(&mut self) -> Left {
        self.rounds.wake(WAKE_AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::actors::Broker;
    use crate::actors::broker::Knock;
    use crate::actors::revoked::Standing;
    use crate::actors::session::SessionSettings;
    use crate::actors::trace::Trace;
    use crate::actors::worker::Worker;
    use crate::channel::Channel;
    use crate::event::Event;
    use crate::identity::Publisher;
    use crate::interest::Interest;
    use crate::record::{Draft, Record};

    #[actix_web::test]
    async fn no_feed_is_left_of_a_client_whose_stream_has_ended() {
        let broker = Broker::builder().start().expect("started");
        let (client, session) = (ClientId::mint(), SessionId::mint());
        let handle = Worker::start_here(broker.downgrade());
        let standing = Standing { session, asked: Instant::now(), issued: None };
        let knock = Knock { client, worker: handle.addr.clone(), standing, address: None };
        let pass = broker.send(knock).await.expect("answered");
        let settings = SessionSettings {
            pass: pass.expect("let in"),
            interest: Interest::new(session, Subscription::default()),
            encoding: Encoding::Ws,
            framing: Framing::Bare,
            start: crate::actors::broker::Start::At(crate::actors::broker::Begin::Now),
            expires: None,
            verdict: None,
        };
        let (addr, sink) = Session::start_here(settings, handle);
        let mut floor = Floor::new();
        floor.enter(client, session, Subscription::default(), Encoding::Ws, sink.clone(), addr.downgrade());
        floor.seat(client, 0);
        sink.go_live();
        // The reader ends the sink; its session has not heard of it yet when the answer comes.
        sink.end(None);
        floor.reseat(client, Subscription::to("once/7").expect("valid"), 0);
        floor.leave(client);
        assert_eq!((floor.feeds.len(), floor.index.exact_len()), (0, 0));
    }

    /// Members and feeds have other numbers when a crowd has left; who stays is delivered to as before.
    #[actix_web::test]
    async fn who_stays_when_a_crowd_leaves_is_still_delivered_to() {
        let nobody = Context::<Session>::new();
        let mut floor = Floor::new();
        let all: Vec<_> = (0..200).map(|n| (n, ClientId::mint(), SessionId::mint())).collect();
        for &(n, client, session) in &all {
            let own = Subscription::to(format!("own/{n}")).expect("valid");
            let sink = Sink::new(Framing::Bare);
            floor.enter(client, session, own, Encoding::SseRaw, sink.clone(), nobody.address().downgrade());
            floor.seat(client, 0);
            sink.go_live();
        }
        let (left, stay) = all.split_at(190);
        for &(_, client, _) in left {
            floor.leave(client);
        }
        assert!(floor.members.capacity() < 100 && floor.feeds.capacity() < 100);
        for &(n, client, session) in stay {
            let own = Channel::new(format!("own/{n}")).expect("valid");
            for (number, channel) in [(1, own), (2, Channel::inbox(session))] {
                floor.deliver(&parcel(number, channel));
                let sink = floor.members.get(&client).expect("there").sink.clone();
                let pulled = sink.pull(std::task::Waker::noop());
                assert!(matches!(pulled, crate::actors::sink::Pull::Bytes(_)), "{number}: {pulled:?}");
            }
        }
    }

    /// The session comes to its word to close only later.
    #[actix_web::test]
    async fn what_comes_behind_the_word_to_close_is_not_delivered() {
        let nobody = Context::<Session>::new();
        let (mut floor, client) = (Floor::new(), ClientId::mint());
        let (sink, own) = (Sink::new(Framing::Bare), Subscription::to("a").expect("valid"));
        let session = nobody.address().downgrade();
        floor.enter(client, SessionId::mint(), own, Encoding::SseRaw, sink.clone(), session);
        floor.seat(client, 0);
        sink.go_live();
        let a = || Channel::new("a").expect("valid");
        floor.deliver(&parcel(1, a()));
        floor.members.get(&client).expect("there").close(crate::CloseReason::Revoked.into());
        floor.deliver(&parcel(2, a()));
        floor.wake_some();
        let pull = || sink.pull(std::task::Waker::noop());
        assert!(matches!(pull(), crate::actors::sink::Pull::Bytes(bytes) if &bytes[..] == b"data: here\n\n"));
        assert_eq!(pull(), crate::actors::sink::Pull::Pending);
    }

    fn parcel(number: u64, channel: Channel) -> Parcel {
        let event = Event::text("x", "here").expect("valid");
        let record = Record::committed(Draft::new(event, [channel].into(), Publisher::HUB, 0), number, 0);
        let mut frames = Frames::default();
        frames.get_or_insert(Encoding::SseRaw, || Bytes::from_static(b"data: here\n\n"));
        let record = Arc::new(record);
        Parcel { number, record, frames, committed: Instant::now(), trace: Trace::default() }
    }
}
