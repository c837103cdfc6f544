//! What a client asks for: one JSON object a message. Pure.

use crate::actors::broker::{Begin, Start};
use crate::channel::Selector;
use crate::cursor::Cursor;
use crate::error::InvalidValue;
use crate::event::Event;
use crate::http::grant::Audience;
use crate::http::object::Object;
use crate::http::problem::Problem;
use crate::http::publish_body;
use crate::interest::{Filter, Subscription};
use crate::wire::ws::Reference;

#[derive(Debug)]
pub(super) enum Request {
    Subscribe { subscription: Subscription, start: Start },
    Unsubscribe { selectors: Vec<Selector> },
    Publish(Box<(Audience, Event)>),
    Ping,
    Token(String),
}

/// What a client called its request, and the request or what is wrong with it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) reference: Option<Reference>,
    pub(super) request: Result<Request, Problem>,
}

/// It is not even JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson;

pub(super) fn read(text: &str, max_payload: usize) -> Result<Asked, NotJson> {
    let object = match Object::parse(text) {
        Ok(object) => object,
        Err(_) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() => return Err(NotJson),
        Err(_) => {
            let request = Err(Problem::bad_request("a message must be a JSON object"));
            return Ok(Asked { reference: None, request });
        }
    };
    match reference(&object) {
        Ok(reference) => Ok(Asked { reference, request: request(&object, max_payload) }),
        Err(invalid) => Ok(Asked { reference: None, request: Err(invalid.into()) }),
    }
}

fn reference(object: &Object<'_>) -> Result<Option<Reference>, InvalidValue> {
    let Some(raw) = object.get("ref") else { return Ok(None) };
    let is_number = raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !is_number && !raw.get().starts_with('"') {
        return Err(InvalidValue::new("ref", "must be a number or a string"));
    }
    if raw.get().len() > MAX_REFERENCE {
        return Err(InvalidValue::new("ref", format!("must be at most {MAX_REFERENCE} bytes")));
    }
    Ok(Some(raw.to_owned()))
}

/// The answer holds it, and answers may wait.
const MAX_REFERENCE: usize = 256;

fn request(object: &Object<'_>, max_payload: usize) -> Result<Request, Problem> {
    let op: Option<String> = object.read("op", "must be a string")?;
    let known = |fields: &[&'static str], what: &str| {
        let fields: Vec<_> = ["op", "ref"].iter().chain(fields).copied().collect();
        object.check(&fields, what)
    };
    match op.as_deref() {
        Some("subscribe") => {
            known(&["channels", "filter", "cursor", "from"], "subscribe")?;
            let filter = object.read("filter", "must be an object of strings")?;
            let filter: std::collections::BTreeMap<String, String> = filter.unwrap_or_default();
            let subscription =
                Subscription::new(selectors(object)?, Filter::of(filter.into_iter().collect())?);
            Ok(Request::Subscribe { subscription, start: start(object)? })
        }
        Some("unsubscribe") => {
            known(&["channels"], "unsubscribe")?;
            Ok(Request::Unsubscribe { selectors: selectors(object)? })
        }
        Some("publish") => {
            known(&publish_body::FIELDS, "an event")?;
            Ok(Request::Publish(Box::new(publish_body::event(object, max_payload)?)))
        }
        Some("ping") => known(&[], "ping").map(|()| Request::Ping),
        Some("token") => {
            known(&["token"], "token")?;
            let token = object.read("token", "must be a string")?;
            token.map(Request::Token).ok_or_else(|| InvalidValue::new("token", "must be given").into())
        }
        _ => {
            let rule = "must be subscribe, unsubscribe, publish, ping or token";
            Err(InvalidValue::new("op", rule).into())
        }
    }
}

fn selectors(object: &Object<'_>) -> Result<Vec<Selector>, Problem> {
    let selectors = object.list("channels")?.into_iter().map(Selector::new);
    selectors.collect::<Result<_, _>>().map_err(|invalid| Problem::from(invalid).field("channels"))
}

