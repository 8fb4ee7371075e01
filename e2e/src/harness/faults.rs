//! What goes wrong on purpose.

use anyhow::Context as _;
use kube::api::DeleteParams;
use pgpair_core::ids::InstanceId;
use serde_json::json;

use crate::harness::cluster::Cluster;
use crate::harness::eviction::drain;
use crate::harness::exec::exec;
use crate::harness::operator::{self, Absent};
use crate::harness::pair::{CONTAINER, Pair, WITNESS};

/// Where [`Fault::DataLoss`] puts the data directory, out of the agent's sight.
pub const LOST_DIRECTORY: &str = "/pgpair/data/lost-by-test";

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of the container's first process, as an out-of-memory kill would do it.
    ContainerKill,
    /// The same of both containers: no witness is left to prove the death.
    PodKill,
    /// SIGKILL of the postmaster; the agent lives.
    PostmasterKill,
    /// No fault: a person orders the change of primary.
    Switchover,
    /// `kubectl delete pod`: SIGTERM, and the grace period of the pod.
    PodDelete,
    /// What `kubectl drain` does: the pod is evicted as soon as its disruption budget allows it.
    Evict,
    /// `kubectl delete pod --force --grace-period=0`.
    PodDeleteForce,
    /// The node is cut off from everything, and goes on running.
    NodeCut,
    /// The node loses power.
    NodeStop,
    /// The data directory is gone, and the container is killed.
    DataLoss,
    /// The node of the other instance loses power.
    StandbyLoss,
    /// The API server is away.
    ApiOutage,
    /// The operator is away, all its replicas.
    OperatorOutage,
}

impl Fault {
    /// Every one.
    pub const ALL: [Fault; 13] = [
        Fault::Switchover,
        Fault::PostmasterKill,
        Fault::ContainerKill,
        Fault::PodKill,
        Fault::PodDelete,
        Fault::Evict,
        Fault::PodDeleteForce,
        Fault::NodeStop,
        Fault::NodeCut,
        Fault::DataLoss,
        Fault::StandbyLoss,
        Fault::ApiOutage,
        Fault::OperatorOutage,
    ];

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Fault::ContainerKill => "SIGKILL of the primary's container",
            Fault::PodKill => "SIGKILL of the primary's container and of its witness",
            Fault::PostmasterKill => "SIGKILL of the primary's postmaster",
            Fault::Switchover => "a switchover is ordered",
            Fault::PodDelete => "deletion of the primary's pod",
            Fault::Evict => "eviction of the primary's pod",
            Fault::PodDeleteForce => "forced deletion of the primary's pod",
            Fault::NodeCut => "the primary's node is cut off",
            Fault::NodeStop => "the primary's node loses power",
            Fault::DataLoss => "the primary's data directory is lost",
            Fault::StandbyLoss => "the standby's node loses power",
            Fault::ApiOutage => "the API server is away",
            Fault::OperatorOutage => "the operator is away",
        }
    }

    /// For programs: in tables and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::ContainerKill => "container-kill",
            Fault::PodKill => "pod-kill",
            Fault::PostmasterKill => "postmaster-kill",
            Fault::Switchover => "switchover",
            Fault::PodDelete => "pod-delete",
            Fault::Evict => "pod-evict",
            Fault::PodDeleteForce => "pod-delete-force",
            Fault::NodeCut => "isolation",
            Fault::NodeStop => "node-loss",
            Fault::DataLoss => "data-loss",
            Fault::StandbyLoss => "standby-loss",
            Fault::ApiOutage => "api-outage",
            Fault::OperatorOutage => "operator-outage",
        }
    }

    /// Whether the primary is to go on: nobody takes over, and connections live.
    #[must_use]
    pub fn spares_the_primary(self) -> bool {
        matches!(self, Fault::StandbyLoss | Fault::ApiOutage | Fault::OperatorOutage)
    }

    /// Whether every pair suffers from it, those at least whose primary is on the same node.
    #[must_use]
    pub fn is_of_the_cluster(self) -> bool {
        self.spares_the_primary() || matches!(self, Fault::NodeStop | Fault::NodeCut)
    }

    /// Why this fault cannot be made on `cluster`; `None` when it can.
    #[must_use]
    pub fn impossible_on(self, cluster: &Cluster) -> Option<String> {
        let needs_host = match self {
            Fault::ContainerKill | Fault::PodKill | Fault::NodeCut | Fault::NodeStop => true,
            Fault::DataLoss | Fault::StandbyLoss | Fault::ApiOutage => true,
            Fault::PostmasterKill | Fault::Switchover | Fault::OperatorOutage => false,
            Fault::PodDelete | Fault::Evict | Fault::PodDeleteForce => false,
        };
        (needs_host && cluster.local.is_none()).then(|| {
            format!(
                "\"{}\" needs the machine under the cluster; PGPAIR_CONTEXT names a cluster without it",
                self.describe()
            )
        })
    }
}

