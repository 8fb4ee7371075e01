use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use pgpair_api::names::FIELD_MANAGER;
use pgpair_core::authority::Durable;
use pgpair_core::ids::InstanceId::A;
use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Record, RecordUid};
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_wire::adopt::{KeptVolume, Look};
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::build::{adopt_job, claims, record, seed_job, services, stateful_set};
use crate::cache::{Caches, cache};
use crate::fixtures::{name, valid};
use crate::mock_api::{Store, empty_caches};
use crate::observe::adoption::observe_adoption;
use crate::observe::views;
use crate::observed::{AdoptJobs, JobView};
use crate::ownership::is_own;
use crate::plan::{AdoptJob, InstancePlan};
use crate::trouble::of_pod;

/// Of every object here.
const UID: &str = "6f1d5a0e-5a3c-4ec1-8a53-1b2d1e6f9a10";

/// What the API server and others add to an object of ours.
fn dressed<K: Serialize + DeserializeOwned>(object: &K, status: Value) -> K {
    let mut value = serde_json::to_value(object).unwrap();
    let wide = "x".repeat(2000);
    let meta = value["metadata"].as_object_mut().unwrap();
    meta.extend([
        ("uid".into(), json!(UID)),
        ("resourceVersion".into(), json!("7")),
        ("generation".into(), json!(4)),
        ("creationTimestamp".into(), json!("2026-05-01T12:00:00Z")),
        (
            "managedFields".into(),
            json!([{"manager": "pgreplicapair", "fieldsV1": {"f:spec": {"f:wide": wide}}}]),
        ),
    ]);
    let annotations = meta.entry("annotations").or_insert_with(|| json!({})).as_object_mut().unwrap();
    annotations.insert("kubectl.kubernetes.io/last-applied-configuration".into(), json!(wide));
    if !status.is_null() {
        value["status"] = status;
    }
    serde_json::from_value(value).unwrap()
}

/// The object as a cache keeps it; the sizes before and after are printed.
fn kept<K: Cached + Serialize>(object: &K) -> K {
    let mut trimmed = object.clone();
    trimmed.trim();
    let size = |object: &K| serde_json::to_vec(object).unwrap().len();
    let (before, after) = (size(object), size(&trimmed));
    println!("{}: {before} bytes as JSON, {after} of them kept", K::kind(&()));
    assert!(after < 1100 && after * 4 < before, "{before} -> {after}");
    let (kept, mut writer) = cache();
    writer.take(Event::Apply(object.clone()));
    let key = ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap());
    let found = serde_json::to_value(kept.get(&key).unwrap()).unwrap();
    assert_eq!(found, serde_json::to_value(&trimmed).unwrap(), "it comes out of the cache as it was trimmed");
    let (was, is) = (object.meta(), trimmed.meta());
    assert_eq!((&was.name, &was.namespace, &was.uid), (&is.name, &is.namespace, &is.uid));
    assert_eq!((&was.resource_version, was.generation), (&is.resource_version, is.generation));
    assert_eq!(is_own(&valid(json!({})), was), is_own(&valid(json!({})), is));
    trimmed
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "ready": true, "started": true, "restartCount": 1, "image": "registry.test/pg:17", "imageID": "sha256:00",
           "containerID": "containerd://00", "state": state,
           "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "message": "00000000000000aa"}}})
}

#[test]
fn of_a_stateful_set_its_replicas_revision_and_seed_are_kept() {
    let plan = InstancePlan { replicas: 1, seed: 3, seed_failures: 2 };
    let set = stateful_set::build_stateful_set(&valid(json!({})), A, &plan);
    let status = json!({"replicas": 1, "observedGeneration": 4, "updateRevision": "orders-a-7c", "availableReplicas": 1});
    let set = dressed(&set, status);
    let (was, is) = (views::set_view(&set), views::set_view(&kept(&set)));
    assert_eq!((was, views::update_revision(&set)), (is, Some("orders-a-7c".into())));
    assert_eq!(views::update_revision(&kept(&set)), views::update_revision(&set));
}

