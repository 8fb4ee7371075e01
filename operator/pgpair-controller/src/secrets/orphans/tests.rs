use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use rstest::rstest;
use serde_json::{Value, json};
use tower_test::mock;

use super::*;

/// What the API server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// What there is.
    All,
    /// This code, to a list of pairs.
    Refuses(u16),
    /// This code, to the second page of pairs.
    RefusesMore(u16),
    /// This code, to the question for the one pair.
    RefusesOne(u16),
    /// The pair is back when it is asked for by its name.
    IsBack,
    /// This code, to the list of Secrets.
    RefusesSecrets(u16),
}

/// An API server with these pairs (name, uid) in namespace shop, and with the Secrets of pair `orders` of uid `u1`.
#[derive(Debug)]
struct Server {
    says: Says,
    pairs: Vec<(&'static str, &'static str)>,
    has_namespace: bool,
    deleted: Vec<(String, Value)>,
    asked: usize,
}

type Shared = Arc<Mutex<Server>>;

fn server(pairs: &[(&'static str, &'static str)], says: Says) -> Shared {
    let (pairs, deleted) = (pairs.to_vec(), Vec::new());
    Arc::new(Mutex::new(Server { says, pairs, has_namespace: true, deleted, asked: 0 }))
}

fn orphans(server: &Shared, namespaces: &[&str]) -> Orphans {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let server = server.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (path, query) =
                (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
            let (code, answer) = server.lock().unwrap().answer(&parts.method, &path, &query, body);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            let code = StatusCode::from_u16(code).unwrap();
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
    });
    let requests = Requests::new(Client::new(service, "default"), "pgpair-system", Arc::default());
    let namespaces = namespaces.iter().map(|n| (*n).to_owned()).collect();
    Orphans::new(requests, "pgpair-system", Domain { class: String::new(), namespaces })
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: Value) -> (u16, Value) {
        self.asked += 1;
        if *method == Method::DELETE {
            self.deleted.push((path.rsplit('/').next().unwrap().to_owned(), body["preconditions"].clone()));
            return (200, json!({"kind": "Status", "status": "Success"}));
        }
        let (is_more, is_one) = (query.contains("continue="), query.contains("fieldSelector="));
        match (path.ends_with("/pgreplicapairs"), self.says) {
            (false, Says::RefusesSecrets(code)) if path.ends_with("/secrets") => refused(code),
            (false, _) if path.ends_with("/secrets") => (200, list(&secrets(), "")),
            (false, _) if self.has_namespace => (200, json!({"metadata": {"name": "shop"}})),
            (false, _) => refused(404),
            (true, Says::Refuses(code)) => refused(code),
            (true, Says::RefusesOne(code)) if is_one => refused(code),
            (true, Says::IsBack) if is_one => (200, list(&[pair("orders", "u1")], "")),
            (true, Says::RefusesMore(code)) if is_more => refused(code),
            (true, Says::RefusesMore(_)) => (200, list(&[], "more")),
            (true, _) => {
                let pairs: Vec<Value> = self.pairs.iter().map(|(name, uid)| pair(name, uid)).collect();
                let of_name =
                    |pair: &Value| !is_one || query.contains(pair["metadata"]["name"].as_str().unwrap());
                (200, list(&pairs.into_iter().filter(of_name).collect::<Vec<_>>(), ""))
            }
        }
    }
}

fn refused(code: u16) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Why" };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"}))
}

fn list(items: &[Value], more: &str) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"continue": more}, "items": items})
}

fn pair(name: &str, uid: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": uid}})
}

fn secrets() -> Vec<Value> {
    let orders = PairName { namespace: "shop".into(), name: "orders".into() };
    let labels = orders.labels_with_operator("u1");
    let names = [orders.authority_secret("u1"), orders.operator_tls_secret("u1"), "mine".to_owned()];
    let secret = |(n, name)| json!({"metadata": {"name": name, "namespace": "pgpair-system", "uid": format!("s{n}"), "labels": labels}});
    names.into_iter().enumerate().map(secret).collect()
}

/// What is deleted after looks at these minutes.
async fn deleted(server: &Shared, namespaces: &[&str], minutes: &[u64]) -> Vec<(String, Value)> {
    let (mut orphans, begun) = (orphans(server, namespaces), Instant::now());
    for minute in minutes {
        // What failed is tried again at the next look.
        let _ = orphans.look(begun + Duration::from_secs(60 * minute)).await;
    }
    std::mem::take(&mut server.lock().unwrap().deleted)
}

#[tokio::test]
async fn the_secrets_of_a_pair_that_is_gone_are_deleted_and_those_of_one_that_exists_are_not() {
    let there = server(&[("orders", "u1")], Says::All);
    assert_eq!(deleted(&there, &[], &[0, 10, 70]).await, []);
    assert_eq!(there.lock().unwrap().asked, 6, "two lists for each look, however many pairs there are");
    for pairs in [vec![("other", "u2")], vec![("orders", "u2")]] {
        let gone = server(&pairs, Says::All);
        assert_eq!(deleted(&gone, &[], &[0, 9]).await, [], "{pairs:?}: it is waited");
        let deleted = deleted(&gone, &[], &[0, 10, 20]).await;
        let names: Vec<_> = deleted.iter().take(2).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["pgpair-shop-orders-u1-ca", "pgpair-shop-orders-u1-operator-tls"], "{pairs:?}");
        assert_eq!(deleted[0].1, json!({"uid": "s0"}), "not one that was made meanwhile");
        assert!(deleted.iter().all(|(name, _)| name != "mine"), "a label alone is not enough");
    }
}

#[rstest]
#[case::no_right(Says::Refuses(403))]
#[case::the_kind_is_not_known(Says::Refuses(404))]
#[case::trouble(Says::Refuses(500))]
#[case::half_a_list(Says::RefusesMore(410))]
#[case::no_answer_for_the_one(Says::RefusesOne(504))]
#[case::not_found_for_the_one(Says::RefusesOne(404))]
#[case::it_is_there_after_all(Says::IsBack)]
#[case::no_secrets(Says::RefusesSecrets(500))]
#[tokio::test]
async fn what_is_not_proven_deletes_nothing(#[case] says: Says) {
    for namespaces in [&[][..], &["shop"][..]] {
        let server = server(&[], says);
        assert_eq!(deleted(&server, namespaces, &[0, 10, 20, 80]).await, []);
    }
}

#[tokio::test]
async fn a_namespace_that_is_gone_takes_the_right_to_look_into_it_along_and_is_a_proof_itself() {
    let server = server(&[], Says::Refuses(403));
    server.lock().unwrap().has_namespace = false;
    assert_eq!(deleted(&server, &["shop"], &[0, 10]).await.len(), 2);
    // Of a pair elsewhere too, which this installation no longer looks after.
    assert_eq!(deleted(&server, &["bank"], &[0, 10]).await.len(), 2);
}

#[tokio::test]
async fn a_pair_that_was_seen_in_between_is_waited_for_anew() {
    let server = server(&[], Says::All);
    let (mut orphans, begun) = (orphans(&server, &[]), Instant::now());
    for (minute, pairs) in [(0, vec![]), (10, vec![("orders", "u1")]), (20, vec![]), (29, vec![])] {
        server.lock().unwrap().pairs = pairs;
        orphans.look(begun + Duration::from_secs(60 * minute)).await.unwrap();
        assert_eq!(server.lock().unwrap().deleted, [], "{minute}");
    }
    orphans.look(begun + Duration::from_secs(60 * 30)).await.unwrap();
    assert_eq!(server.lock().unwrap().deleted.len(), 2);
}
