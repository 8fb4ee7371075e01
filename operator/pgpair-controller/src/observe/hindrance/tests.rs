use std::sync::Arc;

use pgpair_core::ids::InstanceId::A;
use pgpair_wire::seed::SeedProgress;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{steady, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Store, store_api};
use crate::observed::InstanceObserved;

const EVENTS: &str = "/api/v1/namespaces/shop/events";

fn controller(version: &str, kind: &str, uid: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "name": "orders", "uid": uid, "controller": true})
}

fn the_pair() -> Value {
    controller("pgpair.dev/v1alpha1", "PgReplicaPair", "11111111-2222")
}

struct World {
    requests: Requests,
    store: Store,
    memory: Memory,
    status: PgReplicaPairStatus,
}

impl World {
    /// A StatefulSet that wants one replica, this pod, and this warning about whatever is asked for.
    fn new(pod: Option<Value>, warning: &str) -> World {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let meta = |name: &str, uid: &str, owner: Value| {
            let labels = json!({"pgpair.dev/pair": "orders", "pgpair.dev/instance": "a"});
            json!({"name": name, "namespace": "shop", "uid": uid, "labels": labels, "ownerReferences": [owner]})
        };
        let set = json!({"metadata": meta("orders-a", "set-1", the_pair()), "spec": {"selector": {}, "template": {}, "replicas": 1}});
        store.objects().insert("/apis/apps/v1/namespaces/shop/statefulsets/orders-a".into(), set);
        if let Some(status) = pod {
            let pod = json!({"metadata": meta("orders-a-0", "pod-1", controller("apps/v1", "StatefulSet", "set-1")), "spec": {"containers": [], "nodeName": "n1"}, "status": status});
            store.objects().insert("/api/v1/namespaces/shop/pods/orders-a-0".into(), pod);
        }
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {}, "message": warning});
        let events = json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [event]});
        store.objects().insert(EVENTS.into(), events);
        World { requests, store, memory: Memory::default(), status: PgReplicaPairStatus::default() }
    }

    async fn look(&mut self) -> Option<PodTrouble> {
        let (caches, pair) = (self.store.caches(), valid(json!({})));
        let instance = InstanceObserved { jobs: Vec::new(), ..steady().a };
        observe_hindrance(&self.requests, &caches, &mut self.memory, &pair, A, &self.status, &instance).await
    }

    /// Job 1 of instance a, whose pod runs; `more` of the pod's metadata.
    fn seeding(more: Value) -> World {
        let world = World::new(None, "");
        world.store.objects().retain(|path, _| !path.contains("statefulsets"));
        let labels = json!({"pgpair.dev/pair": "orders", "pgpair.dev/instance": "a", "pgpair.dev/component": "instance-seed",
                            "batch.kubernetes.io/job-name": "orders-a-seed-1"});
        let job = json!({"metadata": {"name": "orders-a-seed-1", "namespace": "shop", "uid": "job-1", "labels": labels,
                                      "ownerReferences": [the_pair()]}});
        world.store.objects().insert("/apis/batch/v1/namespaces/shop/jobs/orders-a-seed-1".into(), job);
        let mut meta = json!({"name": "orders-a-seed-1-x", "namespace": "shop", "uid": "pod-1", "labels": labels,
                              "ownerReferences": [controller("batch/v1", "Job", "job-1")]});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "postgres", "ready": true, "restartCount": 0,
                            "started": true, "image": "", "imageID": "", "state": {"running": {}}}]});
        let pod = json!({"metadata": meta, "spec": {"containers": [], "nodeName": "n1"}, "status": status});
        world.store.objects().insert("/api/v1/namespaces/shop/pods/orders-a-seed-1-x".into(), pod);
        world
    }

    async fn look_at_copy(&mut self, done_bytes: u64) -> Option<PodTrouble> {
        let progress = SeedProgress { done_bytes, total_bytes: None, percent: None };
        let job = SeedJob { number: 1, state: SeedState::Running, progress: Some(progress), failure: None };
        let instance = InstanceObserved { jobs: vec![job], ..InstanceObserved::default() };
        let (caches, pair) = (self.store.caches(), valid(json!({})));
        observe_hindrance(&self.requests, &caches, &mut self.memory, &pair, A, &self.status, &instance).await
    }

    fn later(&mut self, by: Duration) {
        for known in self.memory.hindrances.values_mut() {
            known.since -= by;
        }
        self.memory.warnings_read = self.memory.warnings_read.map(|at| at - by);
    }
}