#[test]
fn of_a_pod_its_place_its_containers_and_its_labels_are_kept() {
    let plan = InstancePlan { replicas: 1, seed: 3, seed_failures: 2 };
    let template = stateful_set::build_stateful_set(&valid(json!({})), A, &plan);
    let template = template.spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some(name().pod(A));
    pod.metadata.namespace = Some("shop".into());
    pod.labels_mut().insert(REVISION.into(), "orders-a-7c".into());
    pod.spec.as_mut().unwrap().node_name = Some("node-a".into());
    let runs = json!({"running": {"startedAt": "2026-05-01T12:00:00Z"}});
    let conditions =
        json!([{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}]);
    let healthy = json!({"phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.168.0.1", "conditions": conditions,
                         "containerStatuses": [container("postgres", runs.clone()), container("witness", runs)]});
    let healthy = dressed(&pod, healthy);
    assert_eq!(views::pod_view(&kept(&healthy)), views::pod_view(&healthy));
    let waits =
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}});
    let unscheduled =
        json!([{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]);
    let hindered = [
        json!({"phase": "Pending", "initContainerStatuses": [container("install", waits.clone())]}),
        json!({"phase": "Pending", "containerStatuses": [container("postgres", waits)]}),
        json!({"phase": "Pending", "conditions": unscheduled}),
    ];
    for status in hindered {
        let pod = dressed(&pod, status);
        assert!(of_pod(&pod).is_some());
        assert_eq!(of_pod(&kept(&pod)), of_pod(&pod));
    }
}

/// Caches that hold these two and nothing else.
fn seeding(job: Job, pod: Pod) -> Caches {
    let (jobs, mut job_writer) = cache();
    let (pods, mut pod_writer) = cache();
    job_writer.take(Event::Apply(job));
    pod_writer.take(Event::Apply(pod));
    Caches { jobs, pods, ..empty_caches() }
}

/// The pod that the Job controller makes of it.
fn pod_of(job: &Job) -> Pod {
    let (name, template) = (job.name_any(), job.spec.clone().unwrap().template);
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some(format!("{name}-x7k2p"));
    pod.metadata.namespace = Some("shop".into());
    pod.labels_mut().insert(JOB_NAME.into(), name.clone());
    let maker =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": UID, "controller": true}]);
    pod.metadata.owner_references = serde_json::from_value(maker).unwrap();
    pod
}

#[test]
fn of_a_seeding_job_its_end_is_kept_and_its_pod_is_found_by_its_labels() {
    let job = seed_job::build_seed_job(&valid(json!({})), A, 12);
    let pod = pod_of(&job);
    let ended = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-05-01T12:00:00Z"}});
    let pod = dressed(&pod, json!({"phase": "Running", "containerStatuses": [container("postgres", ended)]}));
    let failed = json!([{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded",
                         "lastTransitionTime": "2026-05-01T12:00:00Z"}]);
    let job = dressed(&job, json!({"conditions": failed, "failed": 4, "startTime": "2026-05-01T12:00:00Z"}));
    let _ = kept(&job);
    let caches = seeding(job, pod.clone());
    let [seen] = views::seed_jobs(&caches, &valid(json!({})), A).try_into().unwrap();
    assert_eq!(seen.number, 12);
    let told = format!("{:?}", seen.state);
    assert!(told.contains("BackoffLimitExceeded") && told.contains("2026-05-01"), "{told}");
    let found = views::job_pods(&caches, &valid(json!({})), A, "orders-a-seed-12");
    let now: Timestamp = "2026-05-01T13:00:00Z".parse().unwrap();
    assert_eq!(found.len(), 1);
    assert!(views::stuck(&found[0], now).is_some());
    assert_eq!(views::stuck(&found[0], now), views::stuck(&pod, now));
    assert!(views::job_pods(&caches, &valid(json!({})), A, "orders-a-seed-1").is_empty());
}

