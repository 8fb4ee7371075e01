//! Watch caches of the pairs' objects, each cut down to what the operator reads of it. A change is stored first and triggers the
//! reconcile then. Objects that merely carry the label of a pair are not stored.

mod foreign;
mod store;
mod trim;
pub mod with_operator;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use pgpair_api::PgPairOrder;
use pgpair_api::names::{LABEL_OF_NAMESPACE, LABEL_OF_UID, LABEL_PAIR};

use crate::health::Health;
use crate::metrics::Metrics;
use crate::triggers::Triggers;

pub use store::{Cache, CacheWriter, NeverFilled, cache};
pub use trim::{Cached, JOB_NAME, REVISION};
use with_operator::WithOperator;

/// The task that feeds one cache.
pub type Feeder = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Ends when a cache has its first list; an error: its feeder ended.
pub type FirstList = Pin<Box<dyn Future<Output = Result<(), NeverFilled>> + Send>>;

/// Caches of everything that belongs to a pair. Of what is not read, only the metadata; Secrets are never cached with their
/// content.
#[derive(Clone)]
pub struct Caches {
    /// StatefulSets.
    pub stateful_sets: Cache<StatefulSet>,
    /// Pods of instances and of seeding Jobs.
    pub pods: Cache<Pod>,
    /// Seeding Jobs.
    pub jobs: Cache<Job>,
    /// Orders of people.
    pub orders: Cache<PgPairOrder>,
    /// The records. What is decided rests on a read of the record itself.
    pub leases: Cache<Lease>,
    /// EndpointSlices.
    pub slices: Cache<EndpointSlice>,
    /// Claims, with the sizes that they ask for.
    pub claims: Cache<PersistentVolumeClaim>,
    /// Settings for the agents. Their content is read by name when it matters.
    pub config_maps: Cache<PartialObjectMeta<ConfigMap>>,
    /// Disruption budgets.
    pub budgets: Cache<PartialObjectMeta<PodDisruptionBudget>>,
    /// Network policies.
    pub networks: Cache<PartialObjectMeta<NetworkPolicy>>,
    /// Services.
    pub services: Cache<PartialObjectMeta<Service>>,
    /// Secrets.
    pub secrets: Cache<PartialObjectMeta<Secret>>,
    /// Secrets of pairs in the operator's own namespace.
    pub with_operator: Cache<WithOperator>,
    /// Service accounts.
    pub accounts: Cache<PartialObjectMeta<ServiceAccount>>,
    /// Roles.
    pub roles: Cache<PartialObjectMeta<Role>>,
    /// Role bindings.
    pub bindings: Cache<PartialObjectMeta<RoleBinding>>,
}

impl Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

/// Makes the cache of one kind after the other.
pub trait MakeCache {
    /// The cache of kind `K`.
    fn make<K: Cached>(&mut self) -> Cache<K>;
}

impl Caches {
    /// All of them, by `maker`.
    #[must_use]
    pub fn made_by(maker: &mut impl MakeCache) -> Caches {
        Caches {
            stateful_sets: maker.make(),
            pods: maker.make(),
            jobs: maker.make(),
            orders: maker.make(),
            leases: maker.make(),
            slices: maker.make(),
            claims: maker.make(),
            config_maps: maker.make(),
            budgets: maker.make(),
            networks: maker.make(),
            services: maker.make(),
            secrets: maker.make(),
            with_operator: maker.make(),
            accounts: maker.make(),
            roles: maker.make(),
            bindings: maker.make(),
        }
    }
}