#[tokio::test]
async fn a_pod_that_runs_costs_no_request() {
    let started = json!({"phase": "Running", "containerStatuses": [{"name": "postgres", "ready": true, "restartCount": 0,
                         "started": true, "image": "", "imageID": "", "state": {"running": {}}}]});
    let mut world = World::new(Some(started), "of last week");
    for _ in 0..3 {
        assert_eq!(world.look().await, None);
        world.later(UNSTARTED);
    }
    assert_eq!(world.store.requests(), 0);
}

#[tokio::test]
async fn why_no_pod_is_made_is_read_from_the_warnings_about_its_maker_and_not_often() {
    let mut world = World::new(
        None,
        "create Pod orders-a-0 failed error: pods \"orders-a-0\" is forbidden: exceeded quota",
    );
    assert_eq!(world.look().await, None);
    assert_eq!(world.store.requests(), 0, "it may come in a moment");
    world.later(UNMADE);
    let refused = Some(PodTrouble::Refused("exceeded quota".into()));
    for _ in 0..3 {
        assert_eq!(world.look().await, refused);
    }
    assert_eq!(world.store.requests(), 1);
    world.later(READ_AGAIN);
    assert_eq!((world.look().await, world.store.requests()), (refused, 2));
}

#[tokio::test]
async fn a_pod_that_does_not_start_has_its_warnings_read() {
    let creating = json!({"phase": "Pending", "containerStatuses": [{"name": "postgres", "ready": false, "restartCount": 0,
                          "image": "", "imageID": "", "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    let mut world = World::new(Some(creating), "MountVolume.SetUp failed: no such claim");
    assert_eq!(world.look().await, None);
    world.later(UNSTARTED);
    assert_eq!(
        world.look().await,
        Some(PodTrouble::NotStarting("MountVolume.SetUp failed: no such claim".into()))
    );
}

#[tokio::test]
async fn what_the_pod_itself_says_is_told_after_a_while_and_at_once_if_it_was_told_before() {
    let unscheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "no node"}]});
    let told = Some(PodTrouble::Unschedulable("no node".into()));
    let mut world = World::new(Some(unscheduled), "");
    assert_eq!(world.look().await, None, "a volume may be on its way");
    world.later(PATIENCE);
    assert_eq!(world.look().await, told);
    (world.memory, world.status) = (
        Memory::default(),
        serde_json::from_value(
            json!({"conditions": [{"type": "Degraded", "status": "True", "reason": "PodUnschedulable",
            "message": "", "lastTransitionTime": "2026-05-01T12:00:00Z"}]}),
        )
        .unwrap(),
    );
    assert_eq!(world.look().await, told, "after a change of the operator's leader");
    assert_eq!(world.store.requests(), 0);
}

#[tokio::test]
async fn a_copy_that_gets_no_further_is_told_and_with_the_next_byte_no_longer() {
    let mut world = World::seeding(json!({}));
    for done in [1, 2] {
        assert_eq!(world.look_at_copy(done).await, None);
        world.later(STALLED - Duration::from_secs(1));
        assert_eq!(world.look_at_copy(done).await, None, "it may still be about to give up");
        world.later(Duration::from_secs(1));
        assert_eq!(world.look_at_copy(done).await, Some(PodTrouble::Stalled(STALLED)));
    }
    assert_eq!(world.look_at_copy(3).await, None);
    assert_eq!(world.store.requests(), 0);
}

#[tokio::test]
async fn the_pod_of_a_copy_that_does_not_end_is_told() {
    let mut world = World::seeding(json!({"deletionTimestamp": "2026-05-01T12:00:00Z"}));
    assert_eq!(world.look_at_copy(1).await, None);
    world.later(NOT_ENDING);
    assert_eq!(world.look_at_copy(1).await, Some(PodTrouble::NotEnding(NOT_ENDING)));
}
