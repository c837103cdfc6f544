//! What leaves the log: events over their bounds or their time, ids out of their window, channels without events.

use rusqlite::{OptionalExtension, params};

use super::database::STEP;
use super::pass::{KNOWN_IDS, Pass, Row, due};
use crate::actors::log::{COMMIT_EVENTS, WINDOW};
use crate::channel::Channel;
use crate::cursor::Seq;

/// Channels without an event that are remembered.
const EMPTY_CHANNELS: u64 = 65_536;

impl Pass<'_> {
    /// Holds the channels that were appended to, and the whole log, to their bounds; removes at most `most`.
    pub(super) fn trim_touched(&mut self, most: u64) -> rusqlite::Result<()> {
        let channels: Vec<_> = self.touched.iter().map(|(channel, row)| (channel.clone(), *row)).collect();
        for (channel, row) in channels {
            let excess = self.excess(&channel, &row, most)?;
            if excess > 0 {
                self.trim_channel(&channel, excess)?;
            }
        }
        self.trim_log(most)
    }

    /// How many of a channel's oldest events are over its bounds, `most` at most.
    fn excess(&mut self, channel: &Channel, row: &Row, most: u64) -> rusqlite::Result<u64> {
        let limits = self.retention.limits(channel);
        if !limits.are_broken_by(row.events, row.bytes) {
            return Ok(0);
        }
        let too_many = row.events.saturating_sub(limits.max_events.unwrap_or(u64::MAX)).min(most);
        if limits.max_bytes.is_none_or(|max| row.bytes <= max) {
            return Ok(too_many);
        }
        let weights = self.oldest(row, most)?.into_iter().map(|(_, weight, _)| weight);
        Ok(limits.excess(row.events, row.bytes, weights))
    }

    /// Removes the oldest events while the whole log is too large, or reaches back too far.
    pub(super) fn trim_log(&mut self, most: u64) -> rusqlite::Result<()> {
        for _ in 0..most.min(COMMIT_EVENTS as u64 * 3) {
            if self.figures.bytes <= self.retention.log_bytes() && self.floor == 0 {
                return Ok(());
            }
            let mut first =
                self.transaction.prepare_cached("SELECT seq, channels FROM events ORDER BY seq LIMIT 1")?;
            let oldest = first
                .query_row([], |row| Ok((row.get::<_, Seq>(0)?, row.get::<_, String>(1)?)))
                .optional()?;
            drop(first);
            if self.figures.recent.reaches_below(oldest.as_ref().map(|(seq, _)| *seq)) {
                self.settle()?;
                continue;
            }
            let Some((seq, names)) = oldest else { return Ok(()) };
            if self.figures.bytes <= self.retention.log_bytes() && seq >= self.floor {
                return Ok(());
            }
            // The oldest event of all is the oldest of each channel that still has it.
            for name in names.split('\n') {
                let channel = Channel::restore(name);
                if let Some(row) = self.row(&channel)?
                    && self.oldest(&row, 1)?.first().is_some_and(|(first, ..)| *first == seq)
                {
                    self.trim_channel(&channel, 1)?;
                }
            }
        }
        Ok(())
    }

    /// Removes what is due of a channel: too old, or over its bounds. Returns how many events went.
    pub(super) fn trim_due(&mut self, channel: &Channel, now: i64) -> rusqlite::Result<u64> {
        let Some(row) = self.row(channel)? else { return Ok(0) };
        let mut count = self.excess(channel, &row, STEP)?;
        if let Some(age) = self.retention.limits(channel).max_age {
            let before = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            let oldest = self.oldest(&row, STEP)?;
            count = count.max(oldest.iter().take_while(|(.., time)| *time <= before).count() as u64);
        }
        Ok(row.events - self.trim_channel(channel, count)?)
    }

    /// The position, weight and time of a channel's oldest events. Those that wait to be moved are moved if one is among them.
    fn oldest(&mut self, row: &Row, most: u64) -> rusqlite::Result<Vec<(Seq, u64, i64)>> {
        let settled = self.oldest_settled(row, most)?;
        let is_all = settled.len() as u64 >= most.min(row.events);
        if is_all && !self.figures.recent.reaches_below(settled.last().map(|(seq, ..)| *seq)) {
            return Ok(settled);
        }
        self.settle()?;
        self.oldest_settled(row, most)
    }

    fn oldest_settled(&self, row: &Row, most: u64) -> rusqlite::Result<Vec<(Seq, u64, i64)>> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT seq, weight, events.time FROM placements JOIN events USING (seq) WHERE channel = ? ORDER BY seq LIMIT ?",
        )?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        statement
            .query_map(params![row.key, most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }

    /// Removes the oldest `count` events of a channel. Returns how many are left.
    pub(super) fn trim_channel(&mut self, channel: &Channel, count: u64) -> rusqlite::Result<u64> {
        let Some(row) = self.row(channel)? else { return Ok(0) };
        let oldest = self.oldest(&row, count.saturating_add(1))?;
        // As it is if something had to be moved.
        let Some(mut row) = self.row(channel)? else { return Ok(0) };
        for (seq, weight, _) in oldest.iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            let mut unplace =
                self.transaction.prepare_cached("DELETE FROM placements WHERE channel = ? AND seq = ?")?;
            unplace.execute(params![row.key, seq])?;
            let mut release = self
                .transaction
                .prepare_cached("UPDATE events SET left = left - 1 WHERE seq = ? RETURNING left")?;
            let left: i64 = release.query_row([seq], |row| row.get(0))?;
            if left <= 0 {
                let mut delete = self.transaction.prepare_cached("DELETE FROM events WHERE seq = ?")?;
                delete.execute([seq])?;
                self.figures.bytes = self.figures.bytes.saturating_sub(*weight);
            }
            row = Row {
                trimmed: *seq,
                events: row.events.saturating_sub(1),
                bytes: row.bytes.saturating_sub(*weight),
                ..row
            };
        }
        if row.events == 0 && count > 0 && !oldest.is_empty() {
            self.figures.empty += 1;
        }
        let next = usize::try_from(count).ok().and_then(|count| oldest.get(count));
        let is_over = self.retention.limits(channel).are_broken_by(row.events, row.bytes);
        // What is left over is due at once, for the next step.
        row.due = if is_over { Some(0) } else { due(self.retention, channel, next.map(|(.., time)| *time)) };
        if !oldest.is_empty() && count > 0 {
            self.trims.insert(channel.clone(), row.trimmed);
        }
        self.touched.insert(channel.clone(), row);
        Ok(row.events)
    }

    pub(super) fn forget_ids(&self, now: i64) -> rusqlite::Result<()> {
        let since = now - WINDOW.as_millis() as i64;
        self.transaction
            .prepare_cached("DELETE FROM ids WHERE place IN (SELECT place FROM ids WHERE time <= ? LIMIT ?)")?
            .execute(params![since, 4 * STEP])?;
        self.transaction
            .prepare_cached("DELETE FROM ids WHERE place <= (SELECT max(place) FROM ids) - ?")?
            .execute([KNOWN_IDS])?;
        Ok(())
    }

    /// Forgets some of the channels that lost their last event longest ago when there are too many. What is not known of
    /// them from then on is told as a loss up to there.
    pub(super) fn forget_channels(&mut self) -> rusqlite::Result<()> {
        // Not for every single one.
        let too_many = self.figures.empty.saturating_sub(EMPTY_CHANNELS);
        if too_many < STEP {
            return Ok(());
        }
        // Here the file is asked, and has to know of all that there is.
        self.settle()?;
        self.write_rows()?;
        let last: Option<Seq> = self
            .transaction
            .prepare_cached(
                "SELECT trimmed FROM channels WHERE events = 0 AND trimmed > 0 ORDER BY trimmed LIMIT 1 OFFSET ?",
            )?
            .query_row([too_many.min(4 * STEP) - 1], |row| row.get(0))
            .optional()?;
        let Some(last) = last else { return Ok(()) };
        let gone = self
            .transaction
            .prepare_cached("DELETE FROM channels WHERE events = 0 AND trimmed > 0 AND trimmed <= ?")?
            .execute([last])?;
        self.transaction
            .prepare_cached("UPDATE meta SET value = max(value, ?) WHERE key = 'forgotten'")?
            .execute([last])?;
        self.figures.empty = self.figures.empty.saturating_sub(gone as u64);
        self.cache.retain(|_, row| row.is_ahead_of_file());
        Ok(())
    }
}
