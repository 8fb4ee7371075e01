//! What the pair does not need: the operator for a failover, the API server while nothing goes wrong.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_e2e::harness::failover::{Failover, Judgement};
use pgpair_e2e::harness::faults::Fault;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::wait::await_condition;
use pgpair_e2e::oracle::writer::now_us;
use tokio::time::sleep;

use crate::Outcome;
use crate::context::Context;

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Longest time without an acknowledgement meanwhile: the machine that starts an API server has two busy cores.
const SILENCE_MS: f64 = 3000.0;
/// Acknowledgements that prove that somebody wrote meanwhile, out of some three thousand.
const ENOUGH: usize = 300;

/// The agents do it all: promotion, the Service, and the old primary's way back.
pub async fn a_failover_needs_no_operator(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let mut failover = Failover::begin(&pair, "operator_away").await?;
    let absent = operator::take_away(&pair.cluster).await?;
    let walked = fail_over_alone(&mut failover).await;
    absent.bring_back(&pair.cluster).await?;
    walked?;
    failover.await_takeover().await?;
    failover.await_rejoined().await?;
    let judgement = failover.judge().await?;
    println!("  operator_away: {}", judgement.verdict);
    ensure!(judgement.verdict.holds(), "{}", judgement.verdict);
    ensure!(
        judgement.verdict.reigns.len() >= 2,
        "only {} server acknowledged anything",
        judgement.verdict.reigns.len()
    );
    Ok(Outcome::Passed)
}

async fn fail_over_alone(failover: &mut Failover) -> anyhow::Result<()> {
    failover.strike(Fault::PostmasterKill).await?;
    failover.await_first_ack().await?;
    let (pair, new) = (failover.pair.clone(), failover.new_primary());
    let streams = "SELECT state || ' ' || sync_state FROM pg_stat_replication";
    let back =
        await_condition("the old primary as a synchronous standby", Duration::from_secs(60), || async {
            pair.rw_leads_to(new).await?;
            let found = pair.psql(new, streams).await?;
            ensure!(found == "streaming sync", "pg_stat_replication has {found:?}");
            Ok(())
        });
    let back = back.await;
    pair.explain(back).await?;
    ensure!(operator::pods(&pair.cluster).await?.is_empty(), "an operator came back meanwhile");
    Ok(())
}

/// No gap, and no failover: the pair keeps its primary and its mode by the promise alone.
pub async fn a_minute_without_the_api_server_harms_nobody(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let Some(local) = pair.cluster.local.clone() else {
        return Ok(Outcome::Skipped("stopping the API server needs the machine under the cluster".into()));
    };
    let mut failover = Failover::begin(&pair, "api_away").await?;
    let stopped_us = now_us();
    let stopped = local.run(&["api", "stop"]).await;
    // The length of the fault, not a wait for something.
    sleep(AWAY).await;
    let back_us = now_us();
    local.run(&["api", "start"]).await?;
    stopped?;

    let status = pair.await_paired(failover.term, Duration::from_secs(120)).await?;
    ensure!(status.term == Some(failover.term), "the term went from {} to {:?}", failover.term, status.term);
    ensure!(pair.primary_of(&status)? == failover.old, "the primary has changed");
    let log = failover.oracle.log(0).await?;
    let meanwhile = log.acks().filter(|a| (stopped_us..back_us).contains(&a.acked_us)).count();
    let Judgement { verdict, service_silence_ms, .. } = failover.judge().await?;
    println!(
        "  api_away: {verdict}; longest silence {service_silence_ms:.0} ms, {meanwhile} acknowledged meanwhile"
    );
    ensure!(verdict.holds(), "{verdict}");
    ensure!(verdict.reigns.len() == 1, "{} servers acknowledged: {verdict}", verdict.reigns.len());
    ensure!(meanwhile >= ENOUGH, "only {meanwhile} numbers were acknowledged while the API server was away");
    ensure!(service_silence_ms < SILENCE_MS, "nobody took writes for {service_silence_ms:.0} ms");
    pair.rw_leads_to(failover.old).await.context("the read-write Service afterwards")?;
    Ok(Outcome::Passed)
}
