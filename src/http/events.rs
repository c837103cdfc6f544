//! `GET events`: a query becomes a subscription, a session and a stream.

use std::time::Duration;

use actix_web::http::Version;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use tokio::sync::oneshot;

use super::body::SinkBody;
use super::door::last_word;
use super::grant::{AuthError, Grant};
use super::problem::Problem;
use super::query::Query;
use super::serve::Lease;
use super::{HttpConfig, Mount, request_id, socket};
use crate::actors::broker::{Begin, Start};
use crate::actors::session::{Refusal, Reset, Session, SessionSettings};
use crate::channel::Selector;
use crate::cursor::{Cursor, ResetReason};
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::interest::{Filter, Interest, Subscription};
use crate::wire::{Encoding, Framing};

pub(super) async fn events(request: HttpRequest, mount: web::Data<Mount>) -> Result<HttpResponse, Problem> {
    let grant = match mount.config.claim(&request).await {
        Ok(grant) => grant,
        Err(error) => return error.for_stream(),
    };
    let query = Query::parse(request.query_string())?;
    let header = request.headers().get("last-event-id");
    let subscription = follow(&query, &mount.config, &grant)?;
    let wanted = Wanted::read(&query, header)?;

    let client = ClientId::mint();
    tracing::debug!(request_id = %request_id::of(&request), %client, "a stream is asked for");
    let mut response = response(client, &grant);
    let pass = match mount.let_in(&request, client, &grant).await {
        Ok(pass) => pass,
        Err(refused) if refused.is_for_good() => return AuthError::Ended.for_stream(),
        Err(refused) if wanted.is_strict => return Err(refused.into()),
        Err(refused) => return Ok(response.streaming(last_word(refused, wanted.encoding))),
    };
    let (verdict, settled) = oneshot::channel();
    let lease = Lease::of(&request);
    let settings = SessionSettings {
        pass,
        interest: Interest::new(grant.session, subscription),
        encoding: wanted.encoding,
        framing: if lease.is_some() { Framing::Chunked } else { Framing::Bare },
        start: wanted.start,
        expires: grant.expires,
        verdict: wanted.is_strict.then_some(verdict),
    };
    let (session, sink) = Session::start_here(settings, mount.worker());
    // From here on the body's drop ends the session, also if this request is given up while it waits.
    let is_framed = lease.is_some();
    let body = SinkBody::new(sink, session, lease, socket::line(&request));
    if wanted.is_strict {
        match settled.await {
            Ok(Ok(())) => {}
            Ok(Err(Refusal::Closed { reason: CloseReason::Revoked, .. })) => {
                return AuthError::Ended.for_stream();
            }
            Ok(Err(refusal)) => return Err(refused(refusal)),
            Err(_) => {
                return Err(refused(Refusal::Closed {
                    reason: CloseReason::Unavailable,
                    retry_in: Duration::from_secs(5),
                }));
            }
        }
    }
    let mut response = response.body(body);
    // Either the stream is in chunks already, or an older client does not know any.
    if is_framed || request.version() < Version::HTTP_11 {
        response.head_mut().no_chunking(true);
    }
    if is_framed {
        response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(response)
}

/// The head of a stream.
fn response(client: ClientId, grant: &Grant) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache, no-transform"))
        // Said so that no middleware compresses: an encoder would hold small frames back.
        .insert_header((CONTENT_ENCODING, "identity"))
        .insert_header(("x-accel-buffering", "no"))
        .insert_header(("fanfare-client", client.to_string()))
        .insert_header(("fanfare-session", grant.session.to_string()));
    if let Some(cookie) = &grant.set_cookie {
        response.cookie(cookie.clone());
    }
    response
}

/// What a request wants to follow, if it may.
pub(super) fn follow(query: &Query<'_>, config: &HttpConfig, grant: &Grant) -> Result<Subscription, Problem> {
    let selectors = query.all("channel").map(Selector::new).collect::<Result<Vec<_>, _>>()?;
    if selectors.len() > config.max_selectors {
        let detail = format!("channel must be given at most {} times", config.max_selectors);
        return Err(Problem::bad_value(detail).field("channel"));
    }
    if !selectors.iter().all(|selector| grant.may_subscribe(selector)) {
        return Err(Problem::forbidden("a selector is outside the grant").field("channel"));
    }
    Ok(Subscription::new(selectors, Filter::parse(query.all("filter"))?))
}

/// How a request wants its stream.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    encoding: Encoding,
    start: Start,
    is_strict: bool,
}

