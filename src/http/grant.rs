//! What a request may do, as the application's hook says.

use std::time::{Instant, SystemTime};

use actix_web::HttpResponse;
use actix_web::cookie::Cookie;

use super::problem::Problem;
use crate::actors::revoked::Standing;
use crate::channel::{Channel, Selector};
use crate::error::InvalidValue;
use crate::identity::{Publisher, SessionId};

/// What a request may do, and as whom. Nothing is allowed but what is named.
///
/// ```
/// use fanfare::http::Grant;
/// use fanfare::{Selector, SessionId};
///
/// let grant = Grant::new(SessionId::derived_from(b"user 7"))
///     .subscribe([Selector::new("orders/**")?])
///     .publish([Selector::new("orders/7")?]);
/// # let _ = grant;
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Grant {
    pub(super) session: SessionId,
    pub(super) publisher: Publisher,
    pub(super) expires: Option<SystemTime>,
    /// When it was asked for: no later than whatever it was decided by.
    asked: Instant,
    issued_at: Option<SystemTime>,
    pub(super) is_admin: bool,
    pub(super) is_by_cookie: bool,
    pub(super) set_cookie: Option<Cookie<'static>>,
    subscribe: Vec<Selector>,
    publish: Vec<Selector>,
    publish_to_everyone: bool,
    publish_to_sessions: bool,
}

impl Grant {
    /// A grant for a session, of nothing but what is sent to it and to everyone.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            publisher: Publisher::HUB,
            expires: None,
            asked: Instant::now(),
            issued_at: None,
            is_admin: false,
            is_by_cookie: false,
            set_cookie: None,
            subscribe: Vec::new(),
            publish: Vec::new(),
            publish_to_everyone: false,
            publish_to_sessions: false,
        }
    }

    /// Allows to follow whatever is within one of these.
    pub fn subscribe(mut self, selectors: impl IntoIterator<Item = Selector>) -> Self {
        self.subscribe.extend(selectors);
        self
    }

    /// Allows to publish to channels within one of these; `**` covers no reserved channel.
    pub fn publish(mut self, selectors: impl IntoIterator<Item = Selector>) -> Self {
        self.publish.extend(selectors);
        self
    }

    /// Allows to publish to everyone.
    pub fn publish_to_everyone(mut self) -> Self {
        self.publish_to_everyone = true;
        self
    }

    /// Allows to publish to sessions.
    pub fn publish_to_sessions(mut self) -> Self {
        self.publish_to_sessions = true;
        self
    }

    /// Allows the endpoints that show and change the state of the broker.
    pub fn admin(mut self) -> Self {
        self.is_admin = true;
        self
    }

    /// Says whom event ids are unique for. Default: the hub.
    pub fn publisher(mut self, publisher: Publisher) -> Self {
        self.publisher = publisher;
        self
    }

    /// Ends streams at this time, with `$closing` `expired_token`.
    pub fn expires(mut self, at: SystemTime) -> Self {
        self.expires = Some(at);
        self
    }

    /// Says when what the client shows was issued: a token's `iat`, the moment of a login. When the session is revoked
    /// ([`CloseSession`](crate::CloseSession)), what was issued in that second or before is refused for 24 hours, and what
    /// was issued later is welcome. Without it, everything of that session is refused.
    pub fn issued_at(mut self, at: SystemTime) -> Self {
        self.issued_at = Some(at);
        self
    }

    /// Says that a cookie, which browsers send from other sites' pages too, is all that speaks for the request: then a
    /// change needs an `Origin` of the application's own.
    pub fn by_cookie(mut self) -> Self {
        self.is_by_cookie = true;
        self
    }

    pub(super) fn with_cookie(mut self, cookie: Cookie<'static>) -> Self {
        self.set_cookie = Some(cookie);
        self
    }

    pub(super) fn asked_at(mut self, at: Instant) -> Self {
        self.asked = at;
        self
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { session: self.session, asked: self.asked, issued: self.issued_at }
    }

    pub(super) fn may_subscribe(&self, selector: &Selector) -> bool {
        self.subscribe.iter().any(|granted| granted.contains(selector))
    }

    pub(super) fn may_publish(&self, audience: &Audience) -> Result<(), Problem> {
        let (field, is_allowed) = match audience {
            Audience::Channels(channels) => {
                let may = |channel: &Channel| self.publish.iter().any(|granted| granted.matches(channel));
                ("channel", channels.iter().all(may))
            }
            Audience::Sessions(_) => ("sessions", self.publish_to_sessions),
            Audience::Everyone => ("everyone", self.publish_to_everyone),
        };
        if is_allowed {
            return Ok(());
        }
        Err(Problem::forbidden("the grant does not allow to publish to this audience").field(field))
    }
}

/// Whom a published event is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    Channels(Vec<Channel>),
    Sessions(Vec<SessionId>),
    Everyone,
}

/// Why a request gets no grant.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AuthError {
    /// No credentials, or bad ones: 401.
    Unauthenticated(String),
    /// Credentials that do not open this: 403.
    Forbidden(String),
    /// Credentials that are not even well formed: 400, with the field and the rule.
    Malformed(InvalidValue),
    /// The session is over for good: a stream is answered 204, which makes a browser stop asking; anything else 401.
    Ended,
    /// The request's `Host` is not one that this policy serves: 421.
    Misdirected(String),
    /// Whether the request may do this cannot be found out now: 503.
    Unavailable(String),
}

impl AuthError {
    pub(super) fn for_stream(self) -> Result<HttpResponse, Problem> {
        match self {
            Self::Ended => Ok(HttpResponse::NoContent().finish()),
            other => Err(other.into()),
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthenticated(detail) => Self::unauthenticated(detail),
            AuthError::Forbidden(detail) => Self::forbidden(detail),
            AuthError::Malformed(invalid) => invalid.into(),
            AuthError::Ended => Self::unauthenticated("the session was ended"),
            AuthError::Misdirected(detail) => Self::misdirected(detail),
            AuthError::Unavailable(detail) => {
                Self::unavailable(detail).retry_after(std::time::Duration::from_secs(5))
            }
        }
    }
}
