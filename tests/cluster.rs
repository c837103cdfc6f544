//! Several nodes, one order: a real NATS server between them.

mod support;

use std::time::{Duration, Instant};

use fanfare::{Batch, Broadcast, Broker, CloseReason, CloseSession, MemoryLog, Publisher, Retention};
use serde_json::{Value, json};
use support::nats::{NatsServer, Wire};
use support::nodes::{
    Folder, PATIENCE, STREAM, data, event, insist, log, node, node_with, position, resume, take, with_id,
};
use support::{TestServer, http, serve};

/// What is published on any node reaches the subscribers of all, once, in one order, which keeps the order of each
/// publisher; and the positions are the same everywhere.
#[actix_web::test]
async fn all_nodes_deliver_everything_once_in_one_order() {
    let (server, folder) = (NatsServer::start(), Folder::new("order"));
    let nodes =
        [node(&server).await, node(&server).await, node_with(&server.url(), folder.index("third.db")).await];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.live("channel=c/**").await);
    }
    let publishing = nodes.iter().enumerate().map(|(number, node)| async move {
        for count in 0..100 {
            let channel = format!("c/{}", count % 3);
            let broadcast = Broadcast::channel(channel, event(format!("{number}-{count}"))).expect("valid");
            let receipt = node.broker.send(broadcast).await.expect("it lives").expect("committed");
            assert_eq!(receipt.seq.map(|seq| seq % 4096 < 100), Some(true), "{receipt:?}");
            let stats = node.stats().await;
            assert!(receipt.seq <= Some(stats.head), "who has a receipt finds the head there");
        }
    });
    futures_util::future::join_all(publishing).await;
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(take(client, 300).await);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let positions: Vec<_> = seen[0].iter().map(|(_, id)| position(id)).collect();
    assert!(positions.is_sorted_by(|a, b| a < b) && positions.iter().all(|&seq| seq < 1 << 53));
    for number in 0..3 {
        let own = seen[0]
            .iter()
            .map(|(data, _)| data.as_str())
            .filter(|data| data.starts_with(&format!("{number}-")));
        let wanted: Vec<_> = (0..100).map(|count| format!("{number}-{count}")).collect();
        assert_eq!(own.collect::<Vec<_>>(), wanted, "each publisher's order");
    }
    for (client, node) in clients.iter_mut().zip(&nodes) {
        assert!(client.is_quiet_for(Duration::from_millis(300)).await, "nothing twice");
        assert_eq!(node.stats().await.head, *positions.last().expect("some"));
    }
}

/// A client goes on on another node where it was, and on one that is new and has an empty index.
#[actix_web::test]
async fn a_cursor_of_one_node_is_good_on_every_other() {
    let (server, folder) = (NatsServer::start(), Folder::new("cursors"));
    let (one, two) = (node(&server).await, node_with(&server.url(), folder.index("two.db")).await);
    let mut client = one.live("channel=c/*").await;
    for number in 0..50 {
        insist(&one, "c/1", &number.to_string()).await;
        insist(&two, "other", &format!("o-{number}")).await;
    }
    let seen = take(&mut client, 50).await;
    let cut = seen[19].1.clone();
    let mut rest = seen[20..].to_vec();
    let fresh = node_with(&server.url(), folder.index("fresh.db")).await;
    let in_memory = node(&server).await;
    for node in [&two, &fresh, &in_memory] {
        let mut client = resume(node, "channel=c/*", &cut).await;
        client.welcome().await;
        assert_eq!(take(&mut client, rest.len()).await, rest, "the rest, with the same positions");
        insist(&one, "c/1", &format!("more-{}", node.addr.port())).await;
        rest.extend(take(&mut client, 1).await);
        assert!(rest.last().is_some_and(|(data, _)| data.starts_with("more-")), "then live");
    }
    let mut all = fresh.open("channel=c/*&from=earliest").await;
    all.welcome().await;
    assert_eq!(data(&take(&mut all, 50).await), data(&seen));
}

