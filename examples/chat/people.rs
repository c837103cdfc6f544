//! Who is called what. Decides; the [`Lobby`](crate::lobby::Lobby) owns it and does the sending.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fanfare::SessionId;

use crate::api::Refusal;
use crate::values::PersonName;

/// As many people as are known at a time.
const MAX_PEOPLE: usize = 10_000;
/// How long a name is kept for somebody who has left.
const KEPT: Duration = Duration::from_secs(600);
/// How much somebody may do at once, and how much of that comes back each second.
const BURST: f64 = 12.0;
const PER_SECOND: f64 = 2.0;

#[derive(Debug, Default)]
pub(crate) struct People {
    by_session: HashMap<SessionId, Person>,
    /// By folded name: two people in one chat never look the same.
    by_name: HashMap<String, SessionId>,
}

#[derive(Debug)]
struct Person {
    name: PersonName,
    seen: Instant,
    allowance: f64,
    counted: Instant,
}

impl People {
    /// Gives a session its name, or another one.
    pub(crate) fn introduce(
        &mut self,
        session: SessionId,
        name: PersonName,
        now: Instant,
    ) -> Result<(), Refusal> {
        if self.by_name.get(&name.folded()).is_some_and(|&holder| holder != session) {
            return Err(Refusal::NameTaken);
        }
        if let Some(person) = self.by_session.get_mut(&session) {
            self.by_name.remove(&person.name.folded());
            self.by_name.insert(name.folded(), session);
            person.name = name;
            person.seen = now;
            return Ok(());
        }
        if self.by_session.len() >= MAX_PEOPLE {
            return Err(Refusal::Full);
        }
        self.by_name.insert(name.folded(), session);
        self.by_session.insert(session, Person { name, seen: now, allowance: BURST, counted: now });
        Ok(())
    }

    /// The name that a session speaks under, if it may do so now. What it does has a `cost`.
    pub(crate) fn speak(
        &mut self,
        session: SessionId,
        cost: f64,
        now: Instant,
    ) -> Result<PersonName, Refusal> {
        let person = self.by_session.get_mut(&session).ok_or(Refusal::Unknown)?;
        let earned = now.duration_since(person.counted).as_secs_f64() * PER_SECOND;
        person.allowance = (person.allowance + earned).min(BURST);
        person.counted = now;
        if person.allowance < cost {
            return Err(Refusal::TooFast);
        }
        person.allowance -= cost;
        Ok(person.name.clone())
    }

    /// The name of a session that is seen in a room.
    pub(crate) fn see(&mut self, session: SessionId, now: Instant) -> Option<&PersonName> {
        let person = self.by_session.get_mut(&session)?;
        person.seen = now;
        Some(&person.name)
    }

    /// Forgets those who have been away for long.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        let by_name = &mut self.by_name;
        self.by_session.retain(|_, person| {
            let is_kept = now.duration_since(person.seen) < KEPT;
            if !is_kept {
                by_name.remove(&person.name.folded());
            }
            is_kept
        });
    }
}
