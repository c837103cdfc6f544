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

    /// How long this process takes to go away once it is told to by [`Drain`](crate::Drain): clients are asked to come
    /// back after that. Default: 10 s.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// How many clients may be connected, over all scopes that are mounted; 0 for as many as come. Default: 100,000.
    ///
    /// Beyond a limit a stream is answered 200 and told in `$closing` `limit` to come back in 5 to 30 s, since an
    /// `EventSource` gives up on any other status; with `strict=1` and for a WebSocket it is a 503, or a 429 where the
    /// session or the address is at its limit. Subscribers in this process are not counted.
    pub fn max_connections(mut self, max: usize) -> Self {
        self.settings.admission.connections = max;
        self
    }

    /// How many clients one session may have; 0 for as many as come. Default: 32.
    pub fn max_connections_per_session(mut self, max: usize) -> Self {
        self.settings.admission.per_session = max;
        self
    }

    /// How many clients may come from one address, or from one network of 64 bits in version 6; 0 for as many as come.
    /// Behind a proxy see [`HttpConfig::trusted_proxies`](crate::http::HttpConfig::trusted_proxies), without which all
    /// come from the proxy's. Default: 0.
    pub fn max_connections_per_address(mut self, max: usize) -> Self {
        self.settings.admission.per_address = max;
        self
    }

    /// How many clients may come in a second; 0 for as many as come. Default: 0.
    pub fn connect_rate(mut self, per_second: u32) -> Self {
        self.settings.admission.connect_rate = per_second;
        self
    }

    /// How many events one publisher may publish in a second over HTTP and WebSocket, and as many at once; 0 for as many
    /// as the log takes. What is beyond is answered 429. A batch that is larger than that needs a quiet second before
    /// it, and is paid for by the time after. Those without a name of their own
    /// ([`Grant::publisher`](crate::http::Grant::publisher)) are one publisher, the hub. Default: 0.
    pub fn publish_rate(mut self, per_second: u32) -> Self {
        self.settings.admission.publish_rate = per_second;
        self
    }

    /// How old a connection may become, from 1 s to 365 days; zero for any age. Each ends at a moment of its own in the last
    /// fifth of it with `$closing` `too_old`, and resumes where it was: so a peer that vanished without a trace does
    /// not stay, and a crowd spreads over the servers that are there now. Default: zero.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.settings.max_age = Some(age).filter(|age| !age.is_zero());
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
