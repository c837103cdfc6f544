//! `POST publish`: a body becomes broadcasts, and their receipts the answer.

use std::time::Duration;

use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::grant::{Audience, Grant};
use super::problem::Problem;
use super::publish_body::{self, Format, Published};
use super::state::{ask, gone};
use super::{Mount, origin, request_id};
use crate::actors::broker::{AskFarewell, Publish, Refused};
use crate::actors::trace::Trace;
use crate::actors::{Batch, Broadcast};
use crate::error::PublishError;

/// How long a body may take to arrive: who sends one byte now and then would hold a connection for ever.
const ARRIVAL: Duration = Duration::from_secs(30);

pub(super) async fn publish(
    request: HttpRequest,
    body: web::Payload,
    mount: web::Data<Mount>,
) -> Result<HttpResponse, Problem> {
    let grant = mount.config.claim(&request).await?;
    origin::check(&request, &mount.config, &grant)?;
    let format = format(&request)?;
    let body = arrived(&request, body, mount.config.max_body).await?;
    let Published { events, is_batch } = publish_body::read(&body, format, mount.config.max_payload)?;

    let broadcasts = events.into_iter().enumerate().map(|(index, (audience, event))| {
        broadcast(audience, event, &grant).map_err(|problem| problem.index(is_batch.then_some(index)))
    });
    let batch = Batch::new(broadcasts.collect::<Result<_, _>>()?)?;
    let broker = mount.broker.upgrade().ok_or_else(gone)?;
    let (reply, receipts) = oneshot::channel();
    let trace = Trace::start(|| {
        let span = tracing::debug_span!("publish", request_id = %request_id::of(&request));
        #[cfg(feature = "otel")]
        super::traceparent::go_on(&span, request.headers());
        span
    });
    broker.do_send(Publish { batch, standing: grant.standing(), trace, reply });
    let receipts = match receipts.await.map_err(|_| gone())? {
        Ok(receipts) => receipts,
        Err(PublishError::Draining) => {
            let farewell = ask(&mount, AskFarewell).await?;
            return Err(farewell.map_or_else(gone, |farewell| Refused::Closed(farewell).into()));
        }
        Err(error) if is_batch => return Err(error.into()),
        Err(error) => return Err(Problem::from(error).index(None)),
    };

    Ok(match receipts.first() {
        Some(receipt) if !is_batch => HttpResponse::Ok().json(receipt),
        _ => HttpResponse::Ok().json(receipts),
    })
}

/// The whole body, if it comes and is not too large.
async fn arrived(request: &HttpRequest, body: web::Payload, limit: usize) -> Result<Bytes, Problem> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    // Such a request is read to the end of its connection, whatever it says of its length.
    if header(UPGRADE).is_some_and(|to| to.trim().eq_ignore_ascii_case("websocket")) {
        return Err(Problem::bad_request("a publish is no WebSocket").field(UPGRADE.as_str()));
    }
    let too_large = || Problem::too_large(format!("the body must be at most {limit} bytes")).field("body");
    let declared = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if declared.is_some_and(|declared: u64| declared > limit as u64) {
        return Err(too_large());
    }
    match timeout(ARRIVAL, body.to_bytes_limited(limit)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => Err(Problem::bad_request(format!("the body did not arrive: {error}"))),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let detail = format!("the body did not arrive within {} seconds", ARRIVAL.as_secs());
            Err(Problem::timed_out(detail).field("body"))
        }
    }
}

pub(super) fn broadcast(
    audience: Audience,
    event: crate::Event,
    grant: &Grant,
) -> Result<Broadcast, Problem> {
    grant.may_publish(&audience)?;
    let broadcast = match audience {
        Audience::Channels(channels) => Broadcast::channels(channels, event)?,
        Audience::Sessions(sessions) => Broadcast::sessions(sessions, event),
        Audience::Everyone => Broadcast::everyone(event),
    };
    Ok(broadcast.publisher(grant.publisher.clone()))
}

fn format(request: &HttpRequest) -> Result<Format, Problem> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(Format::Json)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(Format::Lines)
    } else {
        Err(Problem::unsupported_media_type("publish application/json or application/x-ndjson"))
    }
}
