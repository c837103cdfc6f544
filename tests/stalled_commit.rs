//! A publish that is stalled between its time stamp and its commit, while others commit and readers come and go.

mod support;

use std::sync::Arc;

use actix::prelude::*;
use fanfare::log::{Commit, Committed, LogHandle, LogSetup};
use fanfare::{Broker, Draft, Log, LogError, MemoryLog};
use support::{http, serve, sse::SseClient};
use tokio::sync::{mpsc, oneshot};

/// A log that another publisher shares: what comes from our broker is held until the test lets it go on, and meanwhile
/// the other's events are committed.
struct Shared {
    held: mpsc::UnboundedSender<Held>,
}

/// A commit that is held: its drafts, and the way to let it go on after some of the other's.
struct Held {
    drafts: Vec<Draft>,
    go_on: oneshot::Sender<()>,
    others: Recipient<Others>,
}

/// Command: commit these events of the other publisher.
#[derive(Message)]
#[rtype(result = "()")]
struct Others(Vec<Draft>);

/// The ticket of the other's commits; our broker counts its own from below.
const OTHERS: u64 = u64::MAX;

struct Gate {
    held: mpsc::UnboundedSender<Held>,
    log: Recipient<Commit>,
    broker: actix::WeakRecipient<Committed>,
}

impl Log for Shared {
    fn start(self: Box<Self>, setup: LogSetup) -> Result<LogHandle, LogError> {
        let LogSetup { mut follower, retention } = setup;
        let ctx = Context::<Gate>::new();
        let broker =
            std::mem::replace(&mut follower.committed, ctx.address().recipient::<Committed>().downgrade());
        let inner = Box::new(MemoryLog::default()).start(LogSetup { follower, retention })?;
        let gate = ctx.run(Gate { held: self.held, log: inner.commit.clone(), broker });
        Ok(LogHandle { commit: gate.recipient(), ..inner })
    }
}

impl Actor for Gate {
    type Context = Context<Self>;
}

impl Handler<Commit> for Gate {
    type Result = ();

    fn handle(&mut self, commit: Commit, ctx: &mut Self::Context) {
        let (go_on, gone) = oneshot::channel();
        let others = ctx.address().recipient();
        let held = Held { drafts: commit.drafts.clone(), go_on, others };
        assert!(self.held.send(held).is_ok(), "the test holds it");
        let log = self.log.clone();
        ctx.spawn(
            async move {
                gone.await.expect("the test lets it go on");
                log.do_send(commit);
            }
            .into_actor(self),
        );
    }
}

impl Handler<Others> for Gate {
    type Result = ();

    fn handle(&mut self, Others(drafts): Others, _: &mut Self::Context) {
        self.log.do_send(Commit { ticket: OTHERS, drafts });
    }
}

impl Handler<Committed> for Gate {
    type Result = ();

    fn handle(&mut self, mut committed: Committed, _: &mut Self::Context) {
        if committed.settles.as_ref().is_some_and(|settled| settled.ticket == OTHERS) {
            committed.settles = None;
        }
        self.broker.upgrade().expect("the broker lives").do_send(committed);
    }
}

fn of_other(stalled: &Draft, id: &str, channel: &str) -> Draft {
    let mut draft = stalled.clone();
    draft.id = fanfare::EventId::new(id).expect("valid");
    draft.channels = Arc::from([fanfare::Channel::new(channel).expect("valid")]);
    draft.publisher = None;
    draft.time += 1000;
    draft
}

/// H2: the stalled publish has the older time stamp and comes behind all that committed before it, for everybody.
#[actix_web::test]
async fn a_stalled_publish_reaches_who_came_and_went_meanwhile() {
    for ring in [1, 1000] {
        let (held_in, mut held) = mpsc::unbounded_channel();
        let server = serve(Broker::builder().ring(ring, 1 << 20).log(Shared { held: held_in }));
        let mut always = server.live("channel=a&channel=b").await;
        let addr = server.addr;
        let publish = |channel: &'static str| {
            actix_web::rt::spawn(async move {
                let body = format!(r#"{{"channel":"{channel}","id":"stalled-{channel}","data":1}}"#);
                http::post_json(addr, "/rt/publish", &body).await
            })
        };
        let stalled = publish("a");
        let Held { drafts, go_on, others } = held.recv().await.expect("a commit");
        // Behind the first one, which is under way; it has its place in the queue.
        let waiting = publish("b");

        let draft = drafts.first().expect("an event");
        others.do_send(Others(vec![of_other(draft, "other-1", "a"), of_other(draft, "other-2", "b")]));
        let mut last = None;
        for _ in 0..2 {
            last = always.event().await.expect("an event").id;
        }
        // And a reader who comes now, and goes.
        let mut reader = server.open("channel=a&channel=b&from=earliest").await;
        reader.welcome().await;
        let mut position = None;
        for _ in 0..2 {
            position = reader.event().await.expect("an event").id;
        }
        assert_eq!(position, last, "both are at the newest committed event");
        drop(reader);

        go_on.send(()).expect("it waits");
        let Held { go_on, .. } = held.recv().await.expect("the next commit");
        go_on.send(()).expect("it waits");
        let receipts = [stalled.await.expect("answered").json(), waiting.await.expect("answered").json()];
        assert_eq!([&receipts[0]["seq"], &receipts[1]["seq"]], [3, 4], "{receipts:?}");

        let position = position.expect("a cursor");
        let header = [("last-event-id", position.as_str())];
        let path = "/rt/events?channel=a&channel=b&format=envelope";
        let mut back = SseClient::open(addr, path, &header).await;
        back.welcome().await;
        for id in ["stalled-a", "stalled-b"] {
            assert_eq!(back.event().await.expect("an event").json()["id"], id);
        }
        for _ in 0..2 {
            always.event().await.expect("an event");
        }
        let history = http::get(addr, "/rt/history?channel=a&channel=b").await.json();
        let events = history["events"].as_array().expect("events");
        let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().expect("text")).collect();
        assert_eq!(ids, ["other-1", "other-2", "stalled-a", "stalled-b"]);
        let times: Vec<_> = events.iter().map(|event| event["time"].as_str().expect("text")).collect();
        assert!(times[2] < times[0], "the stalled one was stamped first: {times:?}");
    }
}
