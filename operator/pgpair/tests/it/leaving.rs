//! What an agent does that is told to end, as when its pod is deleted.

use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use rustix::process::{Signal, kill_process};

use crate::failover::{back_as_standby, table, taken_over};
use crate::orders::hold_checkpoints;
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

async fn ends(pair: &mut Pair, who: InstanceId) {
    eventually("the agent has ended", LIMIT, async || pair.has_ended(who).then_some(())).await;
}

/// A session of the agent waits for a checkpoint.
async fn checkpoint_is_awaited(pair: &Pair) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event LIKE 'Checkpoint%' AND query LIKE '%; CHECKPOINT'";
    eventually("a checkpoint is waited for", LIMIT, async || {
        (pair.sql(A, waits).await.as_deref() == Ok("1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_told_to_stop_hands_over_first() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.signal(A, Signal::TERM);
    taken_over(&pair, B, "1000").await;
    ends(&mut pair, A).await;
    pair.start(A);
    back_as_standby(&pair, A).await;
}

/// Many dirty buffers are written while clients are served, and not while nobody serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_told_to_stop_serves_until_its_checkpoint_has_ended() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    let checkpointer = hold_checkpoints(&pair).await;
    pair.signal(A, Signal::TERM);
    checkpoint_is_awaited(&pair).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        pair.sql(A, "INSERT INTO t VALUES (1)").await.unwrap();
    }
    let rows = pair.sql(A, "SELECT count(*) FROM t").await.unwrap();
    kill_process(checkpointer, Signal::CONT).unwrap();
    let handed_over = Instant::now();
    taken_over(&pair, B, &rows).await;
    println!("handed over in {:?} after the checkpoint", handed_over.elapsed());
    ends(&mut pair, A).await;
}

/// Also while the proof that commits wait needs a checkpoint itself, which may take a minute on a large server.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_checkpoint_never_ends_stops_all_the_same_and_in_the_time_that_it_has() {
    let grace = Duration::from_secs(16);
    let mut pair = Pair::up_with_grace(grace).await;
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    hold_checkpoints(&pair).await;
    pair.start(B);
    checkpoint_is_awaited(&pair).await;
    let begin = Instant::now();
    pair.signal(A, Signal::TERM);
    ends(&mut pair, A).await;
    println!("it ended after {:?}", begin.elapsed());
    assert!(begin.elapsed() < grace, "it ended after {:?}", begin.elapsed());
}
