//! The sending side of a socket: pulls a client's sink, and holds the connection open after the last word until the
//! client has answered it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::rt::time::{Sleep, sleep};
use bytes::Bytes;

use crate::http::body::SinkBody;

/// How long a client may take to answer the last word. To close while it still sends would reset the connection, and it
/// would never read why.
const LINGER: Duration = Duration::from_secs(2);

/// Whether the client has ended its side.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended(Rc<RefCell<(bool, Option<Waker>)>>);

impl Ended {
    pub(super) fn set(&self) {
        let mut ended = self.0.borrow_mut();
        ended.0 = true;
        if let Some(waker) = ended.1.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut ended = self.0.borrow_mut();
        if ended.0 {
            return Poll::Ready(());
        }
        ended.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

pub(super) struct SocketBody {
    words: SinkBody,
    ended: Ended,
    linger: Option<Pin<Box<Sleep>>>,
}

impl SocketBody {
    pub(super) fn new(words: SinkBody, ended: Ended) -> Self {
        Self { words, ended, linger: None }
    }
}

impl MessageBody for SocketBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.linger.is_none() {
            match Pin::new(&mut self.words).poll_next(cx) {
                Poll::Ready(None) => {}
                other => return other,
            }
        }
        if self.ended.poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        linger.as_mut().poll(cx).map(|()| None)
    }
}
