//! Query strings, read strictly: what is not UTF-8 is refused, not replaced.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// The pairs of a query string, in order.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Problem> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// All values of a key.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// The value of a key that may come once, and none for an empty one.
    pub(super) fn one(&self, key: &'static str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(key).filter(|value| !value.is_empty());
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::bad_value(format!("{key} must not be given twice")).field(key));
        }
        Ok(first)
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    let refuse = |_| Problem::bad_request("the query is not UTF-8");
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8().map_err(refuse)?;
        return Ok(Cow::Owned(decoded.into_owned()));
    }
    percent_decode_str(text).decode_utf8().map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_repeat() {
        let query = Query::parse("channel=a%2Fb&channel=%2A%2A&x=a+b%2B&empty=&flag").expect("valid");
        assert_eq!(query.all("channel").collect::<Vec<_>>(), ["a/b", "**"]);
        assert_eq!(query.one("x").expect("once"), Some("a b+"));
        assert_eq!(query.one("empty").expect("once"), None);
        assert_eq!(query.one("flag").expect("once"), None);
        assert!(query.one("channel").is_err());
        assert!(Query::parse("channel=%FF").is_err());
    }
}
