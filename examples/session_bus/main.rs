//! A bus for the sessions of agents: connectors publish what happens in a session under their own name for it, and who follows
//! the scroll that the session belongs to hears it from the moment that this is known.
//!
//! ```console
//! cargo run --example session_bus
//! ```
//!
//! Then open <http://127.0.0.1:8084/>. Or without a browser:
//!
//! ```console
//! curl -N 'http://127.0.0.1:8084/rt/events?channel=kept/**&channel=live/**&filter=scroll:story'
//! curl -X PUT --json '{"queue":4,"held":true}' http://127.0.0.1:8084/subscribers/slow
//! curl --json '[{"kind":"said","data":"Nobody knows yet whose this is"}]' http://127.0.0.1:8084/connectors/irc/sessions/7/events
//! curl -X PUT --json '{"scroll":"story"}' http://127.0.0.1:8084/connectors/irc/sessions/7
//! curl --json '[{"kind":"said","data":"Hello"},{"kind":"typing","live":true}]' http://127.0.0.1:8084/connectors/irc/sessions/7/events
//! curl -X PUT --json '{"held":false}' http://127.0.0.1:8084/subscribers/slow/pace
//! curl http://127.0.0.1:8084/subscribers/slow
//! curl -X DELETE http://127.0.0.1:8084/subscribers/slow
//! curl -X DELETE http://127.0.0.1:8084/connectors/irc/sessions/7
//! ```
//!
//! Each connector has two channels ([`bus`]): `kept/irc` is stored, and who was away or slow gets it all; `live/irc` is for the
//! moment, and who is slow is told how much of it was lost, and where. A session is bound to its scroll as it is registered, in
//! one step with the event that says so, so that this event is the first one that followers of the scroll hear. What
//! was published before stays as it was: only those who follow the connector, or all, have it.
//!
//! Subscribers in this process ([`subscriber`]) are actors that count what they were delivered and what they were told as lost:
//! together exactly what was published for them.

mod api;
#[path = "../support/asset.rs"]
mod asset;
mod bus;
mod desk;
mod pages;
#[path = "../support/serve.rs"]
mod serve;
mod subscriber;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use actix::{Actor, Addr};
use actix_web::web;
use clap::Parser;
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broker, Retention, Rule};

use self::desk::Desk;

/// A bus for sessions on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "SESSION_BUS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8084")]
    listen: SocketAddr,

    /// Where stored events are kept: a file, or `memory` for as long as it runs.
    #[arg(long, env = "SESSION_BUS_LOG", value_name = "PATH|memory", default_value = "session_bus.db")]
    log: PathBuf,

    /// What is kept of each channel. Repeat; the first that matches counts.
    #[arg(
        long,
        env = "SESSION_BUS_RETENTION",
        value_name = "RULE",
        default_values = ["live/**=none", "kept/**=limits:max_age=24h,max_events=10000"],
    )]
    retention: Vec<Rule>,
}

/// What the handlers share: two addresses, and nothing to lock.
#[derive(Clone)]
struct Bus {
    broker: Addr<Broker>,
    desk: Addr<Desk>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let retention = settings.retention.into_iter().fold(Retention::default(), Retention::rule);
    let broker = serve::start(Broker::builder().retention(retention), &settings.log)?;
    let desk = Desk::new(broker.clone()).start();
    let bus = Bus { broker: broker.clone(), desk };
    let routes = move |app: &mut web::ServiceConfig| {
        app.app_data(web::Data::new(bus.clone()))
            .configure(pages::routes)
            .configure(api::routes)
            .service(scope("/rt", &bus.broker, HttpConfig::default()));
    };
    serve::serve("the session bus", settings.listen, broker, routes).await
}