/// The same id of the same publisher, sent to several nodes at once, is stored and delivered once; everybody is told
/// where.
#[actix_web::test]
async fn an_id_that_was_sent_to_several_nodes_is_stored_once() {
    let (server, folder) = (NatsServer::start(), Folder::new("once"));
    let nodes =
        [node(&server).await, node(&server).await, node_with(&server.url(), folder.index("3.db")).await];
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(node.live("channel=c").await);
    }
    for round in 0..20 {
        let id = format!("r-{round}");
        let sends = nodes.iter().map(|node| {
            let broadcast =
                Broadcast::channel("c", with_id(&id)).expect("valid").publisher(Publisher::named("ada"));
            node.broker.send(broadcast)
        });
        let receipts: Vec<_> = futures_util::future::join_all(sends).await;
        let receipts: Vec<_> =
            receipts.into_iter().map(|sent| sent.expect("it lives").expect("stored")).collect();
        let first: Vec<_> = receipts.iter().filter(|receipt| !receipt.duplicate).collect();
        assert_eq!(first.len(), 1, "{receipts:?}");
        assert!(receipts.iter().all(|receipt| receipt.seq == first[0].seq), "{receipts:?}");
    }
    let others = Broadcast::channel("c", with_id("r-1")).expect("valid").publisher(Publisher::named("bob"));
    let receipt = nodes[0].broker.send(others).await.expect("it lives").expect("stored");
    assert!(!receipt.duplicate, "another publisher's id is another id");
    let seen = take(&mut clients[0], 21).await;
    let wanted: Vec<_> = (0..20).map(|round| format!("r-{round}")).chain(["r-1".into()]).collect();
    assert_eq!(data(&seen), wanted);
    for client in &mut clients[1..] {
        assert_eq!(take(client, 21).await, seen);
    }
    // A node that goes through the stream later comes to the same.
    let fresh = node(&server).await;
    let mut client = fresh.open("channel=c&from=earliest").await;
    client.welcome().await;
    assert_eq!(take(&mut client, 21).await, seen);
}

/// Names that NATS has a use for, or that look alike in its subjects, stay what they are.
#[actix_web::test]
async fn odd_names_stay_different_and_come_back() {
    let server = NatsServer::start();
    let nodes = [node(&server).await, node(&server).await];
    let names =
        ["a.b", "a_b", "a/b", "a b", "a>", "a*", ">", "*x", "ü/ß", "a=2Eb", "$", "日本/語", &"x".repeat(255)];
    let names: Vec<_> = names.into_iter().filter(|name| !name.starts_with('$')).collect();
    let mut clients = Vec::new();
    for name in &names {
        let name: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        clients.push(nodes[1].live(&format!("channel={name}&format=envelope")).await);
    }
    for name in &names {
        let receipt = nodes[0].publish(&json!({"channel": name, "data": name}).to_string()).await;
        assert_eq!(receipt.status(), 200, "{name}: {receipt:?}");
    }
    for (client, name) in clients.iter_mut().zip(&names) {
        let envelope = client.event().await.expect("an event").json();
        assert_eq!((&envelope["channel"], &envelope["data"]), (&json!(name), &json!(name)));
        assert_eq!(envelope["prev"], 0, "nothing else was of {name}");
    }
    let fresh = node(&server).await;
    let names_query = "channel=**&from=earliest&format=envelope";
    let mut all = fresh.open(names_query).await;
    all.welcome().await;
    for name in &names {
        assert_eq!(all.event().await.expect("an event").json()["channel"], *name);
    }
}

