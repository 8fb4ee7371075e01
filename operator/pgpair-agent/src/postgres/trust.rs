//! Which certificates postgres and its clients of ours go by, as they lie in the directory of copies: what a standby trusts its primary by, and
//! which of its clients' certificates a server refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pgpair_wire::certificates::{AUTHORITIES, REVOKED, SERVER_AUTHORITIES, mark};

use crate::instance::fsx::{Context, FileError};
use crate::instance::layout::Layout;
use crate::net::tls;
use crate::net::tls::revoked::Revoked;

/// Authorities of the servers of the pair: its own, and that of a person's certificate.
const SERVERS: &str = "servers.crt";
/// Revocation lists for the server, all of whose clients' authorities are in them.
const CLIENTS_REVOKED: &str = "clients.crl";
/// Those for a client of the peer's server begin and end like this; between is the mark of the content, so that a changed list is
/// another `primary_conninfo`, with which postgres connects anew.
const SERVERS_REVOKED: (&str, &str) = ("servers.", ".crl");

/// By what a client of ours judges a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTrust {
    /// A file of authorities; `None`: [`AUTHORITIES`].
    pub authorities: Option<PathBuf>,
    /// Revocation lists.
    pub revoked: Option<PathBuf>,
}

impl ServerTrust {
    /// As the copies are.
    #[must_use]
    pub fn of(layout: &Layout) -> ServerTrust {
        let dir = layout.run_tls();
        let names =
            fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
        let is_list = |name: &str| name.starts_with(SERVERS_REVOKED.0) && name.ends_with(SERVERS_REVOKED.1);
        let mut names = names.filter_map(|name| name.into_string().ok());
        ServerTrust {
            authorities: Some(dir.join(SERVERS)).filter(|path| path.exists()),
            revoked: names.find(|name| is_list(name)).map(|name| dir.join(name)),
        }
    }
}

/// The revocation lists for a server, if there are any.
#[must_use]
pub fn clients_revoked(layout: &Layout) -> Option<PathBuf> {
    Some(layout.run_tls().join(CLIENTS_REVOKED)).filter(|path| path.exists())
}

/// What of the newest certificates in `dir` is copied beside the files that are copied as they are. What cannot be used of revocation lists is
/// not copied: those that were copied last stay.
///
/// # Errors
/// The authorities cannot be read.
pub(super) fn derived(layout: &Layout, dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, FileError> {
    let mut files = BTreeMap::new();
    let read = |name: &str| fs::read(dir.join(name));
    let own = read(AUTHORITIES).at("read the certificate", &dir.join(AUTHORITIES))?;
    let theirs = read(SERVER_AUTHORITIES).ok();
    let authorities = tls::authorities_in(&own);
    let last = layout.run_tls().join(REVOKED);
    let (kept, _) = Revoked::read_or_keep(&last, &authorities, &Revoked::default());
    let (revoked, _) = Revoked::read_or_keep(&dir.join(REVOKED), &authorities, &kept);
    if let Some(pem) = revoked.pem() {
        files.insert(REVOKED.to_owned(), pem.to_vec());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some(pem) = revoked.pem_for_openssl(i64::try_from(now).unwrap_or(i64::MAX)) {
        files.insert(CLIENTS_REVOKED.to_owned(), pem.to_vec());
        if theirs.is_none() {
            let (begin, end) = SERVERS_REVOKED;
            files.insert(format!("{begin}{}{end}", mark(pem)), pem.to_vec());
        }
    }
    if let Some(theirs) = theirs {
        // OpenSSL takes the one that has signed, whatever else is there.
        files.insert(SERVERS.to_owned(), [own, b"\n".to_vec(), theirs].concat());
    }
    Ok(files)
}
