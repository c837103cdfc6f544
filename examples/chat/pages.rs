//! The page of a room.

use actix_web::web;

use crate::asset::{CSS, HTML, SCRIPT, STREAM_JS, SVG, file};
use crate::values::RoomName;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let page = |_: web::Path<RoomName>| file(HTML, include_str!("page/index.html"));
    config
        .service(web::redirect("/", "/rooms/general"))
        .route("/rooms/{room}", web::get().to(page))
        .route("/assets/chat.css", web::get().to(|| file(CSS, include_str!("page/chat.css"))))
        .route("/assets/icon.svg", web::get().to(|| file(SVG, include_str!("page/icon.svg"))))
        .route("/assets/main.js", web::get().to(|| file(SCRIPT, include_str!("page/main.js"))))
        .route("/assets/stream.js", web::get().to(|| file(SCRIPT, STREAM_JS)))
        .route("/assets/outbox.js", web::get().to(|| file(SCRIPT, include_str!("page/outbox.js"))))
        .route("/assets/view.js", web::get().to(|| file(SCRIPT, include_str!("page/view.js"))));
}
