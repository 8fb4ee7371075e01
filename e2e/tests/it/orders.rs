//! What a person orders, and what becomes of it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use pgpair_api::order::OrderReason;
use pgpair_api::status::{InstanceState, LagValue, OrderState, OrderStatus};
use pgpair_core::authority::{Durability, FailoverCause};
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::order::OrderRefusal;
use pgpair_core::record::Mode;
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::faults::{Fault, inject};
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::record;
use pgpair_e2e::harness::wait::await_condition;
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;

/// For an order to come to its end.
const CARRIED_OUT: Duration = Duration::from_secs(90);
/// For a pair to be whole again.
const WHOLE: Duration = Duration::from_secs(240);
/// Rows that only the lost primary had, and what they take in the log at least.
const LOST_ROWS: u32 = 500;
const LOST_BYTES: i64 = 30 * 500;

/// Gives an order and waits for its end.
pub async fn ordered(pair: &Pair, order: Value) -> anyhow::Result<OrderStatus> {
    let before = pair.status().await?.order.map(|o| o.id);
    pair.order(&order).await?;
    let what = format!("the end of {order}");
    let ended = await_condition(&what, CARRIED_OUT, || async {
        let told = pair.status().await?.order.context("the status tells of no order")?;
        ensure!(Some(&told.id) != before.as_ref(), "the status tells of the order before: {told:?}");
        ensure!(!told.state.is(OrderState::Running), "it is {told:?}");
        Ok(told)
    });
    let ended = ended.await;
    let ended = pair.explain(ended).await?;
    println!("  {}: {}, {}", ended.kind, ended.state, ended.message.as_deref().unwrap_or("-"));
    Ok(ended)
}

/// The standby has every acknowledged commit when the fenced one is down; that one stays down until it is let go.
pub async fn a_fenced_primary_hands_over_and_follows_when_it_is_let_go(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let mut failover = Failover::begin(&pair, "fence").await?;
    let old = failover.old;
    let fence = ordered(&pair, json!({"kind": "Fence", "instance": old.as_str()})).await?;
    ensure!(fence.state.is(OrderState::Done), "{fence:?}");
    failover.await_first_ack().await?;
    failover.await_takeover().await?;
    let asked = pair.psql(old, "SELECT 1").await;
    ensure!(asked.is_err(), "postgres of the fenced {old} answers {asked:?}");

    let unfence = ordered(&pair, json!({"kind": "Unfence", "instance": old.as_str()})).await?;
    ensure!(unfence.state.is(OrderState::Done), "{unfence:?}");
    failover.await_rejoined().await?;
    let judgement = failover.judge().await?;
    println!("  fence: {}", judgement.verdict);
    ensure!(judgement.verdict.holds(), "{}", judgement.verdict);
    Ok(Outcome::Passed)
}

/// The standby first, then the primary in place: another postmaster, the same term.
pub async fn a_restarted_instance_keeps_its_role(c: &mut Context) -> anyhow::Result<Outcome> {
    const STARTED: &str = "SELECT pg_postmaster_start_time()";
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    for instance in [primary.peer(), primary] {
        let before = pair.psql(instance, STARTED).await?;
        let restart = ordered(&pair, json!({"kind": "Restart", "instance": instance.as_str()})).await?;
        ensure!(restart.state.is(OrderState::Done), "{restart:?}");
        let after = pair.await_paired(1, WHOLE).await?;
        ensure!(after.term == status.term, "the term went from {:?} to {:?}", status.term, after.term);
        ensure!(pair.primary_of(&after)? == primary, "the primary is {:?}", after.primary);
        let now = pair.psql(instance, STARTED).await?;
        ensure!(now != before, "postgres of {instance} runs since {before}: it was not restarted");
    }
    Ok(Outcome::Passed)
}

