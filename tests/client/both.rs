//! What a stream gives from a real server, over either transport.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare::client::{Begin, Cause, Client, Item, PublishError, StreamError, Transport};
use fanfare::{Broadcast, Broker, CloseReason, CloseSession, Drain, Event, EventId, MemoryLog};
use futures_util::StreamExt;

use crate::support::hub::Hub;
use crate::support::serve;
use crate::{PATIENCE, client, connected, end, event, follow, item, lost, publish, to};

over_both![
    events_come_in_order_with_all_that_is_known_of_them,
    where_to_begin_can_be_chosen,
    a_restart_loses_nothing_and_repeats_nothing,
    what_is_gone_is_told_at_its_place,
    a_cursor_of_another_log_is_told,
    dropping_the_stream_closes_the_connection,
    a_server_that_goes_away_says_so,
    a_real_refusal_is_explained,
    a_revoked_session_ends_the_stream,
    a_server_that_lives_is_not_left,
];

async fn events_come_in_order_with_all_that_is_known_of_them(transport: Transport) {
    let server = serve(Broker::builder());
    let client = client(&server);
    let subscribe = client
        .subscribe()
        .over(transport)
        .channel("a/*")
        .expect("valid")
        .filter("kind", "x y")
        .expect("valid");
    let mut stream = subscribe.open();
    let Ok(Item::Connected(me)) = item(&mut stream).await else { panic!("not connected") };
    assert_eq!(me.heartbeat, Duration::from_secs(15));
    let start = stream.position().cloned().expect("the head");

    let tagged = |data: &str| {
        let event = Event::text("created", data).expect("valid");
        event.attribute("kind", "x y").expect("valid")
    };
    let json = Event::json("message", &serde_json::json!({"n": [1, 2]})).expect("valid");
    let json = json.attribute("kind", "x y").expect("valid").id(EventId::new("mine").expect("valid"));
    let all = [
        Broadcast::channels(["a/1", "b"], tagged("line\r\nline")).expect("valid"),
        to("a/1", "not of this kind"),
        Broadcast::channel("a/1", json).expect("valid"),
        Broadcast::channel("a/2", tagged("{}").ephemeral()).expect("valid"),
        Broadcast::sessions([me.session], Event::text("message", "me").expect("valid")),
        Broadcast::everyone(Event::text("message", "all").expect("valid")),
    ];
    let receipts = client.publish_all(&all).await.expect("committed");

    let first = event(&mut stream).await;
    assert_eq!(first.data.as_str(), "line\r\nline");
    assert_eq!(
        (first.name.as_str(), &*first.channel, first.seq, first.prev),
        ("created", "a/1", Some(1), Some(0))
    );
    assert_eq!(first.channels, ["a/1", "b"]);
    assert_eq!((first.attributes.get("kind"), first.id.clone()), (Some("x y"), receipts[0].id.clone()));
    assert_eq!((&first.position, stream.position()), (&receipts[0].position, receipts[0].position.as_ref()));
    assert!(first.time.elapsed().expect("in the past") < PATIENCE);
    let second = event(&mut stream).await;
    assert_eq!((second.id.as_str(), second.seq, second.prev), ("mine", Some(3), Some(2)));
    let read: BTreeMap<String, Vec<u8>> = second.json().expect("JSON");
    assert_eq!((read["n"].as_slice(), second.data.is_json()), (&[1, 2][..], true));
    let ephemeral = event(&mut stream).await;
    assert_eq!((ephemeral.data.as_str(), ephemeral.data.is_json()), ("{}", false));
    assert_eq!((ephemeral.position, ephemeral.seq, ephemeral.prev), (None, None, None));
    assert_eq!(stream.position(), receipts[2].position.as_ref());
    let inbox = event(&mut stream).await;
    assert_eq!((&*inbox.channel, inbox.data.as_str()), ("$session", "me"));
    let everyone = event(&mut stream).await;
    assert_eq!((&*everyone.channel, everyone.data.as_str()), ("$everyone", "all"));

    // The same again, for one who comes later.
    let mut later = client.subscribe().over(transport).channel("a/*").expect("valid").after(start).open();
    connected(&mut later).await;
    assert_eq!(event(&mut later).await.id, receipts[0].id);
}

async fn where_to_begin_can_be_chosen(transport: Transport) {
    let server = serve(Broker::builder());
    for n in 0..5 {
        publish(&server, "a", n.to_string()).await;
    }
    for (begin, expected) in [(Begin::Earliest, "0"), (Begin::Last(2), "3"), (Begin::Now, "live")] {
        let mut stream = follow(&client(&server), transport).from(begin).open();
        connected(&mut stream).await;
        if begin == Begin::Now {
            publish(&server, "a", "live").await;
        }
        assert_eq!(event(&mut stream).await.data.as_str(), expected);
    }
}

