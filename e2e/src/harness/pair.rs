//! One pair under test, seen as its user sees it: the resource, its status, its Services, and psql.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{ANNOTATION_SEED, PairName};
use pgpair_api::status::{InstanceStatus, PgReplicaPairStatus};
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::Role;
use pgpair_core::record::Mode;
use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::describe::describe;
use crate::harness::exec::exec;
use crate::harness::wait::await_condition;

/// Container of an instance's pod that runs the agent and postgres.
pub const CONTAINER: &str = "postgres";
/// The one that proves the other's death to the peer.
pub const WITNESS: &str = "witness";
/// Field manager of what the tests apply.
const MANAGER: &str = "pgpair-e2e";
/// Annotation of an order.
const ORDER: &str = "pgpair.dev/order";

/// A pair on a cluster.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where it runs.
    pub cluster: Cluster,
    /// Its names.
    pub names: PairName,
}

/// Applies one manifest, as `kubectl apply --server-side` does.
///
/// # Errors
/// What the server refused, in its words.
pub async fn apply(cluster: &Cluster, namespace: &str, manifest: &str) -> anyhow::Result<()> {
    let (api, object) = read_manifest(cluster, namespace, manifest)?;
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force()
    };
    api.patch(&object.name_any(), &params, &Patch::Apply(&object))
        .await
        .map(|_| ())
        .map_err(anyhow::Error::from)
}

/// Lets the server judge a new object without keeping it, as `kubectl create --dry-run=server` does.
///
/// # Errors
/// What the server refused, in its words.
pub async fn dry_run(cluster: &Cluster, namespace: &str, manifest: &str) -> anyhow::Result<()> {
    let (api, object) = read_manifest(cluster, namespace, manifest)?;
    let params = PostParams { dry_run: true, field_manager: Some(MANAGER.into()) };
    api.create(&params, &object).await.map(|_| ()).map_err(anyhow::Error::from)
}

fn read_manifest(
    cluster: &Cluster,
    namespace: &str,
    manifest: &str,
) -> anyhow::Result<(Api<DynamicObject>, DynamicObject)> {
    let value: serde_json::Value = serde_saphyr::from_str(manifest).context("reading the manifest")?;
    let object: DynamicObject = serde_json::from_value(value).context("reading the manifest as an object")?;
    let types = object.types.clone().context("the manifest has no apiVersion and kind")?;
    let gvk = GroupVersionKind::try_from(&types).context("reading the manifest's apiVersion")?;
    let api = Api::namespaced_with(cluster.client.clone(), namespace, &ApiResource::from_gvk(&gvk));
    Ok((api, object))
}

/// Manifest of a small pair of the given major version.
#[must_use]
pub fn manifest(name: &str, version: u32) -> String {
    format!(
        "apiVersion: pgpair.dev/v1alpha1\nkind: PgReplicaPair\nmetadata:\n  name: {name}\nspec:\n  postgres:\n    \
         version: {version}\n    parameters:\n      shared_buffers: 32MB\n      max_wal_size: 256MB\n  storage:\n    data:\n      \
         size: 1Gi\n    archive:\n      size: 1Gi\n  archiveTimeoutSeconds: 30\n"
    )
}

impl Pair {
    /// A handle; the pair itself is not touched.
    #[must_use]
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> Pair {
        Pair { cluster: cluster.clone(), names: PairName { namespace: namespace.into(), name: name.into() } }
    }

