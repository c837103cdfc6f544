//! How long events are kept: exact at its edges, and out of the publishers' way.
//!
//! The flood's normal form is small. `FANFARE_FLOOD=full cargo test --release --test retention -- --nocapture` sends
//! 1,000,000 events through a limit of 10,000.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fanfare::{Broadcast, Builder, Event, Retention, SqliteLog};
use support::order::{builder, nth, ordered};
use support::{TestServer, http, serve};

fn rules(rules: &[&str]) -> Retention {
    rules.iter().fold(Retention::default(), |retention, rule| retention.rule(rule.parse().expect("a rule")))
}

fn folder(name: &str) -> PathBuf {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keep-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Each promise holds with the log in memory and in a file, and whether the ring still has the events or not.
fn logs(name: &str) -> Vec<Builder> {
    let file = |n: usize| SqliteLog::open(folder(&format!("{name}-{n}")).join("events.db")).expect("opened");
    vec![
        builder(),
        builder().ring(1, 1 << 20),
        builder().log(ordered(file(0))),
        builder().log(ordered(file(1))).ring(1, 1 << 20),
    ]
}

async fn publish(server: &TestServer, channel: &str, data: usize) -> serde_json::Value {
    server.publish(&format!(r#"{{"channel":"{channel}","data":"{data}"}}"#)).await.json()
}

async fn history(server: &TestServer, channel: &str) -> Vec<String> {
    let answer = http::get(server.addr, &format!("/rt/history?channel={channel}")).await.json();
    let events = answer["events"].as_array().expect("events").iter();
    events.map(|event| event["data"].as_str().expect("text").to_owned()).collect()
}

async fn until_kept(server: &TestServer, channel: &str, count: usize) -> Duration {
    let start = Instant::now();
    while history(server, channel).await.len() != count {
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", history(server, channel).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

#[actix_web::test]
async fn as_many_as_the_limit_are_kept_and_not_one_more() {
    for builder in logs("count") {
        let server = serve(builder.retention(rules(&["a=limits:max_events=3"])));
        let start = server.open("channel=a").await.welcome().await.id.expect("a position");
        for n in 1..=3 {
            publish(&server, "a", n).await;
        }
        assert_eq!(history(&server, "a").await, ["1", "2", "3"]);
        let mut whole = server.live(&format!("channel=a&last_event_id={start}")).await;
        assert_eq!(whole.data().await, "1");

        publish(&server, "a", 4).await;
        assert_eq!(history(&server, "a").await, ["2", "3", "4"]);
        let mut earliest = server.live("channel=a&from=earliest").await;
        assert_eq!((earliest.data().await, earliest.data().await), ("2".into(), "3".into()));
        let mut late = server.open(&format!("channel=a&last_event_id={start}")).await;
        assert_eq!(late.welcome().await.id, None);
        let gap = late.event().await.expect("a gap");
        assert!(gap.is("$gap"), "{gap:?}");
        assert_eq!(
            (gap.json()["after"].as_u64(), gap.json()["resumed_at"].as_u64()),
            (Some(0), Some(nth(1)))
        );
        assert_eq!(late.data().await, "2");
    }
}

#[actix_web::test]
async fn an_event_goes_at_its_age() {
    for builder in logs("age") {
        let server = serve(builder.retention(rules(&["a=limits:max_age=500ms"])));
        let start = server.open("channel=a&channel=b").await.welcome().await.id.expect("a position");
        let began = Instant::now();
        publish(&server, "a", 1).await;
        publish(&server, "b", 2).await;
        assert_eq!(history(&server, "a").await, ["1"]);
        until_kept(&server, "a", 0).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(499) && took < Duration::from_millis(1500), "{took:?}");
        assert_eq!(history(&server, "b").await, ["2"], "other channels keep theirs");
        let mut late = server.open(&format!("channel=a&channel=b&last_event_id={start}")).await;
        late.welcome().await;
        assert!(late.event().await.expect("a gap").is("$gap"));
        assert_eq!(late.data().await, "2");
        assert_eq!(publish(&server, "a", 3).await["seq"], nth(3), "numbers go on");
    }
}

#[actix_web::test]
async fn what_nobody_is_interested_in_is_not_kept() {
    for builder in logs("interest") {
        let server = serve(builder.retention(rules(&["runs/**=interest:grace=600ms", "typing=none"])));
        assert!(publish(&server, "runs/1", 0).await["seq"].is_null(), "nobody is there");
        assert!(publish(&server, "typing", 0).await["seq"].is_null());

        let mut client = server.live("channel=runs/*").await;
        assert_eq!(publish(&server, "runs/1", 1).await["seq"], nth(1));
        let last = client.event().await.expect("an event").id.expect("a position");
        drop(client);
        server.until(Duration::from_secs(1), |stats| stats.clients == 0).await;
        assert_eq!(
            publish(&server, "runs/1", 2).await["seq"],
            nth(2),
            "it has been gone for less than the grace"
        );
        let mut back = server.live(&format!("channel=runs/*&last_event_id={last}")).await;
        assert_eq!(back.data().await, "2");
        drop(back);
        let took = until_kept(&server, "runs/1", 0).await;
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(publish(&server, "runs/1", 3).await["seq"].is_null());
    }
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

/// A limit at work all the time costs publishers little, and the file does not grow without bound.
#[actix_web::test]
async fn a_flood_through_a_limit_is_no_slower_and_no_larger() {
    let is_full = std::env::var("FANFARE_FLOOD").is_ok_and(|form| form == "full");
    let (events, limit) = if is_full { (1_000_000, 10_000) } else { (40_000, 1_000) };
    let folder = folder("flood");
    let mut p99s = Vec::new();
    let mut sizes = Vec::new();
    for rule in ["free=limits:max_age=24h".to_owned(), format!("full=limits:max_events={limit}")] {
        let channel = rule.split('=').next().expect("a selector").to_owned();
        let path = folder.join(format!("{channel}.db"));
        let log = SqliteLog::open(&path).expect("opened");
        let server = serve(builder().retention(rules(&[&rule])).log(ordered(log)));
        let mut latencies = Vec::new();
        // Those of one crowd may reach the broker in another order than they were made in: receipts tell which.
        let mut seqs = Vec::new();
        // The unlimited one only for comparison, not as long.
        let count = if channel == "free" { events / 10 } else { events };
        let mut published = 0;
        while published < count {
            let sends = (0..64).map(|n| {
                let event =
                    Event::text("message", format!("{} {}", published + n, "x".repeat(200))).expect("valid");
                let send = server.broker.send(Broadcast::channel(&*channel, event).expect("valid"));
                async move {
                    let start = Instant::now();
                    let receipt = send.await.expect("answered").expect("committed");
                    (receipt.seq.expect("kept"), start.elapsed())
                }
            });
            for (seq, latency) in futures_util::future::join_all(sends).await {
                seqs.push(seq);
                latencies.push(latency);
            }
            published += 64;
        }
        p99s.push(p99(latencies));
        let size = |end: &str| std::fs::metadata(path.with_extension(end)).map_or(0, |file| file.len());
        sizes.push(size("db") + size("db-wal"));
        if channel == "full" {
            let answer = http::get(server.addr, "/rt/history?channel=full&limit=1").await.json();
            let oldest = answer["events"][0]["data"].as_str().and_then(|data| data.split(' ').next());
            let oldest: usize = oldest.expect("one is kept").parse().expect("a number");
            let kept = seqs.iter().filter(|seq| **seq >= seqs[oldest]).count();
            assert_eq!(kept, limit, "exactly {limit} are kept");
        }
    }
    println!(
        "publish p99, 64 in flight: {:?} without and {:?} with a limit; files {sizes:?} bytes",
        p99s[0], p99s[1]
    );
    assert!(p99s[1] < p99s[0] * if is_full { 2 } else { 4 }, "{p99s:?}");
    // A kept event of 200 bytes takes less than 1 KiB, and the write-ahead log 64 MiB and a commit at most.
    assert!(sizes[1] < limit as u64 * 1024 + (65 << 20), "{sizes:?}");
}