#[test]
fn of_the_job_of_an_adoption_its_pod_says_what_was_found() {
    let pair = valid(json!({"bootstrap": {"adopt": {}}}));
    let look = Look::Volume(KeptVolume {
        volume_id: VolumeId(u64::MAX),
        system_identifier: SystemIdentifier(u64::MAX),
        version: 17,
        history: TimelineHistory {
            timeline: TimelineId(u32::MAX),
            ancestors: vec![(TimelineId(u32::MAX), Lsn(u64::MAX)); pgpair_wire::adopt::ANCESTORS],
        },
        end: Some(Lsn(u64::MAX)),
        end_unknown: None,
        written_ms: Some(u64::MAX),
        state: Some(Durable { record_uid: Some(RecordUid(u128::MAX)), ..Durable::default() }),
    });
    let job = adopt_job::build_adopt_job(&pair, AdoptJob::Look(A));
    let pod = pod_of(&job);
    let complete =
        json!([{"type": "Complete", "status": "True", "lastTransitionTime": "2026-05-01T12:00:00Z"}]);
    let job = dressed(&job, json!({"conditions": complete}));
    let with = |state: Value| {
        let status = json!({"phase": "Succeeded", "containerStatuses": [container("postgres", state)]});
        let seen = observe_adoption(&seeding(job.clone(), dressed(&pod, status)), &pair).unwrap();
        assert_eq!(seen.b, AdoptJobs::default());
        seen.a.look
    };
    let at = "2026-05-01T12:00:00Z".parse().unwrap();
    let words = serde_json::to_string(&look).unwrap();
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": words}});
    assert_eq!(with(ended), JobView::Done(at, look));
    // The Job may be known to have ended before its pod is.
    assert_eq!(with(json!({"running": {}})), JobView::Running);
    let other = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": "{\"seen\": 1}"}});
    assert!(matches!(with(other), JobView::Failed(..)), "nobody waits for it for ever");
}

#[test]
fn of_a_claim_the_size_that_it_asks_for_is_kept() {
    let [larger, _] = claims::build_claims(&valid(json!({"storage": {"data": {"size": "20Gi"}}})), A);
    let [wanted, _] = claims::build_claims(&valid(json!({"storage": {"data": {"size": "1Gi"}}})), A);
    let larger = dressed(&larger, json!({"phase": "Bound", "capacity": {"storage": "20Gi"}}));
    let merged = claims::at_least_as_large(&wanted, &larger);
    assert_ne!(merged, wanted);
    assert_eq!(claims::at_least_as_large(&wanted, &kept(&larger)), merged);
    assert_eq!(kept(&larger).labels().get(LABEL_PAIR).map(String::as_str), Some("orders"), "whose it is");
}

#[test]
fn of_slices_the_addresses_are_kept() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "orders-rw", "namespace": "shop", "labels": {LABEL_PAIR: "orders"}}, "addressType": "IPv4",
        "ports": [{"name": "postgres", "port": 5432}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n"}],
    }))
    .unwrap();
    assert_eq!(kept(&dressed(&slice, Value::Null)).endpoints[0].addresses, ["10.0.0.1"]);
}

#[test]
fn of_a_record_all_that_the_protocol_reads_is_kept() {
    let lease = dressed(&record::build_lease(&valid(json!({})), &Record::initial()), Value::Null);
    assert_eq!(views::lease_view(Some(&kept(&lease))), views::lease_view(Some(&lease)));
    assert!(views::lease_view(Some(&lease)).record().is_some());
}

#[test]
fn which_fields_are_ours_is_kept_as_a_digest() {
    let [mut service, ..] = services::build_services(&valid(json!({})));
    service.metadata.managed_fields = serde_json::from_value(json!([
        {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:type": {}}}},
    ]))
    .unwrap();
    let mut found = PartialObjectMeta::<Service> { metadata: service.metadata, ..Default::default() };
    found.trim();
    assert_eq!(found.metadata.managed_fields, None);
    assert_eq!(found.annotations().len(), 1, "{:?}", found.annotations());
}

#[test]
fn of_what_is_cached_by_its_metadata_our_annotations_and_the_owner_are_kept() {
    let [service, ..] = services::build_services(&valid(json!({})));
    let mut service = dressed(&service, Value::Null);
    service.annotations_mut().insert("pgpair.dev/not-after".into(), "2026-07-01T00:00:00Z".into());
    let found = PartialObjectMeta::<Service> { metadata: service.metadata, ..PartialObjectMeta::default() };
    let found = kept(&found);
    assert_eq!(found.annotations().len(), 1);
    assert_eq!(found.annotations()["pgpair.dev/not-after"], "2026-07-01T00:00:00Z");
}

#[test]
fn what_a_cache_gives_out_is_trimmed() {
    let store = Store::default();
    let secret = dressed(
        &Secret {
            metadata: services::build_services(&valid(json!({})))[0].metadata.clone(),
            ..Secret::default()
        },
        Value::Null,
    );
    let path = format!("/api/v1/namespaces/shop/secrets/{}", secret.name_any());
    store.objects().insert(path, serde_json::to_value(&secret).unwrap());
    let key = ObjectRef::new(&secret.name_any()).within("shop");
    assert_eq!(store.caches().secrets.get(&key).unwrap().metadata.managed_fields, None);
}
