//! What is done about a pair that cannot be decoded: it is told, in its status where the API server takes that, and left as it is.
//! Every other pair is reconciled as always.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use pgpair_api::events::EventReason;
use pgpair_api::names::PairName;
use pgpair_api::status::Reason;
use serde_json::{Value, json};

use crate::api::Requests;
use crate::context::Context;
use crate::error::{Error, MayBeRefusal};
use crate::events::EventDraft;
use crate::metrics::ErrorLabels;
use crate::reconcile::{error_policy, reconcile};
use crate::status::{degraded, merge};
use crate::watched::{Undecodable, Watched};

/// Time between two looks at such a pair: a change of its status alone announces itself to nobody.
const AGAIN: Duration = Duration::from_secs(60);
/// The same after the status could not be written.
const AGAIN_REFUSED: Duration = Duration::from_secs(300);

/// Reconciles a pair as the watch brings it.
///
/// # Errors
/// The reconcile of a pair that can be decoded failed.
pub async fn reconcile_watched(watched: Arc<Watched>, ctx: Arc<Context>) -> Result<Action, Error> {
    match watched.pair() {
        Ok(pair) => reconcile(pair.clone(), ctx).await,
        Err(undecodable) => Ok(Action::requeue(report_undecodable(&watched, undecodable, &ctx).await)),
    }
}

/// When to look again after an error.
pub fn watched_error_policy(watched: Arc<Watched>, error: &Error, ctx: Arc<Context>) -> Action {
    match watched.pair() {
        Ok(pair) => error_policy(pair.clone(), error, ctx),
        Err(_) => Action::requeue(AGAIN_REFUSED),
    }
}

/// Tells it; gives the time until the next look.
async fn report_undecodable(watched: &Watched, pair: &Undecodable, ctx: &Context) -> Duration {
    let name = PairName {
        namespace: pair.metadata.namespace.clone().unwrap_or_default(),
        name: pair.metadata.name.clone().unwrap_or_default(),
    };
    ctx.metrics.errors.get_or_create(&ErrorLabels { error: "undecodable" }).inc();
    let message = sentence(pair);
    tracing::warn!(namespace = name.namespace, pair = name.name, "{message}");
    let requests = Requests::new(ctx.client.clone(), &name.namespace, ctx.metrics.clone());
    let written = write_condition(&requests, &name, &message).await;
    let (tell, next) = match written {
        Ok(changed) => (changed, AGAIN),
        Err(error) => {
            let error = crate::error::chain(&error);
            tracing::warn!(namespace = name.namespace, pair = name.name, error, "that is not in its status");
            (true, AGAIN_REFUSED)
        }
    };
    if tell {
        let draft = EventDraft::new(EventReason::Undecodable, true, message);
        ctx.events.publish(&watched.object_ref(&()), draft);
    }
    next
}

fn sentence(pair: &Undecodable) -> String {
    let Undecodable { field, error, .. } = pair;
    format!(
        "this version of the operator cannot read the pair: {field}: {error}. The pair is left as it is: its agents still fail over, but no change, order or certificate is carried out. Correct the field, or run a version of the operator that knows it"
    )
}

/// Writes condition `Degraded` into a status that is not decoded; gives whether that changed anything.
async fn write_condition(requests: &Requests, name: &PairName, message: &str) -> Result<bool, Error> {
    let Some(mut pair) = requests.get_pair_as_json(&name.name).await? else { return Ok(false) };
    if !put_condition(&mut pair, message) {
        return Ok(false);
    }
    match requests.replace_status_as_json(&pair).await {
        Ok(_) => Ok(true),
        // It has changed or is gone: the next look sees it.
        Err(error) if error.is_refused_with(409) || error.is_refused_with(404) => Ok(false),
        Err(e) => Err(e),
    }
}

/// `false`: the condition is there already.
fn put_condition(pair: &mut DynamicObject, message: &str) -> bool {
    let generation = pair.metadata.generation;
    // Conditions that cannot be decoded themselves give way; everything else of the status is kept word by word.
    let old = pair.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let old: Vec<Condition> = serde_json::from_value(old).unwrap_or_default();
    let draft = degraded(Reason::Undecodable, message.to_owned());
    let new = merge(&old, vec![draft], generation, jiff::Timestamp::now());
    if new == old {
        return false;
    }
    match pair.data.get_mut("status").and_then(Value::as_object_mut) {
        Some(status) => {
            status.insert("conditions".into(), json!(new));
        }
        None => pair.data["status"] = json!({"conditions": new}),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pair;
    use crate::mock_api::{Store, context, empty_caches, store_api};

    const PATH: &str = "/apis/pgpair.dev/v1alpha1/namespaces/shop/pgreplicapairs/orders";

    fn newer() -> Value {
        let mut pair = serde_json::to_value(pair(json!({}))).unwrap();
        pair["status"] = json!({"term": "three", "mode": "Paired", "lag": {"summary": "0 B"}});
        pair
    }

    fn watched(pair: &Value) -> Arc<Watched> {
        Arc::new(serde_json::from_value(pair.clone()).unwrap())
    }

    fn kept(store: &Store, path: &str) -> Option<Value> {
        store.objects().get(path).cloned()
    }

    #[tokio::test]
    async fn a_pair_that_cannot_be_decoded_is_told_in_its_status_and_keeps_the_rest_of_it() {
        let (client, store) = store_api();
        let mut object = newer();
        store.objects().insert(PATH.into(), object.clone());
        let ctx = Arc::new(context(client, empty_caches()));
        let action = reconcile_watched(watched(&object), ctx.clone()).await.unwrap();
        assert_eq!(action, Action::requeue(AGAIN));
        let status = kept(&store, &format!("{PATH}/status")).unwrap()["status"].clone();
        let condition = &status["conditions"][0];
        assert_eq!((&condition["type"], &condition["reason"]), (&json!("Degraded"), &json!("Undecodable")));
        assert!(condition["message"].as_str().unwrap().contains("status.term"), "{condition}");
        assert_eq!((&status["term"], &status["mode"]), (&json!("three"), &json!("Paired")));
        ctx.events.drain().await;
        let sent = store.requests();
        object["status"] = status;
        store.objects().insert(PATH.into(), object.clone());
        reconcile_watched(watched(&object), ctx.clone()).await.unwrap();
        ctx.events.drain().await;
        assert_eq!(store.requests(), sent + 1, "it is told once: one read, no write");
    }

    #[tokio::test]
    async fn where_the_status_cannot_be_written_an_event_tells_it() {
        let (client, store) = store_api();
        let object = newer();
        store.objects().insert(PATH.into(), object.clone());
        store.forbid(&format!("{PATH}/status"));
        let ctx = Arc::new(context(client, empty_caches()));
        let action = reconcile_watched(watched(&object), ctx.clone()).await.unwrap();
        assert_eq!(action, Action::requeue(AGAIN_REFUSED));
        ctx.events.drain().await;
        let objects = store.objects();
        let event = objects.iter().find(|(path, _)| path.contains("/events/")).expect("an event").1;
        assert_eq!(
            (&event["reason"], &event["regarding"]["name"]),
            (&json!("Undecodable"), &json!("orders"))
        );
    }
}
