//! Something to be done every so often for as long as an actor is there.

use std::time::Duration;

use actix::prelude::*;

/// Sends a message to an actor, now and every so often, until the actor is gone. An interval of the actor's own would
/// keep it there for ever: a context with a future of its own does not stop with the last address.
pub(crate) fn tick<A, M>(address: &Addr<A>, every: Duration, message: M)
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message<Result = ()> + Copy + Send + 'static,
{
    let actor = address.downgrade();
    actix::spawn(async move {
        while let Some(actor) = actor.upgrade() {
            actor.do_send(message);
            drop(actor);
            actix::clock::sleep(every).await;
        }
    });
}
