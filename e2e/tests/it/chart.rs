//! The chart, as Helm renders it.

use anyhow::{Context as _, ensure};
use pgpair_e2e::harness::cluster::Cluster;
use pgpair_e2e::repository;

use crate::Outcome;
use crate::context::Context;

/// The operator's own image, and the one that it gives to the pods: the digest comes before the tag, and what is none is refused.
pub async fn an_image_is_named_by_its_digest_if_there_is_one(c: &mut Context) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let by_tag = images(&cluster, "").await?;
    ensure!(by_tag == ["r.example/pgpair:v1"; 2], "without a digest: {by_tag:?}");
    let by_digest = images(&cluster, &digest).await?;
    ensure!(
        by_digest == [format!("r.example/pgpair@{digest}"), format!("r.example/pgpair@{digest}")],
        "with one: {by_digest:?}"
    );
    let refused = images(&cluster, "sha256:0123").await;
    ensure!(refused.is_err(), "half a digest is rendered: {refused:?}");
    Ok(Outcome::Passed)
}

async fn images(cluster: &Cluster, digest: &str) -> anyhow::Result<Vec<String>> {
    let chart = repository::root().join("charts/pgreplicapair-operator");
    let chart = chart.to_str().context("the path of the chart is no text")?;
    let set = format!("image.repository=r.example/pgpair,image.tag=v1,image.digest={digest}");
    let text = cluster.helm(&["template", "r", chart, "-n", "n", "--skip-crds", "--set", &set]).await?;
    let quoted = text.lines().filter_map(|line| line.trim().split_once("\"r.example/"));
    Ok(quoted.map(|(_, rest)| format!("r.example/{}", rest.trim_end_matches('"'))).collect())
}
