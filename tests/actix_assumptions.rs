//! What we rely on in actix, actix-web and tokio, so that a release that changes it is told by a test and not by a user.

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;
use actix::{WeakAddr, WeakRecipient};
use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::io::AsyncReadExt;

#[derive(Message)]
#[rtype(result = "u32")]
struct Number(u32);

#[derive(Default)]
struct Recorder {
    seen: Rc<RefCell<Vec<u32>>>,
    stopped: Option<Rc<RefCell<bool>>>,
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(stopped) = &self.stopped {
            *stopped.borrow_mut() = true;
        }
    }
}

impl Handler<Number> for Recorder {
    type Result = u32;

    fn handle(&mut self, Number(number): Number, ctx: &mut Self::Context) -> u32 {
        self.seen.borrow_mut().push(number);
        if number == u32::MAX {
            ctx.stop();
        }
        number
    }
}

/// The broker's order rests on this.
#[actix::test]
async fn messages_of_one_sender_are_handled_in_order() {
    let recorder = Recorder::default();
    let seen = recorder.seen.clone();
    let addr = recorder.start();
    for n in 0..1000 {
        addr.do_send(Number(n));
    }
    addr.send(Number(1000)).await.expect("answered");
    assert_eq!(*seen.borrow(), (0..=1000).collect::<Vec<_>>());
}

/// Why nothing relies on a mailbox being a bound.
#[actix::test]
async fn a_mailbox_takes_any_number_from_clones() {
    let recorder = Recorder::default();
    let seen = recorder.seen.clone();
    let addr = recorder.start();
    for n in 0..100 {
        assert!(addr.clone().try_send(Number(n)).is_ok());
    }
    addr.send(Number(100)).await.expect("answered");
    assert_eq!(seen.borrow().len(), 101);
}

/// Why the HTTP handler publishes by `do_send` and a channel of its own.
#[actix::test]
async fn a_dropped_send_takes_its_message_back() {
    let recorder = Recorder::default();
    let seen = recorder.seen.clone();
    let addr = recorder.start();
    let kept = addr.send(Number(1));
    drop(addr.send(Number(2)));
    kept.await.expect("answered");
    addr.send(Number(3)).await.expect("answered");
    assert_eq!(*seen.borrow(), [1, 3]);
}

/// Why commits travel as messages and not as the replies of spawned futures.
#[actix::test]
async fn spawned_futures_finish_out_of_order() {
    struct Spawner(Rc<RefCell<Vec<u32>>>);
    impl Actor for Spawner {
        type Context = Context<Self>;
    }
    impl Handler<Number> for Spawner {
        type Result = u32;
        fn handle(&mut self, Number(count): Number, ctx: &mut Self::Context) -> u32 {
            for n in 0..count {
                let future = tokio::task::yield_now().into_actor(self);
                ctx.spawn(future.map(move |(), spawner, _| spawner.0.borrow_mut().push(n)));
            }
            count
        }
    }
    let finished = Rc::new(RefCell::new(Vec::new()));
    let addr = Spawner(finished.clone()).start();
    addr.send(Number(8)).await.expect("answered");
    while finished.borrow().len() < 8 {
        tokio::task::yield_now().await;
    }
    assert_ne!(*finished.borrow(), (0..8).collect::<Vec<_>>());
}

/// Strong addresses down, weak ones up: an actor stops with its last strong address, whatever weak ones there are.
#[actix::test]
async fn a_weak_address_keeps_nobody_alive() {
    let stopped = Rc::new(RefCell::new(false));
    let addr = Recorder { stopped: Some(stopped.clone()), ..Recorder::default() }.start();
    let weak: WeakAddr<Recorder> = addr.downgrade();
    let recipient: WeakRecipient<Number> = addr.clone().recipient().downgrade();
    addr.send(Number(0)).await.expect("answered");
    drop(addr);
    while !*stopped.borrow() {
        tokio::task::yield_now().await;
    }
    assert!(weak.upgrade().is_none());
    assert!(recipient.upgrade().is_none_or(|recipient| !recipient.connected()));
}

/// A stopped actor takes nothing more, and sending to it is no panic: facts may come late.
#[actix::test]
async fn sending_to_a_stopped_actor_is_harmless() {
    let addr = Recorder::default().start();
    addr.send(Number(u32::MAX)).await.expect("answered");
    while addr.connected() {
        tokio::task::yield_now().await;
    }
    addr.do_send(Number(1));
    assert!(addr.send(Number(1)).await.is_err());
    assert!(addr.downgrade().upgrade().is_none());
}

