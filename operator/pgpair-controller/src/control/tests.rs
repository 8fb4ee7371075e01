use futures::channel::mpsc;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::fixtures::pair;
use crate::mock_api::{context, empty_caches};
use crate::run::check_definition;

/// A client of an API server that holds these pairs and nothing else, and the paths of what it is asked.
fn holds(pairs: Vec<Value>) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let (asked, paths) = mpsc::unbounded();
    tokio::spawn(async move {
        let mut open = Vec::new(); // a watch is open as long as its answer is awaited
        while let Some((request, send)) = handle.next_request().await {
            let uri = request.uri().clone();
            let list = uri.path() == "/apis/pgpair.dev/v1alpha1/pgreplicapairs";
            if list && uri.query().is_some_and(|q| q.contains("watch=true")) {
                open.push(send);
                continue;
            }
            let _ = asked.unbounded_send(format!("{} {}", request.method(), uri.path()));
            if request.uri().path().ends_with("/silent") {
                open.push(send);
                continue;
            }
            let read = request.method() == Method::GET;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let named = pairs.iter().find(|p| Some(&p["metadata"]["name"]) == last_word(uri.path()).as_ref());
            let (code, answer) = match (read, list, named) {
                (true, true, _) => (StatusCode::OK, list_of(&pairs)),
                (true, false, Some(pair)) => (StatusCode::OK, pair.clone()),
                (true, false, None) => (StatusCode::NOT_FOUND, not_found()),
                (false, ..) => (StatusCode::OK, serde_json::from_slice(&body).unwrap_or_default()),
            };
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
    });
    (Client::new(service, "default"), paths)
}

fn last_word(path: &str) -> Option<Value> {
    path.rsplit('/').next().filter(|_| path.contains("/pgreplicapairs/")).map(|name| json!(name))
}

fn list_of(pairs: &[Value]) -> Value {
    let metadata = json!({"resourceVersion": "7"});
    json!({"kind": "PgReplicaPairList", "apiVersion": "pgpair.dev/v1alpha1", "metadata": metadata, "items": pairs})
}

fn not_found() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""})
}

fn operator(ctx: &Context) -> Operator {
    Operator {
        client: ctx.client.clone(),
        defaults: ctx.defaults.clone(),
        events: ctx.events.clone(),
        domain: Domain::default(),
        max_rolling: 1,
        signs: Signs { health: Arc::default(), metrics: ctx.metrics.clone() },
    }
}

