//! The values as the log has them: one actor that follows it from its beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use fanfare::{
    Broker, Cursor, Delivery, DeliveryHandle, Payload, Received, Stats, SubscribeOptions, Subscription,
    subscribe_with,
};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::key::Key;

/// The names of the events that this store is made of.
pub(crate) const PUT: &str = "put";
pub(crate) const DELETE: &str = "delete";

/// A value and the position of the event that put it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) seq: u64,
    pub(crate) value: Value,
}

pub(crate) struct Store {
    entries: BTreeMap<Key, Entry>,
    /// Behind everything that is in here.
    cursor: Option<Cursor>,
    /// Those who wait until the store has come to a position.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    /// Ends the stream with this actor.
    _stream: Option<DeliveryHandle>,
}

impl Store {
    /// Reads the log to its end and follows it from there.
    pub(crate) async fn load(broker: &Addr<Broker>) -> Result<Addr<Self>, Box<dyn std::error::Error>> {
        let head = Self::head(broker).await?;
        let from = SubscribeOptions::default().earliest();
        let log = subscribe_with(broker, Subscription::to("kv/**")?, from).await?;
        let store = Self::create(|ctx| Self {
            entries: BTreeMap::new(),
            cursor: None,
            waiting: BTreeMap::new(),
            _stream: Some(log.deliver_to(ctx.address().recipient())),
        });
        store.send(Until(head)).await?;
        Ok(store)
    }

    /// The end of the log as it is when everything in it can be read.
    async fn head(broker: &Addr<Broker>) -> Result<u64, MailboxError> {
        loop {
            let stats = broker.send(Stats).await?;
            if stats.ready {
                return Ok(stats.head);
            }
            actix::clock::sleep(Duration::from_millis(20)).await;
        }
    }

    fn position(&self) -> u64 {
        self.cursor.as_ref().map_or(0, Cursor::seq)
    }

    fn apply(&mut self, event: &Received) {
        let (Some(key), Some(seq)) = (Key::of_channel(event.channel()), event.seq()) else { return };
        match event.event() {
            PUT => {
                let value = value(event.payload());
                self.entries.insert(key.clone(), Entry { key: key.as_str().to_owned(), seq, value });
            }
            DELETE => {
                self.entries.remove(&key);
            }
            other => tracing::warn!(key = key.as_str(), seq, other, "an event of another kind"),
        }
    }
}

/// The value as it was put. A string is published as its text.
fn value(payload: &Payload) -> Value {
    let json = payload.is_json().then(|| serde_json::from_str(payload.as_str()).ok()).flatten();
    json.unwrap_or_else(|| payload.as_str().into())
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Store {
    type Result = ();

    fn handle(&mut self, item: Delivery, _: &mut Self::Context) {
        // A gap is what the retention is for: older values of a key whose newest one comes.
        if let Delivery::Event(event) = &item {
            self.apply(event);
        }
        if let Some(cursor) = item.cursor() {
            self.cursor = Some(cursor);
        }
        let later = self.waiting.split_off(&(self.position() + 1));
        for waiting in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
            // Whoever asked may have left.
            let _ = waiting.send(());
        }
    }
}

/// Query: what has this key?
#[derive(Message)]
#[rtype(result = "Option<Entry>")]
pub(crate) struct Get(pub(crate) Key);

/// Query: everything at or below a prefix, and the position to follow it from.
#[derive(Message)]
#[rtype(result = "Listing")]
pub(crate) struct List {
    pub(crate) prefix: String,
}

#[derive(Debug, Serialize, MessageResponse)]
pub(crate) struct Listing {
    /// For `last_event_id`: who follows from here misses nothing and has nothing twice.
    cursor: Option<String>,
    entries: Vec<Entry>,
}

/// Command: answer when everything up to this position is in here.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Until(pub(crate) u64);

impl Handler<Get> for Store {
    type Result = Option<Entry>;

    fn handle(&mut self, Get(key): Get, _: &mut Self::Context) -> Self::Result {
        self.entries.get(&key).cloned()
    }
}

impl Handler<List> for Store {
    type Result = Listing;

    fn handle(&mut self, List { prefix }: List, _: &mut Self::Context) -> Self::Result {
        let within = self.entries.iter().filter(|(key, _)| key.is_within(&prefix));
        Listing {
            cursor: self.cursor.as_ref().map(ToString::to_string),
            entries: within.map(|(_, entry)| entry.clone()).collect(),
        }
    }
}

impl Handler<Until> for Store {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Until(seq): Until, _: &mut Self::Context) -> Self::Result {
        if self.position() >= seq {
            return Box::pin(std::future::ready(()));
        }
        let (call, called) = oneshot::channel();
        self.waiting.entry(seq).or_default().push(call);
        Box::pin(async {
            // If the store is gone, whoever asked finds out with the next question.
            let _ = called.await;
        })
    }
}
