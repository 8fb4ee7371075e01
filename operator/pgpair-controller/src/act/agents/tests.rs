use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use pgpair_core::order::OrderRefusal;
use serde_json::{Value, json};

use super::*;
use crate::agent_client::tests::serve;
use crate::decide::decide;
use crate::fixtures::{now, steady, valid};
use crate::memory::AgentLines;
use crate::mock_api::{Answers, mock_api, seen};
use crate::observed::Ended;

type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// A memory in which the agent of b answers everything like this, and what it will have been asked.
async fn agent_of_b(code: StatusCode, answer: &'static str) -> (Memory, Requests) {
    let requests = Requests::default();
    let noted = requests.clone();
    let app = Router::new().fallback(async move |request: Request| {
        let what = format!("{} {}", request.method(), request.uri().path());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        noted.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap_or(Value::Null)));
        (code, answer)
    });
    let (target, _) = serve(app).await;
    (Memory { lines: AgentLines::with_b(target), ..Memory::default() }, requests)
}

/// The container of the primary was killed; its agent does not answer.
fn killed() -> Observed {
    let mut observed = steady().a_silent();
    if let Some(pod) = &mut observed.a.pod {
        pod.ended = vec![Ended { reason: "Error".into(), message: "0000000000000007".into() }];
    }
    observed
}

#[tokio::test]
async fn a_proof_of_death_is_sent_once_to_each_agent_process_that_takes_it() {
    let (mut memory, requests) = agent_of_b(StatusCode::OK, "null").await;
    let mut observed = killed();
    let done = send_evidence(&mut memory, &decide(&observed)).await;
    assert!(matches!(done[..], [Notice::EvidenceSent(InstanceId::B, _)]), "{done:?}");
    let proof = json!({"incarnation": "0000000000000007", "kind": "KubeletTerminated"});
    assert_eq!(*requests.lock().unwrap(), [("POST /v1/evidence".to_owned(), proof)]);
    observed.taken = memory.evidence.clone();
    assert_eq!(send_evidence(&mut memory, &decide(&observed)).await, []);
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_proof_that_was_not_taken_is_sent_again() {
    let (mut memory, requests) = agent_of_b(StatusCode::SERVICE_UNAVAILABLE, "").await;
    let mut observed = killed();
    for times in 1..=2 {
        assert_eq!(send_evidence(&mut memory, &decide(&observed)).await, []);
        observed.taken = memory.evidence.clone();
        assert_eq!(requests.lock().unwrap().len(), times);
    }
}

#[tokio::test]
async fn newer_settings_are_put_and_nothing_else() {
    let (mut memory, requests) = agent_of_b(StatusCode::OK, "null").await;
    let mut observed = steady();
    send_settings(&mut memory, &decide(&observed), &observed.config).await;
    assert!(requests.lock().unwrap().is_empty(), "they have them");
    observed.config.generation = 4;
    send_settings(&mut memory, &decide(&observed), &observed.config).await;
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 1, "a has no line here");
    assert_eq!((requests[0].0.as_str(), &requests[0].1["generation"]), ("PUT /v1/config", &json!(4)));
}

#[tokio::test]
async fn passwords_are_put_and_an_agent_that_knows_none_is_remembered() {
    let plan = Plan { passwords: vec![InstanceId::B], ..decide(&steady()) };
    let pair = valid(json!({}));
    for (code, refused) in
        [(StatusCode::OK, false), (StatusCode::NOT_FOUND, true), (StatusCode::BAD_GATEWAY, false)]
    {
        let (client, server) = mock_api(Answers::Empty);
        let api = crate::api::Requests::new(client, "shop", Arc::default());
        let (mut memory, requests) = agent_of_b(code, "null").await;
        send_passwords(&api, &mut memory, &decide(&steady()), &pair).await.unwrap();
        assert!(requests.lock().unwrap().is_empty(), "it has them");
        send_passwords(&api, &mut memory, &plan, &pair).await.unwrap();
        assert_eq!(*requests.lock().unwrap(), [("PUT /v1/passwords".to_owned(), json!({}))]);
        assert_eq!(memory.refused_passwords.contains_key(&InstanceId::B), refused, "{code}");
        drop(api);
        assert_eq!(seen(server).await.len(), 1, "one look at the verifiers");
    }
}

/// An announced order to fence b.
fn announced() -> Observed {
    let id = format!("x-{}", now().as_second() - 5);
    let status =
        json!({"id": id, "kind": "Fence", "instance": "orders-b", "state": "Running", "reason": "Announced"});
    Observed {
        order: Some(format!(r#"{{"id":"{id}","kind":"Fence","instance":"b","term":3}}"#)),
        last_order: serde_json::from_value(status).unwrap(),
        ..steady()
    }
}

#[tokio::test]
async fn an_announced_order_is_posted_and_the_reply_is_told() {
    let (mut memory, requests) = agent_of_b(StatusCode::OK, r#"{"Refused":"Busy"}"#).await;
    let observed = announced();
    let told = send_order(&mut memory, &decide(&observed), &observed).await.unwrap();
    assert_eq!(told.reason.as_str(), OrderRefusal::Busy.as_str());
    let id = format!("x-{}", now().as_second() - 5);
    let order = json!({"id": id, "kind": "Fence", "term": 3});
    assert_eq!(*requests.lock().unwrap(), [("POST /v1/order".to_owned(), order)]);
}

#[tokio::test]
async fn an_order_without_an_answer_stays_announced_and_is_sent_again_with_the_same_id() {
    let (mut memory, requests) = agent_of_b(StatusCode::GATEWAY_TIMEOUT, "").await;
    let observed = announced();
    for _ in 0..2 {
        assert_eq!(send_order(&mut memory, &decide(&observed), &observed).await, None);
    }
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
}

#[tokio::test]
async fn what_an_agent_says_about_settings_that_it_refuses_is_remembered_until_it_takes_some() {
    let config = |generation| PairConfig { generation, ..PairConfig::default() };
    let plan = Plan { configure: vec![InstanceId::B], ..decide(&steady()) };
    let (mut memory, _) = agent_of_b(StatusCode::UNPROCESSABLE_ENTITY, "postgres does not\naccept it").await;
    send_settings(&mut memory, &plan, &config(4)).await;
    let refused = memory.refused_settings.get(&InstanceId::B).map(|(refusal, _)| refusal.clone());
    let words = "postgres does not accept it".to_owned();
    assert_eq!(refused, Some(SettingsRefusal { generation: 4, message: words }));
    for (code, kept) in [(StatusCode::SERVICE_UNAVAILABLE, true), (StatusCode::OK, false)] {
        memory.lines = agent_of_b(code, "null").await.0.lines;
        send_settings(&mut memory, &plan, &config(5)).await;
        assert_eq!(memory.refused_settings.contains_key(&InstanceId::B), kept, "{code}");
    }
}
