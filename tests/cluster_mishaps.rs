//! What three hubs, each a process of its own, promise when something is in the way.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::fleet::Fleet;
use support::http;
use support::nats::{NatsServer, Wire};
use support::sse::SseClient;

/// The stream's name by default.
const STREAM: &str = "fanfare";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until_status<const N: usize>(fleet: &Fleet<N>, node: usize, path: &str, wanted: u16) {
    let start = Instant::now();
    while http::get(fleet.addrs[node], path).await.status() != wanted {
        assert!(start.elapsed() < PATIENCE, "{path} of node {node} is {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// O3, O5, O8, O9: a hub that is cut off says so and keeps its streams; with its wire mended it delivers what it missed, in
/// order, before anything newer, and nothing twice. What is no event in between stops nobody. However often its
/// connection breaks, each hub has one consumer.
#[actix_web::test]
async fn a_hub_that_was_cut_off_delivers_what_it_missed() {
    let server = NatsServer::start();
    let wire = Wire::to(server.addr);
    let fleet = Fleet::<3>::start_each("cut", [server.url(), server.url(), wire.url()], &[]).await;
    let mut client = fleet.live(2, "channel=c", "").await;
    // Longer than the server keeps a consumer that nobody asks, if wanted.
    let cut = std::env::var("FANFARE_CLUSTER_CUT").map_or(2, |seconds| seconds.parse().expect("a number"));
    fleet.publish(0, &json!({"channel": "c", "data": "before"})).await;
    assert_eq!(client.data().await, "before");
    wire.cut();
    until_status(&fleet, 2, "/readyz", 503).await;
    assert_eq!(http::get(fleet.addrs[2], "/healthz").await.status(), 200);
    let refused = http::post_json(fleet.addrs[2], "/publish", r#"{"channel":"c","data":"lost"}"#).await;
    assert_eq!(refused.status(), 503, "{refused:?}");
    let jetstream = server.jetstream().await;
    for number in 0..200 {
        if number % 50 == 0 {
            let foreign = jetstream.publish(format!("{STREAM}.ev.c"), "no event".into()).await.expect("sent");
            foreign.await.expect("stored");
        }
        let event = json!({"channel": "c", "data": number.to_string()});
        fleet.publish(number % 2, &event).await;
    }
    assert!(client.is_quiet_for(Duration::from_secs(cut)).await, "it is cut off");
    wire.mend();
    for number in 0..200 {
        assert_eq!(client.data().await, number.to_string());
    }
    until_status(&fleet, 2, "/readyz", 200).await;
    // Each time the hub waits a moment longer before it comes back.
    let shakes = if std::env::var_os("FANFARE_CLUSTER_CUT").is_some() { 50 } else { 5 };
    for number in 0..shakes {
        wire.shake();
        fleet.publish(0, &json!({"channel": "c", "data": format!("shaken-{number}")})).await;
        assert_eq!(client.data().await, format!("shaken-{number}"));
    }
    until_status(&fleet, 2, "/readyz", 200).await;
    assert!(client.is_quiet_for(Duration::from_millis(300)).await, "nothing twice");
    assert!(server.consumers(STREAM).await <= 3, "one for each hub at most");
}

/// O6, O7: a watcher that stops reading delays neither others, on any node, nor new ones; and when it is gone nothing of it
/// is left.
#[actix_web::test]
async fn a_watcher_that_does_not_read_delays_nobody() {
    let server = NatsServer::start();
    let fleet = Fleet::<3>::start("stuck", &server.url(), &[]).await;
    let stuck = fleet.live(1, "channel=**", "").await;
    let mut readers = Vec::new();
    for node in 0..3 {
        readers.push(fleet.live(node, "channel=large/*", "").await);
    }
    let large = "x".repeat(60_000);
    for number in 0..100 {
        let event = json!({"channel": format!("large/{number}"), "data": format!("{number}:{large}")});
        let start = Instant::now();
        fleet.publish(number % 3, &event).await;
        for reader in &mut readers {
            assert!(reader.data().await.starts_with(&format!("{number}:")));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "event {number} took {:?}", start.elapsed());
    }
    let start = Instant::now();
    let mut new = fleet.live(1, "channel=large/*&from=1", "").await;
    assert!(new.data().await.starts_with("99:") && start.elapsed() < Duration::from_secs(1));
    assert_eq!(fleet.status(1).await["clients"], 3, "the one that is stuck, a reader, and the new one");
    drop(stuck);
    let start = Instant::now();
    while fleet.status(1).await["clients"] != 2 {
        assert!(start.elapsed() < PATIENCE, "it is gone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// O10: names that NATS has a use for, or that look alike in its subjects, stay what they are on every hub.
#[actix_web::test]
async fn odd_names_stay_different_on_every_hub() {
    let server = NatsServer::start();
    let fleet = Fleet::<3>::start("names", &server.url(), &[]).await;
    let names = ["a.b", "a_b", "a/b", "a b", "a>", "a*", ">", "*x", "\u{fc}/\u{df}", "a=2Eb", "a=b"];
    let mut clients: Vec<SseClient> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let name: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        clients.push(fleet.live(number % 3, &format!("channel={name}&format=envelope"), "").await);
    }
    for (number, name) in names.iter().enumerate() {
        fleet.publish((number + 1) % 3, &json!({"channel": name, "data": name})).await;
    }
    for (client, name) in clients.iter_mut().zip(names) {
        let envelope = client.event().await.expect("an event").json();
        assert_eq!((&envelope["channel"], &envelope["data"]), (&json!(name), &json!(name)));
        assert_eq!(envelope["prev"], 0, "nothing else was of {name}");
    }
}
