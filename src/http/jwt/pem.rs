//! Public keys as files hold them: PEM around DER (RFC 7468, RFC 5280).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// The algorithm of a public key: a whole `AlgorithmIdentifier`, each of which has but one encoding.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Rsa,
    P256,
    Ed25519,
}

impl Kind {
    fn identifier(self) -> &'static [u8] {
        match self {
            // 1.2.840.113549.1.1.1, NULL
            Self::Rsa => &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00],
            // 1.2.840.10045.2.1, 1.2.840.10045.3.1.7
            Self::P256 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
                0x3d, 0x03, 0x01, 0x07,
            ],
            // 1.3.101.112
            Self::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "an RSA",
            Self::P256 => "a P-256",
            Self::Ed25519 => "an Ed25519",
        }
    }
}

/// Whether a text is a PEM: whoever takes one for a secret has taken a public key for a secret.
pub(super) fn is_pem(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"-----BEGIN")
}

/// The bytes of a public key of this kind.
pub(super) fn public_key(pem: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let (label, der) = decode(pem)?;
    let key = match (label, kind) {
        ("PUBLIC KEY", _) => subject_public_key(&der, kind),
        ("RSA PUBLIC KEY", Kind::Rsa) => Some(der),
        _ if label.ends_with("PRIVATE KEY") => {
            return Err("is a private key; give the public one: openssl pkey -pubout".into());
        }
        ("CERTIFICATE", _) => {
            return Err("is a certificate; give its public key: openssl x509 -noout -pubkey".into());
        }
        _ => None,
    };
    key.ok_or_else(|| format!("must be {} public key in PEM", kind.name()))
}

/// Modulus and exponent of an `RSAPublicKey`.
pub(super) fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut key = Der(Der(der).take_only(SEQUENCE)?);
    let (modulus, exponent) = (key.take(INTEGER)?, key.take(INTEGER)?);
    key.0.is_empty().then_some((modulus, exponent))
}

fn decode(pem: &str) -> Result<(&str, Vec<u8>), String> {
    let read = || {
        let (label, rest) = pem.trim().strip_prefix("-----BEGIN ")?.split_once("-----")?;
        let body = rest.strip_suffix("-----")?.strip_suffix(label)?.strip_suffix("-----END ")?;
        let body: String = body.split_ascii_whitespace().collect();
        Some((label, STANDARD.decode(body).ok()?))
    };
    read().ok_or_else(|| "must be one key in PEM, from its BEGIN to its END".into())
}

fn subject_public_key(der: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let mut info = Der(Der(der).take_only(SEQUENCE)?);
    if info.take(SEQUENCE)? != kind.identifier() {
        return None;
    }
    let (&unused_bits, key) = info.take_only(BIT_STRING)?.split_first()?;
    (unused_bits == 0).then(|| key.to_vec())
}

/// Values one after the other, each with its tag and length.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if !(1..=4).contains(&digits.len()) {
                return None;
            }
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(value)
    }

    /// The value that nothing follows.
    fn take_only(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.take(tag).filter(|_| self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), body in "[A-Za-z0-9+/=\n]{0,80}") {
            let _ = (rsa_components(&bytes), subject_public_key(&bytes, Kind::P256));
            for label in ["PUBLIC KEY", "RSA PUBLIC KEY"] {
                let pem = format!("-----BEGIN {label}-----\n{body}-----END {label}-----");
                prop_assert!(public_key(&pem, Kind::Ed25519).is_err() || body.len() > 40);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_no_value() {
        for der in [&[0x30][..], &[0x30, 0x01], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]] {
            assert_eq!(Der(der).take(SEQUENCE), None, "{der:?}");
        }
        assert_eq!(Der(&[0x30, 0x81, 0x01, 0x07]).take(SEQUENCE), Some(&[7][..]));
    }
}
