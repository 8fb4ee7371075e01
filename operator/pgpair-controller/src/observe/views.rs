//! Objects of the API as what the decisions need of them. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerState, Node, Pod};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::names::{
    ANNOTATION_SEED, ANNOTATION_SEED_FAILURES, COMPONENT_SEED, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_PAIR,
    PairName,
};
use pgpair_api::spec::{AntiAffinity, SchedulingSpec};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::config::{CONFIG_KEY, PairConfig};
use pgpair_wire::lease;
use pgpair_wire::seed::SeedEnd;
use pgpair_wire::words::{WORDS, shown};

use crate::cache::{Caches, JOB_NAME, REVISION};
use crate::observed::{Ended, JobView, LeaseView, PodView, SeedFailure, SeedJob, SeedState, SetView};
use crate::ownership::is_own;

/// The container of a pod that runs the agent, or the seeding program.
pub(crate) const CONTAINER: &str = "postgres";
/// The kubelet ends a pod within about a second of its last container.
const SETTLES: Duration = Duration::from_secs(10);
/// Taint by which an administrator says that a node is shut down and will not come back by itself.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub(crate) fn lease_view(lease: Option<&Lease>) -> LeaseView {
    let Some(lease) = lease else { return LeaseView::Missing };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|s| s.holder_identity.as_deref());
    match lease::read(holder, spec.and_then(|s| s.lease_transitions), lease.annotations()) {
        Ok(record) => LeaseView::Present(record),
        Err(why) => LeaseView::Unreadable(why.to_string()),
    }
}

fn is_of<K: ResourceExt>(object: &K, name: &PairName, i: InstanceId) -> bool {
    object.namespace().as_deref() == Some(&name.namespace)
        && object.labels().get(LABEL_PAIR) == Some(&name.name)
        && object.labels().get(LABEL_INSTANCE).map(String::as_str) == Some(i.as_str())
}

pub(crate) fn set_view(set: &StatefulSet) -> SetView {
    let number = |key: &str| set.annotations().get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
    SetView {
        replicas: set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
        running: set.status.as_ref().map_or(0, |s| s.replicas),
        seed: number(ANNOTATION_SEED),
        seed_failures: number(ANNOTATION_SEED_FAILURES),
    }
}

/// The revision of the newest template; `None` while the StatefulSet's controller has not looked at it.
pub(crate) fn update_revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    let current = status.observed_generation? >= set.metadata.generation?;
    status.update_revision.clone().filter(|_| current)
}

pub(crate) fn pod_view(pod: &Pod) -> PodView {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_ref());
    let container = status
        .and_then(|s| s.container_statuses.as_ref())
        .and_then(|containers| containers.iter().find(|c| c.name == CONTAINER));
    let states = container.into_iter().flat_map(|c| [c.state.as_ref(), c.last_state.as_ref()]).flatten();
    let ended: Vec<Ended> = states.clone().filter_map(ended).collect();
    PodView {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        ip: status.and_then(|s| s.pod_ip.clone()),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        created: pod.creation_timestamp().map(|t| t.0),
        ready: conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        running: status.and_then(|s| s.phase.as_deref()) == Some("Running"),
        started: states.into_iter().any(|s| s.running.is_some() || s.terminated.is_some()),
        revision: pod.labels().get(REVISION).cloned(),
        ended,
    }
}

fn ended(state: &ContainerState) -> Option<Ended> {
    let terminated = state.terminated.as_ref()?;
    Some(Ended {
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
    })
}

/// The StatefulSet of an instance. One of this name that is not the pair's is none.
pub(crate) fn instance_set(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> Option<StatefulSet> {
    let set =
        caches.stateful_sets.get(&ObjectRef::new(&pair.name.instance(i)).within(&pair.name.namespace))?;
    is_own(pair, &set.metadata).then_some(set)
}

/// The pod of an instance. Evidence of death is read from it, so a name and labels are not enough: the StatefulSet of the
/// instance must control it.
pub(crate) fn instance_pod(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> Option<Pod> {
    let pod = caches.pods.get(&ObjectRef::new(&pair.name.pod(i)).within(&pair.name.namespace))?;
    let set = instance_set(caches, pair, i)?;
    is_controlled_by(&pod.metadata, set.metadata.uid.as_ref()).then_some(pod)
}

fn is_controlled_by(meta: &ObjectMeta, uid: Option<&String>) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    uid.is_some() && owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid)
}

/// The seeding Jobs of an instance, also older ones than its StatefulSet waits for.
pub(crate) fn seed_jobs(caches: &Caches, pair: &ValidatedPair, i: InstanceId) -> Vec<SeedJob> {
    let stem = pair.name.seed_job_stem(i);
    let jobs = caches.jobs.beginning_with(&pair.name.namespace, &stem);
    let own = |job: &&Job| is_of(*job, &pair.name, i) && is_own(pair, &job.metadata);
    jobs.iter().filter(own).filter_map(|job| seed_job(job, &stem)).collect()
}

