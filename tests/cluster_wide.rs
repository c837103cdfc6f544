//! What holds for all nodes together: who is there, what events get by bindings, and where a client with a cursor of
//! another node is sent.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fanfare::{Bind, Broadcast, Broker, Event, MemoryLog, NatsLog, Unbind};
use futures_util::future::join_all;
use serde_json::Value;
use support::fleet::Fleet;
use support::nats::{NatsServer, Wire};
use support::sse::SseClient;
use support::{TestServer, http, serve};

const PATIENCE: Duration = Duration::from_secs(30);

async fn node(url: &str) -> TestServer {
    let log = NatsLog::new(url).expect("a URL").index(MemoryLog::default());
    let node = serve(Broker::builder().log(log));
    node.until(PATIENCE, |stats| stats.ready).await;
    node
}

async fn nodes<const N: usize>(server: &NatsServer) -> [TestServer; N] {
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(node(&server.url()).await);
    }
    nodes.try_into().unwrap_or_else(|_| unreachable!())
}

fn line(attributes: &[(&str, String)], data: impl Into<String>) -> Broadcast {
    let event = Event::text("line", data).expect("valid");
    let event =
        attributes.iter().fold(event, |event, (key, value)| event.attribute(*key, value).expect("valid"));
    Broadcast::channel("lines", event).expect("valid")
}

fn bind(alias: &str, scroll: &str) -> Bind {
    Bind { when: [("alias", alias)].into(), set: [("scroll", scroll)].into() }
}

async fn publish(node: &TestServer, alias: &str, data: &str) -> u64 {
    let sent = node.broker.send(line(&[("alias", alias.into())], data)).await;
    sent.expect("it lives").expect("stored").seq.expect("a position")
}

/// The events of the channel as a node has them: data, position, and what they were given.
async fn history(node: &TestServer) -> Vec<(String, u64, Option<String>)> {
    let (mut events, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/rt/history?channel=lines&limit=1000&after={after}");
        let page = http::get(node.addr, &path).await.json();
        for event in page["events"].as_array().expect("events") {
            let scroll = event["attributes"]["scroll"].as_str().map(ToOwned::to_owned);
            let data = event["data"].as_str().expect("text").to_owned();
            events.push((data, event["seq"].as_u64().expect("a position"), scroll));
        }
        after = page["cursor"].as_str().expect("a cursor").to_owned();
        if page["more"] != true {
            return events;
        }
    }
}

/// D4 across nodes: bound on one, events of the alias are completed wherever they are published from the answer on, and
/// not before; all nodes see the same, also one that comes later, which knows of the binding as well.
#[actix_web::test]
async fn a_binding_holds_on_all_nodes_from_its_place_in_the_order_on() {
    let server = NatsServer::start();
    let [one, two, three] = nodes(&server).await;
    let mut scroll = three.live("channel=lines&filter=scroll:7").await;
    publish(&two, "a", "before").await;
    let bound = one.broker.send(bind("a", "7")).await.expect("it lives").expect("bound");
    assert!(!bound.replaced);
    publish(&two, "a", "after").await;
    publish(&two, "b", "another").await;
    let with = bind("c", "7").with(line(&[("alias", "c".into())], "with its event")).expect("valid");
    two.broker.send(with).await.expect("it lives").expect("stored");
    publish(&three, "c", "behind it").await;
    let moved = three.broker.send(bind("a", "8")).await.expect("it lives").expect("bound");
    assert!(moved.replaced);
    publish(&one, "a", "moved").await;
    assert!(
        two.broker.send(Unbind { when: [("alias", "a")].into() }).await.expect("it lives").expect("unbound")
    );
    publish(&three, "a", "unbound").await;
    assert!(
        !one.broker.send(Unbind { when: [("alias", "a")].into() }).await.expect("it lives").expect("gone")
    );

    let late = node(&server.url()).await;
    late.until(PATIENCE, |stats| stats.bindings == 1).await;
    publish(&late, "c", "late").await;
    for data in ["after", "with its event", "behind it", "late"] {
        assert_eq!(scroll.data().await, data);
    }
    let seven = || Some("7".to_owned());
    let wanted = [
        ("before", None),
        ("after", seven()),
        ("another", None),
        ("with its event", seven()),
        ("behind it", seven()),
        ("moved", Some("8".into())),
        ("unbound", None),
        ("late", seven()),
    ];
    let all = history(&late).await;
    let seen: Vec<_> = all.iter().map(|(data, _, scroll)| (data.as_str(), scroll.clone())).collect();
    assert_eq!(seen, wanted);
    for node in [&one, &two, &three] {
        node.until(PATIENCE, |stats| stats.head == all[7].1 && stats.bindings == 1).await;
        assert_eq!(history(node).await, all);
    }
}

