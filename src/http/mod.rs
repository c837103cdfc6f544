//! The scope that puts a broker on the web: `GET events` streams, `POST publish` takes events in.
//!
//! ```
//! use actix_web::App;
//! use fanfare::{Broker, http};
//!
//! # actix_web::rt::System::new().block_on(async {
//! let broker = Broker::builder().start()?;
//! let app = App::new().service(http::scope("/rt", &broker, http::HttpConfig::default()));
//! # let _ = app;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `GET events?channel=…` | a stream of Server-Sent Events |
//! | `GET ws` | a WebSocket that subscribes and publishes |
//! | `POST publish` | receipts, once the events are committed |
//! | `GET history?channel=…` | what the log keeps, page by page |
//! | `GET presence?channel=…` | who follows a channel |
//! | `DELETE sessions/{id}` | ends a session's streams, and refuses what it has; needs an admin grant |
//! | `GET status` | how the broker stands; needs an admin grant |
//! | `GET sessions` | the sessions that are connected, and how their clients are; needs an admin grant |
//! | `GET clients/{id}` | one client, also for five minutes after its end; needs an admin grant |
//!
//! Whatever is answered to `GET` at once is answered to `HEAD` too. A request may bring a name of its own in
//! `x-request-id`; with it, or with one that it is given, it is called in the answer and in what is logged at `debug` from
//! its publish to those who deliver.
//!
//! Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, and `field` where one
//! is at fault, and `index` in a batch.

mod anonymous;
mod body;
mod clients;
mod cors;
mod door;
mod events;
mod grant;
mod history;
#[cfg(feature = "jwt")]
mod jwt;
mod object;
mod origin;
mod problem;
mod publish;
mod publish_body;
mod query;
mod request_id;
mod serve;
mod sessions;
mod socket;
mod state;
#[cfg(feature = "otel")]
mod traceparent;
mod ws;

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::{Addr, WeakAddr};
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::ALLOW;
use actix_web::middleware::{Next, from_fn};
use actix_web::{FromRequest, Handler, HttpRequest, Resource, Responder, ResponseError, Scope, guard, web};
use futures_core::future::LocalBoxFuture;

use self::anonymous::Reachable;
pub use self::grant::{AuthError, Grant};
#[cfg(feature = "jwt")]
pub use self::jwt::{Jwt, JwtKey};
pub use self::origin::Origin;
use self::problem::Problem;
pub use self::serve::{Serve, serve};
pub use self::socket::tune_socket;
use crate::actors::Broker;
use crate::actors::broker::IsRevoked;
use crate::actors::worker::{Worker, WorkerHandle};
use crate::event::Payload;

type Authorize = dyn Fn(HttpRequest) -> LocalBoxFuture<'static, Result<Grant, AuthError>> + Send + Sync;
type AuthorizeToken = dyn Fn(String) -> LocalBoxFuture<'static, Result<Grant, AuthError>> + Send + Sync;

/// What a scope lets in, and whom.
#[derive(Clone)]
#[must_use]
pub struct HttpConfig {
    authorize: Arc<Authorize>,
    authorize_token: Arc<AuthorizeToken>,
    origins: Vec<Origin>,
    max_selectors: usize,
    max_payload: usize,
    max_body: usize,
    trusted_proxies: usize,
    /// Who knows which sessions were ended, once the scope is there.
    broker: Option<WeakAddr<Broker>>,
    has_admin: bool,
}