/// What does not fit one message is refused as such and not stored; many small publishes at once are never refused for
/// being sent together.
#[actix_web::test]
async fn a_batch_that_does_not_fit_is_refused_and_small_ones_are_not() {
    let server = NatsServer::start_with("max_payload: 65536");
    let node = node(&server).await;
    let batch: Vec<_> = (0..40).map(|_| json!({"channel": "c", "data": "x".repeat(2000)})).collect();
    let answer = node.publish(&Value::from(batch).to_string()).await;
    assert_eq!(answer.status(), 413, "{answer:?}");
    assert!(
        answer.problem()["detail"].as_str().expect("text").contains("must fit one message"),
        "{answer:?}"
    );
    assert_eq!((server.messages(STREAM).await, node.stats().await.head), (0, 0));
    let sends =
        (0..300).map(|_| node.broker.send(Broadcast::channel("c", event("x".repeat(2000))).expect("valid")));
    for sent in futures_util::future::join_all(sends).await {
        sent.expect("it lives").expect("committed");
    }
    let batch = (0..20).map(|_| Broadcast::channel("c", event("x".repeat(2000))).expect("valid")).collect();
    let receipts =
        node.broker.send(Batch::new(batch).expect("valid")).await.expect("it lives").expect("fits");
    let seqs: Vec<_> = receipts.iter().filter_map(|receipt| receipt.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a + 1 == *b), "next to each other: {seqs:?}");
}

/// Ephemeral events reach the clients of other nodes, behind what was stored before them.
#[actix_web::test]
async fn ephemeral_events_reach_other_nodes_behind_the_stored_ones() {
    let (server, folder) = (NatsServer::start(), Folder::new("ephemeral"));
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut clients = [nodes[0].live("channel=c").await, nodes[1].live("channel=c").await];
    let mut wanted = Vec::new();
    for number in 0..100 {
        let (stored, passing) = (format!("stored-{number}"), format!("passing-{number}"));
        insist(&nodes[0], "c", &stored).await;
        let broadcast = Broadcast::channel("c", event(passing.clone()).ephemeral()).expect("valid");
        let receipt = nodes[0].broker.send(broadcast).await.expect("it lives").expect("accepted");
        assert_eq!(receipt.seq, None);
        wanted.extend([stored, passing]);
    }
    // Those of a batch stand in their places within it.
    let batch = ["first", "second", "third"].map(|text| {
        let event = if text == "third" { event(text).ephemeral() } else { event(text) };
        Broadcast::channel("batch", event).expect("valid")
    });
    let mut batches = nodes[1].live("channel=batch").await;
    let sent = nodes[0].broker.send(Batch::new(batch.to_vec()).expect("valid")).await;
    sent.expect("it lives").expect("committed");
    for text in ["first", "second", "third"] {
        assert_eq!(batches.data().await, text);
    }
    for client in &mut clients {
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let block = client.event().await.expect("an event");
            assert_eq!(block.id.is_none(), block.data().starts_with("passing"), "{block:?}");
            seen.push(block.data().to_owned());
        }
        let stored: Vec<_> = seen.iter().filter(|data| data.starts_with("stored")).collect();
        assert_eq!(stored.len(), 100);
        let place = |data: &String| seen.iter().position(|other| other == data).expect("it came");
        for pair in wanted.chunks(2) {
            assert!(place(&pair[0]) < place(&pair[1]), "{pair:?} in {seen:?}");
        }
        assert!(client.is_quiet_for(Duration::from_millis(200)).await, "nothing twice");
    }
}

