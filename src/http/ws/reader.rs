//! The receiving side of a socket: reads what the client asks for, has it done, and answers what needs no session.

use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use actix::Addr;
use actix_http::ws::{CloseCode, Codec, Frame, ProtocolError};
use actix_web::dev::Payload;
use bytes::BytesMut;
use futures_core::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio_util::codec::Decoder;
use tracing::Span;

use super::body::Ended;
use super::message::{Assembler, Incoming, Violation};
use super::request::{self, Asked, NotJson, Request};
use crate::actors::broker::Publish;
use crate::actors::session::{Disconnected, Expire, Follow, Session, Unfollow};
use crate::actors::sink::Sink;
use crate::actors::trace::Trace;
use crate::actors::{Batch, Receipt};
use crate::channel::Selector;
use crate::error::PublishError;
use crate::http::Mount;
use crate::http::grant::Grant;
use crate::http::problem::Problem;
use crate::http::publish::broadcast;
use crate::http::state::gone;
use crate::interest::Subscription;
use crate::wire::ws::{self, Answer, Reference};

/// Publishes of one client that may be under way; with as many it is not read.
const IN_FLIGHT: usize = 64;
/// The most that stands before a frame's payload.
const FRAME_HEADER: usize = 14;

/// What a publish is answered with.
type Outcome = Result<Vec<Receipt>, PublishError>;

/// A publish under way.
struct Pending {
    reference: Option<Reference>,
    outcome: oneshot::Receiver<Outcome>,
}

pub(super) struct Reader {
    mount: Arc<Mount>,
    grant: Grant,
    session: Addr<Session>,
    sink: Rc<Sink>,
    /// Told when the client has ended its side.
    ended: Ended,
    /// What the client follows, or has asked to.
    followed: Subscription,
    pending: VecDeque<Pending>,
    buffer: BytesMut,
    codec: Codec,
    assembler: Assembler,
    /// What is logged of it belongs to this.
    span: Span,
}

/// What happens next on a socket.
enum Next {
    Message(Incoming),
    Violation(Violation),
    Published(Option<Reference>, Outcome),
    /// The connection is at its end.
    Gone,
}

impl Reader {
    pub(super) fn new(
        mount: Arc<Mount>,
        grant: Grant,
        session: Addr<Session>,
        sink: Rc<Sink>,
        ended: Ended,
        span: Span,
    ) -> Self {
        let max_bytes = mount.config.max_body;
        Self {
            mount,
            grant,
            session,
            sink,
            ended,
            followed: Subscription::default(),
            pending: VecDeque::new(),
            buffer: BytesMut::new(),
            codec: Codec::new().max_size(max_bytes),
            assembler: Assembler::new(max_bytes),
            span,
        }
    }

    /// Reads until either side ends the conversation, and then until the client has nothing more to say.
    pub(super) async fn run(mut self, mut payload: Payload) {
        loop {
            let end = match poll_fn(|cx| self.poll_next(&mut payload, cx)).await {
                Next::Message(Incoming::Text(text)) => {
                    match request::read(&text, self.mount.config.max_payload) {
                        Ok(asked) => {
                            self.serve(asked).await;
                            continue;
                        }
                        Err(NotJson) => close(Violation::NotText),
                    }
                }
                Next::Message(Incoming::Ping(payload)) => {
                    self.sink.write(ws::pong(&payload));
                    continue;
                }
                Next::Message(Incoming::Pong) => continue,
                Next::Message(Incoming::Close(code)) => {
                    self.ended.set();
                    code.map_or_else(ws::close_without_code, |code| ws::close(code, ""))
                }
                Next::Violation(violation) => close(violation),
                Next::Published(reference, outcome) => {
                    self.answer_published(reference.as_deref(), outcome);
                    continue;
                }
                Next::Gone => break,
            };
            self.sink.end(Some(end));
            break;
        }
        self.session.do_send(Disconnected);
        self.listen_out(&mut payload).await;
        self.ended.set();
    }

