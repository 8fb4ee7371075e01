use std::time::Instant;

use pgpair_core::ids::InstanceId::A;
use pgpair_core::ids::{Incarnation, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Record;
use serde_json::json;

use super::Freshness::{Glance, Look, Now};
use super::*;
use crate::build::config::build_config;
use crate::build::record::build_lease;
use crate::fixtures::{OPERATOR_TLS, defaults, now, pair, report, secret_path, valid};
use crate::memory::Looked;
use crate::mock_api::{Answers, context, mock_api, seen, store_api};
use crate::plan::EndpointTarget;
use crate::secrets::Extent;

/// Paths that two observations ask the API server for, after such a look; the watch has the record of term 0.
async fn asked(looked: Looked, freshness: [Freshness; 2]) -> Vec<String> {
    let (client, store) = store_api();
    let requests = Requests::new(client, "shop", Arc::default());
    requests.create(&build_lease(&valid(json!({})), &Record::initial())).await.unwrap();
    let (client, server) = mock_api(Answers::Empty);
    let ctx = context(client, store.caches());
    let (pair, desired) = (pair(json!({})), DesiredPair { pair: valid(json!({})), invalid: None });
    let pass = Pass::new(&ctx, &pair);
    let mut memory = Memory { looked, ..Memory::default() };
    for freshness in freshness {
        let observed = observe(&pass, &mut memory, &desired, freshness).await.unwrap();
        assert_eq!(observed.is_glance, looked.allows(Term(0)) && freshness == Glance);
    }
    drop(pass);
    drop(ctx);
    seen(server).await.into_iter().map(|s| s.path).collect()
}

#[tokio::test]
async fn the_record_is_read_for_a_look_and_a_glance_takes_that_of_the_watch_unless_a_newer_one_was_seen() {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/orders";
    let found = |term| Looked::At(Instant::now(), Some(Term(term)));
    assert_eq!(asked(found(0), [Glance; 2]).await, Vec::<String>::new(), "radio silence");
    assert_eq!(asked(found(0), [Look, Now]).await, [lease, lease], "it is to be acted upon");
    assert_eq!(asked(found(1), [Glance; 2]).await, [lease, lease], "the watch is behind");
    assert_eq!(asked(Looked::Never, [Glance; 2]).await, Vec::<String>::new(), "of a new leader");
}

/// The settings that an observation goes by: the agents were given those of `given`, and the spec says `spec` now.
async fn settings_of(given: serde_json::Value, spec: serde_json::Value) -> PairConfig {
    let (client, store) = store_api();
    let requests = Requests::new(client.clone(), "shop", Arc::default());
    let mut map = build_config(&valid(given)).unwrap();
    map.metadata.resource_version = Some("5".into());
    requests.apply(&map, crate::api::Over::Nothing).await.unwrap();
    let mut changed = pair(spec);
    changed.metadata.generation = Some(4);
    let desired = DesiredPair::of(&changed, &defaults()).unwrap();
    let ctx = context(client, store.caches());
    let (pass, mut memory) = (Pass::new(&ctx, &changed), Memory::default());
    let config = observe(&pass, &mut memory, &desired, Look).await.unwrap().config;
    let asked = store.requests();
    assert_eq!(observe(&pass, &mut memory, &desired, Look).await.unwrap().config, config);
    assert_eq!(store.requests(), asked + 1, "the record; the settings are read once for each version");
    config
}

/// What is seen of instance a and its seeding Job 1, whose controllers are these.
async fn seen_of(set: &str, of_pod: &str, job: &str, of_seed: &str) -> (bool, bool, bool) {
    let (client, store) = store_api();
    let controller = |version: &str, kind: &str, uid: &str| json!([{"apiVersion": version, "kind": kind, "name": "orders", "uid": uid, "controller": true}]);
    let labels = json!({"pgpair.dev/pair": "orders", "pgpair.dev/instance": "a", "pgpair.dev/component": "instance-seed",
                        "batch.kubernetes.io/job-name": "orders-a-seed-1"});
    let meta = |name: &str, uid: &str, owner| json!({"name": name, "namespace": "shop", "uid": uid, "labels": labels, "ownerReferences": owner});
    let done = json!({"name": "postgres", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                      "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": "{\"seeded\":true,\"volumeId\":\"0000000000000007\"}"}}});
    let pod =
        |meta| json!({"metadata": meta, "spec": {"containers": []}, "status": {"containerStatuses": [done]}});
    let pairs = "PgReplicaPair";
    let objects = [
        (
            "/apis/apps/v1/namespaces/shop/statefulsets/orders-a",
            json!({"metadata": meta("orders-a", "set-1", controller("pgpair.dev/v1alpha1", pairs, set)), "spec": {"selector": {}, "template": {}}}),
        ),
        (
            "/api/v1/namespaces/shop/pods/orders-a-0",
            pod(meta("orders-a-0", "pod-1", controller("apps/v1", "StatefulSet", of_pod))),
        ),
        (
            "/apis/batch/v1/namespaces/shop/jobs/orders-a-seed-1",
            json!({"metadata": meta("orders-a-seed-1", "job-1", controller("pgpair.dev/v1alpha1", pairs, job))}),
        ),
        (
            "/api/v1/namespaces/shop/pods/orders-a-seed-1-x",
            pod(meta("orders-a-seed-1-x", "pod-2", controller("batch/v1", "Job", of_seed))),
        ),
    ];
    store.objects().extend(objects.map(|(path, object)| (path.to_owned(), object)));
    let ctx = context(client, store.caches());
    let (pair, desired) = (pair(json!({})), DesiredPair { pair: valid(json!({})), invalid: None });
    let a = observe(&Pass::new(&ctx, &pair), &mut Memory::default(), &desired, Look).await.unwrap().a;
    (a.set.is_some(), a.pod.is_some(), a.jobs.iter().any(|job| job.state == SeedState::Complete))
}

