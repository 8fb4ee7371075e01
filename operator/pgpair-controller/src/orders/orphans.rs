//! Orders whose pair does not exist: it was deleted, or never was. The reconcile of a pair sees to its own orders, so these are looked for
//! now and then, and deleted as late as others. A pair of another installation exists too, so the API server is asked, and no cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use pgpair_api::names::PairName;
use pgpair_api::{PgPairOrder, PgReplicaPair};

use super::is_due_to_go;
use crate::api::{Requests, list_page};
use crate::cache::PAGE;
use crate::error::{Error, MayBeRefusal, chain};
use crate::metrics::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);

/// Looks again and again.
pub async fn take_away_for_ever(client: Client, orders: Api<PgPairOrder>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match take_away(&client, &orders, &metrics, Timestamp::now()).await {
            Ok(()) => {}
            // The definition of orders is not installed.
            Err(error) if error.is_refused_with(404) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "orders without a pair could not be looked for");
            }
        }
    }
}

async fn take_away(
    client: &Client,
    orders: &Api<PgPairOrder>,
    metrics: &Arc<Metrics>,
    now: Timestamp,
) -> Result<(), Error> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = list_page(orders, &params).await?;
        for (pair, old) in by_pair(&page.items, now) {
            let requests = Requests::new(client.clone(), &pair.namespace, metrics.clone());
            if requests.get_metadata::<PgReplicaPair>(&pair.name).await?.is_some() {
                continue;
            }
            for (name, uid) in old {
                tracing::info!(
                    namespace = pair.namespace,
                    order = name,
                    pair = pair.name,
                    "an order is deleted: there is no such pair"
                );
                match requests.delete_exactly::<PgPairOrder>(&name, &uid).await {
                    Err(error) if error.is_refused_with(404) || error.is_refused_with(409) => {}
                    done => done?,
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Orders that would go by their age, by the pair that they name: name and uid.
fn by_pair(orders: &[PgPairOrder], now: Timestamp) -> BTreeMap<PairName, Vec<(String, String)>> {
    let mut found = BTreeMap::<PairName, Vec<_>>::new();
    for order in orders.iter().filter(|order| is_due_to_go(order, now)) {
        if let (Some(namespace), Some(uid)) = (order.namespace(), order.uid()) {
            let pair = PairName { namespace, name: order.spec.pair.clone() };
            found.entry(pair).or_default().push((order.name_any(), uid));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const LIST: &str = "/apis/pgpair.dev/v1alpha1/pgpairorders";

    fn now() -> Timestamp {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    fn order(pair: &str, created: &str, status: Value) -> Value {
        json!({
            "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgPairOrder",
            "metadata": {"name": format!("{pair}-1"), "namespace": "shop", "uid": format!("uid-{pair}"), "creationTimestamp": created},
            "spec": {"pair": pair, "kind": "Switchover", "term": 3}, "status": status,
        })
    }

    /// A server with one pair, `here`, and these orders; what it is asked besides the list: method, path and body.
    async fn asked(orders: Vec<Value>) -> Vec<(Method, String, Value)> {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let path = parts.uri.path().to_owned();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = match (&parts.method, path.as_str()) {
                    (&Method::GET, LIST) => (200, json!({"metadata": {}, "items": orders})),
                    (&Method::GET, path) if path.ends_with("/pgreplicapairs/here") => {
                        (200, json!({"metadata": {"name": "here"}}))
                    }
                    (&Method::GET, _) => (
                        404,
                        json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"}),
                    ),
                    _ => (200, json!({"kind": "Status", "status": "Success"})),
                };
                if path != LIST {
                    asked.push((parts.method, path, serde_json::from_slice(&body).unwrap_or_default()));
                }
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                send.send_response(
                    Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap(),
                );
            }
            asked
        });
        let client = Client::new(service, "default");
        let all = Api::all(client.clone());
        take_away(&client, &all, &Arc::default(), now()).await.unwrap();
        drop((client, all));
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn an_order_whose_pair_does_not_exist_goes_after_an_hour_and_every_other_one_stays() {
        let (old, young) = ("2026-05-01T10:59:00Z", "2026-05-01T11:01:00Z");
        let ended = json!({"phase": "Done", "endTime": young});
        let seen = asked(vec![
            order("here", old, Value::Null),
            order("gone", old, Value::Null),
            order("typo", young, Value::Null),
            order("late", old, ended),
        ])
        .await;
        let deleted: Vec<_> = seen.iter().filter(|(method, ..)| *method == Method::DELETE).collect();
        let [(_, path, body)] = deleted[..] else { panic!("{seen:?}") };
        assert_eq!(path, "/apis/pgpair.dev/v1alpha1/namespaces/shop/pgpairorders/gone-1");
        assert_eq!(body["preconditions"]["uid"], "uid-gone", "not one that was created meanwhile");
        assert_eq!(seen.len(), 3, "the API server is asked about the pairs of old orders only: {seen:?}");
    }
}
