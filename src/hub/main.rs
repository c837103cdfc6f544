//! The hub: the scope of the library as a ready program, with a page.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used))]

mod access;
mod pages;
mod settings;

use std::error::Error;
use std::io::IsTerminal;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use actix::Addr;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpServer, web};
use fanfare::{Broker, Drain, MemoryLog, NatsIndex, NatsLog, Retention, SqliteLog, Stats, http};
use futures_util::future::{self, Either};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use self::settings::{LogKind, Settings};

#[actix_web::main]
async fn main() -> ExitCode {
    let settings = Settings::of_process();
    let levels = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(to_stderr).with(levels).init();
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors could not be raised"),
    }
    // First what can be wrong without leaving a file behind.
    let config = http::HttpConfig::default()
        .max_selectors(settings.max_selectors)
        .max_payload(settings.max_payload)
        .max_body(settings.max_body);
    let config = access::grant(config, &settings)?;

    let retention = settings.retention.iter().cloned().fold(Retention::default(), Retention::rule);
    let builder = Broker::builder().heartbeat(settings.heartbeat).drain(settings.drain).retention(retention);
    let file = match &settings.log {
        LogKind::Memory => None,
        LogKind::File(path) => Some(SqliteLog::open(path)?.durability(settings.durability)),
    };
    let broker = match (&settings.nats, file) {
        (None, None) => builder.log(MemoryLog::default()),
        (None, Some(file)) => builder.log(file),
        (Some(servers), file) => {
            let index = file.map_or_else(|| NatsIndex::from(MemoryLog::default()), NatsIndex::from);
            builder.log(NatsLog::new(servers)?.stream(&settings.nats_stream)?.index(index))
        }
    }
    .start()?;

    let served = broker.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(served.clone())).configure(pages::routes).service(http::scope(
            "",
            &served,
            config.clone(),
        ))
    })
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .on_connect(http::tune_socket)
    .max_connections(1 << 20)
    .backlog(4096)
    .shutdown_timeout(settings.drain.as_secs().max(1))
    .disable_signals()
    .bind(settings.listen)
    .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    if let Some(address) = server.addrs().first() {
        pages::greet(*address, settings.has_keys());
    }
    let server = server.run();
    let handle = server.handle();
    let drain = settings.drain;
    actix_web::rt::spawn(async move {
        let patience = match told_to_stop(&broker).await {
            Ok(Stop::Terminate) => drain,
            Ok(Stop::Interrupt) => drain.min(INTERRUPT_DRAIN),
            Err(why) => {
                tracing::error!("{why}; ending, so that whoever watches starts the hub again");
                std::process::exit(1);
            }
        };
        tracing::info!("told to stop; ending the streams");
        // Whatever the clients do, the process is gone in time.
        actix_web::rt::spawn(async move {
            actix_web::rt::time::sleep(patience.saturating_sub(MARGIN)).await;
            tracing::warn!("some clients did not go; leaving all the same");
            std::process::exit(0);
        });
        // Streams end by themselves first: the server would wait for them, and they would never end.
        broker.do_send(Drain);
        while broker.send(Stats).await.is_ok_and(|stats| stats.in_flight > 0) {
            actix_web::rt::time::sleep(LOOK).await;
        }
        handle.stop(true).await;
    });
    server.await?;
    Ok(())
}

/// How long an interrupted hub takes at most.
const INTERRUPT_DRAIN: Duration = Duration::from_secs(2);
/// What is left of the drain for the process to end.
const MARGIN: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(20);

enum Stop {
    Terminate,
    Interrupt,
}

/// Waits for a signal, or for the broker to be gone, without which there is nothing to serve.
async fn told_to_stop(broker: &Addr<Broker>) -> Result<Stop, Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (terminate, interrupt) = (pin!(terminate.recv()), pin!(interrupt.recv()));
        let a_while = pin!(actix_web::rt::time::sleep(Duration::from_secs(1)));
        match future::select(future::select(terminate, interrupt), a_while).await {
            Either::Left((Either::Left(_), _)) => return Ok(Stop::Terminate),
            Either::Left((Either::Right(_), _)) => return Ok(Stop::Interrupt),
            Either::Right(_) if broker.connected() => {}
            Either::Right(_) => return Err("the broker is gone".into()),
        }
    }
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
