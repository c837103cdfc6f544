//! What went wrong with the order, and what to do about it: for the operator.

use std::fmt;

use crate::error::LogError;

#[derive(Debug)]
pub(super) struct Failure {
    what: String,
    remedy: &'static str,
}

impl Failure {
    pub(super) fn unreachable(error: impl fmt::Display) -> Self {
        let what = format!("the NATS server does not answer: {error}");
        Self { what, remedy: "start it, or correct its address" }
    }

    pub(super) fn stream(stream: &str, error: impl fmt::Display) -> Self {
        let what = format!("the stream `{stream}` is not to be had: {error}");
        Self {
            what,
            remedy: "see that the server has JetStream and room, and that this account may use both",
        }
    }

    pub(super) fn differs(stream: &str, differences: &str) -> Self {
        let what = format!("the stream `{stream}` is not as it must be: {differences}");
        Self { what, remedy: "change these settings, or name another stream" }
    }

    pub(super) fn broken(error: impl fmt::Display) -> Self {
        Self { what: format!("the feed broke off: {error}"), remedy: "it is taken up again by itself" }
    }

    pub(super) fn disconnected() -> Self {
        let what = "nothing comes from the NATS server, and nothing was sent".into();
        Self { what, remedy: "see that it runs; publishing goes on by itself" }
    }

    pub(super) fn filling() -> Self {
        let what = "the index of this node is being filled from the stream, and nothing was sent".into();
        Self { what, remedy: "wait; publishing goes on by itself" }
    }

    pub(super) fn no_answer(error: impl fmt::Display) -> Self {
        let what = format!("the stream may have the events or not: {error}");
        Self { what, remedy: "see that the NATS server runs; publishing goes on by itself" }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}
