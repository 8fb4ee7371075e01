//! The pair that cases share, on volumes that can be full or hang; replaced when it does not become whole again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use pgpair_core::ids::InstanceId;
use serde_json::json;

use crate::faults::common::Common;
use crate::faults::row::Case;
use crate::faults::stage::Token;
use crate::harness::cluster::{Cluster, LocalCluster, TempNamespace};
use crate::harness::describe::describe;
use crate::harness::operator;
use crate::harness::pair::{Pair, apply, manifest};
use crate::harness::record;

/// Major version of PostgreSQL.
const VERSION: u32 = 17;
/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(300);
/// For a pair to be whole before a case, and after a change of durability or a switchover.
const WHOLE: Duration = Duration::from_secs(120);

/// A pair in a namespace of its own.
#[derive(Debug)]
pub struct Stand {
    cluster: Cluster,
    namespace: TempNamespace,
    /// The pair.
    pub pair: Pair,
    /// Its volumes are named so; empty when no other pair has such volumes.
    pub set: String,
    /// What is broken for all pairs.
    pub common: Arc<Common<Token>>,
}

impl Stand {
    /// Undoes what earlier runs left on, and brings a pair up.
    ///
    /// # Errors
    /// When the cluster is not the local one or not healthy, or the pair does not come up.
    pub async fn bring_up(cluster: &Cluster) -> anyhow::Result<Stand> {
        clear(cluster).await?;
        Stand::bring_up_one(cluster, "", Arc::default()).await
    }

    /// The same with several pairs, one for each name, whose nodes and control plane are broken together.
    ///
    /// # Errors
    /// When one of them does not come up; the others are left for [`clear`].
    pub async fn bring_up_all(cluster: &Cluster, sets: &[&str]) -> anyhow::Result<Vec<Stand>> {
        clear(cluster).await?;
        let common = Arc::default();
        try_join_all(sets.iter().map(|set| Stand::bring_up_one(cluster, set, Arc::clone(&common)))).await
    }

    async fn bring_up_one(cluster: &Cluster, set: &str, common: Arc<Common<Token>>) -> anyhow::Result<Stand> {
        local(cluster)?.run(&["disks", "up", set]).await?;
        let namespace = TempNamespace::create(cluster, &with_set("pgpair-faults", set)).await?;
        let pair = Pair::new(cluster, &namespace.name, "orders");
        let stand = Stand { cluster: cluster.clone(), namespace, pair, set: set.to_owned(), common };
        let classes = "size: 1Gi\n      storageClassName: pgpair-";
        let mut manifest = manifest("orders", VERSION);
        for kind in ["data", "archive"] {
            let on_disk = format!("{kind}:\n      {classes}{}", with_set(kind, set));
            let plain = format!("{kind}:\n      size: 1Gi");
            ensure!(manifest.contains(&plain), "the manifest has no {plain:?}");
            manifest = manifest.replace(&plain, &on_disk);
        }
        let up = async {
            apply(cluster, &stand.namespace.name, &manifest).await.context("applying the pair")?;
            stand.pair.await_paired(1, BRING_UP).await
        };
        match up.await {
            Ok(_) => Ok(stand),
            Err(error) => {
                stand.tear_down().await?;
                Err(error)
            }
        }
    }

    /// The pair, its namespace and its volumes go.
    ///
    /// # Errors
    /// When they are still there after some minutes.
    pub async fn tear_down(self) -> anyhow::Result<()> {
        let kept = std::env::var("PGPAIR_KEEP").is_ok_and(|keep| keep == "1");
        self.namespace.delete().await?;
        match self.cluster.local.as_ref() {
            Some(local) if !kept => local.run(&["disks", "down", &self.set]).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Another pair in the place of this one, whose end is saved in `folder`.
    ///
    /// # Errors
    /// When the old one does not go, or the new one does not come.
    pub async fn replace(self, folder: &Path) -> anyhow::Result<Stand> {
        self.save(folder).await;
        let (cluster, set, common) = (self.cluster.clone(), self.set.clone(), Arc::clone(&self.common));
        local(&cluster)?.run(&["heal"]).await?;
        operator::await_available(&cluster).await?;
        self.tear_down().await?;
        Stand::bring_up_one(&cluster, &set, common).await
    }

    /// What a person would look at, as files: pods, events and ends of logs; the pair; whole logs.
    pub async fn save(&self, folder: &Path) {
        let namespace = &self.namespace.name;
        let mut files = vec![("describe.txt".to_owned(), describe(&self.cluster, namespace).await)];
        let mut ask =
            vec![("objects.yaml".to_owned(), "get pgreplicapair,lease,pod,pvc,job -o yaml".to_owned())];
        for instance in InstanceId::ALL {
            let pod = self.pair.names.pod(instance);
            ask.push((format!("{pod}.log"), format!("logs {pod} -c postgres")));
            ask.push((format!("{pod}.previous.log"), format!("logs {pod} -c postgres --previous")));
        }
        for (file, args) in ask {
            let args: Vec<&str> = ["-n", namespace].into_iter().chain(args.split(' ')).collect();
            // What cannot be had is told in its place.
            files.push((file, self.cluster.kubectl(&args).await.unwrap_or_else(|e| format!("{e:#}\n"))));
        }
        let written = fs::create_dir_all(folder)
            .and_then(|()| files.iter().try_for_each(|(file, text)| fs::write(folder.join(file), text)));
        match written {
            Ok(()) => println!("  saved in {}", folder.display()),
            Err(error) => println!("  cannot be saved in {}: {error}", folder.display()),
        }
    }

    /// Makes the pair as the case wants it: whole, with that durability and that primary.
    ///
    /// # Errors
    /// When it does not become so in time.
    pub async fn prepare(&self, case: &Case) -> anyhow::Result<()> {
        self.pair.await_paired(1, WHOLE).await?;
        self.pair.set(&json!({"durability": case.durability.as_str()})).await?;
        record::await_durability(&self.pair, case.durability, WHOLE).await?;
        let status = self.pair.await_paired(1, WHOLE).await?;
        if self.pair.primary_of(&status)? == case.primary {
            return Ok(());
        }
        let status = self.pair.switch_over(&status, WHOLE).await?;
        let primary = self.pair.primary_of(&status)?;
        ensure!(primary == case.primary, "{primary} is primary after a switchover");
        Ok(())
    }
}

/// Undoes what earlier runs left on.
async fn clear(cluster: &Cluster) -> anyhow::Result<()> {
    let local = local(cluster)?;
    local.run(&["heal"]).await?;
    operator::await_available(cluster).await?;
    local.run(&["disks", "down"]).await.map(|_| ())
}

/// The machine under the cluster.
pub(super) fn local(cluster: &Cluster) -> anyhow::Result<&LocalCluster> {
    cluster.local.as_ref().context("faults need the machine under the cluster: unset PGPAIR_CONTEXT")
}

/// Name of a thing that each set has its own of.
pub(super) fn with_set(name: &str, set: &str) -> String {
    if set.is_empty() { name.to_owned() } else { format!("{name}-{set}") }
}

/// Where what is left of a case is saved.
#[must_use]
pub fn folder(out: &Path, case: &Case) -> PathBuf {
    out.join(format!("{}-{}-{}", case.entry.name, case.durability.as_str(), case.primary))
}
