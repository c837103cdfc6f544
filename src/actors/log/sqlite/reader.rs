//! Reading pages, on threads of their own, each with its own view of the file.
//!
//! A page of a few channels costs what is in it: the positions of each are found by the index and merged. Only a reader
//! of many active channels goes through the log itself.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use super::error::Failure;
use super::recent::Found;
use super::schema;
use crate::actors::log::{Page, ReadAfter, Seek, Sought};
use crate::channel::{Channel, Selector};
use crate::cursor::Seq;
use crate::error::LogError;
use crate::event::{Attributes, EventId, EventName, Payload};
use crate::interest::Interest;
use crate::record::{Draft, Record};

/// Active channels whose positions are merged; with more the log is gone through.
const MERGED: usize = 64;
/// Events of each channel that are looked at for a page, at least: a filter may let few of them through.
const MERGED_EVENTS: usize = 256;
/// Events that are looked at for a page.
const SCANNED: usize = 8192;

pub(super) enum ReadJob {
    Page(ReadAfter, oneshot::Sender<Result<Page, LogError>>),
    Seek(Seek, oneshot::Sender<Result<Sought, LogError>>),
}

/// The reading threads, in turns. They end when this is dropped.
pub(super) struct Readers {
    threads: Vec<Sender<ReadJob>>,
    next: usize,
}

impl Readers {
    pub(super) fn start(path: &Path, count: usize) -> rusqlite::Result<Self> {
        let threads = (0..count).map(|number| {
            let connection = schema::open_to_read(path)?;
            let (send, receive) = channel();
            let path = path.to_path_buf();
            let thread = std::thread::Builder::new().name(format!("fanfare-read-{number}"));
            let started = thread.spawn(move || serve(&connection, &path, &receive));
            started.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            Ok(send)
        });
        Ok(Self { threads: threads.collect::<rusqlite::Result<_>>()?, next: 0 })
    }

    /// Each session has one question at a time, so what waits here is bounded by the clients that catch up.
    pub(super) fn send(&mut self, job: ReadJob) {
        self.next = (self.next + 1) % self.threads.len().max(1);
        if let Some(thread) = self.threads.get(self.next) {
            // A thread that is gone drops the reply, and the asker hears of it.
            let _ = thread.send(job);
        }
    }
}

fn serve(connection: &Connection, path: &Path, jobs: &Receiver<ReadJob>) {
    while let Ok(job) = jobs.recv() {
        // The asker may have left.
        match job {
            ReadJob::Page(query, reply) => drop(reply.send(answer(path, || page(connection, &query)))),
            ReadJob::Seek(query, reply) => drop(reply.send(answer(path, || seek(connection, &query)))),
        }
    }
}

