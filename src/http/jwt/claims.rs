//! What a token says, once its signature was found good.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use crate::channel::Selector;
use crate::http::grant::Grant;
use crate::identity::{Publisher, SessionId};

/// How far the issuer's clock may be ahead of ours for `nbf`.
const LEEWAY: Duration = Duration::from_secs(5);
const MAX_SUBJECT: usize = 255;
/// Keeps sessions of subjects apart from those of other secrets.
const DOMAIN: &[u8] = b"jwt sub\0";
const EVERYONE: &str = "$everyone";
const SESSIONS: &str = "$session/**";

/// The claims that are read, not yet looked at: so that each is refused by its name.
#[derive(Deserialize)]
pub(super) struct Claims {
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    sub: Option<Value>,
    sid: Option<Value>,
    fanfare: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Granted {
    subscribe: Vec<String>,
    publish: Vec<String>,
    admin: bool,
}

impl Claims {
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(payload)
            .map_err(|_| "the token's claims must be a JSON object, each claim once".into())
    }

    pub(super) fn grant(&self, now: SystemTime) -> Result<Grant, String> {
        let expires = time("exp", self.exp.as_ref())?.ok_or("exp must be given")?;
        if expires <= now {
            return Err("the token has expired".into());
        }
        if time("nbf", self.nbf.as_ref())?.is_some_and(|begins| begins > now + LEEWAY) {
            return Err("the token is not valid yet".into());
        }
        let issued = time("iat", self.iat.as_ref())?;

        let subject = text("sub", self.sub.as_ref())?;
        if subject.is_some_and(|subject| !is_subject(subject)) {
            return Err(format!("sub must have 1 to {MAX_SUBJECT} bytes and no control character"));
        }
        let session = match (text("sid", self.sid.as_ref())?, subject) {
            (Some(id), _) => id.parse().map_err(|_| "sid must be a ULID")?,
            (None, Some(subject)) => SessionId::derived_from(&[DOMAIN, subject.as_bytes()].concat()),
            (None, None) => return Err("sid or sub must be given".into()),
        };

        let granted = match &self.fanfare {
            None => Granted::default(),
            Some(claim) => Granted::deserialize(claim).map_err(|error| format!("fanfare: {error}"))?,
        };
        let mut grant = Grant::new(session).expires(expires);
        if let Some(issued) = issued {
            grant = grant.issued_at(issued);
        }
        if let Some(subject) = subject {
            grant = grant.publisher(Publisher::named(subject));
        }
        if granted.admin {
            grant = grant.admin();
        }
        for selector in &granted.publish {
            grant = match selector.as_str() {
                EVERYONE => grant.publish_to_everyone(),
                SESSIONS => grant.publish_to_sessions(),
                other => grant.publish([selector_of("publish", other)?]),
            };
        }
        let subscribe = granted.subscribe.iter().map(|selector| selector_of("subscribe", selector));
        Ok(grant.subscribe(subscribe.collect::<Result<Vec<_>, _>>()?))
    }
}

fn selector_of(list: &str, text: &str) -> Result<Selector, String> {
    Selector::new(text).map_err(|invalid| format!("fanfare.{list}: a selector {}", invalid.rule()))
}

fn is_subject(text: &str) -> bool {
    (1..=MAX_SUBJECT).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn text<'a>(name: &str, claim: Option<&'a Value>) -> Result<Option<&'a str>, String> {
    claim.map(|value| value.as_str().ok_or_else(|| format!("{name} must be a string"))).transpose()
}

fn time(name: &str, claim: Option<&Value>) -> Result<Option<SystemTime>, String> {
    let read = |value: &Value| {
        let since = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    let refuse = || format!("{name} must be a number of seconds since 1970");
    claim.map(|value| read(value).ok_or_else(refuse)).transpose()
}
