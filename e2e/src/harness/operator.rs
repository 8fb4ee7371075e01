//! The operator's own deployment: there, away, and back.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use pgpair_api::names::OPERATOR;
use serde_json::json;

use crate::harness::cluster::Cluster;
use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;

/// Selects the deployment and its pods.
pub const LABEL: &str = "app.kubernetes.io/name=pgreplicapair-operator";
/// For its pods to come or go.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until the operator is available.
///
/// # Errors
/// After 60 s: says how to install it.
pub async fn await_available(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::all(cluster.client.clone());
    let what = "an available operator (install it with `make install`)";
    await_condition(what, Duration::from_secs(60), || async {
        let found = api.list(&ListParams::default().labels(LABEL)).await?;
        let available =
            |d: &Deployment| d.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0) > 0;
        match found.iter().find(|d| available(d)) {
            Some(_) => Ok(()),
            None => bail!("{} deployments of it, none available", found.items.len()),
        }
    })
    .await
}

/// Pods of the operator.
///
/// # Errors
/// When the API does not answer.
pub async fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::all(cluster.client.clone());
    let found =
        api.list(&ListParams::default().labels(LABEL)).await.context("listing the operator's pods")?;
    Ok(found.items)
}

/// How many replicas of it are wanted.
///
/// # Errors
/// When it is not installed, or the API does not answer.
pub async fn replicas(cluster: &Cluster) -> anyhow::Result<i32> {
    Ok(deployment(cluster).await?.spec.and_then(|s| s.replicas).unwrap_or(1))
}

/// The replica that leads.
///
/// # Errors
/// When none does, or the API does not answer.
pub async fn leader(cluster: &Cluster) -> anyhow::Result<Pod> {
    let pods = pods(cluster).await?;
    let namespace = pods.first().and_then(|pod| pod.namespace()).context("the operator has no pods")?;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &namespace);
    let lease = leases.get(OPERATOR).await.context("reading the operator's Lease")?;
    let holder = lease.spec.and_then(|s| s.holder_identity).filter(|holder| !holder.is_empty());
    let holder = holder.context("nobody holds the operator's Lease")?;
    let leads = pods.into_iter().find(|pod| pod.name_any() == holder);
    leads.with_context(|| format!("{holder} holds the operator's Lease and is not there"))
}

/// One installation of the operator, by its deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Namespace of the release.
    pub namespace: String,
    /// Name of the release; also of the deployment.
    pub release: String,
    /// Its service account, as the API server names the user.
    pub user: String,
    /// Image of the operator.
    pub image: String,
    /// Image of PostgreSQL for pairs that name none, with `{version}`.
    pub postgres_image: String,
}

impl Installation {
    /// Its image as values of the chart.
    #[must_use]
    pub fn image_values(&self) -> Vec<String> {
        let (repository, version) = image_parts(&self.image);
        let version = match version {
            Some(ImageVersion::Digest(digest)) => Some(format!("image.digest={digest}")),
            Some(ImageVersion::Tag(tag)) => Some(format!("image.tag={tag}")),
            None => None,
        };
        [format!("image.repository={repository}")].into_iter().chain(version).collect()
    }

    /// Its image without tag and digest.
    #[must_use]
    pub fn repository(&self) -> &str {
        image_parts(&self.image).0
    }
}

/// What an image's name says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageVersion<'a> {
    Tag(&'a str),
    Digest(&'a str),
}

/// A registry may have a port, and a digest counts more than a tag.
fn image_parts(image: &str) -> (&str, Option<ImageVersion<'_>>) {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(ImageVersion::Digest(digest))),
        None => (image, None),
    };
    match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => (repository, digest.or(Some(ImageVersion::Tag(tag)))),
        None => (name, digest),
    }
}

