//! What the page and those who raise alerts ask for, beside the streams. Every change is a `PUT` or a `DELETE`: a browser sends
//! none to another site without asking that site first, and each may be repeated when its answer was lost.

use actix_web::{HttpRequest, HttpResponse, web};
use fanfare::{Broadcast, EventId, SessionId};
use serde::{Deserialize, Serialize};

use crate::Alerts;
use crate::directory::{LogIn, LogOut, Permit, SessionsOf};
use crate::message::{Alert, ControlPlaneEvent, Criticality, Message, Notice, State};
use crate::people::{Member, Streams};
use crate::refusal::Refusal;
use crate::session::{self, Session};
use crate::values::{PersonName, StreamName};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default()
        .limit(32 * 1024)
        .error_handler(|error, _| Refusal::Body(error.to_string()).into());
    let path = web::PathConfig::default().error_handler(|error, _| Refusal::Body(error.to_string()).into());
    config
        .app_data(json)
        .app_data(path)
        .service(
            web::resource("/session")
                .route(web::get().to(me))
                .route(web::put().to(log_in))
                .route(web::delete().to(log_out)),
        )
        .route("/alerts/{id}", web::put().to(raise))
        .route("/control/{id}", web::put().to(announce))
        .route("/people/{name}/notices/{id}", web::put().to(notify))
        .route("/people/{name}/streams", web::put().to(permit));
}

/// What somebody may know of themselves.
#[derive(Serialize)]
struct Me {
    session: SessionId,
    name: PersonName,
    operator: bool,
    /// What to follow, for all alerts that they may see.
    channels: Vec<String>,
}

impl Me {
    fn new(member: Member) -> Self {
        let channels = member.streams.selectors();
        Self { session: member.session, name: member.name, operator: member.is_operator, channels }
    }
}

async fn me(Session(member): Session) -> HttpResponse {
    HttpResponse::Ok().json(Me::new(member))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    name: PersonName,
    password: String,
}

async fn log_in(
    request: HttpRequest,
    body: web::Json<Credentials>,
    alerts: web::Data<Alerts>,
) -> Result<HttpResponse, Refusal> {
    let Credentials { name, password } = body.into_inner();
    let (known_by, cookie) = session::mint(&request);
    // A cookie that was not made here is replaced like any other.
    let before = session::named(&request).ok().flatten();
    let member = alerts.directory.send(LogIn { cookie: known_by, before, name, password }).await??;
    Ok(HttpResponse::Ok().cookie(cookie).json(Me::new(member)))
}

async fn log_out(request: HttpRequest, alerts: web::Data<Alerts>) -> Result<HttpResponse, Refusal> {
    if let Ok(Some(cookie)) = session::named(&request) {
        alerts.directory.send(LogOut(cookie)).await?;
    }
    Ok(HttpResponse::NoContent().cookie(session::forget(&request)).finish())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raised {
    stream: StreamName,
    name: String,
    criticality: Criticality,
    #[serde(default)]
    state: State,
    #[serde(default)]
    text: String,
}

/// Tells those who may see its stream that an alert is triggered, or resolved. Repeated under the same id, it is told once.
async fn raise(
    Session(member): Session,
    id: web::Path<String>,
    body: web::Json<Raised>,
    alerts: web::Data<Alerts>,
) -> Result<HttpResponse, Refusal> {
    let Raised { stream, name, criticality, state, text } = body.into_inner();
    if !member.is_operator || !member.streams.include(&stream) {
        return Err(Refusal::NotAllowed);
    }
    // Each kind has ids of its own.
    let id = EventId::new(format!("alert:{id}"))?;
    let channel = stream.channel();
    let message = Message::Alert(Alert { stream, name, criticality, state, text });
    publish(&alerts, &member, Broadcast::channel(channel, message.event(id)?)?).await
}

/// Tells everyone what happens to the system itself.
async fn announce(
    Session(member): Session,
    id: web::Path<String>,
    body: web::Json<ControlPlaneEvent>,
    alerts: web::Data<Alerts>,
) -> Result<HttpResponse, Refusal> {
    let id = EventId::new(format!("control:{id}"))?;
    let message = Message::ControlPlane(body.into_inner());
    publish(&alerts, &member, Broadcast::everyone(message.event(id)?)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    text: String,
}

/// Tells one person, in every tab of every browser that they are logged in with.
async fn notify(
    Session(member): Session,
    path: web::Path<(PersonName, String)>,
    body: web::Json<Word>,
    alerts: web::Data<Alerts>,
) -> Result<HttpResponse, Refusal> {
    let (name, id) = path.into_inner();
    let id = EventId::new(format!("notice:{name}:{id}"))?;
    let from = member.name.to_string();
    let event = Message::Notice(Notice { from, text: body.into_inner().text }).event(id)?;
    let sessions = alerts.directory.send(SessionsOf(name)).await??;
    publish(&alerts, &member, Broadcast::sessions(sessions, event)).await
}

async fn publish(alerts: &Alerts, by: &Member, broadcast: Broadcast) -> Result<HttpResponse, Refusal> {
    if !by.is_operator {
        return Err(Refusal::NotAllowed);
    }
    Ok(HttpResponse::Ok().json(alerts.broker.send(broadcast).await??))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permission {
    streams: Vec<String>,
}

/// Says what somebody may see from now on; what they follow now is ended.
async fn permit(
    Session(member): Session,
    name: web::Path<PersonName>,
    body: web::Json<Permission>,
    alerts: web::Data<Alerts>,
) -> Result<HttpResponse, Refusal> {
    if !member.is_operator {
        return Err(Refusal::NotAllowed);
    }
    let streams = Streams::parse(body.into_inner().streams)?;
    alerts.directory.send(Permit { name: name.into_inner(), streams }).await??;
    Ok(HttpResponse::NoContent().finish())
}
