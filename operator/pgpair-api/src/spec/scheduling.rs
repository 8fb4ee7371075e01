//! Where the pods of a pair run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// Where the pods of the instances and of seeding run. A change takes effect when a pod is made anew.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("self.antiAffinity != 'None' || self.topologyKey == 'kubernetes.io/hostname'").message("spec.scheduling.topologyKey has no effect while spec.scheduling.antiAffinity is None: remove it, or use Preferred or Required"))]
pub struct SchedulingSpec {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::metadata")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that are tolerated, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Priority of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schemas::OBJECT_NAME))]
    pub priority_class_name: Option<String>,
    /// Whether the two instances may share a node (or another domain: see `topologyKey`).
    #[serde(default)]
    pub anti_affinity: AntiAffinity,
    /// Label of nodes that names the domain which the instances do not share, such as `topology.kubernetes.io/zone`.
    #[serde(default = "default_topology_key")]
    #[schemars(length(min = 1, max = 317), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$"))]
    pub topology_key: String,
    /// Rules about nodes, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::node_affinity")]
    pub node_affinity: Option<NodeAffinity>,
}

/// Whether the two instances may share a node.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AntiAffinity {
    /// Never: an instance that finds no node of its own waits.
    #[default]
    Required,
    /// Only when there is no other node.
    Preferred,
    /// It does not matter. One node then takes both with it.
    None,
}

impl Default for SchedulingSpec {
    fn default() -> Self {
        SchedulingSpec {
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: None,
            anti_affinity: AntiAffinity::default(),
            topology_key: default_topology_key(),
            node_affinity: None,
        }
    }
}

fn default_topology_key() -> String {
    "kubernetes.io/hostname".into()
}
