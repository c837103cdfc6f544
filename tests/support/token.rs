//! JSON Web Tokens as an issuer makes them: signed by the `openssl` program, not by what checks them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub const SECRET: &str = "for the tests: a secret of more than 32 bytes";

/// A file of `tests/keys`.
pub fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

pub fn key(name: &str) -> String {
    std::fs::read_to_string(key_file(name)).expect(name)
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token for the tests' secret that is good for a minute, with these grants.
pub fn granting(fanfare: Value) -> String {
    let mut claims = json!({"sub": "user 7", "exp": now() + 60.0});
    claims["fanfare"] = fanfare;
    hs256(&claims)
}

/// A token of the tests' secret.
pub fn hs256(claims: &Value) -> String {
    signed("HS256", &json!({"alg": "HS256", "typ": "JWT"}), claims)
}

/// A token whose header may say something else than how it is signed.
pub fn signed(how: &str, header: &Value, claims: &Value) -> String {
    let content = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    let signature = signature(how, content.as_bytes());
    format!("{content}.{}", base64url(signature))
}

/// Signs with the private key of a name, or with the tests' secret.
pub fn signature(how: &str, content: &[u8]) -> Vec<u8> {
    match how {
        "HS256" => hmac(SECRET.as_bytes(), content),
        "EdDSA" => openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &private("eddsa"), "-in"], content),
        "ES256" => fixed(&openssl(&["dgst", "-sha256", "-sign", &private("es256")], content)),
        "ES256 in DER" => openssl(&["dgst", "-sha256", "-sign", &private("es256")], content),
        "RS256" => openssl(&["dgst", "-sha256", "-sign", &private("rs256")], content),
        "another RS256" => openssl(&["dgst", "-sha256", "-sign", &private("rs256-other")], content),
        other => panic!("{other}"),
    }
}

pub fn hmac(secret: &[u8], content: &[u8]) -> Vec<u8> {
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("hexkey:{secret}");
    openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &secret, "-binary"], content)
}

fn private(name: &str) -> String {
    key_file(&format!("{name}.private.pem")).to_str().expect("text").to_owned()
}

fn openssl(args: &[&str], content: &[u8]) -> Vec<u8> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("signed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, content).expect("written");
    let output = Command::new("openssl").args(args).arg(&path).stdin(Stdio::null()).output();
    std::fs::remove_file(&path).expect("removed");
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The two numbers of an ECDSA signature, 32 bytes each, out of their DER.
fn fixed(der: &[u8]) -> Vec<u8> {
    let r_length = usize::from(der[3]);
    let (r, s) = (&der[4..4 + r_length], &der[6 + r_length..]);
    let mut both = vec![0; 64];
    for (number, end) in [(r, 32), (s, 64)] {
        let number = &number[number.len().saturating_sub(32)..];
        both[end - number.len()..end].copy_from_slice(number);
    }
    both
}
