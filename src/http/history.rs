//! `GET history`: what the log keeps, page by page.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Mount;
use super::events::follow;
use super::problem::Problem;
use super::query::Query;
use super::state::{ask, gone};
use crate::actors::broker::AskHistory;
use crate::actors::log::{PageLimit, ReadAfter};
use crate::cursor::{Cursor, Lineage, ResetReason, Seq};
use crate::interest::Interest;
use crate::wire::{envelope, notice};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// As much as an answer holds, by the weight of its events.
const MAX_BYTES: usize = 4 << 20;
/// Pages of the log that are looked at for an answer: what a filter keeps out is not searched to the end in one go.
const PAGES: usize = 8;

#[derive(Serialize)]
struct Answer {
    events: Vec<Box<RawValue>>,
    cursor: Cursor,
    more: bool,
    gap: Option<notice::Gap>,
}

pub(super) async fn history(request: HttpRequest, mount: web::Data<Mount>) -> Result<HttpResponse, Problem> {
    let grant = mount.config.grant(&request).await?;
    let query = Query::parse(request.query_string())?;
    let subscription = follow(&query, &mount.config, &grant)?;
    let limit = limit(&query)?;
    let history = ask(&mount, AskHistory).await??;
    let _turn = history.turn.begin().await;
    let after = after(&query, &history.lineage, history.head)?;

    let interest = Interest::new(grant.session, subscription);
    let (mut position, mut records, mut lost) = (after.unwrap_or(0), Vec::new(), None);
    for _ in 0..PAGES {
        if position >= history.head || records.len() >= limit {
            break;
        }
        let page = ReadAfter {
            after: position,
            until: history.head,
            interest: interest.clone(),
            limit: PageLimit { events: limit - records.len(), bytes: MAX_BYTES },
        };
        let page = history.log.read.send(page).await.map_err(|_| gone())?;
        let page = page.map_err(|_| Problem::unavailable("the log cannot be read"))?;
        lost = lost.max(page.trimmed);
        let is_large = !page.records.is_empty();
        position = page.through;
        records.extend(page.records);
        // A page that is not full by events is full by bytes, or had little of interest in it.
        if is_large && records.iter().map(|record| record.draft.weight()).sum::<usize>() >= MAX_BYTES {
            break;
        }
    }
    let events = records.iter().map(|record| RawValue::from_string(envelope::json(record)));
    let answer = Answer {
        events: events
            .collect::<Result<_, _>>()
            .map_err(|_| Problem::unavailable("an event cannot be read"))?,
        cursor: history.lineage.timeline().cursor(position),
        more: position < history.head,
        // Who asks from the beginning asks for what there is.
        gap: after.zip(lost).map(|(after, resumed_at)| notice::Gap {
            reason: "expired",
            after,
            resumed_at: resumed_at.min(history.head),
            head: history.head,
        }),
    };
    let body = serde_json::to_string(&answer).map_err(|_| Problem::unavailable("an event cannot be read"))?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(body))
}

fn limit(query: &Query<'_>) -> Result<usize, Problem> {
    let Some(text) = query.one("limit")? else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| Problem::bad_value(format!("limit must be from 1 to {MAX_LIMIT}")).field("limit"))
}

/// The position to read on from: a cursor of this log, or its bare number.
fn after(query: &Query<'_>, lineage: &Lineage, head: Seq) -> Result<Option<Seq>, Problem> {
    let Some(text) = query.one("after")? else { return Ok(None) };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let seq: Seq = text.parse().map_err(|_| Problem::bad_value("after is too large").field("after"))?;
        return Ok(Some(head.min(seq)));
    }
    let cursor = Cursor::parse(text)
        .ok_or_else(|| Problem::bad_value("after must be a cursor or a position").field("after"))?;
    lineage.locate(&cursor, head).map(Some).map_err(|reason| {
        let why = match reason {
            ResetReason::OtherLog => "is of another log",
            ResetReason::LostTerm => "is of a part of the log that was lost",
            ResetReason::Ahead | ResetReason::Malformed => "is beyond the newest event",
        };
        Problem::gone(format!("the cursor {why}; the head is {head}")).field("after")
    })
}
