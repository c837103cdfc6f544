//! Who is served: by the keys of the settings, or anonymously.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use fanfare::http::{HttpConfig, Jwt, JwtKey};

use crate::settings::Settings;

/// A setting that may hold a secret: shown to nobody, also not when it is wrong.
///
/// It is taken as it is, whatever it is: a refusal while settings are read would print it.
#[derive(Clone)]
pub(crate) struct KeyText(String);

impl FromStr for KeyText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText")
    }
}

impl KeyText {
    fn key(&self) -> Result<JwtKey, String> {
        const FORM: &str = "must be ALG:SECRET or ALG:@FILE, with HS256, RS256, ES256 or EdDSA for ALG";
        let (algorithm, text) = self.0.split_once(':').ok_or(FORM)?;
        let build: fn(&str) -> Result<JwtKey, fanfare::InvalidValue> = match algorithm {
            "HS256" => |secret| JwtKey::hs256(secret),
            "RS256" => JwtKey::rs256,
            "ES256" => JwtKey::es256,
            "EdDSA" => JwtKey::eddsa,
            _ => return Err(FORM.into()),
        };
        let built = match text.strip_prefix('@') {
            None => build(text),
            Some(path) if algorithm == "HS256" => {
                let secret = std::fs::read(path).map_err(|error| cannot_read(path.as_ref(), &error))?;
                JwtKey::hs256(without_line_end(&secret))
            }
            Some(path) => build(&read(path.as_ref())?),
        };
        built.map_err(|invalid| format!("{algorithm}: {}", invalid.rule()))
    }
}

/// Lets in whom the settings let in.
pub(crate) fn grant(config: HttpConfig, settings: &Settings) -> Result<HttpConfig, String> {
    let config = settings.allow_origin.iter().cloned().fold(config, HttpConfig::allow_origin);
    if !settings.has_keys() {
        return Ok(if settings.insecure { config.insecure_anonymous() } else { config });
    }
    if settings.insecure {
        tracing::warn!("--insecure changes nothing: there are keys, and nobody is served without a token");
    }
    let jwt = Jwt::new(keys(settings)?);
    Ok(config.jwt(if settings.token_in_query { jwt.token_in_query() } else { jwt }))
}

/// All keys of the settings.
fn keys(settings: &Settings) -> Result<Vec<JwtKey>, String> {
    let mut keys = Vec::new();
    for (at, text) in settings.jwt_key.iter().enumerate() {
        keys.push(text.key().map_err(|why| format!("--jwt-key, number {}: {why}", at + 1))?);
    }
    if let Some(path) = &settings.jwks {
        let refuse = |why: &str| format!("--jwks {}: {why}", path.display());
        let set = read(path).map_err(|why| refuse(&why))?;
        keys.extend(JwtKey::from_jwks(&set).map_err(|invalid| refuse(invalid.rule()))?);
    }
    Ok(keys)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// A secret as whoever wrote the file meant it: editors and `openssl rand` end it with a line end.
fn without_line_end(secret: &[u8]) -> &[u8] {
    let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
    secret.strip_suffix(b"\r").unwrap_or(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        KeyText(text.into()).key().expect_err(text)
    }

    #[test]
    fn a_key_is_refused_with_its_rule_and_never_shown() {
        let secret = "hunter2hunter2";
        for (text, part) in [
            (secret, "ALG:SECRET"),
            ("hs256:hunter2hunter2", "ALG:SECRET"),
            ("none:hunter2hunter2", "ALG:SECRET"),
            ("HS256:hunter2hunter2", "at least 32 bytes"),
            ("HS256:-----BEGIN PUBLIC KEY-----hunter2hunter2", "no secret"),
            ("RS256:hunter2hunter2", "PEM"),
            ("EdDSA:-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private key"),
            ("ES256:@/nonexistent/key.pem", "/nonexistent/key.pem"),
            ("HS256:@/nonexistent/secret", "/nonexistent/secret"),
        ] {
            let why = refused(text);
            assert!(why.contains(part) && !why.contains(secret), "{text}: {why}");
            assert!(!format!("{:?}", KeyText(text.into())).contains(secret));
        }
    }

    #[test]
    fn a_secret_in_a_file_is_read_without_its_line_end() {
        for (written, meant) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a ", "a "), ("", "")] {
            assert_eq!(without_line_end(written.as_bytes()), meant.as_bytes(), "{written:?}");
        }
    }
}
