//! mTLS between the agents of a pair and the operator: one CA per pair, and only the names that belong to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgpair_wire::certificates::{FILES, GivenCertificates, REVOKED};
use pgpair_wire::client::secured_by;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;

pub mod revoked;
pub mod source;

use crate::instance::layout::Layout;
use revoked::Revoked;
use source::{GivenError, Source};

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
    authorities: Vec<CertificateDer<'static>>,
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

/// The certificates of a PEM text that can be read.
#[must_use]
pub fn authorities_in(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The certificate and key `name.crt`, `name.key`, and whom they are shown to.
fn load(dir: &Path, name: &str) -> Result<Files, TlsError> {
    let authorities = certificates(dir.join("ca.crt"))?;
    let mut roots = RootCertStore::empty();
    for ca in &authorities {
        roots.add(ca.clone()).map_err(|e| unfit(dir, e))?;
    }
    let key = dir.join(format!("{name}.key"));
    Ok(Files {
        authorities,
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
    source: Source,
    current: RwLock<Current>,
    changes: watch::Sender<Changes>,
}

/// Counts what has changed since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Renewals of anything.
    pub renewals: u64,
    /// Those that changed what is revoked.
    pub revocations: u64,
}

#[derive(Debug)]
struct Current {
    /// As they are on disk, to see whether they have changed.
    files: Vec<Option<Vec<u8>>>,
    version: u64,
    revoked: Revoked,
    /// Why new revocation lists are not used.
    trouble: Option<String>,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Identity {
    /// The certificates in a mounted Secret. Whether the certificate is valid today is for the others to judge: an agent whose own has
    /// expired can still keep its postgres running.
    ///
    /// # Errors
    /// The files are missing or do not fit together.
    pub fn load(dir: &Path) -> Result<Identity, TlsError> {
        Identity::from(Source::mounted(dir))
    }

    /// As [`Identity::load`], with what the operator has given.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn of(layout: &Layout) -> Result<Identity, TlsError> {
        Identity::from(Source::of(layout))
    }

    fn from(source: Source) -> Result<Identity, TlsError> {
        let (dir, version) = source.newest();
        let current = Current { version, ..Current::read(&dir, &source.kept(&dir))? };
        current.complain();
        let changes = watch::Sender::new(Changes::default());
        Ok(Identity { inner: Arc::new(Inner { source, current: RwLock::new(current), changes }) })
    }

    /// For a handshake with a client: only those with a certificate of the pair's CA.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current(|current| current.server.clone())
    }

    /// For a handshake with the peer's server.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current(|current| current.client.clone())
    }

    /// What is revoked.
    #[must_use]
    pub fn revoked(&self) -> Revoked {
        self.current(|current| current.revoked.clone())
    }

    /// The version in use, and why something of it is not.
    #[must_use]
    pub fn version(&self) -> (u64, Option<String>) {
        self.current(|current| (current.version, current.trouble.clone()))
    }

    /// Whether the certificate of a client was revoked. What else may be wrong with it by now does not end a connection.
    #[must_use]
    pub fn has_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, between)) = chain.split_first() else { return false };
        let verifier = self.current(|current| current.verifier.clone());
        let verified = verifier.verify_client_cert(own, between, UnixTime::now());
        matches!(verified, Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)))
    }

    fn current<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.inner.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the certificates were renewed since they were loaded.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.inner.changes.borrow().renewals
    }

    /// What has changed, and what will.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.inner.changes.subscribe()
    }

    /// Takes what the operator gives, before the kubelet brings it.
    ///
    /// # Errors
    /// It is not newer, or not good; the certificates in use stay.
    pub fn take(&self, given: &GivenCertificates) -> Result<(), GivenError> {
        self.inner.source.keep(given)?;
        self.renew()?;
        Ok(())
    }

    /// Takes over what is in the directory now, if it has changed and is good: signed by a CA of the bundle beside it, valid
    /// today, with the key that belongs to it. Says whether it did.
    ///
    /// # Errors
    /// What is there is not good; the certificates in use stay.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let (dir, version) = self.inner.source.newest();
        let files = read_files(&dir);
        let before = self.current(|current| (current.files != files).then(|| current.revoked.clone()));
        let Some(before) = before else { return Ok(false) };
        let new = Current { version, ..Current::read(&dir, &before)? };
        check_own(&dir)?;
        new.complain();
        let revokes = new.revoked != before;
        *self.inner.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.inner.changes.send_modify(|changes| {
            changes.renewals += 1;
            changes.revocations += u64::from(revokes);
        });
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
    fn read(dir: &Path, before: &Revoked) -> Result<Current, TlsError> {
        let files = read_files(dir);
        let f = load(dir, AGENT)?;
        let (revoked, trouble) = Revoked::read_or_keep(&dir.join(REVOKED), &f.authorities, before);
        let verifier = WebPkiClientVerifier::builder(f.roots.clone())
            .with_crls(revoked.lists())
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| unfit(dir, e))?;
        let server = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(f.chain.clone(), f.key.clone_key())
            .map_err(|e| unfit(dir, e))?;
        let client = secured_by(f.roots, revoked.lists(), f.chain, f.key).map_err(|e| unfit(dir, e))?;
        let trouble = trouble.map(|e| e.to_string());
        Ok(Current { files, version: 0, revoked, trouble, verifier, server: Arc::new(server), client })
    }

    fn complain(&self) {
        if let Some(error) = &self.trouble {
            tracing::error!(error, "new revocation lists are not used; those that were good last stay");
        }
    }
}

/// What is not there is `None`.
fn read_files(dir: &Path) -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|name| std::fs::read(dir.join(name)).ok()).collect()
}

/// Whether the peer would accept our own certificate now.
fn check_own(dir: &Path) -> Result<(), TlsError> {
    let f = load(dir, AGENT)?;
    let (own, between) = f.chain.split_first().ok_or_else(|| unfit(dir, "tls.crt holds no certificate"))?;
    let verifier = WebPkiClientVerifier::builder(f.roots).build().map_err(|e| unfit(dir, e))?;
    verifier.verify_client_cert(own, between, UnixTime::now()).map_err(|e| unfit(dir, e))?;
    Ok(())
}

/// For requests to the peer with the certificate `name` in `dir`, made once: the peer's must be of the pair's CA, and not revoked.
///
/// # Errors
/// The files are missing or unusable.
pub fn client_config(dir: &Path, name: &str) -> Result<Arc<ClientConfig>, TlsError> {
    // One moment's files: the link may turn.
    let dir = &std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let f = load(dir, name)?;
    let (revoked, _) = Revoked::read_or_keep(&dir.join(REVOKED), &f.authorities, &Revoked::default());
    secured_by(f.roots, revoked.lists(), f.chain, f.key).map_err(|e| unfit(dir, e))
}

#[cfg(test)]
pub(crate) mod tests;
