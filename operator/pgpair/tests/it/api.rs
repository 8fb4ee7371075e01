//! As much of an API server as two agents need: one Lease and one EndpointSlice, compare-and-set by resource version.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use pgpair_core::record::{Mode, Record};
use pgpair_wire::lease::{self, MODE};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Content of the server, and whether it answers.
#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<Vec<(String, Value)>>>,
    away: watch::Sender<bool>,
    /// The next record with this mode gets lost, and nobody is told.
    loses: Arc<Mutex<Option<Mode>>>,
    writes: Arc<Mutex<u32>>,
}

impl Api {
    /// A server with the record of a pair without data. Returns its address.
    pub async fn start(pair: &str) -> (Api, String) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": pair, "namespace": "test", "resourceVersion": "1",
                "uid": "11111111-2222-3333-4444-555555555555",
                "annotations": lease::annotations(&Record::initial()),
            },
            "spec": { "holderIdentity": lease::holder_identity(&Record::initial()), "leaseTransitions": 0 },
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": format!("{pair}-rw"), "namespace": "test", "resourceVersion": "1" },
            "endpoints": [], "ports": [{ "name": "postgres", "port": 5432 }],
        });
        let objects = vec![(pair.to_owned(), lease), (format!("{pair}-rw"), slice)];
        let api = Api {
            objects: Arc::new(Mutex::new(objects)),
            away: watch::Sender::new(false),
            loses: Arc::default(),
            writes: Arc::default(),
        };
        let app = Router::new()
            .route("/apis/{group}/v1/namespaces/test/{kind}/{name}", get(read).put(write))
            .with_state(api.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (api, address)
    }

    /// Makes every request hang until it is back.
    pub fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }

    /// The next write of a record with this mode never lands and is never answered.
    pub fn lose(&self, mode: Mode) {
        *self.loses.lock().unwrap() = Some(mode);
    }

    pub fn has_lost(&self) -> bool {
        self.loses.lock().unwrap().is_none()
    }

    fn is_lost(&self, object: &Value) -> bool {
        let mut loses = self.loses.lock().unwrap();
        let mode = object["metadata"]["annotations"][MODE].as_str();
        let lost = loses.is_some_and(|wanted| mode == Some(wanted.to_string().as_str()));
        if lost {
            *loses = None;
        }
        lost
    }

    pub fn writes(&self) -> u32 {
        *self.writes.lock().unwrap()
    }

    pub fn record(&self) -> Record {
        let objects = self.objects.lock().unwrap();
        let lease = &objects[0].1;
        let annotations = serde_json::from_value(lease["metadata"]["annotations"].clone()).unwrap();
        let transitions = lease["spec"]["leaseTransitions"].as_i64().and_then(|n| i32::try_from(n).ok());
        lease::read(lease["spec"]["holderIdentity"].as_str(), transitions, &annotations).unwrap()
    }

    /// The record is gone, and this is another one in its place.
    pub fn replace(&self, uid: &str, record: &Record) {
        let mut objects = self.objects.lock().unwrap();
        let lease = &mut objects[0].1;
        let version: u64 = lease["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let metadata = &mut lease["metadata"];
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!((version + 1).to_string());
        metadata["annotations"] = json!(lease::annotations(record));
        lease["spec"] = json!({
            "holderIdentity": lease::holder_identity(record), "leaseTransitions": record.term.0,
        });
    }

    pub fn mode(&self) -> Mode {
        self.record().mode
    }

    /// The address that the read-write endpoint names.
    pub fn endpoint(&self) -> Option<String> {
        self.objects.lock().unwrap()[1].1["endpoints"][0]["targetRef"]["name"].as_str().map(str::to_owned)
    }

    async fn wait_until_back(&self) {
        let mut away = self.away.subscribe();
        let _ = away.wait_for(|a| !a).await;
    }
}

async fn read(
    State(api): State<Api>,
    Path((_, _, name)): Path<(String, String, String)>,
) -> (StatusCode, Json<Value>) {
    api.wait_until_back().await;
    match api.objects.lock().unwrap().iter().find(|(n, _)| *n == name) {
        Some((_, object)) => (StatusCode::OK, Json(object.clone())),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn write(
    State(api): State<Api>,
    Path((_, _, name)): Path<(String, String, String)>,
    Json(mut new): Json<Value>,
) -> (StatusCode, Json<Value>) {
    api.wait_until_back().await;
    if api.is_lost(&new) {
        std::future::pending::<()>().await;
    }
    let mut objects = api.objects.lock().unwrap();
    let Some((_, object)) = objects.iter_mut().find(|(n, _)| *n == name) else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    let (old, meta) = (object["metadata"].clone(), new["metadata"].clone());
    let same_uid = meta["uid"].is_null() || meta["uid"] == old["uid"];
    if meta["resourceVersion"] != old["resourceVersion"] || !same_uid {
        return failure(StatusCode::CONFLICT, "Conflict");
    }
    let version: u64 = old["resourceVersion"].as_str().unwrap().parse().unwrap();
    new["metadata"]["resourceVersion"] = old["resourceVersion"].clone();
    new["metadata"]["uid"] = old["uid"].clone();
    if new == *object {
        return (StatusCode::OK, Json(new)); // as the real one: what changes nothing makes no version
    }
    new["metadata"]["resourceVersion"] = json!((version + 1).to_string());
    *object = new.clone();
    *api.writes.lock().unwrap() += 1;
    (StatusCode::OK, Json(new))
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Json<Value>) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, Json(body))
}
