//! An API server for tests: notes each request and answers by a rule. It knows nothing of server-side apply or CEL; what
//! those do is shown by the end-to-end tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use pgpair_api::validate::Defaults;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cache::{Cache, Cached, Caches, MakeCache, cache};
use crate::context::Context;
use crate::events::EventQueue;
use crate::hear::Hearing;
use crate::metrics::Metrics;
use crate::rollout::Rollout;
use crate::triggers::Triggers;

/// A request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

impl Seen {
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// How it answers.
#[derive(Debug, Clone, Copy)]
pub enum Answers {
    /// Nothing exists; what is written is taken, and gets resource version 5.
    Empty,
    /// Every write meets a conflict.
    Conflict,
    /// As `Empty`, but every write of this plural is refused with this code.
    Refuses(&'static str, u16),
    /// As `Empty`, but an object of this plural is there under any name, and another owner's.
    Foreign(&'static str),
    /// As `Empty`, but requests for this plural get no answer.
    Silent(&'static str),
}

/// A client of such a server, and the requests it will have seen when the client is gone.
pub fn mock_api(answers: Answers) -> (Client, JoinHandle<Vec<Seen>>) {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(async move {
        let (mut seen, mut unanswered) = (Vec::new(), Vec::new());
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (code, answer) = answer(answers, &parts.method, parts.uri.path(), &body);
            seen.push(Seen { method: parts.method, path: parts.uri.path().to_owned(), body });
            if matches!(answers, Answers::Silent(plural) if is_of(plural, parts.uri.path())) {
                unanswered.push(send);
                continue;
            }
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(code).body(answer).unwrap());
        }
        seen
    });
    (Client::new(service, "default"), server)
}

/// What a server that keeps objects holds, by path.
#[derive(Debug, Clone, Default)]
pub struct Store {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    forbidden: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
}

impl Store {
    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.objects.lock().unwrap()
    }

    /// Forbids to write what has this path from now on.
    pub fn forbid(&self, path: &str) {
        *self.forbidden.lock().unwrap() = Some(path.to_owned());
    }

    fn forbids(&self, method: &Method, path: &str) -> bool {
        method != Method::GET && self.forbidden.lock().unwrap().as_deref() == Some(path)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Caches that have seen what it keeps.
    pub fn caches(&self) -> Caches {
        Caches::made_by(&mut self.clone())
    }
}

impl MakeCache for Store {
    fn make<K: Cached>(&mut self) -> Cache<K> {
        let (reader, mut writer) = cache();
        for (path, object) in self.objects().iter() {
            if path.rsplit('/').nth(1) == Some(&*K::plural(&())) {
                let object = serde_json::from_value(object.clone()).unwrap();
                writer.take(watcher::Event::Apply(object));
            }
        }
        reader
    }
}

/// A client of a server that keeps what is created or applied. Of server-side apply it knows that a field that was applied
/// and is applied no more goes away; nothing of conflicts.
pub fn store_api() -> (Client, Store) {
    let store = Store::default();
    (store.client(usize::MAX), store)
}

impl Store {
    /// A client of this server, whose connection breaks after so many answers.
    pub fn client(&self, answers: usize) -> Client {
        store_client(self.clone(), answers)
    }
}

fn store_client(kept: Store, answers: usize) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        for _ in 0..answers {
            let Some((request, send)) = handle.next_request().await else { break };
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            kept.requests.fetch_add(1, Ordering::Relaxed);
            let path = parts.uri.path().to_owned();
            let (code, answer) = match kept.forbids(&parts.method, &path) {
                true => (StatusCode::FORBIDDEN, status(403, "Forbidden")),
                false => kept_answer(&mut kept.objects(), &parts.method, &path, body),
            };
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(code).body(answer).unwrap());
        }
    });
    Client::new(service, "default")
}

fn kept_answer(
    objects: &mut BTreeMap<String, Value>,
    method: &Method,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let key = if method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
    match (method, objects.get(&key)) {
        (&Method::GET, Some(object)) => (StatusCode::OK, object.clone()),
        (&Method::GET, None) => (StatusCode::NOT_FOUND, status(404, "NotFound")),
        (&Method::POST, Some(_)) => (StatusCode::CONFLICT, status(409, "AlreadyExists")),
        (&Method::DELETE, Some(object)) if !is_as_read(object, &body) => {
            (StatusCode::CONFLICT, status(409, "Conflict"))
        }
        (&Method::DELETE, _) => match objects.remove(&key) {
            Some(object) => (StatusCode::OK, object),
            None => (StatusCode::NOT_FOUND, status(404, "NotFound")),
        },
        _ => {
            objects.insert(key, body.clone());
            (StatusCode::OK, body)
        }
    }
}

/// Whether an object is the one that is to be deleted.
fn is_as_read(object: &Value, options: &Value) -> bool {
    let wanted = |key: &str| options["preconditions"][key].as_str();
    ["uid", "resourceVersion"]
        .iter()
        .all(|key| wanted(key).is_none_or(|read| object["metadata"][key] == read))
}

fn answer(answers: Answers, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
    match (answers, method) {
        (Answers::Foreign(plural), &Method::GET) if is_of(plural, path) => {
            let name = path.rsplit('/').next();
            let owner = json!([{"apiVersion": "v1", "kind": "Shop", "name": "x", "uid": "theirs", "controller": true}]);
            let metadata = json!({"name": name, "resourceVersion": "7", "ownerReferences": owner});
            (StatusCode::OK, json!({"metadata": metadata}))
        }
        (_, &Method::GET) => (StatusCode::NOT_FOUND, status(404, "NotFound")),
        (Answers::Conflict, _) => (StatusCode::CONFLICT, status(409, "Conflict")),
        (Answers::Refuses(plural, code), _) if is_of(plural, path) => {
            (StatusCode::from_u16(code).unwrap(), status(code, "no, says the server"))
        }
        (_, _) => {
            let mut stored = body.clone();
            stored["metadata"]["resourceVersion"] = json!("5");
            (StatusCode::OK, stored)
        }
    }
}

fn is_of(plural: &str, path: &str) -> bool {
    path.split('/').any(|part| part == plural)
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

/// What the server has seen. A test that leaves a client alive fails here instead of hanging.
pub async fn seen(server: JoinHandle<Vec<Seen>>) -> Vec<Seen> {
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("a client is still alive").unwrap()
}

/// Caches of an empty cluster.
pub fn empty_caches() -> Caches {
    Store::default().caches()
}

/// What reconciles share, with these caches.
pub fn context(client: Client, caches: Caches) -> Context {
    let metrics = Arc::<Metrics>::default();
    let recorder = Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: None });
    let triggers = Triggers::new().0;
    Context {
        client,
        caches,
        defaults: Arc::new(Defaults {
            postgres_image_template: "pg:{version}".into(),
            agent_image: "pgpair:1".into(),
            image_pull_policy: "IfNotPresent".into(),
            operator_namespace: "pgpair-system".into(),
        }),
        events: EventQueue::start(recorder, metrics.clone()),
        metrics,
        hearing: Hearing::new(triggers.clone()),
        triggers,
        shapes: Arc::default(),
        rollout: Arc::new(Rollout::new(1)),
        pairs: Arc::default(),
    }
}