/// Why handlers must be total: nothing restarts an actor after a panic.
#[actix::test]
async fn a_panic_is_final() {
    struct Panics;
    impl Actor for Panics {
        type Context = Context<Self>;
    }
    impl Handler<Number> for Panics {
        type Result = u32;
        fn handle(&mut self, _: Number, _: &mut Self::Context) -> u32 {
            std::panic::resume_unwind(Box::new("on purpose"))
        }
    }
    let arbiter = Arbiter::new();
    let addr = Panics::start_in_arbiter(&arbiter.handle(), |_| Panics);
    assert!(addr.send(Number(0)).await.is_err());
    assert!(addr.send(Number(0)).await.is_err());
    arbiter.stop();
}

/// `stopped` runs for actors that end with their arbiter: a session says farewell also when its thread goes.
#[actix::test]
async fn actors_are_stopped_with_their_arbiter() {
    struct Tells(std::sync::mpsc::Sender<()>);
    impl Actor for Tells {
        type Context = Context<Self>;
        fn stopped(&mut self, _: &mut Self::Context) {
            let _ = self.0.send(());
        }
    }
    impl Handler<Number> for Tells {
        type Result = u32;
        fn handle(&mut self, Number(number): Number, _: &mut Self::Context) -> u32 {
            number
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let arbiter = Arbiter::new();
    let addr = Tells::start_in_arbiter(&arbiter.handle(), |_| Tells(tell));
    addr.send(Number(0)).await.expect("answered");
    arbiter.stop();
    assert!(arbiter.join().is_ok());
    assert!(told.try_recv().is_ok());
}

/// A stream that never ends, dropped when the server lets go of it.
struct Endless(std::sync::mpsc::Sender<()>);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn endless_server(
    half_closed: bool,
) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<()>, actix_web::dev::ServerHandle) {
    let (tell, told) = std::sync::mpsc::channel();
    let server = HttpServer::new(move || {
        let tell = tell.clone();
        App::new().route(
            "/",
            web::get().to(move || {
                let endless = Endless(tell.clone());
                async move {
                    let first = Ok::<_, actix_web::Error>(Bytes::from_static(b"x"));
                    let never = stream::unfold(endless, |endless| async move {
                        std::future::pending::<()>().await;
                        Some((Ok(Bytes::new()), endless))
                    });
                    HttpResponse::Ok()
                        .streaming(stream::StreamExt::chain(stream::iter([first]), Box::pin(never)))
                }
            }),
        )
    })
    .workers(1)
    .h1_allow_half_closed(half_closed)
    .disable_signals()
    .shutdown_timeout(1)
    .bind("127.0.0.1:0")
    .expect("a free port");
    let addr = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (addr, told, handle)
}

async fn is_dropped_within(told: &std::sync::mpsc::Receiver<()>, time: Duration) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        if told.try_recv().is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

/// Why the README asks for `h1_allow_half_closed(false)`: with it a client that closed is gone at once, and without it
/// an idle stream is kept.
#[actix_web::test]
async fn a_client_that_closed_is_noticed_only_without_half_closing() {
    for (half_closed, gone) in [(false, true), (true, false)] {
        let (addr, told, handle) = endless_server(half_closed);
        let mut socket = support::http::send_head(addr, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let (head, _) = support::http::read_head(&mut socket).await;
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        drop(socket);
        assert_eq!(
            is_dropped_within(&told, Duration::from_millis(500)).await,
            gone,
            "half closed: {half_closed}"
        );
        handle.stop(false).await;
    }
}

/// A reset is noticed at once either way.
#[actix_web::test]
async fn a_reset_is_noticed_at_once() {
    let (addr, told, handle) = endless_server(true);
    let mut socket = support::http::send_head(addr, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    support::http::read_head(&mut socket).await;
    socket.set_zero_linger().expect("an option");
    drop(socket);
    assert!(is_dropped_within(&told, Duration::from_millis(500)).await);
    handle.stop(false).await;
}

/// Why streams must be ended by the broker: a graceful stop waits for them until its timeout.
#[actix_web::test]
async fn a_graceful_stop_waits_for_an_open_stream() {
    let (addr, _told, handle) = endless_server(false);
    let mut socket = support::http::send_head(addr, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    support::http::read_head(&mut socket).await;
    let start = std::time::Instant::now();
    handle.stop(true).await;
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
}
