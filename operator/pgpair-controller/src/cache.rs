//! Watch caches of the pairs' objects. A change is stored first and triggers the reconcile then.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pgpair_api::names::LABEL_PAIR;
use serde::de::DeserializeOwned;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::watched::Watched;

/// The task that feeds one cache.
pub type Feeder = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Ends when a cache has its first list; an error: its feeder ended.
pub type FirstList = Pin<Box<dyn Future<Output = Result<(), WriterDropped>> + Send>>;
/// Where changes are announced.
pub type Triggers = mpsc::UnboundedSender<ObjectRef<Watched>>;

/// Caches of everything that belongs to a pair. Of what is not read, only the metadata; Secrets are never cached with their
/// content.
#[derive(Clone)]
pub struct Caches {
    /// StatefulSets.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods of instances and of seeding Jobs.
    pub pods: Store<Pod>,
    /// Seeding Jobs.
    pub jobs: Store<Job>,
    /// EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// Claims, with the sizes that they ask for.
    pub claims: Store<PersistentVolumeClaim>,
    /// Settings for the agents: what they were given last.
    pub config_maps: Store<ConfigMap>,
    /// Disruption budgets.
    pub budgets: Store<PartialObjectMeta<PodDisruptionBudget>>,
    /// Services.
    pub services: Store<PartialObjectMeta<Service>>,
    /// Secrets.
    pub secrets: Store<PartialObjectMeta<Secret>>,
    /// Service accounts.
    pub accounts: Store<PartialObjectMeta<ServiceAccount>>,
    /// Roles.
    pub roles: Store<PartialObjectMeta<Role>>,
    /// Role bindings.
    pub bindings: Store<PartialObjectMeta<RoleBinding>>,
}

impl Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").field("pods", &self.pods.len()).finish_non_exhaustive()
    }
}

/// An object, or the metadata of one, that is kept in a cache.
pub trait Cached:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Cached for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Makes the cache of one kind after the other.
pub trait MakeCache {
    /// The cache of kind `K`.
    fn make<K: Cached>(&mut self) -> Store<K>;
}

impl Caches {
    /// All of them, by `maker`.
    #[must_use]
    pub fn made_by(maker: &mut impl MakeCache) -> Caches {
        Caches {
            stateful_sets: maker.make(),
            pods: maker.make(),
            jobs: maker.make(),
            slices: maker.make(),
            claims: maker.make(),
            config_maps: maker.make(),
            budgets: maker.make(),
            services: maker.make(),
            secrets: maker.make(),
            accounts: maker.make(),
            roles: maker.make(),
            bindings: maker.make(),
        }
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

/// Caches of one namespace or of all, the tasks that feed them and then announce changes to `triggers`, and what waits for their first
/// lists. That wait has no end of its own: the caller bounds it.
#[must_use]
pub fn watch_all(
    client: &Client,
    namespace: Option<&str>,
    triggers: &Triggers,
    signs: &Signs,
) -> (Caches, Vec<Feeder>, Vec<FirstList>) {
    let mut watcher =
        Watcher { client, namespace, triggers, signs, feeders: Vec::new(), first_lists: Vec::new() };
    let caches = Caches::made_by(&mut watcher);
    (caches, watcher.feeders, watcher.first_lists)
}

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
    namespace: Option<&'a str>,
    triggers: &'a Triggers,
    signs: &'a Signs,
    feeders: Vec<Feeder>,
    first_lists: Vec<FirstList>,
}

impl MakeCache for Watcher<'_> {
    fn make<K: Cached>(&mut self) -> Store<K> {
        let (store, writer) = reflector::store::<K>();
        let config = watcher::Config::default().labels(LABEL_PAIR);
        let (triggers, signs) = (self.triggers.clone(), self.signs.clone());
        let stream = watcher(api_in::<K>(self.client, self.namespace), config)
            .default_backoff()
            .inspect(move |item| signs.note(&K::kind(&()), item))
            .modify(|object| object.managed_fields_mut().clear())
            .reflect(writer)
            .touched_objects()
            .for_each(move |event| {
                // An error has been noted above.
                if let Ok(object) = event {
                    announce(&triggers, &object);
                }
                futures::future::ready(())
            });
        self.feeders.push(Box::pin(stream));
        let filled = store.clone();
        self.first_lists.push(Box::pin(async move { filled.wait_until_ready().await }));
        store
    }
}

fn announce<K: Resource>(triggers: &Triggers, object: &K) {
    if let (Some(namespace), Some(pair)) = (object.namespace(), object.labels().get(LABEL_PAIR)) {
        // Fails only when the controller has ended; then nobody has to know.
        let _ = triggers.unbounded_send(ObjectRef::new(pair).within(&namespace));
    }
}
