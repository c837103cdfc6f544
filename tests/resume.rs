//! A client that comes back gets exactly what it missed, or is told in the stream what it cannot have.

mod support;

use fanfare::{Batch, Broadcast, Event, MemoryLog, SqliteLog};
use support::order::{builder, nth, ordered};
use support::{TestServer, http, serve, sse::SseClient};

async fn publish(server: &TestServer, channel: &str, data: impl Into<String>) {
    let event = Event::text("message", data).expect("valid");
    let broadcast = Broadcast::channel(channel, event).expect("valid");
    server.broker.send(broadcast).await.expect("answered").expect("committed");
}

async fn data(client: &mut SseClient, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(client.data().await);
    }
    all
}

/// H1: two channels, a client that saw some of each; nothing else, nothing twice. From the ring, and from the log.
#[actix_web::test]
async fn a_client_that_comes_back_gets_what_it_missed() {
    for ring in [1, 1000] {
        let server = serve(builder().ring(ring, 1 << 20));
        let mut client = server.live("channel=a&channel=b").await;
        for n in 0..4 {
            publish(&server, ["a", "b", "other"][n % 3], n.to_string()).await;
        }
        let mut last = None;
        for _ in 0..3 {
            last = client.event().await.expect("an event").id;
        }
        drop(client);
        for n in 4..1000 {
            publish(&server, ["a", "b", "other"][n % 3], n.to_string()).await;
        }
        let path = "/rt/events?channel=a&channel=b&from=now&last_event_id=ignored";
        let last = last.expect("a cursor");
        let mut back = SseClient::open(server.addr, path, &[("last-event-id", &last)]).await;
        assert_eq!(back.welcome().await.id, Some(last));
        let expected: Vec<_> = (4..1000).filter(|n| n % 3 != 2).map(|n| n.to_string()).collect();
        assert_eq!(data(&mut back, expected.len()).await, expected);
        publish(&server, "a", "live").await;
        assert_eq!(back.data().await, "live");
    }
}

/// A stream that is cut at the first heartbeat, or before any event, resumes from where it was.
#[actix_web::test]
async fn the_first_block_is_a_position() {
    let server = serve(builder());
    publish(&server, "a", "before").await;
    let mut cut = server.open("channel=a").await;
    let position = cut.welcome().await.id.expect("a position");
    drop(cut);
    publish(&server, "a", "after").await;
    let mut back = server.live(&format!("channel=a&last_event_id={position}")).await;
    assert_eq!(back.data().await, "after");
}

#[actix_web::test]
async fn where_to_begin_can_be_chosen() {
    for ring in [2, 1000] {
        let server = serve(builder().ring(ring, 1 << 20));
        for n in 0..20 {
            publish(&server, ["a", "b"][n % 2], n.to_string()).await;
        }
        for (from, expected) in [("earliest", 0..20), ("3", 14..20), ("1", 18..20), ("100", 0..20)] {
            let mut client = server.live(&format!("channel=a&from={from}")).await;
            for n in expected.step_by(2) {
                assert_eq!(client.data().await, n.to_string(), "from={from} ring={ring}");
            }
        }
        let mut clients =
            vec![server.live("channel=a&from=now").await, server.live("channel=a&from=0").await];
        publish(&server, "a", "end").await;
        for client in &mut clients {
            assert_eq!(client.data().await, "end");
        }
    }
}

/// A gap is told once: whoever comes back with the cursor that the notice carries is not told again.
#[actix_web::test]
async fn a_gap_is_told_and_not_told_twice() {
    let log = MemoryLog::bounded(10, 1 << 20).expect("valid");
    let server = serve(builder().ring(2, 1 << 20).log(ordered(log)));
    let start = server.open("channel=a").await.welcome().await.id.expect("a position");
    for n in 1..=100 {
        publish(&server, ["a", "b"][n % 2], n.to_string()).await;
    }
    let mut client = server.open(&format!("channel=a&last_event_id={start}")).await;
    assert_eq!(client.welcome().await.id, None);
    let gap = client.event().await.expect("a gap");
    assert!(gap.is("$gap"), "{gap:?}");
    assert_eq!(data(&mut client, 5).await, ["92", "94", "96", "98", "100"]);

    let resumed = gap.id.expect("a position");
    let mut again = server.live(&format!("channel=a&last_event_id={resumed}")).await;
    assert_eq!(data(&mut again, 5).await, ["92", "94", "96", "98", "100"]);
    // No event of a channel that nobody published to is missing.
    let mut quiet = server.live(&format!("channel=quiet&last_event_id={start}")).await;
    publish(&server, "quiet", "first").await;
    assert_eq!(quiet.data().await, "first");
}

/// All or nothing: what cannot be resumed without loss is an answer of its own, before any stream.
#[actix_web::test]
async fn a_strict_client_gets_everything_or_an_error() {
    let log = MemoryLog::bounded(10, 1 << 20).expect("valid");
    let server = serve(builder().ring(2, 1 << 20).log(ordered(log)));
    let start = server.open("channel=a").await.welcome().await.id.expect("a position");
    for n in 1..=100 {
        publish(&server, "a", n.to_string()).await;
    }
    let now = server.open("channel=a").await.welcome().await.id.expect("a position");
    let status = |cursor: String| {
        let addr = server.addr;
        async move {
            let path = format!("/rt/events?channel=a&strict=1&last_event_id={cursor}");
            SseClient::open(addr, &path, &[]).await.head.status
        }
    };
    let beyond = format!("{}.{}", now.rsplit_once('.').expect("a cursor").0, nth(101));
    assert_eq!(status(start).await, 410);
    assert_eq!(status("x.y.1".into()).await, 410);
    assert_eq!(status("nonsense".into()).await, 400);
    assert_eq!(status(beyond).await, 410);
    assert_eq!(status(now).await, 200);
    server.until(std::time::Duration::from_secs(1), |stats| stats.clients == 0).await;
}

