//! A certificate that a person or an issuer offers for postgres: what is wrong with it, before it is taken. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pgpair_wire::certificates::mark;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names that are told at once.
const TOLD: usize = 6;

/// Why it is not taken. The sentence begins with the Secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// See the text.
    #[error(
        "does not exist: create it, of type kubernetes.io/tls, with the keys tls.crt, tls.key and ca.crt"
    )]
    SecretMissing,
    /// See the text.
    #[error("has no key {0}")]
    KeyMissing(&'static str),
    /// See the text.
    #[error("has nothing in {0} that can be read: it must be PEM, and a key without a password")]
    Unreadable(&'static str),
    /// See the text.
    #[error("has a key in tls.key that is not that of the certificate in tls.crt")]
    KeyDoesNotFit,
    /// See the text.
    #[error(
        "does not say which authority the standby and clients have to trust: add its self-signed certificate as ca.crt"
    )]
    AuthorityMissing,
    /// See the text.
    #[error("has a certificate that expired on {0}: renew it")]
    Expired(Timestamp),
    /// See the text.
    #[error("has a certificate that is valid from {0} on only")]
    NotYetValid(Timestamp),
    /// See the text.
    #[error(
        "has a certificate without the names {}: the standby finds its primary and clients the Service by them; add them as DNS names",
        shown(.0)
    )]
    NamesMissing(Vec<String>),
    /// See the text.
    #[error("has a certificate that its authority does not vouch for as a server's: {0}")]
    Untrusted(String),
}

fn shown(names: &[String]) -> String {
    let mut all: Vec<&str> = names.iter().take(TOLD).map(String::as_str).collect();
    if names.len() > TOLD {
        all.push("...");
    }
    all.join(", ")
}

/// A certificate that can be taken, with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Offered {
    /// What others may know of it.
    pub summary: OfferSummary,
    /// Certificate and those between it and its authority, PEM.
    pub chain: String,
    /// Its key, PEM.
    pub key: String,
    /// Its authorities, PEM.
    pub authorities: String,
}

impl std::fmt::Debug for Offered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Offered").field(&self.summary).finish() // never a key in a log
    }
}

/// All of it but the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferSummary {
    /// Mark of the certificate.
    pub mark: String,
    /// Marks of its authorities.
    pub trusts: BTreeSet<String>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// What is offered in a Secret, if it is good for these names.
///
/// # Errors
/// It cannot be taken.
pub fn read(secret: Option<&Secret>, names: &[String], now: Timestamp) -> Result<Offered, NotTaken> {
    let secret = secret.ok_or(NotTaken::SecretMissing)?;
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).filter(|bytes| !bytes.0.is_empty());
        bytes
            .map(|bytes| String::from_utf8(bytes.0.clone()).map_err(|_| NotTaken::Unreadable(key)))
            .transpose()
    };
    let required = |key| text(key)?.ok_or(NotTaken::KeyMissing(key));
    let (chain_pem, key_pem) = (required("tls.crt")?, required("tls.key")?);
    let chain = parse(&chain_pem, "tls.crt")?;
    check_key(&chain, &key_pem)?;
    let (leaf, between) = chain.split_first().ok_or(NotTaken::Unreadable("tls.crt"))?;
    let (not_before, not_after) = validity(leaf).ok_or(NotTaken::Unreadable("tls.crt"))?;
    if now >= not_after {
        return Err(NotTaken::Expired(not_after));
    }
    if now < not_before {
        return Err(NotTaken::NotYetValid(not_before));
    }
    let given = text("ca.crt")?;
    let authorities = match &given {
        Some(pem) => parse(pem, "ca.crt")?,
        None => chain.clone(),
    };
    // OpenSSL, by which the standby judges its primary, ends no chain but at a self-signed certificate.
    let roots: Vec<_> = authorities.iter().filter(|one| is_self_signed(one)).cloned().collect();
    if roots.is_empty() {
        return Err(NotTaken::AuthorityMissing);
    }
    let between = [between, &authorities[..]].concat();
    check_names(leaf, &between, &roots, names, now)?;
    let authorities = given.unwrap_or_else(|| chain_pem.clone());
    let summary =
        OfferSummary { mark: mark(leaf), trusts: roots.iter().map(|root| mark(root)).collect(), not_after };
    Ok(Offered { summary, chain: chain_pem, key: key_pem, authorities })
}

fn parse(pem: &str, key: &'static str) -> Result<Vec<CertificateDer<'static>>, NotTaken> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|_| NotTaken::Unreadable(key))?;
    let is_read = |one: &CertificateDer<'_>| X509Certificate::from_der(one).is_ok();
    if all.is_empty() || !all.iter().all(is_read) { Err(NotTaken::Unreadable(key)) } else { Ok(all) }
}

fn check_key(chain: &[CertificateDer<'static>], pem: &str) -> Result<(), NotTaken> {
    let unreadable = NotTaken::Unreadable("tls.key");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable.clone())?;
    let key = ring::sign::any_supported_type(&key).map_err(|_| unreadable)?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err(NotTaken::KeyDoesNotFit),
    }
}

fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let at = |seconds| Timestamp::from_second(seconds).ok();
    let validity = parsed.validity();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, one)| one.issuer().as_raw() == one.subject().as_raw())
}

/// Whether a client that trusts `roots` accepts the certificate for each of the names.
fn check_names(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    names: &[String],
    now: Timestamp,
) -> Result<(), NotTaken> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|_| NotTaken::Unreadable("ca.crt"))?;
    }
    let untrusted = |e: &dyn std::fmt::Display| NotTaken::Untrusted(e.to_string());
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), provider).build();
    let verifier = verifier.map_err(|e| untrusted(&e))?;
    let since = std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let mut missing = Vec::new();
    for name in names {
        let server = ServerName::try_from(name.clone()).map_err(|e| untrusted(&e))?;
        match verifier.verify_server_cert(leaf, between, &server, &[], UnixTime::since_unix_epoch(since)) {
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => missing.push(name.clone()),
            Err(e) => return Err(untrusted(&e)),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(NotTaken::NamesMissing(missing)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;
    use k8s_openapi::ByteString;

    use super::*;
    use crate::certificates::{Pem, Purpose, new_authority, new_leaf};
    use crate::fixtures::now;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn names() -> Vec<String> {
        ["orders-a-0.orders-pods", "orders-b-0.orders-pods", "orders-rw.shop.svc"].map(Into::into).into()
    }

    fn secret(parts: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<String, ByteString> =
            parts.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn pair(dns: Vec<String>, purpose: Purpose) -> (Pem, Pem) {
        let ca = new_authority("company", now(), HOUR * 48).unwrap();
        let leaf = new_leaf(&ca, "db", dns, purpose, now(), HOUR * 24).unwrap();
        (ca, leaf)
    }

    fn judged(parts: &[(&str, &str)], at: Timestamp) -> Result<OfferSummary, NotTaken> {
        read(Some(&secret(parts)), &names(), at).map(|offered| offered.summary)
    }

    #[test]
    fn a_certificate_is_taken_with_its_authority_for_exact_names_and_for_a_wildcard() {
        // No wildcard stands for a name of two words.
        let wild = [names()[..2].to_vec(), vec!["*.shop.svc".into(), "db.example.com".into()]].concat();
        for dns in [names(), wild] {
            let (ca, leaf) = pair(dns, Purpose::Server);
            let with_ca =
                [("tls.crt", &*leaf.certificate), ("tls.key", &*leaf.key), ("ca.crt", &*ca.certificate)];
            let summary = judged(&with_ca, now()).unwrap();
            assert_eq!(summary.not_after, now() + HOUR * 24);
            assert_eq!(summary.mark, crate::certificates::certificates(&leaf.certificate)[0].0);
            let chain = format!("{}{}", leaf.certificate, ca.certificate);
            let in_chain = [("tls.crt", &*chain), ("tls.key", &*leaf.key)];
            assert_eq!(
                judged(&in_chain, now()).unwrap(),
                summary,
                "its authority is at the end of the chain"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_before_it_is_taken() {
        let (ca, leaf) = pair(names(), Purpose::Server);
        let (other, client) = pair(names(), Purpose::Client);
        let (cert, key, root) = (&*leaf.certificate, &*leaf.key, &*ca.certificate);
        let all = [("tls.crt", cert), ("tls.key", key), ("ca.crt", root)];
        let refused = |parts: &[(&str, &str)]| judged(parts, now()).unwrap_err();
        assert_eq!(read(None, &names(), now()), Err(NotTaken::SecretMissing));
        assert_eq!(refused(&all[..1]), NotTaken::KeyMissing("tls.key"));
        assert_eq!(refused(&all[..2]), NotTaken::AuthorityMissing);
        assert_eq!(refused(&[("tls.crt", "?"), all[1], all[2]]), NotTaken::Unreadable("tls.crt"));
        assert_eq!(refused(&[all[0], ("tls.key", "?"), all[2]]), NotTaken::Unreadable("tls.key"));
        assert_eq!(refused(&[all[0], ("tls.key", &client.key), all[2]]), NotTaken::KeyDoesNotFit);
        assert!(matches!(refused(&[all[0], all[1], ("ca.crt", &other.certificate)]), NotTaken::Untrusted(_)));
        let of_client = [("tls.crt", &*client.certificate), ("tls.key", &*client.key)];
        let of_client = [of_client[0], of_client[1], ("ca.crt", &*other.certificate)];
        assert!(matches!(refused(&of_client), NotTaken::Untrusted(_)), "it is for a client");
        assert_eq!(judged(&all, now() + HOUR * 24), Err(NotTaken::Expired(now() + HOUR * 24)));
        assert!(matches!(judged(&all, now() - HOUR), Err(NotTaken::NotYetValid(_))));
        let (ca, few) = pair(names()[..1].to_vec(), Purpose::Server);
        let few = [("tls.crt", &*few.certificate), ("tls.key", &*few.key), ("ca.crt", &*ca.certificate)];
        let why = refused(&few);
        assert_eq!(why, NotTaken::NamesMissing(names()[1..].to_vec()));
        assert!(why.to_string().contains("orders-b-0.orders-pods, orders-rw.shop.svc"), "{why}");
    }
}
