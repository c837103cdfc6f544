//! One verb, two guarantees: whoever sends awaits a receipt, whoever only drops a message in costs nothing more.

use std::cell::Cell;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::prelude::*;
use tokio::sync::oneshot;

use super::bind::Bound;
use super::publish::Receipt;
use crate::error::PublishError;

/// Where the answer and the one who waits for it meet, whichever comes first.
#[derive(Default)]
enum Meeting<R> {
    #[default]
    Nobody,
    Asker(OneshotSender<R>),
    Answer(R),
}

pub(super) struct Slot<R>(Rc<Cell<Meeting<R>>>);

impl<R> Slot<R> {
    pub(super) fn put(self, answer: R) {
        match self.0.take() {
            // The asker may have left.
            Meeting::Asker(sender) => drop(sender.send(answer)),
            Meeting::Nobody | Meeting::Answer(_) => self.0.set(Meeting::Answer(answer)),
        }
    }
}

/// What a handler returns that answers later: no future is spawned, and none can overtake another.
pub struct Deferred<R>(Slot<R>);

impl<R> Deferred<R> {
    /// An answer to come, and the end that gives it.
    pub(super) fn new() -> (Self, Slot<R>) {
        let slot = Rc::new(Cell::new(Meeting::Nobody));
        (Self(Slot(slot.clone())), Slot(slot))
    }
}

impl<A: Actor, M: Message> MessageResponse<A, M> for Deferred<M::Result> {
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<M::Result>>) {
        let Some(sender) = sender else { return };
        match self.0.0.take() {
            Meeting::Answer(answer) => drop(sender.send(answer)),
            Meeting::Nobody | Meeting::Asker(_) => self.0.0.set(Meeting::Asker(sender)),
        }
    }
}

/// Who is told what became of a group.
pub(super) enum Reply {
    One(Slot<Result<Receipt, PublishError>>),
    Many(Slot<Result<Vec<Receipt>, PublishError>>),
    Bound(Slot<Result<Bound, PublishError>>),
    Unbound(Slot<Result<bool, PublishError>>),
    /// For those who may leave before the answer: a dropped `send` would take the message with it.
    Channel(oneshot::Sender<Result<Vec<Receipt>, PublishError>>),
}

impl Reply {
    pub(super) fn one() -> (Deferred<Result<Receipt, PublishError>>, Self) {
        let (deferred, slot) = Deferred::new();
        (deferred, Self::One(slot))
    }

    pub(super) fn many() -> (Deferred<Result<Vec<Receipt>, PublishError>>, Self) {
        let (deferred, slot) = Deferred::new();
        (deferred, Self::Many(slot))
    }

    pub(super) fn bound() -> (Deferred<Result<Bound, PublishError>>, Self) {
        let (deferred, slot) = Deferred::new();
        (deferred, Self::Bound(slot))
    }

    pub(super) fn unbound() -> (Deferred<Result<bool, PublishError>>, Self) {
        let (deferred, slot) = Deferred::new();
        (deferred, Self::Unbound(slot))
    }

    /// Gives the answer: receipts for events, for bindings whether there was one. Nobody may be left to hear it.
    pub(super) fn give(self, answer: Result<(Vec<Receipt>, bool), PublishError>) {
        let (answer, was_there) = match answer {
            Ok((receipts, was_there)) => (Ok(receipts), was_there),
            Err(error) => (Err(error), false),
        };
        match self {
            Self::Bound(slot) => slot.put(answer.map(|_| Bound { replaced: was_there })),
            Self::Unbound(slot) => slot.put(answer.map(|_| was_there)),
            // A group of one has one receipt.
            Self::One(slot) => slot
                .put(answer.and_then(|receipts| receipts.into_iter().next().ok_or(PublishError::Overloaded))),
            Self::Many(slot) => slot.put(answer),
            Self::Channel(sender) => {
                let _ = sender.send(answer);
            }
        }
    }
}