    /// Pods of the pair's namespace.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.names.namespace)
    }

    /// The resource's status, read from the API server and not from a cache.
    ///
    /// # Errors
    /// When there is no such pair or no status yet.
    pub async fn status(&self) -> anyhow::Result<PgReplicaPairStatus> {
        let api: Api<PgReplicaPair> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let pair = api.get(&self.names.name).await.with_context(|| format!("reading {}", self.names.name))?;
        pair.status.context("the operator has not written a status yet")
    }

    /// The uid of the resource.
    ///
    /// # Errors
    /// When there is no such pair.
    pub async fn uid(&self) -> anyhow::Result<String> {
        let api: Api<PgReplicaPair> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let pair = api.get(&self.names.name).await.with_context(|| format!("reading {}", self.names.name))?;
        pair.metadata.uid.context("the pair has no uid")
    }

    /// Waits until the standby may take over: Ready and FailoverReady, mode Paired, one primary and one standby, both
    /// ready; in a term of at least `term`.
    ///
    /// # Errors
    /// After `limit`, with what was there instead, the pods and the events.
    pub async fn await_paired(&self, term: i64, limit: Duration) -> anyhow::Result<PgReplicaPairStatus> {
        let what = format!("pair {} with its standby ready to take over", self.names.name);
        let waited = await_condition(&what, limit, || async { is_paired(self.status().await?, term) }).await;
        self.explain(waited).await
    }

    /// What [`Pair::await_paired`] waits for, as it is now.
    ///
    /// # Errors
    /// Says what is missing.
    pub async fn paired_now(&self, term: i64) -> anyhow::Result<PgReplicaPairStatus> {
        is_paired(self.status().await?, term)
    }

    /// Adds pods and events of the namespace to an error.
    ///
    /// # Errors
    /// The one that came in.
    pub async fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match result {
            Ok(ok) => Ok(ok),
            Err(error) => bail!("{error:#}\n{}", describe(&self.cluster, &self.names.namespace).await),
        }
    }

    /// The instance that `status.primary` names.
    ///
    /// # Errors
    /// When it names none of the two.
    pub fn primary_of(&self, status: &PgReplicaPairStatus) -> anyhow::Result<InstanceId> {
        let named = status.primary.as_deref().context("status names no primary")?;
        let found = InstanceId::ALL.into_iter().find(|i| self.names.instance(*i) == named);
        found.with_context(|| format!("status.primary {named:?} is no instance of {}", self.names.name))
    }

    /// An instance's pod.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn pod(&self, instance: InstanceId) -> anyhow::Result<Pod> {
        let name = self.names.pod(instance);
        self.pods().get(&name).await.with_context(|| format!("reading pod {name}"))
    }

    /// The node on which an instance runs.
    ///
    /// # Errors
    /// When it runs on none.
    pub async fn node(&self, instance: InstanceId) -> anyhow::Result<String> {
        self.pod(instance).await?.spec.and_then(|s| s.node_name).context("the pod is on no node")
    }

    /// Address of an instance's pod.
    ///
    /// # Errors
    /// When it has none.
    pub async fn address(&self, instance: InstanceId) -> anyhow::Result<String> {
        self.pod(instance).await?.status.and_then(|s| s.pod_ip).context("the pod has no address")
    }

    /// ClusterIP of Service `NAME-rw`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn rw_address(&self) -> anyhow::Result<String> {
        let api: Api<Service> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let service = api
            .get(&self.names.rw())
            .await
            .with_context(|| format!("reading Service {}", self.names.rw()))?;
        service.spec.and_then(|s| s.cluster_ip).context("the rw Service has no ClusterIP")
    }

    /// Whether the read-write Service leads to `instance` and nowhere else.
    ///
    /// # Errors
    /// Says where it leads instead.
    pub async fn rw_leads_to(&self, instance: InstanceId) -> anyhow::Result<()> {
        self.leads_to(&self.names.rw(), instance).await
    }

    /// Whether the read-only Service leads to `instance` and nowhere else.
    ///
    /// # Errors
    /// Says where it leads instead.
    pub async fn ro_leads_to(&self, instance: InstanceId) -> anyhow::Result<()> {
        self.leads_to(&self.names.ro(), instance).await
    }

    async fn leads_to(&self, service: &str, instance: InstanceId) -> anyhow::Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = api.list(&params).await.context("listing EndpointSlices")?;
        let addresses: Vec<String> =
            slices.items.into_iter().flat_map(|s| s.endpoints).flat_map(|e| e.addresses).collect();
        let wanted = self.address(instance).await?;
        ensure!(addresses == [wanted.clone()], "{service} leads to {addresses:?}, not to {wanted}");
        Ok(())
    }

    /// Changes fields of the spec.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn set(&self, spec: &Value) -> anyhow::Result<()> {
        let api: Api<PgReplicaPair> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let patch = Patch::Merge(json!({"spec": spec}));
        api.patch(&self.names.name, &PatchParams::default(), &patch)
            .await
            .map(|_| ())
            .with_context(|| format!("setting {spec}"))
    }

    /// Whether the operator has seen the spec as it is now.
    ///
    /// # Errors
    /// When it has not, or the API does not answer.
    pub async fn is_observed(&self) -> anyhow::Result<()> {
        let api: Api<PgReplicaPair> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let pair = api.get(&self.names.name).await.context("reading the pair")?;
        let (wanted, seen) = (pair.metadata.generation, pair.status.and_then(|s| s.observed_generation));
        ensure!(wanted == seen, "generation {wanted:?}, seen {seen:?}");
        Ok(())
    }

    /// The number of the base-backup Job on whose copy `instance` runs; 0: on none. The Job itself is deleted when the instance runs.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn last_seed(&self, instance: InstanceId) -> anyhow::Result<u32> {
        let api: Api<StatefulSet> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let set = api.get(&self.names.instance(instance)).await.context("reading a StatefulSet")?;
        let number: u32 = set.annotations().get(ANNOTATION_SEED).map_or(Ok(0), |n| n.parse())?;
        // At 0 replicas it waits for that Job.
        let runs = set.spec.and_then(|spec| spec.replicas) == Some(1);
        Ok(if runs { number } else { number.saturating_sub(1) })
    }

    /// The branches that `instance` has kept on its archive volume: one for each time that its log went beyond a new
    /// primary's past.
    ///
    /// # Errors
    /// When its container cannot be asked.
    pub async fn kept_branches(&self, instance: InstanceId) -> anyhow::Result<BTreeSet<String>> {
        let script = "for f in /pgpair/archive/lost/*/branch.json; do [ ! -e \"$f\" ] || echo \"$f\"; done";
        Ok(self.shell(instance, script).await?.lines().map(str::to_owned).collect())
    }

    /// A value of Secret `NAME-app`.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn app_secret(&self, key: &str) -> anyhow::Result<String> {
        let api: Api<Secret> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        let name = self.names.app_secret();
        let secret = api.get(&name).await.with_context(|| format!("reading Secret {name}"))?;
        let value =
            secret.data.unwrap_or_default().remove(key).with_context(|| format!("{name} has no {key}"))?;
        String::from_utf8(value.0).with_context(|| format!("{name}: {key} is no text"))
    }

    /// Gives an order by the annotation, as `kubectl pgpair` does; `order` without id and term.
    ///
    /// # Errors
    /// When the status has no term, or the API refuses.
    pub async fn order(&self, order: &Value) -> anyhow::Result<()> {
        let mut order = order.clone();
        let now = jiff::Timestamp::now();
        order["id"] = json!(format!("e2e{}-{}", now.subsec_nanosecond(), now.as_second()));
        order["term"] = json!(self.status().await?.term.context("status has no term")?);
        let patch = Patch::Merge(json!({"metadata": {"annotations": {ORDER: order.to_string()}}}));
        let api: Api<PgReplicaPair> = Api::namespaced(self.cluster.client.clone(), &self.names.namespace);
        api.patch(&self.names.name, &PatchParams::default(), &patch)
            .await
            .map(|_| ())
            .with_context(|| format!("ordering {order}"))
    }

    /// Orders a switchover of a pair that is as `status` tells; returns when the two are `Paired` again, the other way round or not.
    ///
    /// # Errors
    /// When the API refuses, or they are not within `limit`.
    pub async fn switch_over(
        &self,
        status: &PgReplicaPairStatus,
        limit: Duration,
    ) -> anyhow::Result<PgReplicaPairStatus> {
        let term = status.term.context("status has no term")?;
        self.order(&json!({"kind": "Switchover"})).await?;
        self.await_paired(term + 1, limit).await
    }

    /// Runs SQL on an instance as superuser, in the application's database; unaligned, without headings.
    ///
    /// # Errors
    /// What psql said.
    pub async fn psql(&self, instance: InstanceId, sql: &str) -> anyhow::Result<String> {
        let database = self.app_secret("dbname").await?;
        let command = [
            "psql",
            "-X",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "/pgpair/run/pg",
            "-U",
            "postgres",
            "-d",
            &database,
            "-Atc",
            sql,
        ];
        let out = exec(&self.pods(), &self.names.pod(instance), CONTAINER, &command).await?;
        Ok(out.trim_end().to_owned())
    }

    /// Runs a shell command in an instance's container.
    ///
    /// # Errors
    /// What it said.
    pub async fn shell(&self, instance: InstanceId, script: &str) -> anyhow::Result<String> {
        let out = exec(&self.pods(), &self.names.pod(instance), CONTAINER, &["sh", "-c", script]).await?;
        Ok(out.trim_end().to_owned())
    }

    /// Waits until both instances give the same answer to `sql`, and returns it.
    ///
    /// # Errors
    /// After `limit`, with both answers.
    pub async fn await_equal(&self, sql: &str, limit: Duration) -> anyhow::Result<String> {
        await_condition("the same data on both instances", limit, || async {
            let (a, b) = tokio::try_join!(self.psql(InstanceId::A, sql), self.psql(InstanceId::B, sql))?;
            ensure!(a == b, "a has {a}, b has {b}");
            Ok(a)
        })
        .await
    }
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn is_paired(status: PgReplicaPairStatus, term: i64) -> anyhow::Result<PgReplicaPairStatus> {
    for wanted in ["Ready", "FailoverReady"] {
        let condition = status.conditions.iter().find(|c| c.type_ == wanted);
        let condition = condition.with_context(|| format!("no condition {wanted} yet"))?;
        ensure!(
            condition.status == "True",
            "{wanted} is {}: {} {}",
            condition.status,
            condition.reason,
            condition.message
        );
    }
    let found = status.term.unwrap_or(0);
    ensure!(found >= term, "term is {found}, not yet {term}");
    ensure!(status.mode.as_ref().is_some_and(|m| m.is(Mode::Paired)), "mode is {:?}", status.mode);
    let count = |role: Role| status.instances.iter().filter(|i| i.role.is(role) && i.ready).count();
    let told = |i: &InstanceStatus| format!("{} {} {} ready={}", i.name, i.role, i.state, i.ready);
    ensure!(
        count(Role::Primary) == 1 && count(Role::Standby) == 1,
        "instances: {}",
        status.instances.iter().map(told).collect::<Vec<_>>().join(", ")
    );
    Ok(status)
}
