//! What the status tells of a standby that is behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::api::LogParams;
use pgpair_api::order::OrderReason;
use pgpair_api::status::{LagStatus, LagValue, OrderState, Reason};
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_core::order::OrderRefusal;
use pgpair_core::record::Mode;
use pgpair_e2e::harness::pair::{CONTAINER, Pair};
use pgpair_e2e::harness::record::{self, RecordLog};
use pgpair_e2e::harness::wait::await_condition;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// Status numbers are written at most every 10 s.
const STATUS: Duration = Duration::from_secs(45);
/// For a standby that was stopped to be taken for lost, and for one that runs again to catch up.
const CATCH_UP: Duration = Duration::from_secs(90);
/// Written while the standby is behind, and a part of it that must be told.
const ROWS: u32 = 40_000;
const TOLD: i64 = 2 << 20;
/// For readers to be led away from a standby that is behind: aimed at are two seconds, on a machine with nothing else to do.
const LED_AWAY: Duration = Duration::from_secs(10);
/// The same from one that does not answer: first that has to be believed.
const BELIEVED: Duration = Duration::from_secs(20);
/// The walreceiver stands still for half a second and then gets its log for a moment, nine times: each time it gets further, so it
/// does not stall. However the shell ends, it runs on.
const BURSTS: &str = "pid=$(psql -X -h /pgpair/run/pg -U postgres -Atc 'SELECT pid FROM pg_stat_wal_receiver'); \
    trap \"kill -CONT $pid\" EXIT; \
    for i in $(seq 9); do kill -STOP $pid || exit 1; sleep 0.5; kill -CONT $pid || exit 1; sleep 0.06; done";
/// For five seconds, as much log as keeps the standby 64 MiB behind: what is known of positions is up to a second old, and it gets
/// less than that in a second.
const MORE_LOG: &str = "DO $$ DECLARE ends timestamptz := clock_timestamp() + interval '5 s'; BEGIN \
    WHILE clock_timestamp() < ends LOOP \
    IF (SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), flush_lsn) < 67108864 FROM pg_stat_replication LIMIT 1) THEN \
    PERFORM pg_logical_emit_message(false, 'lag', repeat('x', 1000000)) FROM generate_series(1, 8); END IF; \
    COMMIT; PERFORM pg_sleep(0.02); END LOOP; END $$";
/// For ten seconds, commits with 8 MB of log a second: what is known of positions is up to a second old, and by that every standby
/// lacks some megabytes.
const BULK: &str = "DO $$ BEGIN FOR i IN 1..100 LOOP \
    PERFORM pg_logical_emit_message(true, 'lag', repeat('x', 800000)); COMMIT; PERFORM pg_sleep(0.1); END LOOP; END $$";
const BULK_BYTES: u64 = 80_000_000;
/// Of each of the two, which take some five seconds: longer than all that is waited for meanwhile.
const TIMES: u32 = 40;
/// Lines at the end of an agent's log in which what it has just decided is found.
const TAIL: i64 = 2000;

/// The log arrives and is not replayed: replay lag, and no receive lag; the pair stays ready for a failover.
pub async fn replay_lag_is_told_and_goes_back(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, CATCH_UP).await?;
    let primary = pair.primary_of(&status)?;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_pause()").await?;
    let told = async {
        write(&pair, primary, "lag_replay").await?;
        let lag = await_lag(&pair, "replay", |lag| lag.replay).await?;
        let receive = lag.receive.context("no receive lag")?;
        ensure!(receive.bytes < TOLD, "the log has arrived, but receive lag is {} bytes", receive.bytes);
        Ok(lag.summary)
    };
    let told = told.await;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_resume()").await?;
    println!("  replay stopped: {}", told?);
    await_no_lag(&pair).await?;
    Ok(Outcome::Passed)
}

/// A standby that receives nothing holds no commit up for long: the primary goes on alone, the lag grows by what it writes
/// and by time, and goes back to nothing when the standby runs again.
pub async fn receive_lag_is_told_while_the_standby_is_stopped(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, CATCH_UP).await?;
    let primary = pair.primary_of(&status)?;
    let receiver = pair.psql(primary.peer(), "SELECT pid FROM pg_stat_wal_receiver").await?;
    pair.shell(primary.peer(), &format!("kill -STOP {receiver}")).await?;
    let told = async {
        write(&pair, primary, "lag_receive").await?;
        let lag = await_lag(&pair, "receive", |lag| lag.receive).await?;
        let status = pair.status().await?;
        ensure!(pair.primary_of(&status)? == primary, "the primary has changed");
        Ok(lag.summary)
    };
    let told = told.await;
    pair.shell(primary.peer(), &format!("kill -CONT {receiver}")).await?;
    println!("  walreceiver stopped: {}", pair.explain(told).await?);
    pair.await_paired(1, CATCH_UP).await?;
    await_no_lag(&pair).await?;
    Ok(Outcome::Passed)
}

