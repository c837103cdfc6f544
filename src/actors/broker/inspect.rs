//! Single clients, for those who look into the broker. The broker knows who has them; how they are is told by themselves.

use std::collections::BTreeMap;
use std::time::Instant;

use actix::prelude::*;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::Broker;
use super::query::LISTED;
use crate::actors::registry::WorkerKey;
use crate::actors::view::{ClientView, Describe};
use crate::identity::{ClientId, SessionId};

/// As many clients as are told of in one answer.
const CLIENTS: usize = 10_000;

/// Query: how one client is.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Found")]
pub(crate) struct AskClient {
    pub(crate) client: ClientId,
}

pub(crate) enum Found {
    /// It was asked to tell by itself.
    Connected(UnboundedReceiver<ClientView>),
    /// It has ended.
    Past(Box<ClientView>),
    /// Nothing is known of it, or not any more.
    Nothing,
}

/// Query: the first sessions, and how their clients are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "FoundSessions")]
pub(crate) struct AskSessions;

pub(crate) struct FoundSessions {
    pub(crate) sessions: Vec<SessionId>,
    /// Whether there are more sessions, or clients of these.
    pub(crate) more: bool,
    /// What the clients tell; it ends when all have.
    pub(crate) clients: UnboundedReceiver<ClientView>,
}

impl Broker {
    fn describe(&self, by_worker: BTreeMap<WorkerKey, Vec<ClientId>>) -> UnboundedReceiver<ClientView> {
        let (tell, told) = mpsc::unbounded_channel();
        for (key, clients) in by_worker {
            if let Some(worker) = self.workers.get(key) {
                worker.addr.do_send(Describe { clients, head: self.head, tell: tell.clone() });
            }
        }
        told
    }
}

impl Handler<AskClient> for Broker {
    type Result = MessageResult<AskClient>;

    fn handle(&mut self, AskClient { client }: AskClient, _: &mut Self::Context) -> Self::Result {
        MessageResult(match self.registry.worker_of(client) {
            Some(worker) => Found::Connected(self.describe([(worker, vec![client])].into())),
            None => match self.tombstones.find(client, Instant::now()) {
                Some(view) => Found::Past(Box::new(view.clone())),
                None => Found::Nothing,
            },
        })
    }
}

impl Handler<AskSessions> for Broker {
    type Result = MessageResult<AskSessions>;

    fn handle(&mut self, _: AskSessions, _: &mut Self::Context) -> Self::Result {
        let sessions: Vec<_> = self.registry.sessions().take(LISTED).collect();
        let mut by_worker = BTreeMap::<_, Vec<_>>::new();
        let mut all = sessions.iter().flat_map(|&session| self.registry.clients_of(session));
        for (worker, client) in all.by_ref().take(CLIENTS) {
            by_worker.entry(worker).or_default().push(client);
        }
        let more = all.next().is_some() || self.registry.session_count() > sessions.len();
        MessageResult(FoundSessions { more, clients: self.describe(by_worker), sessions })
    }
}
