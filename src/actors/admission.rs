//! Who is let in: how many clients there may be, and how fast they may come and publish. Pure: the broker asks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::revoked::Standing;
use super::roster::Roster;
use crate::identity::{ClientId, Publisher, SessionId};

/// How many, at most; 0 for as many as come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdmissionLimits {
    pub(crate) connections: usize,
    pub(crate) per_session: usize,
    pub(crate) per_address: usize,
    /// New streams a second.
    pub(crate) connect_rate: u32,
    /// Events a second of one publisher.
    pub(crate) publish_rate: u32,
}

/// Publishers whose rate is known; those beyond share one.
const PUBLISHERS: usize = 100_000;
/// How often those that were quiet are forgotten, once there are so many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// There is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Session,
    Address,
    /// They come faster than they may.
    Rate,
    /// As many read the history as may.
    Readers,
}

/// The clients that were let in.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    guests: Roster<ClientId, Guest>,
    sessions: Roster<SessionId, u32>,
    addresses: Roster<Network, u32>,
    comings: Option<Bucket>,
    publishers: HashMap<Publisher, Bucket>,
    /// Of all for whom there is no room.
    others: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Guest {
    session: SessionId,
    network: Option<Network>,
    /// As whom it was let in, until it has its place.
    standing: Option<Box<Standing>>,
}

/// Those who count as one by their address: whoever has one of the version 6 has all 2^64 of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    V6(u64),
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Self {
        Self {
            limits,
            guests: Roster::default(),
            sessions: Roster::default(),
            addresses: Roster::default(),
            comings: None,
            publishers: HashMap::new(),
            others: None,
            swept: None,
        }
    }

    /// Lets a client in, if there is room.
    pub(crate) fn enter(
        &mut self,
        client: ClientId,
        standing: Standing,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Full> {
        let network = address.map(Network::of);
        let limits = self.limits;
        let of = |count: Option<&u32>| count.map_or(0, |&count| count as usize);
        if is_over(limits.connections, self.guests.len()) {
            return Err(Full::Server);
        }
        if is_over(limits.per_session, of(self.sessions.get(&standing.session))) {
            return Err(Full::Session);
        }
        if is_over(limits.per_address, of(network.and_then(|network| self.addresses.get(&network)))) {
            return Err(Full::Address);
        }
        if limits.connect_rate > 0 {
            let comings = self.comings.get_or_insert_with(|| Bucket::new(limits.connect_rate, now));
            comings.take(1, now).map_err(|_| Full::Rate)?;
        }
        let session = standing.session;
        self.sessions.update(session, |count| *count += 1);
        if let Some(network) = network {
            self.addresses.update(network, |count| *count += 1);
        }
        self.guests.insert(client, Guest { session, network, standing: Some(Box::new(standing)) });
        Ok(())
    }

    /// A client has left. Nothing the second time.
    pub(crate) fn leave(&mut self, client: ClientId) {
        let Some(Guest { session, network, .. }) = self.guests.remove(&client) else { return };
        take_one(&mut self.sessions, &session);
        if let Some(network) = network {
            take_one(&mut self.addresses, &network);
        }
        self.guests.compact(|_, _, _, _| {});
        self.sessions.compact(|_, _, _, _| {});
        self.addresses.compact(|_, _, _, _| {});
    }

    /// As whom a client was let in that has not its place yet; nothing for those of this process, who need not be.
    pub(crate) fn standing(&self, client: ClientId) -> Option<&Standing> {
        self.guests.get(&client)?.standing.as_deref()
    }

    /// A client has its place: whatever becomes of its session is done to it there.
    pub(crate) fn settle(&mut self, client: ClientId) {
        if let Some(guest) = self.guests.get_mut(&client) {
            guest.standing = None;
        }
    }

    /// How many were let in.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.guests.len()
    }

    /// Lets somebody publish so many events, or says how long to wait.
    pub(crate) fn publish(
        &mut self,
        publisher: &Publisher,
        events: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let rate = self.limits.publish_rate;
        if rate == 0 {
            return Ok(());
        }
        self.sweep(now);
        let has_room = self.publishers.len() < PUBLISHERS;
        let bucket = match self.publishers.entry(publisher.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if has_room => new.insert(Bucket::new(rate, now)),
            Entry::Vacant(_) => self.others.get_or_insert_with(|| Bucket::new(rate, now)),
        };
        bucket.take(events, now)
    }

    /// Forgets those that were quiet, who would be as new.
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if self.publishers.len() >= PUBLISHERS / 2 && is_due {
            self.swept = Some(now);
            self.publishers.retain(|_, bucket| !bucket.is_full(now));
        }
    }
}

fn is_over(limit: usize, count: usize) -> bool {
    limit > 0 && count >= limit
}

