use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::certificates::names_of;
use crate::fixtures::{pair, steady};
use crate::mock_api::{Answers, context, empty_caches, mock_api, seen, store_api};
use crate::plan::Waits;

#[tokio::test]
async fn an_invalid_pair_gets_a_condition_and_no_objects() {
    let (client, server) = mock_api(Answers::Empty);
    let ctx = Arc::new(context(client, empty_caches()));
    let invalid = Arc::new(pair(json!({"postgres": {"parameters": {"fsync": "off"}}})));
    let error = reconcile(invalid.clone(), ctx.clone()).await.unwrap_err();
    assert_eq!(error_policy(invalid, &error, ctx.clone()), Action::await_change());
    drop(ctx);
    let sent = seen(server).await;
    assert!(sent.iter().all(|s| s.path.ends_with("/status") || s.path.ends_with("/events")), "{sent:?}");
    let condition = &sent[0].body["status"]["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["reason"].as_str()),
        (Some("Degraded"), Some("InvalidSpec"))
    );
    assert!(condition["message"].as_str().unwrap().contains("remove it"));
}

#[tokio::test]
async fn a_paused_pair_gets_its_status_and_nothing_else() {
    let (client, server) = mock_api(Answers::Empty);
    let ctx = Arc::new(context(client, empty_caches()));
    reconcile(Arc::new(pair(json!({"paused": true}))), ctx.clone()).await.unwrap();
    drop(ctx);
    let sent = seen(server).await;
    assert!(sent.iter().filter(|s| s.is_write()).all(|s| s.path.ends_with("/status")), "{sent:?}");
}

#[test]
fn a_new_leader_hears_all_pairs_before_it_looks_at_everything_of_one() {
    let now = Instant::now();
    let later = now + Duration::from_secs(9);
    let mut memory = Memory::default();
    assert_eq!(decide_freshness(&memory, true, true, now), Freshness::Glance);
    assert_eq!(decide_freshness(&memory, false, false, now), Freshness::Look, "the spec is a new one");
    let as_told = Observed { is_glance: true, ..steady() };
    memory.note_look(&as_told, false, || later);
    memory.note_look(&as_told, false, || later + Duration::from_secs(9));
    assert_eq!(decide_freshness(&memory, false, true, now), Freshness::Glance);
    assert_eq!(decide_freshness(&memory, true, true, now), Freshness::Look, "an object has changed");
    assert_eq!(decide_freshness(&memory, false, true, later), Freshness::Look, "it is time");
    memory.note_look(&steady(), false, || later);
    assert_eq!(decide_freshness(&memory, false, true, later), Freshness::Glance);
    assert_eq!(decide_freshness(&memory, false, true, later + WHOLE), Freshness::Look);
    memory.note_look(&as_told, true, || later);
    assert_eq!(decide_freshness(&memory, false, true, now), Freshness::Look, "something failed");
}

#[rstest]
#[case(1, 5, 10)]
#[case(10_000, 50_000, 100_000)]
fn everything_is_looked_at_when_all_pairs_have_had_a_turn(
    #[case] pairs: usize,
    #[case] least_ms: u64,
    #[case] most_ms: u64,
) {
    let wait = first_look_in(pairs);
    assert!(Duration::from_millis(least_ms) <= wait && wait < Duration::from_millis(most_ms), "{wait:?}");
}

const TLS: &str = "/api/v1/namespaces/shop/secrets/orders-a-tls";
const STATUS: &str = "/apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/orders/status";

type Objects = BTreeMap<String, Value>;

/// All objects before and after a reconcile with `spec` of a pair that was made by another one, whose certificate of
/// instance a is about to end since then, and whose Services have lost their slices.
async fn held(spec: Value) -> (Objects, Objects) {
    let (client, store) = store_api();
    let first = pair(json!({"tls": {"dnsNames": ["db.example.com"]}}));
    reconcile(Arc::new(first), Arc::new(context(client.clone(), empty_caches()))).await.unwrap();
    let ends = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    store.objects().get_mut(TLS).unwrap()["metadata"]["annotations"]["pgpair.dev/not-after"] = json!(ends);
    let kept =
        |path: &str| !path.contains("/endpointslices/") && !path.contains("/events/") && path != STATUS;
    store.objects().retain(|path, _| kept(path));
    let before = store.objects().clone();
    let ctx = Arc::new(context(client, store.caches()));
    let action = reconcile(Arc::new(pair(spec)), ctx).await.unwrap();
    assert_ne!(action, Action::await_change());
    (before, store.objects().clone())
}

