//! How a broker is set up and started.

use std::time::Duration;

use actix::prelude::*;

use super::Broker;
use crate::actors::{BindingBounds, FeedBounds, IntakeBounds, Log, MemoryLog};
use crate::config::Settings;
use crate::error::StartError;
use crate::retention::Retention;

/// Settings for a [`Broker`]; [`Builder::start`] checks them.
#[must_use]
pub struct Builder {
    settings: Settings,
    log: Box<dyn Log>,
    has_own_stall_timeout: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
            log: Box::new(MemoryLog::default()),
            has_own_stall_timeout: false,
        }
    }

    /// The log that gives events their places. Default: [`MemoryLog`].
    pub fn log(mut self, log: impl Log) -> Self {
        self.log = Box::new(log);
        self
    }

    /// How often a stream shows that it is alive: each client has a ping within this time, at a moment of its own.
    /// From 100 ms to 1 h. Default: 15 s.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.settings.worker.heartbeat = heartbeat;
        self
    }

    /// How long this process takes to go away once it is told to: clients are asked to come back after that.
    /// Default: 10 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.worker.drain = drain;
        self
    }

    /// How long events are kept, by channel. Default: 24 hours, and 1 GiB in all.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = retention;
        self
    }

    /// How much may wait for its commit; what is beyond is refused. Default: 65,536 events and 64 MiB.
    pub fn in_flight(mut self, events: usize, bytes: usize) -> Self {
        self.settings.intake = IntakeBounds { events, bytes };
        self
    }

    /// How many bindings ([`Bind`](crate::Bind)) are kept, and for how long one that no event met. When there is no
    /// room for a new one, the one that was unused for longest is dropped, and counted. Default: 10,000 and 24 hours.
    pub fn bindings(mut self, count: usize, idle: Duration) -> Self {
        self.settings.bindings = BindingBounds { count, idle };
        self
    }

    /// How much of the log's tail is held in memory for clients that come back. Default: 8,192 events and 32 MiB.
    pub fn ring(mut self, events: usize, bytes: usize) -> Self {
        (self.settings.ring_events, self.settings.ring_bytes) = (events, bytes);
        self
    }

    /// How much a feed holds on each HTTP thread for clients that are slower than it; one that is slower still is
    /// served from the log. Default: 1,024 events and 1 MiB.
    pub fn feed(mut self, events: usize, bytes: usize) -> Self {
        self.settings.worker.feed = FeedBounds { events, bytes };
        self
    }

    /// How long a client may take nothing of what waits for it before its stream is ended. At least the heartbeat.
    /// Default: 30 s, or the heartbeat if that is longer.
    pub fn stall_timeout(mut self, stall_timeout: Duration) -> Self {
        self.settings.worker.stall_timeout = stall_timeout;
        self.has_own_stall_timeout = true;
        self
    }

    /// Starts the broker on an arbiter of its own. Start it once, before the server is built: an `HttpServer`'s
    /// factory runs once for each of its threads.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a setting out of range, a log that cannot serve, and a thread without an actix system.
    pub fn start(mut self) -> Result<Addr<Broker>, StartError> {
        if !self.has_own_stall_timeout {
            let worker = &mut self.settings.worker;
            worker.stall_timeout = worker.stall_timeout.max(worker.heartbeat);
        }
        self.settings.check()?;
        if System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        let arbiter = Arbiter::new();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let Self { settings, log, .. } = self;
        arbiter.spawn_fn(move || {
            let mut ctx = Context::new();
            let address = Broker::create(settings, log, &mut ctx).map(|broker| ctx.run(broker));
            if address.is_err() {
                Arbiter::current().stop();
            }
            // The one who started us waits for this and nothing else.
            let _ = tell.send(address);
        });
        told.recv().map_err(|_| StartError::NoSystem)?.map_err(StartError::Log)
    }
}
