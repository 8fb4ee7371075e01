//! What a pair does when something dies.

use std::time::{Duration, Instant};

use pgpair_core::authority::{Durability, FailoverCause};
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::order::{OrderKind, OrderReply};
use pgpair_core::record::Mode;
use pgpair_core::timeline::TimelineId;
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::{HistoryPlace, RejoinKind, TwoPasts};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal};

use crate::orders::order;
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

pub async fn table(pair: &Pair, at: InstanceId) {
    pair.sql(at, "CREATE TABLE t (n int)").await.unwrap();
    pair.sql(at, "INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
}

/// `to` is primary of a later term with every row, `from` comes back as a standby, and the two are Paired.
pub async fn taken_over(pair: &Pair, to: InstanceId, rows: &str) {
    eventually("the record names the other instance", LIMIT, async || {
        let r = pair.api.record();
        (r.primary.instance == to && r.term > Term(1)).then_some(())
    })
    .await;
    eventually("it takes writes", LIMIT, async || pair.is_writable(to).await.then_some(())).await;
    assert_eq!(pair.sql(to, "SELECT count(*) FROM t").await.as_deref(), Ok(rows));
    let name = format!("shop-{to}-0");
    eventually("the endpoint follows", LIMIT, async || pair.api.endpoint().filter(|e| *e == name)).await;
}

pub async fn back_as_standby(pair: &Pair, who: InstanceId) {
    pair.paired().await;
    pair.sql(who.peer(), "INSERT INTO t VALUES (0)").await.unwrap();
    let rows = pair.sql(who.peer(), "SELECT count(*) FROM t").await.unwrap();
    eventually("the standby has every row", LIMIT, async || {
        (pair.sql(who, "SELECT count(*) FROM t").await.as_ref() == Ok(&rows)).then_some(())
    })
    .await;
    assert!(!pair.is_writable(who).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_is_handed_over_and_comes_back_as_a_standby() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    rustix::process::kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    taken_over(&pair, B, "1000").await;
    back_as_standby(&pair, A).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_a_killed_primary_had_not_sent_is_fetched_as_soon_as_it_is_handed_over() {
    // Long enough for the agent to be stopped meanwhile, however busy the machine is: a promise that lapses is no longer handed over.
    let pair = Pair::up_with(PairConfig { ttl_ms: 60_000, ..PairConfig::default() }).await;
    table(&pair, A).await;
    // Left to itself recovery asks once, and then so late that the old primary has taken its term back.
    pair.sql(B, "ALTER SYSTEM SET wal_retrieve_retry_interval = '5min'").await.unwrap();
    pair.sql(B, "SELECT pg_reload_conf()").await.unwrap();
    let walsender = pair.sql(A, "SELECT pid FROM pg_stat_replication").await.unwrap().parse().unwrap();
    let walsender = Pid::from_raw(walsender).unwrap();
    rustix::process::kill_process(walsender, Signal::STOP).unwrap();
    let unsent = "SET synchronous_commit = local; INSERT INTO t SELECT generate_series(1, 100)";
    pair.sql(A, unsent).await.unwrap();
    let agent = pair.agent_pid(A);
    rustix::process::kill_process(agent, Signal::STOP).unwrap();
    for pid in [pair.postmaster_pid(A), walsender] {
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    eventually("recovery has asked in vain", LIMIT, async || {
        let waits = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'";
        (pair.sql(B, waits).await.as_deref() == Ok("RecoveryRetrieveRetryInterval")).then_some(())
    })
    .await;
    rustix::process::kill_process(agent, Signal::CONT).unwrap();
    taken_over(&pair, B, "1100").await;
}

/// Rewound to the place of the next record, which lies behind the header of an empty segment: an idle primary writes none by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_is_rewound_to_an_idle_one_comes_back_although_nothing_is_written() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    let walsender = pair.sql(A, "SELECT pid FROM pg_stat_replication").await.unwrap().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(walsender).unwrap(), Signal::STOP).unwrap();
    pair.sql(A, "SET synchronous_commit = local; INSERT INTO t VALUES (-1)").await.unwrap();
    pair.kill_container(A);
    taken_over(&pair, B, "1000").await;
    pair.sql(B, "CHECKPOINT").await.unwrap();
    // It logs what runs a quarter of a minute after the last record of others.
    let writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'";
    let writer = pair.sql(B, writer).await.unwrap().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(writer).unwrap(), Signal::STOP).unwrap();
    eventually("the next record is to come behind a header", LIMIT, async || {
        pair.sql(B, "SELECT pg_switch_wal()").await.ok()?;
        let ahead = "SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()";
        (pair.sql(B, ahead).await.as_deref() == Ok("t")).then_some(())
    })
    .await;
    pair.start(A);
    pair.paired().await;
    assert_eq!(pair.report(A).await.unwrap().rejoin.unwrap().how, RejoinKind::Rewound);
}

/// Something of it may still run and write: its end is not known, and nothing may be started beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_postgres_counts_as_running_until_its_lock_is_free() {
    // Long enough for the agent to be stopped meanwhile.
    let pair = Pair::up_with(PairConfig { ttl_ms: 60_000, ..PairConfig::default() }).await;
    table(&pair, A).await;
    let agent = pair.agent_pid(A);
    rustix::process::kill_process(agent, Signal::STOP).unwrap();
    rustix::process::kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    // A process of the dead postgres, as far as the agent can tell.
    let lock = std::fs::File::open(pair.lock(A)).unwrap();
    eventually("the children of the postmaster are gone", LIMIT, async || {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()
    })
    .await;
    rustix::process::kill_process(agent, Signal::CONT).unwrap();
    eventually("it counts as running", LIMIT, async || {
        pair.report(A).await.filter(|r| r.postgres.state == PostgresState::Starting).map(drop)
    })
    .await;
    drop(lock);
    let primary = eventually("the pair takes writes again", LIMIT, async || {
        if pair.is_writable(A).await { Some(A) } else { pair.is_writable(B).await.then_some(B) }
    })
    .await;
    assert_eq!(pair.sql(primary, "SELECT count(*) FROM t").await.as_deref(), Ok("1000"));
}

/// What it has recovered may not be on its standby: a client that reads it would see what a take-over could still undo.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_restart_clients_wait_until_the_standby_has_everything_or_the_record_says_solo() {
    // Long enough for a start and a look before the record says Solo.
    let pair = Pair::up_with(PairConfig { ttl_ms: 20_000, ..PairConfig::default() }).await;
    table(&pair, A).await;
    assert!(pair.admits_clients(A).await);
    let killed = pair.postmaster_pid(A);
    // Nobody can take over, and nobody confirms.
    rustix::process::kill_process(pair.agent_pid(B), Signal::STOP).unwrap();
    rustix::process::kill_process(pair.postmaster_pid(B), Signal::STOP).unwrap();
    rustix::process::kill_process(killed, Signal::KILL).unwrap();
    eventually("the primary is started again", LIMIT, async || {
        (pair.is_writable(A).await && pair.postmaster_pid(A) != killed).then_some(())
    })
    .await;
    eventually("clients are let in", LIMIT, async || pair.admits_clients(A).await.then_some(())).await;
    assert_eq!(pair.api.mode(), Mode::Solo);
    rustix::process::kill_process(pair.postmaster_pid(B), Signal::CONT).unwrap();
    rustix::process::kill_process(pair.agent_pid(B), Signal::CONT).unwrap();
    back_as_standby(&pair, B).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_taken_over_when_its_promise_has_lapsed() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.kill_container(A);
    taken_over(&pair, B, "1000").await;
    pair.start(A);
    back_as_standby(&pair, A).await;
}

