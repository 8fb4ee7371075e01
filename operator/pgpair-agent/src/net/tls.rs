//! mTLS between the agents of a pair and the operator: one CA per pair, and only the names that belong to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgpair_wire::client::secured_by;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// File name of the agent's own certificate.
const AGENT: &str = "tls";
/// That of `wal-restore`, which asks the peer for log files and may ask for nothing else.
pub const RESTORE: &str = "restore";

/// How often the mounted certificates are looked at; the kubelet needs up to a minute to bring new ones.
const LOOK: Duration = Duration::from_secs(10);

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is no PEM.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: pem::Error,
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

/// The certificate and key `name.crt`, `name.key`, and whom they are shown to.
fn load(dir: &Path, name: &str) -> Result<Files, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(dir.join("ca.crt"))? {
        roots.add(ca).map_err(|e| unfit(dir, e))?;
    }
    let key = dir.join(format!("{name}.key"));
    Ok(Files {
        roots: Arc::new(roots),
        chain: certificates(dir.join(format!("{name}.crt")))?,
        key: PrivateKeyDer::from_pem_file(&key).map_err(|source| TlsError::File { path: key, source })?,
    })
}

/// The directory in which a mounted Secret's files of one moment are: the kubelet replaces all of them at once by turning the
/// link `..data`, so files that are read through it one after the other may not belong together.
#[must_use]
pub fn resolved(dir: &Path) -> PathBuf {
    std::fs::canonicalize(dir.join("..data")).unwrap_or_else(|_| dir.to_owned())
}

/// The certificates in use, renewed while connections live: each new handshake takes the latest. Clones share them.
#[derive(Debug, Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    current: RwLock<Current>,
    /// Counts renewals.
    renewals: AtomicU64,
}

#[derive(Debug)]
struct Current {
    pem: Pem,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The files as they are, to see whether they have changed.
#[derive(Debug, PartialEq, Eq)]
struct Pem([Vec<u8>; 3]);

impl Pem {
    fn read(dir: &Path) -> Result<Pem, TlsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|e| TlsError::File { path, source: pem::Error::Io(e) })
        };
        Ok(Pem([read("ca.crt")?, read("tls.crt")?, read("tls.key")?]))
    }
}

impl Identity {
    /// The certificates in `dir`. Whether the certificate is valid today is for the others to judge: an agent whose own has
    /// expired can still keep its postgres running.
    ///
    /// # Errors
    /// The files are missing or do not fit together.
    pub fn load(dir: &Path) -> Result<Identity, TlsError> {
        let current = Current::read(&resolved(dir))?;
        let inner = Inner { dir: dir.to_owned(), current: RwLock::new(current), renewals: AtomicU64::new(0) };
        Ok(Identity { inner: Arc::new(inner) })
    }

    /// For a handshake with a client: only those with a certificate of the pair's CA.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.inner.current.read().unwrap_or_else(PoisonError::into_inner).server.clone()
    }

    /// For a handshake with the peer's server.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.inner.current.read().unwrap_or_else(PoisonError::into_inner).client.clone()
    }

    /// How often the certificates were renewed since they were loaded.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.inner.renewals.load(Ordering::SeqCst)
    }

    /// Takes over what is in the directory now, if it has changed and is good: signed by a CA of the bundle beside it, valid
    /// today, with the key that belongs to it. Says whether it did.
    ///
    /// # Errors
    /// What is there is not good; the certificates in use stay.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let dir = resolved(&self.inner.dir);
        let pem = Pem::read(&dir)?;
        if self.inner.current.read().unwrap_or_else(PoisonError::into_inner).pem == pem {
            return Ok(false);
        }
        let new = Current::read(&dir)?;
        check_own(&dir)?;
        *self.inner.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.inner.renewals.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    /// Looks for new certificates for ever. Each failure is told of once.
    pub async fn keep_renewed(self) {
        let mut complained = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let identity = self.clone();
            let Ok(renewed) = tokio::task::spawn_blocking(move || identity.renew()).await else { return };
            match renewed {
                Ok(true) => tracing::info!("the certificates are renewed"),
                Ok(false) => complained = None,
                Err(e) => {
                    let text = e.to_string();
                    if complained.as_ref() != Some(&text) {
                        tracing::error!(error = text, "new certificates are not used; the old ones stay");
                        complained = Some(text);
                    }
                }
            }
        }
    }
}

impl Current {
    fn read(dir: &Path) -> Result<Current, TlsError> {
        let pem = Pem::read(dir)?;
        let f = load(dir, AGENT)?;
        let verifier = WebPkiClientVerifier::builder(f.roots.clone()).build().map_err(|e| unfit(dir, e))?;
        let server = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(f.chain.clone(), f.key.clone_key())
            .map_err(|e| unfit(dir, e))?;
        let client = secured_by(f.roots, f.chain, f.key).map_err(|e| unfit(dir, e))?;
        Ok(Current { pem, server: Arc::new(server), client })
    }
}

/// Whether the peer would accept our own certificate now.
fn check_own(dir: &Path) -> Result<(), TlsError> {
    let f = load(dir, AGENT)?;
    let (own, between) = f.chain.split_first().ok_or_else(|| unfit(dir, "tls.crt holds no certificate"))?;
    let verifier = WebPkiClientVerifier::builder(f.roots).build().map_err(|e| unfit(dir, e))?;
    verifier.verify_client_cert(own, between, UnixTime::now()).map_err(|e| unfit(dir, e))?;
    Ok(())
}

/// For requests to the peer with the certificate `name` in `dir`, made once: the peer's must be of the pair's CA.
///
/// # Errors
/// The files are missing or unusable.
pub fn client_config(dir: &Path, name: &str) -> Result<Arc<ClientConfig>, TlsError> {
    // One moment's files: the link may turn.
    let dir = &std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let f = load(dir, name)?;
    secured_by(f.roots, f.chain, f.key).map_err(|e| unfit(dir, e))
}