fn seed_job(job: &Job, stem: &str) -> Option<SeedJob> {
    let number = job.name_any().strip_prefix(stem)?.parse().ok()?;
    let state = match job_view(job) {
        JobView::Failed(at, message) => SeedState::Failed { at, message },
        JobView::Done(..) => SeedState::Complete,
        JobView::Missing | JobView::Running => SeedState::Running,
    };
    Some(SeedJob { number, state, progress: None, failure: None })
}

/// How a Job that is there has ended, by its conditions.
pub(crate) fn job_view(job: &Job) -> JobView<()> {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let holds = |type_: &str| {
        let condition = conditions.iter().find(|c| c.type_ == type_ && c.status == "True")?;
        let at = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        Some((at, condition.message.clone().unwrap_or_default()))
    };
    match (holds("Failed"), holds("Complete")) {
        (Some((at, message)), _) => JobView::Failed(at, message),
        (None, Some((at, _))) => JobView::Done(at, ()),
        (None, None) => JobView::Running,
    }
}

/// A Job of the pair.
pub(crate) fn own_job(caches: &Caches, pair: &ValidatedPair, job: &str) -> Option<Job> {
    let job = caches.jobs.get(&ObjectRef::new(job).within(&pair.name.namespace))?;
    is_own(pair, &job.metadata).then_some(job)
}

/// The pods that a Job of the pair controls. Their last words end the wait for a copy, or decide an adoption, so a name and labels are not enough.
pub(crate) fn job_pods(caches: &Caches, pair: &ValidatedPair, i: InstanceId, job: &str) -> Vec<Pod> {
    let Some(uid) = own_job(caches, pair, job).and_then(|job| job.metadata.uid) else {
        return Vec::new();
    };
    // The name of a pair is short enough for the names of such pods to begin with the whole name of their Job.
    let mut pods = caches.pods.beginning_with(&pair.name.namespace, &format!("{job}-"));
    pods.retain(|pod| {
        is_of(pod, &pair.name, i)
            && pod.labels().get(LABEL_COMPONENT).map(String::as_str) == Some(COMPONENT_SEED)
            && pod.labels().get(JOB_NAME).map(String::as_str) == Some(job)
            && is_controlled_by(&pod.metadata, Some(&uid))
    });
    pods
}

/// A seeding pod whose program has failed some time ago and that goes on all the same, because a container of somebody else runs
/// in it: its Job waits for it for ever.
pub(crate) fn stuck(pod: &Pod, now: Timestamp) -> Option<SeedState> {
    let status = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Running"))?;
    let program = status.container_statuses.iter().flatten().find(|c| c.name == CONTAINER)?;
    let ended = program.state.as_ref()?.terminated.as_ref().filter(|t| t.exit_code != 0)?;
    let at = ended.finished_at.as_ref()?.0;
    let long = now.duration_since(at).unsigned_abs() >= SETTLES;
    (long && pod.metadata.deletion_timestamp.is_none()).then(|| SeedState::Failed {
        at,
        message: format!("its program ended with exit code {}", ended.exit_code),
    })
}

/// The label by which the scheduler has to keep the instances apart.
pub(crate) fn apart_by(scheduling: &SchedulingSpec) -> Option<String> {
    (scheduling.anti_affinity == AntiAffinity::Required).then(|| scheduling.topology_key.clone())
}

/// Whether a seeding pod has done its work: its last words say so, and the process ended with them.
pub(crate) fn has_seeded(pod: &PodView) -> bool {
    let says = |message: &str| serde_json::from_str::<SeedEnd>(message).is_ok_and(|end| end.seeded);
    pod.ended.iter().any(|ended| ended.reason == "Completed" && says(&ended.message))
}

/// How a seeding pod failed, by its last words.
pub(crate) fn seed_failure(pod: &PodView) -> Option<SeedFailure> {
    pod.ended.iter().find_map(|ended| {
        let end: SeedEnd = serde_json::from_str(&ended.message).ok()?;
        Some(SeedFailure { why: shown(&end.error?, WORDS), kept: end.kept })
    })
}

/// The settings in ConfigMap `NAME-config`; `None` if it is not readable.
pub(crate) fn settings(map: &ConfigMap) -> Option<PairConfig> {
    serde_json::from_str(map.data.as_ref()?.get(CONFIG_KEY)?).ok()
}

pub(crate) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|t| t.key == OUT_OF_SERVICE))
}

