//! The response body of a stream: pulls a client's sink. Its drop is the disconnect.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix::Addr;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::actors::session::{Disconnected, Drained, FellOut, Session};
use crate::actors::sink::{Pull, Sink};

pub(super) struct SinkBody {
    sink: Rc<Sink>,
    session: Addr<Session>,
}

impl SinkBody {
    pub(super) fn new(sink: Rc<Sink>, session: Addr<Session>) -> Self {
        Self { sink, session }
    }
}

impl MessageBody for SinkBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        loop {
            match self.sink.pull(cx.waker()) {
                // An empty chunk would be the end of the body.
                Pull::Bytes(bytes) if bytes.is_empty() => {}
                Pull::Bytes(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Pull::Pending => return Poll::Pending,
                Pull::Drained => self.session.do_send(Drained),
                Pull::FellOut => self.session.do_send(FellOut),
                Pull::End => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for SinkBody {
    fn drop(&mut self) {
        self.session.do_send(Disconnected);
    }
}
