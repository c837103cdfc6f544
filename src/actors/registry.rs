//! Who is connected, as whom, and who follows what. Pure: the broker asks, and sends what it is told.

use std::collections::{BTreeMap, BTreeSet};

use super::index::SelectorIndex;
use super::keys::Keys;
use super::roster::{Key, Roster};
use crate::channel::{Channel, Reach, Selector};
use crate::counts::{ByTransport, Transport};
use crate::identity::{ClientId, SessionId};
use crate::interest::{Interest, Subscription};
use crate::wire::Encoding;

/// A worker's number in the registry.
pub(crate) type WorkerKey = usize;

/// Where an event must go and in which encoding it is wanted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) worker: WorkerKey,
    /// Nothing for a worker whose clients take events as they are.
    pub(crate) encoding: Option<Encoding>,
}

/// How many clients stand behind each route. There are few routes, so a short list beats a map.
#[derive(Debug, Default)]
struct Routes(Vec<(Route, u32)>);

impl Routes {
    fn add(&mut self, route: Route) {
        match self.0.iter_mut().find(|(known, _)| *known == route) {
            Some((_, clients)) => *clients += 1,
            None => self.0.push((route, 1)),
        }
    }

    fn remove(&mut self, route: Route) {
        if let Some(at) = self.0.iter().position(|(known, _)| *known == route)
            && let Some((_, clients)) = self.0.get_mut(at)
        {
            *clients -= 1;
            if *clients == 0 {
                self.0.swap_remove(at);
            }
        }
    }
}

/// Who follows a selector, and by which routes they are reached: of a single one that is the client's own.
#[derive(Debug, Default)]
struct Followers {
    clients: Keys,
    routes: Option<Box<Routes>>,
}

#[derive(Debug)]
struct Client {
    interest: Interest,
    route: Route,
}

/// Sessions, their clients, and an index from channel and wildcard to both clients and routes.
///
/// What an event costs here is set by the selectors that match it, not by how many clients there are.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    clients: Roster<ClientId, Client>,
    sessions: Roster<SessionId, Keys>,
    followers: SelectorIndex<Followers>,
    all: Routes,
}

/// Who is on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) clients: usize,
    pub(crate) sessions: BTreeMap<SessionId, usize>,
}

impl Followers {
    /// True if the client did not follow. `route_of` knows the routes of the others.
    fn add(&mut self, key: Key, route: Route, route_of: impl Fn(Key) -> Option<Route>) -> bool {
        if !self.clients.insert(key) {
            return false;
        }
        if let Some(routes) = &mut self.routes {
            routes.add(route);
        } else if !matches!(self.clients, Keys::One(_)) {
            let mut routes = Routes::default();
            self.clients.iter().filter_map(route_of).for_each(|route| routes.add(route));
            self.routes = Some(Box::new(routes));
        }
        true
    }

    fn remove(&mut self, key: Key, route: Route) {
        if !self.clients.remove(key) {
            return;
        }
        if let Some(routes) = &mut self.routes {
            routes.remove(route);
        }
        if matches!(self.clients, Keys::None | Keys::One(_)) {
            self.routes = None;
        }
    }
}

impl Registry {
    /// Enters a client. Entering it again changes nothing.
    pub(crate) fn enter(&mut self, id: ClientId, interest: Interest, route: Route) {
        if self.clients.contains(&id) {
            return;
        }
        let (session, subscription) = (interest.session, interest.subscription.clone());
        let key = self.clients.insert(id, Client { interest, route });
        for selector in subscription.selectors() {
            self.follow(selector, key, route);
        }
        self.sessions.update(session, |clients| {
            clients.insert(key);
        });
        self.all.add(route);
    }

    /// Has a client follow this instead of what it did. Returns what it does not follow any more.
    pub(crate) fn change(&mut self, id: ClientId, subscription: &Subscription) -> Vec<Selector> {
        let Some(key) = self.clients.key(&id) else { return Vec::new() };
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        let route = client.route;
        let before = std::mem::replace(&mut client.interest.subscription, subscription.clone());
        for selector in subscription.selectors() {
            self.follow(selector, key, route);
        }
        let is_left = |selector: &&Selector| subscription.selectors().all(|kept| kept != *selector);
        let left: Vec<_> = before.selectors().filter(is_left).cloned().collect();
        for selector in &left {
            self.unfollow(selector, key, route);
        }
        left
    }

