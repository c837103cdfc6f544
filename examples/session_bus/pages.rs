//! The page.

use actix_web::web;

use crate::asset::{CSS, HTML, SCRIPT, STREAM_JS, SVG, file};

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(|| file(HTML, include_str!("page/index.html"))))
        .route("/assets/bus.css", web::get().to(|| file(CSS, include_str!("page/bus.css"))))
        .route("/assets/icon.svg", web::get().to(|| file(SVG, include_str!("page/icon.svg"))))
        .route("/assets/main.js", web::get().to(|| file(SCRIPT, include_str!("page/main.js"))))
        .route("/assets/view.js", web::get().to(|| file(SCRIPT, include_str!("page/view.js"))))
        .route("/assets/stream.js", web::get().to(|| file(SCRIPT, STREAM_JS)));
}