    /// Reads on, for nothing but the end: to leave something unread would reset the connection under our last word.
    async fn listen_out(&mut self, payload: &mut Payload) {
        let mut is_readable = true;
        loop {
            while is_readable {
                match self.codec.decode(&mut self.buffer) {
                    Ok(Some(Frame::Close(_))) => return,
                    Ok(Some(_)) | Err(ProtocolError::Overflow) => {}
                    Ok(None) => break,
                    Err(_) => is_readable = false,
                }
            }
            if !is_readable || self.buffer.len() > FRAME_HEADER {
                // The rest of something too large, or no frames at all.
                is_readable = false;
                self.buffer.clear();
            }
            match poll_fn(|cx| Pin::new(&mut *payload).poll_next(cx)).await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => return,
            }
        }
    }

    fn poll_next(&mut self, payload: &mut Payload, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(first) = self.pending.front_mut()
            && let Poll::Ready(outcome) = Pin::new(&mut first.outcome).poll(cx)
            && let Some(Pending { reference, .. }) = self.pending.pop_front()
        {
            let outcome = outcome.unwrap_or(Err(PublishError::Draining));
            return Poll::Ready(Next::Published(reference, outcome));
        }
        if self.sink.is_ended() {
            return Poll::Ready(Next::Gone);
        }
        // Whoever does not read what it is answered is not listened to.
        if self.pending.len() >= IN_FLIGHT || self.sink.poll_room(cx).is_pending() {
            return Poll::Pending;
        }
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(frame)) => match self.assembler.take(frame) {
                    Ok(Some(message)) => return Poll::Ready(Next::Message(message)),
                    Ok(None) => continue,
                    Err(violation) => return Poll::Ready(Next::Violation(violation)),
                },
                Ok(None) if self.buffer.len() > self.mount.config.max_body + FRAME_HEADER => {
                    return Poll::Ready(Next::Violation(Violation::TooLarge));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Next::Violation(error.into())),
            }
            match Pin::new(&mut *payload).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.sink.hear();
                    self.buffer.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Next::Gone),
                Poll::Pending => {
                    if self.buffer.is_empty() {
                        // Most clients say nothing most of the time.
                        self.buffer = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    async fn serve(&mut self, Asked { reference, request }: Asked) {
        let served = match request {
            Ok(Request::Subscribe { subscription, start }) => {
                self.subscribe(Follow { reference: reference.clone(), subscription, start })
            }
            Ok(Request::Unsubscribe { selectors }) => {
                self.unfollow(reference.clone(), true, &selectors);
                Ok(())
            }
            Ok(Request::Publish(publish)) => {
                let (audience, event) = *publish;
                self.publish(reference.clone(), audience, event)
            }
            Ok(Request::Ping) => {
                self.sink.write(Answer::Pong { r#ref: reference.as_deref() }.frame());
                Ok(())
            }
            Ok(Request::Token(token)) => self.renew(reference.as_deref(), token).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = served {
            self.refuse(reference.as_deref(), problem);
        }
    }

    fn subscribe(&mut self, follow: Follow) -> Result<(), Problem> {
        if !follow.subscription.selectors().all(|selector| self.grant.may_subscribe(selector)) {
            return Err(Problem::forbidden("a selector is outside the grant").field("channels"));
        }
        let followed = self.followed.clone().or(&follow.subscription);
        let max = self.mount.config.max_selectors;
        if followed.len() > max {
            return Err(Problem::bad_value(format!("channels must be at most {max}")).field("channels"));
        }
        self.followed = followed;
        self.sink.ask();
        self.session.do_send(follow);
        Ok(())
    }

    /// Follows these no more, as far as they are followed: of what is not there can be any number.
    fn unfollow(&mut self, reference: Option<Reference>, is_asked: bool, selectors: &[Selector]) {
        let selectors: HashSet<_> = selectors.iter().collect();
        let followed = self.followed.selectors().filter(|selector| selectors.contains(selector));
        let selectors: Vec<_> = followed.cloned().collect();
        self.followed = std::mem::take(&mut self.followed).without(&selectors);
        if is_asked {
            self.sink.ask();
        }
        self.session.do_send(Unfollow { reference, is_asked, selectors });
    }

    fn publish(
        &mut self,
        reference: Option<Reference>,
        audience: crate::http::grant::Audience,
        event: crate::Event,
    ) -> Result<(), Problem> {
        if self.grant.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Problem::unauthenticated("the grant has expired"));
        }
        let batch = Batch::new(vec![broadcast(audience, event, &self.grant)?])?;
        let broker = self.mount.broker.upgrade().ok_or_else(gone)?;
        let (reply, outcome) = oneshot::channel();
        let trace = Trace::start(|| tracing::debug_span!(parent: &self.span, "publish"));
        broker.do_send(Publish { batch, standing: self.grant.standing(), trace, reply });
        self.pending.push_back(Pending { reference, outcome });
        Ok(())
    }

    fn answer_published(&self, reference: Option<&RawValue>, outcome: Outcome) {
        match outcome {
            Ok(receipts) => {
                for Receipt { id, seq, cursor, duplicate } in receipts {
                    let (id, cursor) = (id.as_str(), cursor.as_ref());
                    let published = Answer::Published { r#ref: reference, id, seq, cursor, duplicate };
                    self.sink.write(published.frame());
                }
            }
            Err(error) => self.refuse(reference, Problem::from(error).index(None)),
        }
    }

    /// Replaces the grant, and ends what the new one does not allow any more.
    async fn renew(&mut self, reference: Option<&RawValue>, token: String) -> Result<(), Problem> {
        let grant = self.mount.config.token_grant(token).await?;
        if grant.session != self.grant.session {
            return Err(Problem::forbidden("the token is of another session").field("token"));
        }
        self.session.do_send(Expire(grant.expires));
        let outside = self.followed.selectors().filter(|selector| !grant.may_subscribe(selector));
        let outside: Vec<_> = outside.cloned().collect();
        if !outside.is_empty() {
            self.unfollow(None, false, &outside);
        }
        let expires = grant.expires.and_then(|expires| expires.duration_since(UNIX_EPOCH).ok());
        let expires = expires.map(|since| since.as_secs());
        self.grant = grant;
        self.sink.write(Answer::TokenAccepted { r#ref: reference, expires }.frame());
        Ok(())
    }

    fn refuse(&self, reference: Option<&RawValue>, problem: Problem) {
        #[derive(Serialize)]
        struct Refused<'a> {
            op: &'static str,
            r#ref: Option<&'a RawValue>,
            #[serde(flatten)]
            problem: Problem,
        }
        let refused = Refused { op: "error", r#ref: reference, problem };
        // Of words and numbers, and what the client wrote itself.
        self.sink.write(ws::text(&serde_json::to_string(&refused).unwrap_or_default()));
    }
}

fn close(violation: Violation) -> bytes::Bytes {
    let code: CloseCode = violation.code();
    ws::close(code, violation.description())
}
