//! The body of a publish, read strictly: JSON, an array of it, or one JSON object a line. Pure.

use serde_json::value::RawValue;

use super::grant::Audience;
use super::object::Object;
use super::problem::Problem;
use crate::actors::Batch;
use crate::channel::Channel;
use crate::error::InvalidValue;
use crate::event::{Event, EventId, EventName, Payload};

/// How the events are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Lines,
}

/// The events of a body, and whether they are to be answered as an array.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) events: Vec<(Audience, Event)>,
    pub(super) is_batch: bool,
}

pub(super) fn read(body: &[u8], format: Format, max_payload: usize) -> Result<Published, Problem> {
    let body = std::str::from_utf8(body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let is_batch = format == Format::Lines || body.trim_start().starts_with('[');
    let elements = match format {
        _ if !is_batch => vec![body],
        Format::Json => serde_json::from_str::<Vec<&RawValue>>(body)
            .map_err(|error| not_json(&error))?
            .into_iter()
            .map(RawValue::get)
            .collect(),
        Format::Lines => body.lines().filter(|line| !line.trim().is_empty()).collect(),
    };
    if elements.is_empty() {
        return Err(Problem::bad_value("a batch must not be empty").field("batch"));
    }
    if elements.len() > Batch::MAX_EVENTS {
        let detail = format!("a batch must be at most {} events", Batch::MAX_EVENTS);
        return Err(Problem::too_large(detail).field("batch"));
    }
    let events = elements.into_iter().enumerate().map(|(index, element)| {
        read_one(element, max_payload).map_err(|problem| problem.index(is_batch.then_some(index)))
    });
    Ok(Published { events: events.collect::<Result<_, _>>()?, is_batch })
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("the body is not JSON of this form: {error}"))
}

/// The fields of an event.
pub(super) const FIELDS: [&str; 9] =
    ["channel", "channels", "sessions", "everyone", "event", "data", "attributes", "id", "ephemeral"];
/// The first of them say whom the event is for.
const AUDIENCES: usize = 4;

fn read_one(text: &str, max_payload: usize) -> Result<(Audience, Event), Problem> {
    let fields = Object::parse(text).map_err(|error| not_json(&error))?;
    fields.check(&FIELDS, "an event")?;
    event(&fields, max_payload)
}

/// Reads the fields of an event.
pub(super) fn event(fields: &Object<'_>, max_payload: usize) -> Result<(Audience, Event), Problem> {
    let audience = audience(fields)?;
    let name = match fields.read::<String>("event", "must be a string")? {
        Some(name) => EventName::new(name)?,
        None => EventName::MESSAGE,
    };
    let mut event = Event::new(name, payload(fields.raw("data"), max_payload)?);
    if let Some(id) = fields.read::<String>("id", "must be a string")? {
        event = event.id(EventId::new(id)?);
    }
    let attributes = fields
        .read::<std::collections::BTreeMap<String, String>>("attributes", "must be an object of strings")?;
    for (key, value) in attributes.unwrap_or_default() {
        event = event.attribute(key, value)?;
    }
    if fields.read::<bool>("ephemeral", "must be true or false")? == Some(true) {
        event = event.ephemeral();
    }
    Ok((audience, event))
}

fn audience(fields: &Object<'_>) -> Result<Audience, Problem> {
    let mut named = FIELDS.into_iter().take(AUDIENCES).filter(|field| fields.get(field).is_some());
    let Some(field) = named.next() else {
        let detail = "one of channel, channels, sessions and everyone must be given";
        return Err(Problem::bad_value(detail).field("channel"));
    };
    if let Some(second) = named.next() {
        let detail = "only one of channel, channels, sessions and everyone may be given";
        return Err(Problem::bad_value(detail).field(second));
    }
    let at_fault = |invalid: InvalidValue| Problem::from(invalid).field(field);
    match field {
        "channel" => {
            let name: String = fields.read(field, "must be a string")?.unwrap_or_default();
            Ok(Audience::Channels(vec![Channel::new(name)?]))
        }
        "channels" => {
            let channels = fields.list(field)?.into_iter().map(Channel::new).collect::<Result<_, _>>();
            channels.map(Audience::Channels).map_err(at_fault)
        }
        "sessions" => {
            let sessions = fields.list(field)?.iter().map(|id| id.parse()).collect::<Result<_, _>>();
            sessions.map(Audience::Sessions).map_err(at_fault)
        }
        _ => match fields.read(field, "must be true")? {
            Some(true) => Ok(Audience::Everyone),
            _ => Err(InvalidValue::new(field, "must be true").into()),
        },
    }
}

fn payload(raw: Option<&RawValue>, max: usize) -> Result<Payload, InvalidValue> {
    let text = raw.map_or("null", RawValue::get);
    if text.starts_with('"') {
        let text = serde_json::from_str(text)
            .map_err(|_| InvalidValue::new("data", "must be a string of whole characters"))?;
        return Payload::text_within(text, max);
    }
    Payload::raw_json_within(compact(text), max)
}

