//! The objects that a pair has whatever becomes of it, as one table: built by one pure function, applied by one function that
//! names every row.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId::{A, B};

use crate::api::Requests;
use crate::apply::apply;
use crate::build::{budget, claims, config, rbac, services};
use crate::cache::Caches;
use crate::error::Error;
use crate::memory::Memory;
use crate::outcome::Child;

/// The objects. Not among them: what depends on the state of the pair (StatefulSets, Jobs, EndpointSlices), what is made once
/// (the Lease), and Secrets, whose contents are random.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    /// Identity of the agents.
    pub account: ServiceAccount,
    /// What they may do.
    pub role: Role,
    /// Gives the one to the other.
    pub binding: RoleBinding,
    /// What a drain may take.
    pub budget: PodDisruptionBudget,
    /// Settings of the agents.
    pub config: ConfigMap,
    /// Of the pods, for writes, for reads, and of any instance.
    pub services: [Service; 4],
    /// Data and archive of a, then of b.
    pub claims: [PersistentVolumeClaim; 4],
}

/// All of them, as the spec says.
///
/// # Errors
/// The settings cannot be written as JSON.
pub fn build_children(pair: &ValidatedPair) -> Result<Children, Error> {
    let [data_a, archive_a] = claims::build_claims(pair, A);
    let [data_b, archive_b] = claims::build_claims(pair, B);
    Ok(Children {
        account: rbac::build_service_account(pair),
        role: rbac::build_role(pair),
        binding: rbac::build_role_binding(pair),
        budget: budget::build_budget(pair),
        config: config::build_config(pair).map_err(|source| Error::Config { source })?,
        services: services::build_services(pair),
        claims: [data_a, archive_a, data_b, archive_b],
    })
}

/// Applies one of them if it is not as it should be.
///
/// # Errors
/// The request failed.
pub async fn apply_child(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    children: &Children,
    child: Child,
) -> Result<(), Error> {
    // Without `..`: a row that is not applied does not compile.
    let Children { account, role, binding, budget, config, services, claims } = children;
    let [pods, rw, ro, any] = services;
    let [data_a, archive_a, data_b, archive_b] = claims;
    match child {
        Child::Account => apply(requests, memory, &caches.accounts, account).await,
        Child::Role => apply(requests, memory, &caches.roles, role).await,
        Child::Binding => apply(requests, memory, &caches.bindings, binding).await,
        Child::Budget => apply(requests, memory, &caches.budgets, budget).await,
        Child::Config => apply(requests, memory, &caches.config_maps, config).await,
        Child::PodsService => apply(requests, memory, &caches.services, pods).await,
        Child::RwService => apply(requests, memory, &caches.services, rw).await,
        Child::RoService => apply(requests, memory, &caches.services, ro).await,
        Child::AnyService => apply(requests, memory, &caches.services, any).await,
        Child::DataClaim(A) => apply(requests, memory, &caches.claims, data_a).await,
        Child::ArchiveClaim(A) => apply(requests, memory, &caches.claims, archive_a).await,
        Child::DataClaim(B) => apply(requests, memory, &caches.claims, data_b).await,
        Child::ArchiveClaim(B) => apply(requests, memory, &caches.claims, archive_b).await,
    }
}
