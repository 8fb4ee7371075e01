use pgpair_core::record::Record;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::*;
use crate::build::services::build_slice;
use crate::decide::decide;
use crate::fixtures::{empty, ip, steady, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Answers, Seen, Store, empty_caches, mock_api, seen, store_api};
use crate::observed::{Mismatch, Observed, SeedState, SliceView};
use crate::outcome::FaultKind;
use crate::plan::EndpointTarget;

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

/// Plurals of all that a new pair is made of.
const PLURALS: [&str; 12] = [
    "serviceaccounts",
    "roles",
    "rolebindings",
    "poddisruptionbudgets",
    "configmaps",
    "services",
    "persistentvolumeclaims",
    "secrets",
    "leases",
    "endpointslices",
    "statefulsets",
    "jobs",
];

fn writes(requests: &[Seen]) -> Vec<String> {
    let writes = requests.iter().filter(|r| r.is_write());
    writes.map(|r| format!("{} {}", r.body["kind"], r.body["metadata"]["name"])).collect()
}

#[tokio::test]
async fn a_refused_object_keeps_no_other_from_being_written_and_is_told_with_the_servers_words() {
    // What exists is kept going: nothing waits for anything. The plan has a slice to repair and an instance to scale.
    let mut observed = steady();
    observed.ro = SliceView::Present(vec![ip(InstanceId::A)]);
    let (_, all) = run(&observed, Scope::Everything).await;
    let all = writes(&all);
    for plural in PLURALS {
        for code in [403, 409, 422, 429, 500] {
            let (outcome, requests) =
                outcome(Answers::Refuses(plural, code), &observed, Scope::Everything).await;
            let refused: Vec<String> = requests
                .iter()
                .filter(|r| r.is_write() && r.path.split('/').any(|part| part == plural))
                .map(|r| format!("{} {}", r.body["kind"], r.body["metadata"]["name"]))
                .collect();
            let others: Vec<_> = writes(&requests).into_iter().filter(|w| !refused.contains(w)).collect();
            let expected: Vec<_> = all.iter().filter(|w| !refused.contains(w)).cloned().collect();
            // Without an authority there is nothing that the other Secrets could hold.
            if plural != "secrets" {
                assert_eq!(others, expected, "{plural} {code}");
            }
            // What "exists already" when it is to be created is no failure.
            let fails = !refused.is_empty() && code != 409;
            assert!(!fails || !outcome.failed.is_empty(), "{plural} {code}: {:?}", outcome.failed);
            // A Secret that "exists already" and is not there is no server's answer.
            for failed in outcome.failed.iter().filter(|_| (plural, code) != ("secrets", 409)) {
                assert!(failed.fault.sentence.contains("no, says the server"), "{:?}", failed.fault);
            }
        }
    }
}

#[tokio::test]
async fn of_a_new_pair_an_instance_waits_for_what_it_needs_and_only_for_that() {
    let sets = async |answers| {
        let (_, requests) = outcome(answers, &empty(), Scope::Everything).await;
        writes(&requests).iter().filter(|w| w.starts_with("\"StatefulSet")).count()
    };
    for plural in ["serviceaccounts", "roles", "configmaps", "services", "persistentvolumeclaims", "secrets"]
    {
        assert_eq!(sets(Answers::Refuses(plural, 403)).await, 0, "{plural}");
    }
    for plural in ["poddisruptionbudgets", "endpointslices", "leases"] {
        assert_eq!(sets(Answers::Refuses(plural, 403)).await, 2, "{plural}");
    }
}

#[tokio::test]
async fn a_new_pair_makes_nothing_while_one_of_its_names_is_another_owners() {
    for plural in PLURALS.into_iter().filter(|plural| *plural != "jobs") {
        let (outcome, requests) = outcome(Answers::Foreign(plural), &empty(), Scope::Everything).await;
        assert_eq!(writes(&requests), Vec::<String>::new(), "{plural}");
        let [failed] = &outcome.failed[..] else { panic!("{plural}: {:?}", outcome.failed) };
        assert_eq!((failed.step, failed.fault.kind), (Step::Names, FaultKind::NameTaken), "{plural}");
        assert!(failed.fault.sentence.contains("orders"), "{}", failed.fault.sentence);
    }
}

