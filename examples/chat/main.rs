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
#[path = "../support/asset.rs"]
mod asset;
mod lobby;
mod pages;
mod people;
#[path = "../support/serve.rs"]
mod serve;
mod session;
mod values;

use std::error::Error;
use std::future::ready;
use std::net::SocketAddr;
use std::path::PathBuf;

use actix::{Actor, Addr};
use actix_web::web;
use clap::Parser;
use fanfare::http::{HttpConfig, scope};
use fanfare::{Broker, Retention, Rule};

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

    let retention = settings.retention.into_iter().fold(Retention::default(), Retention::rule);
    let broker = serve::start(Broker::builder().retention(retention), &settings.log)?;
    let lobby = Lobby::new(broker.clone()).start();
    let chat = Chat { broker: broker.clone(), lobby };
    let config = HttpConfig::default().authorize(|request| ready(session::grant(&request)));
    let routes = move |app: &mut web::ServiceConfig| {
        app.app_data(web::Data::new(chat.clone()))
            .configure(pages::routes)
            .configure(api::routes)
            .service(scope("/rt", &chat.broker, config.clone()));
    };
    serve::serve("the chat", settings.listen, broker, routes).await
}
