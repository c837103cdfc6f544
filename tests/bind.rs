//! D4: an event that is published under an alias finds those who follow what the alias stands for.

mod support;

use std::sync::{Arc, Barrier};
use std::time::Duration;

use actix::Addr;
use fanfare::{
    Bind, Broadcast, Broker, Drain, Event, EventId, InvalidValue, MemoryLog, Pairs, PublishError, Unbind,
};
use support::bad_log::BadLog;
use support::order::{builder, ordered};
use support::{TestServer, serve, sse::SseClient};

fn line(attributes: &[(&str, &str)], data: impl Into<String>) -> Event {
    let event = Event::text("line", data).expect("valid");
    attributes.iter().fold(event, |event, &(key, value)| event.attribute(key, value).expect("valid"))
}

fn broadcast(attributes: &[(&str, &str)], data: impl Into<String>) -> Broadcast {
    Broadcast::channel("lines", line(attributes, data)).expect("valid")
}

fn bind(when: &[(&str, &str)], set: &[(&str, &str)]) -> Bind {
    Bind { when: when.iter().copied().collect(), set: set.iter().copied().collect() }
}

/// What was wrong with a binding.
fn invalid(error: PublishError) -> InvalidValue {
    match error {
        PublishError::Invalid { invalid, .. } => invalid,
        other => panic!("{other:?}"),
    }
}

async fn bound(server: &TestServer, when: &[(&str, &str)], set: &[(&str, &str)]) {
    server.broker.send(bind(when, set)).await.expect("answered").expect("bound");
}

async fn publish(server: &TestServer, attributes: &[(&str, &str)], data: &str) {
    server.broker.send(broadcast(attributes, data)).await.expect("answered").expect("committed");
}

async fn all(client: &mut SseClient, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(client.data().await);
    }
    all
}

