//! Watch caches of the pairs' objects. A change is stored first and triggers the reconcile then.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::LABEL_PAIR;
use serde::de::DeserializeOwned;

/// The task that feeds one cache.
pub type Feeder = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Where changes are announced.
pub type Triggers = mpsc::UnboundedSender<ObjectRef<PgReplicaPair>>;

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
    /// Claims.
    pub claims: Store<PartialObjectMeta<PersistentVolumeClaim>>,
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

impl Caches {
    /// The caches, and the tasks that feed them and announce changes to `triggers`.
    #[must_use]
    pub fn new(client: &Client, triggers: &Triggers) -> (Caches, Vec<Feeder>) {
        let mut feeders = Vec::new();
        let caches = Caches {
            stateful_sets: feed(client, triggers, &mut feeders),
            pods: feed(client, triggers, &mut feeders),
            jobs: feed(client, triggers, &mut feeders),
            slices: feed(client, triggers, &mut feeders),
            claims: feed(client, triggers, &mut feeders),
            config_maps: feed(client, triggers, &mut feeders),
            budgets: feed(client, triggers, &mut feeders),
            services: feed(client, triggers, &mut feeders),
            secrets: feed(client, triggers, &mut feeders),
            accounts: feed(client, triggers, &mut feeders),
            roles: feed(client, triggers, &mut feeders),
            bindings: feed(client, triggers, &mut feeders),
        };
        (caches, feeders)
    }

    /// Waits until every cache has its first list. Has no end of its own: the caller bounds it.
    ///
    /// # Errors
    /// A feeder ended.
    pub async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.stateful_sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.jobs.wait_until_ready().await?;
        self.slices.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.secrets.wait_until_ready().await?;
        self.accounts.wait_until_ready().await?;
        self.roles.wait_until_ready().await?;
        self.bindings.wait_until_ready().await
    }
}

fn feed<K>(client: &Client, triggers: &Triggers, feeders: &mut Vec<Feeder>) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store::<K>();
    let config = watcher::Config::default().labels(LABEL_PAIR);
    let triggers = triggers.clone();
    let stream = watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .for_each(move |event| {
            match event {
                Ok(object) => announce(&triggers, &object),
                Err(error) => tracing::warn!(%error, "a watch broke and starts again"),
            }
            futures::future::ready(())
        });
    feeders.push(Box::pin(stream));
    store
}

fn announce<K: Resource>(triggers: &Triggers, object: &K) {
    if let (Some(namespace), Some(pair)) = (object.namespace(), object.labels().get(LABEL_PAIR)) {
        // Fails only when the controller has ended; then nobody has to know.
        let _ = triggers.unbounded_send(ObjectRef::new(pair).within(&namespace));
    }
}