/// Over a `kill -9` of the hub, with events before, at and after it: each once and in order.
async fn a_restart_loses_nothing_and_repeats_nothing(transport: Transport) {
    const EVENTS: usize = 300;
    let log = std::env::temp_dir().join(format!("fanfare-client-{transport:?}-{}.db", std::process::id()));
    let args = ["--log", log.to_str().expect("text")];
    let hub = Hub::start(&args);
    let addr = hub.addr;
    let client = Client::new(format!("http://{addr}/")).expect("a URL");
    let mut stream = follow(&client, transport).open();
    connected(&mut stream).await;

    let publishing = async {
        let mut hub = Some(hub);
        for n in 0..EVENTS {
            if n == EVENTS / 2 {
                drop(hub.take());
                hub = Some(Hub::start_on(&addr.to_string(), &args));
            }
            let event = Event::text("message", n.to_string()).expect("valid");
            let event = event.id(EventId::new(format!("n-{n}")).expect("valid"));
            let event = Broadcast::channel("a", event).expect("valid");
            // As a careful publisher: again with the same id, until there is a receipt.
            while let Err(error) = client.publish(&event).await {
                assert!(matches!(error, PublishError::Unanswered(_)), "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        hub
    };
    let reading = async {
        let (mut seen, mut losses) = (Vec::new(), 0);
        while seen.len() < EVENTS {
            match item(&mut stream).await.expect("no end") {
                Item::Event(event) => seen.push(event.data.as_str().to_owned()),
                Item::Disconnected(_) => losses += 1,
                Item::Connected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        (seen, losses)
    };
    let (_hub, (seen, losses)) = futures_util::future::join(publishing, reading).await;
    assert_eq!(seen, (0..EVENTS).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(losses > 0, "it was never cut");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", log.display()));
    }
}

async fn what_is_gone_is_told_at_its_place(transport: Transport) {
    let log = MemoryLog::bounded(3, 1 << 20).expect("valid");
    let server = serve(Broker::builder().ring(1, 1 << 20).log(log));
    let first = publish(&server, "a", "0").await;
    for n in 1..10 {
        publish(&server, "a", n.to_string()).await;
    }
    let behind = || follow(&client(&server), transport).after(first.clone());
    let mut stream = behind().open();
    connected(&mut stream).await;
    let Ok(Item::Gap(gap)) = item(&mut stream).await else { panic!("no gap") };
    assert_eq!((&*gap.reason, gap.after, gap.head), ("expired", 1, 10));
    let next = event(&mut stream).await;
    assert!(next.seq > Some(gap.resumed_at) || next.seq == Some(gap.resumed_at), "{next:?} {gap:?}");

    let mut strict = behind().strict().open();
    if transport == Transport::WebSocket {
        // It is told only on the socket.
        connected(&mut strict).await;
    }
    let error = end(&mut strict).await;
    let StreamError::Rejected(problem) = error else { panic!("{error}") };
    assert_eq!(
        (problem.status, problem.field.as_deref()),
        (410, Some(if transport == Transport::Sse { "last_event_id" } else { "cursor" }))
    );
}

async fn a_cursor_of_another_log_is_told(transport: Transport) {
    let elsewhere = publish(&serve(Broker::builder()), "a", "elsewhere").await;
    let server = serve(Broker::builder());
    publish(&server, "a", "here").await;
    let mut stream = follow(&client(&server), transport).after(elsewhere).open();
    connected(&mut stream).await;
    let Ok(Item::Reset(reset)) = item(&mut stream).await else { panic!("no reset") };
    assert_eq!((&*reset.reason, reset.head), ("other_log", 1));
    assert_eq!(event(&mut stream).await.data.as_str(), "here");
}

async fn dropping_the_stream_closes_the_connection(transport: Transport) {
    let server = serve(Broker::builder());
    let mut stream = follow(&client(&server), transport).open();
    connected(&mut stream).await;
    assert_eq!(server.stats().await.clients, 1);
    drop(stream);
    server.until(Duration::from_secs(2), |stats| stats.clients == 0).await;
}

async fn a_server_that_goes_away_says_so(transport: Transport) {
    let server = serve(Broker::builder());
    let mut stream = follow(&client(&server), transport).open();
    connected(&mut stream).await;
    server.broker.do_send(Drain);
    let (cause, retry_in) = lost(&mut stream).await;
    assert_eq!(cause, Cause::Closing("draining".into()));
    assert!(retry_in >= Duration::from_secs(5), "{retry_in:?}");
}

async fn a_real_refusal_is_explained(transport: Transport) {
    let server = serve(Broker::builder());
    let mut subscribe = client(&server).subscribe().over(transport);
    for n in 0..129 {
        subscribe = subscribe.channel(format!("a/{n}")).expect("valid");
    }
    let StreamError::Rejected(problem) = end(&mut subscribe.open()).await else { panic!("not refused") };
    assert_eq!(
        (problem.status, problem.field.as_deref()),
        (400, Some(if transport == Transport::Sse { "channel" } else { "channels" }))
    );
    let nowhere = Client::new(format!("http://{}/nowhere", server.addr)).expect("a URL");
    let StreamError::Rejected(problem) = end(&mut follow(&nowhere, transport).open()).await else {
        panic!("found")
    };
    assert_eq!(problem.status, 404);
}

/// It is not to come back, and does not try.
async fn a_revoked_session_ends_the_stream(transport: Transport) {
    let server = serve(Broker::builder());
    let mut stream = follow(&client(&server), transport).open();
    let Ok(Item::Connected(me)) = item(&mut stream).await else { panic!("not connected") };
    server.broker.do_send(CloseSession { session: me.session, reason: CloseReason::Revoked });
    let error = end(&mut stream).await;
    assert!(matches!(error, StreamError::Stopped), "{error}");
    server.until(Duration::from_secs(2), |stats| stats.clients == 0).await;
}

/// By neither side: on a quiet channel there are only heartbeats, and answers to them.
async fn a_server_that_lives_is_not_left(transport: Transport) {
    let server = serve(Broker::builder().heartbeat(Duration::from_millis(300)));
    let mut stream = follow(&client(&server), transport).open();
    connected(&mut stream).await;
    let more = tokio::time::timeout(Duration::from_millis(2500), stream.next()).await;
    assert!(more.is_err(), "a live server was left: {more:?}");
}
