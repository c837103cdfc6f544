//! What can be seen from outside: who is on a channel, and how the broker stands.

use actix::prelude::*;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::Mount;
use super::problem::Problem;
use super::query::Query;
use crate::actors::broker::{Presence, Survey};
use crate::channel::{Channel, Selector};
use crate::error::CloseReason;
use crate::identity::SessionId;

#[derive(Serialize)]
struct PresenceAnswer<'a> {
    channel: &'a str,
    clients: usize,
    sessions: usize,
    members: Vec<Member>,
    more: bool,
}

#[derive(Serialize)]
struct Member {
    session: SessionId,
    clients: usize,
}

pub(super) async fn presence(request: HttpRequest, mount: web::Data<Mount>) -> Result<HttpResponse, Problem> {
    let grant = mount.config.grant(&request).await?;
    let query = Query::parse(request.query_string())?;
    let channel = Channel::new(query.one("channel")?.unwrap_or_default())?;
    if !grant.may_subscribe(&Selector::from(channel.clone())) {
        return Err(Problem::forbidden("the channel is outside the grant").field("channel"));
    }
    let found = ask(&mount, Presence { channel: channel.clone() }).await?;
    let members = found.members.iter().map(|&(session, clients)| Member { session, clients }).collect();
    Ok(HttpResponse::Ok().json(PresenceAnswer {
        channel: channel.as_str(),
        clients: found.clients,
        sessions: found.sessions,
        members,
        more: found.sessions > found.members.len(),
    }))
}

pub(super) async fn status(request: HttpRequest, mount: web::Data<Mount>) -> Result<HttpResponse, Problem> {
    require_admin(&request, &mount).await?;
    Ok(HttpResponse::Ok().json(ask(&mount, Survey).await?))
}

/// Lets nobody on who may not look into the broker.
pub(super) async fn require_admin(request: &HttpRequest, mount: &Mount) -> Result<(), Problem> {
    let grant = mount.config.grant(request).await?;
    if grant.is_admin { Ok(()) } else { Err(Problem::forbidden("this needs an admin grant")) }
}

/// Asks the broker, which may be gone.
pub(super) async fn ask<M>(mount: &Mount, query: M) -> Result<M::Result, Problem>
where
    M: Message + Send + 'static,
    M::Result: Send,
    crate::Broker: Handler<M>,
{
    mount.broker.upgrade().ok_or_else(gone)?.send(query).await.map_err(|_| gone())
}

/// There is no broker to ask.
pub(super) fn gone() -> Problem {
    Problem::closed(CloseReason::Unavailable, std::time::Duration::from_secs(5))
}
