//! What the bytes of one message are: a batch of events, or word that a session was closed. Pure.
//!
//! Whatever comes in on the subject is read with care: a message that is neither is passed over, and what breaks a rule
//! of an event's values is no batch.

use bytes::Bytes;

use crate::actors::log::COMMIT_EVENTS;
use crate::actors::log::codec::{self, Rest, number, pairs, text};
use crate::actors::log::index::Lately;
use crate::binding::{Binding, Rebinding};
use crate::error::CloseReason;
use crate::identity::SessionId;
use crate::record::Draft;

/// The form that these bytes have; a later one has another number.
const BATCH: u8 = 1;
const CLOSE_SESSION: u8 = 2;

const BIND: u8 = 1;
const UNBIND: u8 = 2;

/// Events, and what they were completed by.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) drafts: Vec<Draft>,
    /// The message of the newest change of bindings that was known.
    pub(super) known: u64,
    /// The change that it is itself.
    pub(super) change: Option<Rebinding>,
}

impl Batch {
    /// Events that are as they are.
    pub(super) fn settled(drafts: Vec<Draft>) -> Self {
        Self { drafts, known: u64::MAX, change: None }
    }
}

pub(super) fn close_session(session: SessionId, reason: CloseReason) -> Bytes {
    let mut out = vec![CLOSE_SESSION];
    text(&mut out, &session.to_string());
    text(&mut out, reason.as_str());
    out.into()
}

/// A batch of no more than so much weight has no more bytes.
pub(super) fn encode(Batch { drafts, known, change }: &Batch) -> Bytes {
    let weight: usize = drafts.iter().map(Draft::weight).sum();
    let mut out = Vec::with_capacity(weight);
    out.push(BATCH);
    out.extend_from_slice(&known.to_le_bytes());
    match change {
        None => out.push(0),
        Some(Rebinding::Bind(binding)) => {
            out.push(BIND);
            pairs(&mut out, &binding.when);
            pairs(&mut out, &binding.set);
        }
        Some(Rebinding::Unbind(when)) => {
            out.push(UNBIND);
            pairs(&mut out, when);
        }
    }
    number(&mut out, drafts.len());
    drafts.iter().for_each(|draft| codec::write(&mut out, draft));
    out.into()
}

/// The events of a message, and what they were completed by; nothing if it is no batch.
pub(super) fn decode(bytes: &Bytes) -> Option<Batch> {
    let Opened::Batch { known, change, count, events } = open(bytes)? else { return None };
    Some(Batch { drafts: read(&events, count, &mut Lately::default())?, known, change })
}

/// What a message says, whose events are still to be read.
#[derive(Debug)]
pub(super) enum Opened {
    Batch { known: u64, change: Option<Rebinding>, count: usize, events: Bytes },
    CloseSession { session: SessionId, reason: CloseReason },
}

/// What a message says; nothing if it says nothing that is known here, which [`read`] may have to find out.
pub(super) fn open(bytes: &Bytes) -> Option<Opened> {
    let mut rest = Rest(bytes);
    match rest.byte()? {
        BATCH => {
            let known = rest.long()?;
            let change = match rest.byte()? {
                0 => None,
                BIND => Some(Rebinding::Bind(Binding { when: rest.pairs()?, set: rest.pairs()? })),
                UNBIND => Some(Rebinding::Unbind(rest.pairs()?)),
                _ => return None,
            };
            // An event takes many bytes.
            let count = rest.number().filter(|&count| count <= COMMIT_EVENTS.min(rest.0.len()))?;
            Some(Opened::Batch { known, change, count, events: bytes.slice_ref(rest.0) })
        }
        CLOSE_SESSION => {
            let session = rest.text()?.parse().ok()?;
            let reason = CloseReason::from_word(rest.text()?)?;
            rest.0.is_empty().then_some(Opened::CloseSession { session, reason })
        }
        _ => None,
    }
}

