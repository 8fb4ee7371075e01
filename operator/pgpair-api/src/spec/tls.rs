//! Certificates of a pair.

use kube::KubeSchema;
use pgpair_wire::config::ClientTls;
use serde::{Deserialize, Serialize};

use super::schemas;

/// Certificates of a pair, made and renewed by the operator with an authority of the pair's own, and whether clients must
/// use TLS.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("self.renewBeforeDays < self.validityDays").message("spec.tls.renewBeforeDays must be less than spec.tls.validityDays: lower the one or raise the other"))]
pub struct TlsSpec {
    /// Whether a client must use TLS.
    #[serde(default = "default_clients")]
    #[schemars(schema_with = "schemas::words::<ClientTls>")]
    pub clients: ClientTls,
    /// Days for which a certificate is valid. 2 to 3650.
    #[serde(default = "default_validity_days")]
    #[schemars(range(min = 2, max = 3650))]
    pub validity_days: i32,
    /// A certificate is renewed when it is valid for less than so many more days. 1 to 3649.
    #[serde(default = "default_renew_before_days")]
    #[schemars(range(min = 1, max = 3649))]
    pub renew_before_days: i32,
    /// More DNS names (or IPv4 addresses) for the server's certificate, for clients outside that check the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::dns_names")]
    pub dns_names: Vec<String>,
}

impl Default for TlsSpec {
    fn default() -> Self {
        TlsSpec {
            clients: default_clients(),
            validity_days: default_validity_days(),
            renew_before_days: default_renew_before_days(),
            dns_names: Vec::new(),
        }
    }
}

fn default_clients() -> ClientTls {
    ClientTls::Required
}

fn default_validity_days() -> i32 {
    90
}

fn default_renew_before_days() -> i32 {
    30
}