/// 1,000 pairs of a bind on one node and publishes on others, all at once: what is published after the answer is completed,
/// and what races with the bind is completed if and only if it stands behind it.
#[actix_web::test]
async fn a_thousand_binds_and_publishes_on_different_nodes_never_misroute() {
    const PAIRS: usize = 1000;
    let server = NatsServer::start();
    let nodes: [TestServer; 3] = nodes(&server).await;
    let pair = async |number: usize| {
        let [here, there, elsewhere] = [0, 1, 2].map(|step| &nodes[(number + step) % 3]);
        let alias = format!("a{number}");
        let own = line(&[("alias", alias.clone())], format!("bind {number}"));
        let with = bind(&alias, &number.to_string()).with(own).expect("valid");
        let data = format!("race {number}");
        let racing = publish(there, &alias, &data);
        let (bound, _) = futures_util::future::join(here.broker.send(with), racing).await;
        bound.expect("it lives").expect("stored");
        publish(there, &alias, &format!("there {number}")).await;
        publish(elsewhere, &alias, &format!("elsewhere {number}")).await;
    };
    join_all((0..PAIRS).map(pair)).await;
    let all = history(&nodes[0]).await;
    assert_eq!(all.len(), 4 * PAIRS);
    let by_data: HashMap<_, _> =
        all.iter().map(|(data, seq, scroll)| (data.as_str(), (*seq, scroll))).collect();
    let mut raced_behind = 0;
    for number in 0..PAIRS {
        let get = |what: &str| by_data[format!("{what} {number}").as_str()];
        let scroll = Some(number.to_string());
        let bound_at = get("bind").0;
        for what in ["bind", "there", "elsewhere"] {
            assert_eq!(get(what).1, &scroll, "{what} {number}");
        }
        let (seq, given) = get("race");
        assert_eq!(given, &scroll.filter(|_| seq > bound_at), "{number}: the order says which was first");
        raced_behind += usize::from(seq > bound_at);
    }
    println!("{raced_behind} of {PAIRS} events that raced with their bind stand behind it");
    for node in &nodes[1..] {
        assert_eq!(history(node).await, all, "the same on all nodes");
    }
    for node in &nodes {
        assert_eq!(node.stats().await.bindings, PAIRS);
    }
}

async fn presence(addr: std::net::SocketAddr) -> (u64, u64, Value) {
    let answer = http::get(addr, "/presence?channel=room/1").await.json();
    (
        answer["clients"].as_u64().expect("a number"),
        answer["sessions"].as_u64().expect("a number"),
        answer["members"].clone(),
    )
}

