//! The half of the role that keeps: an index follows an order that is made elsewhere.
//!
//! A log of its own gives each event the next position and keeps it. An index keeps events at positions that it is told,
//! and is otherwise the same: it decides which are duplicates, links each to the one before it, lets go of what is
//! too old or too much, and tells the broker. Since it goes by the order alone, every index of an order comes to the
//! same.

use actix::prelude::*;

use super::{Forget, LogSetup, ReadAfter, Seek};
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
    pub(super) drafts: Vec<Draft>,
}

/// Command: tell the follower that the log is open, and from now on of all that comes.
#[derive(Message)]
#[rtype(result = "Result<(), LogError>")]
pub(super) struct Open(pub(super) Lineage);
