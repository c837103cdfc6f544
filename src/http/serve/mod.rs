//! A server for streams: as actix-web's own, but that an established stream costs its socket and little more.

mod connection;
mod lease;
mod writer;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use actix_http::{HttpService, Request, Response};
use actix_server::ServerBuilder;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config,
};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server};
use actix_web::rt::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use self::connection::Connection;
use self::lease::Leased;
pub(super) use self::lease::{Lease, Stream};
use super::socket::tune;

/// Serves an actix-web application over plain HTTP/1.1, with the settings that streams want.
///
/// It is actix-web's server, its application and its HTTP in all but one thing: once the first blocks of a stream of
/// Server-Sent Events have left, the stream is written to its socket directly, and the HTTP dispatcher with its buffers is let
/// go. That is cheaper for each delivery and saves most of the memory of a connection. What a client sees is the same, byte for byte
/// but for where chunks begin. A WebSocket, a stream of HTTP/1.0 and every other request is served as by
/// [`HttpServer`](actix_web::HttpServer), and so must be whoever wants TLS or HTTP/2.
///
/// - A middleware that changes the bodies of responses does not see a stream's beyond its beginning; one that waits for their end
///   (an access log, say) is told when the dispatcher is let go.
/// - [`tune_socket`](super::tune_socket)'s options, `TCP_NODELAY`, and the closing of half-closed connections are set.
/// - A client has 5 s to close once it was sent the end of its stream.
///
/// ```no_run
/// use actix_web::App;
/// use fanfare::{Broker, http};
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Broker::builder().start()?;
/// http::serve(move || App::new().service(http::scope("/rt", &broker, http::HttpConfig::default())))
///     .bind("127.0.0.1:8080")?
///     .run()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub fn serve<F, I, S, B>(application: F) -> Serve<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    Serve {
        application,
        server: ServerBuilder::default(),
        backlog: 4096,
        addresses: Vec::new(),
        application_kind: PhantomData,
    }
}

/// A server that is being set up; see [`serve`].
#[must_use = "it serves once it is run"]
pub struct Serve<F, I, S, B> {
    application: F,
    server: ServerBuilder,
    backlog: i32,
    addresses: Vec<SocketAddr>,
    application_kind: PhantomData<(I, S, B)>,
}

impl<F, I, S, B> Serve<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    /// The number of threads, each with an application of its own; as many as there are processors by default.
    ///
    /// # Panics
    ///
    /// If it is 0 or more than 512.
    pub fn workers(mut self, threads: usize) -> Self {
        self.server = self.server.workers(threads);
        self
    }

    /// The connections that each thread may have, streams among them; 25,000 by default.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.server = self.server.max_concurrent_connections(connections);
        self
    }

    /// How long a graceful stop waits for connections to end, in seconds; 30 by default. Streams never end by
    /// themselves: have the broker end them first, by [`Drain`](crate::Drain) or [`DrainWithin`](crate::DrainWithin).
    pub fn shutdown_timeout(mut self, seconds: u64) -> Self {
        self.server = self.server.shutdown_timeout(seconds);
        self
    }

    /// Leaves signals to the application; by default SIGTERM stops gracefully, and SIGINT at once.
    pub fn disable_signals(mut self) -> Self {
        self.server = self.server.disable_signals();
        self
    }

    /// Listens on an address, and on all of them if it is a name of several.
    ///
    /// # Errors
    ///
    /// If it is no address, or none of them can be listened on.
    pub fn bind(mut self, address: impl ToSocketAddrs) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::InvalidInput, "there is no such address");
        let before = self.addresses.len();
        for address in address.to_socket_addrs()? {
            match listener(address, self.backlog) {
                Ok(listener) => self = self.listen(listener)?,
                Err(error) => refused = error,
            }
        }
        if self.addresses.len() > before { Ok(self) } else { Err(refused) }
    }

    /// Listens on what is bound already.
    ///
    /// # Errors
    ///
    /// If its address cannot be known, or it cannot be made non-blocking.
    pub fn listen(mut self, listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let application = self.application.clone();
        let stopping = self.server.graceful_shutdown_signal();
        self.server = self.server.listen(format!("fanfare-{address}"), listener, move || {
            let application = application().into_factory().map_err(|error| error.into().error_response());
            let stopping = stopping.clone();
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .local_addr(address)
                // A client that closed is gone, not half gone.
                .h1_allow_half_closed(false)
                .client_disconnect_timeout(std::time::Duration::from_secs(1))
                .on_connect_ext(|leased: &Leased, data| {
                    leased.0.note(data);
                    data.insert(leased.0.clone());
                })
                .h1(map_config(application, |()| AppConfig::default()));
            apply_fn_factory(http, move |socket: TcpStream, http| {
                tune(&socket);
                let peer = socket.peer_addr().ok();
                let lease = Lease::new(socket, address);
                // On the heap, to be let go while the connection goes on.
                let dispatcher = Box::pin(http.call((Leased(lease.clone()), peer)));
                Connection::Http { dispatcher, lease }
            })
        })?;
        self.addresses.push(address);
        Ok(self)
    }

    /// The addresses that it listens on.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts to serve. The server ends when it is awaited and told to stop by its handle or a signal.
    pub fn run(self) -> Server {
        self.server.run()
    }
}

fn listener(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // What is left of the connections of an earlier process is no reason to wait.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}