/// A fault that is on. It must be healed: it does not end by itself.
#[derive(Debug)]
#[must_use]
pub struct Broken {
    fault: Fault,
    node: String,
    operator: Option<Absent>,
}

/// Makes the fault, on `instance` if it is not one of the other or of the cluster.
///
/// # Errors
/// When it cannot be made; nothing is broken then.
pub async fn inject(pair: &Pair, instance: InstanceId, fault: Fault) -> anyhow::Result<Broken> {
    let pod = pair.names.pod(instance);
    let node = pair.node(if fault == Fault::StandbyLoss { instance.peer() } else { instance }).await?;
    let mut operator = None;
    let kill = ["container", "kill", &node, &pair.names.namespace, &pod, CONTAINER];
    match fault {
        Fault::ContainerKill => local(&pair.cluster, &kill).await?,
        Fault::PodKill => {
            local(&pair.cluster, &["container", "kill", &node, &pair.names.namespace, &pod, WITNESS]).await?;
            local(&pair.cluster, &kill).await?;
        }
        Fault::PostmasterKill => {
            let kill = "kill -9 \"$(head -n 1 /pgpair/data/pgdata/postmaster.pid)\"";
            exec(&pair.pods(), &pod, CONTAINER, &["sh", "-c", kill]).await?;
        }
        Fault::Switchover => pair.order(&json!({"kind": "Switchover"})).await?,
        Fault::PodDelete | Fault::PodDeleteForce => {
            let params = match fault {
                Fault::PodDeleteForce => DeleteParams::default().grace_period(0),
                _ => DeleteParams::default(),
            };
            pair.pods().delete(&pod, &params).await.with_context(|| format!("deleting pod {pod}"))?;
        }
        Fault::Evict => drain(pair, instance).await?,
        Fault::NodeCut => local(&pair.cluster, &["link", &node, "down"]).await?,
        Fault::NodeStop | Fault::StandbyLoss => local(&pair.cluster, &["node", "stop", &node]).await?,
        Fault::ApiOutage => local(&pair.cluster, &["api", "stop"]).await?,
        Fault::OperatorOutage => operator = Some(operator::take_away(&pair.cluster).await?),
        Fault::DataLoss => {
            // At once, for a server whose files vanish one by one fails in its own way first.
            let hide = ["mv", "/pgpair/data/pgdata", LOST_DIRECTORY];
            exec(&pair.pods(), &pod, CONTAINER, &hide).await?;
            local(&pair.cluster, &kill).await?;
        }
    }
    Ok(Broken { fault, node, operator })
}

async fn local(cluster: &Cluster, args: &[&str]) -> anyhow::Result<()> {
    let local = cluster.local.as_ref().context("this fault needs the local cluster")?;
    local.run(args).await.map(|_| ())
}

impl Broken {
    /// Ends what does not end by itself.
    ///
    /// # Errors
    /// When the cluster's command fails.
    pub async fn heal(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self.fault {
            Fault::NodeCut => local(cluster, &["link", &self.node, "up"]).await,
            Fault::NodeStop | Fault::StandbyLoss => local(cluster, &["node", "start", &self.node]).await,
            Fault::ApiOutage => local(cluster, &["api", "start"]).await,
            Fault::OperatorOutage => match self.operator {
                Some(absent) => absent.bring_back(cluster).await,
                None => Ok(()),
            },
            Fault::ContainerKill
            | Fault::PodKill
            | Fault::PostmasterKill
            | Fault::Switchover
            | Fault::PodDelete
            | Fault::Evict
            | Fault::PodDeleteForce
            | Fault::DataLoss => Ok(()),
        }
    }
}