/// A cursor beyond the head waits for it: another node may have been faster. It is not there after two seconds: told.
#[actix_web::test]
async fn a_cursor_ahead_waits_for_the_head() {
    let server = serve(builder());
    let now = server.open("channel=a").await.welcome().await.id.expect("a position");
    let prefix = now.rsplit_once('.').expect("a cursor").0;
    let ahead = format!("channel=a&last_event_id={prefix}.{}", nth(2));
    let mut patient = server.open(&ahead).await;
    publish(&server, "a", "one").await;
    publish(&server, "a", "two").await;
    publish(&server, "a", "three").await;
    patient.welcome().await;
    assert_eq!(patient.data().await, "three");

    let server = serve(builder());
    let now = server.open("channel=a").await.welcome().await.id.expect("a position");
    let ahead = format!("channel=a&last_event_id={}.2", now.rsplit_once('.').expect("a cursor").0);
    let start = std::time::Instant::now();
    let mut told = server.open(&ahead).await;
    told.welcome().await;
    let reset = told.event().await.expect("a reset");
    assert_eq!((reset.is("$reset"), &reset.json()["reason"]), (true, &"ahead".into()));
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
}

/// Attribute filters narrow what was asked for, live and replayed, and never what is sent to the session or everyone.
#[actix_web::test]
async fn a_filter_narrows_channels_alone() {
    let server = serve(builder());
    let query = "channel=a&filter=kind:x&filter=size:1";
    let mut live = server.live(query).await;
    for (kind, size) in [("x", "1"), ("x", "2"), ("y", "1"), ("x", "1")] {
        let body = format!(
            r#"{{"channel":"a","data":"{kind}{size}","attributes":{{"kind":"{kind}","size":"{size}"}}}}"#
        );
        assert_eq!(server.publish(&body).await.status(), 200);
    }
    server.publish(r#"{"everyone":true,"data":"all"}"#).await;
    let mut replayed = server.live(&format!("{query}&from=earliest")).await;
    for client in [&mut live, &mut replayed] {
        assert_eq!(data(client, 3).await, ["x1", "x1", "all"]);
    }
}

/// The hand-off from replay to live, raced: clients that join while a publisher runs, each from another cursor, in
/// tiny rings, pages and feeds, miss nothing and get nothing twice.
#[actix_web::test]
async fn joining_while_publishing_misses_nothing() {
    const EVENTS: usize = 400;
    for ring in [1, 7, 10_000] {
        let server = serve(builder().ring(ring, 1 << 20).feed(3, 1 << 20));
        let position = server.open("channel=a").await.welcome().await.id.expect("a position");
        let prefix = position.rsplit_once('.').expect("a cursor").0.to_owned();
        let publishing = async {
            for n in 1..=EVENTS {
                publish(&server, if n % 4 == 0 { "b" } else { "a" }, n.to_string()).await;
            }
        };
        let joining = (0..20).map(|n| {
            let (server, prefix) = (&server, &prefix);
            async move {
                let from = n * 3;
                let cursor = format!("{prefix}.{}", nth(from));
                let mut client = server.live(&format!("channel=a&last_event_id={cursor}")).await;
                for expected in (from + 1..=EVENTS).filter(|n| n % 4 != 0) {
                    assert_eq!(client.data().await, expected.to_string(), "from {from}, ring {ring}");
                }
            }
        });
        futures_util::future::join(publishing, futures_util::future::join_all(joining)).await;
    }
}

/// All that history has, answer by answer; none of them searches the whole log.
async fn pages_of_history(server: &TestServer, selector: &str) -> Vec<String> {
    let (mut all, mut after, mut answers) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/rt/history?channel={selector}&filter=kind:rare&limit=1000{after}");
        let answer = http::get(server.addr, &path).await.json();
        let events = answer["events"].as_array().expect("events").iter();
        all.extend(events.map(|event| event["data"].as_str().expect("text").to_owned()));
        answers += 1;
        if answer["more"] == false {
            assert!(answers > 1, "a search to the end in one go");
            return all;
        }
        after = format!("&after={}", answer["cursor"].as_str().expect("a cursor"));
    }
}

/// The last events that a filter lets through are found however far back they lie, in steps.
#[actix_web::test]
async fn the_last_events_are_found_far_back() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("far-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let durable = SqliteLog::open(folder.join("far.db")).expect("opened");
    let builder = || builder().ring(1, 1 << 20);
    for server in [serve(builder()), serve(builder().log(ordered(durable)))] {
        for batch in 0..30 {
            let events = (0..2_500).map(|n| {
                let mut event = Event::text("message", n.to_string()).expect("valid");
                if batch == 0 && n % 1_000 == 0 {
                    event = event.attribute("kind", "rare").expect("valid");
                }
                Broadcast::channel("far", event).expect("valid")
            });
            let batch = Batch::new(events.collect::<Vec<_>>()).expect("valid");
            server.broker.send(batch).await.expect("answered").expect("committed");
        }
        for selector in ["far", "**"] {
            assert_eq!(pages_of_history(&server, selector).await, ["0", "1000", "2000"]);
            let mut client = server.live(&format!("channel={selector}&filter=kind:rare&from=2")).await;
            assert_eq!(data(&mut client, 2).await, ["1000", "2000"]);
            let mut all = server.live(&format!("channel={selector}&filter=kind:rare&from=9")).await;
            assert_eq!(data(&mut all, 3).await, ["0", "1000", "2000"]);
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}
