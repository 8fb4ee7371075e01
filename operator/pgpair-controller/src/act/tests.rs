use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::*;
use crate::decide::decide;
use crate::fixtures::{empty, ip, steady, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Answers, Seen, empty_caches, mock_api, seen};
use crate::observed::{Mismatch, Observed, SliceView};

/// What becomes of `observed` in `scope`, and the requests that it takes.
async fn outcome(answers: Answers, observed: &Observed, scope: Scope) -> (Outcome, Vec<Seen>) {
    let (client, server) = mock_api(answers);
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    let (pair, mut memory, plan) = (valid(json!({})), Memory::default(), decide(observed));
    let outcome = act(&requests, &empty_caches(), &mut memory, &pair, observed, &plan, scope).await;
    drop(requests);
    (outcome, seen(server).await)
}

/// What is done where nothing fails.
async fn run(observed: &Observed, scope: Scope) -> (Vec<Notice>, Vec<Seen>) {
    let (outcome, requests) = outcome(Answers::Empty, observed, scope).await;
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    (outcome.done, requests)
}

#[tokio::test]
async fn what_was_done_before_a_step_failed_is_told_and_the_failure_names_its_step() {
    let (outcome, _) = outcome(Answers::Forbids("statefulsets"), &empty(), Scope::Everything).await;
    assert_eq!(outcome.done, [Notice::Bootstrapping], "the record is there, and is not created again");
    let failed: Vec<String> = outcome.failed.iter().map(|failed| failed.step.to_string()).collect();
    assert_eq!(failed, ["apply the stateful set of a"]);
}

fn of_leases(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|s| s.path.contains("/leases")).collect()
}

#[tokio::test]
async fn the_record_of_a_new_pair_is_created_and_of_an_old_one_never_touched() {
    let (done, requests) = run(&empty(), Scope::Everything).await;
    assert_eq!(done, [Notice::Bootstrapping]);
    let leases = of_leases(&requests);
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].method, Method::POST);
    assert_eq!(
        leases[0].body["spec"],
        json!({"holderIdentity": "a/0000000000000000", "leaseTransitions": 0})
    );

    let lost = Observed { lease: crate::observed::LeaseView::Missing, ..steady() };
    for observed in [steady(), steady().solo(), steady().a_silent(), lost] {
        let (_, requests) = run(&observed, Scope::Everything).await;
        assert_eq!(of_leases(&requests), Vec::<&Seen>::new());
    }
}

#[tokio::test]
async fn a_new_pair_gets_all_its_objects_and_the_stateful_sets_last() {
    let (_, requests) = run(&empty(), Scope::Everything).await;
    let kinds: Vec<String> = requests
        .iter()
        .filter(|r| r.is_write())
        .map(|r| r.body["kind"].as_str().unwrap_or("?").to_owned())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
    let expected = [
        ("ServiceAccount", 1),
        ("Role", 1),
        ("RoleBinding", 1),
        ("Service", 4),
        ("PersistentVolumeClaim", 4),
        ("Secret", 6),
        ("Lease", 1),
        ("EndpointSlice", 3),
        ("ConfigMap", 1),
        ("PodDisruptionBudget", 1),
        ("StatefulSet", 2),
        ("Job", 0),
    ];
    assert_eq!(expected.map(|(kind, _)| count(kind)), expected.map(|(_, n)| n), "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 2..], ["StatefulSet", "StatefulSet"]);
}

#[tokio::test]
async fn upkeep_leads_the_services_where_they_belong_and_builds_nothing() {
    let mut astray = steady();
    astray.ro = SliceView::Present(vec![ip(InstanceId::A)]);
    astray.rw = SliceView::Present(vec![ip(InstanceId::B)]);
    astray.rw_mismatch = Mismatch { times: 2, lasting: Duration::from_secs(15) };
    astray.b.set = None;
    let plan = decide(&astray);
    assert_eq!(plan.notices, [Notice::EndpointRepaired(InstanceId::A)]);
    let (done, requests) = run(&astray, Scope::Upkeep).await;
    assert_eq!(done, plan.notices);
    let writes: Vec<Seen> = requests.into_iter().filter(Seen::is_write).collect();
    let address = |name: &str| {
        let slice = writes.iter().find(|w| w.body["metadata"]["name"] == name).unwrap();
        slice.body["endpoints"][0]["addresses"][0].clone()
    };
    assert_eq!((address("orders-rw"), address("orders-ro")), (json!("10.0.0.1"), json!("10.0.0.2")));
    let kinds = writes.iter().map(|w| w.body["kind"].as_str().unwrap_or("?"));
    assert!(kinds.clone().all(|kind| ["EndpointSlice", "Secret"].contains(&kind)), "{kinds:?}");
}

#[tokio::test]
async fn what_existed_already_is_not_told_as_done() {
    let (client, server) = mock_api(Answers::Conflict);
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    let lease = record::build_lease(&valid(json!({})));
    assert_eq!(requests.create(&lease).await.unwrap(), Created::AlreadyExists);
    drop(requests);
    assert_eq!(seen(server).await.len(), 1, "a conflict is not followed by another try");
}
