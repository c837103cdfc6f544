//! Who is connected: sessions, and single clients. For those with an admin grant.

use std::collections::HashMap;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Mount;
use super::problem::Problem;
use super::state::{ask, require_admin};
use crate::actors::broker::{AskClient, AskSessions, Found, FoundSessions};
use crate::actors::view::ClientView;
use crate::identity::{ClientId, SessionId};

/// How long a thread may take to tell of its clients.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct SessionsAnswer {
    sessions: Vec<SessionView>,
    more: bool,
}

#[derive(Serialize)]
struct SessionView {
    session: SessionId,
    clients: Vec<ClientView>,
}

pub(super) async fn sessions(request: HttpRequest, mount: web::Data<Mount>) -> Result<HttpResponse, Problem> {
    require_admin(&request, &mount).await?;
    let FoundSessions { sessions, more, clients } = ask(&mount, AskSessions).await?;
    let mut by_session = HashMap::<SessionId, Vec<ClientView>>::new();
    for view in collect(clients).await {
        by_session.entry(view.session).or_default().push(view);
    }
    let sessions = sessions.into_iter().filter_map(|session| {
        // All of its clients may have left since.
        let mut clients = by_session.remove(&session)?;
        clients.sort_unstable_by_key(|view| view.client);
        Some(SessionView { session, clients })
    });
    Ok(HttpResponse::Ok().json(SessionsAnswer { sessions: sessions.collect(), more }))
}

pub(super) async fn client(
    request: HttpRequest,
    id: web::Path<String>,
    mount: web::Data<Mount>,
) -> Result<HttpResponse, Problem> {
    require_admin(&request, &mount).await?;
    let nobody = || Problem::not_found("there is no such client, or there was none for a while");
    let client: ClientId = id.parse().map_err(|_| nobody())?;
    // One that ends while it is asked has left its last word by the second time.
    for _ in 0..2 {
        match ask(&mount, AskClient { client }).await? {
            Found::Connected(told) => {
                if let Some(view) = collect(told).await.pop() {
                    return Ok(HttpResponse::Ok().json(view));
                }
            }
            Found::Past(view) => return Ok(HttpResponse::Ok().json(view)),
            Found::Nothing => return Err(nobody()),
        }
    }
    Err(Problem::unavailable("the client's thread is busy").retry_after(PATIENCE))
}

/// All that is told within the time there is.
async fn collect(mut told: UnboundedReceiver<ClientView>) -> Vec<ClientView> {
    let mut views = Vec::new();
    let all = async {
        while let Some(view) = told.recv().await {
            views.push(view);
        }
    };
    // What is late is left out.
    let _ = actix_web::rt::time::timeout(PATIENCE, all).await;
    views
}
