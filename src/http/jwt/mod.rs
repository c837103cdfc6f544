//! Access by JSON Web Tokens: who a request is, and what it may do, is written in a token that an issuer signed.

mod claims;
mod jwks;
mod jws;
mod key;
mod pem;

use std::time::SystemTime;

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;

use self::claims::Claims;
use self::jws::Jws;
pub use self::key::JwtKey;
use super::grant::{AuthError, Grant};
use super::query::Query;
use crate::error::InvalidValue;

/// Where a browser keeps its token, for those who want it in a cookie.
const COOKIE: &str = "fanfare_token";
/// The name in the query, if tokens are taken from there.
const PARAMETER: &str = "access_token";
/// Nothing longer is looked at.
const MAX_BYTES: usize = 8 * 1024;

/// Grants by JSON Web Tokens, for [`HttpConfig::jwt`](super::HttpConfig::jwt).
///
/// # Where a token is taken from
///
/// 1. `Authorization: Bearer …`
/// 2. the query's `access_token`, only after [`token_in_query`](Self::token_in_query)
/// 3. the cookie `fanfare_token`; the grant is then [by cookie](Grant::by_cookie)
///
/// The first that is there counts, also if it is not valid. Without any the answer is 401.
///
/// # What a token is checked for
///
/// - It has at most 8 KiB, and names no critical extension.
/// - It is signed by one of the keys: those that have its `kid`, and all of them if none has it or it names none. The
///   algorithm belongs to the key ([`JwtKey`]). What a token says of itself only rules keys out: there is no `none`,
///   and a public key is never taken for a secret.
/// - `exp` is in the future and `nbf` is not. There is no leeway for `exp`, the moment at which a stream ends; `nbf`
///   has five seconds, since the issuer's clock is another one.
///
/// # What it grants
///
/// | claim | |
/// | --- | --- |
/// | `exp` | required: seconds since 1970; streams end then, with `$closing` `expired_token` |
/// | `nbf` | seconds since 1970 |
/// | `iat` | seconds since 1970: when it was [issued](Grant::issued_at) |
/// | `sub` | the [publisher](Grant::publisher) whose event ids these are (without: the hub); at most 255 bytes, no control character |
/// | `sid` | the session, a ULID; without it the session is derived from `sub`, always the same; a token without both is refused |
/// | `fanfare` | `{"subscribe":[selectors],"publish":[selectors],"admin":bool}`, each optional, nothing else; without it only what is sent to the session and to everyone can be followed |
///
/// In `publish`, `"$everyone"` allows to publish to everyone and `"$session/**"` to any session; no other selector
/// covers them. Other claims are ignored, `iss` and `aud` too: the keys alone decide whose tokens are taken, so use
/// keys that sign nothing else. Whatever is wrong is answered 401, and `detail` says what.
///
/// A token's contents are taken as they are until it expires, unless its session is revoked
/// ([`CloseSession`](crate::CloseSession), `DELETE sessions/{id}`): then it is refused unless its `iat` is later than that
/// second. That is kept in memory; keep `exp` short.
///
/// ```
/// use fanfare::http::{HttpConfig, Jwt, JwtKey};
///
/// let secret = b"at least 32 bytes, and no others!";
/// let config = HttpConfig::default().jwt(Jwt::new([JwtKey::hs256(secret)?]));
/// # let _ = config;
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Jwt {
    keys: Vec<JwtKey>,
    is_in_query: bool,
}

impl Jwt {
    /// Takes tokens that one of these keys signed; without keys none.
    pub fn new(keys: impl IntoIterator<Item = JwtKey>) -> Self {
        Self { keys: keys.into_iter().collect(), is_in_query: false }
    }

    /// Takes tokens from the query too, as `access_token`: an `EventSource` cannot set headers. What stands in an
    /// address is written to the logs of proxies and to histories: only for tokens that expire soon.
    pub fn token_in_query(mut self) -> Self {
        self.is_in_query = true;
        self
    }

