//! How a broker goes away: nobody comes in any more, and those who are here are told in waves.

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{Broker, WorkerAddr, WorkerKey};
use crate::actors::farewell::Farewell;
use crate::actors::waves::{TICK, Waves};
use crate::actors::worker::CloseAll;
use crate::identity::ClientId;

/// Of the time there is, this much is for telling; the rest is for hearing it.
const TELLING: f64 = 0.6;

/// Command: take no more events and clients, and end all streams with a time to come back; as [`DrainWithin`], with the
/// time of [`Builder::drain`](crate::Builder::drain).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Command: take no more events and clients, and end all streams within a time.
///
/// Events that were accepted before are committed, and their receipts given. New streams are told at once to come back
/// after the time, those that are open in waves: evenly over six tenths of it, though at least 80 a second. Whenever they
/// are told, they are to come back within the 7 s that follow the time, each at a moment of its own. Subscribers in this process end at once. It cannot be taken back; sent again
/// it may change the time.
///
/// It answers when this has begun. [`BrokerStats`](crate::BrokerStats) says how far it is: all have been told when
/// `clients` is 0, and all is committed when `in_flight` is.
///
/// ```
/// use std::time::Duration;
///
/// use fanfare::{Broker, DrainWithin, Stats};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// broker.send(DrainWithin { time: Duration::from_secs(2) }).await?;
/// while { let stats = broker.send(Stats).await?; stats.clients + stats.in_flight > 0 } {
///     actix_web::rt::time::sleep(Duration::from_millis(20)).await;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct DrainWithin {
    /// How long this process still lives; clients are asked to come back after that.
    pub time: Duration,
}

/// Those who are to be told, and when.
pub(super) struct Leaving {
    waves: Waves,
    told: usize,
    left: Vec<(WorkerKey, ClientId)>,
    ticks: SpawnHandle,
}

impl Broker {
    fn drain(&mut self, time: Duration, ctx: &mut Context<Self>) {
        let farewell = Farewell::draining(time);
        self.draining = Some(farewell);
        for attach in std::mem::take(&mut self.early) {
            self.attach(attach);
        }
        for (_, worker) in &self.workers {
            if let WorkerAddr::Local(local) = &worker.addr {
                local.do_send(CloseAll { farewell });
            }
        }
        if let Some(before) = self.leaving.take() {
            ctx.cancel_future(before.ticks);
        }
        let left: Vec<_> = self.registry.clients().collect();
        let waves = Waves::new(left.len(), time.mul_f64(TELLING), Instant::now());
        let ticks = ctx.run_interval(TICK, |broker, ctx| broker.next_wave(ctx));
        self.leaving = Some(Leaving { waves, told: 0, left, ticks });
        self.next_wave(ctx);
    }

    fn next_wave(&mut self, ctx: &mut Context<Self>) {
        let Some((mut leaving, farewell)) = self.leaving.take().zip(self.draining) else { return };
        let due = leaving.waves.due(Instant::now());
        let count = due.saturating_sub(leaving.told).min(leaving.left.len());
        leaving.told += count;
        let next = leaving.left.split_off(leaving.left.len() - count);
        self.close_clients(next, farewell);
        if leaving.left.is_empty() {
            // Whoever came to their place in between.
            self.close_all(farewell);
            ctx.cancel_future(leaving.ticks);
        } else {
            self.leaving = Some(leaving);
        }
    }
}

impl Handler<Drain> for Broker {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        self.drain(self.settings.drain, ctx);
    }
}

impl Handler<DrainWithin> for Broker {
    type Result = ();

    fn handle(&mut self, DrainWithin { time }: DrainWithin, ctx: &mut Self::Context) {
        self.drain(time, ctx);
    }
}
