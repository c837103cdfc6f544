//! What the blocks of `text/event-stream` say.

use super::{Incoming, event, malformed, notice};
use crate::client::error::StreamError;
use crate::client::item::Position;

/// Reads a block; a comment and what a newer server may say beside are nothing.
pub(in crate::client) fn block(block: russe::Event) -> Result<Incoming, StreamError> {
    let message = match block {
        russe::Event::Message(message) => message,
        russe::Event::Retry(retry) => return Ok(Incoming { retry: Some(retry), ..Incoming::default() }),
        _ => return Ok(Incoming::default()),
    };
    // An empty id is how a server takes the position back; this one never does.
    let id = message.id.as_deref().filter(|id| !id.is_empty());
    let position = id.map(str::parse::<Position>).transpose().map_err(|error| malformed(&error))?;
    let name = message.event.as_deref().unwrap_or("message");
    let word = match name.strip_prefix('$') {
        // No event of an envelope is without data: such a block only moves the position.
        _ if message.data.is_empty() => None,
        Some(own) => notice(own, &message.data)?,
        None => Some(event(&message.data, position.as_ref())?),
    };
    Ok(Incoming { position, retry: message.retry, word, ..Incoming::default() })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;

    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::client::read::Word;
    use crate::event::EventName;

    /// Reads bytes as they would come off a connection, cut at every place in turn.
    fn read(text: &str) -> Vec<Incoming> {
        let read_cut = |at: usize| {
            let (mut decoder, mut buffer, mut all) = (russe::Decoder::default(), BytesMut::new(), Vec::new());
            for piece in [&text.as_bytes()[..at], &text.as_bytes()[at..]] {
                buffer.extend_from_slice(piece);
                while let Some(event) = decoder.decode(&mut buffer).expect("UTF-8") {
                    all.push(block(event).expect("readable"));
                }
            }
            all.retain(|incoming| *incoming != Incoming::default());
            all
        };
        let whole = read_cut(0);
        for at in 1..text.len() {
            assert_eq!(read_cut(at), whole, "cut at {at}");
        }
        whole
    }

    fn at(position: &str) -> Option<Position> {
        Some(position.parse().expect("valid"))
    }

    /// What the choice of the decoder rests on: other libraries swallow an id without data.
    #[test]
    fn an_id_without_data_moves_the_position() {
        let moved = |position| Incoming { position: at(position), ..Incoming::default() };
        assert_eq!(read(": ping\nid: a.b.7\n\nid: a.b.8\n\n"), [moved("a.b.7"), moved("a.b.8")]);
        assert_eq!(read(": ping\r\nid: a.b.7\r\n\r\nid:a.b.8\r\n\r\n"), [moved("a.b.7"), moved("a.b.8")]);
        // Half a block is none.
        assert_eq!(read("id: a.b.7\n\nid: a.b.8\n"), [moved("a.b.7")]);
    }

    #[test]
    fn a_pause_is_read_alone_and_beside() {
        let retry = Some(Duration::from_millis(3217));
        assert_eq!(read("retry: 3217\n\n"), [Incoming { retry, ..Incoming::default() }]);
        let all = read("retry: 3217\n\nevent: $closing\ndata: {\"reason\":\"draining\"}\n\n");
        assert_eq!(all[1].word, Some(Word::Closing("draining".into())));
        assert_eq!(read("retry: soon\n\n"), []);
    }

    #[test]
    fn an_event_is_read_whole() {
        let text = "id: a.b.7\nevent: created\ndata: {\"id\":\"o-7\",\"seq\":7,\"prev\":3,\"channel\":\"a\",\
            \"channels\":[\"a\",\"b\"],\"event\":\"created\",\"time\":\"2026-01-02T03:04:05.678Z\",\
            \"attributes\":{\"kind\":\"x\"},\"data\":{\"n\":12345678901234567890.10}}\n\n";
        let Some(Word::Event(event)) = read(text).remove(0).word else { panic!("no event") };
        assert_eq!((event.position, event.seq, event.prev), (at("a.b.7"), Some(7), Some(3)));
        assert_eq!((event.id.as_str(), event.name.as_str(), &*event.channel), ("o-7", "created", "a"));
        assert_eq!(event.channels, ["a", "b"]);
        assert_eq!(event.attributes.get("kind"), Some("x"));
        // As it was published, to the digit.
        assert_eq!((event.data.as_str(), event.data.is_json()), (r#"{"n":12345678901234567890.10}"#, true));
        let since = event.time.duration_since(SystemTime::UNIX_EPOCH).expect("later");
        assert_eq!(since, Duration::from_millis(1_767_323_045_678));
    }

    #[test]
    fn a_text_is_no_json() {
        let text = "data: {\"id\":\"x\",\"seq\":null,\"prev\":null,\"channel\":\"a\",\"channels\":[\"a\"],\"event\":\
            \"message\",\"time\":\"2026-01-02T03:04:05.678Z\",\"attributes\":{},\"data\":\"a\\n\\\"b\"}\n\n";
        let Some(Word::Event(event)) = read(text).remove(0).word else { panic!("no event") };
        assert_eq!((event.data.as_str(), event.data.is_json()), ("a\n\"b", false));
        assert_eq!((event.position, event.seq, event.name), (None, None, EventName::MESSAGE));
    }

    #[test]
    fn what_a_newer_server_says_is_passed_over() {
        let all = read("id: a.b.7\nevent: $news\ndata: {}\n\nfuture: 1\n\n");
        assert_eq!(all, [Incoming { position: at("a.b.7"), ..Incoming::default() }]);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for text in ["data: plain\n\n", "event: $gap\ndata: {}\n\n", "id: a b\n\n"] {
            let mut buffer = BytesMut::from(text);
            let event = russe::Decoder::default().decode(&mut buffer).expect("UTF-8").expect("a block");
            assert!(matches!(block(event), Err(StreamError::Malformed(_))), "{text:?}");
        }
    }
}