async fn until_present(addr: std::net::SocketAddr, wanted: (u64, u64), within: Duration) {
    let start = Instant::now();
    loop {
        let (clients, sessions, members) = presence(addr).await;
        if (clients, sessions) == wanted {
            return;
        }
        assert!(start.elapsed() < within, "{clients} clients of {sessions} sessions: {members}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Who follows a channel is told for all nodes, a session on several of them once; a node that dies takes its clients out of
/// the count, and does not hold up the answer for long.
#[actix_web::test]
async fn presence_counts_the_clients_of_all_nodes() {
    let server = NatsServer::start();
    let mut fleet = Fleet::<3>::start("presence", &server.url(), &[]).await;
    let path = "/events?channel=room/*";
    let mut clients = Vec::new();
    for addr in fleet.addrs {
        let mut client = SseClient::open(addr, path, &[]).await;
        client.welcome().await;
        clients.push(client);
    }
    let cookie = clients[0].head.cookie().expect("a cookie");
    let session = clients[0].head.header("fanfare-session").expect("a session").to_owned();
    let mut tab = SseClient::open(fleet.addrs[1], path, &[("cookie", &cookie)]).await;
    tab.welcome().await;
    for addr in fleet.addrs {
        until_present(addr, (4, 3), Duration::from_secs(5)).await;
    }
    let (_, _, members) = presence(fleet.addrs[2]).await;
    let member = members.as_array().expect("members").iter().find(|member| member["session"] == session);
    assert_eq!(member.expect("it is there")["clients"], 2, "{members}");
    fleet.kill(1);
    let asked = Instant::now();
    until_present(fleet.addrs[0], (2, 2), Duration::from_secs(1)).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    // For three seconds it is waited for.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let asked = Instant::now();
    assert_eq!(presence(fleet.addrs[2]).await.0, 2);
    assert!(asked.elapsed() < Duration::from_millis(400), "nobody waits any more: {:?}", asked.elapsed());
    drop((clients, tab));
    for number in [0, 2] {
        until_present(fleet.addrs[number], (0, 0), Duration::from_secs(10)).await;
    }
}

/// A stream stays open while its node has no order, and says so with each heartbeat; then it goes on and says so no more.
#[actix_web::test]
async fn a_stream_says_that_its_node_is_cut_off() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let log = NatsLog::new(&wire.url()).expect("a URL").index(MemoryLog::default());
    let far = serve(Broker::builder().heartbeat(Duration::from_millis(200)).log(log));
    far.until(PATIENCE, |stats| stats.ready).await;
    let mut client = far.live("channel=lines").await;
    let seq = publish(&far, "a", "before").await;
    assert_eq!(client.data().await, "before");
    wire.cut();
    let late = ": ping\n: the log is not to be had; what is published comes late\nid: ";
    let start = Instant::now();
    loop {
        let block = client.block().await.expect("it stays open");
        assert!(block.id.expect("a position").ends_with(&format!(".{seq}")));
        if block.text.starts_with(late) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{}", block.text);
    }
    wire.mend();
    far.until(PATIENCE, |stats| stats.ready).await;
    publish(&far, "a", "after").await;
    assert_eq!(client.data().await, "after");
    let ping = client.block().await.expect("it stays open");
    assert!(ping.text.starts_with(": ping\nid: "), "{}", ping.text);
}

/// A client with a cursor of a node that is ahead is not told that this log has no such place by one that is cut off and
/// cannot know: it is sent away with its cursor, and goes on elsewhere or later.
#[actix_web::test]
async fn a_node_that_is_behind_sends_away_who_is_ahead() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let (near, far) = (node(&server.url()).await, node(&wire.url()).await);
    wire.cut();
    let mut client = near.live("channel=lines").await;
    publish(&near, "a", "one").await;
    let cursor = client.event().await.expect("an event").id.expect("a position");
    publish(&near, "a", "two").await;
    let headers = [("last-event-id", cursor.as_str())];
    let mut client = SseClient::open(far.addr, "/rt/events?channel=lines", &headers).await;
    let closing = client.event().await.expect("a notice");
    assert!(closing.is("$closing") && closing.json()["reason"] == "unavailable", "{closing:?}");
    wire.mend();
    let mut client = SseClient::open(near.addr, "/rt/events?channel=lines", &headers).await;
    client.welcome().await;
    assert_eq!(client.data().await, "two");
    far.until(PATIENCE, |stats| stats.ready).await;
    let mut client = SseClient::open(far.addr, "/rt/events?channel=lines", &headers).await;
    client.welcome().await;
    assert_eq!(client.data().await, "two");
    // A position that the order does not have is told as such by whoever has the order.
    let beyond = format!("{}.4096000", cursor.rsplit_once('.').expect("a cursor").0);
    let mut client =
        SseClient::open(near.addr, "/rt/events?channel=lines", &[("last-event-id", &beyond)]).await;
    client.welcome().await;
    let reset = client.event().await.expect("a notice");
    assert!(reset.is("$reset") && reset.json()["reason"] == "ahead", "{reset:?}");
}
