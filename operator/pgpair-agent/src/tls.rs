//! mTLS between the agents of a pair and the operator: one CA per pair, and only the names that belong to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Common name of the operator's certificate.
pub const OPERATOR: &str = "pgpair-operator";

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is no PEM.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The parts do not fit together.
    #[error("certificates in {dir} do not fit together: {reason}")]
    Unfit {
        /// The mounted Secret.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
}

struct Files {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn unfit(dir: &Path, e: impl std::fmt::Display) -> TlsError {
    TlsError::Unfit { dir: dir.into(), reason: e.to_string() }
}

fn certificates(path: PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File { path, source })
}

fn load(dir: &Path) -> Result<Files, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(dir.join("ca.crt"))? {
        roots.add(ca).map_err(|e| unfit(dir, e))?;
    }
    let key = dir.join("tls.key");
    Ok(Files {
        roots: Arc::new(roots),
        chain: certificates(dir.join("tls.crt"))?,
        key: PrivateKeyDer::from_pem_file(&key).map_err(|source| TlsError::File { path: key, source })?,
    })
}

/// For our server: only clients with a certificate of the pair's CA.
///
/// # Errors
/// The files in `dir` are missing or unusable.
pub fn server_config(dir: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let f = load(dir)?;
    let verifier = WebPkiClientVerifier::builder(f.roots).build().map_err(|e| unfit(dir, e))?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(f.chain, f.key)
        .map_err(|e| unfit(dir, e))?;
    Ok(Arc::new(config))
}

/// For our requests to the peer: its certificate must be of the pair's CA, and we show ours.
///
/// # Errors
/// The files in `dir` are missing or unusable.
pub fn client_config(dir: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let f = load(dir)?;
    let config = ClientConfig::builder()
        .with_root_certificates(f.roots)
        .with_client_auth_cert(f.chain, f.key)
        .map_err(|e| unfit(dir, e))?;
    Ok(Arc::new(config))
}

/// Common name of a verified certificate; being signed by the CA is not enough, the name must be one that may ask.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