/// The primary goes on alone meanwhile.
pub async fn a_fenced_standby_stays_down_until_it_is_let_go(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    let standby = primary.peer();
    let fence = ordered(&pair, json!({"kind": "Fence", "instance": standby.as_str()})).await?;
    ensure!(fence.state.is(OrderState::Done), "{fence:?}");
    let fenced = async {
        let asked = pair.psql(standby, "SELECT 1").await;
        ensure!(asked.is_err(), "postgres of the fenced {standby} answers {asked:?}");
        await_condition("a primary that writes alone", CARRIED_OUT, || async {
            pair.psql(primary, "CREATE TABLE alone AS SELECT 1 AS n").await
        })
        .await?;
        pair.psql(primary, "DROP TABLE alone").await
    };
    let fenced = fenced.await;
    // The pair is used by others, whatever was found.
    let unfence = ordered(&pair, json!({"kind": "Unfence", "instance": standby.as_str()})).await?;
    fenced?;
    ensure!(unfence.state.is(OrderState::Done), "{unfence:?}");
    let after = pair.await_paired(1, WHOLE).await?;
    ensure!(after.term == status.term, "the term went from {:?} to {:?}", status.term, after.term);
    Ok(Outcome::Passed)
}

/// The primary goes on meanwhile, and is never rebuilt itself.
pub async fn a_standby_is_copied_anew(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    let refused = ordered(&pair, json!({"kind": "Rebuild", "instance": primary.as_str()})).await?;
    ensure!(
        refused.state.is(OrderState::Refused)
            && refused.reason == Some(OrderReason::Refused(OrderRefusal::NotStandby).into()),
        "{refused:?}"
    );

    let before = pair.last_seed(primary.peer()).await?;
    let rebuild = ordered(&pair, json!({"kind": "Rebuild", "instance": primary.peer().as_str()})).await?;
    ensure!(rebuild.state.is(OrderState::Done), "{rebuild:?}");
    let after = pair.await_paired(1, WHOLE).await?;
    ensure!(after.term == status.term, "the term went from {:?} to {:?}", status.term, after.term);
    let seed = pair.last_seed(primary.peer()).await?;
    ensure!(seed == before + 1, "Job {before} before, {seed} after");
    Ok(Outcome::Passed)
}

/// In `Solo` nobody takes over by itself. A person may order it, is told what it may cost, and what it has cost.
pub async fn a_forced_promotion_tells_what_it_may_lose_and_has_lost(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    forced_promotion(c, Durability::Sync).await
}

/// Where commits never wait for the standby, a person is told no less.
pub async fn a_forced_promotion_of_an_async_pair_tells_the_same(c: &mut Context) -> anyhow::Result<Outcome> {
    forced_promotion(c, Durability::Async).await
}

async fn forced_promotion(c: &mut Context, durability: Durability) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    if let Some(reason) = Fault::NodeStop.impossible_on(&pair.cluster) {
        return Ok(Outcome::Skipped(reason));
    }
    pair.await_paired(1, WHOLE).await?;
    let promoted = async {
        set_durability(&pair, durability).await?;
        promoted_by_force(&pair).await
    };
    let promoted = promoted.await;
    // The pair is used by others, whatever was found.
    let back = set_durability(&pair, Durability::Sync).await;
    promoted?;
    back.map(|()| Outcome::Passed)
}

async fn set_durability(pair: &Pair, durability: Durability) -> anyhow::Result<()> {
    pair.set(&json!({"durability": durability.as_str()})).await?;
    record::await_durability(pair, durability, WHOLE).await
}

