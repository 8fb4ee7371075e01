//! Rights of the agents: read and replace exactly the pair's Lease and its read-write EndpointSlice.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use pgpair_api::validate::ValidatedPair;

use super::owned;

/// The identity of the agents.
#[must_use]
pub fn build_service_account(pair: &ValidatedPair) -> ServiceAccount {
    ServiceAccount {
        metadata: owned(pair, pair.name.agent(), pair.name.labels()),
        // Mounted by the instance pods by name; never by a pod that merely uses the account.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// What an agent may do. No `create`: a PUT would bring back a deleted Lease, and with it a lost term.
#[must_use]
pub fn build_role(pair: &ValidatedPair) -> Role {
    let rule = |group: &str, resource: &str, name: &str| PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(vec![name.into()]),
        verbs: vec!["get".into(), "update".into()],
        ..PolicyRule::default()
    };
    Role {
        metadata: owned(pair, pair.name.agent(), pair.name.labels()),
        rules: Some(vec![
            rule("coordination.k8s.io", "leases", pair.name.lease()),
            rule("discovery.k8s.io", "endpointslices", &pair.name.rw()),
        ]),
    }
}

/// Gives the role to the account.
#[must_use]
pub fn build_role_binding(pair: &ValidatedPair) -> RoleBinding {
    RoleBinding {
        metadata: owned(pair, pair.name.agent(), pair.name.labels()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "Role".into(),
            name: pair.name.agent(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: pair.name.agent(),
            namespace: Some(pair.name.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
