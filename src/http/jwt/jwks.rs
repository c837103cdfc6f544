//! Sets of keys as issuers publish them (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::key::JwtKey;
use crate::error::InvalidValue;

const FIELD: &str = "jwks";

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl JwtKey {
    /// The keys of a JWK set (RFC 7517) that can check tokens: RSA for RS256, P-256 for ES256, Ed25519 for `EdDSA`, and
    /// `oct` whose `alg` is HS256. Keys of another `kty`, `crv`, `alg`, `use` or `key_ops` are left out.
    ///
    /// ```
    /// use fanfare::http::{Jwt, JwtKey};
    ///
    /// let keys = JwtKey::from_jwks(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"2026-09","use":"sig",
    ///     "x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]}"#)?;
    /// assert_eq!(keys.len(), 1);
    /// let jwt = Jwt::new(keys);
    /// # let _ = jwt;
    /// # Ok::<(), fanfare::InvalidValue>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is no such set, if a key in it breaks the rules of its kind or is a private one, or if
    /// none is left.
    pub fn from_jwks(json: &str) -> Result<Vec<Self>, InvalidValue> {
        let set: Set = serde_json::from_str(json)
            .map_err(|_| InvalidValue::new(FIELD, "must be a JSON object with an array keys"))?;
        let mut keys = Vec::new();
        for (at, value) in set.keys.into_iter().enumerate() {
            let refuse = |rule: &str| InvalidValue::new(FIELD, format!("has a bad key: keys[{at}] {rule}"));
            let jwk: Jwk = serde_json::from_value(value).map_err(|_| refuse("must be a JWK"))?;
            if let Some(kind) = jwk.kind() {
                let key = jwk.key(kind).map_err(|rule| refuse(&rule))?;
                keys.push(match jwk.kid {
                    Some(id) => key.named(id),
                    None => key,
                });
            }
        }
        if keys.is_empty() {
            return Err(InvalidValue::new(FIELD, "must have a key for RS256, ES256, EdDSA or HS256"));
        }
        Ok(keys)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Jwk {
    /// What the key is for, if it is for anything here.
    fn kind(&self) -> Option<Kind> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures {
            return None;
        }
        match (self.kty.as_str(), self.crv.as_deref(), self.alg.as_deref()) {
            // The others can be nothing else; a secret could.
            ("oct", _, Some("HS256")) => Some(Kind::Hs256),
            ("RSA", _, None | Some("RS256")) => Some(Kind::Rs256),
            ("EC", Some("P-256"), None | Some("ES256")) => Some(Kind::Es256),
            ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => Some(Kind::EdDsa),
            _ => None,
        }
    }

    fn key(&self, kind: Kind) -> Result<JwtKey, String> {
        if self.d.is_some() {
            return Err("is a private key; leave d out".into());
        }
        let key = match kind {
            Kind::Hs256 => JwtKey::hs256(bytes("k", self.k.as_deref())?),
            Kind::Rs256 => {
                JwtKey::rs256_components(&bytes("n", self.n.as_deref())?, &bytes("e", self.e.as_deref())?)
            }
            Kind::Es256 => {
                let (x, y) = (bytes("x", self.x.as_deref())?, bytes("y", self.y.as_deref())?);
                if (x.len(), y.len()) != (32, 32) {
                    return Err("must have x and y of 32 bytes".into());
                }
                JwtKey::es256_point([&[4][..], &x, &y].concat())
            }
            Kind::EdDsa => JwtKey::eddsa_point(bytes("x", self.x.as_deref())?),
        };
        key.map_err(|invalid| invalid.rule().to_owned())
    }
}

fn bytes(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let decoded = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    decoded.ok_or_else(|| format!("must have {name} in base64url"))
}
