//! Workflows are begun and looked at here. How one goes on is told over the scope's socket.

use actix::MailboxError;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError, web};
use fanfare::{InvalidValue, PublishError, Stats};
use serde_json::json;

use crate::Service;
use crate::progress::{Plan, Progress, WorkflowId};
use crate::runner;
use crate::store::{Get, List, Until};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PathConfig::default().error_handler(|error, _| Refusal::Bad(error.to_string()).into()))
        .app_data(web::JsonConfig::default().error_handler(|error, _| Refusal::Bad(error.to_string()).into()))
        .route("/workflows", web::get().to(list))
        .route("/workflows/{id}", web::get().to(get))
        .route("/workflows/{id}", web::put().to(begin))
        .route("/status", web::get().to(status));
}

async fn list(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.store.send(List).await?))
}

/// A workflow that does not exist may begin at any time: whoever waits for it follows from the cursor of the 404.
async fn get(id: web::Path<WorkflowId>, service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    let snapshot = service.store.send(Get(id.into_inner())).await?;
    let status = if snapshot.state.workflow.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok(HttpResponse::build(status).json(snapshot))
}

/// Whoever is not sure that it was begun asks again: one id is one workflow.
async fn begin(
    id: web::Path<WorkflowId>,
    plan: web::Json<Plan>,
    service: web::Data<Service>,
) -> Result<HttpResponse, Refusal> {
    let id = id.into_inner();
    let begun = Progress::begin(id.clone(), &plan).map_err(|rule| Refusal::Bad(rule.into()))?;
    let before = service.store.send(Get(id.clone())).await?;
    if before.state.workflow.is_some() {
        return Ok(HttpResponse::Ok().json(before));
    }
    // Of two who begin it in the same moment, the log lets one.
    let receipt = service.broker.send(runner::update(&begun)?).await??;
    service.store.send(Until(receipt.seq.unwrap_or_default())).await?;
    let status = if receipt.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let snapshot = service.store.send(Get(id)).await?;
    Ok(HttpResponse::build(status).json(snapshot))
}

async fn status(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.broker.send(Stats).await?))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Bad(String),
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    #[error(transparent)]
    Unpublished(#[from] PublishError),
    #[error("the service is stopping")]
    Stopping(#[from] MailboxError),
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Bad(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unpublished(_) | Self::Stopping(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        response.json(json!({ "error": self.to_string() }))
    }
}
