//! What the pair's authorities have revoked: which certificates, and the lists that say so. Pure, but for the signatures.
//!
//! Nobody outside of the pair reads the lists, so they need not be renewed often: each is good for as long as an authority lives. PostgreSQL
//! refuses every certificate of an authority that has no list, so there are either lists of all authorities that are trusted, or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgpair_api::order::CertificateKind;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem as Block;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::rotation::AuthorityId;
use super::{Pem, digest};

/// Clocks of nodes may differ by this much.
const SKEW: SignedDuration = SignedDuration::from_secs(300);
/// A certificate that has ended is named for so much longer.
const AFTER_ITS_END: SignedDuration = SignedDuration::from_hours(24);
/// How the PEM text of a list ends.
const END: &str = "-----END X509 CRL-----\n";

/// A certificate, as a list names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The authority that signed it.
    pub authority: AuthorityId,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// When it ends.
    pub until: Timestamp,
}

impl Leaf {
    /// The first certificate of a PEM text; `None`: it cannot be read.
    #[must_use]
    pub fn read(pem: &str, authority: AuthorityId) -> Option<Leaf> {
        let block = Block::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
        let (_, parsed) = X509Certificate::from_der(&block.contents).ok()?;
        let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        let until = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        Some(Leaf { authority, serial, until })
    }

    fn bytes(&self) -> Vec<u8> {
        let digits = self.serial.as_bytes().chunks(2);
        digits.filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
    }
}

/// A certificate that was made anew so that the one before it can be revoked. An annotation of its Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reissue {
    /// The id of the order.
    pub by: String,
    /// Which one of the Secret.
    pub what: CertificateKind,
    /// The one before; and those that an order before this one should have had revoked, and had not.
    pub replaced: Vec<Leaf>,
}

/// A certificate that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    leaf: Leaf,
    at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    pem: String,
    until: Timestamp,
}

/// All of it, as it is stored in `NAME-ca`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// By authority.
    lists: BTreeMap<AuthorityId, List>,
    entries: Vec<Entry>,
    /// Counts lists.
    number: u64,
    /// The order that was carried out last.
    by: String,
}

/// What others have to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListsView {
    /// Tells these lists from others.
    pub mark: String,
    /// The order that was carried out last.
    pub by: String,
    /// When the first of them is outdated.
    pub until: Timestamp,
}

impl Revocations {
    /// Revokes a certificate for an order; its authority has to sign a list next.
    pub fn revoke(&mut self, leaf: Leaf, by: &str, at: Timestamp) {
        by.clone_into(&mut self.by);
        if !self.have(&leaf) {
            self.entries.push(Entry { leaf, at });
        }
    }

    /// Whether a certificate is revoked.
    #[must_use]
    pub fn have(&self, leaf: &Leaf) -> bool {
        self.entries.iter().any(|entry| entry.leaf == *leaf)
    }

    /// A new list of `authority`.
    ///
    /// # Errors
    /// It cannot sign.
    pub fn sign(
        &mut self,
        mark: &AuthorityId,
        authority: &Pem,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<(), rcgen::Error> {
        self.number += 1;
        self.entries.retain(|entry| entry.leaf.until + AFTER_ITS_END > now);
        let of_it = self.entries.iter().filter(|entry| entry.leaf.authority == *mark);
        let epoch = date_time_ymd(1970, 1, 1);
        let entry = |entry: &Entry| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&entry.leaf.bytes()),
            revocation_time: epoch + since_1970(entry.at),
            reason_code: Some(RevocationReason::Superseded),
            invalidity_date: None,
        };
        let until = now.checked_add(life).unwrap_or(now);
        let params = CertificateRevocationListParams {
            this_update: epoch + since_1970(now - SKEW),
            next_update: epoch + since_1970(until),
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: of_it.map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let pem = params.signed_by(&issuer)?.pem()?;
        self.lists.insert(mark.clone(), List { pem, until });
        Ok(())
    }

    /// Only what the authorities that are still trusted have revoked.
    pub fn retain(&mut self, trusted: &BTreeSet<AuthorityId>) {
        self.lists.retain(|mark, _| trusted.contains(mark));
        self.entries.retain(|entry| trusted.contains(&entry.leaf.authority));
    }

    /// Whether anything was ever revoked: then each authority has a list.
    #[must_use]
    pub fn are_used(&self) -> bool {
        !self.lists.is_empty()
    }

    /// All lists as one PEM text, if each of these authorities has one.
    #[must_use]
    pub fn pem(&self, trusted: &BTreeSet<AuthorityId>) -> Option<String> {
        let is_complete = self.are_used() && trusted.iter().all(|mark| self.lists.contains_key(mark));
        is_complete.then(|| self.lists.values().map(|list| list.pem.as_str()).collect())
    }

    /// What others have to know; `None` as long as there are no lists.
    #[must_use]
    pub fn view(&self, trusted: &BTreeSet<AuthorityId>) -> Option<ListsView> {
        let pem = self.pem(trusted)?;
        let until = self.lists.values().map(|list| list.until).min()?;
        Some(ListsView { mark: digest(pem.as_bytes()), by: self.by.clone(), until })
    }

