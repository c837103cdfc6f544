//! What the hub serves beside the scope: its page and its health.

use std::io::Write;
use std::net::SocketAddr;

use actix::Addr;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use actix_web::{HttpResponse, web};
use fanfare::{Broker, Stats};

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(|| asset("text/html; charset=utf-8", PAGE)))
        .route("/page.js", web::get().to(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/page.css", web::get().to(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/healthz", web::get().to(|| async { "ok\n" }))
        .route("/readyz", web::get().to(ready));
}

async fn asset(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"))
        .insert_header(("x-content-type-options", "nosniff"))
        .body(text)
}

/// Whether new streams and publishes are welcome.
async fn ready(broker: web::Data<Addr<Broker>>) -> HttpResponse {
    match broker.send(Stats).await {
        Ok(stats) if stats.draining => HttpResponse::ServiceUnavailable().body("draining\n"),
        Ok(stats) if stats.ready => HttpResponse::Ok().body("ready\n"),
        Ok(_) => HttpResponse::ServiceUnavailable().body("the log is not open\n"),
        Err(_) => HttpResponse::ServiceUnavailable().body("there is no broker\n"),
    }
}

/// Tells whoever started the hub how to try it. Nobody may be reading, which is no reason not to serve.
pub(crate) fn greet(address: SocketAddr, needs_token: bool) {
    let token = if needs_token { "-H \"authorization: Bearer $TOKEN\" " } else { "" };
    let text = format!(
        "fanfare serves http://{address}/\n  \
         subscribe: curl -N {token}'http://{address}/events?channel=demo/*'\n  \
         publish:   curl {token}-H 'content-type: application/json' \
         -d '{{\"channel\":\"demo/1\",\"data\":{{\"hello\":\"world\"}}}}' http://{address}/publish\n"
    );
    let mut stdout = std::io::stdout();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads the greeting");
    }
}
