//! The directory: the one who knows who is logged in and who may see what, and who ends streams when that changes.

use std::time::{Duration, SystemTime};

use actix::prelude::*;
use fanfare::{Broker, CloseReason, CloseSession, SessionId};

use crate::people::{Member, People, Streams};
use crate::refusal::Refusal;
use crate::values::PersonName;

/// Command: whoever has this cookie is this person, if the password is theirs. What the browser had before is over.
#[derive(Message)]
#[rtype(result = "Result<Member, Refusal>")]
pub(crate) struct LogIn {
    pub(crate) cookie: SessionId,
    pub(crate) before: Option<SessionId>,
    pub(crate) name: PersonName,
    pub(crate) password: String,
}

/// Command: what this cookie is logged in with is over, and so are its streams.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LogOut(pub(crate) SessionId);

/// Command: somebody may see these streams from now on and no others. What they follow now is ended.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub(crate) struct Permit {
    pub(crate) name: PersonName,
    pub(crate) streams: Streams,
}

/// Query: who has this cookie?
#[derive(Message)]
#[rtype(result = "Result<Member, Refusal>")]
pub(crate) struct Who(pub(crate) SessionId);

/// Query: what is somebody logged in with?
#[derive(Message)]
#[rtype(result = "Result<Vec<SessionId>, Refusal>")]
pub(crate) struct SessionsOf(pub(crate) PersonName);

#[derive(Debug)]
pub(crate) struct Directory {
    broker: Addr<Broker>,
    people: People,
}

impl Directory {
    pub(crate) fn new(broker: Addr<Broker>, people: People) -> Self {
        Self { broker, people }
    }

    /// Ends what is there and what was granted a moment ago and is still on its way.
    fn end(&self, sessions: impl IntoIterator<Item = SessionId>, reason: CloseReason) {
        for session in sessions {
            self.broker.do_send(CloseSession { session, reason });
        }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(Duration::from_secs(60), |directory, _| {
            directory.people.forget_old(SystemTime::now());
        });
    }
}

impl Handler<LogIn> for Directory {
    type Result = Result<Member, Refusal>;

    fn handle(
        &mut self,
        LogIn { cookie, before, name, password }: LogIn,
        _: &mut Self::Context,
    ) -> Self::Result {
        let member = self.people.log_in(cookie, &name, &password, SystemTime::now())?;
        let before = before.and_then(|before| self.people.log_out(before));
        self.end(before, CloseReason::Revoked);
        Ok(member)
    }
}

impl Handler<LogOut> for Directory {
    type Result = ();

    fn handle(&mut self, LogOut(cookie): LogOut, _: &mut Self::Context) {
        let session = self.people.log_out(cookie);
        self.end(session, CloseReason::Revoked);
    }
}

impl Handler<Permit> for Directory {
    type Result = Result<(), Refusal>;

    fn handle(&mut self, Permit { name, streams }: Permit, _: &mut Self::Context) -> Self::Result {
        let before = self.people.permit(&name, streams)?;
        // They come back, and are granted what holds then.
        self.end(before, CloseReason::ExpiredToken);
        Ok(())
    }
}

impl Handler<Who> for Directory {
    type Result = Result<Member, Refusal>;

    fn handle(&mut self, Who(cookie): Who, _: &mut Self::Context) -> Self::Result {
        self.people.who(cookie, SystemTime::now())
    }
}

impl Handler<SessionsOf> for Directory {
    type Result = Result<Vec<SessionId>, Refusal>;

    fn handle(&mut self, SessionsOf(name): SessionsOf, _: &mut Self::Context) -> Self::Result {
        self.people.sessions(&name)
    }
}