async fn asked_for(paths: &mut mpsc::UnboundedReceiver<String>, what: &str) {
    let asked = async { while paths.next().await.expect("the server ended") != what {} };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_pair_that_cannot_be_decoded_keeps_no_other_pair_from_being_reconciled() {
    let good = serde_json::to_value(pair(json!({}))).unwrap();
    let mut bad = good.clone();
    bad["metadata"]["name"] = json!("newer");
    bad["status"] = json!({"term": "three"});
    let (client, mut paths) = holds(vec![bad, good]);
    check_definition(&client, None).await.expect("the check at the start asks for no content");
    let ctx = Arc::new(context(client.clone(), empty_caches()));
    let (operator, context) = (operator(&ctx), ctx.clone());
    let run = tokio::spawn(async move {
        let (pairs, nothing) = (api_in(&client, None), futures::stream::pending());
        reconcile_all(context, pairs, &operator, nothing, std::future::pending()).await;
    });
    asked_for(&mut paths, "PUT /apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/newer/status").await;
    asked_for(&mut paths, "POST /apis/coordination.k8s.io/v1/namespaces/shop/leases").await;
    let told = ctx.metrics.render();
    assert!(told.contains(r#"undecodable{namespace="shop",name="newer"} 1"#), "{told}");
    run.abort();
}

#[tokio::test]
async fn a_reconcile_that_runs_is_cut_off_in_time_and_the_metrics_of_its_pairs_go() {
    let mut bad = serde_json::to_value(pair(json!({}))).unwrap();
    bad["status"] = json!({"term": "three"});
    bad["metadata"]["name"] = json!("silent"); // the server leaves it unanswered
    let (client, mut paths) = holds(vec![bad]);
    let ctx = Arc::new(context(client, empty_caches()));
    let operator = operator(&ctx);
    let (leads, leading) = watch::channel(Leadership::Leads);
    let (_triggers, triggered) = mpsc::unbounded();
    let control = control(&operator, None, ctx.clone(), triggered, leading);
    let ends = async {
        asked_for(&mut paths, "GET /apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/silent").await;
        assert!(ctx.metrics.render().contains(r#"undecodable{namespace="shop",name="silent"} 1"#));
        leads.send_replace(Leadership::Ended { until: Instant::now() + Duration::from_millis(50) });
    };
    let both = async { tokio::join!(control, ends) };
    tokio::time::timeout(Duration::from_secs(5), both).await.expect("it waits for the reconcile");
    assert!(!ctx.metrics.render().contains("silent"));
}

#[tokio::test]
async fn the_replica_that_leads_looks_for_orders_whose_pair_does_not_exist() {
    let (client, mut paths) = holds(Vec::new());
    let ctx = Arc::new(context(client, empty_caches()));
    let operator = operator(&ctx);
    let (_leads, leading) = watch::channel(Leadership::Leads);
    let (_triggers, triggered) = mpsc::unbounded();
    tokio::select! {
        () = control(&operator, None, ctx.clone(), triggered, leading) => panic!("it still leads"),
        () = asked_for(&mut paths, "GET /apis/pgpair.dev/v1alpha1/pgpairorders") => {}
    }
}

#[tokio::test]
async fn what_is_kept_of_a_pair_goes_with_it_and_nothing_of_any_other_pair() {
    let (client, _paths) = holds(Vec::new());
    let ctx = Arc::new(context(client, empty_caches()));
    let watched = |name: &str| {
        let mut pair = pair(json!({}));
        pair.metadata.name = Some(name.into());
        Watched::from(pair)
    };
    let named = |name: &str| PairName { namespace: "shop".into(), name: name.into() };
    let (store, mut writer) = reflector::store::<Watched>();
    let mut present = Present { ctx: ctx.clone(), known: HashSet::new(), listed: HashSet::new() };
    let mut brings = |event: watcher::Event<Watched>| {
        writer.apply_watcher_event(&event);
        present.note(&Ok(event));
    };
    let remember = |name: &str| {
        ctx.with_memory(&named(name), |known| known.errors = 1);
        ctx.metrics.decoded(&named(name), false);
    };
    let kept = || -> Vec<String> {
        let shown = ctx.metrics.render();
        let pairs = ctx.pairs.lock().unwrap();
        let shown =
            |name: &String| shown.contains(&format!("undecodable{{namespace=\"shop\",name=\"{name}\"}}"));
        ["a", "b", "c"]
            .map(String::from)
            .into_iter()
            .filter(|n| pairs.contains_key(&named(n)) && shown(n))
            .collect()
    };
    for name in ["a", "b", "c"] {
        brings(watcher::Event::Apply(watched(name)));
        remember(name);
    }
    assert_eq!(kept(), ["a", "b", "c"]);
    brings(watcher::Event::Delete(watched("a")));
    assert_eq!(kept(), ["b", "c"], "it was deleted");
    for event in [watcher::Event::Init, watcher::Event::InitApply(watched("c")), watcher::Event::InitDone] {
        brings(event);
    }
    assert_eq!(kept(), ["c"], "a new list lacks it");
    remember("a"); // a reconcile that ran meanwhile
    ctx.triggers.announce_object(named("a")); // its objects go after it
    forget_if_gone(&ctx, &store, &named("a"));
    forget_if_gone(&ctx, &store, &named("c"));
    assert_eq!(kept(), ["c"]);
    assert!(!ctx.triggers.take_touched(&named("a")));
    ctx.forget_all();
    assert_eq!(kept(), Vec::<String>::new());
}

#[test]
fn an_order_that_was_announced_is_looked_at_again_at_once_and_other_statuses_are_not() {
    let step = |status: Value| {
        let mut pair = pair(json!({}));
        pair.status = serde_json::from_value(status).unwrap();
        order_step(&pair.into())
    };
    let order = |state: &str, reason: &str, message: &str| {
        let order =
            json!({"id": "7-x", "kind": "Switchover", "state": state, "reason": reason, "message": message});
        step(json!({"order": order}))
    };
    let announced = order("Running", "Announced", "it will be sent");
    assert_ne!(announced, None);
    assert_ne!(announced, order("Running", "Accepted", "it was sent"));
    assert_eq!(announced, order("Running", "Announced", "in other words"));
    assert_eq!(step(json!({"term": 3})), step(json!({"term": 4})));
}
