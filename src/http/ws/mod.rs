//! `GET ws`: a request becomes a session whose client may also speak.

mod body;
mod message;
mod reader;
mod request;

use actix_http::ws::HandshakeError;
use actix_web::http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};

use self::body::{Ended, SocketBody};
use self::reader::Reader;
use super::body::SinkBody;
use super::problem::Problem;
use super::{Mount, origin, request_id, socket};
use crate::actors::broker::{Begin, Start};
use crate::actors::session::{Session, SessionSettings};
use crate::identity::ClientId;
use crate::interest::{Interest, Subscription};
use crate::wire::{Encoding, Framing};

/// What is spoken.
const PROTOCOL: &str = "fanfare.v1.json";

pub(super) async fn ws(
    request: HttpRequest,
    payload: web::Payload,
    mount: web::Data<Mount>,
) -> Result<HttpResponse, Problem> {
    let mut response = actix_http::ws::handshake(request.head()).map_err(refused)?;
    let protocol = protocol(&request)?;
    if !origin::is_allowed(&request, &mount.config) {
        return Err(Problem::forbidden("this Origin may not ask for this").field("origin"));
    }
    let grant = mount.config.claim(&request).await?;

    let client = ClientId::mint();
    let pass = mount.let_in(&request, client, &grant).await?;
    let settings = SessionSettings {
        pass,
        interest: Interest::new(grant.session, Subscription::default()),
        encoding: Encoding::Ws,
        framing: Framing::Bare,
        start: Start::At(Begin::Now),
        expires: grant.expires,
        verdict: None,
    };
    let (session, sink) = Session::start_here(settings, mount.worker());
    response
        .insert_header(("fanfare-client", client.to_string()))
        .insert_header(("fanfare-session", grant.session.to_string()));
    if let Some(protocol) = protocol {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    if let Some(cookie) = &grant.set_cookie {
        response.append_header((SET_COOKIE, cookie.encoded().to_string()));
    }
    let ended = Ended::default();
    let words = SinkBody::new(sink.clone(), session.clone(), None, socket::line(&request));
    let span = tracing::debug_span!("socket", request_id = %request_id::of(&request), %client);
    let reader = Reader::new(mount.into_inner(), grant, session, sink, ended.clone(), span);
    actix_web::rt::spawn(reader.run(payload.into_inner()));
    let body = response.message_body(SocketBody::new(words, ended)).map_err(|error| {
        tracing::error!(%error, "a handshake could not be answered");
        Problem::bad_request("the handshake could not be answered")
    })?;
    Ok(HttpResponse::from(body.map_into_boxed_body()))
}

/// The subprotocol to answer with, if any was offered.
fn protocol(request: &HttpRequest) -> Result<Option<&'static str>, Problem> {
    let mut offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let is_spoken = |header: &HeaderValue| {
        header.to_str().is_ok_and(|list| list.split(',').any(|name| name.trim() == PROTOCOL))
    };
    if offered.any(is_spoken) {
        return Ok(Some(PROTOCOL));
    }
    let name = HeaderName::from_static("sec-websocket-protocol");
    Err(Problem::bad_value(format!("the subprotocol must be {PROTOCOL}")).field(name.to_string()))
}

fn refused(error: HandshakeError) -> Problem {
    let problem = match error {
        HandshakeError::UnsupportedVersion | HandshakeError::NoWebsocketUpgrade => Problem::upgrade_required,
        _ => Problem::bad_request,
    };
    problem(error.to_string())
}
