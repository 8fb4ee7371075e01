//! The chart, as Helm renders it, and the image that it names.

use anyhow::{Context as _, bail, ensure};
use pgpair_e2e::harness::cluster::Cluster;
use pgpair_e2e::harness::operator::{self, Installation};
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

/// What gets into the operator's container finds nothing there that it could start but the operator.
pub async fn the_image_has_no_shell(c: &mut Context) -> anyhow::Result<Outcome> {
    let cluster = c.cluster()?;
    let Installation { namespace, release, .. } = operator::installation(&cluster).await?;
    let pod = format!("deployment/{release}");
    let tried =
        async |program| cluster.kubectl(&["exec", "-n", &namespace, &pod, "--", program, "--version"]).await;
    let version = tried("pgpair").await?;
    ensure!(version.starts_with("pgpair "), "the program says {version:?}");
    for program in ["sh", "bash", "/bin/sh", "ls", "apt-get"] {
        match tried(program).await {
            Ok(said) => bail!("{program} is in the image, and says {said:?}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains("not found") || said.contains("no such file"), "{program}: {said}");
            }
        }
    }
    Ok(Outcome::Passed)
}