async fn promoted_by_force(pair: &Pair) -> anyhow::Result<()> {
    let status = pair.await_paired(1, WHOLE).await?;
    let (old, term) = (pair.primary_of(&status)?, status.term.context("no term")?);
    let branches = pair.kept_branches(old).await?;
    pair.psql(old, "CREATE TABLE forced AS SELECT 1 AS n").await?;
    pair.await_equal("SELECT count(*) FROM forced", CARRIED_OUT).await?;
    let standby = inject(pair, old.peer(), Fault::NodeStop).await?;
    let alone = write_alone(pair, old).await;
    let primary = inject(pair, old, Fault::NodeStop).await;
    standby.heal(&pair.cluster).await?;
    let forced = match alone {
        Ok(()) => force(pair, old).await,
        Err(e) => Err(e),
    };
    primary?.heal(&pair.cluster).await?;
    let estimated = pair.explain(forced).await?;

    pair.await_paired(term + 1, WHOLE).await?;
    let lost = await_condition("the loss of the forced promotion", CARRIED_OUT, || async {
        let last = pair.status().await?.last_failover.context("no lastFailover")?;
        ensure!(
            last.term > term && last.cause.is(FailoverCause::Forced),
            "in term {} the cause is {}",
            last.term,
            last.cause
        );
        last.bytes_lost.context("the old primary is not back yet")
    });
    let lost = lost.await?;
    println!(
        "  told before the promotion: {} bytes, {:.1} s; lost: {lost} bytes",
        estimated.bytes, estimated.seconds
    );
    ensure!(lost > LOST_BYTES, "only {lost} bytes were lost with {LOST_ROWS} rows");
    let rows = pair.psql(old.peer(), "SELECT count(*) FROM forced").await?;
    ensure!(rows == "1", "{rows} rows are there; one was written before the standby was lost");
    let kept = pair.kept_branches(old).await?;
    ensure!(
        kept.difference(&branches).count() > 0,
        "what was lost is not kept on the archive volume: before {branches:?}, after {kept:?}"
    );
    pair.psql(old.peer(), "DROP TABLE forced").await?;
    Ok(())
}

/// Returns when the operator knows what the standby lacks.
async fn write_alone(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    await_condition("mode Solo", CARRIED_OUT, || async {
        let mode = pair.status().await?.mode;
        ensure!(mode.as_ref().is_some_and(|m| m.is(Mode::Solo)), "mode is {mode:?}");
        Ok(())
    })
    .await?;
    let write = format!("INSERT INTO forced SELECT n FROM generate_series(2, {LOST_ROWS}) n");
    pair.psql(primary, &write).await?;
    await_condition("what the standby lacks in the status", CARRIED_OUT, || async {
        let receive = pair.status().await?.lag.and_then(|lag| lag.receive).context("no receive lag")?;
        ensure!(receive.bytes > LOST_BYTES, "receive lag is {receive:?}");
        Ok(())
    })
    .await
}

/// The standby is back, its primary is not. Returns what the order was said to cost before it was sent.
async fn force(pair: &Pair, lost: InstanceId) -> anyhow::Result<LagValue> {
    let dead = named_incarnation(pair).await?;
    await_condition("the standby without its primary", WHOLE, || async {
        let recovers = pair.psql(lost.peer(), "SELECT pg_is_in_recovery()").await?;
        ensure!(recovers == "t", "pg_is_in_recovery() is {recovers}");
        let status = pair.status().await?;
        ensure!(
            status.primary.as_deref() != Some(&pair.names.instance(lost.peer())),
            "it took over by itself"
        );
        let told = status.instances.iter().find(|i| i.name == pair.names.instance(lost.peer()));
        let told = told.context("the status does not tell of it")?;
        ensure!(
            told.state.is(InstanceState::Reported(PostgresState::Standby)),
            "its state is {}",
            told.state
        );
        Ok(())
    })
    .await?;
    let promote = ordered(pair, json!({"kind": "Promote", "dead": dead})).await?;
    ensure!(promote.state.is(OrderState::Done), "{promote:?}");
    // Estimated when it was announced, and kept since.
    let estimated =
        promote.estimated_loss.with_context(|| format!("no estimate of the loss: {promote:?}"))?;
    ensure!(
        estimated.bytes > LOST_BYTES && estimated.seconds > 0.0,
        "with {LOST_ROWS} rows the estimate is {estimated:?}"
    );
    await_condition("the read-write Service", CARRIED_OUT, || pair.rw_leads_to(lost.peer())).await?;
    pair.psql(lost.peer(), "SELECT pg_is_in_recovery()").await.and_then(|recovers| {
        ensure!(recovers == "f", "pg_is_in_recovery() is {recovers}");
        Ok(estimated)
    })
}

/// What follows the `/` in the holder of the pair's Lease.
async fn named_incarnation(pair: &Pair) -> anyhow::Result<String> {
    let api: Api<Lease> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let lease = api.get(pair.names.lease()).await.context("reading the Lease")?;
    let holder = lease.spec.and_then(|s| s.holder_identity).context("the Lease has no holder")?;
    let (_, incarnation) = holder.split_once('/').with_context(|| format!("holder {holder:?}"))?;
    Ok(incarnation.to_owned())
}
