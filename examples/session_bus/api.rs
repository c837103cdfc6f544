//! What connectors and those who look after subscribers ask for.

use actix::{Actor, MailboxError};
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError, web};
use fanfare::{Batch, InvalidValue, PublishError, SubscribeError, SubscribeOptions, subscribe_with};
use serde::Deserialize;

use crate::Bus;
use crate::bus::{Happening, Session, Wanted};
use crate::desk::{Add, Find, Remove, Standings};
use crate::subscriber::{Hold, Look, Subscriber};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default()
        .limit(1 << 20)
        .error_handler(|error, _| Refusal::Body(error.to_string()).into());
    config
        .app_data(json)
        .service(
            web::resource("/connectors/{connector}/sessions/{native_session}")
                .route(web::put().to(register))
                .route(web::delete().to(unregister)),
        )
        .route("/connectors/{connector}/sessions/{native_session}/events", web::post().to(publish))
        .route("/subscribers", web::get().to(standings))
        .service(
            web::resource("/subscribers/{name}")
                .route(web::put().to(subscribe))
                .route(web::get().to(look))
                .route(web::delete().to(unsubscribe)),
        )
        .route("/subscribers/{name}/pace", web::put().to(pace));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    scroll: String,
}

/// Says which scroll a session belongs to, from now on.
async fn register(
    session: web::Path<Session>,
    body: web::Json<Registration>,
    bus: web::Data<Bus>,
) -> Result<HttpResponse, Refusal> {
    let receipt = bus.broker.send(session.register(&body.scroll)?).await??;
    Ok(HttpResponse::Ok().json(receipt))
}

/// From now on a session belongs to no scroll. To say it twice does no harm.
async fn unregister(session: web::Path<Session>, bus: web::Data<Bus>) -> Result<HttpResponse, Refusal> {
    bus.broker.send(session.unbind()).await??;
    Ok(HttpResponse::NoContent().finish())
}

/// Publishes what happens in a session: all of it, next to each other, or nothing.
async fn publish(
    session: web::Path<Session>,
    body: web::Json<Vec<Happening>>,
    bus: web::Data<Bus>,
) -> Result<HttpResponse, Refusal> {
    let events = body.into_inner().into_iter().map(|what| session.publish(what));
    let batch = Batch::new(events.collect::<Result<_, _>>()?)?;
    Ok(HttpResponse::Ok().json(bus.broker.send(batch).await??))
}

/// Makes a subscriber in this process; `held` for one that does not read yet.
async fn subscribe(
    name: web::Path<String>,
    body: web::Json<Wanted>,
    bus: web::Data<Bus>,
) -> Result<HttpResponse, Refusal> {
    let (name, wanted) = (name.into_inner(), body.into_inner());
    let options = SubscribeOptions::default().queue(wanted.queue)?;
    let deliveries = subscribe_with(&bus.broker, wanted.subscription()?, options).await?;
    let subscriber = Subscriber::new(name.clone(), wanted, deliveries).start();
    if !bus.desk.send(Add { name, subscriber: subscriber.clone() }).await? {
        return Err(Refusal::Full);
    }
    Ok(HttpResponse::Ok().json(subscriber.send(Look).await?))
}

async fn look(name: web::Path<String>, bus: web::Data<Bus>) -> Result<HttpResponse, Refusal> {
    let subscriber = bus.desk.send(Find(name.into_inner())).await?.ok_or(Refusal::Nobody)?;
    Ok(HttpResponse::Ok().json(subscriber.send(Look).await?))
}

async fn standings(bus: web::Data<Bus>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(bus.desk.send(Standings).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pace {
    held: bool,
}

async fn pace(
    name: web::Path<String>,
    body: web::Json<Pace>,
    bus: web::Data<Bus>,
) -> Result<HttpResponse, Refusal> {
    let subscriber = bus.desk.send(Find(name.into_inner())).await?.ok_or(Refusal::Nobody)?;
    subscriber.send(Hold(body.held)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends a subscriber. To say it twice does no harm.
async fn unsubscribe(name: web::Path<String>, bus: web::Data<Bus>) -> Result<HttpResponse, Refusal> {
    bus.desk.send(Remove(name.into_inner())).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the request is not what was expected: {0}")]
    Body(String),
    #[error("{0}")]
    Invalid(#[from] InvalidValue),
    #[error("there is no subscriber of this name")]
    Nobody,
    #[error("there are too many subscribers")]
    Full,
    #[error(transparent)]
    Unpublished(PublishError),
    #[error("the bus is stopping")]
    Stopping,
}

impl From<MailboxError> for Refusal {
    fn from(_: MailboxError) -> Self {
        Self::Stopping
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Invalid { invalid, .. } => Self::Invalid(invalid),
            other => Self::Unpublished(other),
        }
    }
}

impl From<SubscribeError> for Refusal {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Invalid(invalid) => Self::Invalid(invalid),
            _ => Self::Stopping,
        }
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Invalid(invalid) if invalid.is_oversized() => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Nobody => StatusCode::NOT_FOUND,
            Self::Full | Self::Unpublished(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        let field = match self {
            Self::Invalid(invalid) => Some(invalid.field()),
            _ => None,
        };
        response.json(serde_json::json!({ "error": self.to_string(), "field": field }))
    }
}
