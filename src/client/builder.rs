//! What a client needs to know before it connects; refused here if it is wrong.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;

use super::backoff::Backoff;
use super::connection::{Request, Transport, Wanted};
use super::item::Position;
use super::stream::EventStream;
use crate::channel::Selector;
use crate::error::InvalidValue;
use crate::interest::Filter;

/// A server, and how to speak to it. Cloning is cheap; streams and publishes of one client share nothing but settings
/// and idle connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) http: reqwest::Client,
    pub(super) events: Url,
    pub(super) socket: Url,
    pub(super) publish: Url,
    pub(super) headers: HeaderMap,
    pub(super) backoff: Backoff,
    pub(super) connect_timeout: Duration,
    pub(super) publish_timeout: Duration,
    pub(super) max_event: usize,
}

impl Client {
    /// A client of the scope at `url`: `http://127.0.0.1:8080/` for a hub, `http://host/rt` for a scope that is mounted at
    /// `/rt`. It follows no redirect.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if `url` is no HTTP URL, has a query or a fragment, or begins with `https`: for that, bring an HTTP
    /// client with TLS ([`Client::with_http`]).
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidValue> {
        if url.as_ref().trim_start().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:")) {
            return Err(InvalidValue::new("url", "needs an HTTP client with TLS: see Client::with_http"));
        }
        let http = reqwest::Client::builder().redirect(Policy::none()).build();
        let http = http.map_err(|error| InvalidValue::new("http", format!("cannot be set up: {error}")))?;
        Self::with_http(url, http)
    }

    /// As [`Client::new`], through an HTTP client of yours: with TLS, a proxy, addresses of its own. `reqwest` is 0.13; its
    /// features are yours to choose.
    ///
    /// It should have no timeout of a whole request or of reading: that would cut streams. Over TLS a WebSocket needs it to
    /// keep to HTTP/1.1 (`http1_only`).
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if `url` is no HTTP URL, or has a query or a fragment.
    pub fn with_http(url: impl AsRef<str>, http: reqwest::Client) -> Result<Self, InvalidValue> {
        let refuse = |rule: String| InvalidValue::new("url", rule);
        let base = Url::parse(url.as_ref()).map_err(|error| refuse(format!("must be a URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(refuse("must begin with http:// or https://".into()));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(refuse("must not have a query or a fragment".into()));
        }
        let endpoint = |name: &str| {
            let mut url = base.clone();
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().push(name);
            }
            url
        };
        Ok(Self {
            http,
            events: endpoint("events"),
            socket: endpoint("ws"),
            publish: endpoint("publish"),
            headers: HeaderMap::new(),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(30),
            max_event: 4 << 20,
        })
    }

    /// Sends a header with every request; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if the name or the value cannot stand in a header.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let name = HeaderName::try_from(name.as_ref())
            .map_err(|_| InvalidValue::new("header", "must have the name of a header"))?;
        self.headers.insert(name, header_value(value.as_ref())?);
        Ok(self)
    }

    /// Sends `Authorization: Bearer` with `token`.
    ///
    /// When the server no longer takes it, the stream ends with [`StreamError::Rejected`](super::StreamError::Rejected) and
    /// status 401; go on with a new token from [`EventStream::position`].
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it cannot stand in a header.
    pub fn bearer(mut self, token: impl AsRef<str>) -> Result<Self, InvalidValue> {
        self.headers.insert(AUTHORIZATION, header_value(&format!("Bearer {}", token.as_ref()))?);
        Ok(self)
    }

    /// The time between attempts: `first` after the first failure, doubled with each further one up to `max`; of each, a
    /// random half to the whole. 1 second and 30 seconds if not set. Less than what the server asks for is never waited.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if `first` is zero or more than `max`.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Result<Self, InvalidValue> {
        if first.is_zero() || first > max {
            return Err(InvalidValue::new(
                "backoff",
                "must have a first wait above zero and not above the longest",
            ));
        }
        self.backoff = Backoff { first, max };
        Ok(self)
    }

    /// How long an attempt may take until the server has greeted; 10 seconds if not set. A server may take some two
    /// seconds to find out that a cursor is beyond its newest event.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a publish may take until its receipt is here; 30 seconds if not set.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// The largest event that is read, in bytes on the wire; 4 MiB if not set. A larger one ends the stream.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.max_event = bytes;
        self
    }

    /// Begins to say what to follow. Without a channel it is what is sent to the session and to everyone.
    pub fn subscribe(&self) -> Subscribe {
        Subscribe {
            client: self.clone(),
            transport: Transport::default(),
            wanted: Wanted::default(),
            position: None,
        }
    }
}

fn header_value(value: &str) -> Result<HeaderValue, InvalidValue> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| InvalidValue::new("header", "must have a value without control characters"))?;
    // It may be a secret: kept out of what is printed.
    value.set_sensitive(true);
    Ok(value)
}

/// Where a stream begins that has no cursor, or one that cannot be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With what comes from now on.
    Now,
    /// With the earliest event that is kept.
    Earliest,
    /// With the last so many matching events.
    Last(u64),
}

/// What to follow, and from where.
#[derive(Debug, Clone)]
#[must_use = "nothing is followed until it is opened"]
pub struct Subscribe {
    client: Client,
    transport: Transport,
    wanted: Wanted,
    position: Option<Position>,
}

