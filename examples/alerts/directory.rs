//! The directory: the one who knows who is logged in and who may see what, and who ends streams when that changes.

use std::time::{Duration, SystemTime};

use actix::prelude::*;
use fanfare::{Broker, CloseReason, CloseSession, SessionId};

use crate::people::{Member, People, Streams};
use crate::refusal::Refusal;
use crate::values::PersonName;

/// Command: this session is of this person, if the password is theirs. A session that the browser had before is over.
#[derive(Message)]
#[rtype(result = "Result<Member, Refusal>")]
pub(crate) struct LogIn {
    pub(crate) session: SessionId,
    pub(crate) before: Option<SessionId>,
    pub(crate) name: PersonName,
    pub(crate) password: String,
}

/// Command: this session is over, and so are its streams.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LogOut(pub(crate) SessionId);

/// Command: somebody may see these streams from now on and no others. Answered when what they follow now has ended.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub(crate) struct Permit {
    pub(crate) name: PersonName,
    pub(crate) streams: Streams,
}

/// Query: whose session is this?
#[derive(Message)]
#[rtype(result = "Result<Member, Refusal>")]
pub(crate) struct Who(pub(crate) SessionId);

/// Query: what is somebody logged in with?
#[derive(Message)]
#[rtype(result = "Result<Vec<SessionId>, Refusal>")]
pub(crate) struct SessionsOf(pub(crate) PersonName);

/// A grant is asked for once, when a stream begins, and one that was given a moment before its end may still be on its way to
/// the broker. So what is ended is ended again after this.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Directory {
    broker: Addr<Broker>,
    people: People,
}

impl Directory {
    pub(crate) fn new(broker: Addr<Broker>, people: People) -> Self {
        Self { broker, people }
    }

    fn end(&mut self, session: SessionId, ctx: &mut Context<Self>) {
        if self.people.log_out(session) {
            self.close(session, CloseReason::Revoked);
            ctx.run_later(ON_ITS_WAY, move |directory, _| directory.close(session, CloseReason::Revoked));
        }
    }

    fn close(&self, session: SessionId, reason: CloseReason) {
        self.broker.do_send(CloseSession { session, reason });
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
        LogIn { session, before, name, password }: LogIn,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let member = self.people.log_in(session, &name, &password, SystemTime::now())?;
        if let Some(before) = before {
            self.end(before, ctx);
        }
        Ok(member)
    }
}

impl Handler<LogOut> for Directory {
    type Result = ();

    fn handle(&mut self, LogOut(session): LogOut, ctx: &mut Self::Context) {
        self.end(session, ctx);
    }
}

impl Handler<Permit> for Directory {
    type Result = ResponseActFuture<Self, Result<(), Refusal>>;

    fn handle(&mut self, Permit { name, streams }: Permit, _: &mut Self::Context) -> Self::Result {
        let permitted = self.people.permit(&name, streams);
        let sessions = match permitted.and_then(|()| self.people.sessions(&name)) {
            Ok(sessions) => sessions,
            Err(refusal) => return Box::pin(fut::ready(Err(refusal))),
        };
        // They come back, and are granted what holds then.
        let close = |directory: &Self, sessions: &[SessionId]| {
            for &session in sessions {
                directory.close(session, CloseReason::ExpiredToken);
            }
        };
        close(self, &sessions);
        let later = actix_web::rt::time::sleep(ON_ITS_WAY).into_actor(self);
        Box::pin(later.map(move |(), directory, _| {
            close(directory, &sessions);
            Ok(())
        }))
    }
}

impl Handler<Who> for Directory {
    type Result = Result<Member, Refusal>;

    fn handle(&mut self, Who(session): Who, _: &mut Self::Context) -> Self::Result {
        self.people.who(session, SystemTime::now())
    }
}

impl Handler<SessionsOf> for Directory {
    type Result = Result<Vec<SessionId>, Refusal>;

    fn handle(&mut self, SessionsOf(name): SessionsOf, _: &mut Self::Context) -> Self::Result {
        self.people.sessions(&name)
    }
}