/// A thread that ended would take its share of all jobs with it.
fn answer<T>(path: &Path, job: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, LogError> {
    match catch_unwind(AssertUnwindSafe(job)) {
        Ok(done) => done.map_err(|error| Failure::new(path, &error).into()),
        Err(_) => Err(Failure::panicked(path).into()),
    }
}

/// What an interest comes to in this log: channels that have something after a position.
enum Channels {
    Few(Vec<Followed>),
    Many,
}

pub(super) fn page(connection: &Connection, query: &ReadAfter) -> rusqlite::Result<Page> {
    // One view of the file for the events and for what was removed.
    let view = connection.unchecked_transaction()?;
    let ReadAfter { after, until, interest, limit } = query;
    let trimmed = trimmed(&view, *after, interest)?;
    let mut page = Page { records: Vec::new(), through: *after, trimmed };
    let mut bytes = 0;
    let mut take = |page: &mut Page, record: Record| {
        bytes += record.draft.weight();
        page.records.push(Arc::new(record));
        page.records.len() >= limit.events || bytes >= limit.bytes
    };
    let mut fetch = Fetch::new(&view, Found::look(&view, *after, *until)?)?;
    match channels(&view, *after, &fetch.waiting, interest)? {
        Channels::Few(keys) => {
            let most = limit.events.max(MERGED_EVENTS);
            let (places, horizon) = merge(&view, &keys, &fetch.waiting, *after, *until, most)?;
            for (seq, channel) in places {
                page.through = seq;
                if let Some(record) = fetch.event(seq, Some(&channel), interest)?
                    && take(&mut page, record)
                {
                    return Ok(page);
                }
            }
            page.through = horizon;
        }
        Channels::Many => {
            let mut scan = view.prepare_cached(
                "SELECT seq, channels FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            )?;
            let mut rows = scan.query(params![after, until, SCANNED])?;
            let mut waiting = fetch.waiting.places().to_vec().into_iter().map(|(seq, _)| seq).peekable();
            let mut scanned = 0;
            loop {
                let row = rows.next()?;
                let seq = row.map(|row| row.get::<_, Seq>(0)).transpose()?;
                // What waits stands in between, and after all that is in its place unless that is not all.
                let is_between = |waiting: &Seq| match seq {
                    Some(seq) => *waiting < seq,
                    None => scanned < SCANNED,
                };
                while let Some(seq) = waiting.next_if(is_between) {
                    page.through = seq;
                    if let Some(record) = fetch.event(seq, None, interest)?
                        && take(&mut page, record)
                    {
                        return Ok(page);
                    }
                }
                let (Some(row), Some(seq)) = (row, seq) else { break };
                scanned += 1;
                page.through = seq;
                // Most are of no interest by their channels alone, and are not looked at any further.
                let is_selected = |name| interest.selects(&Channel::restore(name));
                if row.get_ref(1)?.as_str()?.split('\n').any(is_selected)
                    && let Some(record) = fetch.event(seq, None, interest)?
                    && take(&mut page, record)
                {
                    return Ok(page);
                }
            }
            if scanned < SCANNED {
                page.through = *until.max(after);
            }
        }
    }
    Ok(page)
}

pub(super) fn seek(connection: &Connection, query: &Seek) -> rusqlite::Result<Sought> {
    let view = connection.unchecked_transaction()?;
    let Seek { last, until, interest } = query;
    if *last == 0 {
        return Ok(Sought { position: *until, left: 0 });
    }
    let mut fetch = Fetch::new(&view, Found::look(&view, 0, *until)?)?;
    let is_few = match channels(&view, 0, &fetch.waiting, interest)? {
        Channels::Few(keys) => Some(keys),
        Channels::Many => None,
    };
    let (mut left, below) = (*last, until.saturating_add(1));
    let (seqs, horizon) = match &is_few {
        Some(keys) => merge_down(&view, keys, &fetch.waiting, below)?,
        None => {
            let mut scan =
                view.prepare_cached("SELECT seq FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?")?;
            let seqs = scan.query_map(params![below, SCANNED], |row| row.get(0))?;
            let mut seqs = seqs.collect::<rusqlite::Result<Vec<Seq>>>()?;
            let horizon = if seqs.len() < SCANNED { None } else { seqs.last().copied() };
            seqs.extend(fetch.waiting.places().iter().map(|(seq, _)| seq));
            (down_to(seqs, horizon), horizon)
        }
    };
    for seq in seqs {
        if fetch.event(seq, None, interest)?.is_some() {
            left -= 1;
            if left == 0 {
                return Ok(Sought { position: seq - 1, left });
            }
        }
    }
    Ok(match horizon {
        Some(horizon) => Sought { position: horizon - 1, left },
        None => Sought { position: 0, left: 0 },
    })
}

/// A place of a channel in the log: the channel's row, and its name if it is all that the event has.
#[derive(Debug, Clone)]
struct Followed {
    key: i64,
    name: Channel,
}

/// What waits for a place in these channels, which are in the order of their keys.
fn waiting_of<'a>(waiting: &'a Found, channels: &'a [Followed]) -> impl Iterator<Item = (Seq, &'a Followed)> {
    waiting.places().iter().filter_map(|(seq, home)| {
        let at = channels.binary_search_by_key(home, |channel| channel.key).ok()?;
        Some((*seq, channels.get(at)?))
    })
}

/// Positions, newest first and each once, as far as they are complete.
fn down_to(mut seqs: Vec<Seq>, horizon: Option<Seq>) -> Vec<Seq> {
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    seqs.dedup();
    if let Some(horizon) = horizon {
        seqs.retain(|&seq| seq >= horizon);
    }
    seqs
}

/// Fetches whole events, by statements that are made ready once for a page.
struct Fetch<'view> {
    view: &'view Connection,
    at_home: CachedStatement<'view>,
    in_order: CachedStatement<'view>,
    waiting: Found,
}

