//! A subscriber in this process: reads its stream, unless it is told to wait, and counts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use actix::prelude::*;
use fanfare::{Deliveries, Delivery, Received};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::Value;

use crate::bus::{KIND, SCROLL, Wanted};

/// As many items as are kept to be looked at.
const KEPT: usize = 2000;

/// What a subscriber was delivered, item by item, and how much in all. Decides nothing; counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Events.
    delivered: u64,
    /// Events that were lost and told.
    lagged: u64,
    /// How often stored events were told to be gone.
    gaps: u64,
    /// Why there will be no more.
    ended: Option<&'static str>,
}

/// One item of a stream, as it is shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Item {
    Event { seq: Option<u64>, channel: String, kind: Option<String>, scroll: Option<String>, data: Value },
    Lag { dropped: u64 },
    Gap { after: u64, resumed_at: u64 },
    Reset,
}

impl Tally {
    fn note(&mut self, item: &Delivery) -> Item {
        match item {
            Delivery::Event(event) => {
                self.delivered += 1;
                shown(event)
            }
            Delivery::Lag { dropped } => {
                self.lagged += dropped;
                Item::Lag { dropped: *dropped }
            }
            Delivery::Gap { after, resumed_at, .. } => {
                self.gaps += 1;
                Item::Gap { after: *after, resumed_at: *resumed_at }
            }
            _ => {
                self.gaps += 1;
                Item::Reset
            }
        }
    }
}

fn shown(event: &Received) -> Item {
    let payload = event.payload();
    let attribute = |key| event.attributes().get(key).map(ToOwned::to_owned);
    let json = payload.is_json().then(|| serde_json::from_str(payload.as_str()).ok()).flatten();
    Item::Event {
        seq: event.seq(),
        channel: event.channel().to_owned(),
        kind: attribute(KIND),
        scroll: attribute(SCROLL),
        data: json.unwrap_or_else(|| payload.as_str().into()),
    }
}

/// How a subscriber stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) name: String,
    queue: usize,
    held: bool,
    #[serde(flatten)]
    tally: Tally,
}

/// What it was asked for, how it stands, and its last items.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    standing: Standing,
    wanted: Wanted,
    items: VecDeque<Item>,
}

pub(crate) struct Subscriber {
    wanted: Wanted,
    standing: Standing,
    items: VecDeque<Item>,
    deliveries: Deliveries,
}

impl Subscriber {
    pub(crate) fn new(name: String, wanted: Wanted, deliveries: Deliveries) -> Self {
        let standing = Standing { name, queue: wanted.queue, held: wanted.held, tally: Tally::default() };
        Self { wanted, standing, items: VecDeque::new(), deliveries }
    }

    fn take(&mut self, item: &Delivery) {
        if self.items.len() == KEPT {
            self.items.pop_front();
        }
        self.items.push_back(self.standing.tally.note(item));
    }
}

impl Actor for Subscriber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Reading);
    }
}

/// Reads what there is, unless the subscriber waits. What it does not read stays in its queue, and what does not fit there is
/// fetched from the log later, or counted.
struct Reading;

impl ActorFuture<Subscriber> for Reading {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        subscriber: &mut Subscriber,
        _: &mut Context<Subscriber>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        while !subscriber.standing.held {
            let Some(item) = ready!(subscriber.deliveries.poll_next_unpin(task)) else {
                let reason = subscriber.deliveries.end_reason();
                subscriber.standing.tally.ended =
                    Some(reason.map_or("unavailable", |reason| reason.as_str()));
                return Poll::Ready(());
            };
            subscriber.take(&item);
        }
        // The message that lets it go on runs this again, as every message does.
        Poll::Pending
    }
}

/// Command: read, or wait.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hold(pub(crate) bool);

/// Command: leave.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

/// Query: how does it stand?
#[derive(Message)]
#[rtype(result = "Standing")]
pub(crate) struct Stand;

/// Query: how does it stand, and what has it read?
#[derive(Message)]
#[rtype(result = "Report")]
pub(crate) struct Look;

impl Handler<Hold> for Subscriber {
    type Result = ();

    fn handle(&mut self, Hold(held): Hold, _: &mut Self::Context) {
        self.standing.held = held;
    }
}

impl Handler<Leave> for Subscriber {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        // Its stream goes with it.
        ctx.stop();
    }
}

impl Handler<Stand> for Subscriber {
    type Result = MessageResult<Stand>;

    fn handle(&mut self, _: Stand, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.standing.clone())
    }
}

impl Handler<Look> for Subscriber {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        let (standing, wanted, items) = (self.standing.clone(), self.wanted.clone(), self.items.clone());
        MessageResult(Report { standing, wanted, items })
    }
}
