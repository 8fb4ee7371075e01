//! What of an object is kept in a cache: what the operator reads there, and nothing else. A pair has two dozen objects, and most of what
//! stands in them the operator itself has written.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec,
    PodStatus, VolumeResourceRequirements,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::Resource;
use kube::core::{ObjectMeta, PartialObjectMeta};
use pgpair_api::PgPairOrder;
use pgpair_api::names::{GROUP, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_PAIR, PairName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::foreign::pair_of;
use crate::managed::condense;
use crate::observe::views::CONTAINER;

/// Label of a StatefulSet's pod: the revision of its template.
pub const REVISION: &str = "controller-revision-hash";
/// Label of a Job's pod: the name of the Job.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Bytes that the annotations of an object may have together; those beyond are not kept. Ours need a fifth of it.
const ANNOTATIONS: usize = 4096;
/// Longest last words of the agent's or the seeding program's container: Kubernetes cuts them at the same length.
const LAST_WORDS: usize = 4096;
/// Longest other text. The status shows less of it.
const TEXT: usize = 1024;
/// Members of a list that are kept. A pair's objects have fewer, so a longer list still differs from the right one.
const MEMBERS: usize = 8;
/// Containers of a pod that are kept beside the agent's. A proxy or two may be put into every pod of a cluster.
const CONTAINERS: usize = 5;

/// An object, or the metadata of one, that is kept in a cache.
pub trait Cached:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Whether the kind is the operator's own and may not be installed yet: pairs are looked after without it.
    const OPTIONAL: bool = false;
    /// Objects of one page of a list.
    const PAGE: u32 = super::PAGE;
    /// Whether they are in the operator's own namespace, wherever their pairs are.
    const IS_WITH_OPERATOR: bool = false;

    /// The watch, in words of the log and of metrics.
    fn watched_as() -> Cow<'static, str> {
        Self::kind(&())
    }

    /// Takes everything away that is not read in the cache. Who reads more of a kind extends this.
    fn trim(&mut self);

    /// The pair that it belongs to, if it is an object to keep.
    fn pair(&self) -> Option<PairName> {
        pair_of(self.meta())
    }
}

/// Of the metadata: name, versions, times, annotations of ours and the owner. Of the owner what [`crate::ownership::is_own`] reads;
/// and labels only where there is no owner, because they say then whose it is.
pub(super) fn trim_meta(meta: &mut ObjectMeta) {
    condense(meta);
    meta.finalizers = None;
    meta.generate_name = None;
    meta.self_link = None;
    let ours = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == GROUP);
    if let Some(annotations) = &mut meta.annotations {
        let mut room = ANNOTATIONS;
        annotations.retain(|key, value| {
            let fits = ours(key) && key.len() + value.len() <= room;
            room -= if fits { key.len() + value.len() } else { 0 };
            fits
        });
    }
    meta.annotations = meta.annotations.take().filter(|kept| !kept.is_empty());
    let owner = meta.owner_references.take().into_iter().flatten().find(|o| o.controller == Some(true));
    match owner {
        Some(mut owner) => {
            for word in [&mut owner.api_version, &mut owner.kind, &mut owner.name] {
                *word = String::new();
            }
            meta.owner_references = Some(vec![owner]);
            meta.labels = None;
        }
        None => keep_labels(meta, &[LABEL_PAIR]),
    }
}

/// The labels that the operator gives to a slice.
const LABELS_OF_SLICE: [&str; 6] = [
    LABEL_PAIR,
    LABEL_MANAGED_BY,
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "kubernetes.io/service-name",
    "endpointslice.kubernetes.io/managed-by",
];

fn keep_labels(meta: &mut ObjectMeta, names: &[&str]) {
    if let Some(labels) = &mut meta.labels {
        labels.retain(|name, _| names.contains(&name.as_str()));
    }
}

/// The same with labels by which the object is told from others of its pair.
fn trim_labelled(meta: &mut ObjectMeta) {
    let mut labels = meta.labels.take();
    trim_meta(meta);
    meta.labels = labels.take();
    keep_labels(meta, &[LABEL_PAIR, LABEL_INSTANCE, LABEL_COMPONENT, REVISION, JOB_NAME]);
}

impl<K> Cached for PartialObjectMeta<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
{
    const PAGE: u32 = super::PAGE_OF_METADATA;

    fn trim(&mut self) {
        self.types = None;
        trim_meta(&mut self.metadata);
    }
}

impl Cached for StatefulSet {
    fn trim(&mut self) {
        trim_meta(&mut self.metadata);
        self.spec =
            self.spec.take().map(|spec| StatefulSetSpec { replicas: spec.replicas, ..Default::default() });
        self.status = self.status.take().map(|status| StatefulSetStatus {
            observed_generation: status.observed_generation,
            replicas: status.replicas,
            update_revision: status.update_revision,
            ..Default::default()
        });
    }
}

