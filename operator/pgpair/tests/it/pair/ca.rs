//! The certificate authority of a pair, and one of somebody else; and the certificates of an instance.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pgpair_core::ids::InstanceId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{Pair, UNKNOWN_HOST, index};

pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of a Secret with certificates, by name.
pub type Files = BTreeMap<String, String>;

impl Ca {
    pub fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this name and number, with its key.
    pub fn leaf(&self, file: &str, name: &str, serial: u64) -> Files {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), UNKNOWN_HOST.to_owned()]).unwrap();
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Files::from([
            (format!("{file}.crt"), certificate.pem()),
            (format!("{file}.key"), key.serialize_pem()),
        ])
    }

    /// As [`Ca::leaf`], into a directory, with the certificate of the authority.
    pub fn issue(&self, dir: &Path, file: &str, name: &str, serial: u64) {
        fs::write(dir.join("ca.crt"), &self.pem).unwrap();
        for (file, text) in self.leaf(file, name, serial) {
            fs::write(dir.join(file), text).unwrap();
        }
    }

    /// The list that revokes these numbers.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2046, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Pair {
    /// Number of a certificate that is mounted.
    pub fn serial(&self, i: InstanceId, file: &str) -> u64 {
        let files = ["tls", "server", "restore", "replication"];
        let n = files.iter().position(|one| *one == file).unwrap();
        u64::try_from(10 * (index(i) + 1) + n).unwrap()
    }

    /// The certificates of an instance, by file.
    pub fn mounted_certificates(&self, i: InstanceId) -> Files {
        let entries = fs::read_dir(self.tls(i)).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    /// The certificates of an instance.
    pub fn tls(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("tls")
    }

    /// The directory of what postgres has of them.
    pub fn copied_certificates(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("run/tls")
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}