fn take_one<K: Eq + Hash>(counts: &mut Roster<K, u32>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: AdmissionLimits =
        AdmissionLimits { connections: 0, per_session: 0, per_address: 0, connect_rate: 0, publish_rate: 0 };

    fn who(session: SessionId) -> Standing {
        Standing { session, asked: Instant::now(), issued: None }
    }

    fn enter(admission: &mut Admission, session: SessionId, address: &str) -> Result<ClientId, Full> {
        let client = ClientId::mint();
        let address = address.parse().ok();
        admission.enter(client, who(session), address, Instant::now()).map(|()| client)
    }

    #[test]
    fn without_limits_all_come_in() {
        let mut admission = Admission::new(NONE);
        let session = SessionId::mint();
        for _ in 0..1000 {
            enter(&mut admission, session, "10.0.0.1").expect("no limit");
        }
        assert!(admission.publish(&Publisher::HUB, usize::MAX, Instant::now()).is_ok());
    }

    #[test]
    fn each_limit_holds_and_a_place_is_free_again_once() {
        let (ada, bob) = (SessionId::mint(), SessionId::mint());
        for (limits, full) in [
            (AdmissionLimits { connections: 3, ..NONE }, Full::Server),
            (AdmissionLimits { per_session: 3, ..NONE }, Full::Session),
            (AdmissionLimits { per_address: 3, ..NONE }, Full::Address),
        ] {
            let mut admission = Admission::new(limits);
            let first = enter(&mut admission, ada, "10.0.0.1").expect("room");
            for _ in 0..2 {
                enter(&mut admission, ada, "10.0.0.1").expect("room");
            }
            assert_eq!(enter(&mut admission, ada, "10.0.0.1"), Err(full));
            let other = enter(&mut admission, bob, "10.0.0.2");
            assert_eq!(other.is_err(), full == Full::Server, "{full:?}");
            let before = admission.count();
            admission.leave(first);
            admission.leave(first);
            assert_eq!(admission.count(), before - 1);
            enter(&mut admission, ada, "10.0.0.1").expect("room again");
            assert_eq!(enter(&mut admission, ada, "10.0.0.1"), Err(full));
        }
    }

    #[test]
    fn as_whom_a_client_came_is_known_until_it_has_its_place() {
        let mut admission = Admission::new(AdmissionLimits { per_session: 1, ..NONE });
        let ada = SessionId::mint();
        let client = enter(&mut admission, ada, "10.0.0.1").expect("room");
        assert_eq!(admission.standing(client).map(|standing| standing.session), Some(ada));
        admission.settle(client);
        assert!(admission.standing(client).is_none());
        assert_eq!(enter(&mut admission, ada, "10.0.0.1"), Err(Full::Session), "it still counts");
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let mut admission = Admission::new(NONE);
        let clients: Vec<_> = (0..1000)
            .map(|n| enter(&mut admission, SessionId::mint(), &format!("10.0.{}.{}", n / 250, n % 250)))
            .collect();
        for client in clients {
            admission.leave(client.expect("no limit"));
        }
        assert!(admission.sessions.is_empty() && admission.addresses.is_empty());
        assert!(admission.guests.capacity() < 100);
    }

    #[test]
    fn a_network_of_version_6_counts_as_one_address() {
        for (one, other, same) in [
            ("2001:db8:1:2::3", "2001:db8:1:2:4:5:6:7", true),
            ("2001:db8:1:2::3", "2001:db8:1:3::3", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            let [one, other] = [one, other].map(|text: &str| Network::of(text.parse().expect("an address")));
            assert_eq!(one == other, same);
        }
    }

    #[test]
    fn whoever_was_refused_does_not_count_for_the_rate() {
        let mut admission = Admission::new(AdmissionLimits { per_session: 1, connect_rate: 2, ..NONE });
        let (ada, now) = (SessionId::mint(), Instant::now());
        let mut come = |session| admission.enter(ClientId::mint(), who(session), None, now);
        assert_eq!(come(ada), Ok(()));
        assert_eq!([come(ada), come(ada)], [Err(Full::Session); 2]);
        assert_eq!(come(SessionId::mint()), Ok(()));
        assert_eq!(come(SessionId::mint()), Err(Full::Rate));
    }

    #[test]
    fn each_publisher_has_a_rate_of_its_own_and_a_crowd_beyond_the_table_shares_one() {
        let now = Instant::now();
        let mut admission = Admission::new(AdmissionLimits { publish_rate: 2, ..NONE });
        let mut publish = |name: String, now| admission.publish(&Publisher::named(name), 2, now).is_ok();
        for n in 0..PUBLISHERS {
            assert!(publish(n.to_string(), now));
        }
        assert!(!publish("7".into(), now));
        assert!(publish("one more".into(), now));
        assert!(!publish("another".into(), now));
        let later = now + 2 * SWEEP_EVERY;
        assert!(publish("another".into(), later) && publish("7".into(), later));
        assert_eq!(admission.publishers.len(), 2);
    }
}
