//! What the controller of StatefulSets, the scheduler and the kubelets would do: for each StatefulSet its pod, and the status of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use pgpair_api::names::{LABEL_INSTANCE, LABEL_PAIR, POSTGRES_PORT, PairName};
use pgpair_core::ids::InstanceId;
use serde_json::{Value, json};

use crate::scale::pairs::{AgentId, number};

/// StatefulSets that are looked after at the same time.
const AT_ONCE: usize = 16;
/// Label of a StatefulSet's pod.
const REVISION: &str = "controller-revision-hash";

/// How far it is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pods that were started.
    pub pods: AtomicUsize,
    /// Requests that failed. Most are made again with the next change of the object.
    pub failed: AtomicUsize,
}

/// Looks after every StatefulSet of a pair, for ever.
pub async fn run(client: Client, progress: Arc<Progress>) {
    let sets = Api::<StatefulSet>::all(client.clone());
    watcher(sets, watcher::Config::default().labels(LABEL_PAIR))
        .default_backoff()
        .applied_objects()
        .for_each_concurrent(AT_ONCE, |set| {
            let (client, progress) = (client.clone(), progress.clone());
            async move {
                let Ok(set) = set else { return };
                if let Err(error) = tend(&client, &set, &progress).await {
                    progress.failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{}: {error:#}", set.name_any());
                }
            }
        })
        .await;
}

/// One StatefulSet of a pair, with what is needed of it.
struct Wanted<'a> {
    set: &'a StatefulSet,
    pair: PairName,
    id: AgentId,
    replicas: i32,
    revision: String,
}

impl Wanted<'_> {
    fn of(set: &StatefulSet) -> Option<Wanted<'_>> {
        let label = |name: &str| set.labels().get(name).cloned();
        let pair = PairName { namespace: set.namespace()?, name: label(LABEL_PAIR)? };
        let id = AgentId { pair: number(&pair.name)?, instance: label(LABEL_INSTANCE)?.parse().ok()? };
        let spec = set.spec.as_ref()?;
        let template = serde_json::to_string(&spec.template).ok()?;
        let revision = format!("{}-{:08x}", set.name_any(), fingerprint(&template));
        Some(Wanted { set, pair, id, replicas: spec.replicas.unwrap_or(1), revision })
    }

    fn is_so(&self) -> bool {
        self.set.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.set.metadata.generation && status.replicas == self.replicas
        })
    }
}

async fn tend(client: &Client, set: &StatefulSet, progress: &Progress) -> anyhow::Result<()> {
    let Some(wanted) = Wanted::of(set).filter(|wanted| !wanted.is_so()) else { return Ok(()) };
    let pods = Api::<Pod>::namespaced(client.clone(), &wanted.pair.namespace);
    if wanted.replicas == 0 {
        let gone =
            pods.delete(&wanted.pair.pod(wanted.id.instance), &DeleteParams::default().grace_period(0)).await;
        accept(gone.map(|_| ()), 404).context("deleting its pod")?;
    } else if start_pod(&pods, &wanted).await? {
        progress.pods.fetch_add(1, Ordering::Relaxed);
        if wanted.id.instance == InstanceId::A {
            lead_here(client, &wanted).await?;
        }
    }
    let status = json!({"status": {
        "observedGeneration": set.metadata.generation, "replicas": wanted.replicas, "readyReplicas": wanted.replicas,
        "availableReplicas": wanted.replicas, "currentReplicas": wanted.replicas, "updatedReplicas": wanted.replicas,
        "currentRevision": wanted.revision, "updateRevision": wanted.revision, "collisionCount": 0,
    }});
    let sets = Api::<StatefulSet>::namespaced(client.clone(), &wanted.pair.namespace);
    let patched = sets.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await;
    patched.map(|_| ()).context("writing its status")
}

/// Says whether the pod is new.
async fn start_pod(pods: &Api<Pod>, wanted: &Wanted<'_>) -> anyhow::Result<bool> {
    let pod: Pod = serde_json::from_value(build_pod(wanted)?).context("its pod")?;
    match pods.create(&PostParams::default(), &pod).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
        Err(error) => return Err(error).context("creating its pod"),
    }
    let status = Patch::Merge(build_status(&pod, wanted.id));
    let patched = pods.patch_status(&pod.name_any(), &PatchParams::default(), &status).await;
    patched.context("writing the status of its pod").map(|_| true)
}

