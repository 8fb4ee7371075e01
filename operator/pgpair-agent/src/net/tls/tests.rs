use std::fs;

use pgpair_wire::certificates::VERSION;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use source::GivenError;
use tempfile::TempDir;

use super::*;

/// An authority, for tests.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Authority { issuer: Issuer::new(params, key), der, pem }
    }

    fn leaf(&self, name: &str, serial: u64) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A list of revoked serial numbers, to be replaced on the second of January 2026.
    pub(crate) fn list(&self, serials: &[u64]) -> String {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// What an agent with this name is given, with a certificate of this number.
    pub(crate) fn given(&self, name: &str, serial: u64, version: u64) -> GivenCertificates {
        let (certificate, key) = self.leaf(name, serial);
        let files = [
            ("ca.crt", self.pem.clone()),
            ("tls.crt", certificate.pem()),
            ("tls.key", key.serialize_pem()),
            (VERSION, version.to_string()),
        ];
        GivenCertificates { files: files.map(|(name, text)| (name.to_owned(), text)).into() }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

/// A mounted Secret with this content.
pub(crate) fn mounted(given: &GivenCertificates) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in &given.files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// An instance with this mounted.
fn instance(given: &GivenCertificates) -> (TempDir, Layout) {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    for dir in [&layout.tls, &layout.run] {
        fs::create_dir_all(dir).unwrap();
    }
    for (name, text) in &given.files {
        fs::write(layout.tls.join(name), text).unwrap();
    }
    (root, layout)
}

#[test]
fn what_the_operator_gives_counts_until_the_mount_has_something_as_new() {
    let ca = Authority::new("ca");
    let (_root, layout) = instance(&ca.given("shop-a", 1, 10));
    let identity = Identity::of(&layout).unwrap();
    assert_eq!(identity.version(), (10, None));
    identity.take(&ca.given("shop-a", 2, 12)).unwrap();
    assert_eq!((identity.version().0, identity.renewals()), (12, 1));
    assert_eq!(Identity::of(&layout).unwrap().version().0, 12, "also after the container has begun anew");
    for stale in [11, 12] {
        let e = identity.take(&ca.given("shop-a", 3, stale)).unwrap_err();
        assert!(matches!(e, GivenError::Stale { current: 12, .. }), "{e}");
    }
    // The kubelet brings what is older than what was given, and then what is newer.
    for (mounted, used) in [(11, 12), (13, 13)] {
        for (name, text) in &ca.given("shop-a", 4, mounted).files {
            fs::write(layout.tls.join(name), text).unwrap();
        }
        identity.renew().unwrap();
        assert_eq!(identity.version().0, used);
    }
}

#[test]
fn certificates_that_cannot_be_used_are_given_in_vain() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (_root, layout) = instance(&ca.given("shop-a", 1, 10));
    let identity = Identity::of(&layout).unwrap();
    let with = |name: &str, text: &str| {
        let mut given = ca.given("shop-a", 2, 12);
        given.files.insert(name.to_owned(), text.to_owned());
        given
    };
    let foreign = other.given("shop-a", 2, 12).files["tls.key"].clone();
    for (given, said) in [
        (with("tls.key", &foreign), "do not fit together"),
        (with("ca.crt", &other.pem), "do not fit together"),
        (with("tls.crt", "?"), "do not fit together"),
        (with("../../tls.crt", "?"), "no place"),
    ] {
        let e = identity.take(&given).unwrap_err().to_string();
        assert!(e.contains(said), "{e}");
    }
    assert_eq!((identity.version(), identity.renewals()), ((10, None), 0));
    identity.take(&ca.given("shop-a", 2, 12)).unwrap();
}

#[test]
fn a_list_that_cannot_be_read_keeps_nothing_else_back_and_the_last_good_one_stays() {
    let ca = Authority::new("ca");
    let mut first = ca.given("shop-a", 1, 10);
    first.files.insert(REVOKED.to_owned(), ca.list(&[7]));
    let (_root, layout) = instance(&first);
    let identity = Identity::of(&layout).unwrap();
    assert_eq!(identity.revoked().serials(), ["7"]);
    let mut next = ca.given("shop-a", 2, 11);
    next.files
        .insert(REVOKED.to_owned(), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned());
    identity.take(&next).unwrap();
    let (version, trouble) = identity.version();
    assert_eq!((version, trouble.is_some()), (11, true), "the certificate is new, and the trouble is told");
    assert_eq!(identity.revoked().serials(), ["7"]);
    assert_eq!(identity.changes().borrow().revocations, 0);
}
