//! The half of the role that keeps: an index follows an order that is made elsewhere.
//!
//! A log of its own gives each event the next position and keeps it. An index keeps events at positions that it is told,
//! and is otherwise the same: it decides which are duplicates, links each to the one before it, lets go of what is
//! too old or too much, and tells the broker. Since it goes by the order alone, every index of an order comes to the
//! same.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;

use super::{Forget, LogSetup, ReadAfter, Seek};
use crate::channel::Channel;
use crate::cursor::{Lineage, Name, Seq};
use crate::error::LogError;
use crate::record::Draft;

/// Which positions events take.
#[derive(Debug, Clone, Copy)]
pub(in crate::actors) enum Numbering {
    /// Each the next one that is free.
    Next,
    /// The one of each is this and its number in the batch, whether or not those before it are duplicates.
    From(Seq),
}

impl Numbering {
    /// The position of an event by its number in the batch, where the newest one that is taken is `head`.
    pub(super) fn place(self, number: usize, head: Seq) -> Seq {
        match self {
            Self::Next => head + 1,
            Self::From(first) => first + number as Seq,
        }
    }
}

/// A store that can be the index of an order.
#[cfg_attr(not(feature = "nats"), allow(dead_code))]
pub(super) trait Index: Send + 'static {
    /// Starts it. It says nothing to the follower before it is told to [`Open`].
    fn follow(self: Box<Self>, setup: LogSetup) -> Result<IndexHandle, LogError>;
}

/// What an index is asked by.
#[cfg_attr(not(feature = "nats"), allow(dead_code))]
#[derive(Clone)]
pub(super) struct IndexHandle {
    pub(super) align: Recipient<Align>,
    pub(super) apply: Recipient<Apply>,
    pub(super) open: Recipient<Open>,
    pub(super) read: Recipient<ReadAfter>,
    pub(super) seek: Recipient<Seek>,
    pub(super) forget: Recipient<Forget>,
}

/// Command: hold what is kept against what the order is and still has. What was kept of another order, or has missed a
/// part, is thrown away.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Aligned, LogError>")]
pub(super) struct Align {
    /// Whose positions they are.
    pub(super) order: Name,
    /// The first position that the order still has. What is before it goes.
    pub(super) first: Seq,
    /// The position after its last.
    pub(super) end: Seq,
}

impl Align {
    /// Whether an index that has everything up to `through` can go on from there.
    pub(super) fn is_continued_by(&self, order: Option<&Name>, through: Seq) -> bool {
        order == Some(&self.order) && through + 1 >= self.first && through < self.end.max(1)
    }

    /// Everything up to here is gone for an index that begins anew.
    pub(super) fn start(&self) -> Seq {
        self.first.saturating_sub(1)
    }
}

/// Where an index stands.
#[cfg_attr(not(feature = "nats"), allow(dead_code))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Aligned {
    /// It has everything up to here.
    pub(super) through: Seq,
    /// The newest position that it has.
    pub(super) head: Seq,
    /// Whether it has thrown away what it had.
    pub(super) is_anew: bool,
}

/// Command: keep these, in one go, and tell the follower if the index is open. Answers with the newest position.
#[derive(Message)]
#[rtype(result = "Result<Seq, LogError>")]
pub(super) struct Apply(pub(super) Vec<Stretch>);

/// Events that stand next to each other in the order.
pub(super) struct Stretch {
    /// The position of the first.
    pub(super) first: Seq,
    /// Everything up to here is known with it.
    pub(super) through: Seq,
    /// When the order took them, by its own clock, in milliseconds.
    pub(super) time: u64,
    /// The command of this node's broker that they were.
    pub(super) ticket: Option<u64>,
    pub(super) drafts: Drafts,
}

/// Events as an order has them. They are taken apart by the thread that keeps them and lets go of them: what one thread
/// makes and another frees costs both of them a multiple, and that is most of what it costs to fill an index.
#[cfg_attr(not(feature = "nats"), allow(dead_code))]
#[derive(Debug)]
pub(super) enum Drafts {
    Read(Vec<Draft>),
    Unread {
        bytes: Bytes,
        count: usize,
        /// What breaks a rule is no event, and nothing of it is one then.
        read: fn(&[u8], usize, &mut Lately) -> Option<Vec<Draft>>,
    },
}

/// What was read last: who reads one message after another finds much of it again, and keeps that once.
#[cfg_attr(not(feature = "nats"), allow(dead_code))]
#[derive(Debug, Default)]
pub(super) struct Lately {
    pub(super) channels: Arc<[Channel]>,
}

impl Drafts {
    pub(super) fn read(self, lately: &mut Lately) -> Vec<Draft> {
        match self {
            Self::Read(drafts) => drafts,
            Self::Unread { bytes, count, read } => read(&bytes, count, lately).unwrap_or_else(|| {
                tracing::warn!("what a message of the order says are no events; passed over");
                Vec::new()
            }),
        }
    }

