//! What the tests share: the cluster, one namespace, and the pair in it.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pgpair_e2e::faults::stand::Stand;
use pgpair_e2e::harness::cluster::{Cluster, TempNamespace};
use pgpair_e2e::harness::describe::describe;
use pgpair_e2e::harness::operator;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};

/// For a pair from nothing to `Paired`: images may have to be started for the first time.
const BRING_UP: Duration = Duration::from_secs(240);

/// Shared by all tests that run one after the other.
pub struct Context {
    cluster: Result<Cluster, String>,
    /// How the name of its namespace begins: those that run at the same time have one each.
    prefix: &'static str,
    namespace: Option<TempNamespace>,
    /// The shared pair, or why it did not come up.
    pair: Option<Result<Pair, String>>,
    /// The pair on disks that can be full or hang, or why it did not come up.
    stand: Option<Result<Stand, String>>,
}

impl Context {
    /// Looks for the cluster. Without one the tests fail, each with the same message.
    pub async fn new(prefix: &'static str) -> Context {
        let cluster = Cluster::connect().await.map_err(|error| format!("{error:#}"));
        Context { cluster, prefix, namespace: None, pair: None, stand: None }
    }

    /// The cluster, whether or not the operator runs there.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        self.cluster.clone().map_err(|error| anyhow!(error))
    }

    /// The namespace of these tests.
    pub async fn namespace(&mut self) -> anyhow::Result<String> {
        let cluster = self.cluster()?;
        if self.namespace.is_none() {
            self.namespace = Some(TempNamespace::create(&cluster, self.prefix).await?);
        }
        self.namespace.as_ref().map(|ns| ns.name.clone()).context("no namespace")
    }

    /// The shared pair of PostgreSQL 17, `Paired`; brought up by the first test that asks.
    pub async fn pair(&mut self) -> anyhow::Result<Pair> {
        if self.pair.is_none() {
            let brought = self.bring_up("orders", 17).await;
            self.pair = Some(brought.map_err(|error| format!("{error:#}")));
        }
        match self.pair.as_ref() {
            Some(Ok(pair)) => Ok(pair.clone()),
            Some(Err(error)) => bail!("the shared pair did not come up: {error}"),
            None => bail!("no shared pair"),
        }
    }

    /// The pair that faults of every kind are made on, in a namespace of its own; brought up by the first test that asks.
    pub async fn stand(&mut self) -> anyhow::Result<&Stand> {
        if self.stand.is_none() {
            let brought = Stand::bring_up(&self.cluster()?).await;
            self.stand = Some(brought.map_err(|error| format!("{error:#}")));
        }
        match self.stand.as_ref() {
            Some(Ok(stand)) => Ok(stand),
            Some(Err(error)) => bail!("the pair for faults did not come up: {error}"),
            None => bail!("no pair for faults"),
        }
    }

    /// A pair of its own.
    pub async fn bring_up(&mut self, name: &str, version: u32) -> anyhow::Result<Pair> {
        self.bring_up_as(name, &manifest(name, version)).await
    }

    /// The same of a manifest.
    pub async fn bring_up_as(&mut self, name: &str, manifest: &str) -> anyhow::Result<Pair> {
        let namespace = self.namespace().await?;
        let cluster = self.cluster()?;
        operator::await_available(&cluster).await?;
        apply(&cluster, &namespace, manifest).await.context("applying the pair")?;
        let pair = Pair::new(&cluster, &namespace, name);
        pair.await_paired(1, BRING_UP).await?;
        Ok(pair)
    }

    /// Deletes the namespace; after a failure it tells what was in it first.
    pub async fn clean_up(self, all_passed: bool) -> anyhow::Result<()> {
        if let Some(Ok(stand)) = self.stand {
            stand.tear_down().await?;
        }
        let Some(namespace) = self.namespace else { return Ok(()) };
        if !all_passed && let Ok(cluster) = &self.cluster {
            println!(
                "at the end, in namespace {}:\n{}",
                namespace.name,
                describe(cluster, &namespace.name).await
            );
        }
        namespace.delete().await
    }
}
