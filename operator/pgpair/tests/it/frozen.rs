//! What a pair does when a whole volume hangs: a file system of its own, frozen as a kernel freezes it.

use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use rustix::process::{Pid, Signal, kill_process};

use crate::failover::{back_as_standby, table};
use crate::pair::{LIMIT, Pair, Volume, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

/// Far longer than all that ends a primary with this configuration.
const LONG: Duration = Duration::from_secs(20);

fn quick() -> PairConfig {
    PairConfig { generation: 1, ttl_ms: 2_000, hang_timeout_ms: 2_000, ..PairConfig::default() }
}

/// No fence, no restart, no failover, and commits go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_archive_volume_hangs_goes_on() {
    let (pair, volume) = Pair::up_on_mount(quick(), A, Volume::Archive).await;
    table(&pair, A).await;
    let (record, postmaster) = (pair.api.record(), pair.postmaster_pid(A));
    let frozen = volume.freeze();
    pair.sql(A, "SELECT pg_switch_wal()").await.unwrap();
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        pair.sql(A, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(pair.probe(A, "/livez").await, 200);
    }
    assert_eq!((pair.api.record(), pair.postmaster_pid(A)), (record, postmaster));
    // What is read of the volume is answered: only the archiver shows that it hangs.
    assert!(pair.report(A).await.unwrap().archive.backlog_segments > Some(0));
    drop(frozen);
    eventually("nothing waits for the archiver", LIMIT, async || {
        (pair.report(A).await?.archive.backlog_segments == Some(0)).then_some(())
    })
    .await;
    assert_eq!((pair.api.record(), pair.postmaster_pid(A)), (record, postmaster));
}

/// Nothing is written to it: its walreceiver waits for nothing, and what is read of the volume is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_standby_whose_data_volume_hangs_does_not_take_over() {
    let (pair, volume) = Pair::up_on_mount(quick(), B, Volume::Data).await;
    table(&pair, A).await;
    let frozen = volume.freeze();
    eventually("the standby does not count as one that runs", LIMIT, async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Starting)
    })
    .await;
    let killed = pair.postmaster_pid(A);
    kill_process(killed, Signal::KILL).unwrap();
    eventually("the primary is started again", LIMIT, async || {
        (pair.is_writable(A).await && pair.postmaster_pid(A) != killed).then_some(())
    })
    .await;
    assert_eq!(pair.api.record().primary.instance, A);
    drop(frozen);
    back_as_standby(&pair, B).await;
}

/// It cannot keep the branch, so it must not be rewound either; its agent goes on to say why it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_primary_whose_archive_volume_hangs_waits_and_says_for_what() {
    let (mut pair, volume) = Pair::up_on_mount(quick(), A, Volume::Archive).await;
    table(&pair, A).await;
    let walsender = pair.sql(A, "SELECT pid FROM pg_stat_replication").await.unwrap();
    kill_process(Pid::from_raw(walsender.parse().unwrap()).unwrap(), Signal::STOP).unwrap();
    let alone = "SET synchronous_commit = local; INSERT INTO t SELECT generate_series(1, 100)";
    pair.sql(A, alone).await.unwrap();
    pair.kill_container(A);
    eventually("b takes over", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    assert_eq!(pair.sql(B, "SELECT count(*) FROM t").await.as_deref(), Ok("1000"), "a has a branch");
    let frozen = volume.freeze();
    pair.start(A);
    eventually("a says for what it waits", LIMIT, async || {
        pair.report(A).await?.trouble.filter(|told| told.contains("still being copied to the archive volume"))
    })
    .await;
    assert_eq!(pair.api.mode(), Mode::Solo);
    drop(frozen);
    back_as_standby(&pair, A).await;
    assert!(volume.path().join("lost").read_dir().unwrap().next().is_some(), "the branch is kept");
}