impl HttpConfig {
    /// Decides by an async function what a request may do: from a cookie, a token, a database. It is called for every
    /// request. A live stream keeps the grant that it was opened with until that expires.
    ///
    /// The default serves anonymous clients with every grant, known again by a cookie, and only if the server listens on
    /// a loopback address and is called by a loopback name: enough to develop with, and nothing to go online with.
    ///
    /// ```
    /// use fanfare::http::{AuthError, Grant, HttpConfig};
    /// use fanfare::{Selector, SessionId};
    ///
    /// let config = HttpConfig::default().authorize(|request| async move {
    ///     let Some(user) = request.cookie("user") else {
    ///         return Err(AuthError::Unauthenticated("log in first".into()));
    ///     };
    ///     let session = SessionId::derived_from(user.value().as_bytes());
    ///     let all = Selector::new("**").map_err(AuthError::Malformed)?;
    ///     Ok(Grant::new(session).subscribe([all]).by_cookie())
    /// });
    /// # let _ = config;
    /// ```
    pub fn authorize<F, Fut>(mut self, authorize: F) -> Self
    where
        F: Fn(HttpRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Grant, AuthError>> + 'static,
    {
        self.authorize = Arc::new(move |request| Box::pin(authorize(request)));
        self
    }

    /// Decides by an async function what a token may do that a client shows on a connection it already has. Without it
    /// such tokens are refused (403); [`jwt`](Self::jwt) sets it together with [`authorize`](Self::authorize).
    ///
    /// ```
    /// use fanfare::SessionId;
    /// use fanfare::http::{AuthError, Grant, HttpConfig};
    ///
    /// let config = HttpConfig::default().authorize_token(|token| async move {
    ///     match token.strip_prefix("user ") {
    ///         Some(name) => Ok(Grant::new(SessionId::derived_from(name.as_bytes()))),
    ///         None => Err(AuthError::Unauthenticated("this is no token".into())),
    ///     }
    /// });
    /// # let _ = config;
    /// ```
    pub fn authorize_token<F, Fut>(mut self, authorize: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Grant, AuthError>> + 'static,
    {
        self.authorize_token = Arc::new(move |token| Box::pin(authorize(token)));
        self
    }

    /// Serves whoever has a JSON Web Token, and nobody else: takes the place of [`authorize`](Self::authorize) and
    /// [`authorize_token`](Self::authorize_token). [`Jwt`] says what a token is and what it grants.
    #[cfg(feature = "jwt")]
    pub fn jwt(self, jwt: Jwt) -> Self {
        let jwt = Arc::new(jwt);
        let for_tokens = jwt.clone();
        self.authorize(move |request| ready(jwt.authorize(&request)))
            .authorize_token(move |token| ready(for_tokens.grant(&token)))
    }

    /// Lets pages of this origin ask for changes and read the answers (CORS), their browsers' cookies included. Repeat
    /// for more.
    ///
    /// Pages of the scope's own origin may do so anyway. For all others, browsers keep the answers from the page, and a
    /// change (`POST`, `DELETE`) is refused with 403.
    ///
    /// ```
    /// use fanfare::http::{HttpConfig, Origin};
    ///
    /// let config = HttpConfig::default().allow_origin(Origin::new("https://app.example")?);
    /// # let _ = config;
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    pub fn allow_origin(mut self, origin: Origin) -> Self {
        self.origins.push(origin);
        self
    }

    /// Serves anonymous clients with every grant to whoever can reach the server, under any name. For a server that
    /// something else guards.
    pub fn insecure_anonymous(self) -> Self {
        self.authorize(|request| ready(anonymous::authorize(&request, Reachable::Everywhere)))
    }

    /// How many selectors a client may follow. Default: 128.
    pub fn max_selectors(mut self, max: usize) -> Self {
        self.max_selectors = max;
        self
    }

    /// The largest payload of an event, in bytes. Default: 256 KiB.
    pub fn max_payload(mut self, max: usize) -> Self {
        self.max_payload = max;
        self
    }

    /// The largest body of a publish, in bytes. Default: 1 MiB.
    pub fn max_body(mut self, max: usize) -> Self {
        self.max_body = max;
        self
    }

    /// How many proxies stand in front, each of which adds to `X-Forwarded-For` whom it has a request from: the client's
    /// address is the one that the first of them wrote. With 0 it is the connection's own. To believe more
    /// of them than there are lets clients choose their address. Default: 0.
    ///
    /// It matters for [`Builder::max_connections_per_address`](crate::Builder::max_connections_per_address) alone.
    pub fn trusted_proxies(mut self, count: usize) -> Self {
        self.trusted_proxies = count;
        self
    }

    /// Leaves the endpoints that need an admin grant out of the scope, for a server that has them at an address of its own
    /// ([`admin_scope`]).
    pub fn without_admin(mut self) -> Self {
        self.has_admin = false;
        self
    }

    /// What a request may do, unless its session was ended.
    async fn grant(&self, request: &HttpRequest) -> Result<Grant, AuthError> {
        let grant = self.claim(request).await?;
        self.unless_revoked(grant).await
    }

    /// What a request may do by what it shows. Whether that still counts is left to the broker, which is asked for
    /// something with the [standing](Grant::standing) of the grant.
    async fn claim(&self, request: &HttpRequest) -> Result<Grant, AuthError> {
        let asked = Instant::now();
        Ok((self.authorize)(request.clone()).await?.asked_at(asked))
    }

    /// The grant of a token that came on a connection which is already open.
    async fn token_grant(&self, token: String) -> Result<Grant, AuthError> {
        let asked = Instant::now();
        let grant = (self.authorize_token)(token).await?.asked_at(asked);
        self.unless_revoked(grant).await
    }

    async fn unless_revoked(&self, grant: Grant) -> Result<Grant, AuthError> {
        let Some(broker) = self.broker.as_ref().and_then(WeakAddr::upgrade) else { return Ok(grant) };
        match broker.send(IsRevoked(grant.standing())).await {
            Ok(true) => Err(AuthError::Ended),
            // Without a broker there is nothing to be had anyway.
            Ok(false) | Err(_) => Ok(grant),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        let authorize = |request: HttpRequest| -> LocalBoxFuture<'static, _> {
            Box::pin(ready(anonymous::authorize(&request, Reachable::Loopback)))
        };
        let no_token = |_| -> LocalBoxFuture<'static, _> {
            Box::pin(ready(Err(AuthError::Forbidden("tokens are not used here".into()))))
        };
        Self {
            authorize: Arc::new(authorize),
            authorize_token: Arc::new(no_token),
            origins: Vec::new(),
            max_selectors: 128,
            max_payload: Payload::MAX_BYTES,
            max_body: 1024 * 1024,
            trusted_proxies: 0,
            broker: None,
            has_admin: true,
        }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("origins", &self.origins)
            .field("max_selectors", &self.max_selectors)
            .field("max_payload", &self.max_payload)
            .field("max_body", &self.max_body)
            .field("trusted_proxies", &self.trusted_proxies)
            .finish_non_exhaustive()
    }
}

/// A broker's endpoints under `path`, to be mounted with `App::service`; may be wrapped and guarded like any scope.
///
/// The scope does not keep the broker alive: whoever started it does, by its address. When that is gone, streams end and
/// requests are answered 503.
///
/// The server around it decides how soon a client that left is noticed, and how much a slow one holds: see
/// [`tune_socket`] for the settings.
pub fn scope(
    path: &str,
    broker: &Addr<Broker>,
    config: HttpConfig,
) -> Scope<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    let has_admin = config.has_admin;
    let origins: Rc<[Origin]> = config.origins.as_slice().into();
    let scope = bare_scope(path, broker, config)
        .service(web::resource("/events").route(web::get().to(events::events)).default_service(only("GET")))
        .service(read("/history", history::history))
        .service(read("/presence", state::presence))
        .service(web::resource("/ws").route(web::get().to(ws::ws)).default_service(only("GET")))
        .service(
            web::resource("/publish").route(web::post().to(publish::publish)).default_service(only("POST")),
        );
    let scope = if has_admin { admin_routes(scope) } else { scope };
    finished(scope, origins)
}

