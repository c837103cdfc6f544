//! How the hub goes away when it is told to.

use std::pin::pin;
use std::time::Duration;

use actix::Addr;
use actix_web::dev::ServerHandle;
use actix_web::rt::signal::unix::{Signal, SignalKind, signal};
use actix_web::rt::time::{Instant, sleep, sleep_until, timeout};
use fanfare::{Broker, DrainWithin, Stats};
use futures_util::future::{self, Either};

use crate::telemetry::Telemetry;

/// How long an interrupted hub takes at most.
const INTERRUPT_DRAIN: Duration = Duration::from_secs(2);
/// What is left of the drain for the process to end, if it is not shorter itself.
const MARGIN: Duration = Duration::from_millis(200);
/// So long, if the drain is long enough, the hub stays to tell those who come that it goes: whoever sends them here
/// learns of it with a delay.
const OPEN: Duration = Duration::from_secs(2);
/// What a commit may take however short the drain is.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);
/// What an answer takes on its way out.
const ANSWER: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(20);
/// What the last words have to leave, with HTTP/2: its connections stay open when nothing is asked for on them any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How to go.
pub(crate) struct Stop {
    /// How long it may take.
    pub(crate) drain: Duration,
    /// Whether clients may speak HTTP/2.
    pub(crate) has_http2: bool,
}

/// Waits to be told to stop. Then new clients and events are refused, streams end, events that were accepted are
/// committed, and the process is gone within the drain whatever its clients do.
pub(crate) async fn when_told(
    mut signals: Signals,
    broker: Addr<Broker>,
    server: ServerHandle,
    stop: Stop,
    telemetry: Telemetry,
) {
    let time = match told(&mut signals, &broker).await {
        Some(Told::Terminate) => stop.drain,
        Some(Told::Interrupt) => stop.drain.min(INTERRUPT_DRAIN),
        None => {
            tracing::error!("the broker is gone; ending, so that whoever watches starts the hub again");
            std::process::exit(1);
        }
    };
    tracing::info!(?time, "told to stop; ending the streams");
    actix_web::rt::spawn(async move {
        signals.next().await;
        tracing::warn!("told again; leaving at once");
        std::process::exit(1);
    });
    let begin = Instant::now();
    let end = begin + time.saturating_sub(MARGIN.min(time / 5));
    empty(&broker, time, begin, end).await;
    telemetry.flush((end.saturating_duration_since(Instant::now()) / 2).max(ANSWER)).await;
    // The rest of the time is for clients to hear the last word. Some never do.
    actix_web::rt::spawn(async move {
        sleep_until(end).await;
        tracing::warn!("some clients did not go; leaving all the same");
        std::process::exit(0);
    });
    let stopped = server.stop(true);
    if !stop.has_http2 {
        stopped.await;
    } else if timeout(LAST_WORDS, stopped).await.is_err() {
        std::process::exit(0);
    }
}

/// Has the broker end its streams and commit what it has accepted. Returns when that is done, or ends the process when
/// there is no more time.
async fn empty(broker: &Addr<Broker>, time: Duration, begin: Instant, end: Instant) {
    let open_until = begin + OPEN.min(time / 2);
    let last = end.max(begin + COMMIT_PATIENCE);
    broker.do_send(DrainWithin { time });
    loop {
        let Ok(stats) = timeout(last.saturating_duration_since(Instant::now()), broker.send(Stats)).await
        else {
            tracing::error!("the broker does not answer; leaving all the same");
            std::process::exit(1);
        };
        let now = Instant::now();
        match stats {
            // It ended its streams when it stopped.
            Err(_) => return,
            Ok(stats) if stats.in_flight > 0 && now >= last => {
                tracing::error!(events = stats.in_flight, "the log does not commit; leaving all the same");
                std::process::exit(1);
            }
            Ok(stats) if stats.in_flight > 0 => {}
            Ok(stats) if now >= end => {
                tracing::warn!(clients = stats.clients, "there is no time left to hear the clients out");
                // Of the time itself if there is some left.
                let left = (begin + time).saturating_duration_since(now) / 2;
                sleep(if left.is_zero() { ANSWER } else { left.min(ANSWER) }).await;
                std::process::exit(0);
            }
            Ok(stats) if stats.clients == 0 && now >= open_until => return,
            Ok(_) => {}
        }
        sleep(LOOK).await;
    }
}

enum Told {
    Terminate,
    Interrupt,
}

/// The signals that tell the hub to stop, from when it is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Told {
        let (terminate, interrupt) = (pin!(self.terminate.recv()), pin!(self.interrupt.recv()));
        match future::select(terminate, interrupt).await {
            Either::Left(_) => Told::Terminate,
            Either::Right(_) => Told::Interrupt,
        }
    }
}

/// Waits for a signal; nothing if the broker is gone, without which there is nothing to serve.
async fn told(signals: &mut Signals, broker: &Addr<Broker>) -> Option<Told> {
    loop {
        match timeout(Duration::from_secs(1), signals.next()).await {
            Ok(told) => return Some(told),
            Err(_) if broker.connected() => {}
            Err(_) => return None,
        }
    }
}
