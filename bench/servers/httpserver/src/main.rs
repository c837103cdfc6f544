//! fanfare's scope in the standard `HttpServer`, with the settings that the README asks for, and its log in memory.
//! `bench-httpserver PORT`.

use std::net::Ipv4Addr;

use actix_web::{App, HttpServer};
use fanfare::Broker;
use fanfare::http::{self, HttpConfig};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).ok_or("PORT")?.parse()?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let broker = Broker::builder().start()?;
    HttpServer::new(move || App::new().service(http::scope("", &broker, HttpConfig::default())))
        .h1_allow_half_closed(false)
        .tcp_nodelay(true)
        .on_connect(http::tune_socket)
        .backlog(4096)
        .bind((Ipv4Addr::LOCALHOST, port))?
        .run()
        .await?;
    Ok(())
}
