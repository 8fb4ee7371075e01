//! A password that is changed while the pair runs.

use pgpair_core::ids::InstanceId;
use pgpair_wire::paths;
use pgpair_wire::report::PasswordState;
use pgpair_wire::scram::{GivenPassword, Verifier};

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn password(text: &str) -> GivenPassword {
    GivenPassword::new(Verifier::make(text).unwrap(), text)
}

async fn await_state(pair: &Pair, i: InstanceId, given: &GivenPassword, state: PasswordState) {
    eventually("the report tells it", LIMIT, async || {
        let told = pair.report(i).await?.passwords.remove("app")?;
        (told.mark == given.verifier.mark() && told.state == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_given_comes_into_effect_at_once_and_after_a_failover_too() {
    let mut pair = Pair::up().await;
    assert!(pair.logs_in(A, "secret").await, "the first one is mounted");
    let new = password("n3w");
    for i in InstanceId::ALL {
        pair.give_password(i, &new).await;
    }
    for i in InstanceId::ALL {
        await_state(&pair, i, &new, PasswordState::InEffect).await;
    }
    assert!(pair.logs_in(A, "n3w").await && !pair.logs_in(A, "secret").await);
    // As a standby it cannot change anything yet.
    let newer = password("n3wer");
    pair.give_password(B, &newer).await;
    await_state(&pair, B, &newer, PasswordState::Awaited).await;
    pair.kill_container(A);
    await_state(&pair, B, &newer, PasswordState::InEffect).await;
    assert!(pair.logs_in(B, "n3wer").await);
    assert_eq!(pair.api.record().primary.instance, B);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_password_is_refused_without_a_word_of_it() {
    let pair = Pair::up().await;
    let body = r#"{"app":{"verifier":"s3cret","clientKey":"s3cret"}}"#;
    let (status, said) = pair.ask(A, "PUT", paths::PASSWORDS, body).await.unwrap();
    assert!(status == 422 && !said.contains("s3cret"), "{status} {said}");
    assert!(pair.logs_in(A, "secret").await);
}
