//! What the status tells of a standby that is behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pgpair_api::spec::Durability;
use pgpair_api::status::{LagStatus, LagValue, OrderState, PairMode};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::record;
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
    let leads =
        async |to| await_condition("the read-only Service elsewhere", STATUS, || pair.ro_leads_to(to)).await;
    pair.set(&json!({"readLag": "1Mi"})).await?;
    leads(primary.peer()).await?;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_pause()").await?;
    let left = async {
        write(&pair, primary, "lag_read").await?;
        let begin = Instant::now();
        leads(primary).await?;
        anyhow::Ok(begin.elapsed())
    };
    let left = left.await;
    pair.psql(primary.peer(), "SELECT pg_wal_replay_resume()").await?;
    println!("  readers were at the primary {:.1} s after the last of the writes", left?.as_secs_f64());
    leads(primary.peer()).await?;
    pair.set(&json!({"readLag": "64Mi"})).await?;
    Ok(Outcome::Passed)
}

/// In `Async` too a standby that lacks more than `maxLag` may not take over; the status tells how much it lacks.
pub async fn an_async_standby_beyond_max_lag_may_not_take_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let primary = pair.primary_of(&pair.await_paired(1, CATCH_UP).await?)?;
    pair.set(&json!({"durability": "Async", "failover": {"maxLag": "1Mi"}})).await?;
    let refused = async {
        record::await_durability(&pair, Durability::Async, CATCH_UP).await?;
        let receiver = pair.psql(primary.peer(), "SELECT pid FROM pg_stat_wal_receiver").await?;
        pair.shell(primary.peer(), &format!("kill -STOP {receiver}")).await?;
        let refused = beyond_max_lag(&pair, primary).await;
        pair.shell(primary.peer(), &format!("kill -CONT {receiver}")).await?;
        pair.explain(refused).await
    };
    let refused = refused.await;
    // The pair is used by others, whatever was found.
    pair.set(&json!({"durability": "Sync", "failover": {"maxLag": "16Mi"}})).await?;
    record::await_durability(&pair, Durability::Sync, CATCH_UP).await?;
    println!("  {}", refused?);
    await_no_lag(&pair).await?;
    Ok(Outcome::Passed)
}

async fn beyond_max_lag(pair: &Pair, primary: InstanceId) -> anyhow::Result<String> {
    write(pair, primary, "lag_async").await?;
    let lag = await_lag(pair, "receive", |lag| lag.receive).await?;
    let told = await_condition("FailoverReady=False in mode Solo", STATUS, || async {
        let status = pair.status().await?;
        ensure!(status.mode == Some(PairMode::Solo), "mode is {:?}", status.mode);
        let found = status.conditions.into_iter().find(|c| c.type_ == "FailoverReady");
        let found = found.context("no condition FailoverReady")?;
        ensure!(found.status == "False", "{found:?}");
        Ok(format!("{}, lag {}", found.message, lag.summary))
    });
    let told = told.await?;
    let order = crate::orders::ordered(pair, json!({"kind": "Switchover"})).await?;
    ensure!(order.state == OrderState::Refused, "{order:?}");
    Ok(told)
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
