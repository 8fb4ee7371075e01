//! The pair's certificate authority and the certificates that it signs. Time and randomness come from the outside, but
//! for the keys, which the library makes.

pub mod offered;
pub mod revocation;
pub mod rotation;
pub mod server;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rotation::AuthorityId;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem as Block;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of nodes may differ by this much.
const SKEW: Duration = Duration::from_secs(300);

/// A certificate and its key (PKCS#8), as PEM.
#[derive(Clone)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Pem {
    /// Neither certificate nor key.
    #[must_use]
    pub fn none() -> Pem {
        Pem { certificate: String::new(), key: String::new() }
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)") // never a key in a log
    }
}

/// A new authority.
///
/// # Errors
/// The key could not be made.
pub fn new_authority(name: &str, now: Timestamp, life: SignedDuration) -> Result<Pem, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(name, Vec::new(), now, life)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key)?.pem();
    Ok(Pem { certificate, key: key.serialize_pem() })
}

/// What a certificate is for (RFC 5280, extended key usage): whoever has the key of one purpose cannot use it for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be called and to call.
    Both,
    /// To be called.
    Server,
    /// To call.
    Client,
}

/// A certificate for `purpose`, signed by `authority`.
///
/// # Errors
/// The authority is unreadable, a name is no DNS name, or the key could not be made.
pub fn new_leaf(
    authority: &Pem,
    name: &str,
    dns: Vec<String>,
    purpose: Purpose,
    now: Timestamp,
    life: SignedDuration,
) -> Result<Pem, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params(name, dns, now, life)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match purpose {
        Purpose::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Pem { certificate, key: key.serialize_pem() })
}

fn params(
    name: &str,
    dns: Vec<String>,
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(dns)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let unix = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(DAY.as_secs()));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + unix.saturating_sub(SKEW);
    params.not_after = epoch + unix + life.unsigned_abs();
    Ok(params)
}

/// Each certificate of a PEM text: its mark, and the end of its validity. What is no certificate is left out.
#[must_use]
pub fn certificates(pem: &str) -> Vec<(AuthorityId, Timestamp)> {
    let read = |block: Block| {
        let end = block.parse_x509().ok()?.validity().not_after.timestamp();
        Some((digest(&block.contents), Timestamp::from_second(end).ok()?))
    };
    Block::iter_from_buffer(pem.as_bytes()).filter_map(|block| read(block.ok()?)).collect()
}

/// Each certificate of a PEM text by its name, as a revocation list writes it: its mark.
#[must_use]
pub fn subjects(pem: &str) -> BTreeMap<Vec<u8>, AuthorityId> {
    let read = |block: Block| {
        let subject = block.parse_x509().ok()?.subject().as_raw().to_vec();
        Some((subject, digest(&block.contents)))
    };
    Block::iter_from_buffer(pem.as_bytes()).filter_map(|block| read(block.ok()?)).collect()
}

/// The names that the first certificate of a PEM text is for, in their order; `None`: it cannot be read.
#[must_use]
pub fn names_of(pem: &str) -> Option<Vec<String>> {
    let block = Block::iter_from_buffer(pem.as_bytes()).next()?.ok()?;
    let certificate = block.parse_x509().ok()?;
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(ip) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(*ip).ok()?).to_string()),
        _ => None,
    };
    names.value.general_names.iter().map(name).collect()
}

/// Digest of anything, short enough for an annotation: 64 bits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate, parse_x509_pem};

    use super::*;

    #[test]
    fn a_leaf_is_signed_by_its_authority_and_carries_its_names() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let life = SignedDuration::from_hours(90 * 24);
        let ca = new_authority("orders", now, life).unwrap();
        let names = vec!["orders-a-0.orders-pods.shop.svc".into()];
        let leaf = new_leaf(&ca, "orders-a", names, Purpose::Both, now, life).unwrap();
        let (_, ca_pem) = parse_x509_pem(ca.certificate.as_bytes()).unwrap();
        let (_, leaf_pem) = parse_x509_pem(leaf.certificate.as_bytes()).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca_pem.contents).unwrap();
        let (_, leaf) = X509Certificate::from_der(&leaf_pem.contents).unwrap();
        assert_eq!(leaf.issuer(), ca.subject());
        assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str().unwrap(), "orders-a");
        let days = (leaf.validity().not_after.timestamp() - now.as_second()) / 86400;
        assert_eq!(days, 90);
        assert!(leaf.validity().not_before.timestamp() < now.as_second());
        assert!(ca.is_ca() && !leaf.is_ca());
    }

    #[test]
    fn the_names_of_a_certificate_are_read_back_as_they_were_given() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let life = SignedDuration::from_hours(24);
        let ca = new_authority("orders", now, life).unwrap();
        for given in [vec!["b.example.com", "10.0.0.7", "a.example.com"], vec![]] {
            let given: Vec<String> = given.into_iter().map(Into::into).collect();
            let leaf = new_leaf(&ca, "orders-a", given.clone(), Purpose::Server, now, life).unwrap();
            assert_eq!(names_of(&leaf.certificate), Some(given));
        }
        assert_eq!(names_of("no certificate"), None);
    }

    #[test]
    fn the_certificates_of_a_bundle_are_told_apart_and_rubbish_is_none() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let life = SignedDuration::from_hours(24);
        let [one, two] = [0, 1].map(|_| new_authority("orders", now, life).unwrap().certificate);
        let both = certificates(&format!("{one}{two}"));
        assert_eq!(both, [certificates(&one), certificates(&two)].concat());
        assert_ne!(both[0].0, both[1].0);
        assert_eq!(both[0].1, now + life);
        assert_eq!(certificates("no certificate"), []);
    }
}