/// After the bind, events of the alias arrive whatever way they are published; those from before do not, and those
/// of another alias neither. The follower of the alias itself misses nothing.
#[actix_web::test]
async fn events_of_an_alias_arrive_from_the_bind_on() {
    let server = serve(builder());
    let mut scroll = server.live("channel=lines&filter=scroll:7").await;
    let mut alias = server.live("channel=lines&filter=native_session:s").await;
    let both = [("connector", "c"), ("native_session", "s")];
    publish(&server, &both, "before").await;

    let id = "7".to_owned();
    let answer = server
        .broker
        .send(Bind {
            when: [("connector", "c"), ("native_session", "s")].into(),
            set: [("scroll", id)].into(),
        })
        .await;
    assert!(!answer.expect("answered").expect("bound").replaced);
    assert_eq!(server.stats().await.bindings, 1);

    publish(&server, &both, "after").await;
    publish(&server, &[("connector", "d"), ("native_session", "s")], "other").await;
    publish(&server, &both[..1], "half").await;
    publish(&server, &[both[0], both[1], ("scroll", "8")], "own").await;
    let ephemeral = Broadcast::channel("lines", line(&both, "ephemeral").ephemeral()).expect("valid");
    server.broker.send(ephemeral).await.expect("answered").expect("sent");
    let attributes = r#"{"connector":"c","native_session":"s"}"#;
    let by_http = |data| format!(r#"{{"channel":"lines","data":"{data}","attributes":{attributes}}}"#);
    let body = format!("[{},{}]", by_http("http 1"), by_http("http 2"));
    assert_eq!(server.publish(&body).await.status(), 200);
    for marker in ["end", "past it"] {
        publish(&server, &[("native_session", "s"), ("scroll", "7")], marker).await;
    }

    assert_eq!(all(&mut scroll, 5).await, ["after", "ephemeral", "http 1", "http 2", "end"]);
    let expected = ["before", "after", "other", "own", "ephemeral", "http 1", "http 2", "end"];
    assert_eq!(all(&mut alias, 8).await, expected);
}

/// The event that is published with a binding is routed by it, also when it takes the place of another binding.
#[actix_web::test]
async fn the_binding_event_is_routed_by_its_own_binding() {
    let server = serve(builder());
    let mut one = server.live("channel=lines&filter=scroll:1").await;
    let mut two = server.live("channel=lines&filter=scroll:2").await;
    for (scroll, data) in [("1", "registered"), ("2", "moved")] {
        let event = broadcast(&[("session", "s")], data);
        let bind = bind(&[("session", "s")], &[("scroll", scroll)]).with(event).expect("valid");
        let receipt = server.broker.send(bind).await.expect("answered").expect("committed");
        assert!(receipt.seq.is_some() && !receipt.duplicate);
        publish(&server, &[("session", "s")], &format!("after {data}")).await;
    }
    assert_eq!(all(&mut one, 2).await, ["registered", "after registered"]);
    assert_eq!(all(&mut two, 2).await, ["moved", "after moved"]);
    // Without a receipt too.
    let event = Broadcast::channel("lines", line(&[("session", "t")], "typed").ephemeral()).expect("valid");
    let bind = bind(&[("session", "t")], &[("scroll", "1")]).with(event).expect("valid");
    server.broker.do_send(bind);
    assert_eq!(one.data().await, "typed");
    assert_eq!(server.stats().await.bindings, 2);
}

/// A binding whose event is refused is not made, and what was bound before stands.
#[actix_web::test]
async fn a_refused_event_leaves_no_binding() {
    let alias = [("session", "s")];
    // Full: the log never answers, and one event waits.
    let full = serve(builder().in_flight(1, 1 << 20).log(BadLog { fails: false }));
    full.broker.do_send(broadcast(&[], "waits"));
    // Draining.
    let draining = serve(builder());
    draining.broker.do_send(Drain);
    // Too much: with what another binding sets.
    let much = serve(builder());
    let ten: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let ten: Vec<_> = ten.iter().map(|key| (key.as_str(), "v")).collect();
    bound(&much, &alias, &[("scroll", "old")]).await;
    bound(&much, &[("kind", "k")], &ten).await;

    for (server, kept) in [(&full, 0), (&draining, 0), (&much, 2)] {
        let event = broadcast(&[("session", "s"), ("kind", "k")], "refused");
        let five = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("scroll", "new")];
        let refused = server.broker.send(bind(&alias, &five).with(event).expect("valid")).await;
        let refused = refused.expect("answered").expect_err("refused");
        match kept {
            0 => assert!(matches!(refused, PublishError::Overloaded | PublishError::Draining), "{refused:?}"),
            _ => assert!(matches!(refused, PublishError::Invalid { index: 0, .. }), "{refused:?}"),
        }
        assert_eq!(server.stats().await.bindings, kept, "{refused:?}");
    }
    let mut old = much.live("channel=lines&filter=scroll:old").await;
    publish(&much, &alias, "still the old one").await;
    assert_eq!(old.data().await, "still the old one");
}

/// What is wrong is said with its field and rule, wherever it is found.
#[actix_web::test]
async fn what_is_wrong_is_refused_by_name() {
    let server = serve(builder());
    let empty: [(&str, &str); 0] = [];
    for (when, set, field) in [
        (&empty[..], &[("a", "1")][..], "when"),
        (&[("a", "1")], &empty, "set"),
        (&[("a", "1")], &[("a", "2")], "set"),
        (&[("a", "1"), ("a", "2")], &[("b", "2")], "when"),
        (&[("a", "\n")], &[("b", "2")], "when"),
    ] {
        let refused = server.broker.send(bind(when, set)).await.expect("answered").expect_err("refused");
        let invalid = invalid(refused);
        assert_eq!(invalid.field(), field, "{when:?} {set:?}");
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Pairs>();
        let at_once = Bind::new(pairs(when), pairs(set));
        assert_eq!(at_once.expect_err("refused"), invalid);
    }
    let unnamed = server.broker.send(Unbind { when: [("", "1")].into() }).await.expect("answered");
    assert_eq!(invalid(unnamed.expect_err("refused")).field(), "when");
    let astray = bind(&[("a", "1")], &[("b", "2")]).with(broadcast(&[("a", "2")], "x"));
    assert_eq!(astray.expect_err("it is not routed by it").field(), "attributes");
    assert_eq!(server.stats().await.bindings, 0);

    // Each set of keys costs every event a look, so there are few.
    for n in 0..64 {
        bound(&server, &[(&format!("key{n}"), "1")], &[("to", "x")]).await;
    }
    let refused = server.broker.send(bind(&[("key64", "1")], &[("to", "x")])).await.expect("answered");
    assert_eq!(invalid(refused.expect_err("refused")).field(), "when");
    bound(&server, &[("key0", "2")], &[("to", "x")]).await;
    assert_eq!(server.stats().await.bindings, 65);
}

