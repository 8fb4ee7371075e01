use std::collections::BTreeMap;

use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::events::Reporter;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::certificates::names_of;
use crate::fixtures::{name, pair, steady};
use crate::mock_api::{Answers, Seen, empty_caches, mock_api, seen, store_api};

fn context(client: Client) -> Context {
    with_caches(client, empty_caches())
}

fn with_caches(client: Client, caches: Caches) -> Context {
    Context {
        client: client.clone(),
        caches,
        defaults: Arc::new(Defaults {
            postgres_image_template: "pg:{version}".into(),
            agent_image: "pgpair:1".into(),
            image_pull_policy: "IfNotPresent".into(),
        }),
        metrics: Arc::new(Metrics::default()),
        recorder: Recorder::new(client, Reporter { controller: "test".into(), instance: None }),
        pairs: Arc::default(),
    }
}

/// Writes the status of `observed` over `old`; gives what was sent.
async fn writes(answers: Answers, old: &PgReplicaPairStatus, observed: &Observed) -> Vec<Seen> {
    let (client, server) = mock_api(answers);
    let ctx = context(client);
    let requests = Requests::new(ctx.client.clone(), "shop", ctx.metrics.clone());
    let new = compute(&name(), Some(3), observed, &decide(observed), None, old);
    write(&pair(json!({})), &requests, &mut Memory::default(), &ctx, old, new).await.unwrap();
    drop((ctx, requests));
    seen(server).await
}

fn status_of(observed: &Observed) -> PgReplicaPairStatus {
    compute(&name(), Some(3), observed, &decide(observed), None, &PgReplicaPairStatus::default())
}

#[tokio::test]
async fn an_unchanged_status_causes_radio_silence() {
    assert_eq!(writes(Answers::Empty, &status_of(&steady()), &steady()).await, []);
}

#[tokio::test]
async fn a_changed_status_is_one_write_on_the_version_that_was_read_and_then_its_events() {
    let sent = writes(Answers::Empty, &status_of(&steady().solo()), &steady()).await;
    assert_eq!(
        (&sent[0].method, sent[0].path.as_str()),
        (&Method::PUT, "/apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/orders/status")
    );
    assert_eq!(sent[0].body["metadata"]["resourceVersion"], "41");
    assert_eq!(sent[0].body["status"]["mode"], "Paired");
    let reasons: Vec<_> = sent[1..].iter().map(|s| s.body["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["PairReady"]);
}

#[tokio::test]
async fn a_status_write_that_meets_a_newer_version_gives_way_and_tells_nothing() {
    let sent = writes(Answers::Conflict, &status_of(&steady().solo()), &steady()).await;
    assert_eq!(sent.len(), 1);
}

#[tokio::test]
async fn an_invalid_pair_gets_a_condition_and_no_objects() {
    let (client, server) = mock_api(Answers::Empty);
    let ctx = Arc::new(context(client));
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
    let ctx = Arc::new(context(client));
    reconcile(Arc::new(pair(json!({"paused": true}))), ctx.clone()).await.unwrap();
    drop(ctx);
    let sent = seen(server).await;
    assert!(sent.iter().filter(|s| s.is_write()).all(|s| s.path.ends_with("/status")), "{sent:?}");
}

const TLS: &str = "/api/v1/namespaces/shop/secrets/orders-a-tls";
const STATUS: &str = "/apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/orders/status";

type Objects = BTreeMap<String, Value>;

/// All objects before and after a reconcile with `spec` of a pair that was made by another one, whose certificate of
/// instance a is about to end since then, and whose Services have lost their slices.
async fn held(spec: Value) -> (Objects, Objects) {
    let (client, store) = store_api();
    let first = pair(json!({"tls": {"dnsNames": ["db.example.com"]}}));
    reconcile(Arc::new(first), Arc::new(context(client.clone()))).await.unwrap();
    let ends = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    store.objects().get_mut(TLS).unwrap()["metadata"]["annotations"]["pgpair.dev/not-after"] = json!(ends);
    let kept =
        |path: &str| !path.contains("/endpointslices/") && !path.contains("/events/") && path != STATUS;
    store.objects().retain(|path, _| kept(path));
    let before = store.objects().clone();
    let ctx = Arc::new(with_caches(client, store.caches()));
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
    let ctx = Arc::new(context(client));
    let mut gone = pair(json!({}));
    gone.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::now()));
    assert_eq!(reconcile(Arc::new(gone), ctx.clone()).await.unwrap(), Action::await_change());
    drop(ctx);
    assert_eq!(seen(server).await, []);
}
