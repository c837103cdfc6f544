//! The idiom of axum: a `tokio::sync::broadcast` for each channel, and axum's `Sse` of a stream over it.
//! `bench-axum PORT`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use dashmap::DashMap;
use futures_util::{Stream, StreamExt};
use socket2::{Domain, Socket, Type};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Channels = Arc<DashMap<String, broadcast::Sender<String>>>;

/// Events that a slow client may be behind before it loses some.
const CAPACITY: usize = 64;

fn channel(channels: &Channels, name: String) -> broadcast::Sender<String> {
    channels.entry(name).or_insert_with(|| broadcast::channel(CAPACITY).0).clone()
}

async fn subscribe(
    State(channels): State<Channels>,
    Path(name): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(channel(&channels, name).subscribe());
    let events = events.filter_map(async |event| event.ok().map(|data| Ok(Event::default().data(data))));
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn publish(State(channels): State<Channels>, Path(name): Path<String>, body: String) -> StatusCode {
    let _ = channel(&channels, name).send(body);
    StatusCode::ACCEPTED
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("PORT");
    rlimit::increase_nofile_limit(u64::MAX)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    let listener = tokio::net::TcpListener::from_std(socket.into())?;
    let app = Router::new()
        .route("/sse/{channel}", get(subscribe))
        .route("/pub/{channel}", post(publish))
        .with_state(Channels::default());
    axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), app).await
}
