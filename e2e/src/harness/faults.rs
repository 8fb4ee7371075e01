//! What goes wrong on purpose.

use anyhow::Context as _;
use kube::api::DeleteParams;
use pgpair_core::ids::InstanceId;

use crate::harness::cluster::Cluster;
use crate::harness::exec::exec;
use crate::harness::pair::{CONTAINER, Pair};

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of the container's first process, as an out-of-memory kill would do it.
    ContainerKill,
    /// SIGKILL of the postmaster; the agent lives.
    PostmasterKill,
    /// `kubectl delete pod --force --grace-period=0`.
    PodDeleteForce,
    /// The node is cut off from everything, and goes on running.
    NodeCut,
    /// The node loses power.
    NodeStop,
}

impl Fault {
    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Fault::ContainerKill => "SIGKILL of the primary's container",
            Fault::PostmasterKill => "SIGKILL of the primary's postmaster",
            Fault::PodDeleteForce => "forced deletion of the primary's pod",
            Fault::NodeCut => "the primary's node is cut off",
            Fault::NodeStop => "the primary's node loses power",
        }
    }

    /// Why this fault cannot be made on `cluster`; `None` when it can.
    #[must_use]
    pub fn impossible_on(self, cluster: &Cluster) -> Option<String> {
        let needs_host = matches!(self, Fault::ContainerKill | Fault::NodeCut | Fault::NodeStop);
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
}

/// Makes the fault.
///
/// # Errors
/// When it cannot be made; nothing is broken then.
pub async fn inject(pair: &Pair, instance: InstanceId, fault: Fault) -> anyhow::Result<Broken> {
    let pod = pair.names.pod(instance);
    let node = pair.node(instance).await?;
    let local = |args: Vec<String>| async move {
        let local = pair.cluster.local.as_ref().context("this fault needs the local cluster")?;
        local.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await.map(|_| ())
    };
    let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    match fault {
        Fault::ContainerKill => {
            local(words(format!("container kill {node} {} {pod} {CONTAINER}", pair.names.namespace))).await?;
        }
        Fault::PostmasterKill => {
            let kill = "kill -9 \"$(head -n 1 /pgpair/data/pgdata/postmaster.pid)\"";
            exec(&pair.pods(), &pod, CONTAINER, &["sh", "-c", kill]).await?;
        }
        Fault::PodDeleteForce => {
            let now = DeleteParams::default().grace_period(0);
            pair.pods().delete(&pod, &now).await.with_context(|| format!("deleting pod {pod}"))?;
        }
        Fault::NodeCut => local(words(format!("link {node} down"))).await?,
        Fault::NodeStop => local(words(format!("node stop {node}"))).await?,
    }
    Ok(Broken { fault, node })
}

impl Broken {
    /// Ends what does not end by itself.
    ///
    /// # Errors
    /// When the cluster's command fails.
    pub async fn heal(self, cluster: &Cluster) -> anyhow::Result<()> {
        let args = match self.fault {
            Fault::NodeCut => ["link", &self.node, "up"],
            Fault::NodeStop => ["node", "start", &self.node],
            Fault::ContainerKill | Fault::PostmasterKill | Fault::PodDeleteForce => return Ok(()),
        };
        cluster.local.as_ref().context("healing needs the local cluster")?.run(&args).await.map(|_| ())
    }
}