/// A standby that does not replay leaves `NAME-ro` to the primary, and comes back when it has.
pub async fn a_standby_beyond_read_lag_leaves_the_read_service(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let primary = pair.primary_of(&pair.await_paired(1, CATCH_UP).await?)?;
    pair.set(&json!({"readLag": "1Mi"})).await?;
    await_readers(&pair, primary.peer(), STATUS).await?;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_pause()").await?;
    let left = async {
        write(&pair, primary, "lag_read").await?;
        let begin = Instant::now();
        await_readers(&pair, primary, LED_AWAY).await?;
        anyhow::Ok(begin.elapsed())
    };
    let left = left.await;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_resume()").await?;
    let back = await_readers(&pair, primary.peer(), STATUS).await;
    // The pair is used by others, whatever was found.
    pair.set(&json!({"readLag": "64Mi"})).await?;
    println!("  readers were at the primary {:.1} s after the last of the writes", left?.as_secs_f64());
    back.map(|()| Outcome::Passed)
}

/// A standby that answers no new connection is of no use to readers, however little it lacks.
pub async fn a_standby_whose_postgres_is_frozen_leaves_the_read_service(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let primary = pair.primary_of(&pair.await_paired(1, CATCH_UP).await?)?;
    let standby = primary.peer();
    await_readers(&pair, standby, STATUS).await?;
    let stop = "pid=$(head -n 1 /pgpair/data/pgdata/postmaster.pid) && kill -STOP $pid && echo $pid";
    let postmaster = pair.shell(standby, stop).await?;
    let begin = Instant::now();
    let left = await_readers(&pair, primary, BELIEVED).await.map(|()| begin.elapsed());
    // Its agent may have started another one meanwhile.
    pair.shell(standby, &format!("kill -CONT {postmaster} || true")).await?;
    let left = pair.explain(left).await?;
    println!("  readers were at the primary {:.1} s after postgres was frozen", left.as_secs_f64());
    await_readers(&pair, standby, CATCH_UP).await?;
    pair.await_paired(1, CATCH_UP).await?;
    Ok(Outcome::Passed)
}

/// In `Async` too a standby that lacks more than `maxLag` may not take over, although it gets further all the time; the status tells how
/// much it lacks.
pub async fn an_async_standby_beyond_max_lag_may_not_take_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let primary = pair.primary_of(&pair.await_paired(1, CATCH_UP).await?)?;
    pair.set(&json!({"durability": "Async", "failover": {"maxLag": "1Mi"}})).await?;
    let refused = async {
        record::await_durability(&pair, Durability::Async, CATCH_UP).await?;
        let enough = AtomicBool::new(false);
        let refused = async {
            let refused = beyond_max_lag(&pair, primary).await;
            enough.store(true, Ordering::Relaxed);
            refused
        };
        let (behind, refused) = tokio::join!(keep_behind(&pair, primary, &enough), refused);
        pair.explain(behind.context("keeping the standby behind").and(refused)).await
    };
    let refused = refused.await;
    // The pair is used by others, whatever was found.
    pair.set(&json!({"durability": "Sync", "failover": {"maxLag": "16Mi"}})).await?;
    record::await_durability(&pair, Durability::Sync, CATCH_UP).await?;
    println!("  {}", refused?);
    await_no_lag(&pair).await?;
    Ok(Outcome::Passed)
}

/// In a sync mode a standby that soon has what the primary had may take over, however much is written between two looks.
pub async fn a_load_that_the_standby_keeps_up_with_leaves_the_pair_paired(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let primary = pair.primary_of(&pair.await_paired(1, CATCH_UP).await?)?;
    pair.set(&json!({"failover": {"maxLag": "1Mi"}})).await?;
    let stayed = async {
        await_condition("the limit in effect", STATUS, || pair.is_observed()).await?;
        let record = RecordLog::start(&pair);
        await_condition("the record", STATUS, || async { record.last().context("not seen yet") }).await?;
        let written = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        let before: u64 = pair.psql(primary, written).await?.parse()?;
        pair.psql(primary, BULK).await?;
        let bytes = pair.psql(primary, written).await?.parse::<u64>()? - before;
        ensure!(bytes > BULK_BYTES, "{bytes} bytes of log were written");
        let left: Vec<_> = record.all().into_iter().filter(|s| s.record.mode != Mode::Paired).collect();
        ensure!(left.is_empty(), "not Paired all the time: {left:?}");
        Ok(bytes)
    };
    let stayed = stayed.await;
    // The pair is used by others, whatever was found.
    pair.set(&json!({"failover": {"maxLag": "16Mi"}})).await?;
    let stayed = pair.explain(stayed).await?;
    println!("  {} MB of log, and Paired all the time", stayed / 1_000_000);
    Ok(Outcome::Passed)
}

