//! The primary fails, the standby takes over: nothing acknowledged is lost, and never do two servers acknowledge.

use anyhow::{Context as _, ensure};
use pgpair_api::status::FailoverStatus;
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::faults::Fault;
use pgpair_e2e::harness::pair::Pair;

use crate::Outcome;
use crate::context::Context;

/// Numbers that must have been acknowledged for a verdict to say anything.
const ENOUGH: usize = 50;

/// The agent lives, and resigns.
pub async fn postmaster_kill_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    fails_over(&pair, Fault::PostmasterKill, "postmaster_kill", 10.0).await
}

/// Agent and postgres die together, the pod lives.
pub async fn container_kill_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    fails_over(&pair, Fault::ContainerKill, "container_kill", 10.0).await
}

/// The old primary runs on, out of reach, with a client beside it.
pub async fn cutting_the_primarys_node_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    fails_over(&pair, Fault::NodeCut, "node_cut", 12.0).await
}

/// Works on any cluster, whatever its host.
pub async fn forced_deletion_of_the_pod_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    fails_over(&pair, Fault::PodDeleteForce, "pod_delete", 12.0).await
}

/// The oldest version that is tested, with a pair of its own.
pub async fn version_15_comes_up_and_fails_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("legacy", 15).await?;
    fails_over(&pair, Fault::PostmasterKill, "version_15", 10.0).await
}

/// `gap_limit_s`: well over what is aimed at, so that a slow machine does not fail a correct failover; what was
/// measured is printed.
async fn fails_over(pair: &Pair, fault: Fault, table: &str, gap_limit_s: f64) -> anyhow::Result<Outcome> {
    if let Some(reason) = fault.impossible_on(&pair.cluster) {
        return Ok(Outcome::Skipped(reason));
    }
    let mut failover = Failover::begin(pair, table).await?;
    let walked = walk(&mut failover, fault).await;
    // Whatever happened, the next test needs a whole cluster.
    failover.heal().await?;
    let told = walked?;
    failover.await_rejoined().await?;
    let judgement = failover.judge().await?;
    let verdict = judgement.verdict;
    println!("  {table}: {verdict}");
    println!("  {table}: {}", timeline(&told));

    ensure!(verdict.missing.is_empty(), "acknowledged and lost: {:?}", verdict.missing);
    ensure!(verdict.late.is_empty(), "acknowledged by two servers at once: {:#?}", verdict.late);
    ensure!(verdict.reigns.len() >= 2, "only {} server acknowledged anything", verdict.reigns.len());
    ensure!(
        verdict.reigns.iter().all(|r| r.acks > 0) && verdict.acknowledged >= ENOUGH,
        "too few: {verdict}"
    );
    let gap_s =
        judgement.service_gap_ms.context("the writer through the Service saw one server only")? / 1000.0;
    println!("  {table}: gap through the Service {gap_s:.2} s");
    ensure!(gap_s < gap_limit_s, "nobody took writes for {gap_s:.1} s; at most {gap_limit_s} s are allowed");
    Ok(Outcome::Passed)
}

async fn walk(failover: &mut Failover, fault: Fault) -> anyhow::Result<FailoverStatus> {
    failover.strike(fault).await?;
    failover.await_first_ack().await?;
    let (_, told) = failover.await_takeover().await?;
    Ok(told)
}

fn timeline(told: &FailoverStatus) -> String {
    let steps = told.steps.iter().map(|s| format!("{} +{} ms", s.step, s.offset_ms));
    format!("{} to {}, {}: {}", told.from, told.to, told.cause, steps.collect::<Vec<_>>().join(", "))
}