/// JSON without the white space between its tokens; numbers, the order of keys and what strings hold stay as written.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(body: &str) -> serde_json::Value {
        serde_json::to_value(read(body.as_bytes(), Format::Json, 100).expect_err(body)).expect("JSON")
    }

    fn data(body: &str) -> Payload {
        read(body.as_bytes(), Format::Json, 1000).expect(body).events.remove(0).1.payload
    }

    #[test]
    fn every_rule_is_refused_with_its_field() {
        for (body, field) in [
            (r#"{}"#, "channel"),
            (r#"{"channel":""}"#, "channel"),
            (r#"{"channel":"$everyone"}"#, "channel"),
            (r#"{"channel":7}"#, "channel"),
            (r#"{"channel":"a","everyone":true}"#, "everyone"),
            (r#"{"channels":[]}"#, "channels"),
            (r#"{"channels":["a","b//c"]}"#, "channels"),
            (r#"{"sessions":[]}"#, "sessions"),
            (r#"{"sessions":["x"]}"#, "sessions"),
            (r#"{"everyone":false}"#, "everyone"),
            (r#"{"channel":"a","event":"$welcome"}"#, "event"),
            (r#"{"channel":"a","event":"a\nb"}"#, "event"),
            (r#"{"channel":"a","event":7}"#, "event"),
            (r#"{"channel":"a","id":"a\rb"}"#, "id"),
            (r#"{"channel":"a","attributes":{"k":1}}"#, "attributes"),
            (r#"{"channel":"a","attributes":{"k":"\u0000"}}"#, "attributes"),
            (r#"{"channel":"a","ephemeral":1}"#, "ephemeral"),
            (r#"{"channel":"a","data":"\ud800"}"#, "data"),
        ] {
            let problem = problem(body);
            assert_eq!((&problem["status"], &problem["field"]), (&400.into(), &field.into()), "{body}");
        }
        for body in
            ["", "{", "7", "[]", r#"{"channel":"a","x":1}"#, r#"{"channel":"a","channel":"b"}"#, "[7]"]
        {
            assert_eq!(problem(body)["status"], 400, "{body}");
        }
        let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(101));
        assert_eq!((&problem(&large)["status"], &problem(&large)["field"]), (&413.into(), &"data".into()));
    }

    #[test]
    fn a_bad_element_is_named_by_its_index() {
        assert_eq!(problem(r#"[{"channel":"a"},{"channel":"a","event":"$x"}]"#)["index"], 1);
        let lines = "{\"channel\":\"a\"}\n\n{\"channel\":\"\"}\n";
        let refused = read(lines.as_bytes(), Format::Lines, 100).expect_err("bad line");
        assert_eq!(serde_json::to_value(refused).expect("JSON")["index"], 1);
    }

    #[test]
    fn data_is_sent_as_published() {
        assert_eq!(data(r#"{"channel":"a","data":"a\nb"}"#).as_str(), "a\nb");
        assert_eq!(data(r#"{"channel":"a"}"#).as_str(), "null");
        let exact = r#"{ "z" : 1.10, "a" : [ 1e400, 12345678901234567890 ], "s" : "a \" b\\" }"#;
        let sent = data(&format!(r#"{{"channel":"a","data":{exact}}}"#));
        assert_eq!(sent.as_str(), r#"{"z":1.10,"a":[1e400,12345678901234567890],"s":"a \" b\\"}"#);
        assert!(sent.is_json());
    }

    #[test]
    fn one_event_and_a_batch_of_one_differ() {
        let one = read(br#"{"channel":"a"}"#, Format::Json, 100).expect("valid");
        let batch = read(br#" [{"channel":"a"}]"#, Format::Json, 100).expect("valid");
        let lines = read(b"{\"channel\":\"a\"}\r\n", Format::Lines, 100).expect("valid");
        assert_eq!((one.is_batch, batch.is_batch, lines.is_batch), (false, true, true));
    }

    /// Texts about as long as they may be, and some that break another rule.
    fn near(limit: usize) -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z]{1,3}",
            1 => "[a-z/$*\u{0}\n\u{e9} ]{0,4}",
            1 => (limit - 1..=limit + 1).prop_map(|length| "x".repeat(length)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_taken_keeps_every_rule(
            channels in prop::collection::vec(near(255), 0..3),
            name in proptest::option::of(near(64)),
            id in proptest::option::of(near(64)),
            attributes in prop::collection::btree_map(near(64), near(256), 0..18),
            data in near(100),
        ) {
            let mut body = serde_json::json!({"channels": channels, "attributes": attributes, "data": data});
            for (field, text) in [("event", &name), ("id", &id)] {
                if let Some(text) = text {
                    body[field] = text.as_str().into();
                }
            }
            let has_control = |text: &str| text.chars().any(char::is_control);
            let is_channel = |text: &String| {
                let segments: Vec<_> = text.split('/').collect();
                text.len() <= 255 && !has_control(text) && !text.starts_with('$')
                    && !segments.iter().any(|segment| ["", "*", "**"].contains(segment))
            };
            let is_id = |text: &String| {
                (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
            };
            let is_name = |text: &String| text.len() <= 64 && !text.is_empty() && !has_control(text) && !text.starts_with('$');
            let is_attribute = |(key, value): (&String, &String)| {
                (1..=64).contains(&key.len()) && value.len() <= 256 && !has_control(key) && !has_control(value)
            };
            let keeps = !channels.is_empty() && channels.iter().all(is_channel)
                && name.iter().all(is_name) && id.iter().all(is_id)
                && attributes.len() <= 16 && attributes.iter().all(is_attribute) && data.len() <= 100;
            match read(body.to_string().as_bytes(), Format::Json, 100) {
                Ok(Published { events, is_batch: false }) => {
                    prop_assert!(keeps, "taken: {}", body);
                    prop_assert_eq!(events[0].1.payload.as_str(), data);
                }
                Ok(batch) => prop_assert!(false, "{:?}", batch),
                Err(problem) => prop_assert!(!keeps, "{}: {}", problem, body),
            }
        }

        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read(&body, Format::Json, 100), read(&body, Format::Lines, 100));
        }

        #[test]
        fn compacting_changes_no_value(text in "[\\[\\]{}\",:0-9a-z\\\\ \n]{0,40}") {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&compact(&text)).expect("still JSON"), value);
            }
        }
    }
}
