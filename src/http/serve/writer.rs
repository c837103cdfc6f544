//! A stream that is written to its socket directly: by the worker of its thread while the socket takes everything, and
//! by a small task when it does not, or when its session is to be told something.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use actix_web::rt::time::{Sleep, sleep};
use bytes::{Buf, Bytes};
use socket2::SockRef;

use super::lease::Stream;
use crate::actors::session::{Disconnected, Drained, FellOut};
use crate::actors::sink::{Outlet, Pull};

/// How long a client may take to read the end of its stream and to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Nothing is expected of a client any more; what it sends all the same is read to see that it is there.
const HEARD: usize = 256;

/// A socket, and what it has not taken yet.
struct Socket {
    stream: TcpStream,
    rest: RefCell<Bytes>,
}

impl Socket {
    /// Writes as much of `bytes` as the socket takes now, and keeps the rest. True if that was all.
    fn put(&self, mut bytes: Bytes) -> io::Result<bool> {
        while !bytes.is_empty() {
            match self.stream.try_write(&bytes) {
                Ok(count) => bytes.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.rest.replace(bytes);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes what was kept.
    fn put_rest(&self) -> io::Result<bool> {
        self.put(self.rest.take())
    }

    /// Whether the peer is still there, as far as it says; discards what it sends.
    fn poll_hang_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut heard = [0; HEARD];
        loop {
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match self.stream.try_read(&mut heard) {
                Ok(0) => return Poll::Ready(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl Outlet for Socket {
    fn is_free(&self) -> bool {
        self.rest.borrow().is_empty()
    }

    fn write(&self, bytes: Bytes) -> bool {
        // The task finds the same error when it looks.
        self.put(bytes).unwrap_or(false)
    }
}

/// The task of a stream. Its drop is the disconnect.
pub(super) struct Writer {
    socket: Rc<Socket>,
    stream: Stream,
    /// Set once the stream has ended: until when the client may take what is left.
    closing: Option<Pin<Box<Sleep>>>,
    is_shut: bool,
}

impl Writer {
    pub(super) fn new(socket: TcpStream, stream: Stream) -> Self {
        let socket = Rc::new(Socket { stream: socket, rest: RefCell::default() });
        stream.sink.lend(Some(socket.clone()));
        Self { socket, stream, closing: None, is_shut: false }
    }

    /// Writes what there is. Ready when the stream has ended or the socket is broken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.socket.put_rest()? {
                ready!(self.socket.stream.poll_write_ready(cx))?;
            }
            if self.closing.is_some() {
                return Poll::Ready(Ok(()));
            }
            match self.stream.sink.pull(cx.waker()) {
                Pull::Bytes(bytes) => {
                    self.socket.put(bytes)?;
                }
                Pull::Pending => return Poll::Pending,
                Pull::Drained => self.stream.session.do_send(Drained),
                Pull::FellOut => self.stream.session.do_send(FellOut),
                Pull::End => {
                    self.closing = Some(Box::pin(sleep(CLOSE_WITHIN)));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Ends what it sends. Closed at once, with something of the client's unread, what it has not read would be lost.
    fn shut(&mut self) {
        if !std::mem::replace(&mut self.is_shut, true) {
            // One that is gone needs no farewell.
            let _ = SockRef::from(&self.socket.stream).shutdown(Shutdown::Write);
        }
    }
}

impl Future for Writer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.socket.poll_hang_up(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Poll::Ready(written) = self.poll_write(cx) {
            if written.is_err() {
                return Poll::Ready(());
            }
            self.shut();
        }
        match &mut self.closing {
            Some(until) => until.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stream.sink.lend(None);
        self.stream.sink.disconnect();
        self.stream.session.do_send(Disconnected);
    }
}
