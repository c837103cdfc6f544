//! How a client comes to follow more or less than it did, without leaving its place.

use actix::prelude::*;

use super::{At, Broker};
use crate::actors::session::{Answer, PAGE};
use crate::actors::worker::{Splice, Worker};
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::{Interest, Subscription};

/// Command: let this client, which is live, follow `joined`, if what it missed of `added` is at hand. Answered to its
/// worker, since the answer must stand in line with what is delivered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Join {
    pub(crate) client: ClientId,
    pub(crate) worker: Addr<Worker>,
    /// What is answered about; it stands there.
    pub(crate) added: Interest,
    pub(crate) at: At,
    /// What it follows if all that it missed is answered.
    pub(crate) joined: Subscription,
    /// The same, and what is still to catch up: this it is known to follow from now on.
    pub(crate) followed: Subscription,
}

impl Handler<Join> for Broker {
    type Result = ();

    fn handle(&mut self, join: Join, _: &mut Self::Context) {
        let Join { client, worker, added, at, joined, followed } = join;
        let Some(timeline) = self.timeline.clone() else {
            let answer = Answer::Refused(CloseReason::Unavailable.into());
            return worker.do_send(Splice { client, joined, answer });
        };
        self.follow(client, &followed);
        let answer =
            self.answer(Ok(timeline), at, &added, |ring, after, _| ring.records_after(after, &added, PAGE));
        worker.do_send(Splice { client, joined, answer });
    }
}