/// A zombie (its parent is stopped and cannot reap it) executes nothing.
fn executes(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_is_fenced_by_the_deadman_before_its_standby_takes_over() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    let postmaster = pair.postmaster_pid(A);
    rustix::process::kill_process(pair.agent_pid(A), Signal::STOP).unwrap();
    eventually("the record names b", LIMIT, async || (pair.api.record().primary.instance == B).then_some(()))
        .await;
    assert!(!executes(postmaster), "its postmaster is dead by then");
    taken_over(&pair, B, "1000").await;
    rustix::process::kill_process(pair.agent_pid(A), Signal::CONT).unwrap();
    back_as_standby(&pair, A).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_is_taken_over_by_the_word_of_its_witness() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.start_witness(A);
    eventually("the witness waits for the lock", LIMIT, async || pair.witness_waits(A).then_some(())).await;
    pair.kill_container(A);
    taken_over(&pair, B, "1000").await;
    let cause = pair.report(B).await.and_then(|r| r.last_failover).map(|f| f.cause);
    assert_eq!(cause, Some(FailoverCause::Evidence));
    pair.start(A);
    back_as_standby(&pair, A).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_comes_back_at_once_hands_over_what_its_predecessor_left() {
    // A promise that does not lapse while a busy machine starts an agent.
    let mut pair = Pair::up_with(PairConfig { ttl_ms: 10_000, ..PairConfig::default() }).await;
    table(&pair, A).await;
    pair.kill_container(A);
    pair.start(A);
    taken_over(&pair, B, "1000").await;
    let cause = pair.report(B).await.and_then(|r| r.last_failover).map(|f| f.cause);
    assert_eq!(cause, Some(FailoverCause::Resigned));
    back_as_standby(&pair, A).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_pair_does_not_notice_that_the_api_server_is_away() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    let (record, writes) = (pair.api.record(), pair.api.writes());
    pair.api.set_away(true);
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        pair.sql(A, "INSERT INTO t VALUES (0)").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pair.api.set_away(false);
    assert_eq!((pair.api.record(), pair.api.writes()), (record, writes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_standby_leaves_the_primary_writing_and_the_record_solo() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    eventually("commits do not wait", LIMIT, async || pair.sql(A, "INSERT INTO t VALUES (0)").await.ok())
        .await;
    assert_eq!(pair.api.record().term, Term(1));
    pair.start(B);
    back_as_standby(&pair, B).await;
}

/// The end of the WAL, when nothing has been written for longer than the 15 s after which the background writer describes the running
/// transactions once more.
async fn idle(pair: &Pair, who: InstanceId) -> String {
    let (mut seen, mut since) = (String::new(), Instant::now());
    eventually("nothing is written any more", 2 * LIMIT, async || {
        let end = pair.sql(who, "SELECT pg_current_wal_flush_lsn()").await.ok()?;
        if end != seen {
            (seen, since) = (end, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(17)).then(|| seen.clone())
    })
    .await
}

/// Its walreceiver then says that it has received up to the start of a segment, until the primary writes again.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_standby_that_starts_again_is_paired_with_although_nothing_is_written() {
    let parameters = [
        ("autovacuum".to_owned(), "off".to_owned()),
        // A background writer that has nothing to do sleeps 50 times as long, and describes the running transactions as much later.
        ("bgwriter_delay".to_owned(), "10ms".to_owned()),
    ]
    .into();
    // In the sync modes the proof that commits wait is a checkpoint, which writes.
    let config = PairConfig { durability: Durability::Async, parameters, ..PairConfig::default() };
    let mut pair = Pair::up_with(config).await;
    table(&pair, A).await;
    let mut undisturbed = false;
    for _ in 0..3 {
        undisturbed = restarts_while_nothing_is_written(&mut pair).await;
        if undisturbed {
            break;
        }
    }
    assert!(undisturbed, "postgres itself wrote each time before they were paired");
}

/// `false`: postgres wrote something by itself before they were paired, or they were too soon, which shows nothing.
async fn restarts_while_nothing_is_written(pair: &mut Pair) -> bool {
    pair.sql(A, "CHECKPOINT").await.unwrap();
    pair.sql(A, "SELECT pg_switch_wal()").await.unwrap();
    let end = idle(&*pair, A).await;
    let has_it = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    eventually("all is replayed", LIMIT, async || {
        (pair.sql(B, &has_it).await.as_deref() == Ok("t")).then_some(())
    })
    .await;
    // A killed postmaster could be back before the pair leaves Paired.
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    pair.start(B);
    eventually("its postgres starts", LIMIT, async || {
        (pair.report(B).await?.postgres.state != PostgresState::Down).then_some(())
    })
    .await;
    // Long enough for a standby that lacks something to count as stalled.
    pair.api.set_away(true);
    let was_solo = pair.api.mode() == Mode::Solo;
    let streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    eventually("it streams", LIMIT, async || {
        (pair.sql(B, streams).await.as_deref() == Ok("1")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let behind = "SELECT pg_last_wal_receive_lsn() < pg_last_wal_replay_lsn()";
    let still_behind = pair.sql(B, behind).await.as_deref() == Ok("t");
    if still_behind {
        let report = pair.report(B).await.unwrap();
        let (flush, replay) = (report.postgres.flush_lsn, report.postgres.replay_lsn);
        assert!(flush.is_some() && flush == replay, "{flush:?} {replay:?}");
    }
    pair.api.set_away(false);
    pair.paired().await;
    was_solo && still_behind && pair.sql(A, "SELECT pg_current_wal_flush_lsn()").await.unwrap() == end
}

/// What settles it is a later version of the record, and a write that changes nothing makes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_the_record_that_gets_lost_keeps_nobody_from_pairing() {
    let mut pair = Pair::up().await;
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    pair.api.lose(Mode::Paired);
    pair.start(B);
    eventually("the write is lost", LIMIT, async || pair.api.has_lost().then_some(())).await;
    pair.paired().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_rebuild_is_asked_of_the_operator_when_the_primary_goes_on_alone() {
    let pair = Pair::up().await;
    assert_eq!(pair.report(B).await.unwrap().need, None);
    assert_eq!(order(&pair, B, "anew", OrderKind::Rebuild).await, OrderReply::Accepted);
    eventually("it asks for a base backup", LIMIT, async || pair.report(B).await?.need).await;
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    eventually("commits do not wait", LIMIT, async || pair.sql(A, "CREATE TABLE t (n int)").await.ok()).await;
}

/// What was archived while an instance was away, or on a volume that is gone, its postgres never archives again.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_of_an_archive_are_filled_from_the_peers() {
    let pair = Pair::up().await;
    pair.sql(A, "CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    let closed = "SELECT pg_walfile_name(pg_switch_wal())";
    let one = pair.sql(A, closed).await.unwrap();
    pair.sql(A, "INSERT INTO t VALUES (2)").await.unwrap();
    let other = pair.sql(A, closed).await.unwrap();
    pair.sql(A, "INSERT INTO t VALUES (3)").await.unwrap();
    pair.sql(A, closed).await.unwrap();
    let lost = [(B, one), (A, other)].map(|(who, name)| (pair.archive(who).join(&name), name));
    for (path, name) in &lost {
        for i in InstanceId::ALL {
            let there = pair.archive(i).join(name);
            eventually("the segment is archived", LIMIT, async || there.exists().then_some(())).await;
        }
        std::fs::remove_file(path).unwrap();
    }
    for ((path, name), peer) in lost.iter().zip([A, B]) {
        eventually("it is there again", 2 * LIMIT, async || path.exists().then_some(())).await;
        assert!(std::fs::read(path).unwrap() == std::fs::read(pair.archive(peer).join(name)).unwrap());
    }
}

/// Another server has used the number before, and a has its history. The old primary follows the new one all the same, and both say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_with_two_pasts_is_told_and_the_primarys_is_followed() {
    let mut pair = Pair::up().await;
    table(&pair, A).await;
    pair.sql(A, "SELECT pg_switch_wal()").await.unwrap();
    eventually("a has an archive", LIMIT, async || pair.report(A).await?.archive.last_segment.map(|_| ()))
        .await;
    pair.kill_container(A);
    taken_over(&pair, B, "1000").await;
    std::fs::write(pair.archive(A).join("00000002.history"), "1\t0/F0000000\tanother server\n").unwrap();
    pair.start(A);
    back_as_standby(&pair, A).await;
    let told = async |i| {
        let limit = 2 * LIMIT;
        eventually("it is told", limit, async || pair.report(i).await?.archive.two_pasts).await
    };
    let found = |other| TwoPasts { timeline: TimelineId(2), one: HistoryPlace::InUse, other };
    assert_eq!(told(A).await, found(HistoryPlace::Archive));
    assert_eq!(told(B).await, found(HistoryPlace::PeersArchive));
}

/// Killed between the removal of `standby.signal` and the first record of its timeline, or after it: never a primary on the old timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_killed_while_it_is_promoted_is_promoted_once_more() {
    let mut pair = Pair::up().await;
    pair.sql(A, "CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    let signal = pair.pgdata(B).join("standby.signal");
    pair.kill_container(A);
    let begun = Instant::now();
    while signal.exists() && begun.elapsed() < LIMIT {
        std::hint::spin_loop();
    }
    pair.kill_container(B);
    pair.start(B);
    eventually("b takes writes, on another timeline than a's", LIMIT, async || {
        let timeline = pair.report(B).await?.postgres.timeline?;
        (timeline.0 > 1 && pair.is_writable(B).await).then_some(())
    })
    .await;
    pair.start(A);
    pair.paired().await;
    assert!(pair.sql(A, "SELECT n FROM t").await.unwrap().contains('7'));
}
