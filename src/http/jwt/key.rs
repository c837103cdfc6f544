//! Keys that tokens are checked with. A key knows its one algorithm.

use std::fmt;

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::jws::Jws;
use super::pem::{self, Kind};
use crate::error::InvalidValue;

pub(super) const FIELD: &str = "jwt_key";
const MIN_SECRET: usize = 32;

/// A key that tokens are signed by, for one algorithm: it is used in no other way, whatever a token says.
///
/// Its `Debug` shows the algorithm and the name, never the key.
///
/// ```
/// use fanfare::http::JwtKey;
///
/// let pem = "-----BEGIN PUBLIC KEY-----
/// MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
/// -----END PUBLIC KEY-----";
/// let key = JwtKey::eddsa(pem)?.named("2026-09");
/// assert!(JwtKey::rs256(pem).is_err());
/// assert!(JwtKey::hs256(b"too short").is_err());
/// # let _ = key;
/// # Ok::<(), fanfare::InvalidValue>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct JwtKey {
    id: Option<String>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Hs256(hmac::Key),
    Rs256(RsaPublicKeyComponents<Vec<u8>>),
    Es256(Vec<u8>),
    EdDsa(Vec<u8>),
}

impl JwtKey {
    /// A secret for HS256 (HMAC with SHA-256), which the issuer has too.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it has fewer than 32 bytes, as many as the hash has (RFC 7518), or is a key in PEM: a public
    /// key is known to others, and who knows the secret can sign.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, InvalidValue> {
        let secret = secret.as_ref();
        if secret.len() < MIN_SECRET {
            return Err(invalid(format!("must be a secret of at least {MIN_SECRET} bytes for HS256")));
        }
        if pem::is_pem(secret) {
            return Err(invalid("is a key in PEM, which is no secret for HS256"));
        }
        Ok(Material::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)).into())
    }

    /// A public RSA key for RS256 (PKCS #1 v1.5 with SHA-256), in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is none, or has fewer than 2048 or more than 8192 bits.
    pub fn rs256(pem: &str) -> Result<Self, InvalidValue> {
        let der = pem::public_key(pem, Kind::Rsa).map_err(invalid)?;
        let (n, e) = pem::rsa_components(&der).ok_or_else(|| invalid("must be an RSA public key in PEM"))?;
        Self::rs256_components(n, e)
    }

    /// A public key on the curve P-256 for ES256, in PEM (`PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is none.
    pub fn es256(pem: &str) -> Result<Self, InvalidValue> {
        Self::es256_point(pem::public_key(pem, Kind::P256).map_err(invalid)?)
    }

    /// A public Ed25519 key for `EdDSA` (also called Ed25519), in PEM (`PUBLIC KEY`).
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if it is none.
    pub fn eddsa(pem: &str) -> Result<Self, InvalidValue> {
        Self::eddsa_point(pem::public_key(pem, Kind::Ed25519).map_err(invalid)?)
    }

    /// Gives it the name that tokens call it by in `kid`.
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(super) fn rs256_components(n: &[u8], e: &[u8]) -> Result<Self, InvalidValue> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(invalid("must be an RSA key of 2048 to 8192 bits"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(n) || !is_odd(e) || e == [1] || e.len() > 4 {
            return Err(invalid(
                "must be an RSA key with an odd modulus and an odd exponent from 3 to 32 bits",
            ));
        }
        Ok(Material::Rs256(RsaPublicKeyComponents { n: n.to_vec(), e: e.to_vec() }).into())
    }

    /// A point as SEC 1 writes it without compression: 4, x, y.
    pub(super) fn es256_point(point: Vec<u8>) -> Result<Self, InvalidValue> {
        if point.len() != 65 || point.first() != Some(&4) {
            return Err(invalid("must be an uncompressed point of P-256"));
        }
        Ok(Material::Es256(point).into())
    }

    pub(super) fn eddsa_point(point: Vec<u8>) -> Result<Self, InvalidValue> {
        if point.len() != 32 {
            return Err(invalid("must be an Ed25519 key of 32 bytes"));
        }
        Ok(Material::EdDsa(point).into())
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn has_signed(&self, token: &Jws<'_>) -> bool {
        if !self.algorithms().contains(&token.algorithm.as_str()) {
            return false;
        }
        let (signed, signature) = (token.signed, &token.signature);
        match &self.material {
            Material::Hs256(secret) => hmac::verify(secret, signed, signature).is_ok(),
            Material::Rs256(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok(),
            Material::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
            Material::EdDsa(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(signed, signature).is_ok()
            }
        }
    }

    /// What a token may call this key's algorithm.
    fn algorithms(&self) -> &'static [&'static str] {
        match self.material {
            Material::Hs256(_) => &["HS256"],
            Material::Rs256(_) => &["RS256"],
            Material::Es256(_) => &["ES256"],
            Material::EdDsa(_) => &["EdDSA", "Ed25519"],
        }
    }
}

impl From<Material> for JwtKey {
    fn from(material: Material) -> Self {
        Self { id: None, material }
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = self.algorithms().first();
        f.debug_struct("JwtKey").field("id", &self.id).field("algorithm", &algorithm).finish_non_exhaustive()
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|&digit| digit != 0).unwrap_or(number.len());
    number.split_at_checked(first).map_or(&[], |(_, rest)| rest)
}

fn invalid(rule: impl Into<std::borrow::Cow<'static, str>>) -> InvalidValue {
    InvalidValue::new(FIELD, rule)
}
