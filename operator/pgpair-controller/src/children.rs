//! The objects that a pair has whatever becomes of it, as one table: built by one pure function, applied by one function that
//! names every row.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId::{A, B};

use crate::api::{Object, Requests};
use crate::apply::{CacheOf, apply, apply_over, cached};
use crate::build::{budget, claims, config, network, rbac, services};
use crate::cache::{Cache, Caches};
use crate::error::Error;
use crate::memory::Memory;
use crate::outcome::Child;
use crate::ownership::{Taken, is_own};

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
    /// Who reaches the pods; `None`: the spec asks for no policy.
    pub network: Option<NetworkPolicy>,
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
        network: network::build_network(pair),
        config: config::build_config(pair).map_err(|source| Error::Config { source })?,
        services: services::build_services(pair),
        claims: [data_a, archive_a, data_b, archive_b],
    })
}

/// Applies one of them if it is not as it should be.
///
/// # Errors
/// The request failed, or an object of that name is not the pair's.
pub async fn apply_child(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    children: &Children,
    child: Child,
) -> Result<(), Error> {
    // Without `..`: a row that is not applied does not compile.
    let Children { account, role, binding, budget, network, config, services, claims } = children;
    let [pods, rw, ro, any] = services;
    let [data_a, archive_a, data_b, archive_b] = claims;
    match child {
        Child::Account => apply(requests, memory, pair, &caches.accounts, account).await,
        Child::Role => apply(requests, memory, pair, &caches.roles, role).await,
        Child::Binding => apply(requests, memory, pair, &caches.bindings, binding).await,
        Child::Budget => apply(requests, memory, pair, &caches.budgets, budget).await,
        Child::Network => apply_network(requests, caches, memory, pair, network.as_ref()).await,
        Child::Config => apply(requests, memory, pair, &caches.config_maps, config).await,
        Child::PodsService => apply(requests, memory, pair, &caches.services, pods).await,
        Child::RwService => apply(requests, memory, pair, &caches.services, rw).await,
        Child::RoService => apply(requests, memory, pair, &caches.services, ro).await,
        Child::AnyService => apply(requests, memory, pair, &caches.services, any).await,
        Child::DataClaim(A) => apply_claim(requests, caches, memory, pair, data_a).await,
        Child::ArchiveClaim(A) => apply_claim(requests, caches, memory, pair, archive_a).await,
        Child::DataClaim(B) => apply_claim(requests, caches, memory, pair, data_b).await,
        Child::ArchiveClaim(B) => apply_claim(requests, caches, memory, pair, archive_b).await,
    }
}

/// A volume never shrinks: one that is larger than the spec says, because somebody enlarged it or the spec was put back, stays as it
/// is.
async fn apply_claim(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    let found = cached(&caches.claims, pair, claim);
    let larger = found.as_ref().map(|found| claims::at_least_as_large(claim, found));
    apply_over(requests, memory, pair, found.as_ref().map(Resource::meta), larger.as_ref().unwrap_or(claim))
        .await
}

/// The policy goes when the spec no longer asks for it.
async fn apply_network(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    network: Option<&NetworkPolicy>,
) -> Result<(), Error> {
    match network {
        Some(network) => apply(requests, memory, pair, &caches.networks, network).await,
        None => {
            let key = ObjectRef::new(&pair.name.network()).within(&pair.name.namespace);
            match caches.networks.get(&key).filter(|found| is_own(pair, &found.metadata)) {
                Some(_) => requests.delete::<NetworkPolicy>(&pair.name.network()).await,
                None => Ok(()),
            }
        }
    }
}

/// Looks at the names of all of them.
///
/// # Errors
/// A request failed.
pub async fn look_at_children(
    requests: &Requests,
    caches: &Caches,
    pair: &ValidatedPair,
    children: &Children,
    taken: &mut Taken,
) -> Result<(), Error> {
    let Children { account, role, binding, budget, network, config, services, claims } = children;
    look(requests, pair, &caches.accounts, account, taken).await?;
    look(requests, pair, &caches.roles, role, taken).await?;
    look(requests, pair, &caches.bindings, binding, taken).await?;
    look(requests, pair, &caches.budgets, budget, taken).await?;
    if let Some(network) = network {
        look(requests, pair, &caches.networks, network, taken).await?;
    }
    look(requests, pair, &caches.config_maps, config, taken).await?;
    for service in services {
        look(requests, pair, &caches.services, service, taken).await?;
    }
    for claim in claims {
        look(requests, pair, &caches.claims, claim, taken).await?;
    }
    Ok(())
}

async fn look<K: Object, C: CacheOf<K>>(
    requests: &Requests,
    pair: &ValidatedPair,
    cache: &Cache<C>,
    object: &K,
    taken: &mut Taken,
) -> Result<(), Error> {
    let found = cached(cache, pair, object);
    taken.look::<K>(requests, pair, &object.name_any(), found.as_ref().map(Resource::meta)).await
}
