//! The cluster: every request has its limit, and every error says what was attempted.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::ANNOTATION_ORDER;
use pgpair_core::record::Record;
use pgpair_wire::lease;
use serde_json::json;

use crate::args::Access;

/// For the API server to answer one request.
const LIMIT: Duration = Duration::from_secs(15);

/// One namespace of the cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    pairs: Api<PgReplicaPair>,
    leases: Api<Lease>,
}

impl Cluster {
    /// By the kubeconfig and the flags.
    ///
    /// # Errors
    /// There is no usable kubeconfig.
    pub async fn connect(access: &Access) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
        let config = match &access.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file)
                    .with_context(|| format!("reading the kubeconfig {}", file.display()))?;
                Config::from_custom_kubeconfig(read, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context("reading the kubeconfig")?;
        let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("building a client of the cluster")?;
        Ok(Cluster::new(client, namespace))
    }

    /// With a client that is there.
    #[must_use]
    pub fn new(client: Client, namespace: String) -> Cluster {
        Cluster {
            pairs: Api::namespaced(client.clone(), &namespace),
            leases: Api::namespaced(client, &namespace),
            namespace,
        }
    }

    /// The pair.
    ///
    /// # Errors
    /// There is none, or the API server did not answer.
    pub async fn pair(&self, name: &str) -> anyhow::Result<PgReplicaPair> {
        within(&format!("reading pair {}/{name}", self.namespace), self.pairs.get(name)).await
    }

    /// The record: what the pair's Lease says at this moment.
    ///
    /// # Errors
    /// There is none, it cannot be read as a record, or the API server did not answer.
    pub async fn record(&self, name: &str) -> anyhow::Result<Record> {
        let what = format!("reading the record, Lease {}/{name}", self.namespace);
        let lease = within(&what, self.leases.get(name)).await?;
        let spec = lease.spec.unwrap_or_default();
        let annotations = lease.metadata.annotations.unwrap_or_default();
        lease::read(spec.holder_identity.as_deref(), spec.lease_transitions, &annotations).context(what)
    }

    /// Gives an order: the annotation that the operator looks for.
    ///
    /// # Errors
    /// The API server refused or did not answer.
    pub async fn order(&self, name: &str, annotation: &str) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {ANNOTATION_ORDER: annotation}}});
        let what = format!("giving the order to pair {}/{name}", self.namespace);
        within(&what, self.pairs.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    /// Takes an order back, unless another one has taken its place.
    ///
    /// # Errors
    /// The API server refused, for example because of another order, or did not answer.
    pub async fn withdraw(&self, name: &str, annotation: &str) -> anyhow::Result<()> {
        let path = format!("/metadata/annotations/{}", ANNOTATION_ORDER.replace('/', "~1"));
        let patch = Patch::<()>::Json(serde_json::from_value(json!([
            {"op": "test", "path": path, "value": annotation},
            {"op": "remove", "path": path},
        ]))?);
        let what = format!("taking the order to pair {}/{name} back", self.namespace);
        within(&what, self.pairs.patch(name, &PatchParams::default(), &patch)).await?;
        Ok(())
    }
}

async fn within<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LIMIT, request)
        .await
        .with_context(|| format!("{what}: the API server did not answer within {} s", LIMIT.as_secs()))?
        .map_err(plain)
        .with_context(|| what.to_owned())
}

/// What the API server said, without the object that it said it in.
fn plain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use crate::mock;

    #[tokio::test]
    async fn an_error_is_what_was_attempted_and_what_the_server_said() {
        let (cluster, _server) = mock::cluster(|_, _| mock::error(StatusCode::FORBIDDEN));
        let error = format!("{:#}", cluster.pair("orders").await.unwrap_err());
        assert_eq!(error, "reading pair shop/orders: mock");
    }
}
