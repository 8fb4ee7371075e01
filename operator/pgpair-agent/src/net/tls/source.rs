//! Where the certificates of the instance are: in the mounted Secret, or, minutes sooner, as the operator gave them. The newer of the two counts.

use std::fs;
use std::path::{Path, PathBuf};

use pgpair_wire::certificates::{FILES, GivenCertificates, VERSION, read_version};

use super::{Current, Revoked, TlsError, check_own, resolved};
use crate::instance::fsx::{self, FileError};
use crate::instance::layout::Layout;

/// Certificates that the operator gave and that are not taken.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// Those in use are not older.
    #[error("version {given} is not newer than version {current}, which is in use")]
    Stale {
        /// What was given.
        given: u64,
        /// What is in use.
        current: u64,
    },
    /// There is one with a name that is not known.
    #[error("there is no place for a file {0:?}")]
    Unknown(String),
    /// They cannot be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// They cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The two places.
#[derive(Debug, Clone)]
pub struct Source {
    mounted: PathBuf,
    given: Option<PathBuf>,
    /// Where the lists are that were good last, also before the agent was started.
    kept: Option<PathBuf>,
}

impl Source {
    /// Those of an instance.
    #[must_use]
    pub fn of(layout: &Layout) -> Source {
        Source {
            mounted: layout.tls.clone(),
            given: Some(layout.given_certificates()),
            kept: Some(layout.run_tls().join(pgpair_wire::certificates::REVOKED)),
        }
    }

    /// The mounted Secret only.
    #[must_use]
    pub fn mounted(dir: &Path) -> Source {
        Source { mounted: dir.to_owned(), given: None, kept: None }
    }

    /// The directory with the newest files, all of one moment, and their version.
    #[must_use]
    pub fn newest(&self) -> (PathBuf, u64) {
        let mounted = resolved(&self.mounted);
        let of_mounted = version_in(&mounted);
        let given = self.given.as_ref().and_then(|link| fs::canonicalize(link).ok());
        match given.map(|dir| (version_in(&dir), dir)) {
            Some((version, dir)) if version > of_mounted => (dir, version),
            _ => (mounted, of_mounted),
        }
    }

    /// The lists that were good last, for authorities of the directory.
    pub(super) fn kept(&self, dir: &Path) -> Revoked {
        let Some(file) = &self.kept else { return Revoked::default() };
        let authorities = super::certificates(dir.join("ca.crt")).unwrap_or_default();
        Revoked::read_or_keep(file, &authorities, &Revoked::default()).0
    }

    /// Keeps what the operator gave, if it is newer and good.
    ///
    /// # Errors
    /// It is not; everything is as before then.
    pub fn keep(&self, given: &GivenCertificates) -> Result<(), GivenError> {
        let (version, (_, current)) = (given.version(), self.newest());
        let Some(link) = self.given.as_ref().filter(|_| version > current) else {
            return Err(GivenError::Stale { given: version, current });
        };
        if let Some(unknown) = given.files.keys().find(|name| !FILES.contains(&name.as_str())) {
            return Err(GivenError::Unknown(unknown.clone()));
        }
        let dir = fsx::sibling(link, &format!(".{version}"));
        let files = given.files.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        fsx::write_dir(&dir, files)?;
        let checked = Current::read(&dir, &Revoked::default()).and_then(|_| check_own(&dir));
        if let Err(e) = checked {
            let _ = fs::remove_dir_all(&dir); // of no use to anybody
            return Err(e.into());
        }
        Ok(fsx::turn_link(link, &dir)?)
    }
}

fn version_in(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(VERSION)).map_or(0, |text| read_version(&text))
}