/// The installation under test. To be asked while there is no other one.
///
/// # Errors
/// When it is not installed, or the API does not answer.
pub async fn installation(cluster: &Cluster) -> anyhow::Result<Installation> {
    let deployment = deployment(cluster).await?;
    let namespace = deployment.namespace().context("the deployment has no namespace")?;
    let release = deployment.name_any();
    let pod = deployment.spec.and_then(|s| s.template.spec).context("the deployment has no pod")?;
    let account = pod.service_account_name.context("the operator has no service account")?;
    let container = pod.containers.into_iter().next().context("the operator has no container")?;
    let template = container.env.iter().flatten().find(|e| e.name == "PGPAIR_POSTGRES_IMAGE_TEMPLATE");
    Ok(Installation {
        user: format!("system:serviceaccount:{namespace}:{account}"),
        image: container.image.context("the operator has no image")?,
        postgres_image: template
            .and_then(|e| e.value.clone())
            .context("no template of PostgreSQL's image")?,
        namespace,
        release,
    })
}

/// What the operator keeps of a pair in its own namespace.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The Secrets there.
    pub secrets: Api<Secret>,
    /// The name of that with the pair's authority.
    pub authority: String,
    /// The name of that with the operator's certificate.
    pub operator_tls: String,
}

impl Kept {
    /// Of `pair`. To be asked while there is one installation.
    ///
    /// # Errors
    /// When there is no such pair or no operator, or the API does not answer.
    pub async fn of(pair: &Pair) -> anyhow::Result<Kept> {
        let namespace = installation(&pair.cluster).await?.namespace;
        let uid = pair.uid().await?;
        Ok(Kept {
            secrets: Api::namespaced(pair.cluster.client.clone(), &namespace),
            authority: pair.names.authority_secret(&uid),
            operator_tls: pair.names.operator_tls_secret(&uid),
        })
    }
}

async fn deployment(cluster: &Cluster) -> anyhow::Result<Deployment> {
    let api: Api<Deployment> = Api::all(cluster.client.clone());
    let found = api.list(&ListParams::default().labels(LABEL)).await.context("listing deployments")?;
    found.items.into_iter().next().context("the operator is not installed")
}

/// The operator, taken away. It must be brought back: it does not come by itself.
#[derive(Debug)]
#[must_use]
pub struct Absent {
    namespace: String,
    name: String,
    replicas: i32,
}

/// Scales the operator to nothing, and waits until none of its processes is left.
///
/// # Errors
/// When there is no operator, or it does not go; it may be on its way out then.
pub async fn take_away(cluster: &Cluster) -> anyhow::Result<Absent> {
    let deployment = deployment(cluster).await?;
    let absent = Absent {
        namespace: deployment.namespace().context("the deployment has no namespace")?,
        name: deployment.name_any(),
        replicas: deployment.spec.and_then(|s| s.replicas).unwrap_or(1),
    };
    absent.scale(cluster, 0).await?;
    let gone = await_condition("the end of the operator's pods", LIMIT, || async {
        let left = pods(cluster).await?;
        ensure!(left.is_empty(), "{} are left", left.len());
        Ok(())
    })
    .await;
    match gone {
        Ok(()) => Ok(absent),
        Err(error) => {
            absent.bring_back(cluster).await?;
            Err(error)
        }
    }
}

impl Absent {
    /// Scales it back, and waits until it is available.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn bring_back(self, cluster: &Cluster) -> anyhow::Result<()> {
        self.scale(cluster, self.replicas).await?;
        await_available(cluster).await
    }

    async fn scale(&self, cluster: &Cluster, replicas: i32) -> anyhow::Result<()> {
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch_scale(&self.name, &PatchParams::default(), &patch)
            .await
            .map(|_| ())
            .with_context(|| format!("scaling {} to {replicas}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_tag_a_digest_both_or_neither_and_its_registry_may_have_a_port() {
        let digest = ImageVersion::Digest("sha256:0a");
        for (image, parts) in [
            ("pgpair", ("pgpair", None)),
            ("registry:5000/pgpair", ("registry:5000/pgpair", None)),
            ("registry:5000/pgpair:1.2", ("registry:5000/pgpair", Some(ImageVersion::Tag("1.2")))),
            ("registry/pgpair@sha256:0a", ("registry/pgpair", Some(digest))),
            ("registry/pgpair:1.2@sha256:0a", ("registry/pgpair", Some(digest))),
        ] {
            assert_eq!(image_parts(image), parts, "{image}");
        }
    }
}
