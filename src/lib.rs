#![doc = include_str!("../README.md")]
// Nothing restarts an actor after a panic, so nothing in here may panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::print_stdout,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

// In reading order: values, bytes, actors, streams in this process, HTTP.
mod binding;
mod channel;
mod config;
mod counts;
mod cursor;
mod delivery;
mod error;
mod event;
mod identity;
mod interest;
mod record;
mod retention;
mod wire;

mod actors;
#[cfg(feature = "client")]
pub mod client;
pub mod http;
mod metrics;
mod subscribe;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "sqlite")]
pub use actors::log::{Durability, SqliteLog};
#[cfg(feature = "nats")]
pub use actors::log::{NatsIndex, NatsLog};
pub use actors::{
    Batch, Bind, BindWith, Bound, Broadcast, Broker, BrokerStats, Builder, CloseSession, Deferred, Drain,
    DrainWithin, Log, LogOverview, Members, MemoryLog, Overview, Presence, Receipt, Sessions, Stats, Survey,
    Unbind, log,
};
pub use binding::Pairs;
pub use channel::{Channel, Selector};
pub use counts::{Busiest, BusyChannel, ByReason, ByTransport, Histogram, Transport};
pub use cursor::{Cursor, Lineage, Name, ResetReason, Seq, Timeline};
pub use delivery::{Delivery, Received};
pub use error::{CloseReason, InvalidValue, LogError, PublishError, StartError, SubscribeError};
pub use event::{Attributes, Event, EventId, EventName, Payload};
pub use identity::{ClientId, Publisher, SessionId};
pub use interest::{Filter, Interest, Subscription};
pub use record::{Draft, Place, Record};
pub use retention::{Limits, Policy, Retention, Rule};
pub use subscribe::{Deliveries, DeliveryHandle, SubscribeOptions, deliver, subscribe, subscribe_with};