    fn follow(&mut self, selector: &Selector, key: Key, route: Route) {
        let Self { clients, followers, .. } = self;
        followers.entry(selector).add(key, route, |other| Some(clients.at(other)?.1.route));
    }

    fn unfollow(&mut self, selector: &Selector, key: Key, route: Route) {
        self.followers.update(selector, |followers| {
            followers.remove(key, route);
            !followers.clients.is_empty()
        });
    }

    /// Forgets a client, and its session with the last one. Returns what it heard; nothing the second time.
    pub(crate) fn leave(&mut self, id: ClientId) -> Option<Interest> {
        let key = self.clients.key(&id)?;
        let Client { interest, route } = self.clients.remove(&id)?;
        for selector in interest.subscription.selectors() {
            self.unfollow(selector, key, route);
        }
        if let Some(clients) = self.sessions.get_mut(&interest.session) {
            clients.remove(key);
            if clients.is_empty() {
                self.sessions.remove(&interest.session);
            }
        }
        self.all.remove(route);
        self.shrink();
        Some(interest)
    }

    /// Gives memory back after a crowd has left, so that what was held for it is not held for ever.
    fn shrink(&mut self) {
        let Self { clients, sessions, followers, .. } = self;
        clients.compact(|_, client, from, to| {
            for selector in client.interest.subscription.selectors() {
                followers.entry(selector).clients.renumber(from, to);
            }
            if let Some(clients) = sessions.get_mut(&client.interest.session) {
                clients.renumber(from, to);
            }
        });
        sessions.compact(|_, _, _, _| {});
    }

    /// Where the followers of a selector are reached.
    fn routes<'a>(&'a self, followers: &'a Followers) -> impl Iterator<Item = Route> + 'a {
        let many = followers.routes.iter().flat_map(|routes| routes.0.iter().map(|(route, _)| *route));
        let only = followers.clients.iter().filter(|_| followers.routes.is_none());
        many.chain(only.filter_map(|key| self.route(key)))
    }

    fn route(&self, key: Key) -> Option<Route> {
        Some(self.clients.at(key)?.1.route)
    }

    /// Whether anybody follows a channel.
    pub(crate) fn has_followers(&self, channel: &Channel) -> bool {
        let mut found = false;
        self.followers.for_each_match(channel, |_| found = true);
        found
    }