fn start(object: &Object<'_>) -> Result<Start, InvalidValue> {
    let rule = "must be now, earliest or a number";
    let from = match object.get("from").map(|raw| raw.get()) {
        None => None,
        Some(r#""now""#) => Some(Begin::Now),
        Some(r#""earliest""#) => Some(Begin::Earliest),
        // A count, as it stands in a query or as JSON has numbers.
        Some(count) => {
            let digits = count.trim_matches('"');
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let count = digits.parse().ok().filter(|_| is_number);
            Some(Begin::Last(count.ok_or_else(|| InvalidValue::new("from", rule))?))
        }
    };
    let cursor = object.read::<String>("cursor", "must be a string or null")?;
    Ok(match cursor.filter(|token| !token.is_empty()) {
        None => Start::At(from.unwrap_or_default()),
        Some(token) => {
            Start::After { cursor: Cursor::parse(&token), otherwise: from.unwrap_or(Begin::Earliest) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> serde_json::Value {
        let asked = read(text, 100).expect(text);
        serde_json::to_value(asked.request.expect_err(text)).expect("JSON")
    }

    #[test]
    fn a_request_is_read() {
        let text =
            r#"{"op":"subscribe","ref":"x","channels":["a/*","b"],"filter":{"k":"v"},"cursor":"l.t.7"}"#;
        let asked = read(text, 100).expect("JSON");
        assert_eq!(asked.reference.as_deref().map(|reference| reference.get()), Some(r#""x""#));
        let Ok(Request::Subscribe { subscription, start }) = asked.request else { panic!("{asked:?}") };
        assert_eq!(Ok(subscription), Subscription::to("a/*").and_then(|to| to.and("b")?.filter("k", "v")));
        let cursor = Cursor::parse("l.t.7");
        assert_eq!(start, Start::After { cursor, otherwise: Begin::Earliest });
        for (from, begin) in [(r#""now""#, Begin::Now), ("5", Begin::Last(5)), (r#""5""#, Begin::Last(5))] {
            let text = format!(r#"{{"op":"subscribe","channels":["a"],"cursor":null,"from":{from}}}"#);
            let asked = read(&text, 100).expect("JSON");
            let Ok(Request::Subscribe { start, .. }) = asked.request else { panic!("{asked:?}") };
            assert_eq!(start, Start::At(begin));
        }
        let publish = read(r#"{"op":"publish","ref":3,"channel":"a","data":{"x":1}}"#, 100).expect("JSON");
        assert!(matches!(publish.request, Ok(Request::Publish(_))));
        let ping = read(r#"{"op":"ping"}"#, 100).expect("JSON");
        assert!(matches!(ping, Asked { reference: None, request: Ok(Request::Ping) }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, field) in [
            (r#"{}"#, "op"),
            (r#"{"op":"shout"}"#, "op"),
            (r#"{"op":7}"#, "op"),
            (r#"{"op":"ping","ref":[]}"#, "ref"),
            (r#"{"op":"ping","ref":true}"#, "ref"),
            (r#"{"op":"ping","x":1}"#, "x"),
            (r#"{"op":"ping","op":"ping"}"#, "op"),
            (r#"{"op":"subscribe"}"#, "channels"),
            (r#"{"op":"subscribe","channels":[]}"#, "channels"),
            (r#"{"op":"subscribe","channels":"a"}"#, "channels"),
            (r#"{"op":"subscribe","channels":["a//b"]}"#, "channels"),
            (r#"{"op":"subscribe","channels":["$everyone"]}"#, "channels"),
            (r#"{"op":"subscribe","channels":["a"],"filter":{"k":1}}"#, "filter"),
            (r#"{"op":"subscribe","channels":["a"],"from":"later"}"#, "from"),
            (r#"{"op":"subscribe","channels":["a"],"from":-1}"#, "from"),
            (r#"{"op":"subscribe","channels":["a"],"cursor":7}"#, "cursor"),
            (r#"{"op":"unsubscribe","channels":["a"],"from":"now"}"#, "from"),
            (r#"{"op":"publish","channel":"$x"}"#, "channel"),
            (r#"{"op":"publish","channel":"a","cursor":"x"}"#, "cursor"),
            (r#"{"op":"token"}"#, "token"),
        ] {
            let problem = problem(text);
            assert_eq!((&problem["status"], &problem["field"]), (&400.into(), &field.into()), "{text}");
        }
        assert_eq!(problem("7")["status"], 400);
        assert_eq!(read("{", 100).expect_err("not JSON"), NotJson);
        assert_eq!(read("", 100).expect_err("not JSON"), NotJson);
    }

    proptest! {
        /// What a message is asked to do is what it says, and its name comes back as it was.
        #[test]
        fn a_message_is_read_as_it_says(
            op in "subscribe|unsubscribe|publish|ping|token|other",
            reference in proptest::option::of("[1-9][0-9]{0,2}|\"[a-z\u{e9}]{0,9}\"|\"x{253,256}\"|true|null|\\[\\]"),
            channels in prop::collection::vec("[a/*]{1,4}", 0..3),
            extra in proptest::option::of("channel|data|token|cursor|from|filter|other"),
        ) {
            let list = serde_json::to_string(&channels).expect("JSON");
            let mut text = format!(r#"{{"op":"{op}""#);
            if let Some(reference) = &reference {
                text.push_str(&format!(r#","ref":{reference}"#));
            }
            if op.ends_with("subscribe") {
                text.push_str(&format!(r#","channels":{list}"#));
            }
            if let Some(extra) = &extra {
                text.push_str(&format!(r#","{extra}":"a""#));
            }
            text.push('}');
            let asked = read(&text, 100);
            prop_assert!(asked.is_ok(), "it is JSON: {}", text);
            let Ok(Asked { reference: named, request }) = asked else { return Ok(()) };
            let selectors: Vec<_> = channels.iter().map_while(|channel| Selector::new(channel).ok()).collect();
            let are_selectors = selectors.len() == channels.len();
            match request {
                Ok(request) => {
                    prop_assert_eq!(named.map(|named| named.get().to_owned()), reference.filter(|text| text != "null"));
                    match (op.as_str(), request) {
                        ("subscribe", Request::Subscribe { subscription, .. }) => {
                            prop_assert!(are_selectors && subscription.selectors().all(|selector| selectors.contains(selector)));
                        }
                        ("unsubscribe", Request::Unsubscribe { selectors: ended }) => prop_assert_eq!(ended, selectors),
                        ("publish", Request::Publish(_)) => prop_assert_eq!(extra.as_deref(), Some("channel")),
                        ("token", Request::Token(token)) => prop_assert_eq!((token.as_str(), extra.as_deref()), ("a", Some("token"))),
                        ("ping", Request::Ping) => prop_assert_eq!(extra, None),
                        (op, request) => prop_assert!(false, "{} became {:?}", op, request),
                    }
                }
                Err(_) => prop_assert!(
                    extra.is_some() || !are_selectors || channels.is_empty() || ["publish", "token", "other"].contains(&op.as_str())
                        || reference.is_some_and(|reference| !reference.starts_with(|first: char| first == '"' || first.is_ascii_digit()) || reference.len() > 256)
                ),
            }
        }

        #[test]
        fn no_message_panics(text in any::<String>()) {
            let _ = read(&text, 100);
        }
    }
}
