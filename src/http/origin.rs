//! Whether a change that a browser asks for comes from a page that may ask.

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderValue, ORIGIN};

use super::grant::Grant;
use super::problem::Problem;

/// Refuses a change that another site's page asks for, and one that only a cookie speaks for and that no page of our
/// own is known to ask for.
pub(super) fn check(request: &HttpRequest, grant: &Grant) -> Result<(), Problem> {
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN) else {
        let is_same_origin = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        if grant.is_by_cookie && !is_same_origin {
            let detail = "a request authenticated by a cookie needs an Origin";
            return Err(Problem::forbidden(detail).field("origin"));
        }
        return Ok(());
    };
    if is_own(request, origin) {
        return Ok(());
    }
    Err(Problem::forbidden("this Origin may not ask for this").field("origin"))
}

/// Refuses a socket that another site's page asks for. What is no browser says no origin, and no cookie speaks for it by
/// itself.
pub(super) fn check_socket(request: &HttpRequest) -> Result<(), Problem> {
    match request.headers().get(ORIGIN) {
        Some(origin) if !is_own(request, origin) => {
            Err(Problem::forbidden("this Origin may not ask for this").field("origin"))
        }
        _ => Ok(()),
    }
}

fn is_own(request: &HttpRequest, origin: &HeaderValue) -> bool {
    let connection = request.connection_info();
    origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(scheme, authority)| {
        // Behind a proxy that ends TLS and does not say so, our own pages are `https` and the connection is not.
        let is_secure_enough = scheme == connection.scheme() || scheme == "https";
        is_secure_enough && authority == connection.host()
    })
}
