//! Who may reach the pods of a pair over the network.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// A NetworkPolicy for the pods of the pair. Its presence asks for one.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Who reaches PostgreSQL (port 5432): pods by `podSelector` (of the pair's namespace) and `namespaceSelector`, each with `matchLabels`.
    /// Empty: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::peers")]
    pub allow_from: Vec<NetworkPolicyPeer>,
}
