//! The promises of one hub, across three: each a process of its own, with a real NATS server between them.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use support::fleet::Fleet;
use support::http;
use support::nats::NatsServer;
use support::sse::SseClient;

async fn datas(client: &mut SseClient, count: usize) -> Vec<String> {
    let mut datas = Vec::new();
    for _ in 0..count {
        datas.push(client.data().await);
    }
    datas
}

/// P2, P3: what is for a session reaches its tabs on all nodes and nobody else, what is for everyone reaches each client
/// once; and a session that is revoked loses its tabs everywhere within a second.
#[actix_web::test]
async fn sessions_and_everyone_are_of_all_nodes() {
    let server = NatsServer::start();
    let fleet = Fleet::<3>::start("sessions", &server.url(), &[]).await;
    let first = fleet.live(0, "", "").await;
    let cookie = first.head.cookie().expect("a cookie");
    let session = first.head.header("fanfare-session").expect("a session").to_owned();
    let mut tabs = vec![first];
    let mut others = Vec::new();
    for node in 0..3 {
        if node > 0 {
            tabs.push(fleet.live(node, "", &cookie).await);
        }
        others.push(fleet.live(node, "", "").await);
    }
    fleet.publish(2, &json!({"sessions": [session], "data": "yours"})).await;
    fleet.publish(1, &json!({"everyone": true, "data": "all"})).await;
    fleet.publish(0, &json!({"sessions": [session], "data": "typing", "ephemeral": true})).await;
    fleet.publish(0, &json!({"everyone": true, "data": "end"})).await;
    for tab in &mut tabs {
        let seen: BTreeSet<_> = datas(tab, 4).await.into_iter().collect();
        assert_eq!(seen, ["yours", "all", "typing", "end"].map(ToOwned::to_owned).into(), "each once");
    }
    for other in &mut others {
        assert_eq!(datas(other, 2).await, ["all", "end"]);
    }
    let path = format!("/sessions/{session}");
    assert_eq!(http::request(fleet.addrs[1], "DELETE", &path, &[], "").await.status(), 204);
    for tab in &mut tabs {
        let closing =
            tokio::time::timeout(Duration::from_secs(1), tab.event()).await.expect("within a second");
        let closing = closing.expect("a notice");
        assert!(closing.is("$closing") && closing.json()["reason"] == "revoked", "{closing:?}");
        assert_eq!(tab.event().await, None);
    }
    for addr in fleet.addrs {
        let again = SseClient::open(addr, "/events", &[("cookie", &cookie)]).await;
        assert_eq!(again.head.status, 204, "and what it has is refused everywhere");
    }
    fleet.publish(2, &json!({"everyone": true, "data": "on"})).await;
    for other in &mut others {
        assert_eq!(other.data().await, "on");
    }
}

/// O1, O2, O10, H4: 100 publishers at once on all nodes, names that look alike, overlapping selectors: each follower has each
/// event once, in the order of the positions, which rise and are the same on all nodes.
#[actix_web::test]
async fn what_a_hundred_publish_at_once_comes_to_all_in_one_order() {
    let server = NatsServer::start();
    let fleet = Fleet::<3>::start("order", &server.url(), &[]).await;
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(fleet.live(node, "channel=a.b/*&channel=a.b/**&channel=a.b/1", "").await);
    }
    let mut alike = fleet.live(1, "channel=a_b/*", "").await;
    let seqs = join_all((0..100).map(|number| {
        let fleet = &fleet;
        async move {
            let event = json!({"channel": "a.b/1", "data": number.to_string()});
            let receipt = fleet.publish(number % 3, &event).await;
            fleet.publish((number + 1) % 3, &json!({"channel": "a.bc/1", "data": "another segment"})).await;
            (receipt["seq"].as_u64().expect("a position"), number.to_string())
        }
    }));
    let mut wanted = seqs.await;
    wanted.sort_unstable();
    assert!(wanted.windows(2).all(|pair| pair[0].0 < pair[1].0), "each its own");
    for client in &mut clients {
        for (seq, data) in &wanted {
            let block = client.event().await.expect("an event");
            assert_eq!(block.data(), data);
            assert!(block.id.expect("a position").ends_with(&format!(".{seq}")));
        }
    }
    fleet.publish(0, &json!({"channel": "a_b/1", "data": "alike"})).await;
    fleet.publish(2, &json!({"channel": "a.b/1", "data": "end"})).await;
    assert_eq!(alike.data().await, "alike");
    for client in &mut clients {
        assert_eq!(client.data().await, "end", "nothing else, and nothing twice");
    }
}

/// H1, H5: who has seen something of two channels and comes back to another node gets the rest of both, exactly; also what
/// was acknowledged by a node that was killed at once, and on that node when it is back.
#[actix_web::test]
async fn who_comes_back_anywhere_gets_the_rest_exactly() {
    let server = NatsServer::start();
    let mut fleet = Fleet::<3>::start("rest", &server.url(), &[]).await;
    let mut client = fleet.live(0, "channel=a&channel=b", "").await;
    let mut cursor = None;
    for number in 0..7 {
        let channel = if number < 5 { "a" } else { "b" };
        fleet.publish(number % 3, &json!({"channel": channel, "data": number.to_string()})).await;
        let block = client.event().await.expect("an event");
        assert_eq!(block.data(), number.to_string());
        cursor = block.id;
    }
    drop(client);
    for (number, channel) in [(7, "a"), (8, "other"), (9, "b"), (10, "a")] {
        fleet.publish(1, &json!({"channel": channel, "data": number.to_string()})).await;
    }
    fleet.kill(1);
    fleet.publish(2, &json!({"channel": "b", "data": "11"})).await;
    let cursor = cursor.expect("a position");
    fleet.restart(1).await;
    let headers = [("last-event-id", cursor.as_str())];
    for node in [2, 0, 1] {
        let mut client = SseClient::open(fleet.addrs[node], "/events?channel=a&channel=b", &headers).await;
        client.welcome().await;
        assert_eq!(datas(&mut client, 4).await, ["7", "9", "10", "11"], "node {node}");
        fleet.publish(node, &json!({"channel": "other", "data": "not followed"})).await;
    }
}
