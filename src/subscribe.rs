//! Streams of events for code in this process.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Addr, Recipient};
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::actors::Broker;
use crate::actors::broker::{AskLocal, Begin, Start};
use crate::actors::local::{Ended, Ends, Enter, Forward, Left, Local};
use crate::cursor::Cursor;
use crate::delivery::Delivery;
use crate::error::{CloseReason, InvalidValue, SubscribeError};
use crate::identity::{ClientId, SessionId};
use crate::interest::{Interest, Subscription};

/// Where a stream begins, and how much waits for its reader.
///
/// ```
/// use fanfare::SubscribeOptions;
///
/// let options = SubscribeOptions::default().last(10).queue(16)?;
/// assert!(SubscribeOptions::default().queue(0).is_err());
/// # let _ = options;
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SubscribeOptions {
    begin: Option<Begin>,
    cursor: Option<Cursor>,
    queue: usize,
}

impl Default for SubscribeOptions {
    /// What is published from now on, and a queue of [`SubscribeOptions::DEFAULT_QUEUE`].
    fn default() -> Self {
        Self { begin: None, cursor: None, queue: Self::DEFAULT_QUEUE }
    }
}

impl SubscribeOptions {
    /// How many items wait for a reader unless another number is given.
    pub const DEFAULT_QUEUE: usize = 256;
    /// The most that may be asked for.
    pub const MAX_QUEUE: usize = 65_536;

    /// Begins with what is published from now on.
    pub fn now(mut self) -> Self {
        self.begin = Some(Begin::Now);
        self
    }

    /// Begins with the earliest event that the log keeps.
    pub fn earliest(mut self) -> Self {
        self.begin = Some(Begin::Earliest);
        self
    }

    /// Begins with the last `count` events that match; 0 is [`SubscribeOptions::now`].
    pub fn last(mut self, count: u64) -> Self {
        self.begin = Some(Begin::Last(count));
        self
    }

    /// Begins after `cursor`, wherever it came from: [`Received::cursor`](crate::Received::cursor), a
    /// [`Receipt`](crate::Receipt), a browser. If it is no position of this log, the stream says [`Delivery::Reset`] and
    /// goes on as the other options say, with the earliest event if they say nothing. One beyond the newest event is
    /// given two seconds.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// How many items wait for the reader. What is beyond comes from the log when there is room; ephemeral events that
    /// are beyond are lost, counted and told.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for 0 and for more than [`SubscribeOptions::MAX_QUEUE`].
    pub fn queue(mut self, items: usize) -> Result<Self, InvalidValue> {
        if !(1..=Self::MAX_QUEUE).contains(&items) {
            return Err(InvalidValue::new("queue", format!("must be from 1 to {}", Self::MAX_QUEUE)));
        }
        self.queue = items;
        Ok(self)
    }

    fn start(&self) -> Start {
        match &self.cursor {
            None => Start::At(self.begin.unwrap_or_default()),
            Some(cursor) => Start::After {
                cursor: Some(cursor.clone()),
                otherwise: self.begin.unwrap_or(Begin::Earliest),
            },
        }
    }
}

/// Follows channels inside this process: a stream of what is published to them from now on, and to everyone.
///
/// It may be called on any thread and under any runtime, and answers when the position is settled: from then on
/// every event that matches is delivered once, in the log's order, or the stream says what is missing. See
/// [`Deliveries`]. To begin elsewhere than now, [`subscribe_with`] options.
///
/// ```
/// use fanfare::{Broadcast, Broker, Delivery, Event, Subscription};
/// use futures_util::StreamExt;
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// let mut alerts = fanfare::subscribe(&broker, Subscription::to("alerts/**")?.filter("kind", "system")).await?;
///
/// let event = Event::text("raised", "disk full")?.attribute("kind", "system")?;
/// broker.do_send(Broadcast::channel("alerts/eu/7", event)?);
/// while let Some(item) = alerts.next().await {
///     match item {
///         Delivery::Event(event) => {
///             assert_eq!((event.event(), event.payload().as_str()), ("raised", "disk full"));
///             break;
///         }
///         Delivery::Lag { dropped } => println!("{dropped} ephemeral events were lost"),
///         _ => println!("events are gone: load the state again"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// [`SubscribeError::Invalid`] with what building the subscription was refused for, and [`SubscribeError::Closed`] if the
/// broker is draining or gone.
pub async fn subscribe<S>(broker: &Addr<Broker>, subscription: S) -> Result<Deliveries, SubscribeError>
where
    S: TryInto<Subscription>,
    InvalidValue: From<S::Error>,
{
    subscribe_with(broker, subscription, SubscribeOptions::default()).await
}

/// As [`subscribe`], from where and with the queue that `options` say.
///
/// ```
/// use fanfare::{Broadcast, Broker, Event, SubscribeOptions, Subscription};
/// use futures_util::StreamExt;
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// broker.send(Broadcast::channel("orders/7", Event::text("created", "7")?)?).await??;
/// let from = SubscribeOptions::default().earliest().queue(16)?;
/// let mut orders = fanfare::subscribe_with(&broker, Subscription::to("orders/*")?, from).await?;
/// orders.next().await;
/// let cursor = orders.cursor().cloned(); // where to go on another time
/// assert_eq!(cursor.map(|cursor| cursor.seq()), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`subscribe`].
pub async fn subscribe_with<S>(
    broker: &Addr<Broker>,
    subscription: S,
    options: SubscribeOptions,
) -> Result<Deliveries, SubscribeError>
where
    S: TryInto<Subscription>,
    InvalidValue: From<S::Error>,
{
    let subscription = subscription.try_into().map_err(InvalidValue::from)?;
    let gone = || SubscribeError::Closed(CloseReason::Unavailable);
    let local = broker.send(AskLocal).await.map_err(|_| gone())?;
    let (queue, items) = mpsc::channel(options.queue);
    let (verdict, settled) = oneshot::channel();
    let (ended, last_word) = oneshot::channel();
    let place = Place { client: ClientId::mint(), local };
    place.local.do_send(Enter {
        client: place.client,
        interest: Interest::new(SessionId::mint(), subscription),
        start: options.start(),
        ends: Ends { queue, verdict, ended },
    });
    // Made before it waits, so that whoever gives up waiting leaves by its drop.
    let mut deliveries = Deliveries { items, last_word: Some(last_word), cursor: None, reason: None, place };
    deliveries.cursor = settled.await.map_err(|_| gone())?.map_err(SubscribeError::Closed)?;
    Ok(deliveries)
}