impl Subscribe {
    /// Follows what `selector` selects, beside what was named before. `*` is one segment, `**` at the end any number.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is no selector. How many a stream may have is the server's affair (128 by default).
    pub fn channel(mut self, selector: impl AsRef<str>) -> Result<Self, InvalidValue> {
        self.wanted.selectors.push(Selector::new(selector)?);
        Ok(self)
    }

    /// Narrows the channels to events that have this attribute, and those named before.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] for a key with a colon, one that was named with another value, what breaks a rule of attributes, and
    /// the seventeenth.
    pub fn filter(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidValue> {
        let (key, value) = (key.into(), value.into());
        if key.contains(':') {
            return Err(InvalidValue::new("filter", "must not have a colon in its key"));
        }
        if self.wanted.filter.get(&key).is_some_and(|named| *named != value) {
            return Err(InvalidValue::new("filter", "must not ask for two values of one attribute"));
        }
        self.wanted.filter.insert(key, value);
        Filter::of(self.wanted.filter.clone().into_iter().collect())?;
        Ok(self)
    }

    /// Where to begin without a [position](Self::after), [`Begin::Now`] if not set; and with one that cannot be resumed,
    /// [`Begin::Earliest`] if not set.
    pub fn from(mut self, begin: Begin) -> Self {
        self.wanted.begin = Some(begin);
        self
    }

    /// Goes on behind a position: what an earlier stream had reached, or the cursor of a receipt or of the history.
    pub fn after(mut self, position: impl Into<Position>) -> Self {
        self.position = Some(position.into());
        self
    }

    /// Rather ends with 410 than goes on behind a gap or a reset that a connection begins with.
    pub fn strict(mut self) -> Self {
        self.wanted.is_strict = true;
        self
    }

    /// Carries the stream by another transport than [`Transport::Sse`]; what its [position](EventStream::position) was over
    /// one is good for the other.
    ///
    /// ```
    /// use fanfare::client::{Client, Transport};
    ///
    /// let orders = Client::new("http://127.0.0.1:8080/")?.subscribe().channel("orders/*")?;
    /// let stream = orders.clone().after("k7Qx.9fKd.7".parse::<fanfare::client::Position>()?).open();
    /// // ... and on from there.
    /// let reached = stream.position().cloned().ok_or("it has begun")?;
    /// let stream = orders.over(Transport::WebSocket).after(reached).open();
    /// # assert!(stream.position().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// The stream. It connects when it is first polled.
    #[must_use]
    pub fn open(self) -> EventStream {
        let Self { client, transport, wanted, position } = self;
        let Client { http, events, socket, headers, max_event, backoff, connect_timeout, .. } = client;
        let url = match transport {
            Transport::Sse => events,
            Transport::WebSocket => socket,
        };
        let request = Request { http, transport, url, headers, max_event, wanted };
        EventStream::new(request, position, backoff, connect_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Attributes;

    #[test]
    fn the_endpoints_lie_below_the_url() {
        for (base, expected) in [
            ("http://h:1", "http://h:1/events"),
            ("http://h:1/", "http://h:1/events"),
            ("http://h/rt", "http://h/rt/events"),
            ("http://h/a/rt/", "http://h/a/rt/events"),
        ] {
            assert_eq!(Client::new(base).expect("valid").events.as_str(), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is_said() {
        let field = |error: InvalidValue| error.field();
        for url in ["", "h:1", "/rt", "ftp://h/", "https://h/", "HTTPS://h/", "http://h/?a=b", "http://h/#a"]
        {
            assert_eq!(Client::new(url).map(drop).map_err(field), Err("url"), "{url}");
        }
        assert!(Client::with_http("https://h/", reqwest::Client::new()).is_ok());
        let client = Client::new("http://h/").expect("valid");
        assert_eq!(client.clone().header("a b", "c").map(drop).map_err(field), Err("header"));
        assert_eq!(client.clone().header("a", "b\r\nc: d").map(drop).map_err(field), Err("header"));
        assert_eq!(client.clone().bearer("a\nb").map(drop).map_err(field), Err("header"));
        let second = Duration::from_secs(1);
        assert_eq!(client.clone().backoff(second, second / 2).map(drop).map_err(field), Err("backoff"));
        assert_eq!(client.clone().backoff(Duration::ZERO, second).map(drop).map_err(field), Err("backoff"));
        assert_eq!(client.subscribe().channel("a//b").map(drop).map_err(field), Err("channel"));
        assert_eq!(client.subscribe().filter("a:b", "c").map(drop).map_err(field), Err("filter"));
        assert_eq!(client.subscribe().filter("", "c").map(drop).map_err(field), Err("filter"));
        let mut many = client.subscribe();
        for n in 0..Attributes::MAX {
            many = many
                .filter(format!("k{n}"), "v")
                .expect("valid")
                .filter(format!("k{n}"), "v")
                .expect("again");
        }
        assert_eq!(many.clone().filter("k0", "w").map(drop).map_err(field), Err("filter"));
        assert_eq!(many.filter("k", "v").map(drop).map_err(field), Err("filter"));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let client = Client::new("http://h/").expect("valid").bearer("hunter2").expect("valid");
        assert!(!format!("{client:?}").contains("hunter2"));
    }
}
