//! What a request is called in the logs of all who see it: the name that it came with, or one of our own.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// One that is longer is not taken over.
const MAX_BYTES: usize = 128;

#[derive(Clone)]
struct RequestId(HeaderValue);

/// Names the request, and says the name in the answer.
pub(super) async fn name<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let known = request.headers().get(HEADER).filter(|given| is_name(given)).cloned();
    let id = known.unwrap_or_else(mint);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.call(request).await?;
    response.headers_mut().insert(HEADER, id);
    Ok(response)
}

/// The name of a request.
pub(super) fn of(request: &HttpRequest) -> String {
    let extensions = request.extensions();
    let id = extensions.get::<RequestId>().and_then(|RequestId(id)| id.to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// It is written into logs: words, numbers and what stands in ids.
fn is_name(given: &HeaderValue) -> bool {
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:/+=-".contains(byte);
    !given.is_empty() && given.len() <= MAX_BYTES && given.as_bytes().iter().all(may_stand)
}

fn mint() -> HeaderValue {
    // Letters and digits.
    HeaderValue::from_str(&ulid::Ulid::generate().to_string()).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_in_a_log_is_taken_over() {
        let long = "x".repeat(129);
        for (given, is_taken) in [
            ("01JABC", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("a/b:c_d+e=", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            (&long, false),
        ] {
            assert_eq!(is_name(&HeaderValue::from_str(given).expect("a value")), is_taken, "{given}");
        }
        assert!(is_name(&mint()));
    }
}
