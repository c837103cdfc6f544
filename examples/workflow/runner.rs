//! Takes the steps of one workflow, from wherever it stands to its end.

use std::time::Duration;

use actix::Addr;
use actix_web::rt::time::sleep;
use fanfare::{Broadcast, Broker, Event, EventId, InvalidValue, PublishError, Receipt};

use crate::progress::Progress;

/// The name of a workflow's events.
pub(crate) const UPDATED: &str = "updated";

/// After a refused publish.
const PAUSE: Duration = Duration::from_millis(500);

/// The event that is this state.
pub(crate) fn update(progress: &Progress) -> Result<Broadcast, InvalidValue> {
    let event = Event::json(UPDATED, progress)?.id(EventId::new(progress.event_id())?);
    Broadcast::channel(progress.workflow_id.channel(), event)
}

/// Works until the end, or until this process stops: the next one goes on from the log. A step that was published and
/// whose receipt was lost in between is published again under the same id, and is there once.
pub(crate) async fn run(broker: Addr<Broker>, mut progress: Progress) {
    while let Some(next) = progress.next() {
        sleep(Duration::from_millis(next.step_ms)).await;
        let update = match update(&next) {
            Ok(update) => update,
            Err(error) => return tracing::error!(%error, "a step cannot be told"),
        };
        if publish(&broker, update).await.is_none() {
            return;
        }
        progress = next;
    }
}

/// Insists; gives up with the broker.
async fn publish(broker: &Addr<Broker>, update: Broadcast) -> Option<Receipt> {
    loop {
        match broker.send(update.clone()).await.ok()? {
            Ok(receipt) => return Some(receipt),
            Err(PublishError::Draining) => return None,
            Err(error) => tracing::warn!(%error, "a step waits"),
        }
        sleep(PAUSE).await;
    }
}
