//! A store of small values for the services of a cluster: put, delete, get, list and watch, by keys of segments.
//!
//! ```console
//! cargo run --example coordinator
//! curl -X PUT -d '{"url":"http://10.0.0.7"}' http://127.0.0.1:8082/kv/services/mail/7
//! curl http://127.0.0.1:8082/kv?prefix=services
//! curl -N http://127.0.0.1:8082/rt/events?channel=kv/services/**
//! ```
//!
//! Several of them are one with `--nats`: what is put on one is read and watched on all.
//!
//! The log is the store. A change is one event, so that no crash can leave a value without its event or an event
//! without its value; what is in memory is read from the log at the start and follows it ([`store`]). Of each key the
//! log keeps the newest event, so that it grows with the keys and not with the changes.

mod api;
mod key;
#[path = "../support/serve.rs"]
mod serve;
mod store;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix::Addr;
use actix_web::web;
use clap::Parser;
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broker, NatsLog, Retention};

use self::store::Store;

/// A coordinator on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "COORDINATOR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8082")]
    listen: SocketAddr,

    /// The file that all is kept in, or `memory` for as long as it runs.
    #[arg(long, env = "COORDINATOR_LOG", value_name = "PATH|memory", default_value = "coordinator.db")]
    log: PathBuf,

    /// The NATS servers that give changes their order, for several coordinators that are one: URLs, joined by commas. The log
    /// is then what this one keeps.
    #[arg(long, env = "COORDINATOR_NATS", value_name = "URL")]
    nats: Option<String>,
}

/// What the handlers share.
#[derive(Clone)]
struct Coordinator {
    broker: Addr<Broker>,
    store: Addr<Store>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let newest_of_each_key = Retention::default().rule("kv/**=limits:max_events=1".parse()?);
    let builder = Broker::builder().retention(newest_of_each_key);
    let broker = match &settings.nats {
        None => serve::start(builder, &settings.log)?,
        Some(servers) => {
            // A key that is never changed again must not leave: so the stream has no age.
            let log = NatsLog::new(servers)?.stream("coordinator")?.keep(Duration::ZERO, 1 << 30, 1);
            builder.log(log.index(serve::file(&settings.log)?)).start()?
        }
    };
    // Nobody is answered before everything is read: an old value would look like the newest.
    let store = Store::load(&broker).await?;
    let coordinator = Coordinator { broker: broker.clone(), store };
    let routes = move |app: &mut web::ServiceConfig| {
        app.app_data(web::Data::new(coordinator.clone())).configure(api::routes).service(scope(
            "/rt",
            &coordinator.broker,
            HttpConfig::default(),
        ));
    };
    serve::serve("the coordinator", settings.listen, broker, routes).await
}