/// What is kept by interest goes on each node with the clients that it has.
#[actix_web::test]
async fn interest_is_that_of_each_node() {
    let server = NatsServer::start();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let retention = Retention::default().rule("run/*=interest:grace=300ms".parse().expect("valid"));
        let log = log(&server.url(), MemoryLog::default());
        let node = serve(Broker::builder().retention(retention).log(log));
        node.until(PATIENCE, |stats| stats.ready).await;
        nodes.push(node);
    }
    let mut client = nodes[0].live("channel=run/1").await;
    insist(&nodes[0], "run/1", "kept").await;
    assert_eq!(client.data().await, "kept");
    let kept = async |node: &TestServer| {
        let history = http::get(node.addr, "/rt/history?channel=run/1").await.json();
        history["events"].as_array().expect("an array").len()
    };
    let start = Instant::now();
    while kept(&nodes[1]).await > 0 {
        assert!(start.elapsed() < PATIENCE, "nobody follows it there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&nodes[0]).await, 1, "somebody follows it here");
}

/// A session that is closed on one node loses its streams on all, also on one that was cut off meanwhile; others keep theirs.
#[actix_web::test]
async fn a_session_is_closed_on_all_nodes() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let nodes =
        [node(&server).await, node(&server).await, node_with(&wire.url(), MemoryLog::default()).await];
    let first = nodes[0].live("channel=c").await;
    let cookie = first.head.cookie().expect("a cookie");
    let session = first.head.header("fanfare-session").expect("a session").parse().expect("a ULID");
    let mut clients = vec![first];
    let mut others = Vec::new();
    for node in &nodes[1..] {
        clients.push(node.live_as(&cookie, "channel=c").await);
        others.push(node.live("channel=c").await);
    }
    wire.cut();
    let closed = nodes[0].broker.send(CloseSession { session, reason: CloseReason::Revoked }).await;
    assert_eq!(closed.expect("it lives"), 1, "one here");
    for client in &mut clients[..2] {
        let closing = client.event().await.expect("a notice");
        assert!(closing.is("$closing") && closing.json()["reason"] == "revoked", "{closing:?}");
        assert_eq!(client.event().await, None);
    }
    assert!(clients[2].is_quiet_for(Duration::from_millis(300)).await);
    wire.mend();
    assert!(clients[2].event().await.expect("a notice").is("$closing"));
    insist(&nodes[0], "c", "on").await;
    for other in &mut others {
        assert_eq!(other.data().await, "on");
    }
    // A node that goes through the stream later closes nobody.
    let fresh = node(&server).await;
    let mut client = fresh.live_as(&cookie, "channel=c").await;
    insist(&nodes[0], "c", "still").await;
    assert_eq!(client.data().await, "still");
}

/// What leaves the stream leaves the indexes, and is told.
#[actix_web::test]
async fn what_leaves_the_stream_is_told() {
    let (server, folder) = (NatsServer::start(), Folder::new("leaves"));
    let nodes = [node(&server).await, node_with(&server.url(), folder.index("2.db")).await];
    let mut client = nodes[0].live("channel=*").await;
    for number in 0..10 {
        insist(&nodes[0], ["a", "quiet"][usize::from(number == 9)], &number.to_string()).await;
    }
    let seen = take(&mut client, 10).await;
    let stream = server.jetstream().await.get_stream(STREAM).await.expect("a stream");
    stream.purge().sequence(6).await.expect("purged");
    let fresh = node(&server).await;
    for node in [&nodes[0], &nodes[1], &fresh] {
        let start = Instant::now();
        loop {
            let mut client = resume(node, "channel=a", &seen[1].1).await;
            client.welcome().await;
            let first = client.event().await.expect("a block");
            if first.is("$gap") {
                assert_eq!(first.json()["reason"], "expired");
                assert_eq!(data(&take(&mut client, 4).await), ["5", "6", "7", "8"]);
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{first:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut client = resume(node, "channel=a", &seen[5].1).await;
        client.welcome().await;
        assert_eq!(data(&take(&mut client, 3).await), ["6", "7", "8"], "who was beyond it lost nothing");
    }
    let mut client = resume(&nodes[1], "channel=quiet", &seen[0].1).await;
    client.welcome().await;
    assert_eq!(client.data().await, "9", "a quiet channel has lost nothing");
}

/// What is no batch, from whoever else publishes there, is passed over.
#[actix_web::test]
async fn foreign_messages_stop_nobody() {
    let server = NatsServer::start();
    let node = node(&server).await;
    let mut client = node.live("channel=**").await;
    let jetstream = server.jetstream().await;
    for body in ["", "x", "\u{1}\0\0\0\u{1}", "{\"channel\":\"c\"}"] {
        let ack = jetstream.publish(format!("{STREAM}.ev.c"), body.into()).await.expect("sent");
        ack.await.expect("stored");
        insist(&node, "c", &format!("after-{}", body.len())).await;
        assert_eq!(client.data().await, format!("after-{}", body.len()));
    }
}