/// Follows channels and hands each item to an actor, which handles [`Delivery`] as a message.
///
/// The next item is sent when the actor is done with the one before, so that a slow actor never has more than one in its
/// mailbox; what waits is bounded as for a slow reader of [`Deliveries`], and nothing stored is lost.
///
/// ```
/// use actix::prelude::*;
/// use fanfare::{Broker, Delivery, DeliveryHandle, Subscription};
///
/// struct Counter(u64);
///
/// impl Actor for Counter {
///     type Context = Context<Self>;
/// }
///
/// impl Handler<Delivery> for Counter {
///     type Result = ();
///
///     fn handle(&mut self, item: Delivery, _: &mut Self::Context) {
///         if let Delivery::Event(_) = item {
///             self.0 += 1;
///         }
///     }
/// }
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// let counter = Counter(0).start();
/// let orders: DeliveryHandle = fanfare::deliver(&broker, Subscription::to("orders/*")?, counter.recipient()).await?;
/// drop(orders); // ends it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As [`subscribe`].
pub async fn deliver<S>(
    broker: &Addr<Broker>,
    subscription: S,
    recipient: Recipient<Delivery>,
) -> Result<DeliveryHandle, SubscribeError>
where
    S: TryInto<Subscription>,
    InvalidValue: From<S::Error>,
{
    Ok(subscribe(broker, subscription).await?.deliver_to(recipient))
}

/// What is delivered to a subscriber in this process, as a [`Stream`].
///
/// - **Once and in order.** Stored events come in the log's order, which is the same for all; each once, however many
///   selectors match. Ephemeral events come in between as they are published.
/// - **A slow reader costs nobody anything.** Its queue holds as many items as were asked for, beside a page of at most 1,024
///   events that it goes on with. When the queue is full, what is stored is fetched from the log as there is room
///   again. Ephemeral events do not wait: they are dropped, and [`Delivery::Lag`] says how many, behind what was in the
///   queue. What is delivered and what is told as dropped is together what was published, exactly.
///   However long it does not read, its place is kept.
/// - **What retention has removed is told**, by [`Delivery::Gap`], at its place.
/// - **It is a client** in [`Presence`](crate::Presence) and [`Stats`](crate::Stats), of a session of its own, and hears
///   what is sent to everyone.
/// - **Its drop ends it** at once, whether or not anything is published.
///
/// When the broker drains or stops, or the log cannot be read, the stream ends behind what is in the queue: with a last
/// [`Delivery::Lag`] if one is due, then `None`. [`Deliveries::end_reason`] says why, and [`Deliveries::cursor`] where to
/// go on.
#[derive(Debug)]
#[must_use = "a stream that is dropped has ended"]
pub struct Deliveries {
    items: mpsc::Receiver<Delivery>,
    last_word: Option<oneshot::Receiver<Ended>>,
    cursor: Option<Cursor>,
    reason: Option<CloseReason>,
    place: Place,
}

impl Deliveries {
    /// The identity of this client.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.place.client
    }

    /// Where to go on another time: behind all that was read so far. Nothing if it began with the earliest or the last
    /// events and none with a position was read yet.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Why the stream has ended; nothing before its end was read.
    #[must_use]
    pub fn end_reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Hands each item to an actor instead, as [`deliver`] does. What the actor has not been sent when the broker stops
    /// is not delivered.
    pub fn deliver_to(self, recipient: Recipient<Delivery>) -> DeliveryHandle {
        let (hold, stop) = oneshot::channel();
        let local = self.place.local.clone();
        local.do_send(Forward { items: Box::pin(self), recipient, stop });
        DeliveryHandle { _hold: hold }
    }
}

impl Stream for Deliveries {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        if let Some(item) = std::task::ready!(self.items.poll_recv(cx)) {
            if let Some(cursor) = item.cursor() {
                self.cursor = Some(cursor);
            }
            return Poll::Ready(Some(item));
        }
        let Some(last_word) = &mut self.last_word else { return Poll::Ready(None) };
        let last_word = std::task::ready!(Pin::new(last_word).poll(cx));
        self.last_word = None;
        // Without a word, whoever delivered is gone.
        let Ended { reason, lost } = last_word.unwrap_or(Ended { reason: CloseReason::Unavailable, lost: 0 });
        self.reason = Some(reason);
        Poll::Ready((lost > 0).then_some(Delivery::Lag { dropped: lost }))
    }
}

/// Where a stream is served; its drop is the farewell.
#[derive(Debug)]
struct Place {
    client: ClientId,
    local: Addr<Local>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.local.do_send(Left { client: self.client });
    }
}

/// A delivery to an actor: it ends when this is dropped, at once; or when the broker has ended it; or when the actor is
/// found to have stopped, at the next item. Best kept by the actor itself.
#[derive(Debug)]
#[must_use = "a delivery ends when this is dropped"]
pub struct DeliveryHandle {
    _hold: oneshot::Sender<()>,
}
