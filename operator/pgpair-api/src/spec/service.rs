//! The Services of a pair.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// Labels and annotations that are added to the Services `NAME-rw`, `NAME-ro` and `NAME-r`, and the type of `NAME-rw`.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Labels. Those of the operator win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::metadata")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::metadata")]
    pub annotations: BTreeMap<String, String>,
    /// Type of `NAME-rw`; the others are always `ClusterIP`.
    #[serde(rename = "type")]
    pub type_: ServiceType,
}

/// How clients reach `NAME-rw`.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceType {
    /// From within the cluster.
    #[default]
    ClusterIP,
    /// Through a load balancer of the cloud too.
    LoadBalancer,
    /// Through a port of every node too.
    NodePort,
}

impl ServiceType {
    /// The word of the spec, which is the word of Kubernetes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::NodePort => "NodePort",
        }
    }
}
