//! Strangers in numbers, from a pod that has no certificate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use pgpair_e2e::bench::footprint::of_agent;
use pgpair_e2e::harness::cluster::LocalCluster;
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::oracle_pod::client_pod;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::record::RecordLog;
use pgpair_e2e::harness::wait::await_condition;
use pgpair_e2e::oracle::flood::Flood;
use pgpair_wire::paths::{PEER_PORT, PROBE_PORT};
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// Requests that are begun and never ended, on each of two ports of two agents: 3,000.
const HALF_OPEN: usize = 750;
/// Handshakes with each agent: 18,000.
const HANDSHAKES: u64 = 9_000;
/// In so many seconds.
const SECONDS: u64 = 20;
/// For the pod to start, and to end after those.
const ENDED: Duration = Duration::from_secs(120);
/// More than this would be a fence, or a take-over.
const SILENCE_MS: f64 = 4_000.0;
/// An agent's places for strangers, and their handshakes: far less than what is tried would take.
const MEMORY: u64 = 48 << 20;

/// They cost neither a failover nor the pairing nor memory, and the writer hardly waits.
pub async fn strangers_in_numbers_cost_neither_a_failover_nor_the_pairing(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let Some(local) = c.cluster()?.local else {
        return Ok(Outcome::Skipped("what an agent takes is read on the machine under the cluster".into()));
    };
    let mut failover = Failover::begin(&pair, "flood").await?;
    let record = RecordLog::start(&pair);
    let flooded = flood(&pair, &local, &failover).await;
    let (done, most) = pair.explain(flooded).await?;
    let judgement = failover.judge().await?;
    println!(
        "  {} half open, {} handshakes in {} ms; longest wait of the writer {:.0} ms; {} MiB the most of an agent; {}",
        done.half_open,
        done.handshakes,
        done.ms,
        judgement.service_silence_ms,
        most >> 20,
        judgement.verdict
    );
    let least = 2 * HANDSHAKES / 3;
    ensure!(done.handshakes > least && done.half_open > 1_000, "nothing much was tried: {done:?}");
    ensure!(judgement.verdict.holds(), "{}", judgement.verdict);
    ensure!(judgement.service_silence_ms < SILENCE_MS, "the writer waited for too long");
    ensure!(most < MEMORY, "an agent took {most} bytes");
    let left = record.all().into_iter().find(|seen| seen.record.mode != Mode::Paired);
    ensure!(left.is_none(), "the pair left Paired: {left:?}");
    let status = pair.paired_now(failover.term).await?;
    ensure!(status.term == Some(failover.term), "the term is {:?}", status.term);
    Ok(Outcome::Passed)
}

/// What was done, and the most that an agent took meanwhile.
async fn flood(pair: &Pair, local: &LocalCluster, failover: &Failover) -> anyhow::Result<(Flood, u64)> {
    let mut args = vec![
        "flood".to_owned(),
        format!("--half-open={HALF_OPEN}"),
        format!("--handshakes={HANDSHAKES}"),
        format!("--seconds={SECONDS}"),
    ];
    for i in InstanceId::ALL {
        let address: IpAddr = pair.address(i).await?.parse().context("the address of a pod")?;
        args.push(format!("--tls={}", SocketAddr::new(address, PEER_PORT)));
        args.push(format!("--plain={}", SocketAddr::new(address, PROBE_PORT)));
    }
    let node = pair.node(failover.new_primary()).await?;
    let (pods, name): (Api<Pod>, _) = (pair.pods(), "stranger");
    let pod = client_pod(name, &node, &args, &json!([]))?;
    pods.create(&PostParams::default(), &pod).await.context("creating the stranger's pod")?;
    let most = std::sync::atomic::AtomicU64::new(0);
    let ended = await_condition("the end of the flood", ENDED, || async {
        for i in InstanceId::ALL {
            let taken = of_agent(pair, local, i).await?.pss_bytes;
            most.fetch_max(taken, std::sync::atomic::Ordering::Relaxed);
        }
        let phase = pods.get(name).await?.status.and_then(|s| s.phase).unwrap_or_default();
        ensure!(phase == "Succeeded", "the pod is {phase}");
        Ok(())
    });
    let ended = ended.await;
    let told = pods.logs(name, &LogParams::default()).await;
    pods.delete(name, &DeleteParams::default()).await.context("deleting the stranger's pod")?;
    ended?;
    let told = told.context("what the stranger says")?;
    Ok((serde_json::from_str(told.trim()).with_context(|| format!("it says {told:?}"))?, most.into_inner()))
}
