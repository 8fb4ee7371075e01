use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/";
const PAIRS: &str = "/apis/pgpair.dev/v1alpha1/pgreplicapairs";

/// An API server that keeps Leases, each write with a new version, has no pairs, and leaves other reads unanswered.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    leases: Arc<Mutex<BTreeMap<String, Value>>>,
    events: Arc<Mutex<Vec<Value>>>,
    hangs: Arc<AtomicBool>,
}

impl Cluster {
    pub(crate) fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let cluster = self.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                if cluster.hangs.load(Ordering::Relaxed) || is_other_read(&request) {
                    unanswered.push(send);
                    continue;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = cluster.answer(&parts.method, parts.uri.path(), body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                send.send_response(Response::builder().status(code).body(answer).unwrap());
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, mut body: Value) -> (StatusCode, Value) {
        if path == PAIRS {
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []});
            return (StatusCode::OK, list);
        }
        if !path.starts_with(LEASES) {
            self.events.lock().unwrap().push(body.clone());
            return (StatusCode::OK, body);
        }
        let mut leases = self.leases.lock().unwrap();
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let key = if method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
        let found = leases.get(&key).cloned();
        match (method, found) {
            (&Method::GET, _) if path.ends_with("/leases") => {
                let items: Vec<_> = leases.values().cloned().collect();
                (
                    StatusCode::OK,
                    json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {}, "items": items}),
                )
            }
            (&Method::GET, Some(lease)) => (StatusCode::OK, lease),
            (&Method::GET, None) => (StatusCode::NOT_FOUND, refusal(404, "NotFound")),
            (_, Some(old)) if body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] => {
                (StatusCode::CONFLICT, refusal(409, "Conflict"))
            }
            (_, old) => {
                let version = old
                    .as_ref()
                    .map_or(0, |o| o["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
                body["metadata"]["resourceVersion"] = json!((version + 1i64).to_string());
                body["metadata"]["namespace"] = json!(key.split('/').nth(5));
                let created =
                    old.map_or(json!("2026-05-01T12:00:00Z"), |o| o["metadata"]["creationTimestamp"].clone());
                body["metadata"]["creationTimestamp"] = created;
                leases.insert(key, body.clone());
                (StatusCode::OK, body)
            }
        }
    }

    pub(crate) fn holder(&self, namespace: &str) -> String {
        let leases = self.leases.lock().unwrap();
        let lease = &leases[&format!("{LEASES}namespaces/{namespace}/leases/operator")];
        lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }

    fn join(&self, namespace: &str, identity: &str) -> Replica {
        let client = self.client();
        let member = Membership {
            namespace: namespace.into(),
            lease: "operator".into(),
            identity: identity.into(),
            domain: Domain::default(),
        };
        let signs = Signs { health: Arc::default(), metrics: Arc::default() };
        let recorder = Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: None });
        let events = EventQueue::start(recorder, signs.metrics.clone());
        let elector = Elector::new(client, member, signs.clone(), events);
        let (leads, leading) = watch::channel(Leadership::Ended { until: Instant::now() });
        let (working, works) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let election = tokio::spawn(elector.run(leads, works, stopped));
        Replica { signs, leading, working, stop, election }
    }
}

fn is_other_read(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET && !path.starts_with(LEASES) && path != PAIRS
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "refused"})
}

/// One replica and what it is told.
struct Replica {
    signs: Signs,
    leading: watch::Receiver<Leadership>,
    working: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    election: JoinHandle<()>,
}

impl Replica {
    fn leads(&self) -> bool {
        self.leading.borrow().leads()
    }

    /// How long it took until it led.
    async fn begins(&mut self) -> Duration {
        let start = Instant::now();
        let leads = timeout(Duration::from_secs(300), self.leading.wait_for(|l| l.leads())).await;
        leads.expect("it never led").unwrap();
        start.elapsed()
    }

