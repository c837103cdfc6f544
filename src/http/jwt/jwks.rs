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

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE";

    fn keys(set: &str) -> Result<usize, String> {
        let set = format!(r#"{{"keys":[{set}]}}"#);
        JwtKey::from_jwks(&set).map(|keys| keys.len()).map_err(|invalid| invalid.to_string())
    }

    fn ed(more: &str) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}"{more}}}"#)
    }

    #[test]
    fn keys_for_something_else_are_left_out() {
        let ours = ed("");
        for other in [
            ed(r#","use":"enc""#),
            ed(r#","key_ops":["sign"]"#),
            ed(r#","alg":"ES256""#),
            r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#.into(),
            r#"{"kty":"EC","crv":"secp256k1"}"#.into(),
            r#"{"kty":"RSA","alg":"PS256"}"#.into(),
            r#"{"kty":"oct","k":"AA"}"#.into(),
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#.into(),
        ] {
            assert_eq!(keys(&format!("{other},{ours}")), Ok(1), "{other}");
            assert!(keys(&other).is_err_and(|why| why.contains("must have a key")), "{other}");
        }
        for ours in [ed(r#","use":"sig","key_ops":["verify"],"alg":"EdDSA""#), ed(r#","alg":"Ed25519""#)] {
            assert_eq!(keys(&ours), Ok(1), "{ours}");
        }
    }

    #[test]
    fn a_key_that_breaks_its_rules_is_named() {
        for (key, part) in [
            (ed(r#","d":"AA""#), "private"),
            (r#"{"kty":"OKP","crv":"Ed25519"}"#.into(), "x in base64url"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.into(), "32 bytes"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"A+=="}"#.into(), "base64url"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"AA"}}"#), "32 bytes"),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(), "2048"),
            (r#"{"kty":"oct","alg":"HS256","k":"AQAB"}"#.into(), "32 bytes"),
            ("7".into(), "a JWK"),
            (r#"{"crv":"Ed25519"}"#.into(), "a JWK"),
        ] {
            let why = keys(&format!("{},{key}", ed(""))).expect_err(&key);
            assert!(why.contains("keys[1]") && why.contains(part), "{key}: {why}");
        }
        for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(JwtKey::from_jwks(text).is_err(), "{text}");
        }
    }
}
