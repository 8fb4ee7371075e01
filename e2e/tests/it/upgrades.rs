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

const NAMES: [&str; 3] = ["first", "second", "third"];
/// For three pairs from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(300);
/// For all three to be rolled: a minute in which a new leader begins nothing, then each pair in its turn.
const ROLLED: Duration = Duration::from_secs(900);
/// Tag under which the nodes get the operator's image a second time.
const TAG: &str = "e2e-next";
/// Longest time for which a client may be without an acknowledgement, in milliseconds: a planned hand-over on a busy machine.
const SILENCE_MS: f64 = 30_000.0;

/// Each way all pairs are rolled, one after the other, while clients write to all of them.
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
        let mut failovers = bring_up(&cluster, namespace).await?;
        let walked = there_and_back(&cluster, &local, &failovers, &installed).await;
        failovers[0].pair.explain(walked).await?;
        for failover in &mut failovers {
            loses_nothing(failover).await?;
        }
        Ok(Outcome::Passed)
    })
    .await
}

/// Three pairs, and writers on each.
async fn bring_up(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Failover>> {
    for name in NAMES {
        apply(cluster, namespace, &manifest(name, 17)).await.with_context(|| format!("applying {name}"))?;
    }
    let mut failovers = Vec::new();
    for name in NAMES {
        let pair = Pair::new(cluster, namespace, name);
        pair.await_paired(1, BRING_UP).await?;
        await_settled(&pair, BRING_UP).await?;
        failovers.push(Failover::begin(&pair, &format!("upgrade_{name}")).await?);
    }
    Ok(failovers)
}

async fn there_and_back(
    cluster: &Cluster,
    local: &LocalCluster,
    failovers: &[Failover],
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
        all_roll(failovers, &next, "upgrade").await
    };
    let upgraded = upgraded.await;
    // The installation is used by others, whatever was found.
    cluster.helm(&["rollback", release, "-n", namespace]).await?;
    operator::await_available(cluster).await?;
    upgraded?;
    all_roll(failovers, &installed.image, "rollback").await?;
    local.run(&["untag", &next]).await.map(|_| ())
}

/// Waits until each pair runs with `image`; then looks at how it went.
async fn all_roll(failovers: &[Failover], image: &str, what: &str) -> anyhow::Result<()> {
    let first = failovers.first().context("no pair")?;
    let log = RollLog::start(&first.pair.cluster, &first.pair.names.namespace);
    let waited = format!("the end of the {what}");
    let ended = await_condition(&waited, ROLLED, || async {
        for Failover { pair, .. } in failovers {
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
    for name in NAMES {
        println!("    UpdatePending of {name} was {}", reasons(&looks, name).join(", "));
    }
    one_at_a_time(&looks)?;
    let mut rolled = order(&looks);
    ensure!(rolled.len() == NAMES.len(), "pairs rolled in the order {rolled:?}: each once");
    rolled.sort();
    ensure!(rolled == NAMES, "pairs rolled: {rolled:?}");
    for Failover { pair, .. } in failovers {
        await_settled(pair, ROLLED).await?;
    }
    Ok(())
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