impl Cached for Pod {
    fn trim(&mut self) {
        trim_labelled(&mut self.metadata);
        self.spec = self.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..Default::default() });
        self.status = self.status.take().map(|status| PodStatus {
            conditions: status.conditions.map(|mut conditions| {
                conditions.retain(|c| ["Ready", "PodScheduled"].contains(&c.type_.as_str()));
                conditions.truncate(MEMBERS);
                conditions.iter_mut().for_each(|c| cut_optional(&mut c.message, TEXT));
                conditions
            }),
            container_statuses: status.container_statuses.map(trim_containers),
            init_container_statuses: status.init_container_statuses.map(trim_containers),
            phase: status.phase,
            pod_ip: status.pod_ip,
            ..Default::default()
        });
    }
}

fn trim_containers(containers: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let trim = |status: ContainerStatus| ContainerStatus {
        image: cut(status.image, TEXT),
        last_state: status.last_state.map(|state| trim_state(state, last_words(&status.name))),
        ready: status.ready,
        restart_count: status.restart_count,
        started: status.started,
        state: status.state.map(|state| trim_state(state, last_words(&status.name))),
        name: status.name,
        ..Default::default()
    };
    // Whatever is put into the pod beside it, the agent's own container is kept.
    let (mut ours, others): (Vec<_>, Vec<_>) = containers.into_iter().partition(|c| c.name == CONTAINER);
    ours.extend(others.into_iter().take(CONTAINERS));
    ours.into_iter().map(trim).collect()
}

fn last_words(container: &str) -> usize {
    if container == CONTAINER { LAST_WORDS } else { TEXT }
}

fn trim_state(mut state: ContainerState, last_words: usize) -> ContainerState {
    if let Some(waiting) = &mut state.waiting {
        cut_optional(&mut waiting.message, TEXT);
    }
    if let Some(terminated) = &mut state.terminated {
        cut_optional(&mut terminated.message, last_words);
    }
    state
}

fn cut_optional(text: &mut Option<String>, bytes: usize) {
    *text = text.take().map(|text| cut(text, bytes));
}

/// Cut at the last whole character.
fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

impl Cached for Job {
    fn trim(&mut self) {
        trim_labelled(&mut self.metadata);
        self.spec = None;
        self.status = self.status.take().map(|status| JobStatus {
            conditions: status.conditions.map(trim_conditions),
            ..Default::default()
        });
    }
}

fn trim_conditions(mut conditions: Vec<JobCondition>) -> Vec<JobCondition> {
    conditions.retain(|c| ["Failed", "Complete"].contains(&c.type_.as_str()));
    conditions.truncate(MEMBERS);
    conditions.iter_mut().for_each(|c| cut_optional(&mut c.message, TEXT));
    conditions
}

impl Cached for Lease {
    fn trim(&mut self) {
        trim_meta(&mut self.metadata);
        self.spec = self.spec.take().map(|spec| LeaseSpec {
            holder_identity: spec.holder_identity.filter(|holder| holder.len() <= TEXT),
            lease_transitions: spec.lease_transitions,
            ..Default::default()
        });
    }
}

impl Cached for EndpointSlice {
    fn trim(&mut self) {
        // Labels and ports tell whether clients still arrive.
        let labels = self.metadata.labels.take();
        trim_meta(&mut self.metadata);
        self.metadata.labels = labels;
        keep_labels(&mut self.metadata, &LABELS_OF_SLICE);
        if let Some(ports) = &mut self.ports {
            ports.truncate(MEMBERS);
        }
        self.endpoints.truncate(MEMBERS);
        for endpoint in &mut self.endpoints {
            let mut addresses = std::mem::take(&mut endpoint.addresses);
            addresses.truncate(MEMBERS);
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            let conditions = EndpointConditions { ready, ..Default::default() };
            *endpoint = Endpoint { addresses, conditions: Some(conditions), ..Default::default() };
        }
    }
}

impl Cached for PersistentVolumeClaim {
    fn trim(&mut self) {
        trim_meta(&mut self.metadata);
        let requests = self.spec.take().and_then(|spec| spec.resources).map(|resources| {
            let mut requests = resources.requests.unwrap_or_default();
            requests.retain(|resource, _| resource == "storage");
            requests
        });
        self.spec = requests.map(|requests| PersistentVolumeClaimSpec {
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..Default::default()
        });
        self.status = None;
    }
}

/// Anyone who may give orders makes these, without our label. The rules of the definition bound the spec; the name begins with that of
/// the pair.
impl Cached for PgPairOrder {
    const OPTIONAL: bool = true;

    fn trim(&mut self) {
        trim_meta(&mut self.metadata);
        self.metadata.annotations = None;
        self.metadata.labels = None;
        self.metadata.owner_references = None;
    }

    fn pair(&self) -> Option<PairName> {
        let pair = PairName { namespace: self.metadata.namespace.clone()?, name: self.spec.pair.clone() };
        let rest = self.metadata.name.as_deref()?.strip_prefix(&pair.name)?;
        rest.starts_with('-').then_some(pair)
    }
}

#[cfg(test)]
mod tests;
