//! Whether what a browser asks for comes from a page that may ask.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderValue, ORIGIN};

use super::HttpConfig;
use super::grant::Grant;
use super::problem::Problem;
use crate::error::InvalidValue;

/// Where a page comes from, as browsers write it: `https://app.example`, `http://localhost:5173`.
///
/// Exactly this one is meant: neither its subdomains nor another port. A default port is left out and everything is in
/// lower case, as browsers do; a name with other letters than ASCII's is in its `xn--` form.
///
/// `*` is no origin: answers may be for whoever the browser's cookies belong to, so that every site could read and act
/// for its visitors. Neither is `null`, which any page can be.
///
/// ```
/// use fanfare::http::Origin;
///
/// assert!(Origin::new("https://app.example").is_ok());
/// for bad in ["*", "null", "app.example", "https://app.example/", "https://app.example:443", "https://App.example"] {
///     assert!(Origin::new(bad).is_err());
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Arc<str>);

impl Origin {
    /// Builds an origin from its text.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] with the rule that the text breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let text = text.as_ref();
        match check_form(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(rule) => Err(InvalidValue::new("allow_origin", rule)),
        }
    }

    /// The origin as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::new(text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_form(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "must be scheme://host or scheme://host:port, as browsers write it";
    if text == "*" {
        return Err("must name origins one by one: with * every site could act for its visitors");
    }
    let (scheme, authority) = text.split_once("://").ok_or(FORM)?;
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("must be in lower case, as browsers write it");
    }
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let (is_host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(FORM)?;
            let port = rest.strip_prefix(':');
            (host.parse::<Ipv6Addr>().is_ok() && (rest.is_empty() || port.is_some()), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            (!host.is_empty() && host.bytes().all(is_letter), port)
        }
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0') && port.parse::<u16>().is_ok()
    };
    if !is_scheme || !is_host || !port.is_none_or(is_port) {
        return Err(FORM);
    }
    if matches!((scheme, port), ("http", Some("80")) | ("https", Some("443"))) {
        return Err("must leave out the default port, as browsers do");
    }
    Ok(())
}

/// Refuses a change that another site's page asks for, and one that only a cookie speaks for and that no page of our
/// own is known to ask for.
pub(super) fn check(request: &HttpRequest, config: &HttpConfig, grant: &Grant) -> Result<(), Problem> {
    if !is_allowed(request, config) {
        return Err(Problem::forbidden("this Origin may not ask for this").field("origin"));
    }
    let headers = request.headers();
    let is_same_origin = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    if grant.is_by_cookie && !headers.contains_key(ORIGIN) && !is_same_origin {
        let detail = "a request authenticated by a cookie needs an Origin";
        return Err(Problem::forbidden(detail).field("origin"));
    }
    Ok(())
}

/// Whether a request comes from our own origin, from an allowed one, or from no page at all.
pub(super) fn is_allowed(request: &HttpRequest, config: &HttpConfig) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    is_listed(origin, &config.origins) || is_own(request, origin)
}

/// Whether an `Origin` is one of these, byte for byte.
pub(super) fn is_listed(origin: &HeaderValue, listed: &[Origin]) -> bool {
    listed.iter().any(|allowed| origin.as_bytes() == allowed.0.as_bytes())
}

fn is_own(request: &HttpRequest, origin: &HeaderValue) -> bool {
    let connection = request.connection_info();
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    // Behind a proxy that ends TLS and does not say so, our own pages are `https` and the connection is not.
    let is_secure_enough = scheme == connection.scheme() || scheme == "https";
    is_secure_enough && authority == connection.host()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_as_browsers_write_it() {
        for good in [
            "https://app.example",
            "http://localhost:5173",
            "http://127.0.0.1:8080",
            "https://[::1]:8443",
            "https://[2001:db8::1]",
            "https://xn--bcher-kva.example",
            "tauri://localhost",
            "chrome-extension://abcdefgh",
            "http://a_b.example:443",
        ] {
            assert_eq!(Origin::new(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "https://",
            "://app.example",
            "https://*.app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?x",
            "https://app.example#x",
            "https://user@app.example",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:080",
            "https://app.example:+80",
            "https://app.example:65536",
            "https://app.example:443",
            "http://app.example:80",
            "HTTPS://app.example",
            "https://App.example",
            "https://bücher.example",
            "https://app.example https://b.example",
            "https://app.example\r\nx: y",
            "https://[::1",
            "https://[::1]8080",
            "https://[localhost]",
            "1http://app.example",
        ] {
            assert!(Origin::new(bad).is_err(), "{bad}");
        }
    }
}
