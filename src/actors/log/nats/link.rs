//! The connection, and the stream on its other end: made, or checked.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use rand::RngExt;
use tokio::sync::watch;

use super::failure::Failure;
use super::subject;
use crate::actors::log::WINDOW;

/// How long a server may take to answer a connection or a question.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a connection is tried that nothing comes from.
const PING_EVERY: Duration = Duration::from_secs(5);

/// What a stream is made with. One that is there keeps as much, and as many copies, as it was made for.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) stream: String,
    pub(super) max_age: Duration,
    pub(super) max_bytes: u64,
    pub(super) replicas: usize,
    /// Whether one that is there must have as many copies.
    pub(super) is_replicas_checked: bool,
}

#[derive(Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) plan: Plan,
    /// Counts the connections.
    pub(super) connections: watch::Receiver<u64>,
}

impl Link {
    pub(super) async fn connect(servers: Vec<ServerAddr>, plan: Plan) -> Result<Self, Failure> {
        let (count, connections) = watch::channel(0);
        let options = ConnectOptions::new()
            .name("fanfare")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .ping_interval(PING_EVERY)
            .reconnect_delay_callback(|attempts| pause(u32::try_from(attempts).unwrap_or(u32::MAX)))
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    count.send_modify(|count| *count += 1);
                }
                std::future::ready(())
            });
        let connecting = tokio::time::timeout(2 * PATIENCE, options.connect(servers)).await;
        let client = connecting.map_err(Failure::unreachable)?.map_err(Failure::unreachable)?;
        let context = ContextBuilder::new().timeout(PATIENCE).build(client.clone());
        Ok(Self { client, context, plan, connections })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Asks for the stream, and makes it only if there is none: each attempt to make one is work for a whole cluster.
    pub(super) async fn stream(&self) -> Result<Info, Failure> {
        let failed = |error| Failure::stream(&self.plan.stream, error);
        match self.context.get_stream(&self.plan.stream).await {
            Ok(stream) => {
                let info = stream.cached_info().clone();
                self.plan.check(&info.config)?;
                Ok(info)
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    tracing::info!(stream = self.plan.stream, "there is no such stream yet; making it");
                    let stream = self.context.create_stream(self.plan.config()).await;
                    let stream = stream.map_err(|error| failed(error.to_string()))?;
                    self.plan.check(&stream.cached_info().config)?;
                    Ok(stream.cached_info().clone())
                }
                _ => Err(failed(error.to_string())),
            },
        }
    }
}

impl Plan {
    fn config(&self) -> Config {
        Config {
            name: self.stream.clone(),
            description: Some("the order of a fanfare log".into()),
            subjects: vec![subject::all(&self.stream)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            max_age: self.max_age,
            max_bytes: i64::try_from(self.max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            max_consumers: -1,
            num_replicas: self.replicas,
            duplicate_window: WINDOW,
            allow_direct: true,
            ..Config::default()
        }
    }

    /// Whether a stream that somebody made can be the order. How much it keeps and how many copies it has is theirs.
    fn check(&self, found: &Config) -> Result<(), Failure> {
        let wanted = self.config();
        let mut differences = Vec::new();
        let mut look =
            |setting: &str, is_right: bool, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
                if !is_right {
                    differences.push(format!("{setting} is {found:?} and must be {wanted:?}"));
                }
            };
        look("subjects", found.subjects == wanted.subjects, &found.subjects, &wanted.subjects);
        look("retention", found.retention == wanted.retention, &found.retention, &wanted.retention);
        look("storage", found.storage == wanted.storage, &found.storage, &wanted.storage);
        look("discard", found.discard == wanted.discard, &found.discard, &wanted.discard);
        let windows = (&found.duplicate_window, &wanted.duplicate_window);
        look("duplicate_window", windows.0 == windows.1, windows.0, windows.1);
        let per_subject = found.max_messages_per_subject;
        look("max_msgs_per_subject", per_subject <= 0, &per_subject, &-1);
        look("max_msg_size", found.max_message_size <= 0, &found.max_message_size, &-1);
        look("no_ack", !found.no_ack, &found.no_ack, &false);
        look("sealed", !found.sealed, &found.sealed, &false);
        let replicas = (found.num_replicas, self.replicas);
        look("num_replicas", !self.is_replicas_checked || replicas.0 == replicas.1, &replicas.0, &replicas.1);
        let is_copy = found.mirror.is_some() || found.sources.is_some();
        look("being a copy of another stream", !is_copy, &is_copy, &false);
        let is_long = found.max_age.is_zero() || found.max_age >= 2 * WINDOW;
        look("max_age", is_long, &found.max_age, &format_args!("at least {:?}", 2 * WINDOW));
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::differs(&self.stream, &differences.join("; ")))
    }
}

/// The pause before an attempt, after some that failed: longer each time, and half of it random, so that nodes that lost
/// their server together do not come back together.
pub(super) fn pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_differs_is_refused_by_name() {
        let plan = Plan {
            stream: "s".into(),
            max_age: WINDOW * 9,
            max_bytes: 1,
            replicas: 1,
            is_replicas_checked: false,
        };
        assert!(plan.check(&plan.config()).is_ok());
        let kept = Config { max_age: Duration::ZERO, max_bytes: -1, num_replicas: 3, ..plan.config() };
        assert!(plan.check(&kept).is_ok(), "how much is kept is the operator's");
        let exact = Plan { is_replicas_checked: true, ..plan.clone() };
        assert!(
            exact.check(&kept).expect_err("refused").to_string().contains("num_replicas is 3 and must be 1")
        );
        let differing = Config {
            storage: StorageType::Memory,
            duplicate_window: Duration::from_secs(1),
            max_messages_per_subject: 5,
            max_age: WINDOW,
            ..plan.config()
        };
        let told = plan.check(&differing).expect_err("refused").to_string();
        for part in
            ["storage is Memory", "duplicate_window is 1s", "max_msgs_per_subject is 5", "max_age is 120s"]
        {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("retention"), "{told}");
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for failures in [0, 1, 5, 40, u32::MAX] {
            let ceiling = Duration::from_millis(100 << failures.min(20)).min(Duration::from_secs(2));
            let pause = pause(failures);
            assert!(pause <= ceiling && pause >= ceiling / 2, "{failures}: {pause:?}");
        }
    }
}
