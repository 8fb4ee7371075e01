//! Services, and the EndpointSlices of those for clients: they have no selector, so that what a Service leads to changes when
//! and only when an agent or the operator says so. With one, each flip of a readiness would make every kube-proxy write its rules,
//! and the change that clients wait for in a failover would queue behind that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgpair_api::names::{COMPONENT_INSTANCE, LABEL_COMPONENT, LABEL_PAIR, POSTGRES_PORT};
use pgpair_api::spec::ServiceType;
use pgpair_api::validate::ValidatedPair;
use pgpair_wire::paths::PEER_PORT;

use super::owned;
use crate::plan::EndpointTarget;

/// All Services of a pair.
#[must_use]
pub fn build_services(pair: &ValidatedPair) -> [Service; 4] {
    let selector = BTreeMap::from([
        (LABEL_PAIR.to_owned(), pair.name.name.clone()),
        (LABEL_COMPONENT.to_owned(), COMPONENT_INSTANCE.to_owned()),
    ]);
    let postgres = port("postgres", POSTGRES_PORT);
    let pods = Service {
        metadata: owned(pair, pair.name.pods_service(), pair.name.labels()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            // Agents find each other before anything is ready.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ports: Some(vec![postgres.clone(), port("peer", i32::from(PEER_PORT))]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    [
        pods,
        client_service(pair, pair.name.rw(), pair.service.type_, &postgres),
        client_service(pair, pair.name.ro(), ServiceType::ClusterIP, &postgres),
        client_service(pair, pair.name.any(), ServiceType::ClusterIP, &postgres),
    ]
}

fn client_service(pair: &ValidatedPair, name: String, type_: ServiceType, postgres: &ServicePort) -> Service {
    let mut labels = pair.service.labels.clone();
    labels.extend(pair.name.labels());
    let mut metadata = owned(pair, name, labels);
    if !pair.service.annotations.is_empty() {
        metadata.annotations = Some(pair.service.annotations.clone());
    }
    let spec = ServiceSpec {
        type_: Some(type_.as_str().into()),
        ports: Some(vec![postgres.clone()]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::Int(port)),
        ..ServicePort::default()
    }
}

/// The EndpointSlice `name` of the Service with the same name, leading to `targets`, or nowhere.
#[must_use]
pub fn build_slice<'a>(
    pair: &ValidatedPair,
    name: &str,
    targets: impl IntoIterator<Item = &'a EndpointTarget>,
) -> EndpointSlice {
    let mut labels = pair.name.labels();
    labels.insert("kubernetes.io/service-name".into(), name.into());
    labels.insert("endpointslice.kubernetes.io/managed-by".into(), "pgreplicapair".into());
    EndpointSlice {
        metadata: owned(pair, name, labels),
        address_type: "IPv4".into(),
        endpoints: targets.into_iter().map(|t| endpoint(pair, t)).collect(),
        ports: Some(vec![EndpointPort {
            name: Some("postgres".into()),
            port: Some(POSTGRES_PORT),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        }]),
    }
}

/// Whether a slice has the ports and labels of `built`. Others may have been added to its labels.
#[must_use]
pub fn is_shaped(slice: &EndpointSlice, built: &EndpointSlice) -> bool {
    let has =
        |(name, value): (&String, &String)| slice.metadata.labels.as_ref()?.get(name).map(|v| v == value);
    slice.ports == built.ports && built.metadata.labels.iter().flatten().all(|label| has(label) == Some(true))
}

fn endpoint(pair: &ValidatedPair, target: &EndpointTarget) -> Endpoint {
    Endpoint {
        addresses: vec![target.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        node_name: target.node.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: Some(target.pod.clone()),
            namespace: Some(pair.name.namespace.clone()),
            uid: Some(target.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}
