//! The desk: knows the subscribers of this process by name, and tells pages how they stand.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use fanfare::{Broadcast, Broker, Event, InvalidValue};
use futures_util::future::join_all;

use crate::subscriber::{Leave, Stand, Standing, Subscriber};

const LOOK: Duration = Duration::from_millis(250);
const MAX_SUBSCRIBERS: usize = 100;
/// The channel that pages hear it on.
const CHANNEL: &str = "desk";

pub(crate) struct Desk {
    broker: Addr<Broker>,
    subscribers: BTreeMap<String, Addr<Subscriber>>,
    told: Vec<Standing>,
    is_looking: bool,
}

/// Command: this is a subscriber of this name now; one that had it before leaves. Answers whether there was room.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Add {
    pub(crate) name: String,
    pub(crate) subscriber: Addr<Subscriber>,
}

/// Command: the subscriber of this name leaves, if there is one.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Remove(pub(crate) String);

/// Query: who has this name?
#[derive(Message)]
#[rtype(result = "Option<Addr<Subscriber>>")]
pub(crate) struct Find(pub(crate) String);

/// Query: how do all stand?
#[derive(Message)]
#[rtype(result = "Vec<Standing>")]
pub(crate) struct Standings;

impl Desk {
    pub(crate) fn new(broker: Addr<Broker>) -> Self {
        Self { broker, subscribers: BTreeMap::new(), told: Vec::new(), is_looking: false }
    }

    fn ask(&self) -> impl Future<Output = Vec<Standing>> + use<> {
        let asked: Vec<_> = self.subscribers.values().map(|subscriber| subscriber.send(Stand)).collect();
        async { join_all(asked).await.into_iter().flatten().collect() }
    }

    /// Tells pages if something has changed.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_looking, true) {
            return;
        }
        ctx.spawn(self.ask().into_actor(self).map(|standings, desk, _| {
            desk.is_looking = false;
            if standings != desk.told
                && let Err(error) = desk.tell(standings)
            {
                tracing::error!(%error, "how subscribers stand could not be told");
            }
        }));
    }

    fn tell(&mut self, standings: Vec<Standing>) -> Result<(), InvalidValue> {
        let event = Event::json("subscribers", &standings)?.ephemeral();
        self.broker.do_send(Broadcast::channel(CHANNEL, event)?);
        self.told = standings;
        Ok(())
    }
}

impl Actor for Desk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, Self::look);
    }
}

impl Handler<Add> for Desk {
    type Result = bool;

    fn handle(&mut self, Add { name, subscriber }: Add, _: &mut Self::Context) -> bool {
        if self.subscribers.len() >= MAX_SUBSCRIBERS && !self.subscribers.contains_key(&name) {
            subscriber.do_send(Leave);
            return false;
        }
        if let Some(before) = self.subscribers.insert(name, subscriber) {
            before.do_send(Leave);
        }
        true
    }
}

impl Handler<Remove> for Desk {
    type Result = ();

    fn handle(&mut self, Remove(name): Remove, _: &mut Self::Context) {
        if let Some(subscriber) = self.subscribers.remove(&name) {
            subscriber.do_send(Leave);
        }
    }
}

impl Handler<Find> for Desk {
    type Result = Option<Addr<Subscriber>>;

    fn handle(&mut self, Find(name): Find, _: &mut Self::Context) -> Self::Result {
        self.subscribers.get(&name).cloned()
    }
}

impl Handler<Standings> for Desk {
    type Result = ResponseFuture<Vec<Standing>>;

    fn handle(&mut self, _: Standings, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.ask())
    }
}
