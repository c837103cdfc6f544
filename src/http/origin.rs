//! Whether a change that a browser asks for comes from a page that may ask.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, ORIGIN};

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
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    if authority.is_some() && authority == own {
        return Ok(());
    }
    Err(Problem::forbidden("this Origin may not ask for this").field("origin"))
}