#[tokio::test]
async fn evidence_is_taken_only_from_pods_whose_controllers_are_the_pairs() {
    let own = "11111111-2222";
    assert_eq!(seen_of(own, "set-1", own, "job-1").await, (true, true, true));
    assert_eq!(seen_of(own, "set-0", own, "job-1").await, (true, false, true), "another StatefulSet's pod");
    assert_eq!(seen_of("theirs", "set-1", own, "job-1").await, (false, false, true), "another owner's set");
    assert_eq!(seen_of(own, "set-1", own, "job-0").await, (true, true, false), "another Job's pod");
    assert_eq!(seen_of(own, "set-1", "theirs", "job-1").await, (true, true, false), "another owner's Job");
}

#[tokio::test]
async fn a_pair_that_is_held_goes_by_what_its_agents_were_given_last() {
    let given = || json!({"readLag": "2Mi", "failover": {"automatic": false, "ttlSeconds": 7}});
    let held = [json!({"paused": true, "readLag": "1Gi"}), json!({"readLag": "much"})];
    for spec in held {
        let config = settings_of(given(), spec).await;
        assert_eq!((config.read_lag_bytes, config.automatic, config.ttl_ms), (2 << 20, false, 7000));
        assert_eq!(config.generation, 4, "so that they are told to be behind");
    }
    assert_eq!(settings_of(given(), json!({"readLag": "1Gi"})).await.read_lag_bytes, 1 << 30);
}

#[test]
fn where_an_agent_process_runs_is_known_by_its_own_word_only() {
    let told = |incarnation: u64| InstanceStatus {
        incarnation: Some(Incarnation(incarnation).to_string()),
        incarnation_node: Some("node-c".into()),
        ..serde_json::from_value(
            json!({"name": "orders-a", "role": "Primary", "ready": true, "state": "Primary"}),
        )
        .unwrap()
    };
    let reported = report(A, PostgresState::Primary);
    let known = |report: Option<&InstanceReport>, told: Option<InstanceStatus>| {
        find_process(report, told.as_ref()).map(|k| (k.incarnation.0, k.node))
    };
    assert_eq!(known(Some(&reported), Some(told(7))), Some((7, "node-a".into())));
    assert_eq!(known(None, Some(told(7))), Some((7, "node-c".into())), "an earlier operator process knew it");
    let older = InstanceReport { node: None, ..reported };
    assert_eq!(known(Some(&older), Some(told(7))), Some((7, "node-c".into())));
    assert_eq!(known(Some(&older), Some(told(5))), None, "another process ran there");
    assert_eq!(known(Some(&older), None), None);
}

