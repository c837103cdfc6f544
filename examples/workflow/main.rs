//! Workflows that run in steps, and pages that follow them over a WebSocket: one of many, or all.
//!
//! ```console
//! cargo run --example workflow
//! curl -X PUT -H 'content-type: application/json' -d '{"steps":20,"step_ms":500}' http://127.0.0.1:8085/workflows/nightly-7
//! curl http://127.0.0.1:8085/workflows/nightly-7
//! ```
//!
//! A change of a workflow is one event with its whole state, and the log is the store: no crash can leave a status without
//! its event or an event without its status. What is in memory follows the log ([`store`]), and says with each answer
//! the cursor that it stands at. A page loads the state and follows from there, and comes back after every loss with the
//! cursor of the last update that it has seen.
//!
//! Whoever may reach this server may follow and start workflows. Only the server says how they go: the scope grants no
//! publishing.

mod api;
mod pages;
mod progress;
mod runner;
#[path = "../support/serve.rs"]
mod serve;
mod store;

use std::error::Error;
use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix::Addr;
use actix_web::web;
use clap::Parser;
use fanfare::http::{AuthError, Grant, HttpConfig, scope};
use fanfare::{Broker, Retention, Selector, SessionId};

use self::store::Store;

/// Workflows on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "WORKFLOW_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,

    /// Where all is kept: a file, or `memory` for as long as it runs.
    #[arg(long, env = "WORKFLOW_LOG", value_name = "PATH|memory", default_value = "workflow.db")]
    log: PathBuf,

    /// How many updates of each workflow are kept: who was away for more is told, and loads the state again.
    #[arg(long, env = "WORKFLOW_KEPT", value_name = "COUNT", default_value_t = 1000)]
    kept: u64,
}

/// What the handlers share.
#[derive(Clone)]
struct Service {
    broker: Addr<Broker>,
    store: Addr<Store>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    // Each update has the whole state, so that the newest is all that must be kept.
    let kept = format!("workflows/*=limits:max_events={}", settings.kept.max(1));
    let retention = Retention::default().rule(kept.parse()?);
    let builder = Broker::builder().retention(retention).drain(Duration::from_secs(3));
    let broker = serve::start(builder, &settings.log)?;
    // Nobody is answered before everything is read: an old state would look like the newest.
    let store = Store::load(&broker).await?;
    let service = Service { broker: broker.clone(), store };
    let config = HttpConfig::default().authorize(|_| ready(visitor()));

    serve::serve("workflows", settings.listen, broker, move |app: &mut web::ServiceConfig| {
        app.app_data(web::Data::new(service.clone()))
            .configure(pages::routes)
            .configure(api::routes)
            .service(scope("/rt", &service.broker, config.clone()));
    })
    .await
}

/// What everybody may do through the scope: follow workflows.
fn visitor() -> Result<Grant, AuthError> {
    let workflows = Selector::new("workflows/*").map_err(AuthError::Malformed)?;
    Ok(Grant::new(SessionId::mint()).subscribe([workflows]))
}
