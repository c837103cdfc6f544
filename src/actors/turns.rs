//! Whose turn it is to read a page of the log, on one thread. Pure.
//!
//! Every other turn goes round, so that nobody waits behind a long replay. The turns between go to whoever began first:
//! in a crowd that follows one busy channel each would else read as fast as the others and none fast enough to come
//! to its end, and only who is live costs no turns any more.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::spare::Spare;
use crate::identity::ClientId;

/// Replays that read a page at the same time.
const READING_AT_ONCE: usize = 2;
/// With more than this waiting for their turn it is a crowd that came back at once.
const CROWD: usize = 512;

/// When a replay may read a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    Later,
    /// Later, and nobody gives out turns yet.
    FirstToWait,
}

/// In which order replays began.
type Ticket = u64;

#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Those that read a page now.
    reading: Vec<ClientId>,
    /// Of all that have not come to their end.
    tickets: HashMap<ClientId, Ticket>,
    waiting: BTreeMap<Ticket, ClientId>,
    /// The order in which they asked. Some may have had their turn meanwhile.
    round: VecDeque<Ticket>,
    given_out: Ticket,
    is_round: bool,
}

impl Turns {
    /// Asks for a turn.
    pub(crate) fn ask(&mut self, client: ClientId) -> Turn {
        let ticket = *self.tickets.entry(client).or_insert(self.given_out);
        self.given_out = self.given_out.max(ticket + 1);
        if self.waiting.is_empty() && self.reading.len() < READING_AT_ONCE {
            self.reading.push(client);
            return Turn::Now;
        }
        self.waiting.insert(ticket, client);
        self.round.push_back(ticket);
        if self.waiting.len() == 1 { Turn::FirstToWait } else { Turn::Later }
    }

    /// A page is read. True if the next may read at once, which it may not in a crowd. Idempotent.
    pub(crate) fn has_read(&mut self, client: ClientId) -> bool {
        let before = self.reading.len();
        self.reading.retain(|reading| *reading != client);
        self.reading.len() < before && self.waiting.len() <= CROWD
    }

    /// The replay whose turn it is, if there is a turn to give.
    pub(crate) fn next(&mut self) -> Option<ClientId> {
        if self.reading.len() >= READING_AT_ONCE {
            return None;
        }
        self.is_round = !self.is_round;
        let in_round = if self.is_round { self.next_in_round() } else { None };
        let next = in_round.or_else(|| self.waiting.pop_first().map(|(_, client)| client))?;
        self.reading.push(next);
        if self.waiting.is_empty() {
            self.round = VecDeque::new();
        }
        Some(next)
    }

    fn next_in_round(&mut self) -> Option<ClientId> {
        while let Some(ticket) = self.round.pop_front() {
            if let Some(client) = self.waiting.remove(&ticket) {
                return Some(client);
            }
        }
        None
    }

    /// Whether somebody waits.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets a client that is live, or gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        if let Some(ticket) = self.tickets.remove(&client) {
            self.waiting.remove(&ticket);
        }
        self.tickets.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients<const N: usize>() -> [ClientId; N] {
        std::array::from_fn(|_| ClientId::mint())
    }

    #[test]
    fn a_few_read_at_once_and_the_others_in_turns() {
        let [a, b, c, d] = clients();
        let mut turns = Turns::default();
        assert_eq!(
            [a, b, c, d].map(|client| turns.ask(client)),
            [Turn::Now, Turn::Now, Turn::FirstToWait, Turn::Later]
        );
        assert_eq!(turns.next(), None);
        assert!(turns.has_read(a));
        assert!(!turns.has_read(a), "told once");
        assert_eq!((turns.next(), turns.next()), (Some(c), None));
        turns.forget(d);
        assert!(!turns.is_awaited());
        turns.has_read(c);
        assert_eq!(turns.next(), None);
    }

    #[test]
    fn in_a_crowd_the_next_waits() {
        let mut turns = Turns::default();
        let [first, second] = clients();
        turns.ask(first);
        turns.ask(second);
        for client in clients::<{ CROWD + 1 }>() {
            turns.ask(client);
        }
        assert!(!turns.has_read(first));
        assert!(turns.next().is_some());
        assert!(turns.has_read(second), "no crowd any more");
    }

    /// Each needs many pages; those who began first come to their end while the others go on.
    #[test]
    fn who_began_first_comes_to_its_end_first_and_nobody_stands_still() {
        const PAGES: usize = 50;
        let all = clients::<100>();
        let mut turns = Turns::default();
        let mut read: HashMap<ClientId, usize> = HashMap::new();
        let mut under_way: VecDeque<ClientId> =
            all.into_iter().filter(|&client| turns.ask(client) == Turn::Now).collect();
        let mut ended = Vec::new();
        let mut halfway = None;
        while let Some(client) = under_way.pop_front() {
            let pages = read.entry(client).or_default();
            *pages += 1;
            turns.has_read(client);
            if *pages == PAGES {
                turns.forget(client);
                ended.push(client);
            } else {
                turns.ask(client);
            }
            under_way.extend(turns.next());
            if ended.len() == 50 && halfway.is_none() {
                halfway = Some(all.map(|client| read.get(&client).copied().unwrap_or(0)));
            }
        }
        assert_eq!(ended.len(), all.len());
        let halfway = halfway.expect("half of them ended");
        assert!(halfway[..40].iter().all(|&pages| pages == PAGES), "in the order in which they began");
        assert!(halfway.iter().all(|&pages| pages >= PAGES / 4), "the others went on: {halfway:?}");
        assert!(!turns.is_awaited() && turns.tickets.is_empty() && turns.round.is_empty());
    }
}
