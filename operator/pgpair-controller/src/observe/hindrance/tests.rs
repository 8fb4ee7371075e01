use std::sync::Arc;

use pgpair_core::ids::InstanceId::A;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{name, steady};
use crate::metrics::Metrics;
use crate::mock_api::{Store, store_api};
use crate::observed::InstanceObserved;

const EVENTS: &str = "/api/v1/namespaces/shop/events";

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
        let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "shop", "uid": uid});
        let set = json!({"metadata": meta("orders-a", "set-1"), "spec": {"selector": {}, "template": {}, "replicas": 1}});
        store.objects().insert("/apis/apps/v1/namespaces/shop/statefulsets/orders-a".into(), set);
        if let Some(status) = pod {
            let pod = json!({"metadata": meta("orders-a-0", "pod-1"), "spec": {"containers": [], "nodeName": "n1"}, "status": status});
            store.objects().insert("/api/v1/namespaces/shop/pods/orders-a-0".into(), pod);
        }
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {}, "message": warning});
        let events = json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [event]});
        store.objects().insert(EVENTS.into(), events);
        World { requests, store, memory: Memory::default(), status: PgReplicaPairStatus::default() }
    }

    async fn look(&mut self) -> Option<PodTrouble> {
        let caches = self.store.caches();
        let instance = InstanceObserved { jobs: Vec::new(), ..steady().a };
        observe_hindrance(&self.requests, &caches, &mut self.memory, &name(), A, &self.status, &instance)
            .await
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
