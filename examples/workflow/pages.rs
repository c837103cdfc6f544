//! The page of all workflows and of one: a few files that are part of the program and want nothing from elsewhere.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, web};

use crate::progress::WorkflowId;

/// Only this server's own files, and no way from a string to markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let page = || file(HTML, include_str!("page/index.html"));
    config
        .route("/", web::get().to(page))
        .route("/w/{id}", web::get().to(move |_: web::Path<WorkflowId>| page()))
        .route(
            "/assets/workflow.css",
            web::get().to(|| file("text/css; charset=utf-8", include_str!("page/workflow.css"))),
        )
        .route("/assets/icon.svg", web::get().to(|| file("image/svg+xml", include_str!("page/icon.svg"))))
        .route("/assets/main.js", web::get().to(|| file(SCRIPT, include_str!("page/main.js"))))
        .route("/assets/socket.js", web::get().to(|| file(SCRIPT, include_str!("page/socket.js"))))
        .route("/assets/view.js", web::get().to(|| file(SCRIPT, include_str!("page/view.js"))));
}

async fn file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(text)
}
