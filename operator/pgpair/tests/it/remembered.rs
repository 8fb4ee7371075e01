//! What the volumes remember, so that they can be told apart without a record.

use std::fs;
use std::path::PathBuf;

use pgpair_core::authority::{Durability, Durable};
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::record::{Began, Beginning, Mode};
use rustix::process::Signal;

use crate::failover::{back_as_standby, table, taken_over};
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn state_json(pair: &Pair, i: InstanceId) -> PathBuf {
    pair.volume_json(i).with_file_name("state.json")
}

fn remembered(pair: &Pair, i: InstanceId) -> Durable {
    serde_json::from_slice(&fs::read(state_json(pair, i)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_says_whether_commits_wait_before_they_stop_waiting() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.paired().await;
    let (of_a, record) = (remembered(&pair, A), pair.api.record());
    assert_eq!((of_a.primary, of_a.mode), (true, Some(Mode::Paired)), "before the record said so");
    assert_eq!((of_a.standby_volume, of_a.durability), (record.standby_volume, Some(Durability::Sync)));
    assert_eq!(of_a.began, Some(Began { how: Beginning::Born, before: Mode::Solo }));

    // Nothing can be stored any more: the place of the next file is taken.
    let spare = state_json(&pair, A).with_file_name("state.json.spare");
    let _ = fs::remove_file(&spare);
    fs::create_dir(&spare).unwrap();
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    let client = pair.connect(A).await.unwrap();
    let commit = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (7)").await });
    eventually("the commit waits for the standby", LIMIT, async || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        (pair.sql(A, waits).await.as_deref() == Ok("1")).then_some(())
    })
    .await;
    assert_eq!(remembered(&pair, A).mode, Some(Mode::Paired), "what is on the disk is what commits rest on");

    fs::remove_dir(&spare).unwrap();
    commit.await.unwrap().unwrap();
    assert_eq!(remembered(&pair, A).mode, Some(Mode::Solo));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_primary_remembers_how_its_term_began() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    pair.paired().await;
    rustix::process::kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    taken_over(&pair, B, "1000").await;
    let of_b = remembered(&pair, B);
    assert!(of_b.primary && of_b.term > Term(1));
    assert_eq!(of_b.began, Some(Began { how: Beginning::Resigned, before: Mode::Paired }));
    back_as_standby(&pair, A).await;
    eventually("the former primary has seen it", LIMIT, async || {
        let of_a = remembered(&pair, A);
        (of_a.term == of_b.term && !of_a.primary && of_a.began.is_none()).then_some(())
    })
    .await;
}
