//! `DELETE sessions/{id}`: a session is over, and what it has is worth nothing any more.

use actix_web::{HttpRequest, HttpResponse, web};

use super::problem::Problem;
use super::state::ask;
use super::{Mount, origin};
use crate::actors::CloseSession;
use crate::error::CloseReason;
use crate::identity::SessionId;

pub(super) async fn revoke(
    request: HttpRequest,
    id: web::Path<String>,
    mount: web::Data<Mount>,
) -> Result<HttpResponse, Problem> {
    let grant = mount.config.grant(&request).await?;
    origin::check(&request, &mount.config, &grant)?;
    if !grant.is_admin {
        return Err(Problem::forbidden("this needs an admin grant"));
    }
    let session: SessionId = id.parse()?;
    let streams = ask(&mount, CloseSession { session, reason: CloseReason::Revoked }).await?;
    tracing::info!(%session, streams, "session revoked");
    Ok(HttpResponse::NoContent().finish())
}
