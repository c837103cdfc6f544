//! The lobby: knows people by name and keeps the roster of every room that somebody is in.
//!
//! fanfare knows who follows a channel, by session and to the moment, however they left. The lobby asks it about each
//! room in use twice a second, adds the names, and publishes a roster when it has changed: one question for a
//! room, whatever the number of people in it. Rosters travel in the room's own stream, whole, so that a page has
//! one source and one order and never has to piece together who came and went.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use actix::prelude::*;
use fanfare::{Broadcast, Broker, Channel, Event, InvalidValue, Members, Presence, SessionId};
use serde::Serialize;

use crate::api::Refusal;
use crate::people::People;
use crate::values::{PersonName, RoomName};

const LOOK: Duration = Duration::from_millis(500);
const MAX_ROOMS: usize = 500;
/// As many people as a roster names; the rest is a number.
const NAMED: usize = 100;
/// How long a room is looked after without anybody in it: its first guest's stream may be on its way.
const KEPT_EMPTY: Duration = Duration::from_secs(30);

/// Command: this session is in a room, and is called this. Sent whenever a stream begins: the room's roster follows.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub(crate) struct Enter {
    pub(crate) session: SessionId,
    pub(crate) room: RoomName,
    pub(crate) name: PersonName,
}

/// Command: count this towards what the session may do, and answer with its name.
#[derive(Debug, Message)]
#[rtype(result = "Result<PersonName, Refusal>")]
pub(crate) struct Speak {
    pub(crate) session: SessionId,
    pub(crate) cost: f64,
}

#[derive(Debug)]
pub(crate) struct Lobby {
    broker: Addr<Broker>,
    people: People,
    rooms: HashMap<RoomName, Room>,
    is_looking: bool,
}

#[derive(Debug)]
struct Room {
    channel: Channel,
    told: Roster,
    /// Who has just come and is to be told even if nothing has changed, as after a reload.
    newcomers: HashSet<SessionId>,
    used: Instant,
}

/// Who is in a room.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Roster {
    people: Vec<Present>,
    /// People beyond those, and sessions that have not said their name.
    others: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Present {
    session: SessionId,
    name: PersonName,
}

#[derive(Serialize)]
struct RosterEvent<'a> {
    room: &'a RoomName,
    #[serde(flatten)]
    roster: &'a Roster,
}

impl Lobby {
    pub(crate) fn new(broker: Addr<Broker>) -> Self {
        Self { broker, people: People::default(), rooms: HashMap::new(), is_looking: false }
    }

    /// Asks the broker about the rooms, one after the other, so that it never has more than one question waiting.
    fn look(&mut self, ctx: &mut Context<Self>) {
        // A broker that is slow to answer is not asked more.
        if self.is_looking || self.rooms.is_empty() {
            return;
        }
        self.is_looking = true;
        let broker = self.broker.clone();
        let rooms = self.rooms.iter().map(|(name, room)| (name.clone(), room.channel.clone()));
        let rooms: Vec<_> = rooms.collect();
        let asked = async move {
            let mut found = Vec::with_capacity(rooms.len());
            for (name, channel) in rooms {
                if let Ok(members) = broker.send(Presence { channel }).await {
                    found.push((name, members));
                }
            }
            found
        };
        let told = asked.into_actor(self).map(|found, lobby, _| {
            lobby.is_looking = false;
            for (name, members) in found {
                if let Err(error) = lobby.found(&name, members) {
                    tracing::error!(%error, "a roster could not be published");
                }
            }
        });
        ctx.spawn(told);
    }

    fn found(&mut self, name: &RoomName, members: Members) -> Result<(), InvalidValue> {
        let Some(room) = self.rooms.get_mut(name) else { return Ok(()) };
        let now = Instant::now();
        if members.sessions > 0 {
            room.used = now;
        } else if now.duration_since(room.used) > KEPT_EMPTY {
            self.rooms.remove(name);
            return Ok(());
        }
        let present = members.members.into_iter().filter_map(|(session, _)| {
            let name = self.people.see(session, now)?.clone();
            Some(Present { session, name })
        });
        let mut people: Vec<_> = present.collect();
        people.sort_by_cached_key(|present| present.name.folded());
        people.truncate(NAMED);
        let roster = Roster { others: members.sessions - people.len(), people };

        let newcomers = std::mem::take(&mut room.newcomers);
        let event = Event::json("roster", &RosterEvent { room: name, roster: &roster })?.ephemeral();
        if roster != room.told {
            self.broker.do_send(Broadcast::channel(room.channel.clone(), event)?);
            room.told = roster;
        } else if !newcomers.is_empty() {
            self.broker.do_send(Broadcast::sessions(newcomers, event));
        }
        Ok(())
    }
}

impl Actor for Lobby {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, Self::look);
        ctx.run_interval(Duration::from_secs(60), |lobby, _| lobby.people.forget_old(Instant::now()));
    }
}

impl Handler<Enter> for Lobby {
    type Result = Result<(), Refusal>;

    fn handle(
        &mut self,
        Enter { session, room: name, name: person }: Enter,
        _: &mut Self::Context,
    ) -> Self::Result {
        let now = Instant::now();
        if self.rooms.len() >= MAX_ROOMS && !self.rooms.contains_key(&name) {
            return Err(Refusal::Full);
        }
        let channel = Channel::new(name.channel())?;
        self.people.introduce(session, person, now)?;
        let fresh = || Room { channel, told: Roster::default(), newcomers: HashSet::new(), used: now };
        let room = self.rooms.entry(name).or_insert_with(fresh);
        room.newcomers.insert(session);
        Ok(())
    }
}

impl Handler<Speak> for Lobby {
    type Result = Result<PersonName, Refusal>;

    fn handle(&mut self, Speak { session, cost }: Speak, _: &mut Self::Context) -> Self::Result {
        self.people.speak(session, cost, Instant::now())
    }
}
