//! What a namespace allows: a quota and a range of limits that no pod of the pair fits.

use std::time::Duration;

use anyhow::Context as _;
use pgpair_api::status::{ConditionType, Reason};
use pgpair_e2e::harness::cluster::in_namespace;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::status::{await_settled, await_told};

use crate::Outcome;
use crate::context::Context;

/// For pods that are missing to be told: some seconds, and the warning about them is read every ten.
const TOLD: Duration = Duration::from_secs(60);
/// For a pair to come up. The controller of StatefulSets tries again later each time.
const BRING_UP: Duration = Duration::from_secs(240);

const RESOURCES: &str =
    "  resources:\n    requests: {cpu: 20m, memory: 96Mi}\n    limits: {cpu: \"2\", memory: 512Mi}\n";

/// Each is told in the API server's words, and the pair comes up when it fits.
pub async fn a_pair_that_its_namespace_does_not_admit_says_why_and_comes_up_when_it_fits(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    operator::await_available(&cluster).await?;
    in_namespace(&cluster, "pgpair-quota", async |namespace| {
        let object = async |manifest: String| apply(&cluster, namespace, &manifest).await;
        object(quota("limits.memory: 64Mi")).await.context("making the quota")?;
        apply(&cluster, namespace, &(manifest("small", 17) + RESOURCES)).await?;
        let pair = Pair::new(&cluster, namespace, "small");
        let (type_, reason) = (ConditionType::Degraded, Reason::PodRefused);
        let words = ["small-a-0 cannot be created", "exceeded quota: team", "limits.memory=64Mi"];
        println!("  {}", await_told(&pair, type_, reason, &words, TOLD).await?);

        // One hindrance goes, the next one comes.
        object(range("256Mi")).await.context("making the range of limits")?;
        object(quota("limits.memory: 8Gi")).await.context("raising the quota")?;
        let words = ["small-a-0 cannot be created", "maximum memory usage per Container is 256Mi"];
        println!("  {}", await_told(&pair, type_, reason, &words, TOLD).await?);

        object(range("1Gi")).await.context("raising the range of limits")?;
        pair.await_paired(1, BRING_UP).await?;
        await_settled(&pair, TOLD).await?;
        Ok(Outcome::Passed)
    })
    .await
}

fn quota(hard: &str) -> String {
    format!("apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: team}}\nspec:\n  hard:\n    {hard}\n")
}

fn range(most: &str) -> String {
    format!(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: team}}\nspec:\n  limits:\n  - type: Container\n    max: {{memory: {most}}}\n"
    )
}
