//! What a page of the log tells beside its events: where reading it really began, and where something is missing. Pure.

use std::time::Duration;

use super::log::Page;
use crate::cursor::Seq;

/// How long a cursor beyond the head may wait for the head to come, and how often it looks.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);
const AHEAD_FIRST_WAIT: Duration = Duration::from_millis(20);

/// For a reading that was promised nothing of what is removed before its first page.
pub(crate) const NOTHING_PROMISED: Seq = Seq::MAX;

/// A stretch of the log that a client was promised and cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// It reaches up to here.
    pub(crate) resumed_at: Seq,
    /// Where it is told; a loss that reaches beyond the page is told with the next.
    pub(crate) told: Option<Told>,
}

/// Where a loss is told: behind what is left of other channels, ahead of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Ahead of this event of the page.
    pub(crate) before: usize,
    /// The position that it is told with.
    pub(crate) position: Seq,
}

/// Finds what is lost in `page`, which was read up to `until` at most. `known_trim` is up to where the client was never
/// promised anything, or was told; it moves on.
pub(crate) fn find_loss(page: &Page, until: Seq, known_trim: &mut Seq) -> Option<Loss> {
    // What was removed beyond what is being read is told when that is read.
    let trimmed = page.trimmed.map(|trimmed| trimmed.min(until));
    if *known_trim == NOTHING_PROMISED {
        *known_trim = trimmed.unwrap_or(0);
    }
    let resumed_at = trimmed.filter(|trimmed| trimmed > known_trim)?;
    if resumed_at > page.through {
        return Some(Loss { resumed_at, told: None });
    }
    *known_trim = resumed_at;
    // Its position is before an event that is left at the very end of what was removed, since that comes after it.
    let is_left = page.records.iter().any(|record| record.seq() == Some(resumed_at));
    let position = if is_left { resumed_at - 1 } else { resumed_at };
    let before = page.records.partition_point(|record| record.seq().is_some_and(|seq| seq <= position));
    Some(Loss { resumed_at, told: Some(Told { before, position }) })
}

/// The position that the page's events come after, if something before them was removed; nothing was lost that this
/// client was ever promised.
pub(crate) fn start_of(page: &Page) -> Seq {
    let Some(trimmed) = page.trimmed else { return 0 };
    let first = page.records.first().and_then(|record| record.seq());
    trimmed.min(first.map_or(page.through, |first| first - 1))
}

/// How long a client waits until it looks again whether the head has come to its cursor, having waited this long.
pub(crate) fn next_look(waited: Duration) -> Duration {
    AHEAD_FIRST_WAIT.max(waited).min(AHEAD_PATIENCE.saturating_sub(waited))
}

/// Whether it has waited long enough.
pub(crate) fn is_last_look(waited: Duration) -> bool {
    waited >= AHEAD_PATIENCE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::channel::Channel;
    use crate::event::Event;
    use crate::identity::Publisher;
    use crate::record::{Draft, Record};

    fn page(seqs: &[Seq], through: Seq, trimmed: Option<Seq>) -> Page {
        let record = |&seq| {
            let event = Event::text("message", "x").expect("valid");
            let draft = Draft::new(event, [Channel::everyone()].into(), Publisher::HUB, 0);
            Arc::new(Record::committed(draft, seq, 0))
        };
        Page { records: seqs.iter().map(record).collect(), through, trimmed }
    }

    fn told(page: &Page, until: Seq, known_trim: &mut Seq) -> Option<(usize, Seq)> {
        let told = find_loss(page, until, known_trim)?.told?;
        Some((told.before, told.position))
    }

    #[test]
    fn a_loss_is_told_once_between_what_is_left_before_it_and_what_follows() {
        let mut known = 0;
        assert_eq!(told(&page(&[2, 5, 8], 9, Some(6)), 20, &mut known), Some((2, 6)));
        assert_eq!(known, 6);
        assert_eq!(find_loss(&page(&[2, 5, 8], 9, Some(6)), 20, &mut known), None);
        let mut known = 0;
        assert_eq!(
            told(&page(&[2, 6, 8], 9, Some(6)), 20, &mut known),
            Some((1, 5)),
            "an event is left there"
        );
    }

    #[test]
    fn a_loss_beyond_the_page_waits_for_the_next() {
        let mut known = 0;
        let loss = find_loss(&page(&[2], 4, Some(6)), 20, &mut known);
        assert_eq!((loss, known), (Some(Loss { resumed_at: 6, told: None }), 0));
        assert_eq!(told(&page(&[8], 5, Some(6)), 5, &mut known), Some((0, 5)), "not beyond what is read");
    }

    #[test]
    fn who_was_promised_nothing_has_lost_nothing() {
        let mut known = NOTHING_PROMISED;
        assert_eq!(find_loss(&page(&[8], 9, Some(6)), 20, &mut known), None);
        assert_eq!(
            told(&page(&[12], 15, Some(11)), 20, &mut known),
            Some((0, 11)),
            "what goes while it reads is"
        );
    }

    #[test]
    fn waiting_for_the_head_ends() {
        let (mut waited, mut looks) = (Duration::ZERO, 0);
        while !is_last_look(waited) {
            waited += next_look(waited);
            looks += 1;
        }
        assert_eq!((waited, looks), (AHEAD_PATIENCE, 8));
    }
}