/// The events of a message.
pub(super) fn read(events: &[u8], count: usize, lately: &mut Lately) -> Option<Vec<Draft>> {
    let mut rest = Rest(events);
    let mut drafts = Vec::with_capacity(count);
    for _ in 0..count {
        drafts.push(rest.draft(lately)?);
    }
    rest.0.is_empty().then_some(drafts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::channel::Channel;
    use crate::event::{Event, EventId, EventName};
    use crate::identity::Publisher;

    fn read_alone(bytes: &[u8]) -> Option<Batch> {
        decode(&Bytes::copy_from_slice(bytes))
    }

    fn drafts() -> Vec<Draft> {
        let channels = |names: &[&str]| -> Arc<[Channel]> {
            names.iter().map(|name| Channel::new(name).expect("valid")).collect()
        };
        let plain = Event::text("message", "a\nb\0ü").expect("valid");
        let full = Event::json("created", &serde_json::json!({"a": [1, "x"]})).expect("valid");
        let full = full.attribute("k", "v").expect("valid").attribute("l", "").expect("valid");
        let full = full.id(EventId::new("o-7").expect("valid"));
        let session = SessionId::mint();
        vec![
            Draft::new(plain.clone(), channels(&["a.b"]), Publisher::HUB, 1),
            Draft::new(full.clone(), channels(&["ü x/>", "b"]), Publisher::named("ada"), u64::MAX),
            Draft::new(full, [Channel::everyone()].into(), Publisher::HUB, 0),
            Draft::new(plain.clone(), [Channel::inbox(session)].into(), Publisher::HUB, 2),
            Draft::new(plain, [].into(), Publisher::HUB, 3),
        ]
    }

    #[test]
    fn a_batch_reads_back() {
        let bytes = encode(&Batch::settled(drafts()));
        let Some(Batch { drafts: read, known: u64::MAX, change: None }) = read_alone(&bytes) else {
            panic!("a batch")
        };
        let all = |drafts: &[Draft]| drafts.iter().map(|draft| format!("{draft:?}")).collect::<Vec<_>>();
        let written = drafts();
        // Two are minted anew each time.
        let without_ids = |drafts: &[Draft]| {
            let same = |draft: &Draft| Draft { id: EventId::new("x").expect("valid"), ..draft.clone() };
            all(&drafts.iter().map(same).collect::<Vec<_>>())
        };
        assert_eq!(without_ids(&read)[..3], without_ids(&written)[..3]);
        assert_eq!(read[1].id.as_str(), "o-7");
        assert_eq!((read.len(), read[4].channels.len()), (5, 0));
        assert!(bytes.len() < written.iter().map(Draft::weight).sum::<usize>());
    }

    /// What was read before changes nothing but what is kept twice.
    #[test]
    fn channels_that_come_again_are_kept_once() {
        let mut lately = Lately::default();
        let mut read = |names: &[&str]| {
            let channels = names.iter().map(|name| Channel::restore(name)).collect();
            let draft = Draft::new(Event::text("x", "").expect("valid"), channels, Publisher::HUB, 0);
            match open(&encode(&Batch::settled(vec![draft]))) {
                Some(Opened::Batch { count, events, .. }) => {
                    super::read(&events, count, &mut lately).map(|mut drafts| drafts.remove(0).channels)
                }
                _ => None,
            }
        };
        let [first, again] = [read(&["a", "b"]), read(&["a", "b"])].map(Option::unwrap_or_default);
        assert!(Arc::ptr_eq(&first, &again));
        for names in
            [&["a"][..], &["a", "b", "c"], &["b", "a"], &["a", "bb"], &[], &["a", "b"], &["$everyone"]]
        {
            let channels = read(names).expect("valid");
            assert_eq!(channels.iter().map(Channel::as_str).collect::<Vec<_>>(), names);
        }
        assert_eq!(read(&["$everyon"]), None);
    }

    #[test]
    fn a_change_of_bindings_reads_back() {
        let [when, set] = ["a", "b"].map(|key| {
            Event::text("x", "").and_then(|event| event.attribute(key, "v")).expect("valid").attributes
        });
        for change in [Rebinding::Bind(Binding { when: when.clone(), set }), Rebinding::Unbind(when)] {
            let bytes = encode(&Batch { drafts: Vec::new(), known: 7, change: Some(change.clone()) });
            let Some(read) = read_alone(&bytes) else { panic!("a batch") };
            assert_eq!((read.drafts.len(), read.known, read.change), (0, 7, Some(change)));
        }
    }

    #[test]
    fn word_of_a_session_reads_back() {
        let session = SessionId::mint();
        let bytes = close_session(session, CloseReason::Revoked);
        let read = open(&bytes);
        assert!(
            matches!(read, Some(Opened::CloseSession { session: of, reason: CloseReason::Revoked }) if of == session)
        );
        assert!(open(&bytes.slice(..bytes.len() - 1)).is_none());
        assert!(open(&[&bytes[..], b"x"].concat().into()).is_none());
    }

    #[test]
    fn the_largest_head_is_within_its_weight() {
        let mut event =
            Event::text("n".repeat(64), "").expect("valid").id(EventId::new("i".repeat(64)).expect("valid"));
        for n in 0..16 {
            event = event.attribute(format!("{n:064}"), "v".repeat(256)).expect("valid");
        }
        let channel = Channel::new("c".repeat(255)).expect("valid");
        let draft = Draft::new(event, [channel].into(), Publisher::named("p".repeat(100)), 0);
        let weight = draft.weight();
        assert!(encode(&Batch::settled(vec![draft])).len() <= weight);
    }

    #[test]
    fn what_breaks_a_rule_is_no_batch() {
        let bytes = encode(&Batch::settled(drafts()));
        for cut in 0..bytes.len() {
            assert!(read_alone(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        assert!(read_alone(&[&bytes[..], b"x"].concat()).is_none());
        let with = |draft: Draft| read_alone(&encode(&Batch::settled(vec![draft])));
        let good = drafts().remove(0);
        assert!(with(good.clone()).is_some());
        for name in ["a\nb", "$else", "$session/x", "", "a//b"] {
            let channels = [Channel::restore(name)].into();
            assert!(with(Draft { channels, ..good.clone() }).is_none(), "{name:?}");
        }
        assert!(with(Draft { name: EventName::restore(Some("$gap")), ..good.clone() }).is_none());
        assert!(with(Draft { id: EventId::restore("a\nb"), ..good }).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<usize>(), byte: u8) {
            let _ = read_alone(&bytes);
            bytes.insert(0, BATCH);
            let _ = read_alone(&bytes);
            let mut good = encode(&Batch::settled(drafts())).to_vec();
            let at = at % good.len();
            good[at] = byte;
            let _ = read_alone(&good);
        }
    }
}