    /// The lists of authorities whose keys are lost, as a party still has them.
    #[must_use]
    pub fn recovered(pem: &str, authorities: &BTreeMap<Vec<u8>, AuthorityId>) -> Revocations {
        let mut found = Revocations::default();
        for text in pem.split_inclusive(END) {
            let Some(Ok(block)) = Block::iter_from_buffer(text.as_bytes()).next() else { continue };
            let Ok((_, list)) = CertificateRevocationList::from_der(&block.contents) else { continue };
            let until = list.next_update().and_then(|end| Timestamp::from_second(end.timestamp()).ok());
            if let (Some(mark), Some(until)) = (authorities.get(list.issuer().as_raw()), until) {
                let number = list.crl_number().and_then(|number| number.try_into().ok());
                found.number = found.number.max(number.unwrap_or_default());
                found.lists.insert(mark.clone(), List { pem: text.to_owned(), until });
            }
        }
        found
    }
}

/// For rcgen, whose type of dates has no name here.
fn since_1970(at: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{CertificateError, RootCertStore};
    use std::sync::Arc;

    use super::*;
    use crate::certificates::{Purpose, certificates, new_authority, new_leaf};
    use crate::fixtures::now;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn authority(name: &str) -> (AuthorityId, Pem) {
        let pem = new_authority(name, now(), DAY * 3650).unwrap();
        (certificates(&pem.certificate)[0].0.clone(), pem)
    }

    fn accepts(ca: &Pem, lists: &str, leaf: &Pem) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
        let lists = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).map(Result::unwrap);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.with_crls(lists).build().unwrap();
        let since = Duration::from_secs(now().as_second().try_into().unwrap());
        let leaf = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        verifier.verify_client_cert(&leaf, &[], UnixTime::since_unix_epoch(since)).map(|_| ())
    }

    #[test]
    fn a_list_names_what_was_revoked_and_nothing_else() {
        let (mark, ca) = authority("orders");
        let leaf = |name| new_leaf(&ca, name, Vec::new(), Purpose::Client, now(), DAY).unwrap();
        let (bad, good) = (leaf("orders-a"), leaf("orders-b"));
        let mut revocations = Revocations::default();
        let trusted = BTreeSet::from([mark.clone()]);
        assert_eq!((revocations.pem(&trusted), revocations.view(&trusted)), (None, None));
        revocations.revoke(Leaf::read(&bad.certificate, mark.clone()).unwrap(), "x-1", now());
        revocations.sign(&mark, &ca, now(), DAY * 3650).unwrap();
        let pem = revocations.pem(&trusted).unwrap();
        accepts(&ca, &pem, &good).unwrap();
        let refused = accepts(&ca, &pem, &bad).unwrap_err();
        assert_eq!(refused, rustls::Error::InvalidCertificate(CertificateError::Revoked));
        let view = revocations.view(&trusted).unwrap();
        assert_eq!((view.by.as_str(), view.until), ("x-1", now() + DAY * 3650));
        let stored: Revocations =
            serde_json::from_str(&serde_json::to_string(&revocations).unwrap()).unwrap();
        assert_eq!(stored, revocations);
        // Long after its end it is not named any more.
        revocations.sign(&mark, &ca, now() + DAY * 3, DAY * 3650).unwrap();
        accepts(&ca, &revocations.pem(&trusted).unwrap(), &bad).unwrap();
    }

    #[test]
    fn there_are_lists_of_all_authorities_that_are_trusted_or_none_and_they_go_with_their_authority() {
        let ((one, one_ca), (two, two_ca)) = (authority("one"), authority("two"));
        let leaf = new_leaf(&one_ca, "orders-a", Vec::new(), Purpose::Client, now(), DAY).unwrap();
        let mut revocations = Revocations::default();
        revocations.revoke(Leaf::read(&leaf.certificate, one.clone()).unwrap(), "x-1", now());
        revocations.sign(&one, &one_ca, now(), DAY).unwrap();
        let both = BTreeSet::from([one.clone(), two.clone()]);
        assert_eq!(revocations.pem(&both), None);
        revocations.sign(&two, &two_ca, now(), DAY).unwrap();
        let pem = revocations.pem(&both).unwrap();
        let named = |ca: &Pem| {
            let der = CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap();
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            parsed.subject().as_raw().to_vec()
        };
        let known = BTreeMap::from([(named(&one_ca), one.clone())]);
        let recovered = Revocations::recovered(&pem, &known);
        let only_one = BTreeSet::from([one]);
        let text = recovered.pem(&only_one).unwrap();
        assert!(accepts(&one_ca, &text, &leaf).is_err(), "what was revoked is not forgotten with a key");
        revocations.retain(&BTreeSet::from([two]));
        assert!(revocations.entries.is_empty() && revocations.are_used());
    }
}
