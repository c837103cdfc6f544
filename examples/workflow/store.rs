//! The workflows as the log has them: one actor that follows it from its beginning, and has those worked on that are not
//! at their end. A workflow that is in the log is worked on, whatever became of the request that began it.

use std::collections::BTreeMap;

use actix::prelude::*;
use fanfare::{
    Broker, Cursor, Delivery, DeliveryHandle, Received, Seq, Stats, SubscribeOptions, Subscription,
    subscribe_with,
};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::progress::{Progress, Status, WorkflowId};
use crate::runner;

pub(crate) struct Store {
    workflows: BTreeMap<WorkflowId, (Seq, Progress)>,
    /// The same, in the order of their last changes.
    by_change: BTreeMap<Seq, WorkflowId>,
    /// Behind everything that is in here.
    cursor: Option<Cursor>,
    /// Those who wait until the store has come to a position.
    waiting: BTreeMap<Seq, Vec<oneshot::Sender<()>>>,
    broker: Addr<Broker>,
    /// Whether what was in the log at the start is read.
    is_loaded: bool,
    /// Ends the stream with this actor.
    _stream: Option<DeliveryHandle>,
}

impl Store {
    /// Reads the log to its end and follows it from there.
    pub(crate) async fn load(broker: &Addr<Broker>) -> Result<Addr<Self>, Box<dyn std::error::Error>> {
        let head = broker.send(Stats).await?.head;
        let from = SubscribeOptions::default().earliest();
        let log = subscribe_with(broker, Subscription::to("workflows/*")?, from).await?;
        let broker = broker.clone();
        let store = Self::create(|ctx| Self {
            workflows: BTreeMap::new(),
            by_change: BTreeMap::new(),
            cursor: None,
            waiting: BTreeMap::new(),
            broker,
            is_loaded: false,
            _stream: Some(log.deliver_to(ctx.address().recipient())),
        });
        store.send(Until(head)).await?;
        store.send(GoOn).await?;
        Ok(store)
    }

    fn position(&self) -> Seq {
        self.cursor.as_ref().map_or(0, Cursor::seq)
    }

    fn apply(&mut self, event: &Received) {
        let (Some(id), Some(seq)) = (WorkflowId::of_channel(event.channel()), event.seq()) else { return };
        let progress: Progress = match serde_json::from_str(event.payload().as_str()) {
            Ok(progress) => progress,
            Err(error) => return tracing::warn!(seq, %error, "an event that is no workflow's state"),
        };
        if self.is_loaded && progress.current_step == 0 {
            self.work_on(&progress);
        }
        if let Some((before, _)) = self.workflows.insert(id.clone(), (seq, progress)) {
            self.by_change.remove(&before);
        }
        self.by_change.insert(seq, id);
    }

    fn work_on(&self, progress: &Progress) {
        actix_web::rt::spawn(runner::run(self.broker.clone(), progress.clone()));
    }

    fn snapshot<T>(&self, state: T) -> Snapshot<T> {
        Snapshot { cursor: self.cursor.as_ref().map(ToString::to_string), state }
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Store {
    type Result = ();

    fn handle(&mut self, item: Delivery, _: &mut Self::Context) {
        // A gap is older updates of a workflow whose newest one comes.
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

/// A state, and the position that it is the state of: who follows from there misses nothing and has nothing twice.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot<T> {
    /// Nothing before the first event of all: then everything is to come.
    pub(crate) cursor: Option<String>,
    #[serde(flatten)]
    pub(crate) state: T,
}

#[derive(Debug, Serialize)]
pub(crate) struct One {
    pub(crate) workflow: Option<Progress>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Many {
    workflows: Vec<Progress>,
    /// Whether there are older ones.
    more: bool,
}

/// Query: how does this one stand?
#[derive(Message)]
#[rtype(result = "Snapshot<One>")]
pub(crate) struct Get(pub(crate) WorkflowId);

/// Query: those that changed last, the newest first.
#[derive(Message)]
#[rtype(result = "Snapshot<Many>")]
pub(crate) struct List;

impl List {
    const LIMIT: usize = 100;
}

/// Command: everything is read; go on with what is not at its end.
#[derive(Message)]
#[rtype(result = "()")]
struct GoOn;

/// Command: answer when everything up to this position is in here.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Until(pub(crate) Seq);

impl Handler<Get> for Store {
    type Result = MessageResult<Get>;

    fn handle(&mut self, Get(id): Get, _: &mut Self::Context) -> Self::Result {
        let workflow = self.workflows.get(&id).map(|(_, progress)| progress.clone());
        MessageResult(self.snapshot(One { workflow }))
    }
}

impl Handler<List> for Store {
    type Result = MessageResult<List>;

    fn handle(&mut self, _: List, _: &mut Self::Context) -> Self::Result {
        let newest = self.by_change.values().rev().take(List::LIMIT);
        let newest = newest.filter_map(|id| self.workflows.get(id));
        let workflows = newest.map(|(_, progress)| progress.clone()).collect();
        MessageResult(self.snapshot(Many { workflows, more: self.workflows.len() > List::LIMIT }))
    }
}

impl Handler<GoOn> for Store {
    type Result = ();

    fn handle(&mut self, _: GoOn, _: &mut Self::Context) {
        self.is_loaded = true;
        let all = self.workflows.values().map(|(_, progress)| progress);
        all.filter(|progress| progress.status == Status::Running).for_each(|progress| self.work_on(progress));
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
