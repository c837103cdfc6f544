//! The hub: the scope of the library as a ready program, with a page.

#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used))]

mod access;
mod pages;
mod settings;
mod stop;
mod telemetry;
mod tls;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use actix::Addr;
use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};
use fanfare::{Broker, MemoryLog, NatsIndex, NatsLog, Retention, SqliteLog, http};
use rustls::ServerConfig;

use self::pages::Hosts;
use self::settings::{LogKind, Settings};
use self::telemetry::Telemetry;

/// Gives memory that a crowd has left behind back to the system: the events and clients of a hub come and go in small pieces,
/// and what is left of them would keep glibc's allocator from giving back nearly all of it.
#[cfg(all(unix, not(target_env = "musl")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the broker admits is what limits clients; each thread may have them all.
const CONNECTIONS: usize = 1 << 20;

#[actix_web::main]
async fn main() -> ExitCode {
    let settings = Settings::of_process();
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::start(&settings)?;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors could not be raised"),
    }
    // First what can be wrong without leaving a file behind.
    let config = http::HttpConfig::default()
        .max_selectors(settings.max_selectors)
        .max_payload(settings.max_payload)
        .max_body(settings.max_body)
        .trusted_proxies(settings.trusted_proxies);
    let config = access::grant(config, &settings)?;
    let tls = tls::config(&settings)?;

    let retention = settings.retention.iter().cloned().fold(Retention::default(), Retention::rule);
    let builder = Broker::builder()
        .heartbeat(settings.heartbeat)
        .drain(settings.drain)
        .retention(retention)
        .max_connections(settings.max_connections)
        .max_connections_per_session(settings.max_connections_per_session)
        .max_connections_per_address(settings.max_connections_per_address)
        .max_connection_age(settings.max_connection_age)
        .connect_rate(settings.connect_rate)
        .publish_rate(settings.publish_rate);
    let file = match &settings.log {
        LogKind::Memory => None,
        LogKind::File(path) => Some(SqliteLog::open(path)?.durability(settings.durability)),
    };
    let broker = match (&settings.nats, file) {
        (None, None) => builder.log(MemoryLog::default()),
        (None, Some(file)) => builder.log(file),
        (Some(servers), file) => {
            let index = file.map_or_else(|| NatsIndex::from(MemoryLog::default()), NatsIndex::from);
            let log = NatsLog::new(servers)?.stream(&settings.nats_stream)?.index(index);
            builder.log(match settings.nats_replicas {
                None => log,
                Some(replicas) => log.replicas(replicas.into()),
            })
        }
    }
    .start()?;

    let hosts = if settings.is_guarded() { Hosts::Any } else { Hosts::Loopback };
    let private = settings.admin_listen.map(|address| admin(address, tls.as_ref(), &broker, &config, hosts));
    let private = private.transpose()?;
    let has_private = private.is_some();
    let served = broker.clone();
    let app = move || {
        let app = App::new().app_data(web::Data::new(served.clone())).configure(pages::page(hosts));
        if has_private {
            app.service(http::scope("", &served, config.clone().without_admin()))
        } else {
            app.configure(pages::watched(hosts)).service(http::scope("", &served, config.clone()))
        }
    };
    let failed = |error| format!("cannot listen on {}: {error}", settings.listen);
    let timeout = settings.drain.as_secs().max(1);
    let is_encrypted = tls.is_some();
    let (server, address) = match tls {
        None => {
            let server = http::serve(app).max_connections(CONNECTIONS).shutdown_timeout(timeout);
            let server = server.disable_signals().bind(settings.listen).map_err(failed)?;
            let address = server.addrs().first().copied();
            (server.run(), address)
        }
        Some(tls) => {
            let server = HttpServer::new(app)
                .h1_allow_half_closed(false)
                .tcp_nodelay(true)
                .on_connect(http::tune_socket)
                .max_connections(CONNECTIONS)
                .max_connection_rate(tls::GREETINGS)
                .backlog(4096)
                .shutdown_timeout(timeout)
                .disable_signals()
                .bind_rustls_0_23(settings.listen, tls)
                .map_err(failed)?;
            let address = server.addrs().first().copied();
            (server.run(), address)
        }
    };
    // Before anybody can know that the hub is there.
    let signals = stop::Signals::listen()?;
    if let Some(address) = address {
        let scheme = if is_encrypted { "https" } else { "http" };
        pages::greet(scheme, address, private.as_ref().map(|(_, address)| *address), settings.has_keys());
    }
    if let Some((private, _)) = private {
        actix_web::rt::spawn(private);
    }
    let stop = stop::Stop { drain: settings.drain, has_http2: is_encrypted };
    actix_web::rt::spawn(stop::when_told(signals, broker, server.handle(), stop, telemetry));
    server.await?;
    Ok(())
}

/// The server of those who watch over the hub, and where it is. It answers until the process ends.
fn admin(
    address: SocketAddr,
    tls: Option<&ServerConfig>,
    broker: &Addr<Broker>,
    config: &http::HttpConfig,
    hosts: Hosts,
) -> Result<(Server, SocketAddr), Box<dyn Error>> {
    let (served, config) = (broker.clone(), config.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(served.clone()))
            .configure(pages::watched(hosts))
            .service(http::admin_scope("", &served, config.clone()))
    })
    .workers(1)
    .disable_signals();
    let server = match tls {
        None => server.bind(address),
        Some(tls) => server.bind_rustls_0_23(address, tls.clone()),
    }
    .map_err(|error| format!("cannot listen on {address} (--admin-listen): {error}"))?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    Ok((server.run(), bound))
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
