//! Revocation lists of the pair's authorities. Whatever is wrong with new ones, those that were good last stay in effect: nothing about a
//! list may keep one agent from talking to the other, because then the pair could not fail over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// Why lists cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// It is no PEM text.
    #[error("the revocation lists are no PEM text: {0}")]
    Pem(String),
    /// One of them is no list.
    #[error("a revocation list cannot be read")]
    Unreadable,
    /// One of them was not made by the authority that it names.
    #[error("a revocation list does not have the signature of its authority")]
    Signature,
}

/// The lists that are in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    lists: Vec<CertificateRevocationListDer<'static>>,
    pem: Vec<u8>,
    serials: BTreeSet<String>,
    is_complete: bool,
    /// When the first of them should have been replaced, in Unix seconds.
    until: Option<i64>,
}

impl Revoked {
    /// Those of `pem` that are of one of the authorities. That a list is old does not matter: what it names stays revoked.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn parse(pem: &[u8], authorities: &[CertificateDer<'_>]) -> Result<Revoked, RevokedError> {
        let told = |e: pem::Error| RevokedError::Pem(e.to_string());
        let all = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let mut revoked = Revoked { pem: pem.to_vec(), ..Revoked::default() };
        let mut without = BTreeSet::new();
        let all = all.map_err(told)?;
        for authority in authorities {
            let (_, authority) =
                X509Certificate::from_der(authority).map_err(|_| RevokedError::Unreadable)?;
            let before = revoked.lists.len();
            for der in &all {
                let (_, list) =
                    CertificateRevocationList::from_der(der).map_err(|_| RevokedError::Unreadable)?;
                if list.issuer().as_raw() != authority.subject().as_raw() {
                    continue;
                }
                let key = UnparsedPublicKey::new(
                    &ECDSA_P256_SHA256_ASN1,
                    &authority.public_key().subject_public_key.data,
                );
                key.verify(list.tbs_cert_list.as_ref(), &list.signature_value.data)
                    .map_err(|_| RevokedError::Signature)?;
                let serials = list.iter_revoked_certificates().map(|entry| entry.serial().to_string());
                revoked.serials.extend(serials);
                let until = list.next_update().map(|time| time.timestamp());
                revoked.until = [revoked.until, until].into_iter().flatten().min();
                revoked.lists.push(der.clone());
            }
            if revoked.lists.len() == before {
                without.insert(authority.subject().to_string());
            }
        }
        revoked.is_complete = without.is_empty() && !revoked.lists.is_empty();
        Ok(revoked)
    }

    /// Those in `file` of a directory, or, if they cannot be used or there are none, those that were in effect; with what is wrong.
    #[must_use]
    pub fn read_or_keep(
        file: &Path,
        authorities: &[CertificateDer<'_>],
        before: &Revoked,
    ) -> (Revoked, Option<RevokedError>) {
        let Ok(pem) = fs::read(file) else { return (before.clone(), None) };
        match Revoked::parse(&pem, authorities) {
            Ok(revoked) => (revoked, None),
            Err(e) => (before.clone(), Some(e)),
        }
    }

    /// As rustls takes them.
    #[must_use]
    pub fn lists(&self) -> Vec<CertificateRevocationListDer<'static>> {
        self.lists.clone()
    }

    /// As `PostgreSQL` and `wal-restore` read them; `None`: there are none.
    #[must_use]
    pub fn pem(&self) -> Option<&[u8]> {
        (!self.lists.is_empty()).then_some(&self.pem)
    }

    /// As [`Revoked::pem`], if there is one of each authority and none is outdated: OpenSSL refuses every certificate of an authority whose
    /// list is missing or old, and the pair would be without its standby.
    #[must_use]
    pub fn pem_for_openssl(&self, unix_seconds: i64) -> Option<&[u8]> {
        let is_outdated = self.until.is_some_and(|until| until <= unix_seconds);
        self.pem().filter(|_| self.is_complete && !is_outdated)
    }

    /// The serial numbers of all that is revoked, in decimal digits.
    #[must_use]
    pub fn serials(&self) -> Vec<String> {
        self.serials.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::tests::Authority;

    #[test]
    fn a_list_counts_only_with_the_signature_of_an_authority_of_the_pair() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let both = [one.der.clone(), other.der.clone()];
        let pem = one.list(&[7, 300]);
        let revoked = Revoked::parse(pem.as_bytes(), &both[..1]).unwrap();
        assert_eq!(revoked.serials(), ["300", "7"]);
        let (first, third) = (1_767_225_600, 1_767_398_400); // of January 2026
        assert_eq!((revoked.lists().len(), revoked.pem_for_openssl(first)), (1, Some(pem.as_bytes())));
        assert!(revoked.pem().is_some() && revoked.pem_for_openssl(third).is_none(), "outdated");
        let half = Revoked::parse(pem.as_bytes(), &both).unwrap();
        assert!(half.pem().is_some() && half.pem_for_openssl(first).is_none(), "the other one has no list");
        let whole = pem + &other.list(&[]);
        assert!(Revoked::parse(whole.as_bytes(), &both).unwrap().pem_for_openssl(first).is_some());
        let retired = Revoked::parse(whole.as_bytes(), &both[..1]).unwrap();
        assert_eq!(retired.lists().len(), 1, "a list of somebody else says nothing here");
        let forged = Authority::new("one").list(&[8]);
        assert_eq!(Revoked::parse(forged.as_bytes(), &both), Err(RevokedError::Signature));
        assert_eq!(Revoked::parse(b"", &both).unwrap().pem(), None);
    }

    #[test]
    fn lists_that_cannot_be_used_leave_those_that_were_in_effect() {
        let one = Authority::new("one");
        let der = one.der.clone();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("crl.pem");
        let good = Revoked::parse(one.list(&[7]).as_bytes(), std::slice::from_ref(&der)).unwrap();
        let (kept, why) = Revoked::read_or_keep(&file, std::slice::from_ref(&der), &good);
        assert_eq!((&kept, why), (&good, None), "there is no file");
        let rubbish = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        fs::write(&file, rubbish).unwrap();
        let (kept, why) = Revoked::read_or_keep(&file, std::slice::from_ref(&der), &good);
        assert_eq!((&kept, why), (&good, Some(RevokedError::Unreadable)));
        fs::write(&file, one.list(&[7, 8])).unwrap();
        let (new, why) = Revoked::read_or_keep(&file, &[der], &good);
        assert_eq!((new.serials().len(), why), (2, None));
    }
}
