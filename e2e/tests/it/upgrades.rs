//! Another version of the operator, and back again, with several pairs under load.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::cluster::{Cluster, LocalCluster, in_namespace};
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::operator::{self, Installation};
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::rolls::{RollLog, one_at_a_time, order, reasons};
use pgpair_e2e::harness::status::{await_settled, condition};
use pgpair_e2e::harness::wait::await_condition;
use pgpair_e2e::repository;

use crate::Outcome;
use crate::context::Context;

/// How many pairs: `PGPAIR_E2E_PAIRS`, else three.
const PAIRS: &str = "PGPAIR_E2E_PAIRS";
/// Pairs that clients write to. One more would cost the machine as much as a pair.
const WRITTEN: usize = 3;
/// So many pairs are made at the same time: fifty at once leave a small machine no time to give any of them.
const WAVE: usize = 4;
/// For these to be `Paired` from nothing.
const BRING_UP: Duration = Duration::from_secs(300);
/// Tag under which the nodes get the operator's image a second time.
const TAG: &str = "e2e-next";
/// Longest time for which a client may be without an acknowledgement, in milliseconds: a planned hand-over on a busy machine.
const SILENCE_MS: f64 = 30_000.0;

/// Pairs of this run.
struct Fleet {
    pairs: Vec<Pair>,
    /// On the first ones.
    writers: Vec<Failover>,
}

impl Fleet {
    fn times(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds * self.pairs.len() as u64)
    }

    /// For all to be rolled: a minute in which a new leader begins nothing, then each pair in its turn.
    fn rolled(&self) -> Duration {
        Duration::from_secs(720) + self.times(60)
    }
}

/// Each way all pairs are rolled, one after the other and with one switchover each, while clients write.
pub async fn an_upgrade_of_the_operator_and_its_rollback_roll_one_pair_after_the_other(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    let Some(local) = cluster.local.clone() else {
        return Ok(Outcome::Skipped("a second name of an image needs the machine under the cluster".into()));
    };
    operator::await_available(&cluster).await?;
    let installed = operator::installation(&cluster).await?;
    in_namespace(&cluster, "pgpair-upgrade", async |namespace| {
        let mut fleet = bring_up(&cluster, namespace).await?;
        let walked = there_and_back(&cluster, &local, &fleet, &installed).await;
        fleet.pairs.first().context("no pair")?.explain(walked).await?;
        for failover in &mut fleet.writers {
            loses_nothing(failover).await?;
        }
        Ok(Outcome::Passed)
    })
    .await
}

async fn bring_up(cluster: &Cluster, namespace: &str) -> anyhow::Result<Fleet> {
    let number = match std::env::var(PAIRS) {
        Ok(number) => number.parse().with_context(|| format!("{PAIRS} is {number:?} and no number"))?,
        Err(_) => WRITTEN,
    };
    let names: Vec<String> = (1..=number).map(|n| format!("pair-{n:02}")).collect();
    let mut fleet = Fleet { pairs: Vec::new(), writers: Vec::new() };
    for wave in names.chunks(WAVE) {
        for name in wave {
            apply(cluster, namespace, &manifest(name, 17))
                .await
                .with_context(|| format!("applying {name}"))?;
            fleet.pairs.push(Pair::new(cluster, namespace, name));
        }
        for pair in fleet.pairs.iter().rev().take(wave.len()) {
            pair.await_paired(1, BRING_UP).await?;
            await_settled(pair, BRING_UP).await?;
        }
    }
    for pair in fleet.pairs.iter().take(WRITTEN) {
        let table = format!("upgrade_{}", pair.names.name.replace('-', "_"));
        fleet.writers.push(Failover::begin(pair, &table).await?);
    }
    Ok(fleet)
}

