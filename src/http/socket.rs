//! What a server must set on its sockets, since no handler can.

use std::any::Any;
use std::time::Duration;

#[cfg(feature = "tls")]
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::http::{ConnectionType, Version};
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

use crate::actors::line::Line;

/// As much as the kernel holds for a client that does not read. Without a bound it would be megabytes.
const SEND_BUFFER: usize = 64 * 1024;
/// How long data may go unacknowledged before the connection is given up: a peer that vanished without a word is
/// noticed by nothing else.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds what a slow peer can hold and how long a vanished one stays; pass it to `HttpServer::on_connect`, before
/// `bind`.
///
/// Sets `SO_SNDBUF` to 64 KiB and, where the system has it, `TCP_USER_TIMEOUT` to 30 s: on plain TCP connections and, with
/// the feature `tls`, on those below TLS by rustls (`HttpServer::bind_rustls_0_23`). On Linux
/// it also has the connection of a stream that has ended cut when its client has not taken the end within the
/// [stall timeout](crate::Builder::stall_timeout).
/// A connection whose options cannot be set is served all the same.
///
/// ```no_run
/// use actix_web::{App, HttpServer};
/// use fanfare::{Broker, http};
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Broker::builder().start()?;
/// HttpServer::new(move || App::new().service(http::scope("/rt", &broker, http::HttpConfig::default())))
///     .h1_allow_half_closed(false) // a client that closed is gone, not half gone
///     .tcp_nodelay(true)           // events leave at once
///     .on_connect(http::tune_socket)
///     .bind("127.0.0.1:8080")?
///     .run()
///     .await?;
/// # Ok(())
/// # }
/// ```
pub fn tune_socket(connection: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = tcp(connection) {
        bound(&SockRef::from(stream));
        note(stream, extensions);
    }
}

/// All that a connection of streams wants.
pub(super) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    bound(&socket);
    // Events leave at once instead of waiting for the acknowledgement of the one before.
    if let Err(error) = socket.set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}

fn bound(socket: &SockRef<'_>) {
    let sent = socket.set_send_buffer_size(SEND_BUFFER);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux", target_os = "cygwin"))]
    let sent = sent.and(socket.set_tcp_user_timeout(Some(USER_TIMEOUT)));
    if let Err(error) = sent {
        tracing::debug!(%error, "socket options could not be set");
    }
}

/// The TCP connection that something is, or is below it.
fn tcp(connection: &dyn Any) -> Option<&TcpStream> {
    #[cfg(feature = "tls")]
    if let Some(encrypted) = connection.downcast_ref::<TlsStream<TcpStream>>() {
        return Some(encrypted.get_ref().0);
    }
    connection.downcast_ref()
}

/// The number of a connection's descriptor.
struct Descriptor(i32);

/// Notes which connection requests come by.
pub(super) fn note(stream: &TcpStream, extensions: &mut Extensions) {
    #[cfg(unix)]
    extensions.insert(Descriptor(std::os::fd::AsRawFd::as_raw_fd(stream)));
    #[cfg(not(unix))]
    let _ = (stream, extensions);
}

/// The connection that a request came by, if it carries nothing beside this request.
pub(super) fn line(request: &HttpRequest) -> Option<Line> {
    let Descriptor(descriptor) = request.conn_data()?;
    let is_kept = request.head().connection_type() == ConnectionType::KeepAlive;
    (request.version() < Version::HTTP_2).then(|| Line::of(*descriptor, is_kept)).flatten()
}