/// What is seen of slice `NAME-rw` with this change.
async fn slice_with(change: serde_json::Value) -> SliceView {
    let (client, store) = store_api();
    let target =
        EndpointTarget { pod: "orders-a-0".into(), uid: "u".into(), ip: "10.0.0.1".into(), node: None };
    let mut slice = serde_json::to_value(build_slice(&valid(json!({})), "orders-rw", [&target])).unwrap();
    for (pointer, value) in change.as_object().unwrap() {
        *slice.pointer_mut(pointer).unwrap() = value.clone();
    }
    store
        .objects()
        .insert("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/orders-rw".into(), slice);
    let ctx = context(client, store.caches());
    let (pair, desired) = (pair(json!({})), DesiredPair { pair: valid(json!({})), invalid: None });
    observe(&Pass::new(&ctx, &pair), &mut Memory::default(), &desired, Look).await.unwrap().rw
}

#[tokio::test]
async fn of_a_slice_ports_labels_readiness_and_owner_are_seen_too() {
    let address = || vec!["10.0.0.1".to_owned()];
    assert_eq!(slice_with(json!({})).await, SliceView::Present(address()));
    let more = json!([{"name": "postgres", "port": 5432, "protocol": "TCP"}, {"name": "x", "port": 1, "protocol": "TCP"}]);
    for ports in [json!([{"name": "postgres", "port": 1, "protocol": "TCP"}]), json!([]), more] {
        assert_eq!(slice_with(json!({"/ports": ports})).await, SliceView::Altered(address()));
    }
    let label = "/metadata/labels/kubernetes.io~1service-name";
    assert_eq!(slice_with(json!({label: "other"})).await, SliceView::Altered(address()));
    assert_eq!(slice_with(json!({"/endpoints/0/conditions/ready": false})).await, SliceView::Present(vec![]));
    assert_eq!(slice_with(json!({"/metadata/ownerReferences/0/uid": "theirs"})).await, SliceView::Missing);
    assert_eq!(slice_with(json!({"/metadata/labels/pgpair.dev~1pair": "other"})).await, SliceView::Missing);
}

#[tokio::test]
async fn agents_are_called_with_the_certificate_of_an_earlier_version_until_the_operator_has_its_own() {
    let (client, store) = store_api();
    let (requests, pair) = (Requests::new(client, "shop", Arc::default()), valid(json!({})));
    let unknown = |_: &Place| None;
    secrets::apply_secrets(&requests, &pair, Extent::Spec, unknown, now()).await.unwrap();
    let own = store.objects().remove(&secret_path(OPERATOR_TLS)).unwrap();
    let mut memory = Memory::default();
    let version = |memory: &Memory| memory.tls.as_ref().map(|(version, _)| version.clone());
    assert!(fetch_tls(&requests, &store.caches(), &mut memory, &pair).await.unwrap().is_none());
    let former = pair.name.former_operator_tls_secret();
    let mut earlier = own.clone();
    earlier["metadata"] = json!({"name": former, "namespace": "shop", "resourceVersion": "5",
                                 "labels": pair.name.labels(), "ownerReferences": [pair.owner]});
    store.objects().insert(secret_path(&former), earlier);
    assert!(fetch_tls(&requests, &store.caches(), &mut memory, &pair).await.unwrap().is_some());
    assert_eq!(version(&memory).as_deref(), Some("5"));
    let mut new = own;
    new["metadata"]["resourceVersion"] = json!("6");
    store.objects().insert(secret_path(OPERATOR_TLS), new);
    fetch_tls(&requests, &store.caches(), &mut memory, &pair).await.unwrap();
    assert_eq!(version(&memory).as_deref(), Some("6"));
}