/// Whether its kubelet answers.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> PodView {
        pod_view(
            &serde_json::from_value(json!({
                "metadata": {"name": "orders-a-0", "labels": {"controller-revision-hash": "orders-a-6f"}},
                "status": status,
            }))
            .unwrap(),
        )
    }

    #[test]
    fn ended_runs_of_the_agents_container_are_read_from_both_places_and_from_no_other_container() {
        let ended =
            |reason, message| json!({"terminated": {"exitCode": 137, "reason": reason, "message": message}});
        let view = pod(json!({"phase": "Running", "containerStatuses": [
            {"name": "witness", "ready": true, "restartCount": 0, "image": "", "imageID": "", "lastState": ended("Error", "not this one")},
            {"name": "postgres", "ready": true, "restartCount": 2, "image": "", "imageID": "",
             "state": ended("OOMKilled", "00000000000000aa"), "lastState": ended("Error", "00000000000000ab")},
        ]}));
        let words: Vec<_> = view.ended.iter().map(|e| (e.reason.as_str(), e.message.as_str())).collect();
        assert_eq!(words, [("OOMKilled", "00000000000000aa"), ("Error", "00000000000000ab")]);
        assert!(view.started && view.running && !view.ready);
        assert_eq!(view.revision.as_deref(), Some("orders-a-6f"));
    }

    #[test]
    fn a_pod_whose_image_cannot_be_pulled_has_not_started() {
        let waiting = json!({"phase": "Pending", "containerStatuses": [
            {"name": "postgres", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": "ErrImagePull"}}},
        ]});
        assert!(!pod(waiting).started);
        assert!(!pod(json!({})).started);
    }

    #[test]
    fn the_newest_revision_counts_only_when_it_is_of_the_newest_template() {
        let set = |observed: i64| {
            serde_json::from_value(json!({
                "metadata": {"name": "orders-a", "generation": 4}, "spec": {"selector": {}, "template": {}},
                "status": {"replicas": 1, "observedGeneration": observed, "updateRevision": "orders-a-7c"},
            }))
            .unwrap()
        };
        assert_eq!(update_revision(&set(4)).as_deref(), Some("orders-a-7c"));
        assert_eq!(update_revision(&set(3)), None);
    }

    #[test]
    fn the_words_of_a_failed_copy_are_its_error() {
        let view = |message| {
            pod(
                json!({"containerStatuses": [{"name": "postgres", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}}]}),
            )
        };
        let failure = |kept| Some(SeedFailure { why: "no space".into(), kept });
        assert_eq!(seed_failure(&view(r#"{"seeded":false,"error":"no space"}"#)), failure(false));
        assert_eq!(seed_failure(&view(r#"{"seeded":false,"error":"no space","kept":true}"#)), failure(true));
        assert_eq!(seed_failure(&view(r#"{"doneBytes":1,"totalBytes":2,"percent":50}"#)), None);
        assert_eq!(seed_failure(&view("killed")), None);
    }

    #[test]
    fn a_seeding_pod_has_done_its_work_when_it_ended_well_and_says_so() {
        let ended = |reason: &str, message: &str| {
            has_seeded(&pod(
                json!({"containerStatuses": [{"name": "postgres", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"terminated": {"exitCode": 0, "reason": reason, "message": message}}}]}),
            ))
        };
        assert!(ended("Completed", r#"{"seeded":true,"volumeId":"0000000000000007"}"#));
        assert!(!ended("Error", r#"{"seeded":true,"volumeId":"0000000000000007"}"#));
        assert!(!ended("Completed", r#"{"seeded":false,"error":"no space"}"#));
        assert!(!ended("Completed", ""));
    }

    #[test]
    fn a_copy_that_failed_is_seen_although_a_container_beside_it_goes_on() {
        let at = |seconds: i64| Timestamp::from_second(1_777_636_800 + seconds).unwrap();
        let pod = |phase: &str, exit: i32| -> Pod {
            let ended =
                json!({"terminated": {"exitCode": exit, "reason": "Error", "finishedAt": at(0).to_string()}});
            let status = |name: &str, state: serde_json::Value| json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
            let containers = [status("postgres", ended), status("proxy", json!({"running": {}}))];
            let status = json!({"phase": phase, "containerStatuses": containers});
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let failed = SeedState::Failed { at: at(0), message: "its program ended with exit code 1".into() };
        assert_eq!(stuck(&pod("Running", 1), at(10)), Some(failed));
        assert_eq!(stuck(&pod("Running", 1), at(9)), None, "the kubelet ends the pod in a moment");
        assert_eq!(stuck(&pod("Failed", 1), at(60)), None, "its Job sees it");
        assert_eq!(stuck(&pod("Running", 0), at(60)), None);
    }

    #[test]
    fn only_the_out_of_service_taint_counts() {
        let node = |key: &str| {
            serde_json::from_value::<Node>(json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": key, "effect": "NoExecute"}]}}))
                .unwrap()
        };
        assert!(is_out_of_service(&node("node.kubernetes.io/out-of-service")));
        assert!(!is_out_of_service(&node("node.kubernetes.io/unreachable")));
        assert!(!is_out_of_service(&node("node.kubernetes.io/not-ready")));
        assert!(!is_out_of_service(&Node::default()));
    }
}
