//! Logs that do not serve.

use actix::prelude::*;
use fanfare::log::{
    Commit, CommitFailed, Follower, Forget, LogHandle, LogSetup, Opened, Page, ReadAfter, Seek,
};
use fanfare::{Lineage, LogError, Name};

/// A log that never answers, and one that always fails.
pub struct BadLog {
    pub fails: bool,
}

impl fanfare::Log for BadLog {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        let follower = setup.follower;
        if let Some(broker) = follower.opened.upgrade() {
            let lineage = Lineage::new(Name::mint(), Vec::new(), Name::mint(), 1);
            broker.do_send(Opened { lineage, head: 0, held: Vec::new() });
        }
        let bad = Bad { fails: self.fails.then_some(follower) }.start();
        Ok(LogHandle {
            commit: bad.clone().recipient(),
            read: bad.clone().recipient(),
            seek: bad.clone().recipient(),
            forget: bad.recipient(),
            commit_bytes: None,
            relay: None,
            bound: None,
        })
    }
}

/// A log that does not open.
pub struct UnopenedLog;

impl fanfare::Log for UnopenedLog {
    fn start(self: Box<Self>, _: LogSetup) -> Result<LogHandle, LogError> {
        let bad = Bad { fails: None }.start();
        Ok(LogHandle {
            commit: bad.clone().recipient(),
            read: bad.clone().recipient(),
            seek: bad.clone().recipient(),
            forget: bad.recipient(),
            commit_bytes: None,
            relay: None,
            bound: None,
        })
    }
}

/// A log that opens with some events and never answers who reads them.
pub struct UnansweringLog;

impl fanfare::Log for UnansweringLog {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        let bad = Box::new(BadLog { fails: false });
        let opened = setup.follower.opened.clone();
        let handle = bad.start(setup)?;
        if let Some(broker) = opened.upgrade() {
            let lineage = Lineage::new(Name::mint(), Vec::new(), Name::mint(), 1);
            broker.do_send(Opened { lineage, head: 5, held: Vec::new() });
        }
        Ok(LogHandle { read: Unanswering.start().recipient(), ..handle })
    }
}

struct Unanswering;

impl Actor for Unanswering {
    type Context = Context<Self>;
}

impl Handler<ReadAfter> for Unanswering {
    type Result = ResponseFuture<Result<Page, LogError>>;

    fn handle(&mut self, _: ReadAfter, _: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

struct Bad {
    fails: Option<Follower>,
}

impl Actor for Bad {
    type Context = Context<Self>;
}

impl Handler<Commit> for Bad {
    type Result = ();

    fn handle(&mut self, commit: Commit, _: &mut Self::Context) {
        if let Some(broker) = self.fails.as_ref().and_then(|follower| follower.failed.upgrade()) {
            broker.do_send(CommitFailed { ticket: commit.ticket, error: LogError::new("disk full") });
        }
    }
}

impl Handler<ReadAfter> for Bad {
    type Result = Result<Page, LogError>;

    fn handle(&mut self, _: ReadAfter, _: &mut Self::Context) -> Self::Result {
        Err(LogError::new("unreadable"))
    }
}

impl Handler<Forget> for Bad {
    type Result = ();

    fn handle(&mut self, _: Forget, _: &mut Self::Context) {}
}

impl Handler<Seek> for Bad {
    type Result = Result<fanfare::log::Sought, LogError>;

    fn handle(&mut self, _: Seek, _: &mut Self::Context) -> Self::Result {
        Err(LogError::new("unreadable"))
    }
}