    async fn ends(&mut self) -> Instant {
        let ended = timeout(Duration::from_secs(300), self.leading.wait_for(|l| !l.leads())).await;
        ended.expect("it led for ever").unwrap().ends().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_stop_gives_its_lease_up_when_its_work_has_ended() {
    let cluster = Cluster::default();
    let mut replica = cluster.join("operators", "replica-1");
    replica.begins().await;
    replica.working.send_replace(true);
    replica.stop.send_replace(true);
    let until = replica.ends().await;
    assert_eq!(until - Instant::now(), DRAIN);
    assert_eq!(cluster.holder("operators"), "replica-1", "what runs has not ended");
    replica.working.send_replace(false);
    replica.election.await.unwrap();
    assert_eq!(cluster.holder("operators"), "");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_work_does_not_end_leaves_its_lease_to_run_out() {
    let cluster = Cluster::default();
    let mut replica = cluster.join("operators", "replica-1");
    replica.begins().await;
    replica.working.send_replace(true);
    replica.stop.send_replace(true);
    replica.election.await.unwrap();
    assert_eq!(cluster.holder("operators"), "replica-1");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_answers_has_ended_its_work_before_another_one_may_begin() {
    let cluster = Cluster::default();
    let mut replica = cluster.join("operators", "replica-1");
    replica.begins().await;
    let renewed = Instant::now();
    cluster.hangs.store(true, Ordering::Relaxed);
    let until = replica.ends().await;
    assert!(Instant::now() - renewed <= RENEW_DEADLINE, "after {:?}", Instant::now() - renewed);
    assert!(until - renewed < LEASE, "after {:?}", until - renewed);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_when_it_has_stood_still_for_its_length_and_not_before() {
    let cluster = Cluster::default();
    let mut first = cluster.join("operators", "replica-1");
    first.begins().await;
    let mut second = cluster.join("operators", "replica-2");
    assert!(timeout(LEASE * 4, second.begins()).await.is_err(), "it is being renewed");
    first.election.abort();
    let waited = second.begins().await;
    assert!(waited + RETRY >= LEASE && waited <= LEASE + 3 * RETRY, "after {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_installation_stands_aside_says_so_and_takes_over_when_the_first_is_gone() {
    let cluster = Cluster::default();
    let mut first = cluster.join("operators", "first");
    first.begins().await;
    let mut second = cluster.join("a-second", "second");
    assert!(timeout(Duration::from_secs(120), second.begins()).await.is_err());
    assert!(first.leads() && second.signs.metrics.render().contains("operator_conflict 1"));
    let events = cluster.events.lock().unwrap().clone();
    let told: Vec<_> = events.iter().map(|e| (&e["reason"], &e["regarding"]["namespace"])).collect();
    assert_eq!(told, [(&json!("OperatorConflict"), &json!("a-second"))], "once, on its own Lease");
    first.stop.send_replace(true);
    first.election.await.unwrap();
    let waited = second.begins().await;
    assert!(waited >= Duration::from_secs(45), "its replicas might only change over: {waited:?}");
    assert!(second.signs.metrics.render().contains("operator_conflict 0"));
}

#[tokio::test(start_paused = true)]
async fn another_replica_of_the_installation_that_works_keeps_the_pairs() {
    let cluster = Cluster::default();
    let mut first = cluster.join("operators", "first");
    first.begins().await;
    let second = cluster.join("a-second", "second");
    let mut next = cluster.join("operators", "next");
    sleep(Duration::from_secs(60)).await;
    first.stop.send_replace(true);
    next.begins().await;
    sleep(Duration::from_secs(60)).await;
    assert!(next.leads() && !second.leads());
}

#[tokio::test(start_paused = true)]
async fn of_two_installations_that_begin_together_one_works_and_never_both() {
    let cluster = Cluster::default();
    let replicas = [cluster.join("one", "1"), cluster.join("two", "2")];
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(!replicas.iter().all(Replica::leads));
    }
    assert!(replicas.iter().any(Replica::leads));
}
