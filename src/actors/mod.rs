//! Who owns whom:
//!
//! ```text
//! app: Addr<Broker>
//!   Broker --> Heartbeat                 (weak back)
//!          --> log                       (weak back: Opened, Committed, CommitFailed)
//!          --> Worker, one per HTTP thread and mounted scope
//!                ··> Session x N         (weak; it lives as long as its writer; weak to the broker: Attach, Detached)
//!                      --> Sink, pulled by the writer: the response body, whose drop is the disconnect
//!          --> Local                      (weak back: Attach, Detached)
//!                --> Subscriber x N, a bounded queue each, whose other end is the stream
//! ```
//!
//! Strong addresses point down, weak ones up. Commands go down and are imperatives, facts go up and are participles.
//! The actors receive and send; the plain structs beside them decide.

mod admission;
mod backlog;
mod bindings;
pub(crate) mod broker;
mod bucket;
mod busiest;
pub(crate) mod farewell;
mod feed;
mod floor;
mod heartbeat;
mod index;
mod intake;
mod kept;
mod keys;
pub(crate) mod line;
mod lingering;
pub(crate) mod local;
pub mod log;
#[cfg(test)]
mod model;
mod registry;
mod replay;
pub(crate) mod revoked;
mod ring;
mod roster;
mod rounds;
pub(crate) mod session;
pub(crate) mod sink;
mod spare;
mod tally;
mod tick;
mod tombstones;
pub(crate) mod trace;
mod turns;
pub(crate) mod view;
mod waves;
pub(crate) mod worker;

pub(crate) use self::admission::{AdmissionLimits, Full};
pub(crate) use self::bindings::BindingBounds;
pub use self::broker::{
    Batch, Bind, BindWith, Bound, Broadcast, Broker, BrokerStats, Builder, CloseSession, Deferred, Drain,
    DrainWithin, LogOverview, Members, Overview, Presence, Receipt, Sessions, Stats, Survey, Unbind,
};
pub(crate) use self::feed::FeedBounds;
pub(crate) use self::intake::IntakeBounds;
pub use self::log::{Log, MemoryLog};
pub(crate) use self::worker::WorkerSettings;
