//! A connection: HTTP at first, and no more than a stream once it has become one.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::lease::Lease;
use super::writer::Writer;

/// The task of a connection. Small, since there are very many that have nothing to do: what is large is on the heap, and goes
/// when it is not needed any more. What a stream keeps has room in what the task takes anyway.
pub(super) enum Connection<D> {
    Http { dispatcher: Pin<Box<D>>, lease: Rc<Lease> },
    Stream(Writer),
}

impl<D, E> Future for Connection<D>
where
    D: Future<Output = Result<(), E>>,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Http { dispatcher, lease } = &mut *self {
            let polled = dispatcher.as_mut().poll(cx);
            let Some((socket, stream)) = lease.ended() else { return polled };
            *self = Self::Stream(Writer::new(socket, stream));
        }
        match &mut *self {
            Self::Stream(writer) => Pin::new(writer).poll(cx).map(Ok),
            Self::Http { .. } => Poll::Pending,
        }
    }
}