    /// Forgets all clients of a worker that is gone, and returns what they heard.
    pub(crate) fn drop_worker(&mut self, worker: WorkerKey) -> Vec<Interest> {
        let gone: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| client.route.worker == worker)
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().filter_map(|id| self.leave(id)).collect()
    }

    /// Adds to `routes` where an event of `channel` must go. Routes may come more than once.
    pub(crate) fn routes_to(&self, channel: &Channel, routes: &mut Vec<Route>) {
        match channel.reach() {
            Reach::Everyone => routes.extend(self.all.0.iter().map(|(route, _)| *route)),
            Reach::Session(session) => {
                let clients = self.sessions.get(&session).into_iter().flat_map(Keys::iter);
                routes.extend(clients.filter_map(|key| self.route(key)));
            }
            Reach::Followers => {
                self.followers.for_each_match(channel, |followers| routes.extend(self.routes(followers)));
            }
        }
    }

    /// Adds to `clients` those that an event of `channel` is for, filters aside. A client may come more than once.
    pub(crate) fn clients_on(&self, channel: &Channel, clients: &mut Vec<ClientId>) {
        let id = |key| self.clients.at(key).map(|(id, _)| *id);
        match channel.reach() {
            Reach::Everyone => clients.extend(self.clients.iter().map(|(id, _)| *id)),
            Reach::Session(session) => {
                clients.extend(self.sessions.get(&session).into_iter().flat_map(Keys::iter).filter_map(id));
            }
            Reach::Followers => self.followers.for_each_match(channel, |followers| {
                clients.extend(followers.clients.iter().filter_map(id));
            }),
        }
    }

    /// Who follows `channel`: each client once however many of its selectors match.
    pub(crate) fn members(&self, channel: &Channel) -> Members {
        let mut keys = BTreeSet::<Key>::new();
        self.followers.for_each_match(channel, |followers| keys.extend(followers.clients.iter()));
        let mut sessions = BTreeMap::new();
        for &key in &keys {
            if let Some((_, client)) = self.clients.at(key) {
                *sessions.entry(client.interest.session).or_default() += 1;
            }
        }
        Members { clients: keys.len(), sessions }
    }

    /// The clients of a session, by the worker that has them.
    pub(crate) fn clients_of(&self, session: SessionId) -> impl Iterator<Item = (WorkerKey, ClientId)> {
        let keys = self.sessions.get(&session).into_iter().flat_map(Keys::iter);
        keys.filter_map(|key| self.clients.at(key)).map(|(id, client)| (client.route.worker, *id))
    }

    /// All clients, by the worker that has them.
    pub(crate) fn clients(&self) -> impl Iterator<Item = (WorkerKey, ClientId)> {
        self.clients.iter().map(|(id, client)| (client.route.worker, *id))
    }

    /// Whether a client was entered.
    pub(crate) fn knows(&self, id: ClientId) -> bool {
        self.clients.contains(&id)
    }

    /// Who has a client.
    pub(crate) fn worker_of(&self, client: ClientId) -> Option<WorkerKey> {
        self.clients.get(&client).map(|client| client.route.worker)
    }

    /// The clients, by how they are connected.
    pub(crate) fn connections(&self) -> ByTransport {
        let mut connections = ByTransport::default();
        for (route, clients) in &self.all.0 {
            let transport = route.encoding.map_or(Transport::Stream, Encoding::transport);
            connections.add(transport, u64::from(*clients));
        }
        connections
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().map(|(id, _)| *id)
    }

    pub(crate) fn client_count(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The number of channels that somebody follows by name.
    pub(crate) fn channel_count(&self) -> usize {
        self.followers.exact_len()
    }

    /// Whether anybody follows exactly what `selector` says.
    #[cfg(test)]
    pub(crate) fn is_followed(&mut self, selector: &Selector) -> bool {
        let mut found = false;
        self.followers.update(selector, |_| {
            found = true;
            true
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Selector;
    use crate::interest::{Filter, Subscription};

    const HERE: Route = Route { worker: 0, encoding: Some(Encoding::SseRaw) };
    const THERE: Route = Route { worker: 1, encoding: Some(Encoding::SseRaw) };

    fn interest(session: SessionId, selectors: &[&str]) -> Interest {
        let selectors = selectors.iter().map(|text| Selector::new(text).expect("valid"));
        Interest::new(session, Subscription::new(selectors, Filter::default()))
    }

    fn routes(registry: &Registry, channel: &Channel) -> Vec<Route> {
        let mut routes = Vec::new();
        registry.routes_to(channel, &mut routes);
        routes.sort_unstable();
        routes.dedup();
        routes
    }

    fn channel(name: &str) -> Channel {
        Channel::new(name).expect("valid")
    }

    #[test]
    fn an_event_goes_where_somebody_follows_its_channel() {
        let mut registry = Registry::default();
        registry.enter(ClientId::mint(), interest(SessionId::mint(), &["a/*", "b"]), HERE);
        registry.enter(ClientId::mint(), interest(SessionId::mint(), &["a/1"]), THERE);
        assert_eq!(routes(&registry, &channel("a/1")), [HERE, THERE]);
        assert_eq!(routes(&registry, &channel("b")), [HERE]);
        assert_eq!(routes(&registry, &channel("c")), []);
        assert_eq!(routes(&registry, &Channel::everyone()), [HERE, THERE]);
    }

    #[test]
    fn a_session_is_reached_on_every_worker_and_goes_with_its_last_client() {
        let mut registry = Registry::default();
        let session = SessionId::mint();
        let (one, two) = (ClientId::mint(), ClientId::mint());
        registry.enter(one, interest(session, &[]), HERE);
        registry.enter(two, interest(session, &[]), THERE);
        assert_eq!(routes(&registry, &Channel::inbox(session)), [HERE, THERE]);
        registry.leave(one);
        registry.leave(one);
        assert_eq!(routes(&registry, &Channel::inbox(session)), [THERE]);
        assert_eq!(registry.session_count(), 1);
        registry.leave(two);
        assert_eq!((registry.session_count(), registry.client_count()), (0, 0));
    }

    #[test]
    fn those_an_event_is_for_are_found() {
        let mut registry = Registry::default();
        let (session, [one, two]) = (SessionId::mint(), [ClientId::mint(), ClientId::mint()]);
        registry.enter(one, interest(session, &["a/*", "a/1"]), HERE);
        registry.enter(two, interest(SessionId::mint(), &["b"]), HERE);
        let clients = |channel: &Channel| {
            let mut clients = Vec::new();
            registry.clients_on(channel, &mut clients);
            clients.sort_unstable();
            clients.dedup();
            clients
        };
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(clients(&channel("a/1")), [one]);
        assert_eq!(clients(&channel("a")), []);
        assert_eq!(clients(&Channel::inbox(session)), [one]);
        assert_eq!(clients(&Channel::everyone()), both);
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut registry = Registry::default();
        let clients: Vec<_> = (0..1000).map(|_| ClientId::mint()).collect();
        for (n, &client) in clients.iter().enumerate() {
            let own = format!("own/{n}");
            registry.enter(client, interest(SessionId::mint(), &[&own, "all/*/x", "**"]), HERE);
        }
        assert_eq!(registry.channel_count(), 1000);
        registry.drop_worker(HERE.worker);
        assert_eq!((registry.client_count(), registry.session_count(), registry.channel_count()), (0, 0, 0));
        assert!(routes(&registry, &Channel::everyone()).is_empty());
        for text in ["own/7", "all/*/x", "**"] {
            assert!(!registry.is_followed(&Selector::new(text).expect("valid")), "{text}");
        }
        assert!(registry.clients.capacity() < 100);
    }

    /// Those who stay have other numbers then, and are found as before.
    #[test]
    fn who_stays_when_a_crowd_leaves_is_still_found() {
        let mut registry = Registry::default();
        let all: Vec<_> = (0..1000).map(|n| (n, ClientId::mint(), SessionId::mint())).collect();
        for &(n, client, session) in &all {
            let route = if n % 2 == 0 { HERE } else { THERE };
            registry.enter(client, interest(session, &[&format!("own/{n}"), "all/*"]), route);
        }
        let (left, stay) = all.split_at(990);
        for &(_, client, _) in left {
            registry.leave(client);
        }
        assert!(registry.clients.capacity() < 100);
        for &(n, client, session) in stay {
            let own = channel(&format!("own/{n}"));
            let route = if n % 2 == 0 { HERE } else { THERE };
            assert_eq!(routes(&registry, &own), [route]);
            assert_eq!(routes(&registry, &Channel::inbox(session)), [route]);
            assert_eq!(registry.clients_of(session).collect::<Vec<_>>(), [(route.worker, client)]);
        }
        assert_eq!(routes(&registry, &channel("all/x")), [HERE, THERE]);
        assert_eq!(registry.members(&channel("all/x")).clients, 10);
        for &(_, client, _) in stay.iter().filter(|(n, ..)| n % 2 == 0) {
            registry.leave(client);
        }
        assert_eq!(routes(&registry, &channel("all/x")), [THERE]);
    }

    #[test]
    fn members_are_counted_once() {
        let mut registry = Registry::default();
        let (ada, bob) = (SessionId::mint(), SessionId::mint());
        registry.enter(ClientId::mint(), interest(ada, &["room/1", "room/*", "**"]), HERE);
        registry.enter(ClientId::mint(), interest(ada, &["room/1"]), THERE);
        registry.enter(ClientId::mint(), interest(bob, &["room/*"]), HERE);
        registry.enter(ClientId::mint(), interest(bob, &["other"]), HERE);
        let members = registry.members(&channel("room/1"));
        assert_eq!(members.clients, 3);
        assert_eq!(members.sessions, BTreeMap::from([(ada, 2), (bob, 1)]));
    }
}
