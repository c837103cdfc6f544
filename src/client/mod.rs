//! A client of a hub, or of a scope in another process: it follows channels, comes back by itself, and publishes.
//!
//! [`Client`] knows the server, [`Subscribe`] what to follow, and [`EventStream`] is the stream of it:
//!
//! ```
//! use fanfare::client::{Client, Item};
//! use fanfare::{Broadcast, Event};
//! use futures_util::StreamExt;
//!
//! # async fn run(url: String) -> Result<(), Box<dyn std::error::Error>> {
//! # /*
//! let url = "http://127.0.0.1:8080/";
//! # */
//! let client = Client::new(url)?;
//! let mut orders = client.subscribe().channel("orders/*")?.filter("kind", "sale")?.open();
//! while let Some(item) = orders.next().await {
//!     match item? {
//!         Item::Connected(_) => {
//!             let order = Event::json("created", &serde_json::json!({"order": 7}))?.attribute("kind", "sale")?;
//!             client.publish(&Broadcast::channel("orders/7", order)?).await?;
//!         }
//!         Item::Event(event) => {
//!             assert_eq!((&*event.channel, event.data.as_str()), ("orders/7", r#"{"order":7}"#));
//!             break;
//!         }
//!         Item::Gap(_) | Item::Reset(_) => println!("something is missing: load the state again"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! # actix_web::rt::System::new().block_on(async {
//! #     let broker = fanfare::Broker::builder().start().unwrap();
//! #     let served = broker.clone();
//! #     let scope = move || fanfare::http::scope("/rt", &served, fanfare::http::HttpConfig::default());
//! #     let server = actix_web::HttpServer::new(move || actix_web::App::new().service(scope()));
//! #     let server = server.workers(1).bind("127.0.0.1:0").unwrap();
//! #     let url = format!("http://{}/rt", server.addrs()[0]);
//! #     actix_web::rt::spawn(server.run());
//! #     run(url).await.unwrap();
//! # });
//! ```
//!
//! Streams are Server-Sent Events unless they are to come [over](Subscribe::over) a WebSocket; a position that was reached over
//! one [transport](Transport) is gone on from over the other.
//!
//! # Guarantees
//!
//! - Events come in the log's order. Over any number of reconnects, none of what the log still holds is missing and none
//!   comes twice: the stream goes on by its cursor. What cannot be had is an item of its own, at its place
//!   ([`Item::Gap`], [`Item::Reset`], [`Item::Lag`]). A WebSocket has [exceptions](Transport::WebSocket) for what is sent to a
//!   session and to everyone.
//! - It reconnects for ever. The time between attempts doubles up to a limit and is jittered; it is never less than what
//!   the server asked for (`retry:`, `Retry-After`), up to an hour. Only a connection that delivered something begins anew.
//! - A dead server is noticed: nothing within the [connect timeout](Client::connect_timeout), or nothing for two
//!   heartbeats on an open stream.
//! - What retrying cannot mend ends the stream, with a [`StreamError`] as its last item: a refusal, or a session that was ended.
//! - It holds one event at a time, and none larger than [its limit](Client::max_event); over a WebSocket, until it is taken
//!   on, several that together are no larger. Who does not read holds up the connection, not memory.
//! - Dropping the stream closes the connection.
//!
//! # Limits
//!
//! It needs a tokio runtime (actix-web's is one). It speaks plain HTTP/1.1 unless it is [given](Client::with_http) an HTTP
//! client that has TLS. A server that hands out its session by cookie sees a new session with each connection, unless
//! the same cookie is sent as a [header](Client::header).

mod backoff;
mod builder;
mod connection;
mod error;
mod item;
mod publish;
mod read;
mod stream;

pub use builder::{Begin, Client, Subscribe};
pub use connection::Transport;
pub use error::{Problem, PublishError, StreamError};
pub use item::{Cause, Connected, Disconnected, Gap, Item, Lag, Position, Received, Reset};
pub use publish::Receipt;
pub use stream::EventStream;
