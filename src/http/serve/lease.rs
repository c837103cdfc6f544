//! A connection whose socket the HTTP dispatcher has only on lease.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix::Addr;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::http::Version;
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::actors::session::Session;
use crate::actors::sink::Sink;
use crate::http::socket::note;

/// What a stream's body and the server's task for its connection share.
pub(in crate::http) struct Lease {
    socket: RefCell<Option<TcpStream>>,
    /// Whether the socket has taken all that the dispatcher wrote so far.
    is_flushed: Cell<bool>,
    stream: RefCell<Option<Stream>>,
    listener: SocketAddr,
}

/// A stream that goes on without the dispatcher.
pub(in crate::http) struct Stream {
    pub(in crate::http) sink: Rc<Sink>,
    pub(in crate::http) session: Addr<Session>,
}

impl Lease {
    pub(super) fn new(socket: TcpStream, listener: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            socket: RefCell::new(Some(socket)),
            is_flushed: Cell::new(true),
            stream: RefCell::default(),
            listener,
        })
    }

    /// The lease of the connection that a stream is asked for on, if its socket may be had: the body of an older client
    /// has no chunks, and is framed by nothing but its end.
    pub(in crate::http) fn of(request: &HttpRequest) -> Option<Rc<Self>> {
        let can_go_on = request.version() == Version::HTTP_11;
        request.conn_data::<Rc<Self>>().filter(|_| can_go_on).cloned()
    }

    /// Notes which connection requests come by.
    pub(super) fn note(&self, data: &mut Extensions) {
        if let Some(socket) = &*self.socket.borrow() {
            note(socket, data);
        }
    }

    /// The address that the server listens on.
    pub(in crate::http) fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Whether all that was written has left the dispatcher.
    pub(in crate::http) fn is_flushed(&self) -> bool {
        self.is_flushed.get()
    }

    /// Ends the lease: the stream is written to the socket itself from now on, and the dispatcher is let go as soon as it
    /// has come back from what it does now.
    pub(in crate::http) fn end(&self, stream: Stream) {
        self.stream.replace(Some(stream));
    }

    /// The socket and what is to be written to it, once the lease has ended.
    pub(super) fn ended(&self) -> Option<(TcpStream, Stream)> {
        // Nothing is taken of a lease that goes on.
        let stream = self.stream.take()?;
        Some((self.socket.take()?, stream))
    }

    /// What the dispatcher does with the socket; it finds an end where there is none any more.
    fn with_socket<T>(
        &self,
        without: T,
        act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.socket.borrow_mut().as_mut() {
            Some(socket) => act(Pin::new(socket)),
            None => Poll::Ready(Ok(without)),
        }
    }
}

/// The socket as the dispatcher has it.
pub(in crate::http) struct Leased(pub(super) Rc<Lease>);

impl AsyncRead for Leased {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.with_socket((), |socket| socket.poll_read(cx, into))
    }
}

impl AsyncWrite for Leased {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.0.with_socket(bytes.len(), |socket| socket.poll_write(cx, bytes));
        self.0.is_flushed.set(matches!(&written, Poll::Ready(Ok(count)) if *count == bytes.len()));
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with_socket((), |socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with_socket((), |socket| socket.poll_shutdown(cx))
    }
}