impl Wanted {
    fn read(query: &Query<'_>, header: Option<&HeaderValue>) -> Result<Self, Problem> {
        let encoding = match query.one("format")? {
            None | Some("raw") => Encoding::SseRaw,
            Some("envelope") => Encoding::SseEnvelope,
            Some(_) => return Err(Problem::bad_value("format must be raw or envelope").field("format")),
        };
        let is_strict = match query.one("strict")? {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(Problem::bad_value("strict must be 0 or 1").field("strict")),
        };
        let from = match query.one("from")? {
            None => None,
            Some("now") => Some(Begin::Now),
            Some("earliest") => Some(Begin::Earliest),
            Some(count) => Some(Begin::Last(last(count)?)),
        };
        // A header that is not text is no cursor either; an empty one is none at all.
        let header = header.map(|value| value.to_str().unwrap_or("?")).filter(|token| !token.is_empty());
        let token = match header {
            Some(token) => Some(token),
            None => query.one("last_event_id")?,
        };
        let start = match token {
            None => Start::At(from.unwrap_or_default()),
            Some(token) => {
                Start::After { cursor: Cursor::parse(token), otherwise: from.unwrap_or(Begin::Earliest) }
            }
        };
        Ok(Self { encoding, start, is_strict })
    }
}

fn last(count: &str) -> Result<u64, Problem> {
    let is_number = count.bytes().all(|b| b.is_ascii_digit());
    let count = count.parse().ok().filter(|_| is_number);
    count.ok_or_else(|| Problem::bad_value("from must be now, earliest or a number").field("from"))
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Reset(Reset { reason: ResetReason::Malformed, .. }) => {
            Problem::bad_value("last_event_id is no cursor").field("last_event_id")
        }
        Refusal::Reset(Reset { reason, head }) => {
            let why = match reason {
                ResetReason::OtherLog => "is of another log",
                ResetReason::LostTerm => "is of a part of the log that was lost",
                ResetReason::Ahead | ResetReason::Malformed => "is beyond the newest event",
            };
            Problem::gone(format!("the cursor {why}; the head is {head}")).field("last_event_id")
        }
        Refusal::Gap { after, resumed_at, head } => {
            let detail = format!("events from {after} to {resumed_at} are gone; the head is {head}");
            Problem::gone(detail).field("last_event_id")
        }
        Refusal::Closed { reason, retry_in } => Problem::closed(reason, retry_in),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SessionId;

    fn read(query: &str, header: Option<&'static str>) -> Result<Wanted, Problem> {
        let header = header.map(HeaderValue::from_static);
        let query = Query::parse(query).expect("UTF-8");
        let all = Grant::new(SessionId::mint()).subscribe([Selector::new("**").expect("valid")]);
        follow(&query, &HttpConfig::default(), &all)?;
        Wanted::read(&query, header.as_ref())
    }

    #[test]
    fn the_header_wins_over_the_query_and_that_over_from() {
        let after = |token: &str, otherwise| Start::After { cursor: Cursor::parse(token), otherwise };
        let start = |query, header| read(query, header).expect("valid").start;
        assert_eq!(start("", None), Start::At(Begin::Now));
        assert_eq!(start("from=3", None), Start::At(Begin::Last(3)));
        assert_eq!(start("from=3&last_event_id=a.b.1", None), after("a.b.1", Begin::Last(3)));
        assert_eq!(start("last_event_id=a.b.1", Some("a.b.2")), after("a.b.2", Begin::Earliest));
        assert_eq!(start("last_event_id=", Some("")), Start::At(Begin::Now));
        assert_eq!(start("", Some("nonsense")), Start::After { cursor: None, otherwise: Begin::Earliest });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, field) in [
            ("channel=a//b", "channel"),
            ("channel=$everyone", "channel"),
            ("channel=%24session%2F**", "channel"),
            ("channel=a&filter=kind", "filter"),
            ("from=later", "from"),
            ("from=-1", "from"),
            ("from=+1", "from"),
            ("format=xml", "format"),
            ("format=raw&format=raw", "format"),
            ("strict=yes", "strict"),
        ] {
            let problem = read(query, None).expect_err(query);
            let body = serde_json::to_value(&problem).expect("JSON");
            assert_eq!((&body["status"], &body["field"]), (&400.into(), &field.into()), "{query}");
        }
        let many = "channel=a&".repeat(129);
        assert!(read(&many, None).is_err());
    }
}