/// The primary makes more log than gets through to the standby, until it is enough.
async fn keep_behind(pair: &Pair, primary: InstanceId, enough: &AtomicBool) -> anyhow::Result<()> {
    let writes = async {
        for _ in 0..TIMES {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            pair.psql(primary, MORE_LOG).await?;
        }
        anyhow::Ok(())
    };
    let receives = async {
        for _ in 0..TIMES {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            pair.shell(primary.peer(), BURSTS).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(writes, receives).map(|_| ())
}

async fn beyond_max_lag(pair: &Pair, primary: InstanceId) -> anyhow::Result<String> {
    let told = await_condition("FailoverReady=False for the lag, in mode Solo", CATCH_UP, || async {
        let status = pair.status().await?;
        ensure!(status.mode.as_ref().is_some_and(|m| m.is(Mode::Solo)), "mode is {:?}", status.mode);
        let found = status.conditions.into_iter().find(|c| c.type_ == "FailoverReady");
        let found = found.context("no condition FailoverReady")?;
        ensure!(found.status == "False" && found.reason == Reason::StandbyLags.as_str(), "{found:?}");
        Ok(found.message)
    });
    let told = told.await?;
    ensure!(lag_in(&told, &pair.names.instance(primary.peer())).is_some(), "no number of bytes: {told}");
    // Not because it stood still, or did not stream.
    let why = went_alone(pair, primary).await?;
    ensure!(why.contains("StandbyLags"), "{why}");
    let order = crate::orders::ordered(pair, json!({"kind": "Switchover"})).await?;
    let is_not_paired = order.reason == Some(OrderReason::Refused(OrderRefusal::NotPaired).into());
    ensure!(order.state.is(OrderState::Refused) && is_not_paired, "{order:?}");
    Ok(told)
}

/// The number in `orders-b lags 48 MiB over maxLag 1 MiB`, at the end of a message, with its unit.
fn lag_in<'a>(message: &'a str, standby: &str) -> Option<&'a str> {
    let (_, told) = message.split_once(&format!("{standby} lags "))?;
    let lag = told.strip_suffix(" over maxLag 1 MiB")?;
    let (number, _) = lag.split_once(' ')?;
    (number.parse::<u64>().ok()? > 0).then_some(lag)
}

/// What the primary's agent said when it last went on alone.
async fn went_alone(pair: &Pair, primary: InstanceId) -> anyhow::Result<String> {
    let (pod, container) = (pair.names.pod(primary), Some(CONTAINER.to_owned()));
    let params = LogParams { container, tail_lines: Some(TAIL), ..LogParams::default() };
    let log = pair.pods().logs(&pod, &params).await.with_context(|| format!("log of pod {pod}"))?;
    let line = log.lines().rfind(|line| line.contains("going on alone"));
    line.map(str::to_owned).with_context(|| format!("{pod} has never gone on alone"))
}

async fn await_readers(pair: &Pair, at: InstanceId, limit: Duration) -> anyhow::Result<()> {
    await_condition("the read-only Service elsewhere", limit, || pair.ro_leads_to(at)).await
}

async fn write(pair: &Pair, primary: InstanceId, table: &str) -> anyhow::Result<()> {
    let sql = format!(
        "CREATE TABLE {table} AS SELECT i, repeat(md5(i::text), 4) AS t FROM generate_series(1, {ROWS}) i"
    );
    pair.psql(primary, &sql).await.map(|_| ())
}

async fn await_lag(
    pair: &Pair,
    which: &str,
    of: impl Fn(&LagStatus) -> Option<LagValue>,
) -> anyhow::Result<LagStatus> {
    await_condition(&format!("a {which} lag of {TOLD} bytes in the status"), STATUS, || async {
        let lag = pair.status().await?.lag.context("status has no lag")?;
        let value = of(&lag).with_context(|| format!("no {which} lag"))?;
        let total = lag.total.context("no total lag")?;
        ensure!(value.bytes >= TOLD && value.seconds > 0.0, "{which} lag is {value:?}");
        ensure!(total.bytes >= value.bytes, "total lag is {total:?}, {which} lag {value:?}");
        Ok(lag)
    })
    .await
}

async fn await_no_lag(pair: &Pair) -> anyhow::Result<()> {
    await_condition("a lag near zero", STATUS, || async {
        let total = pair.status().await?.lag.and_then(|l| l.total).context("no total lag")?;
        ensure!(total.bytes < 1 << 20 && total.seconds < 5.0, "total lag is {total:?}");
        Ok(())
    })
    .await
}
