//! The object by which cert-manager is asked for a certificate for postgres. Its kind is not ours and need not be installed, so it is written
//! here as far as it is needed.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use pgpair_api::spec::IssuerRef;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::owned;

const GROUP: &str = "cert-manager.io";
const VERSION: &str = "v1";
const KIND: &str = "Certificate";
/// Of a pod's own; a certificate for others does not speak for it.
const LOCALHOST: &str = "localhost";

/// cert-manager's `Certificate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCertificate {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: Value,
}

impl Resource for IssuedCertificate {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "certificates".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The certificate of both instances, with all names that clients use.
#[must_use]
pub fn build_issued(pair: &ValidatedPair, issuer: &IssuerRef) -> IssuedCertificate {
    let mut names: Vec<String> = Vec::new();
    for name in InstanceId::ALL.into_iter().flat_map(|i| pair.name.certificate_names(i)) {
        if name != LOCALHOST && !names.contains(&name) {
            names.push(name);
        }
    }
    let (addresses, more): (Vec<String>, Vec<String>) =
        pair.tls.dns_names.iter().cloned().partition(|name| name.parse::<IpAddr>().is_ok());
    names.extend(more);
    let hours = |days: i32| format!("{}h", 24 * i64::from(days));
    let mut spec = json!({
        "secretName": pair.name.server_tls_secret(),
        "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
        "dnsNames": names,
        "duration": hours(pair.tls.validity_days),
        "renewBefore": hours(pair.tls.renew_before_days),
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
    });
    if !addresses.is_empty() {
        spec["ipAddresses"] = json!(addresses);
    }
    IssuedCertificate {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: KIND.into(),
        metadata: owned(pair, pair.name.server_certificate(), pair.name.labels()),
        spec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::valid;

    #[test]
    fn cert_manager_is_asked_for_a_certificate_with_all_names_that_clients_use() {
        let pair = valid(json!({"tls": {
            "issuerRef": {"name": "company", "kind": "ClusterIssuer"},
            "dnsNames": ["db.example.com", "10.0.0.7"],
        }}));
        let issuer = pair.tls.issuer_ref.clone().unwrap();
        let asked = serde_json::to_value(build_issued(&pair, &issuer)).unwrap();
        assert_eq!(
            (&asked["apiVersion"], &asked["kind"]),
            (&json!("cert-manager.io/v1"), &json!("Certificate"))
        );
        assert_eq!(asked["metadata"]["ownerReferences"][0]["controller"], true);
        assert_eq!(asked["metadata"]["labels"]["pgpair.dev/pair"], "orders");
        let spec = &asked["spec"];
        let issuer = json!({"name": "company", "kind": "ClusterIssuer", "group": "cert-manager.io"});
        assert_eq!((&spec["secretName"], &spec["issuerRef"]), (&json!("orders-server-tls"), &issuer));
        assert_eq!((&spec["duration"], &spec["renewBefore"]), (&json!("2160h"), &json!("720h")));
        assert_eq!(spec["ipAddresses"], json!(["10.0.0.7"]));
        let names: Vec<&str> =
            asked["spec"]["dnsNames"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let needed = pair.server_names().into_iter().filter(|name| name.parse::<IpAddr>().is_err());
        for name in needed {
            assert!(names.contains(&name.as_str()), "{name}");
        }
        assert!(!names.contains(&"localhost") && !names.contains(&"10.0.0.7"), "{names:?}");
    }
}
