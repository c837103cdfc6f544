//! What the page asks for beside its stream. Every change is a `PUT`: a browser sends none to another site without asking
//! that site first, and each may be repeated when its answer was lost.

use actix::MailboxError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use fanfare::{Broadcast, Event, EventId, InvalidValue, PublishError, Publisher, SessionId};
use serde::{Deserialize, Serialize};

use crate::Chat;
use crate::lobby::{Enter, Speak};
use crate::session::Session;
use crate::values::{PersonName, RoomName, Text};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default()
        .limit(32 * 1024)
        .error_handler(|_, _| Refusal::Invalid("The request is not what was expected.").into());
    config
        .app_data(json)
        .route("/rooms/{room}/me", web::put().to(enter))
        .route("/rooms/{room}/typing", web::put().to(typing))
        .route("/rooms/{room}/messages/{id}", web::put().to(say));
}

#[derive(Deserialize)]
struct Introduction {
    name: String,
}

#[derive(Serialize)]
struct Speaker {
    from: SessionId,
    name: PersonName,
}

/// Gives the session its name and shows it in the room; the first time, makes the session.
async fn enter(
    request: HttpRequest,
    room: web::Path<RoomName>,
    session: Option<Session>,
    body: web::Json<Introduction>,
    chat: web::Data<Chat>,
) -> Result<HttpResponse, Refusal> {
    let name = PersonName::new(&body.name)?;
    let mut response = HttpResponse::Ok();
    let Session(from) = session.unwrap_or_else(|| {
        let (session, cookie) = Session::mint(&request);
        response.cookie(cookie);
        session
    });
    chat.lobby.send(Enter { session: from, room: room.into_inner(), name: name.clone() }).await??;
    Ok(response.json(Speaker { from, name }))
}

/// Tells the room that somebody types; worth nothing a moment later, so it is not kept.
async fn typing(
    Session(from): Session,
    room: web::Path<RoomName>,
    chat: web::Data<Chat>,
) -> Result<HttpResponse, Refusal> {
    let name = chat.lobby.send(Speak { session: from, cost: 0.25 }).await??;
    let event = Event::json("typing", &Speaker { from, name })?.ephemeral();
    chat.broker.do_send(Broadcast::channel(room.channel(), event)?);
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
struct Said {
    #[serde(flatten)]
    speaker: Speaker,
    text: Text,
}

/// Says something in a room, under an id that the page made up: however often it is asked for, it is said once.
async fn say(
    Session(from): Session,
    path: web::Path<(RoomName, String)>,
    body: web::Json<Message>,
    chat: web::Data<Chat>,
) -> Result<HttpResponse, Refusal> {
    let (room, id) = path.into_inner();
    let id = EventId::new(id)?;
    let text = Text::new(&body.text)?;
    let name = chat.lobby.send(Speak { session: from, cost: 1.0 }).await??;
    let event = Event::json("said", &Said { speaker: Speaker { from, name }, text })?.id(id);
    // An id is unique per publisher: nobody can use up another's.
    let broadcast = Broadcast::channel(room.channel(), event)?.publisher(Publisher::named(from.to_string()));
    let receipt = chat.broker.send(broadcast).await??;
    Ok(HttpResponse::Ok().json(receipt))
}

/// Why something was not done, in words for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{0}.")]
    Value(#[from] InvalidValue),
    #[error("Say who you are first.")]
    Unknown,
    #[error("Somebody else here has this name.")]
    NameTaken,
    #[error("That was a lot at once. Wait a moment.")]
    TooFast,
    #[error("The chat is full. Try again later.")]
    Full,
    #[error("The server cannot take this now. Try again in a moment.")]
    Unavailable,
}

impl From<MailboxError> for Refusal {
    fn from(_: MailboxError) -> Self {
        Self::Unavailable
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        tracing::warn!(%error, "a message was not taken");
        Self::Unavailable
    }
}

#[derive(Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Value(_) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::NameTaken => StatusCode::CONFLICT,
            Self::TooFast => StatusCode::TOO_MANY_REQUESTS,
            Self::Full | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let title = status.canonical_reason().unwrap_or_default();
        let mut response = HttpResponse::build(status);
        if matches!(self, Self::TooFast | Self::Full | Self::Unavailable) {
            response.insert_header((RETRY_AFTER, "1"));
        }
        // The type is set after the body, which would set its own.
        let mut response =
            response.json(Problem { title, status: status.as_u16(), detail: self.to_string() });
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
