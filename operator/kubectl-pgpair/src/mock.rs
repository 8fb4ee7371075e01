//! An API server for tests: one pair, whose status and annotations move as a script says.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;

/// A request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

/// The pair that the mock serves.
pub fn pair(status: Value) -> Value {
    json!({
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
        "metadata": {"name": "orders", "namespace": "shop", "resourceVersion": "1"},
        "spec": {}, "status": status,
    })
}

/// The record that the mock serves: Paired, term 3, led by a.
pub fn lease() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "orders", "namespace": "shop", "annotations": {
            "pgpair.dev/mode": "Paired", "pgpair.dev/primary-volume": "0000000000000001",
            "pgpair.dev/standby-volume": "0000000000000002", "pgpair.dev/system-identifier": "7",
            "pgpair.dev/durability": "Sync"}},
        "spec": {"holderIdentity": "a/00000000000000aa", "leaseTransitions": 3},
    })
}

/// A cluster without PgPairOrders, that else answers as [`cluster_with_orders`].
pub fn cluster(
    mut answer: impl FnMut(&Seen, &[Seen]) -> (StatusCode, Value) + Send + 'static,
) -> (Cluster, JoinHandle<Vec<Seen>>) {
    cluster_with_orders(move |now, before| match now.path.contains("/pgpairorders") {
        true => error(StatusCode::NOT_FOUND),
        false => answer(now, before),
    })
}

/// A cluster that answers by `answer` (given what came before), and the requests that it will have seen when the client
/// is gone. A status code other than 200 is an error of that code.
pub fn cluster_with_orders(
    mut answer: impl FnMut(&Seen, &[Seen]) -> (StatusCode, Value) + Send + 'static,
) -> (Cluster, JoinHandle<Vec<Seen>>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(async move {
        let mut seen: Vec<Seen> = Vec::new();
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let now = Seen { method: parts.method, path: parts.uri.path().to_owned(), body };
            let (code, answer) = answer(&now, &seen);
            seen.push(now);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
        seen
    });
    (Cluster::new(Client::new(service, "shop"), "shop".into()), server)
}

/// An error as the API server tells it.
pub fn error(code: StatusCode) -> (StatusCode, Value) {
    let number = code.as_u16();
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": number,
            "reason": "Mock", "message": "mock"}),
    )
}