    /// Those that there are, read now.
    #[cfg_attr(not(feature = "nats"), allow(dead_code))]
    pub(super) fn make_read(&mut self) -> &[Draft] {
        if let Self::Unread { .. } = self {
            let unread = std::mem::replace(self, Self::Read(Vec::new()));
            *self = Self::Read(unread.read(&mut Lately::default()));
        }
        match self {
            Self::Read(drafts) => drafts,
            Self::Unread { .. } => &[],
        }
    }

    /// How many there are, if they are events.
    #[cfg_attr(not(feature = "nats"), allow(dead_code))]
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Read(drafts) => drafts.len(),
            Self::Unread { count, .. } => *count,
        }
    }
}

/// Command: tell the follower that the log is open, and from now on of all that comes.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(super) struct Open(pub(super) Lineage);

#[cfg(all(test, feature = "nats", feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tokio::sync::mpsc;

    use super::*;
    use crate::actors::log::{
        CommitFailed, Committed, Follower, LogHealth, MemoryLog, Opened, PageLimit, Relayed, SqliteLog,
        Trimmed, WINDOW,
    };
    use crate::channel::{Channel, Selector};
    use crate::event::{Event, EventId};
    use crate::identity::{Publisher, SessionId};
    use crate::interest::{Filter, Interest, Subscription};
    use crate::retention::Retention;

    /// Writes down what an index tells.
    struct Probe(mpsc::UnboundedSender<String>);

    impl Actor for Probe {
        type Context = Context<Self>;
    }

    macro_rules! hears {
        ($($fact:ident: $text:expr;)*) => {
            $(impl Handler<$fact> for Probe {
                type Result = ();

                fn handle(&mut self, fact: $fact, _: &mut Self::Context) {
                    let text: fn($fact) -> Option<String> = $text;
                    if let Some(text) = text(fact) {
                        let _ = self.0.send(text);
                    }
                }
            })*
        };
    }

    hears! {
        Opened: |opened| Some(format!("opened at {}", opened.head));
        Committed: |committed| {
            let places: Vec<_> = committed.records.iter().map(|record| record.place).collect();
            Some(format!("{places:?} {:?}", committed.settles))
        };
        CommitFailed: |_| Some("failed".into());
        LogHealth: |_| None;
        Trimmed: |_| None;
        Relayed: |_| None;
    }

    /// An index, and what it has told.
    struct Told {
        handle: IndexHandle,
        facts: mpsc::UnboundedReceiver<String>,
        probe: Addr<Probe>,
    }

    impl Told {
        fn start(index: Box<dyn Index>) -> Self {
            let (send, facts) = mpsc::unbounded_channel();
            let probe = Probe(send).start();
            let follower = Follower {
                opened: probe.downgrade().recipient(),
                committed: probe.downgrade().recipient(),
                failed: probe.downgrade().recipient(),
                health: probe.downgrade().recipient(),
                trimmed: probe.downgrade().recipient(),
                relayed: probe.downgrade().recipient(),
            };
            let setup = LogSetup { follower, retention: Retention::default() };
            Self { handle: index.follow(setup).expect("it starts"), facts, probe }
        }

        async fn align(&self, align: &Align) -> (Seq, Seq, bool) {
            let aligned = self.handle.align.send(align.clone()).await.expect("it lives").expect("aligned");
            (aligned.through, aligned.head, aligned.is_anew)
        }

        async fn next(&mut self) -> String {
            let next = tokio::time::timeout(Duration::from_secs(10), self.facts.recv()).await;
            next.expect("it tells").expect("the probe lives")
        }

        /// All events from one position on, and what is told to be lost.
        async fn page(&self, after: Seq, until: Seq) -> (Vec<String>, Option<Seq>) {
            let all = Subscription::new([Selector::new("**").expect("valid")], Filter::default());
            let interest = Interest::new(SessionId::derived_from(b"x"), all);
            let limit = PageLimit { events: usize::MAX, bytes: usize::MAX };
            let page = self.handle.read.send(ReadAfter { after, until, interest, limit }).await;
            let page = page.expect("it lives").expect("it reads");
            let event = |record: &std::sync::Arc<crate::record::Record>| {
                format!("{:?} {} {:?}", record.place, record.draft.id, record.draft.channels)
            };
            (page.records.iter().map(event).collect(), page.trimmed)
        }
    }

    fn stretch(random: &mut StdRng, sequence: u64, time: u64) -> Stretch {
        let draft = |random: &mut StdRng| {
            let names = ["a", "b", "c/1"];
            let channels = (0..random.random_range(1..3)).map(|_| names[random.random_range(0..3)]);
            let mut channels: Vec<_> = channels.map(|name| Channel::new(name).expect("valid")).collect();
            channels.dedup();
            let event = Event::text("x", "y").expect("valid");
            let event = event.id(EventId::new(format!("e{}", random.random_range(0..30))).expect("valid"));
            let publisher = [Publisher::HUB, Publisher::named("ada")][random.random_range(0..2)].clone();
            // Young, so that no index lets go of it by its age.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            Draft::new(event, channels.into(), publisher, now.expect("after 1970").as_millis() as u64)
        };
        let drafts = (0..random.random_range(0..5)).map(|_| draft(random)).collect();
        let ticket = random.random_bool(0.5).then_some(sequence);
        let drafts = Drafts::Read(drafts);
        Stretch { first: sequence * 4096, through: sequence * 4096 + 4095, time, ticket, drafts }
    }

    /// Whatever the kind of index, and whether it was there from the beginning, was started again in between, or took
    /// everything in one go later: what comes out of one order is the same.
    #[actix_web::test]
    async fn every_index_of_an_order_comes_to_the_same() {
        let folder = std::env::temp_dir().join(format!("fanfare-index-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for seed in 0..8 {
            let path = folder.join(format!("{seed}.db"));
            let file = || Box::new(SqliteLog::open(&path).expect("it opens")) as Box<dyn Index>;
            let memory = || Box::new(MemoryLog::default()) as Box<dyn Index>;
            let mut indexes = [Told::start(memory()), Told::start(file())];
            let order = Name::restore("order1");
            let extent =
                |first: Seq, last: u64| Align { order: order.clone(), first, end: (last + 1) * 4096 };
            let lineage = || Lineage::new(order.clone(), Vec::new(), Name::restore("term12"), 1);
            for index in &mut indexes {
                assert_eq!(index.align(&extent(1, 0)).await, (0, 0, true));
                index.handle.open.send(Open(lineage())).await.expect("it lives").expect("open");
                assert_eq!(index.next().await, "opened at 0");
            }
            let (mut sequence, mut time, mut newest) = (0, 100_000_000, 0);
            let mut random = StdRng::seed_from_u64(seed);
            let mut heads = 0;
            for _ in 0..60 {
                // The clock of an order may stand still, jump past the window, and go back by less than that.
                time += [0, 5, WINDOW.as_millis() as u64 / 2, WINDOW.as_millis() as u64]
                    [random.random_range(0..4)];
                newest = newest.max(time);
                time = (time - random.random_range(0..WINDOW.as_millis() as u64 / 2))
                    .max(newest - WINDOW.as_millis() as u64 / 2);
                let count = random.random_range(1..4);
                let step: u64 = random.random();
                let mut told = Vec::new();
                for index in &mut indexes {
                    let mut random = StdRng::seed_from_u64(step);
                    let stretches =
                        (1..=count).map(|n| stretch(&mut random, sequence + n, time + n)).collect();
                    let head = index.handle.apply.send(Apply(stretches)).await.expect("it lives");
                    heads = head.expect("applied");
                    // All that was told before is heard before this.
                    index.probe.send(Trimmed(Vec::new())).await.expect("it lives");
                    let mut facts = Vec::new();
                    while let Ok(fact) = index.facts.try_recv() {
                        facts.push(fact);
                    }
                    told.push((heads, facts));
                }
                assert_eq!(told[0], told[1], "seed {seed}, message {sequence}");
                sequence += count;
            }
            let whole = indexes[0].page(0, heads).await;
            assert_eq!(whole, indexes[1].page(0, heads).await);
            // The order lets go of its first half.
            let first = sequence / 2 * 4096;
            let [in_memory, in_file] = &indexes;
            for index in [in_memory, in_file] {
                let aligned = index.align(&extent(first, sequence)).await;
                assert_eq!(aligned, ((sequence + 1) * 4096 - 1, heads, false));
            }
            let rest = in_memory.page(first - 1, heads).await;
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while in_memory.page(0, heads).await != in_file.page(0, heads).await {
                assert!(std::time::Instant::now() < deadline, "seed {seed}: it goes from both");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(rest, in_file.page(first - 1, heads).await, "and nothing else goes");
            // The file goes on; of another order, or behind what the order still has, it begins anew.
            drop(indexes);
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            let index = loop {
                match SqliteLog::open(&path) {
                    Ok(index) => break Told::start(Box::new(index)),
                    Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            assert!(!index.align(&extent(first, sequence)).await.2, "it goes on");
            assert_eq!(rest, index.page(first - 1, heads).await);
            let beyond = (sequence + 5) * 4096;
            assert_eq!(index.align(&extent(beyond, sequence + 9)).await, (beyond - 1, beyond - 1, true));
            assert_eq!(
                index.page(heads, beyond).await,
                (Vec::new(), Some(beyond - 1)),
                "what was missed is told"
            );
            let other = Align { order: Name::restore("order2"), ..extent(1, 3) };
            assert_eq!(index.align(&other).await, (0, 0, true));
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}
