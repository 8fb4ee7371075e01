//! Certificates of a pair.

use kube::KubeSchema;
use pgpair_wire::config::ClientTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// Certificates of a pair, made and renewed by the operator with an authority of the pair's own, and whether clients must
/// use TLS.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("self.renewBeforeDays < self.validityDays").message("spec.tls.renewBeforeDays must be less than spec.tls.validityDays: lower the one or raise the other"))]
#[x_kube(validation = Rule::new("!has(self.serverSecret) || !has(self.issuerRef)").message("spec.tls has serverSecret and issuerRef, but PostgreSQL shows one certificate: remove one of the two"))]
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
    /// A Secret of yours (type `kubernetes.io/tls`: `tls.crt`, `tls.key`, and `ca.crt` with the self-signed certificate of its authority) whose certificate
    /// PostgreSQL shows to clients, in place of one of the pair's own authority. It is checked before it is taken; a renewed one is taken without a
    /// restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub server_secret: Option<String>,
    /// An issuer of cert-manager's, which is asked for the certificate that PostgreSQL shows to clients, in Secret `NAME-server-tls`. The rest is as
    /// with `serverSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// An issuer of cert-manager's.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub name: String,
    /// `Issuer`, in the namespace of the pair, `ClusterIssuer`, or the kind of an external issuer.
    #[serde(default = "default_issuer_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// API group of that kind.
    #[serde(default = "default_issuer_group")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub group: String,
}

impl Default for TlsSpec {
    fn default() -> Self {
        TlsSpec {
            clients: default_clients(),
            validity_days: default_validity_days(),
            renew_before_days: default_renew_before_days(),
            dns_names: Vec::new(),
            server_secret: None,
            issuer_ref: None,
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

fn default_issuer_kind() -> String {
    "Issuer".into()
}

fn default_issuer_group() -> String {
    "cert-manager.io".into()
}
