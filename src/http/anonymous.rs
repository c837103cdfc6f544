//! The ready-made policy for development and for hubs behind a locked door: everybody may do everything, and a browser
//! is known again by a cookie.

use std::rc::Rc;

use actix_web::HttpRequest;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::header::HOST;
use rand::RngExt;
use rand::distr::Alphanumeric;

use super::grant::{AuthError, Grant};
use super::serve::Lease;
use crate::channel::Selector;
use crate::error::InvalidValue;
use crate::identity::SessionId;

const COOKIE: &str = "fanfare_session";
const SECRET_LENGTH: usize = 32;

/// Whom the anonymous policy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reachable {
    /// Only a server that listens on a loopback address, by a loopback name: no page of another site can reach it by
    /// having its own name resolve here.
    Loopback,
    /// Whoever comes.
    Everywhere,
}

pub(super) fn authorize(request: &HttpRequest, reachable: Reachable) -> Result<Grant, AuthError> {
    if reachable == Reachable::Loopback {
        check_loopback(request)?;
    }
    let Some(cookie) = request.cookie(COOKIE) else {
        let secret: String =
            rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        let session = SessionId::derived_from(secret.as_bytes());
        let is_tls = request.connection_info().scheme() == "https";
        let cookie = Cookie::build(COOKIE, secret)
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(is_tls)
            .path("/")
            .finish();
        return Ok(everything(session).with_cookie(cookie));
    };
    let secret = cookie.value();
    if secret.len() != SECRET_LENGTH || !secret.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let rule = format!("must be {SECRET_LENGTH} letters and digits, as it was set");
        return Err(AuthError::Malformed(InvalidValue::new(COOKIE, rule)));
    }
    Ok(everything(SessionId::derived_from(secret.as_bytes())).by_cookie())
}

fn everything(session: SessionId) -> Grant {
    let all = Selector::new("**").ok();
    Grant::new(session)
        .subscribe(all.clone())
        .publish(all)
        .publish_to_everyone()
        .publish_to_sessions()
        .admin()
}

pub(super) fn check_loopback(request: &HttpRequest) -> Result<(), AuthError> {
    // A server of fanfare's own says itself where it listens.
    let lease = request.conn_data::<Rc<Lease>>();
    let listener = lease.map_or_else(|| request.app_config().local_addr(), |lease| lease.listener());
    if !listener.ip().is_loopback() {
        let detail = "anonymous clients are served on a loopback address only; say who may do what";
        return Err(AuthError::Unauthenticated(detail.into()));
    }
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().unwrap_or_default(),
        None => request.uri().host().unwrap_or("localhost"),
    };
    if is_loopback_name(host) {
        return Ok(());
    }
    Err(AuthError::Misdirected("anonymous clients are served by a loopback name only".into()))
}

/// Whether a `Host`, with or without a port, is a name of this machine that no other can have.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_localhost =
        name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    is_localhost || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_loopback() {
        for good in [
            "localhost",
            "localhost:8080",
            "LOCALHOST",
            "app.localhost:1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::2]",
            "notlocalhost",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }
}
