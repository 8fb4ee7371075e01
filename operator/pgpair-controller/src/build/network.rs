//! Who reaches the pods of a pair over the network, if the spec asks for a policy.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgpair_api::names::{LABEL_PAIR, OPERATOR, POSTGRES_PORT};
use pgpair_api::validate::ValidatedPair;
use pgpair_wire::paths::{PEER_PORT, PROBE_PORT};

use super::owned;

/// The policy over all pods of the pair, those that seed too: they answer the operator. Only what comes in: what a pod may open itself
/// (DNS, the API server) is the administrator's. Probes of the kubelet come from the node, which a policy does not keep out.
#[must_use]
pub fn build_network(pair: &ValidatedPair) -> Option<NetworkPolicy> {
    let wanted = pair.network.as_ref()?;
    let (postgres, peer, probe) = (POSTGRES_PORT, i32::from(PEER_PORT), i32::from(PROBE_PORT));
    let own = NetworkPolicyPeer {
        pod_selector: Some(labels(LABEL_PAIR, &pair.name.name)),
        ..NetworkPolicyPeer::default()
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(labels("kubernetes.io/metadata.name", &pair.operator_namespace)),
        pod_selector: Some(labels("app.kubernetes.io/name", OPERATOR)),
        ..NetworkPolicyPeer::default()
    };
    let clients = Some(wanted.allow_from.clone()).filter(|peers| !peers.is_empty());
    Some(NetworkPolicy {
        metadata: owned(pair, pair.name.network(), pair.name.labels()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels(LABEL_PAIR, &pair.name.name)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                rule(Some(vec![own]), &[postgres, peer, probe]),
                rule(Some(vec![operator]), &[peer, probe]),
                rule(clients, &[postgres]),
            ]),
            egress: None,
        }),
    })
}

fn labels(key: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Without peers: from everybody.
fn rule(from: Option<Vec<NetworkPolicyPeer>>, ports: &[i32]) -> NetworkPolicyIngressRule {
    let port = |port: &i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(*port)),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicyIngressRule { from, ports: Some(ports.iter().map(port).collect()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::valid;

    /// Ports and peers of each rule.
    fn rules(spec: Value) -> Vec<(Vec<i64>, Value)> {
        let policy = serde_json::to_value(build_network(&valid(spec)).unwrap()).unwrap();
        assert_eq!(policy["metadata"]["name"], "orders-instances");
        assert_eq!(policy["spec"]["podSelector"], json!({"matchLabels": {"pgpair.dev/pair": "orders"}}));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        let ports = |rule: &Value| {
            rule["ports"].as_array().unwrap().iter().map(|p| p["port"].as_i64().unwrap()).collect()
        };
        let ingress = policy["spec"]["ingress"].as_array().unwrap();
        ingress.iter().map(|rule| (ports(rule), rule["from"].clone())).collect()
    }

    #[test]
    fn agents_are_reached_by_the_pair_and_the_operator_and_postgres_by_whom_the_spec_names() {
        let own = json!([{"podSelector": {"matchLabels": {"pgpair.dev/pair": "orders"}}}]);
        let operator = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pgpair-system"}},
                               "podSelector": {"matchLabels": {"app.kubernetes.io/name": "pgreplicapair-operator"}}}]);
        let rules_for = |clients: Value| {
            vec![
                (vec![5432, 8443, 8080], own.clone()),
                (vec![8443, 8080], operator.clone()),
                (vec![5432], clients),
            ]
        };
        assert_eq!(rules(json!({"networkPolicy": {}})), rules_for(Value::Null), "everybody");
        let shop = json!([{"podSelector": {"matchLabels": {"app": "shop"}}}, {"namespaceSelector": {"matchLabels": {"team": "bank"}}}]);
        assert_eq!(rules(json!({"networkPolicy": {"allowFrom": shop}})), rules_for(shop.clone()));
    }

    #[test]
    fn without_the_field_there_is_no_policy() {
        assert_eq!(build_network(&valid(json!({}))), None);
    }
}