/// An event that bindings would give too many attributes is refused with its batch; nothing is left out in silence.
#[actix_web::test]
async fn an_event_with_too_many_attributes_is_refused() {
    let server = serve(builder());
    bound(&server, &[("a", "1")], &[("x", "1"), ("y", "1")]).await;
    let event = |count: usize| {
        let own: Vec<_> = (1..count).map(|n| format!(r#""own{n}":"v""#)).collect();
        format!(r#"{{"channel":"lines","attributes":{{"a":"1",{}}}}}"#, own.join(","))
    };
    assert_eq!(server.publish(&event(14)).await.status(), 200);
    let refused = server.publish(&event(15)).await;
    let problem = refused.problem();
    assert_eq!((refused.status(), &problem["field"]), (400, &"attributes".into()));
    assert!(problem.get("index").is_none(), "{problem}");
    let batch = server.publish(&format!("[{},{}]", event(14), event(15))).await;
    assert_eq!((batch.status(), &batch.problem()["index"]), (400, &1.into()));
    let stats = server.stats().await;
    assert_eq!((stats.published, stats.refused), (1, 3));
}

#[actix_web::test]
async fn unbinding_ends_it_and_can_be_said_twice() {
    let server = serve(builder());
    let mut client = server.live("channel=lines&filter=scroll:7").await;
    bound(&server, &[("c", "1"), ("s", "1")], &[("scroll", "7")]).await;
    publish(&server, &[("c", "1"), ("s", "1")], "bound").await;
    for was_there in [true, false] {
        let unbind = Unbind { when: [("s", "1"), ("c", "1")].into() };
        let answer = server.broker.send(unbind).await.expect("answered");
        assert_eq!(answer.expect("unbound"), was_there);
    }
    publish(&server, &[("c", "1"), ("s", "1")], "unbound").await;
    publish(&server, &[("scroll", "7")], "end").await;
    assert_eq!(all(&mut client, 2).await, ["bound", "end"]);
    assert_eq!(server.stats().await.bindings, 0);
}

/// The table has its bounds: what was unused for longest makes room, and what nobody uses leaves.
#[actix_web::test]
async fn the_table_is_bounded_by_count_and_age() {
    let server = serve(builder().bindings(3, Duration::from_secs(3600)));
    let mut client = server.live("channel=lines&filter=scroll:7").await;
    for n in 0..10 {
        bound(&server, &[("s", &n.to_string())], &[("scroll", "7")]).await;
        // In use, so it stays.
        publish(&server, &[("s", "0")], "0").await;
    }
    let stats = server.stats().await;
    assert_eq!((stats.bindings, stats.bindings_dropped), (3, 7));
    for n in 1..10 {
        publish(&server, &[("s", &n.to_string())], &n.to_string()).await;
    }
    for marker in 0..12 {
        // So that what is missing shows, and is not waited for.
        publish(&server, &[("scroll", "7")], &format!("end {marker}")).await;
    }
    assert_eq!(all(&mut client, 12).await, [["0"; 10].as_slice(), &["8", "9"]].concat());

    let server = serve(builder().bindings(3, Duration::from_millis(50)));
    bound(&server, &[("s", "1")], &[("scroll", "7")]).await;
    server.until(Duration::from_secs(5), |stats| stats.bindings == 0).await;
    let mut client = server.live("channel=lines&filter=scroll:7").await;
    publish(&server, &[("s", "1")], "expired").await;
    publish(&server, &[("scroll", "7")], "end").await;
    assert_eq!(client.data().await, "end");
    assert_eq!(server.stats().await.bindings_dropped, 0);
}

/// What comes back from the log is what was committed, not what is bound when it is read.
#[actix_web::test]
async fn resume_sees_what_was_bound() {
    let memory = || builder().log(ordered(MemoryLog::default()));
    let mut builders = vec![memory().ring(1, 1 << 20), memory()];
    #[cfg(feature = "sqlite")]
    builders.push(builder().ring(1, 1 << 20).log(ordered(sqlite::log("resume"))));
    for builder in builders {
        let server = serve(builder);
        let mut cut = server.live("channel=lines&filter=scroll:7").await;
        publish(&server, &[("s", "1")], "before").await;
        bound(&server, &[("s", "1")], &[("scroll", "7")]).await;
        publish(&server, &[("s", "1")], "seen").await;
        let last = cut.event().await.expect("an event").id.expect("a cursor");
        drop(cut);
        for n in 0..10 {
            publish(&server, &[("s", ["1", "2"][n % 2])], &n.to_string()).await;
        }
        server.broker.send(Unbind { when: [("s", "1")].into() }).await.expect("answered").expect("valid");
        publish(&server, &[("s", "1")], "unbound").await;
        publish(&server, &[("scroll", "7")], "end").await;

        let mut back = server.live(&format!("channel=lines&filter=scroll:7&last_event_id={last}")).await;
        assert_eq!(all(&mut back, 6).await, ["0", "2", "4", "6", "8", "end"]);
        let mut late = server.live("channel=lines&filter=scroll:7&from=earliest&format=envelope").await;
        let first = late.event().await.expect("an event").json();
        assert_eq!(
            (&first["data"], &first["attributes"]),
            (&"seen".into(), &serde_json::json!({"s": "1", "scroll": "7"}))
        );
        let history =
            support::http::get(server.addr, "/rt/history?channel=lines&filter=scroll:7").await.json();
        assert_eq!(history["events"].as_array().map(Vec::len), Some(7), "{history}");
    }
}

/// An event that was published before the bind and again after it is the first one still.
#[actix_web::test]
async fn publishing_again_does_not_route_what_was_published() {
    let server = serve(builder());
    let again = || {
        let event = line(&[("s", "1")], "once").id(EventId::new("once").expect("valid"));
        Broadcast::channel("lines", event).expect("valid")
    };
    let first = server.broker.send(again()).await.expect("answered").expect("committed");
    bound(&server, &[("s", "1")], &[("scroll", "7")]).await;
    let second = server.broker.send(again()).await.expect("answered").expect("known");
    assert_eq!((second.seq, second.duplicate), (first.seq, true));
    publish(&server, &[("s", "1")], "end").await;
    let mut client = server.live("channel=lines&filter=scroll:7&from=earliest").await;
    assert_eq!(client.data().await, "end");
}

const ALIASES: usize = 1000;
const BINDERS: usize = 4;
const BYSTANDERS: usize = 3;

fn publish_alias(broker: &Addr<Broker>, alias: &str, data: String) {
    broker.do_send(broadcast(&[("alias", alias)], data));
}

/// A thousand aliases are bound and published to from four threads, while three others publish to all of them: for each
/// alias the log has events without what is bound, then the binding event, then events with it, and no other order.
#[actix_web::test]
async fn concurrent_binds_and_publishes_never_misroute() {
    let server = serve(builder());
    let mut routed = server.live("channel=lines&filter=bound:yes&format=envelope").await;
    let start = Arc::new(Barrier::new(BINDERS + BYSTANDERS));
    let mut threads = Vec::new();
    for thread in 0..BINDERS + BYSTANDERS {
        let (broker, start) = (server.broker.clone(), start.clone());
        threads.push(std::thread::spawn(move || {
            start.wait();
            for n in 0..ALIASES {
                let alias = format!("a{n}");
                if thread >= BINDERS {
                    publish_alias(&broker, &alias, "whenever".into());
                } else if n % BINDERS == thread {
                    publish_alias(&broker, &alias, "before".into());
                    let to = format!("scroll {n}");
                    let bind = bind(&[("alias", &alias)], &[("scroll", &to), ("bound", "yes")]);
                    // Both ways: in one step, and one after the other by the same sender.
                    if n % 8 < 4 {
                        let event = broadcast(&[("alias", &alias)], "binding");
                        broker.do_send(bind.with(event).expect("valid"));
                    } else {
                        broker.do_send(bind);
                    }
                    publish_alias(&broker, &alias, "after".into());
                }
            }
        }));
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    let total = ALIASES * (2 + BYSTANDERS) + ALIASES / 2;
    server.until(Duration::from_secs(20), |stats| stats.published == total as u64).await;
    assert_eq!(server.stats().await.bindings, ALIASES);

    let mut log = server.live("channel=lines&from=earliest&format=envelope").await;
    let mut seen = vec![Vec::new(); ALIASES];
    let mut expected = Vec::new();
    for _ in 0..total {
        let event = log.event().await.expect("an event").json();
        let alias = event["attributes"]["alias"].as_str().expect("an alias");
        let n: usize = alias[1..].parse().expect("a number");
        let scroll = event["attributes"]["scroll"].as_str();
        assert!(scroll.is_none_or(|scroll| scroll == format!("scroll {n}")), "misrouted: {event}");
        if scroll.is_some() {
            expected.push(event["seq"].as_u64());
        }
        seen[n].push((event["data"].as_str().expect("text").to_owned(), scroll.is_some()));
    }
    for (n, events) in seen.iter().enumerate() {
        let first = events.iter().position(|(_, is_bound)| *is_bound).expect("the one after the bind");
        assert!(events[first..].iter().all(|(_, is_bound)| *is_bound), "{n}: {events:?}");
        let position = |wanted: &str| events.iter().position(|(data, _)| data == wanted);
        assert!(position("before") < Some(first), "{n}: {events:?}");
        assert!(position("after") >= Some(first), "{n}: {events:?}");
        if n % 8 < 4 {
            assert_eq!(position("binding"), Some(first), "{n}: {events:?}");
        }
    }
    // Who was there all the time got the same, once and in order.
    for seq in expected {
        assert_eq!(routed.event().await.expect("an event").json()["seq"].as_u64(), seq);
    }
    publish(&server, &[("bound", "yes")], "end").await;
    assert_eq!(routed.event().await.expect("an event").json()["data"], "end");
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::path::PathBuf;

    use fanfare::SqliteLog;

    use super::*;

    fn path(name: &str) -> PathBuf {
        let folder = format!("bind-{name}-{}", std::process::id());
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder.join("events.db")
    }

    pub(super) fn log(name: &str) -> SqliteLog {
        SqliteLog::open(path(name)).expect("a log")
    }

    /// A restart forgets bindings and keeps what they gave to events.
    #[actix_web::test]
    async fn a_restart_forgets_bindings_and_not_what_they_set() {
        let path = path("restart");
        let before = serve(builder().log(ordered(SqliteLog::open(&path).expect("a log"))));
        bound(&before, &[("s", "1")], &[("scroll", "7")]).await;
        publish(&before, &[("s", "1")], "bound").await;
        before.handle.stop(true).await;
        drop(before.broker);
        // The file is free once the broker's log has stopped.
        let freed = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                match SqliteLog::open(&path) {
                    Ok(log) => break log,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        });

        let after = serve(builder().log(ordered(freed.await.expect("freed"))));
        assert_eq!(after.stats().await.bindings, 0);
        publish(&after, &[("s", "1")], "forgotten").await;
        publish(&after, &[("scroll", "7")], "end").await;
        let mut client = after.live("channel=lines&filter=scroll:7&from=earliest").await;
        assert_eq!(all(&mut client, 2).await, ["bound", "end"]);
    }
}