    /// The grant of a request, for use in an [`authorize`](super::HttpConfig::authorize) hook that knows more than
    /// tokens.
    ///
    /// ```
    /// use fanfare::SessionId;
    /// use fanfare::http::{AuthError, Grant, HttpConfig, Jwt, JwtKey};
    ///
    /// let jwt = Jwt::new([JwtKey::hs256(b"at least 32 bytes, and no others!")?]);
    /// let config = HttpConfig::default().authorize(move |request| {
    ///     let granted = jwt.authorize(&request);
    ///     async move {
    ///         match granted {
    ///             // Who has no token may listen to what is said to everyone.
    ///             Err(AuthError::Unauthenticated(_)) => Ok(Grant::new(SessionId::mint())),
    ///             granted => granted,
    ///         }
    ///     }
    /// });
    /// # let _ = config;
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] without a token or with one that is refused; [`AuthError::Malformed`] for a query
    /// that cannot be read, if tokens are taken from there.
    pub fn authorize(&self, request: &HttpRequest) -> Result<Grant, AuthError> {
        if let Some(token) = bearer(request) {
            return self.grant(token);
        }
        if self.is_in_query
            && let Some(token) = of_query(request)?
        {
            return self.grant(&token);
        }
        match request.cookie(COOKIE) {
            Some(cookie) => Ok(self.grant(cookie.value())?.by_cookie()),
            None => Err(refused("send a token, as Authorization: Bearer")),
        }
    }

    /// What a token grants at this moment.
    ///
    /// ```
    /// use fanfare::http::{AuthError, Jwt, JwtKey};
    ///
    /// let jwt = Jwt::new([JwtKey::hs256(b"at least 32 bytes, and no others!")?]);
    /// assert!(matches!(jwt.grant("no token"), Err(AuthError::Unauthenticated(_))));
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`AuthError::Unauthenticated`] with what is wrong.
    pub fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        self.grant_at(token, SystemTime::now())
    }

    fn grant_at(&self, token: &str, now: SystemTime) -> Result<Grant, AuthError> {
        if token.len() > MAX_BYTES {
            return Err(refused(format!("the token must have at most {MAX_BYTES} bytes")));
        }
        let token = Jws::parse(token).map_err(refused)?;
        if !self.is_signed(&token) {
            return Err(refused("the token is signed by none of the keys"));
        }
        Claims::read(&token.payload).and_then(|claims| claims.grant(now)).map_err(refused)
    }

    fn is_signed(&self, token: &Jws<'_>) -> bool {
        let named = |key: &&JwtKey| key.id().is_some() && key.id() == token.key_id.as_deref();
        let is_named = self.keys.iter().any(|key| named(&key));
        self.keys.iter().filter(|key| !is_named || named(key)).any(|key| key.has_signed(token))
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?;
    // What is not text is no token that could be valid.
    let (scheme, token) = value.to_str().unwrap_or("Bearer ?").split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn of_query(request: &HttpRequest) -> Result<Option<String>, AuthError> {
    let malformed = |rule| AuthError::Malformed(InvalidValue::new(PARAMETER, rule));
    let query = Query::parse(request.query_string()).map_err(|_| malformed("must be in a query of UTF-8"))?;
    let token = query.one(PARAMETER).map_err(|_| malformed("must not be given twice"))?;
    Ok(token.map(str::to_owned))
}

fn refused(detail: impl Into<String>) -> AuthError {
    AuthError::Unauthenticated(detail.into())
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::http::HttpConfig;

    const SECRET: &[u8] = b"for the tests: a secret of more than 32 bytes";

    fn token(claims: &str) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use ring::hmac;
        let content =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), content.as_bytes());
        format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwt() -> Jwt {
        Jwt::new([JwtKey::hs256(SECRET).expect("valid")])
    }

    #[test]
    fn a_token_is_good_until_exp_and_not_at_it() {
        let (jwt, token) = (jwt(), token(r#"{"sub":"u","nbf":1000,"exp":2000.5}"#));
        let at = |seconds: f64| {
            jwt.grant_at(&token, SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)).is_ok()
        };
        assert_eq!([994.9, 995.0, 1500.0, 2000.4].map(at), [false, true, true, true]);
        assert_eq!([2000.5, 2000.6, 1e9].map(at), [false; 3]);
    }

    #[actix_web::test]
    async fn a_token_on_an_open_connection_is_for_the_hook() {
        let good = token(r#"{"sub":"u","exp":32503680000}"#);
        let config = HttpConfig::default();
        assert!(matches!(config.token_grant(good.clone()).await, Err(AuthError::Forbidden(_))));
        let config = config.jwt(jwt());
        assert!(config.token_grant(good.clone()).await.is_ok());
        assert!(matches!(config.token_grant("bad".into()).await, Err(AuthError::Unauthenticated(_))));
        let config = config.authorize_token(|_| ready(Err(AuthError::Ended)));
        assert!(matches!(config.token_grant(good).await, Err(AuthError::Ended)));
    }

    #[test]
    fn no_debug_shows_a_key() {
        let shown = format!("{:?} {:?}", jwt(), HttpConfig::default().jwt(jwt()));
        assert!(shown.contains("HS256") && !shown.contains("for the tests"), "{shown}");
        let bytes = format!("{:?}", SECRET.first_chunk::<4>().expect("long"));
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }

    proptest! {
        #[test]
        fn no_token_panics(text in ".{0,60}", parts in "[A-Za-z0-9_-]{0,20}[.][A-Za-z0-9_-]{0,20}[.][A-Za-z0-9_-]{0,20}") {
            prop_assert!(jwt().grant(&text).is_err());
            prop_assert!(jwt().grant(&parts).is_err());
        }

        #[test]
        fn no_claims_panic(exp in any::<f64>(), sub in ".{0,20}", selector in "[$a*/]{0,12}") {
            let exp = serde_json::json!(exp);
            let (sub, selector) = (serde_json::json!(sub), serde_json::json!([selector]));
            let claims = format!(r#"{{"exp":{exp},"nbf":{exp},"iat":{exp},"sub":{sub},"fanfare":{{"publish":{selector}}}}}"#);
            let _ = jwt().grant(&token(&claims));
        }
    }
}