impl<'view> Fetch<'view> {
    fn new(view: &'view Connection, waiting: Found) -> rusqlite::Result<Self> {
        const COLUMNS: &str = "prev, time, id, name, attributes, is_json, payload";
        let at_home = format!("SELECT {COLUMNS} FROM placements WHERE channel = ? AND seq = ?");
        let in_order = format!("SELECT {COLUMNS}, channels, home FROM events WHERE seq = ?");
        Ok(Self {
            view,
            at_home: view.prepare_cached(&at_home)?,
            in_order: view.prepare_cached(&in_order)?,
            waiting,
        })
    }

    /// The event at a position, if it is of interest. It is looked for first where it was found.
    fn event(
        &mut self,
        seq: Seq,
        found_by: Option<&Followed>,
        interest: &Interest,
    ) -> rusqlite::Result<Option<Record>> {
        if let Some(record) = self.waiting.event(self.view, seq)? {
            let Draft { channels, attributes, .. } = &record.draft;
            return Ok(interest.covers(channels, attributes).then_some(record));
        }
        if let Some(Followed { key, name }) = found_by {
            let mut rows = self.at_home.query(params![key, seq])?;
            if let Some(row) = rows.next()?
                && row.get_ref(2)?.as_str_or_null()?.is_some()
            {
                return record(row, seq, vec![name.clone()], interest);
            }
        }
        let mut rows = self.in_order.query([seq])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let channels: Vec<_> = row.get_ref(7)?.as_str()?.split('\n').map(Channel::restore).collect();
        match row.get::<_, Option<i64>>(8)? {
            None => record(row, seq, channels, interest),
            Some(home) => {
                let mut rows = self.at_home.query(params![home, seq])?;
                rows.next()?.map_or(Ok(None), |row| record(row, seq, channels, interest))
            }
        }
    }
}

/// The event of a row, if it is of interest.
fn record(
    row: &Row<'_>,
    seq: Seq,
    channels: Vec<Channel>,
    interest: &Interest,
) -> rusqlite::Result<Option<Record>> {
    let attributes = match row.get_ref(4)?.as_str_or_null()? {
        Some(json) => Attributes::restore(json),
        None => Attributes::default(),
    };
    if !interest.covers(&channels, &attributes) {
        return Ok(None);
    }
    let draft = Draft {
        id: EventId::restore(row.get_ref(2)?.as_str()?),
        publisher: None,
        channels: channels.into(),
        name: EventName::restore(row.get_ref(3)?.as_str_or_null()?),
        payload: Payload::restore(row.get(6)?, row.get(5)?),
        attributes,
        time: row.get(1)?,
    };
    Ok(Some(Record::committed(draft, seq, row.get(0)?)))
}

fn patterns(interest: &Interest) -> impl Iterator<Item = &Selector> {
    interest.subscription.selectors().filter(|selector| selector.is_pattern())
}

/// The rows of `channels` whose names a pattern may match, by the segments before its first wildcard.
fn prefix(pattern: &Selector) -> String {
    let literal = pattern.as_str().split('/').take_while(|segment| !matches!(*segment, "*" | "**"));
    literal.collect::<Vec<_>>().join("/")
}

fn channels(
    view: &Connection,
    after: Seq,
    waiting: &Found,
    interest: &Interest,
) -> rusqlite::Result<Channels> {
    let homes = waiting.homes();
    let mut found = BTreeMap::new();
    let mut find = view.prepare_cached("SELECT key, last > ? AND events > 0 FROM channels WHERE name = ?")?;
    for name in interest.named() {
        let known = find.query_row(params![after, name.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?))
        });
        if let Some((key, is_in_place)) = known.optional()?
            && (is_in_place || homes.contains(&key))
        {
            found.insert(key, name);
        }
    }
    // What the file says of a channel is without what waits.
    let patterns: Vec<_> = patterns(interest).collect();
    if !patterns.is_empty() {
        let mut name = view.prepare_cached("SELECT name FROM channels WHERE key = ?")?;
        for home in homes {
            let name = name.query_row([home], |row| Ok(Channel::restore(row.get_ref(0)?.as_str()?)))?;
            if patterns.iter().any(|pattern| pattern.matches(&name)) {
                found.insert(home, name);
            }
        }
    }
    for pattern in patterns {
        let prefix = prefix(pattern);
        let mut statement = view.prepare_cached(if prefix.is_empty() {
            "SELECT key, name FROM channels WHERE last > ?2 AND events > 0 AND ?1 = '' LIMIT 4096"
        } else {
            "SELECT key, name FROM channels
             WHERE (name = ?1 OR (name > ?1 || '/' AND name < ?1 || '0')) AND last > ?2 AND events > 0 LIMIT 4096"
        })?;
        let mut rows = statement.query(params![prefix, after])?;
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            looked_at += 1;
            let name = Channel::restore(row.get_ref(1)?.as_str()?);
            if pattern.matches(&name) {
                found.insert(row.get(0)?, name);
            }
            if found.len() > MERGED || looked_at == 4096 {
                return Ok(Channels::Many);
            }
        }
    }
    if found.len() > MERGED {
        return Ok(Channels::Many);
    }
    Ok(Channels::Few(found.into_iter().map(|(key, name)| Followed { key, name }).collect()))
}

