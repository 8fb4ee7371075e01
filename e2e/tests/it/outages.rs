//! What the pair does not need: the operator for a failover, one replica of two for the operator, the API server while nothing goes
//! wrong.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use pgpair_e2e::harness::failover::{Failover, Judgement};
use pgpair_e2e::harness::faults::Fault;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, is_ready};
use pgpair_e2e::harness::wait::await_condition;
use pgpair_e2e::oracle::writer::now_us;
use serde_json::json;
use tokio::time::sleep;

use crate::Outcome;
use crate::context::Context;

/// For the replicas of the operator to be there, and one of them to lead.
const REPLICAS: Duration = Duration::from_secs(90);
/// For the next one to lead: 15 s until the Lease of one that said nothing may be taken, 2 s between two looks, and a busy machine.
const NEXT_LEADER: Duration = Duration::from_secs(40);
/// For one that has just begun to lead to know the pairs, and to do what it is there for.
const GOES_ON: Duration = Duration::from_secs(60);
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

/// The Lease is given up, or runs out; whoever comes next takes up the work, a change of the spec among it.
pub async fn another_replica_of_the_operator_goes_on_for_the_one_that_led(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    if operator::replicas(&pair.cluster).await? < 2 {
        return Ok(Outcome::Skipped("the operator is installed with one replica".into()));
    }
    let status = pair.await_paired(1, Duration::from_secs(120)).await?;
    let leader = await_condition("two replicas of the operator, and one that leads", REPLICAS, || async {
        let pods = operator::pods(&pair.cluster).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        ensure!(ready >= 2, "{ready} of {} are ready", pods.len());
        operator::leader(&pair.cluster).await
    });
    let leader = leader.await?;
    let (first, namespace) = (leader.name_any(), leader.namespace().context("it has no namespace")?);
    let pods: Api<Pod> = Api::namespaced(pair.cluster.client.clone(), &namespace);
    let begin = Instant::now();
    pods.delete(&first, &DeleteParams::default().grace_period(0)).await.context("deleting the leader")?;
    let next = await_condition("another leader", NEXT_LEADER, || operator::leader(&pair.cluster)).await?;
    let leads = begin.elapsed();
    ensure!(next.uid() != leader.uid(), "{first} leads again");
    a_change_is_carried_out(&pair).await?;
    println!(
        "  {} leads {:.1} s after the end of {first}, and had carried out a change after {:.1} s",
        next.name_any(),
        leads.as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
    let after = pair.await_paired(1, Duration::from_secs(60)).await?;
    ensure!(after.term == status.term, "the term went from {:?} to {:?}", status.term, after.term);
    Ok(Outcome::Passed)
}

/// A label of a Service: nobody but the operator writes it.
async fn a_change_is_carried_out(pair: &Pair) -> anyhow::Result<()> {
    let services: Api<Service> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let name = pair.names.ro();
    pair.set(&json!({"service": {"labels": {"e2e": "next-leader"}}})).await?;
    let carried = await_condition("the new label of the Service", GOES_ON, || async {
        let service = services.get(&name).await.with_context(|| format!("reading Service {name}"))?;
        let label = service.labels().get("e2e");
        ensure!(label.is_some_and(|l| l == "next-leader"), "its labels are {:?}", service.labels());
        Ok(())
    });
    let carried = carried.await;
    // A merge removes what is null. The pair is used by others, whatever was found.
    pair.set(&json!({"service": {"labels": {"e2e": null}}})).await?;
    pair.explain(carried).await
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
