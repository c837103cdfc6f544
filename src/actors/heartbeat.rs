//! The heartbeat actor: an actor of its own, so that a busy broker does not bend its beat.
//!
//! Clients are spread over slots and each beat is for one slot, so that every client has its ping once in a period
//! and no two crowds have it together.

use std::time::Duration;

use actix::WeakAddr;
use actix::prelude::*;
use rand::RngExt;

use super::broker::Broker;

const SLOTS: u32 = 32;
/// A client is promised a ping within its heartbeat; the period leaves room for the jitter and a busy moment.
const PERIOD_PERCENT: u32 = 85;

/// Command to the broker: the clients of this slot are due.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Ping {
    pub(crate) slot: u32,
    pub(crate) slots: u32,
}

/// Command to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct Beat;

pub(crate) struct Heartbeat {
    broker: WeakAddr<Broker>,
    interval: Duration,
    slot: u32,
}

impl Heartbeat {
    pub(crate) fn new(broker: WeakAddr<Broker>, heartbeat: Duration) -> Self {
        Self { broker, interval: heartbeat * PERIOD_PERCENT / 100 / SLOTS, slot: 0 }
    }
}

impl Actor for Heartbeat {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The interval keeps the beat; where it begins is left to chance, so that hubs do not beat together.
        let first = self.interval.mul_f64(rand::rng().random_range(0.0..1.0));
        let interval = self.interval;
        ctx.run_later(first, move |_, ctx| {
            ctx.run_interval(interval, |_, ctx| ctx.notify(Beat));
        });
    }
}

impl Handler<Beat> for Heartbeat {
    type Result = ();

    fn handle(&mut self, _: Beat, ctx: &mut Self::Context) {
        let Some(broker) = self.broker.upgrade() else { return ctx.stop() };
        broker.do_send(Ping { slot: self.slot, slots: SLOTS });
        self.slot = (self.slot + 1) % SLOTS;
    }
}
