//! Asks the broker to let a client in, and says in HTTP that it does not.

use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;

use super::Mount;
use super::grant::Grant;
use super::problem::Problem;
use crate::actors::Full;
use crate::actors::broker::{Knock, Pass, Refused};
use crate::actors::farewell::{Farewell, spread};
use crate::error::CloseReason;
use crate::identity::ClientId;
use crate::wire::Encoding;
use crate::wire::notice::{Closing, Notice};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Mount {
    /// Lets a client in by what it was granted.
    pub(super) async fn let_in(
        &self,
        request: &HttpRequest,
        client: ClientId,
        grant: &Grant,
    ) -> Result<Pass, Refused> {
        let address = address(request, self.config.trusted_proxies);
        let gone = || Refused::Closed(CloseReason::Unavailable.into());
        let broker = self.broker.upgrade().ok_or_else(gone)?;
        let worker = self.worker().addr.clone();
        let knock = Knock { client, worker, standing: grant.standing(), address };
        broker.send(knock).await.map_err(|_| gone())?
    }
}

/// The stream of somebody who is not let in: when to come back, and why.
pub(super) fn last_word(
    refused: Refused,
    encoding: Encoding,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let farewell = match refused {
        Refused::Closed(farewell) => farewell,
        Refused::Full(_) => Farewell::from(CloseReason::Limit),
    };
    let closing = Closing { reason: farewell.reason, retry_in: farewell.retry_in() };
    stream::once(ready(Ok(encoding.notice(None, &Notice::Closing(closing)))))
}

/// Where a request comes from, as far as it can be believed: so many proxies each name who they have it from.
fn address(request: &HttpRequest, trusted_proxies: usize) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    if trusted_proxies == 0 {
        return peer;
    }
    let named = request.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok());
    let named: Vec<_> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    // The rightmost was written by the proxy that is nearest.
    let believed = named.len().checked_sub(trusted_proxies).and_then(|at| named.get(at));
    believed.and_then(|text| text.parse().ok()).or(peer)
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let full = match refused {
            Refused::Closed(farewell) => return Self::closed(farewell.reason, farewell.retry_in()),
            Refused::Full(full) => full,
        };
        let problem = match full {
            Full::Server => Self::unavailable("as many clients are connected as may be"),
            Full::Rate => Self::unavailable("clients come faster than they may"),
            Full::Session => Self::too_many("the session has as many clients as it may have"),
            Full::Address => Self::too_many("as many clients come from this address as may"),
            Full::Readers => {
                let problem = Self::unavailable("too many read the history at the same time");
                return problem.retry_after(spread(1_000, 5_000));
            }
        };
        problem.retry_after(Farewell::from(CloseReason::Limit).retry_in())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let request = TestRequest::default()
            .peer_addr("10.0.0.9:1".parse().expect("an address"))
            .append_header((FORWARDED_FOR, "6.6.6.6, 1.1.1.1"))
            .append_header((FORWARDED_FOR, "2.2.2.2"))
            .to_http_request();
        let at = |proxies| address(&request, proxies).map(|address| address.to_string());
        assert_eq!(at(0).as_deref(), Some("10.0.0.9"));
        assert_eq!(at(1).as_deref(), Some("2.2.2.2"));
        assert_eq!(at(2).as_deref(), Some("1.1.1.1"));
        assert_eq!(at(4).as_deref(), Some("10.0.0.9"), "a proxy was left out");
        let odd = TestRequest::default().append_header((FORWARDED_FOR, "unknown")).to_http_request();
        assert_eq!(address(&odd, 1), None);
    }
}