/// The endpoints of a broker that need an admin grant, and nothing else: for an address that not everybody can reach.
///
/// ```
/// use actix_web::App;
/// use fanfare::{Broker, http};
///
/// # actix_web::rt::System::new().block_on(async {
/// let broker = Broker::builder().start()?;
/// let config = http::HttpConfig::default();
/// let public = App::new().service(http::scope("/rt", &broker, config.clone().without_admin()));
/// let private = App::new().service(http::admin_scope("/rt", &broker, config));
/// # let _ = (public, private);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use]
pub fn admin_scope(
    path: &str,
    broker: &Addr<Broker>,
    config: HttpConfig,
) -> Scope<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    let origins: Rc<[Origin]> = config.origins.as_slice().into();
    finished(admin_routes(bare_scope(path, broker, config)), origins)
}

fn bare_scope(path: &str, broker: &Addr<Broker>, config: HttpConfig) -> Scope {
    let config = HttpConfig { broker: Some(broker.downgrade()), ..config };
    let mount = Mount { broker: broker.downgrade(), config, worker: RefCell::default() };
    web::scope(path.trim_end_matches('/')).app_data(web::Data::new(mount))
}

fn admin_routes(scope: Scope) -> Scope {
    scope
        .service(read("/status", state::status))
        .service(read("/sessions", clients::sessions))
        .service(
            web::resource("/sessions/{id}")
                .route(web::delete().to(sessions::revoke))
                .default_service(only("DELETE")),
        )
        .service(read("/clients/{id}", clients::client))
}

/// Adds what all endpoints have in common.
fn finished(
    scope: Scope,
    origins: Rc<[Origin]>,
) -> Scope<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    scope
        .default_service(web::to(|| async {
            Problem::not_found("there is no such endpoint").error_response()
        }))
        .wrap(from_fn(move |request, next| cors::answer(origins.clone(), request, next)))
        .wrap(from_fn(request_id::name))
}

/// A middleware for pages beside the scope: as the scope does for anonymous clients ([`HttpConfig::default`]), it serves
/// only a loopback address, by a loopback name. Another `Host` is answered 421, so that no other site can read the page
/// by having its own name resolve here.
///
/// ```
/// use actix_web::middleware::from_fn;
/// use actix_web::{App, web};
/// use fanfare::http::require_loopback;
///
/// let page = web::scope("/page").wrap(from_fn(require_loopback));
/// # let _ = App::new().service(page);
/// ```
///
/// # Errors
///
/// None but what the service behind it has.
pub async fn require_loopback<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    match anonymous::check_loopback(request.request()) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(error) => {
            let refusal = Problem::from(error).error_response();
            Ok(request.into_response(refusal).map_into_right_body())
        }
    }
}

/// A resource that is only read.
fn read<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    // The server leaves the body out where it is not asked for.
    let is_read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path).route(web::route().guard(is_read).to(handler)).default_service(only("GET, HEAD"))
}

fn only(method: &'static str) -> actix_web::Route {
    web::to(move || async move {
        let mut response = Problem::method_not_allowed(format!("use {method}")).error_response();
        response.headers_mut().insert(ALLOW, actix_web::http::header::HeaderValue::from_static(method));
        response
    })
}

/// What the handlers of a scope share on their thread.
struct Mount {
    broker: WeakAddr<Broker>,
    config: HttpConfig,
    worker: RefCell<Option<Rc<WorkerHandle>>>,
}

impl Mount {
    /// This thread's worker, started with its first stream, and again if it is gone.
    fn worker(&self) -> Rc<WorkerHandle> {
        let mut worker = self.worker.borrow_mut();
        match &*worker {
            Some(handle) if handle.addr.connected() => handle.clone(),
            _ => worker.insert(Worker::start_here(self.broker.clone())).clone(),
        }
    }
}