#[rstest]
#[case::paused(json!({"paused": true}), "AsExpected")]
#[case::invalid(json!({"readLag": "much"}), "InvalidSpec")]
#[tokio::test]
async fn a_pair_that_is_held_is_kept_going_as_it_is(#[case] mut spec: Value, #[case] degraded: &str) {
    spec["durability"] = json!("Async");
    spec["service"] = json!({"labels": {"team": "shop"}});
    spec["tls"] = json!({"dnsNames": ["other.example.com"]});
    let (before, after) = held(spec).await;
    let changed = |(path, object): &(&String, &Value)| before.get(*path) != Some(*object);
    let changed = after.iter().filter(changed).map(|(path, _)| path.rsplit('/').next().unwrap());
    let told = |word: &&str| *word != "status" && !word.starts_with("orders.");
    assert_eq!(
        changed.filter(told).collect::<Vec<_>>(),
        ["orders-a-tls", "orders-r", "orders-ro", "orders-rw"],
        "beside status and Events"
    );
    let names = |objects: &Objects| {
        let secret: Secret = serde_json::from_value(objects[TLS].clone()).unwrap();
        names_of(&crate::secrets::text(&secret, "orders-a-tls", "tls.crt").unwrap()).unwrap()
    };
    assert_eq!(names(&before), names(&after), "they are a matter of the spec");
    let conditions = after[STATUS]["status"]["conditions"].as_array().unwrap();
    let reason = |type_: &str| conditions.iter().find(|c| c["type"] == type_).unwrap()["reason"].clone();
    assert_eq!((reason("Ready"), reason("Degraded")), (json!("Bootstrapping"), json!(degraded)));
}

#[tokio::test]
async fn a_pair_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let (client, server) = mock_api(Answers::Empty);
    let ctx = Arc::new(context(client, empty_caches()));
    let mut gone = pair(json!({}));
    gone.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::now()));
    ctx.metrics.pairs.measure(&pair_name(&gone), &steady(), &Default::default());
    assert!(ctx.metrics.render().contains("pair_observed_timestamp_seconds{"));
    assert_eq!(reconcile(Arc::new(gone), ctx.clone()).await.unwrap(), Action::await_change());
    assert!(!ctx.metrics.render().contains("orders"), "numbers that stand still say nothing");
    drop(ctx);
    assert_eq!(seen(server).await, []);
}

#[tokio::test(start_paused = true)]
async fn of_two_pairs_that_would_roll_one_begins_and_the_other_waits_until_it_is_done() {
    let ctx = context(mock_api(Answers::Empty).0, empty_caches());
    tokio::time::advance(Duration::from_secs(60)).await;
    let named = |name: &str| PairName { namespace: "shop".into(), name: name.into() };
    let look = |name: &PairName, newest: &str| {
        let mut observed = steady();
        observed.turn = ctx.rollout.turn(name, false);
        for i in [&mut observed.a, &mut observed.b] {
            i.update_revision = Some(newest.into());
        }
        let mut plan = decide(&observed);
        take_turn(&ctx, name, &observed, &mut plan);
        plan.roll
    };
    let (first, second) = (named("first"), named("second"));
    assert!(look(&first, "newer").step.is_some());
    let waits = look(&second, "newer");
    assert_eq!((waits.step, waits.waits), (None, Some(Waits::Turn(Turn::After(first.clone())))));
    assert!(ctx.metrics.render().contains("pgpair_operator_rolling 1"), "{}", ctx.metrics.render());
    let revision = steady().a.update_revision.unwrap();
    assert_eq!(look(&first, &revision), crate::plan::RollPlan::default(), "it is done");
    assert!(look(&second, "newer").step.is_some());
}

/// Objects that a reconcile takes out of caches that hold so many other pairs too.
async fn taken_from_caches(others: usize) -> usize {
    let (client, store) = store_api();
    let orders = Arc::new(pair(json!({})));
    reconcile(orders.clone(), Arc::new(context(client.clone(), empty_caches()))).await.unwrap();
    let valid = crate::fixtures::valid(json!({}));
    for number in [1, 2] {
        let job = crate::build::seed_job::build_seed_job(&valid, InstanceId::B, number);
        let path = format!("/apis/batch/v1/namespaces/shop/jobs/orders-b-seed-{number}");
        store.objects().insert(path, serde_json::to_value(job).unwrap());
    }
    let own = serde_json::to_string(&*store.objects()).unwrap();
    for number in 0..others {
        let other: Objects = serde_json::from_str(&own.replace("orders", &format!("other{number}"))).unwrap();
        store.objects().extend(other);
    }
    let ctx = Arc::new(context(client, store.caches()));
    reconcile(orders, ctx.clone()).await.unwrap();
    ctx.caches.given()
}

#[tokio::test]
async fn a_reconcile_looks_at_the_objects_of_its_own_pair_and_at_no_others() {
    let alone = taken_from_caches(0).await;
    assert!(alone > 10, "{alone}");
    assert_eq!(taken_from_caches(50).await, alone);
}

#[tokio::test(start_paused = true)]
async fn the_turn_of_a_pair_that_is_gone_goes_to_one_that_waits() {
    let mut ctx = context(mock_api(Answers::Empty).0, empty_caches());
    let (triggers, mut triggered) = crate::triggers::Triggers::new();
    ctx.triggers = triggers;
    tokio::time::advance(Duration::from_secs(60)).await;
    let named = |name: &str| PairName { namespace: "shop".into(), name: name.into() };
    ctx.rollout.begin(&named("first"), false).unwrap();
    ctx.rollout.wait(&named("second"));
    ctx.forget(&named("first"));
    assert_eq!(triggered.try_recv().unwrap().name, "second");
}