/// An object that was deleted and came back by another hand.
#[tokio::test]
async fn of_a_pair_that_exists_only_the_object_that_is_not_its_own_is_left_alone() {
    let mut observed = steady();
    observed.ro = SliceView::Present(vec![ip(InstanceId::A)]);
    let (_, all) = run(&observed, Scope::Everything).await;
    for plural in PLURALS.into_iter().filter(|plural| !["jobs", "leases", "secrets"].contains(plural)) {
        let (outcome, requests) = outcome(Answers::Foreign(plural), &observed, Scope::Everything).await;
        let of_plural = |r: &&Seen| r.path.split('/').any(|part| part == plural);
        assert_eq!(requests.iter().filter(of_plural).filter(|r| r.is_write()).count(), 0, "{plural}");
        let theirs = all.iter().filter(of_plural).filter(|r| r.is_write()).count();
        assert_eq!(outcome.failed.len(), theirs, "{plural}: {:?}", outcome.failed);
        assert!(outcome.failed.iter().all(|failed| failed.fault.kind == FaultKind::NameTaken), "{plural}");
        assert_eq!(writes(&requests).len(), writes(&all).len() - theirs, "{plural}");
    }
}

#[tokio::test]
async fn a_refused_step_is_not_tried_again_at_once_and_is_told_all_the_same() {
    let (client, server) = mock_api(Answers::Refuses("configmaps", 422));
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    let (pair, mut memory, observed) = (valid(json!({})), Memory::default(), steady());
    let plan = decide(&observed);
    let mut failures = Vec::new();
    for _ in 0..3 {
        let scope = Scope::Everything;
        failures
            .push(act(&requests, &empty_caches(), &mut memory, &pair, &observed, &plan, scope).await.failed);
    }
    drop(requests);
    let tries = seen(server).await.iter().filter(|r| r.is_write() && r.path.contains("/configmaps")).count();
    assert_eq!(tries, 1);
    assert!(failures.iter().all(|failed| failed.len() == 1 && failed == &failures[0]), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn one_kind_without_an_answer_stops_nothing_and_a_server_without_any_ends_the_pass() {
    let begun = tokio::time::Instant::now();
    let (outcome, requests) = outcome(Answers::Silent("configmaps"), &steady(), Scope::Everything).await;
    assert_eq!(outcome.failed.len(), 1, "{:?}", outcome.failed);
    assert!(writes(&requests).iter().any(|w| w.starts_with("\"StatefulSet")), "{requests:?}");
    let one = begun.elapsed();
    let away = Requests::new(Store::default().client(0), "shop", Arc::new(Metrics::default()));
    let (pair, mut memory, observed) = (valid(json!({})), Memory::default(), steady());
    let plan = decide(&observed);
    let outcome = act(&away, &empty_caches(), &mut memory, &pair, &observed, &plan, Scope::Everything).await;
    assert_eq!(outcome.failed.len(), 2, "two requests without an answer tell enough: {:?}", outcome.failed);
    assert!(one < Duration::from_secs(15), "{one:?}");
}

/// Everything that the server keeps, without what is random.
fn kept(store: &Store) -> Vec<(String, serde_json::Value)> {
    let objects = store.objects();
    let plain = |(path, object): (&String, &serde_json::Value)| {
        let mut object = object.clone();
        if path.contains("/secrets/") {
            object = json!(object["data"].as_object().map(|data| data.keys().collect::<Vec<_>>()));
        }
        (path.clone(), object)
    };
    objects.iter().map(plain).collect()
}

#[tokio::test]
async fn a_crash_after_any_request_leads_to_the_same_objects() {
    let pass = async |store: &Store, answers: usize| {
        let requests = Requests::new(store.client(answers), "shop", Arc::new(Metrics::default()));
        let (pair, mut memory, observed) = (valid(json!({})), Memory::default(), empty());
        let plan = decide(&observed);
        // What the first pass made has been seen by the next process.
        let caches = store.caches();
        act(&requests, &caches, &mut memory, &pair, &observed, &plan, Scope::Everything).await
    };
    let straight = Store::default();
    assert!(pass(&straight, usize::MAX).await.failed.is_empty());
    let (expected, requests) = (kept(&straight), straight.requests());
    assert!(requests > 50, "{requests}");
    for answers in 0..requests {
        let store = Store::default();
        pass(&store, answers).await;
        let again = pass(&store, usize::MAX).await;
        assert!(again.failed.is_empty(), "after {answers}: {:?}", again.failed);
        assert_eq!(kept(&store), expected, "after {answers} requests");
    }
}

/// The rules of the chart for what is done in the namespaces of pairs, and for the operator's own namespace where that is not all of them.
fn rules() -> (String, String) {
    let chart =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/pgreplicapair-operator/templates/rbac.yaml");
    let text = std::fs::read_to_string(chart).unwrap();
    let between = |from: &str, to: &str| {
        let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{from}"));
        rest.split_once(to).unwrap_or_else(|| panic!("{to}")).0.to_owned()
    };
    (between("define \"operator.rules\"", "{{- end }}"), between("name: {{ .Release.Name }}-own\n", "---"))
}

/// Verbs that these rules give for the resource of that plural.
fn rights(rules: &str, plural: &str) -> Vec<String> {
    let list = |line: &str| -> Vec<String> {
        let inside = line.split(['[', ']']).nth(1).unwrap_or_default();
        inside.split(',').map(|word| word.trim().to_owned()).collect()
    };
    let lines: Vec<&str> = rules.lines().map(str::trim).collect();
    let rules = lines.windows(2).filter(|w| w[0].starts_with("resources:") && w[1].starts_with("verbs:"));
    rules.filter(|w| list(w[0]).iter().any(|r| r == plural)).flat_map(|w| list(w[1])).collect()
}

/// Holds a request against the rules of the namespace that it is for.
fn check_right(Seen { method, path, .. }: &Seen) {
    let (of_pairs, own) = rules();
    let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
    let (namespace, plural) = (parts.next().unwrap(), parts.next().unwrap());
    let verb = match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PATCH => "patch",
        Method::PUT => "update",
        Method::DELETE => "delete",
        ref other => panic!("{other}"),
    };
    let rules = if namespace == "shop" { &of_pairs } else { &own };
    assert!(
        rights(rules, plural).iter().any(|right| right == verb),
        "no right to {verb} {plural} in {namespace}"
    );
}

#[tokio::test]
async fn the_chart_gives_the_right_to_every_request() {
    let mut astray = steady();
    astray.ro = SliceView::Present(vec![ip(InstanceId::A)]);
    let seeding = steady().solo().b_waits_for(2, &[(1, SeedState::Complete)]);
    for observed in [empty(), astray, seeding] {
        let (_, requests) = run(&observed, Scope::Everything).await;
        requests.iter().for_each(check_right);
    }
    let (of_pairs, own) = rules();
    for verb in ["get", "list", "watch", "create", "patch", "delete"] {
        let has = |rules: &str| rights(rules, "secrets").iter().any(|right| right == verb);
        assert!(has(&own), "{verb}: the keys, their watch, and those of pairs that are gone");
        assert!(has(&of_pairs), "{verb}: those that an earlier version kept beside the pair, too");
    }
}

fn of_leases(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|s| s.is_write() && s.path.contains("/leases")).collect()
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
    let lease = record::build_lease(&valid(json!({})), &Record::initial());
    assert_eq!(requests.create(&lease).await.unwrap(), Created::AlreadyExists);
    drop(requests);
    assert_eq!(seen(server).await.len(), 1, "a conflict is not followed by another try");
}

#[tokio::test]
async fn a_slice_whose_label_or_port_was_changed_is_put_right_and_leads_where_it_led() {
    const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/orders-rw";
    let pair = valid(json!({}));
    let target =
        EndpointTarget { pod: "orders-b-0".into(), uid: "u".into(), ip: ip(InstanceId::B), node: None };
    let right = serde_json::to_value(build_slice(&pair, "orders-rw", [&target])).unwrap();
    let mut unlabelled = right.clone();
    unlabelled["metadata"]["labels"].as_object_mut().unwrap().remove("pgpair.dev/pair");
    let mut elsewhere = right.clone();
    elsewhere["ports"][0]["port"] = json!(1);
    for (changed, view) in
        [(unlabelled, SliceView::Missing), (elsewhere, SliceView::Altered(vec![ip(InstanceId::B)]))]
    {
        let (client, store) = store_api();
        store.objects().insert(PATH.into(), changed);
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let observed = Observed { rw: view, ..steady() };
        let (mut memory, plan) = (Memory::default(), decide(&observed));
        for _ in 0..2 {
            slices::apply_slices(&requests, &mut memory, &pair, &plan).await.unwrap();
            assert_eq!(store.objects()[PATH], right);
        }
    }
}
