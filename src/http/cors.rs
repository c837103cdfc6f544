//! What browsers must be told before they let a page of another origin read an answer (the Fetch standard's CORS).
//!
//! A middleware of our own, since it is short and shares its notion of an allowed origin with the rule for changes; its
//! refusals are problems like all others.

use std::rc::Rc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, ResponseError};

use super::origin::{Origin, is_listed};
use super::problem::Problem;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// `cache-control` is sent by clients that stand in for a browser's `EventSource`.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, cache-control, content-type, last-event-id, x-request-id");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("fanfare-client, fanfare-session, retry-after, x-request-id");
/// Seconds; no browser remembers for much longer.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Answers preflights, and adds to every other answer what an allowed origin needs to read it.
pub(super) async fn answer<B: MessageBody + 'static>(
    allowed: Rc<[Origin]>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, Error> {
    let origin = request.headers().get(ORIGIN).cloned();
    let readable_by = origin.clone().filter(|origin| is_listed(origin, &allowed));
    let is_preflight = request.method() == Method::OPTIONS
        && origin.is_some()
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        request.into_response(preflight(readable_by.is_some()))
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    let headers = response.headers_mut();
    if !allowed.is_empty() {
        // Also where there is no Origin: a cache must not give that answer to a page that has one.
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = readable_by {
        allow(headers, origin);
    }
    Ok(response)
}

fn preflight(is_allowed: bool) -> HttpResponse {
    if !is_allowed {
        return Problem::forbidden("this Origin may not ask for this").field("origin").error_response();
    }
    let mut response = HttpResponse::NoContent();
    response.insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS));
    response.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, HEADERS));
    response.insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE));
    response.finish()
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}