async fn there_and_back(
    cluster: &Cluster,
    local: &LocalCluster,
    fleet: &Fleet,
    installed: &Installation,
) -> anyhow::Result<()> {
    let next = format!("{}:{TAG}", installed.repository());
    local.run(&["tag", &installed.image, &next]).await?;
    let chart = repository::root().join("charts/pgreplicapair-operator");
    let chart = chart.to_str().context("the path of the chart is no text")?;
    let (release, namespace) = (installed.release.as_str(), installed.namespace.as_str());
    let tag = format!("image.tag={TAG},image.digest=");
    let upgrade =
        ["upgrade", release, chart, "-n", namespace, "--skip-crds", "--reuse-values", "--set", &tag];
    let upgraded = async {
        cluster.helm(&upgrade).await?;
        all_roll(fleet, &next, "upgrade").await
    };
    let upgraded = upgraded.await;
    // The installation is used by others, whatever was found.
    cluster.helm(&["rollback", release, "-n", namespace]).await?;
    operator::await_available(cluster).await?;
    upgraded?;
    all_roll(fleet, &installed.image, "rollback").await?;
    local.run(&["untag", &next]).await.map(|_| ())
}

/// Waits until each pair runs with `image`; then looks at how it went.
async fn all_roll(fleet: &Fleet, image: &str, what: &str) -> anyhow::Result<()> {
    let first = fleet.pairs.first().context("no pair")?;
    let log = RollLog::start(&first.cluster, &first.names.namespace);
    let before = terms(fleet).await?;
    let waited = format!("the end of the {what}");
    let ended = await_condition(&waited, fleet.rolled(), || async {
        for pair in &fleet.pairs {
            for i in InstanceId::ALL {
                let found = agent_image(pair, i).await?;
                ensure!(found == image, "the agent of {} comes from {found}", pair.names.instance(i));
            }
            let status = pair.paired_now(1).await?;
            let told = condition(&status, ConditionType::UpdatePending)?;
            ensure!(told.reason == Reason::UpToDate.as_str(), "{}: {}", pair.names.name, told.message);
        }
        Ok(())
    });
    ended.await?;
    let looks = log.all();
    println!("  {what}: {} looks, in the order {}", looks.len(), order(&looks).join(", "));
    one_at_a_time(&looks)?;
    let mut rolled = order(&looks);
    rolled.sort();
    let names: Vec<&str> = fleet.pairs.iter().map(|pair| pair.names.name.as_str()).collect();
    ensure!(rolled == names, "pairs rolled, each once is meant: {rolled:?}");
    for pair in &fleet.pairs {
        println!(
            "    UpdatePending of {} was {}",
            pair.names.name,
            reasons(&looks, &pair.names.name).join(", ")
        );
        await_settled(pair, fleet.rolled()).await?;
    }
    let after = terms(fleet).await?;
    let switched: Vec<i64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
    ensure!(switched.iter().all(|n| *n == 1), "switchovers of each pair: {switched:?}");
    Ok(())
}

async fn terms(fleet: &Fleet) -> anyhow::Result<Vec<i64>> {
    let mut terms = Vec::new();
    for pair in &fleet.pairs {
        terms.push(pair.status().await?.term.context("no term")?);
    }
    Ok(terms)
}

/// Image of the container that brings the agent into the pod.
async fn agent_image(pair: &Pair, i: InstanceId) -> anyhow::Result<String> {
    let pod = pair.pod(i).await?.spec.context("the pod has no spec")?;
    let install = pod.init_containers.into_iter().flatten().next().context("no init container")?;
    install.image.context("the init container has no image")
}

async fn loses_nothing(failover: &mut Failover) -> anyhow::Result<()> {
    let judgement = failover.judge().await?;
    let (verdict, silence) = (&judgement.verdict, judgement.service_silence_ms);
    println!("  {}: {verdict}; longest silence {silence:.0} ms", failover.oracle.table);
    ensure!(verdict.holds(), "{verdict}");
    ensure!(silence < SILENCE_MS, "nobody took writes for {silence:.0} ms");
    Ok(())
}