#[cfg(test)]
impl Caches {
    /// Objects that they have given out.
    pub fn given(&self) -> usize {
        let Caches { stateful_sets, pods, jobs, slices, claims, .. } = self;
        let Caches { config_maps, budgets, services, secrets, accounts, roles, bindings, .. } = self;
        let Caches { with_operator, .. } = self;
        let given = [&stateful_sets.given, &pods.given, &jobs.given, &slices.given, &claims.given];
        let of_metadata = [
            &config_maps.given,
            &budgets.given,
            &services.given,
            &secrets.given,
            &with_operator.given,
            &accounts.given,
            &roles.given,
            &bindings.given,
        ];
        given.into_iter().chain(of_metadata).map(|n| n.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }
}

/// Objects in one namespace; without one, in all.
#[must_use]
pub fn api_in<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Caches of what belongs to the pairs of one namespace or of all, the tasks that feed them and then announce changes to `triggers`, and what
/// waits for their first lists. That wait has no end of its own: the caller bounds it.
#[must_use]
pub fn watch_all(
    client: &Client,
    scope: Scope<'_>,
    triggers: &Triggers,
    signs: &Signs,
) -> (Caches, Vec<Feeder>, Vec<FirstList>) {
    let mut watcher =
        Watcher { client, scope, triggers, signs, feeders: Vec::new(), first_lists: Vec::new() };
    let caches = Caches::made_by(&mut watcher);
    (caches, watcher.feeders, watcher.first_lists)
}

/// Where the objects are.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The namespace of the pairs; `None`: all.
    pub pairs: Option<&'a str>,
    /// The operator's own.
    pub operator: &'a str,
}

/// Labels by which the objects of a kind are watched that belong to the pairs of one namespace, or of all; `None`: by none.
fn labels_of<K: Cached>(namespace: Option<&str>) -> Option<String> {
    match (K::IS_WITH_OPERATOR, namespace) {
        _ if K::OPTIONAL => None,
        (false, _) => Some(LABEL_PAIR.to_owned()),
        (true, None) => Some(LABEL_OF_UID.to_owned()),
        (true, Some(namespace)) => Some(format!("{LABEL_OF_UID},{LABEL_OF_NAMESPACE}={namespace}")),
    }
}

/// Objects of one page of a list. All kinds are listed at the same time when an API server has forgotten what was seen last, and the pages that are
/// being read are the most that this process ever holds: with the usual 500, 200 MiB.
pub const PAGE: u32 = 100;
/// The same where only the metadata come, which are small. For each page etcd walks over all that are left.
pub const PAGE_OF_METADATA: u32 = 500;

/// Where it is noted whether watches live.
#[derive(Debug, Clone)]
pub struct Signs {
    /// For the probes.
    pub health: Arc<Health>,
    /// For the count of errors.
    pub metrics: Arc<Metrics>,
}

impl Signs {
    /// Notes what came from a watch of that kind.
    pub fn note<K>(&self, kind: &str, item: &watcher::Result<watcher::Event<K>>) {
        self.health.note_watch(&self.metrics, kind, item);
    }
}

struct Watcher<'a> {
    client: &'a Client,
    scope: Scope<'a>,
    triggers: &'a Triggers,
    signs: &'a Signs,
    feeders: Vec<Feeder>,
    first_lists: Vec<FirstList>,
}

impl MakeCache for Watcher<'_> {
    fn make<K: Cached>(&mut self) -> Cache<K> {
        let (cache, mut writer) = cache::<K>();
        let config = watcher::Config::default().page_size(K::PAGE);
        let config = match labels_of::<K>(self.scope.pairs) {
            Some(labels) => config.labels(&labels),
            None => config,
        };
        let namespace = if K::IS_WITH_OPERATOR { Some(self.scope.operator) } else { self.scope.pairs };
        let (triggers, signs) = (self.triggers.clone(), self.signs.clone());
        let stream = watcher(api_in::<K>(self.client, namespace), config)
            .default_backoff()
            .inspect(move |item| match item {
                Err(error) if K::OPTIONAL => note_missing(&K::kind(&()), error),
                _ => signs.note(&K::watched_as(), item),
            })
            .for_each(move |item| {
                // An error has been noted above.
                for pair in item.map(|event| writer.take(event)).unwrap_or_default() {
                    triggers.announce_object(pair);
                }
                futures::future::ready(())
            });
        self.feeders.push(Box::pin(stream));
        if !K::OPTIONAL {
            self.first_lists.push(Box::pin(cache.clone().first_list()));
        }
        cache
    }
}

/// A kind without which pairs are looked after all the same makes nothing unhealthy.
fn note_missing(kind: &str, error: &watcher::Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(
        kind,
        error,
        "not watched: apply crds/ and the chart of this version; orders by annotation still work"
    );
}