/// The primary's agent leads clients to itself.
async fn lead_here(client: &Client, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), &wanted.pair.namespace);
    let endpoint = json!({
        "addresses": [wanted.id.address()], "nodeName": wanted.id.node(),
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "name": wanted.pair.pod(wanted.id.instance), "namespace": wanted.pair.namespace},
    });
    let port = json!({"name": "postgres", "port": POSTGRES_PORT, "protocol": "TCP"});
    let patch = Patch::Merge(json!({"endpoints": [endpoint], "ports": [port]}));
    let patched = slices.patch(&wanted.pair.rw(), &PatchParams::default(), &patch).await;
    // Where the operator has not made it yet, it makes it with the primary's address.
    accept(patched.map(|_| ()), 404).context("writing the endpoint for writes")
}

fn accept(result: kube::Result<()>, code: u16) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code => Ok(()),
        other => other,
    }
}

/// The pod as the controller of StatefulSets makes it and the scheduler places it.
fn build_pod(wanted: &Wanted<'_>) -> anyhow::Result<Value> {
    let Wanted { set, pair, id, revision, .. } = wanted;
    let spec = set.spec.as_ref().context("it has no spec")?;
    let name = pair.pod(id.instance);
    let mut pod = serde_json::to_value(&spec.template)?;
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(pair.namespace);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(), "uid": set.uid().unwrap_or_default(),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let labels = [
        (REVISION, revision.as_str()),
        ("statefulset.kubernetes.io/pod-name", &name),
        ("apps.kubernetes.io/pod-index", "0"),
    ];
    for (key, value) in labels {
        pod["metadata"]["labels"][key] = json!(value);
    }
    pod["spec"]["nodeName"] = json!(id.node());
    pod["spec"]["hostname"] = json!(name);
    pod["spec"]["subdomain"] = json!(spec.service_name);
    Ok(pod)
}

/// The status that the kubelet would write: everything runs and is ready.
fn build_status(pod: &Pod, id: AgentId) -> Value {
    let now = jiff::Timestamp::now().to_string();
    let spec = pod.spec.clone().unwrap_or_default();
    let container = |name: &str, image: Option<&String>, state: Value, ready: bool| {
        json!({
            "name": name, "image": image, "imageID": format!("{}@sha256:{:064x}", image.map_or("", String::as_str), 7),
            "containerID": format!("containerd://{:064x}", id.place()), "ready": ready, "started": true, "restartCount": 0, "state": state,
        })
    };
    let ended =
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    let runs = json!({"running": {"startedAt": now}});
    let before = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| container(&c.name, c.image.as_ref(), ended.clone(), true));
    let beside = spec.containers.iter().map(|c| container(&c.name, c.image.as_ref(), runs.clone(), true));
    let words = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let condition = |word: &str| json!({"type": word, "status": "True", "lastTransitionTime": now});
    json!({"status": {
        "phase": "Running", "podIP": id.address(), "podIPs": [{"ip": id.address()}], "hostIP": "10.64.0.1", "hostIPs": [{"ip": "10.64.0.1"}],
        "startTime": now, "qosClass": "Burstable", "conditions": words.map(condition),
        "initContainerStatuses": before.collect::<Vec<_>>(), "containerStatuses": beside.collect::<Vec<_>>(),
    }})
}

/// FNV-1a.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(status: Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "p00007-b", "namespace": "scale-00", "generation": 3, "uid": "u",
                "labels": {"pgpair.dev/pair": "p00007", "pgpair.dev/instance": "b"}},
            "spec": {"replicas": 1, "selector": {}, "serviceName": "p00007-pods", "template": {
                "metadata": {"labels": {"pgpair.dev/component": "instance"}},
                "spec": {"containers": [{"name": "postgres", "image": "postgres:17"}]}}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_has_the_labels_of_its_template_and_its_revision_and_runs_on_its_own_address() {
        let set = set(json!({"replicas": 0}));
        let wanted = Wanted::of(&set).unwrap();
        assert!(!wanted.is_so());
        let pod: Pod = serde_json::from_value(build_pod(&wanted).unwrap()).unwrap();
        assert_eq!(pod.labels()["pgpair.dev/component"], "instance");
        assert_eq!(pod.labels()[REVISION], wanted.revision);
        assert_eq!(pod.name_any(), "p00007-b-0");
        let status = build_status(&pod, wanted.id);
        assert_eq!(status["status"]["podIP"], "10.10.0.15");
        assert_eq!(status["status"]["containerStatuses"][0]["name"], "postgres");
    }

    #[test]
    fn a_set_whose_newest_generation_is_told_is_left_alone() {
        assert!(Wanted::of(&set(json!({"replicas": 1, "observedGeneration": 3}))).unwrap().is_so());
        assert!(!Wanted::of(&set(json!({"replicas": 1, "observedGeneration": 2}))).unwrap().is_so());
    }
}
