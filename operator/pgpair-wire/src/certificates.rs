//! The certificates of an instance as the operator gives them to its agent: the content of the instance's Secret, sooner than the kubelet
//! brings it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The authorities of the pair.
pub const AUTHORITIES: &str = "ca.crt";
/// Authorities of a person, one of which has signed what postgres shows to clients. Absent while postgres shows the pair's own certificate.
pub const SERVER_AUTHORITIES: &str = "server-ca.crt";
/// The certificate that postgres shows.
pub const SERVER_CERTIFICATE: &str = "server.crt";
/// Its key.
pub const SERVER_KEY: &str = "server.key";
/// The revocation lists of the pair's authorities. Absent as long as nothing was revoked.
pub const REVOKED: &str = "crl.pem";
/// A number that grows with each change, so that the newest content can be told from an older one; absent counts as 0.
pub const VERSION: &str = "version";

/// The files that there may be.
pub const FILES: [&str; 12] = [
    AUTHORITIES,
    "tls.crt",
    "tls.key",
    SERVER_CERTIFICATE,
    SERVER_KEY,
    "replication.crt",
    "replication.key",
    "restore.crt",
    "restore.key",
    SERVER_AUTHORITIES,
    REVOKED,
    VERSION,
];

/// `PUT` [`crate::paths::CERTIFICATES`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GivenCertificates {
    /// By the names of [`FILES`], PEM.
    pub files: BTreeMap<String, String>,
}

impl GivenCertificates {
    /// Which version it is.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.files.get(VERSION).map_or(0, |text| read_version(text))
    }
}

impl fmt::Debug for GivenCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenCertificates(version {})", self.version()) // never a key in a log
    }
}

/// The number in file [`VERSION`].
#[must_use]
pub fn read_version(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// Names a certificate: the beginning of the SHA-256 of its DER form.
#[must_use]
pub fn mark(der: &[u8]) -> String {
    Sha256::digest(der).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// What an agent tells of its certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesReport {
    /// The version that agent and postgres use; 0: one without a number.
    pub version: u64,
    /// The certificate that postgres showed in the last handshake of the agent with it: its [`mark`]. `None`: there was no handshake yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// Why something of that version is not used, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_no_log_and_a_version_that_is_none_is_the_oldest() {
        let files = [(VERSION, "12\n"), ("tls.key", "secret")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut given = GivenCertificates { files: files.into() };
        assert_eq!((given.version(), format!("{given:?}").as_str()), (12, "GivenCertificates(version 12)"));
        given.files.insert(VERSION.into(), "x".into());
        assert_eq!(given.version(), 0);
    }
}
