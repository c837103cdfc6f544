//! Who a request is from: a cookie with a secret that only this browser has, made when somebody logs in.

use actix::Addr;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use fanfare::http::{AuthError, Grant};
use fanfare::{Selector, SessionId};
use futures_util::future::{LocalBoxFuture, ready};
use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::Alerts;
use crate::directory::{Directory, Who};
use crate::people::Member;
use crate::refusal::Refusal;

const COOKIE: &str = "alerts_session";
const SECRET_LENGTH: usize = 32;

/// A new cookie that makes the browser known again, and what it is known by.
pub(crate) fn mint(request: &HttpRequest) -> (SessionId, Cookie<'static>) {
    let secret: String = rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
    let session = SessionId::derived_from(secret.as_bytes());
    (session, cookie(request, secret))
}

/// The cookie that takes it back.
pub(crate) fn forget(request: &HttpRequest) -> Cookie<'static> {
    let mut cookie = cookie(request, String::new());
    cookie.make_removal();
    cookie
}

fn cookie(request: &HttpRequest, secret: String) -> Cookie<'static> {
    Cookie::build(COOKIE, secret)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(request.connection_info().scheme() == "https")
        .finish()
}

/// What the cookie of a request is known by, whether or not anybody is logged in with it: derived from the secret, which
/// is not kept.
pub(crate) fn named(request: &HttpRequest) -> Result<Option<SessionId>, Malformed> {
    let Some(cookie) = request.cookie(COOKIE) else { return Ok(None) };
    let secret = cookie.value();
    // Only what was minted: whoever could choose a short one would have it guessed.
    let is_whole = secret.len() == SECRET_LENGTH && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_whole { Ok(Some(SessionId::derived_from(secret.as_bytes()))) } else { Err(Malformed) }
}

/// The cookie was never made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session's cookie is not as it was set")]
pub(crate) struct Malformed;

/// Somebody who is logged in; as an argument of a handler it refuses whoever is not.
pub(crate) struct Session(pub(crate) Member);

impl FromRequest for Session {
    type Error = Refusal;
    type Future = LocalBoxFuture<'static, Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let named = named(request).map_err(|malformed| Refusal::Body(malformed.to_string()));
        let named = named.and_then(|cookie| cookie.ok_or(Refusal::Unknown));
        let Some(alerts) = request.app_data::<web::Data<Alerts>>().cloned() else {
            return Box::pin(ready(Err(Refusal::Unavailable)));
        };
        Box::pin(async move { Ok(Self(alerts.directory.send(Who(named?)).await??)) })
    }
}

/// What fanfare's scope lets somebody do: follow the alert streams that they may see, and for operators look at how it all
/// stands. It grants no publishing, so that all that is said has come through this server's handlers.
pub(crate) async fn grant(request: HttpRequest, directory: Addr<Directory>) -> Result<Grant, AuthError> {
    let cookie = match named(&request) {
        Ok(Some(cookie)) => cookie,
        Ok(None) if request.headers().contains_key(AUTHORIZATION) => {
            return Err(AuthError::Forbidden("alerts are for people who log in, with a cookie".into()));
        }
        Ok(None) => return Err(AuthError::Unauthenticated("log in first".into())),
        Err(malformed) => return Err(AuthError::Unauthenticated(malformed.to_string())),
    };
    let member = match directory.send(Who(cookie)).await {
        Ok(Ok(member)) => member,
        Ok(Err(Refusal::Over)) => return Err(AuthError::Ended),
        Ok(Err(refusal)) => return Err(AuthError::Unauthenticated(refusal.to_string())),
        Err(_) => return Err(AuthError::Unavailable("the directory is gone".into())),
    };
    let selectors = member.streams.selectors().into_iter().map(Selector::new).collect::<Result<Vec<_>, _>>();
    let grant = Grant::new(member.session)
        .subscribe(selectors.map_err(AuthError::Malformed)?)
        .expires(member.expires)
        .by_cookie();
    Ok(if member.is_operator { grant.admin() } else { grant })
}
