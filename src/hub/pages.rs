//! What the hub serves beside the scope: its page, its health and its metrics.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;

use actix::Addr;
use actix_web::body::MessageBody;
use actix_web::dev::{HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ALLOW, CACHE_CONTROL, HeaderName, HeaderValue};
use actix_web::middleware::{Condition, Next, from_fn};
use actix_web::{Error, FromRequest, Handler, HttpResponse, Responder, guard, web};
use fanfare::{Broker, Stats, Survey, http};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page is made of: where it is served, as what, and the text.
const FILES: [(&str, &str, &str); 17] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/page.css", CSS, include_str!("page/page.css")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/blocks.js", SCRIPT, include_str!("page/blocks.js")),
    ("/page/client.js", SCRIPT, include_str!("page/client.js")),
    ("/page/curl.js", SCRIPT, include_str!("page/curl.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/fields.js", SCRIPT, include_str!("page/fields.js")),
    ("/page/history.js", SCRIPT, include_str!("page/history.js")),
    ("/page/hub.js", SCRIPT, include_str!("page/hub.js")),
    ("/page/plots.js", SCRIPT, include_str!("page/plots.js")),
    ("/page/publish.js", SCRIPT, include_str!("page/publish.js")),
    ("/page/socket.js", SCRIPT, include_str!("page/socket.js")),
    ("/page/sse.js", SCRIPT, include_str!("page/sse.js")),
    ("/page/status.js", SCRIPT, include_str!("page/status.js")),
    ("/page/stream.js", SCRIPT, include_str!("page/stream.js")),
    ("/page/subscribe.js", SCRIPT, include_str!("page/subscribe.js")),
];

/// The page.
pub(crate) fn page(hosts: Hosts) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        for (path, content_type, text) in FILES {
            config.service(read(path, hosts, move || asset(content_type, text)));
        }
    }
}

/// Health, readiness and metrics, for whoever watches over the hub.
pub(crate) fn watched(hosts: Hosts) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config
            .service(read("/healthz", hosts, || async { plain("ok\n") }))
            .service(read("/readyz", hosts, ready))
            .service(read("/metrics", hosts, metrics));
    }
}

/// By which names the pages are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// By a name that no other machine can have.
    Loopback,
    /// By any.
    Any,
}

/// A resource that is only read.
fn read<F, Args>(path: &str, hosts: Hosts, handler: F) -> impl HttpServiceFactory + use<F, Args>
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let is_read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path)
        .route(web::route().guard(is_read).to(handler))
        .default_service(web::to(|| async {
            HttpResponse::MethodNotAllowed().insert_header((ALLOW, "GET, HEAD")).finish()
        }))
        .wrap(Condition::new(hosts == Hosts::Loopback, from_fn(http::require_loopback)))
        .wrap(from_fn(secure))
}

/// What a browser must not do with anything that is served here.
async fn secure<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Nothing but what the hub serves itself, in no frame, and nothing of it told to others.
const SECURITY: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

async fn asset(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(content_type).insert_header((CACHE_CONTROL, "no-cache")).body(text)
}

fn plain(text: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}

/// Whether new streams and publishes are welcome.
async fn ready(broker: web::Data<Addr<Broker>>) -> HttpResponse {
    let why: Cow<'static, str> = match broker.send(Stats).await {
        Ok(stats) if stats.draining => "draining\n".into(),
        Ok(stats) if stats.ready => return plain("ready\n"),
        Ok(stats) => match stats.filling {
            Some(filling) => {
                format!("filling the index: {} of {} messages\n", filling.done, filling.of).into()
            }
            None => "the log is not open\n".into(),
        },
        Err(_) => "there is no broker\n".into(),
    };
    HttpResponse::ServiceUnavailable().content_type("text/plain; charset=utf-8").body(why)
}

/// The numbers, for Prometheus.
async fn metrics(broker: web::Data<Addr<Broker>>) -> HttpResponse {
    match broker.send(Survey).await {
        Ok(overview) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(overview.to_prometheus()),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// Tells whoever started the hub how to try it. Nobody may be reading, which is no reason not to serve.
pub(crate) fn greet(scheme: &str, address: SocketAddr, private: Option<SocketAddr>, needs_token: bool) {
    let token = if needs_token { "-H \"authorization: Bearer $TOKEN\" " } else { "" };
    let text = format!(
        "fanfare serves {scheme}://{address}/\n  \
         subscribe: curl -N {token}'{scheme}://{address}/events?channel=demo/*'\n  \
         publish:   curl {token}-H 'content-type: application/json' \
         -d '{{\"channel\":\"demo/1\",\"data\":{{\"hello\":\"world\"}}}}' {scheme}://{address}/publish\n"
    );
    let text = match private {
        Some(private) => format!("{text}  health, metrics and status: {scheme}://{private}/metrics\n"),
        None => text,
    };
    let mut stdout = std::io::stdout();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads the greeting");
    }
}
