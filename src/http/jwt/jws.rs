//! A signed token in its compact form (RFC 7515), taken apart: `header.payload.signature`, each in base64url.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A token as its sender wrote it: nothing in it is to be believed yet.
pub(super) struct Jws<'a> {
    /// What the token says it is signed by. It may rule a key out, never say how a key is used.
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    /// What the signature is for.
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// What is read of a header. Where it tells of keys (`jwk`, `jku`, `x5u`), it is not listened to.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, &'static str> {
        const FORM: &str = "the token must be three parts of base64url, joined by dots";
        let (signed, signature) = token.rsplit_once('.').ok_or(FORM)?;
        let (header, payload) = signed.split_once('.').ok_or(FORM)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| FORM);
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| "the token's header must be a JSON object with alg")?;
        if header.crit.is_some() {
            return Err("the token has critical extensions, and none is known here");
        }
        Ok(Self {
            algorithm: header.alg,
            key_id: header.kid,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }
}
