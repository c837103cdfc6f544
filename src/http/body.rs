//! The response body of a stream: pulls a client's sink. Its drop is the disconnect.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix::Addr;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::serve::{Lease, Stream};
use crate::actors::line::Line;
use crate::actors::session::{Disconnected, Drained, FellOut, Session};
use crate::actors::sink::{Pull, Sink};

pub(super) struct SinkBody {
    /// Nothing once the stream goes on without a body.
    stream: Option<Stream>,
    /// The connection, if it is one whose socket can be had.
    lease: Option<Rc<Lease>>,
    /// Whether nothing was handed out since the dispatcher last flushed.
    is_quiet: bool,
}

impl SinkBody {
    /// A body that, on a leased connection, lets the stream go on without it.
    pub(super) fn new(
        sink: Rc<Sink>,
        session: Addr<Session>,
        lease: Option<Rc<Lease>>,
        line: Option<Line>,
    ) -> Self {
        sink.connect(line);
        Self { stream: Some(Stream { sink, session }), lease, is_quiet: false }
    }

    /// Lets the dispatcher go if all that it has had to write is on its way. The dispatcher flushes whenever it has polled a
    /// body, so that is known the next time.
    fn rest(&mut self, cx: &Context<'_>) {
        let Some(lease) = &self.lease else { return };
        if !std::mem::replace(&mut self.is_quiet, true) {
            return cx.waker().wake_by_ref();
        }
        if lease.is_flushed()
            && let Some(stream) = self.stream.take()
        {
            lease.end(stream);
        }
    }
}

impl MessageBody for SinkBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        while let Some(stream) = &self.stream {
            match stream.sink.pull(cx.waker()) {
                // An empty chunk would be the end of the body.
                Pull::Bytes(bytes) if bytes.is_empty() => {}
                Pull::Bytes(bytes) => {
                    self.is_quiet = false;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Pull::Pending => {
                    self.rest(cx);
                    return Poll::Pending;
                }
                Pull::Drained => stream.session.do_send(Drained),
                Pull::FellOut => stream.session.do_send(FellOut),
                Pull::End => return Poll::Ready(None),
            }
        }
        Poll::Pending
    }
}

impl Drop for SinkBody {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.sink.disconnect();
            stream.session.do_send(Disconnected);
        }
    }
}
