use http::Method;
use serde_json::json;

use super::*;
use crate::decide::decide;
use crate::fixtures::{name, pair, steady};
use crate::mock_api::{Answers, Seen, context, empty_caches, mock_api, seen};

/// Writes the status of `observed` over `old`; gives what was sent.
async fn writes(answers: Answers, old: &PgReplicaPairStatus, observed: &Observed) -> Vec<Seen> {
    let (client, server) = mock_api(answers);
    let (ctx, pair) = (context(client, empty_caches()), pair(json!({})));
    let new = compute(&name(), Some(3), observed, &decide(observed), None, old);
    report_status(&Pass::new(&ctx, &pair), &mut Memory::default(), old, new).await.unwrap();
    drop(ctx);
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
