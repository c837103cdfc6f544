//! A chat: rooms, who is there, who types, and messages that survive a lost connection and a restart of the server.
//!
//! ```console
//! cargo run --example chat
//! ```
//!
//! The page follows its room through fanfare's scope. What people say goes through this server's own handlers, so that
//! the sender is who the session says and never who the request says. Who is called what, and who is in which room,
//! belongs to one actor, the [`Lobby`].

mod api;
mod lobby;
mod pages;
mod people;
mod session;
mod values;

use std::error::Error;
use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;

use actix::{Actor, Addr};
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpServer, web};
use clap::Parser;
use fanfare::http::{HttpConfig, scope, tune_socket};
use fanfare::{Broker, Drain, MemoryLog, Retention, Rule, SqliteLog};

use self::lobby::Lobby;

/// A chat on top of fanfare.
#[derive(Debug, Parser)]
struct Settings {
    /// The address to listen on.
    #[arg(long, env = "CHAT_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,

    /// Where what is said is kept: a file, or `memory` for as long as the server runs.
    #[arg(long, env = "CHAT_LOG", value_name = "PATH|memory", default_value = "chat.db")]
    log: PathBuf,

    /// How much of it is kept, as `rooms/*=limits:max_age=720h,max_events=10000`. Repeat; the first that matches counts.
    /// Without a match: 24h.
    #[arg(long, env = "CHAT_RETENTION", value_name = "RULE")]
    retention: Vec<Rule>,
}

/// What the handlers share: two addresses, and nothing to lock.
#[derive(Clone)]
struct Chat {
    broker: Addr<Broker>,
    lobby: Addr<Lobby>,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    // Every open tab is a socket; the usual soft limit of 1024 is soon reached.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }

    // Both are started once, before the factory below, which runs once for each HTTP thread.
    let retention = settings.retention.into_iter().fold(Retention::default(), Retention::rule);
    let broker = Broker::builder().retention(retention);
    let broker = match settings.log.to_str() {
        Some("memory") => broker.log(MemoryLog::default()),
        // Its source names the file and the remedy.
        _ => broker.log(
            SqliteLog::open(&settings.log)
                .map_err(|error| error.source().map(ToString::to_string).unwrap_or_default())?,
        ),
    };
    let broker = broker.start()?;
    let lobby = Lobby::new(broker.clone()).start();
    let chat = Chat { broker: broker.clone(), lobby };
    let config = HttpConfig::default().authorize(|request| ready(session::grant(&request)));

    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(chat.clone()))
            .configure(pages::routes)
            .configure(api::routes)
            .service(scope("/rt", &chat.broker, config.clone()))
    })
    // A tab that was closed is gone at once, not at the second heartbeat after.
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .on_connect(tune_socket)
    .shutdown_timeout(10)
    .disable_signals()
    .bind(settings.listen)
    .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    for address in server.addrs() {
        tracing::info!("the chat is at http://{address}/");
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
