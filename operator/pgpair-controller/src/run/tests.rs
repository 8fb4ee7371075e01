use clap::Parser;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::leader::tests::Cluster;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: OperatorFlags,
}

fn flags(words: &[&str]) -> OperatorFlags {
    let own = ["operator", "--namespace=operators", "--lease=operator", "--identity=replica-1"];
    Line::parse_from(own.iter().chain(words)).flags
}

#[test]
fn without_flags_an_installation_looks_after_pairs_without_a_class_in_all_namespaces() {
    let domain = |words: &[&str]| flags(words).membership().domain;
    assert_eq!(domain(&[]), Domain::default());
    assert_eq!(domain(&[]).scopes(), [None]);
    let some = domain(&["--watch-namespaces=shop,bank", "--class=staging"]);
    assert_eq!((some.class.as_str(), some.scopes()), ("staging", vec![Some("bank"), Some("shop")]));
}

/// A client of a server that answers everything with that.
fn answers(code: StatusCode) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            assert_eq!(request.method(), Method::GET);
            let reason = code.canonical_reason().unwrap();
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": ""});
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            send.send_response(Response::builder().status(code).body(body).unwrap());
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_told_apart() {
    let told = async |code| check_definition(&answers(code), Some("shop")).await.unwrap_err();
    assert!(matches!(told(StatusCode::NOT_FOUND).await, RunError::NoDefinition(_)));
    let forbidden = told(StatusCode::FORBIDDEN).await;
    assert!(forbidden.to_string().contains("may not list PgReplicaPairs in namespace shop"), "{forbidden}");
    assert!(matches!(told(StatusCode::INTERNAL_SERVER_ERROR).await, RunError::List(..)));
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_caches_are_not_filled_ends_and_gives_its_lease_up() {
    let cluster = Cluster::default();
    let signs = Signs { health: Arc::default(), metrics: Arc::default() };
    let (_stop, stopped) = watch::channel(false);
    let ended = work(flags(&[]), cluster.client(), signs.clone(), stopped).await;
    assert!(matches!(ended, Err(RunError::Caches)), "{ended:?}");
    assert_eq!(cluster.holder("operators"), "");
    assert!(signs.metrics.render().contains("pgpair_operator_leader 0"));
}
