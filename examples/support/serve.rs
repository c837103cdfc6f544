//! What the examples have in common as programs: a broker with its log, and a server that ends as it should.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use actix::Addr;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, web};
use fanfare::{Broker, Builder, Drain, MemoryLog, SqliteLog, http};

/// Starts a broker with its log in a file, or in memory if the path says `memory`. Once, before the server: that runs
/// its factory once for each HTTP thread.
pub(crate) fn start(builder: Builder, log: &Path) -> Result<Addr<Broker>, Box<dyn Error>> {
    let builder = match log.to_str() {
        Some("memory") => builder.log(MemoryLog::default()),
        _ => builder.log(file(log)?),
    };
    Ok(builder.start()?)
}

/// A log in a file.
pub(crate) fn file(log: &Path) -> Result<SqliteLog, Box<dyn Error>> {
    // Its source names the file and the remedy.
    Ok(SqliteLog::open(log).map_err(|error| error.source().map(ToString::to_string).unwrap_or_default())?)
}

/// Serves `routes` until a signal comes, with the settings that streams want.
pub(crate) async fn serve<F>(
    name: &str,
    listen: SocketAddr,
    broker: Addr<Broker>,
    routes: F,
) -> Result<(), Box<dyn Error>>
where
    F: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    // Every open tab is a socket; the usual soft limit of 1024 is soon reached.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }
    let server = http::serve(move || App::new().configure(&routes))
        .shutdown_timeout(10)
        .disable_signals()
        .bind(listen)
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    for address in server.addrs() {
        tracing::info!("{name} is at http://{address}/");
    }

    let server = server.run();
    let handle = server.handle();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    actix_web::rt::spawn(async move {
        let (terminate, interrupt) = (std::pin::pin!(terminate.recv()), std::pin::pin!(interrupt.recv()));
        futures_util::future::select(terminate, interrupt).await;
        // The streams end first, each with a time to come back: the server would wait for them for ever.
        broker.do_send(Drain);
        handle.stop(true).await;
    });
    server.await?;
    Ok(())
}
