//! Who a request is from: a cookie with a secret that only this browser has.

use std::future::{Ready, ready};

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use fanfare::http::{AuthError, Grant};
use fanfare::{Selector, SessionId};
use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::api::Refusal;

const COOKIE: &str = "chat_session";
const SECRET_LENGTH: usize = 32;

/// The session of a request; as an argument of a handler it refuses whoever has none.
///
/// Its id is shown to everybody and derived from the secret, which nobody is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session(pub(crate) SessionId);

impl Session {
    /// A new one, and the cookie that makes the browser known again.
    pub(crate) fn mint(request: &HttpRequest) -> (Self, Cookie<'static>) {
        let secret: String =
            rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        let session = Self(SessionId::derived_from(secret.as_bytes()));
        let cookie = Cookie::build(COOKIE, secret)
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(request.connection_info().scheme() == "https")
            .max_age(Duration::days(30))
            .finish();
        (session, cookie)
    }

    fn of(request: &HttpRequest) -> Option<Self> {
        let cookie = request.cookie(COOKIE)?;
        let secret = cookie.value();
        // Only what was minted: whoever could choose a short one would have it guessed.
        let is_whole = secret.len() == SECRET_LENGTH && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        is_whole.then(|| Self(SessionId::derived_from(secret.as_bytes())))
    }
}

impl FromRequest for Session {
    type Error = Refusal;
    type Future = Ready<Result<Self, Refusal>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request).ok_or(Refusal::Unknown))
    }
}

/// What fanfare's scope lets a session do: follow rooms. It grants no publishing, so that all that is said in a room
/// has come through this server's handlers.
pub(crate) fn grant(request: &HttpRequest) -> Result<Grant, AuthError> {
    let Some(Session(id)) = Session::of(request) else {
        return Err(AuthError::Unauthenticated("say who you are first".into()));
    };
    let rooms = Selector::new("rooms/*").map_err(AuthError::Malformed)?;
    Ok(Grant::new(id).subscribe([rooms]).by_cookie())
}
