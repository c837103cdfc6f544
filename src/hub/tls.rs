//! TLS by rustls: what the files of `--tls-cert` and `--tls-key` make.

use std::path::Path;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, InconsistentKeys, ServerConfig};

use crate::settings::Settings;

/// So many connections of a thread may be greeting each other. Those who begin and do not go on hold a place for three
/// seconds, and must not keep a crowd out that comes back.
pub(crate) const GREETINGS: usize = 4096;

/// How the hub speaks TLS, if it is to.
pub(crate) fn config(settings: &Settings) -> Result<Option<ServerConfig>, String> {
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => read(cert, key).map(Some),
        _ => Ok(None),
    }
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, String> {
    let of_cert = |why: &str| format!("--tls-cert {}: {why}", cert.display());
    // What is wrong in the file is not repeated: it may be a secret.
    let of_key = |why: &str| format!("--tls-key {}: {why}", key.display());
    let no_cert = |error| of_cert(&why(error, "holds no certificate in PEM"));
    let chain = CertificateDer::pem_file_iter(cert).map_err(no_cert)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(no_cert)?;
    if chain.is_empty() {
        return Err(no_cert(pem::Error::NoItemsFound));
    }
    let no_key = |error| of_key(&why(error, "holds no private key in PEM"));
    let secret = PrivateKeyDer::from_pem_file(key).map_err(no_key)?;
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, secret))
        .map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                of_key(&format!("is not the key of --tls-cert {}", cert.display()))
            }
            Error::InvalidCertificate(_) => of_cert("its first certificate cannot be read"),
            _ => of_key("is a key of a kind that is not known"),
        })
}

fn why(error: pem::Error, otherwise: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        _ => otherwise.into(),
    }
}
