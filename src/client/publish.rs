//! Publishing to a server elsewhere.

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::builder::Client;
use super::error::{BodyError, Problem, PublishError, body, words};
use super::item::Position;
use crate::actors::Broadcast;
use crate::channel::Reach;
use crate::cursor::Seq;
use crate::event::{Attributes, EventId};
use crate::identity::SessionId;
use crate::wire::envelope::Data;

/// As much of receipts as is read; a batch of the largest size has far less.
const MAX_RECEIPTS: usize = 4 << 20;

/// The answer to a publish: the event is committed, and on its way to the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's identity, yours or minted.
    pub id: EventId,
    /// Its position in the log; an ephemeral event has none.
    pub seq: Option<Seq>,
    /// The place that a stream may go on [after](super::Subscribe::after).
    pub position: Option<Position>,
    /// Whether it was published before, within the server's window: then this is the first receipt again, and nothing was
    /// sent.
    pub duplicate: bool,
}

impl Client {
    /// Publishes an event, and waits for its receipt.
    ///
    /// Tried once: give the event an [id](crate::Event::id) to try again without storing it twice. Who publishes is known
    /// from the credentials; the [publisher](Broadcast::publisher) is not sent.
    ///
    /// ```no_run
    /// use fanfare::client::{Client, PublishError};
    /// use fanfare::{Broadcast, Event, EventId};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("http://127.0.0.1:8080/")?.bearer("a token")?;
    /// let event = Event::json("created", &serde_json::json!({"order": 7}))?.id(EventId::new("o-7-created")?);
    /// match client.publish(&Broadcast::channel("orders/7", event)?).await {
    ///     Ok(receipt) => println!("stored at {:?}", receipt.seq),
    ///     Err(PublishError::Rejected(problem)) if problem.is_temporary() => println!("later: {:?}", problem.retry_after),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PublishError`], which says whether the event may be stored all the same.
    pub async fn publish(&self, broadcast: &Broadcast) -> Result<Receipt, PublishError> {
        self.post::<ReceiptBody>(&Outgoing::of(broadcast)).await?.try_into()
    }

    /// Publishes several events in one commit, all or none, next to each other in the log. The receipts are in the order
    /// of the events.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; also for none, for more than [`Batch::MAX_EVENTS`](crate::Batch::MAX_EVENTS), and for more bytes
    /// than the server takes (1 MiB by default): the server refuses them.
    pub async fn publish_all(&self, broadcasts: &[Broadcast]) -> Result<Vec<Receipt>, PublishError> {
        let outgoing: Vec<_> = broadcasts.iter().map(Outgoing::of).collect();
        let receipts = self.post::<Vec<ReceiptBody>>(&outgoing).await?;
        if receipts.len() != broadcasts.len() {
            let what = format!("{} receipts for {} events", receipts.len(), broadcasts.len());
            return Err(PublishError::Malformed(what));
        }
        receipts.into_iter().map(TryInto::try_into).collect()
    }

    async fn post<T: DeserializeOwned>(&self, events: &impl Serialize) -> Result<T, PublishError> {
        // Of strings, checked JSON and booleans: there is nothing in it that cannot be written.
        let events = serde_json::to_vec(events).unwrap_or_default();
        let json = HeaderValue::from_static("application/json");
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, json.clone());
        headers.insert(CONTENT_TYPE, json);
        let request = self.http.post(self.publish.clone()).headers(headers);
        let request = request.timeout(self.publish_timeout).body(events);
        let response = request.send().await.map_err(|error| PublishError::Unanswered(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(PublishError::Rejected(Problem::read(response).await));
        }
        let receipts = body(response, MAX_RECEIPTS).await.map_err(|error| match error {
            BodyError::TooLarge { .. } => PublishError::Malformed(error.to_string()),
            BodyError::Broken(error) => PublishError::Unanswered(error.into()),
        })?;
        serde_json::from_slice(&receipts).map_err(|error| PublishError::Malformed(words(&error)))
    }
}

#[derive(Serialize)]
struct Outgoing<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionId>,
    #[serde(skip_serializing_if = "is_false")]
    everyone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: Data<'a>,
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    attributes: &'a Attributes,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    ephemeral: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> Outgoing<'a> {
    fn of(broadcast: &'a Broadcast) -> Self {
        let (audience, event) = broadcast.parts();
        let mut outgoing = Self {
            channels: Vec::new(),
            sessions: Vec::new(),
            everyone: false,
            event: event.name.explicit(),
            data: Data::of(&event.payload),
            attributes: &event.attributes,
            id: event.id.as_ref().map(EventId::as_str),
            ephemeral: event.ephemeral,
        };
        for channel in audience {
            match channel.reach() {
                Reach::Followers => outgoing.channels.push(channel.as_str()),
                Reach::Session(session) => outgoing.sessions.push(session),
                Reach::Everyone => outgoing.everyone = true,
            }
        }
        outgoing
    }
}

#[derive(Deserialize)]
struct ReceiptBody {
    id: String,
    seq: Option<u64>,
    cursor: Option<String>,
    duplicate: bool,
}

impl TryFrom<ReceiptBody> for Receipt {
    type Error = PublishError;

    fn try_from(body: ReceiptBody) -> Result<Self, PublishError> {
        let ReceiptBody { id, seq, cursor, duplicate } = body;
        let malformed = |error: crate::InvalidValue| PublishError::Malformed(error.to_string());
        let id = EventId::new(id).map_err(malformed)?;
        let position = cursor.map(|cursor| cursor.parse().map_err(malformed)).transpose()?;
        Ok(Self { id, seq, position, duplicate })
    }
}
