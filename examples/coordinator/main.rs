//! A store of small values for the services of a cluster: put, delete, get, list and watch, by keys of segments.
//!
//! ```console
//! cargo run --example coordinator
//! curl -X PUT -d '{"url":"http://10.0.0.7"}' http://127.0.0.1:8082/kv/services/mail/7
//! curl http://127.0.0.1:8082/kv?prefix=services
//! curl -N http://127.0.0.1:8082/rt/events?channel=kv/services/**
//! ```
//!
//! The log is the store. A change is one event, so that no crash can leave a value without its event or an event
//! without its value; what is in memory is read from the log at the start and follows it ([`store`]). Of each key the
//! log keeps the newest event, so that it grows with the keys and not with the changes.

mod api;
mod key;
mod store;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use actix::Addr;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpServer, web};
use clap::Parser;
use fanfare::http::{HttpConfig, scope, tune_socket};
use fanfare::{Broker, Drain, Retention, SqliteLog};

use self::store::Store;

/// A coordinator on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "COORDINATOR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8082")]
    listen: SocketAddr,

    /// The file that all is kept in.
    #[arg(long, env = "COORDINATOR_LOG", value_name = "PATH", default_value = "coordinator.db")]
    log: PathBuf,
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

    // Its source names the file and the remedy.
    let log = SqliteLog::open(&settings.log)
        .map_err(|error| error.source().map(ToString::to_string).unwrap_or_default())?;
    let newest_of_each_key = Retention::default().rule("kv/**=limits:max_events=1".parse()?);
    let broker = Broker::builder().log(log).retention(newest_of_each_key).start()?;
    // Nobody is answered before everything is read: an old value would look like the newest.
    let store = Store::load(&broker).await?;
    let coordinator = Coordinator { broker: broker.clone(), store };

    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(coordinator.clone())).configure(api::routes).service(scope(
            "/rt",
            &coordinator.broker,
            HttpConfig::default(),
        ))
    })
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .on_connect(tune_socket)
    .shutdown_timeout(10)
    .disable_signals()
    .bind(settings.listen)
    .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    for address in server.addrs() {
        tracing::info!("the coordinator is at http://{address}/");
    }

    let server = server.run();
    let handle = server.handle();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    actix_web::rt::spawn(async move {
        let (terminate, interrupt) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
        futures_util::future::select(terminate, interrupt).await;
        broker.do_send(Drain);
        handle.stop(true).await;
    });
    server.await?;
    Ok(())
}
