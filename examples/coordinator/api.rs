//! Values in and out. A change is answered when it is committed and can be read here.

use actix::MailboxError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError, web};
use fanfare::{Broadcast, Event, InvalidValue, PublishError, Receipt};
use serde::Deserialize;
use serde_json::Value;

use crate::Coordinator;
use crate::key::Key;
use crate::store::{DELETE, Get, List, PUT, Until};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/kv", web::get().to(list))
        .route("/kv/{key:.+}", web::get().to(get))
        .route("/kv/{key:.+}", web::put().to(put))
        .route("/kv/{key:.+}", web::delete().to(delete));
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    prefix: String,
}

async fn list(
    wanted: web::Query<Wanted>,
    coordinator: web::Data<Coordinator>,
) -> Result<HttpResponse, Refusal> {
    let prefix = wanted.into_inner().prefix.trim_end_matches('/').to_owned();
    Ok(HttpResponse::Ok().json(coordinator.store.send(List { prefix }).await?))
}

async fn get(key: web::Path<String>, coordinator: web::Data<Coordinator>) -> Result<HttpResponse, Refusal> {
    let entry = coordinator.store.send(Get(Key::new(&key)?)).await?.ok_or(Refusal::Nothing)?;
    Ok(HttpResponse::Ok().insert_header((ETAG, format!("\"{}\"", entry.seq))).json(entry))
}

async fn put(
    key: web::Path<String>,
    body: String,
    coordinator: web::Data<Coordinator>,
) -> Result<HttpResponse, Refusal> {
    let value: Value = serde_json::from_str(&body).map_err(|_| Refusal::NoJson)?;
    change(&key, Event::json(PUT, &value)?, &coordinator).await
}

async fn delete(
    key: web::Path<String>,
    coordinator: web::Data<Coordinator>,
) -> Result<HttpResponse, Refusal> {
    change(&key, Event::text(DELETE, "")?, &coordinator).await
}

async fn change(key: &str, event: Event, coordinator: &Coordinator) -> Result<HttpResponse, Refusal> {
    let broadcast = Broadcast::channel(Key::new(key)?.channel(), event)?;
    let receipt: Receipt = coordinator.broker.send(broadcast).await??;
    coordinator.store.send(Until(receipt.seq.unwrap_or_default())).await?;
    Ok(HttpResponse::Ok().json(receipt))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no value for this key")]
    Nothing,
    #[error("a value must be JSON")]
    NoJson,
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    #[error(transparent)]
    Unpublished(#[from] PublishError),
    #[error("the coordinator is stopping")]
    Stopping(#[from] MailboxError),
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Nothing => StatusCode::NOT_FOUND,
            Self::NoJson | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unpublished(_) | Self::Stopping(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        response.json(serde_json::json!({ "error": self.to_string() }))
    }
}
