//! A Secret that is changed while the pair runs.

use pgpair_core::ids::InstanceId;

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

async fn await_login(pair: &Pair, at: InstanceId, password: &str) {
    eventually("the application gets in", LIMIT, async || pair.logs_in(at, password).await.then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_changed_secret_comes_into_effect_and_an_empty_one_does_not() {
    let mut pair = Pair::up().await;
    await_login(&pair, A, "secret").await;
    let remembered = "data/passwords.json";
    for i in InstanceId::ALL {
        eventually("it is remembered", LIMIT, async || pair.has_file(i, remembered).then_some(())).await;
    }
    pair.mount_password(A, "");
    let trouble = eventually("it is told", LIMIT, async || pair.report(A).await?.trouble).await;
    assert!(trouble.contains("empty password"), "{trouble}");
    assert!(pair.logs_in(A, "secret").await);
    pair.mount_password(A, "n3w");
    await_login(&pair, A, "n3w").await;
    assert!(!pair.logs_in(A, "secret").await);
    eventually("nothing is wrong", LIMIT, async || {
        pair.report(A).await.filter(|r| r.trouble.is_none()).map(|_| ())
    })
    .await;
    // As a standby it cannot change anything yet.
    pair.mount_password(B, "n3wer");
    pair.kill_container(A);
    await_login(&pair, B, "n3wer").await;
    assert_eq!(pair.api.record().primary.instance, B);
}
