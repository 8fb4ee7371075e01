//! The cluster: every request has its limit, and every error says what was attempted.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use pgpair_api::names::ANNOTATION_ORDER;
use pgpair_api::order::UserOrder;
use pgpair_api::{PgPairOrder, PgPairOrderSpec, PgReplicaPair};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Record;
use pgpair_wire::lease;
use pgpair_wire::words::plain as plain_text;
use serde_json::{Value, json};

use crate::args::Access;

/// For the API server to answer one request.
const LIMIT: Duration = Duration::from_secs(15);

/// One namespace of the cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    pairs: Api<PgReplicaPair>,
    orders: Api<PgPairOrder>,
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
            orders: Api::namespaced(client.clone(), &namespace),
            leases: Api::namespaced(client, &namespace),
            namespace,
        }
    }

    /// The pair.
    ///
    /// # Errors
    /// There is none, or the API server did not answer.
    pub async fn pair(&self, name: &str) -> anyhow::Result<PgReplicaPair> {
        let what = format!("reading pair {}/{name}", self.namespace);
        let pair = within(&what, self.pairs.get(name)).await?;
        // A tenant chooses words in it, and they are printed on the terminal of an administrator.
        let mut json = serde_json::to_value(pair).context(what.clone())?;
        make_plain(&mut json);
        serde_json::from_value(json).context(what)
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

    /// Gives an order, as an object of its own: that needs no right to change the pair. Where there is no right to that, or the cluster
    /// does not have the kind, and always with `by_annotation`, it becomes the annotation of the pair. Gives the order with the id by which
    /// its status will tell of it.
    ///
    /// # Errors
    /// The API server refused or did not answer.
    pub async fn order(
        &self,
        pair: &PgReplicaPair,
        order: &UserOrder,
        by_annotation: bool,
    ) -> anyhow::Result<(UserOrder, Given)> {
        let name = pair.name_any();
        let what = format!("giving the order to pair {}/{name}", self.namespace);
        let refused = if by_annotation {
            None
        } else {
            match limited(&what, self.orders.create(&PostParams::default(), &as_object(pair, order))).await? {
                Ok(made) => {
                    let id = made.id().context("the API server gave the order no uid")?;
                    return Ok((UserOrder { id, ..order.clone() }, Given::Object(made.name_any())));
                }
                // No right to it, or no such kind: nothing was ordered.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Some(status.message),
                Err(error) => return Err(plain(error)).context(what),
            }
        };
        let patch = json!({"metadata": {"annotations": {ANNOTATION_ORDER: order.to_json()}}});
        let patched =
            within(&what, self.pairs.patch(&name, &PatchParams::default(), &Patch::Merge(patch))).await;
        match (patched, refused) {
            (Ok(_), _) => Ok((order.clone(), Given::Annotation)),
            (Err(error), Some(first)) => Err(error.context(format!("as an object: {first}"))),
            (Err(error), None) => Err(error),
        }
    }

    /// Says whose volume becomes the primary's, by what was found.
    ///
    /// # Errors
    /// The API server refused or did not answer.
    pub async fn choose(&self, name: &str, primary: InstanceId, accept: &str) -> anyhow::Result<()> {
        let what = format!("giving the choice to pair {}/{name}", self.namespace);
        let patch = json!({"spec": {"bootstrap": {"adopt": {"primary": primary, "accept": accept}}}});
        within(&what, self.pairs.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    /// Takes an order back. An annotation only if no other one has taken its place.
    ///
    /// # Errors
    /// The API server refused, for example because of another order, or did not answer.
    pub async fn withdraw(&self, name: &str, order: &UserOrder, given: &Given) -> anyhow::Result<()> {
        let what = format!("taking the order to pair {}/{name} back", self.namespace);
        match given {
            Given::Object(object) => {
                within(&what, self.orders.delete(object, &DeleteParams::default())).await?;
            }
            Given::Annotation => {
                let path = format!("/metadata/annotations/{}", ANNOTATION_ORDER.replace('/', "~1"));
                let patch = Patch::<()>::Json(serde_json::from_value(json!([
                    {"op": "test", "path": path, "value": order.to_json()},
                    {"op": "remove", "path": path},
                ]))?);
                within(&what, self.pairs.patch(name, &PatchParams::default(), &patch)).await?;
            }
        }
        Ok(())
    }
}

/// In which form an order was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// As a PgPairOrder of this name.
    Object(String),
    /// As the annotation of the pair.
    Annotation,
}

/// It goes with the pair.
fn as_object(pair: &PgReplicaPair, order: &UserOrder) -> PgPairOrder {
    let name = pair.name_any();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}-")),
        owner_references: pair.owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let spec = PgPairOrderSpec {
        pair: name,
        kind: order.kind.as_str().to_owned(),
        instance: order.instance.map(|instance| instance.to_string()),
        term: order.term.0.into(),
        dead: order.dead.map(|dead| dead.to_string()),
        role: order.role.clone(),
        certificate: order.certificate.map(|which| which.as_str().to_owned()),
    };
    PgPairOrder { metadata, spec, status: None }
}

async fn limited<T>(
    what: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> anyhow::Result<kube::Result<T>> {
    tokio::time::timeout(LIMIT, request)
        .await
        .with_context(|| format!("{what}: the API server did not answer within {} s", LIMIT.as_secs()))
}

async fn within<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    limited(what, request).await?.map_err(plain).with_context(|| what.to_owned())
}

/// Takes what a terminal acts upon out of every text.
fn make_plain(value: &mut Value) {
    match value {
        Value::String(text) => *text = plain_text(text),
        Value::Array(items) => items.iter_mut().for_each(make_plain),
        Value::Object(members) => members.values_mut().for_each(make_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
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
    async fn nothing_of_a_pair_that_a_terminal_would_act_upon_is_printed() {
        let (cluster, _server) = mock::cluster(|_, _| {
            let escape = "\u{1b}]0;owned\u{7}\u{202e}";
            let instance = serde_json::json!({"name": "orders-a", "role": "Primary", "ready": true, "state": "Primary", "refusal": escape});
            let order = serde_json::json!({"id": escape, "kind": escape, "state": escape, "message": escape});
            (
                StatusCode::OK,
                mock::pair(serde_json::json!({"primary": escape, "instances": [instance], "order": order})),
            )
        });
        let page = crate::page::render(&cluster.pair("orders").await.unwrap(), jiff::Timestamp::UNIX_EPOCH);
        assert!(page.contains("owned"), "{page}");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()) && !page.contains('\u{202e}'), "{page:?}");
    }

    #[tokio::test]
    async fn an_error_is_what_was_attempted_and_what_the_server_said() {
        let (cluster, _server) = mock::cluster(|_, _| mock::error(StatusCode::FORBIDDEN));
        let error = format!("{:#}", cluster.pair("orders").await.unwrap_err());
        assert_eq!(error, "reading pair shop/orders: mock");
    }
}