/// The places of some channels after one position and up to another, in order, each position once, and how far they
/// are complete.
fn merge(
    view: &Connection,
    channels: &[Followed],
    waiting: &Found,
    after: Seq,
    until: Seq,
    limit: usize,
) -> rusqlite::Result<(Vec<(Seq, Followed)>, Seq)> {
    let mut statement = view.prepare_cached(
        "SELECT seq FROM placements WHERE channel = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
    )?;
    let limit = limit.clamp(1, SCANNED);
    let (mut all, mut horizon) = (Vec::<(Seq, Followed)>::new(), until.max(after));
    for channel in channels {
        let seqs = statement.query_map(params![channel.key, after, until, limit], |row| row.get(0))?;
        let before = all.len();
        for seq in seqs {
            all.push((seq?, channel.clone()));
        }
        if all.len() - before == limit
            && let Some((last, _)) = all.last()
        {
            horizon = horizon.min(*last);
        }
    }
    all.extend(waiting_of(waiting, channels).map(|(seq, channel)| (seq, channel.clone())));
    all.sort_unstable_by_key(|(seq, _)| *seq);
    all.dedup_by_key(|(seq, _)| *seq);
    all.retain(|(seq, _)| *seq <= horizon);
    Ok((all, horizon))
}

/// The same from above: positions before one, newest first, and the last of them if there are more.
fn merge_down(
    view: &Connection,
    channels: &[Followed],
    waiting: &Found,
    below: Seq,
) -> rusqlite::Result<(Vec<Seq>, Option<Seq>)> {
    const LIMIT: usize = 256;
    let mut statement = view.prepare_cached(
        "SELECT seq FROM placements WHERE channel = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
    )?;
    let (mut all, mut horizon) = (Vec::<Seq>::new(), None);
    for channel in channels {
        let seqs = statement.query_map(params![channel.key, below, LIMIT], |row| row.get(0))?;
        let before = all.len();
        for seq in seqs {
            all.push(seq?);
        }
        if all.len() - before == LIMIT {
            horizon = horizon.max(all.last().copied());
        }
    }
    all.extend(waiting_of(waiting, channels).map(|(seq, _)| seq));
    Ok((down_to(all, horizon), horizon))
}

/// The newest position after `after` that was removed from a channel of interest.
fn trimmed(view: &Connection, after: Seq, interest: &Interest) -> rusqlite::Result<Option<Seq>> {
    let newest: Seq = view.query_row(
        "SELECT max((SELECT coalesce(max(trimmed), 0) FROM channels WHERE trimmed > 0), (SELECT value FROM meta WHERE key = 'forgotten'))",
        [],
        |row| row.get(0),
    )?;
    if newest <= after {
        return Ok(None);
    }
    let forgotten: Seq = view
        .prepare_cached("SELECT value FROM meta WHERE key = 'forgotten'")?
        .query_row([], |row| row.get(0))?;
    let mut found = 0;
    let mut find = view.prepare_cached("SELECT trimmed FROM channels WHERE name = ?")?;
    for channel in interest.named() {
        let trimmed = find.query_row([channel.as_str()], |row| row.get(0)).optional()?;
        found = found.max(trimmed.unwrap_or(forgotten));
    }
    let mut statement = view.prepare_cached(
        "SELECT trimmed, name FROM channels WHERE trimmed > ? AND trimmed > 0 ORDER BY trimmed DESC",
    )?;
    for pattern in patterns(interest) {
        found = found.max(forgotten);
        let mut rows = statement.query([after.max(found)])?;
        while let Some(row) = rows.next()? {
            if pattern.matches(&Channel::restore(row.get_ref(1)?.as_str()?)) {
                found = found.max(row.get(0)?);
                break;
            }
        }
    }
    Ok((found > after).then_some(found))
}
