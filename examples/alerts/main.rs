//! Alerts for those who may see them: people log in, each sees the alert streams that they are allowed to, live and from
//! where they left off, and everyone hears what concerns all.
//!
//! ```console
//! cargo run --example alerts
//! ```
//!
//! Then open <http://127.0.0.1:8083/> and log in as `olga`, the operator, or as `ada` or `bob`; each has the name for a
//! password. Or without a browser:
//!
//! ```console
//! curl -c olga -X PUT --json '{"name":"olga","password":"olga"}' http://127.0.0.1:8083/session
//! curl -c ada -X PUT --json '{"name":"ada","password":"ada"}' http://127.0.0.1:8083/session
//! curl -N -b ada 'http://127.0.0.1:8083/rt/events?channel=alerts/payments&filter=criticality:error'
//! curl -b olga -X PUT http://127.0.0.1:8083/alerts/card-errors-1 \
//!      --json '{"stream":"payments","name":"Card errors","criticality":"error","text":"9% of the last 5 minutes"}'
//! curl -b olga -X PUT --json '{"event":"node_left","node":"eu-7"}' http://127.0.0.1:8083/control/eu-7-left
//! curl -b olga -X PUT --json '{"text":"Please call"}' http://127.0.0.1:8083/people/ada/notices/call
//! curl -b olga -X PUT --json '{"streams":["infra"]}' http://127.0.0.1:8083/people/ada/streams
//! curl -b ada -X DELETE http://127.0.0.1:8083/session
//! ```
//!
//! An alert stream is a channel, `alerts/payments`, and a permission is a selector of the grant: who may not see a stream
//! cannot follow it, and nothing has to be asked for each alert and each person. A login is a session: all its tabs
//! hear what is sent to it, and all end when it logs out, or when what it may see has changed; then they come back as another
//! session. Who is logged in and who may see what belongs to one actor, the [`Directory`]. Alerts are in the log; logins are in
//! memory, so that after a restart people log in again, and then get what they missed.

mod api;
#[path = "../support/asset.rs"]
mod asset;
mod directory;
mod message;
mod pages;
mod people;
mod refusal;
#[path = "../support/serve.rs"]
mod serve;
mod session;
mod values;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix::{Actor, Addr};
use actix_web::web;
use clap::Parser;
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broker, Retention, Rule};

use self::directory::Directory;
use self::people::{People, Person};

/// Alerts on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "ALERTS_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8083")]
    listen: SocketAddr,

    /// Where alerts are kept: a file, or `memory` for as long as the server runs.
    #[arg(long, env = "ALERTS_LOG", value_name = "PATH|memory", default_value = "alerts.db")]
    log: PathBuf,

    /// How many of them are kept, as `alerts/*=limits:max_age=720h,max_events=10000`. Repeat; the first that matches counts.
    /// Without a match: 24h.
    #[arg(long, env = "ALERTS_RETENTION", value_name = "RULE")]
    retention: Vec<Rule>,

    /// How often an idle stream shows that it is alive.
    #[arg(long, env = "ALERTS_HEARTBEAT", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,

    /// Who there is: name, password, and the alert streams that they may see, or `*`; operators raise alerts and say who
    /// may see what. Repeat.
    #[arg(
        long,
        value_name = "NAME:PASSWORD:STREAM,STREAM[:operator]",
        default_values = ["olga:olga:*:operator", "ada:ada:payments,web", "bob:bob:infra"],
    )]
    person: Vec<Person>,
}

/// What the handlers share: two addresses, and nothing to lock.
#[derive(Clone)]
struct Alerts {
    broker: Addr<Broker>,
    directory: Addr<Directory>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let retention = settings.retention.into_iter().fold(Retention::default(), Retention::rule);
    let broker = Broker::builder().retention(retention).heartbeat(settings.heartbeat);
    // It is there before anybody can connect, and before the first alert.
    let broker = serve::start(broker, &settings.log)?;
    let directory = Directory::new(broker.clone(), People::new(settings.person)).start();
    let alerts = Alerts { broker: broker.clone(), directory: directory.clone() };
    let config = HttpConfig::default().authorize(move |request| session::grant(request, directory.clone()));
    let routes = move |app: &mut web::ServiceConfig| {
        app.app_data(web::Data::new(alerts.clone()))
            .configure(pages::routes)
            .configure(api::routes)
            .service(scope("/rt", &alerts.broker, config.clone()));
    };
    serve::serve("the alerts page", settings.listen, broker, routes).await
}
