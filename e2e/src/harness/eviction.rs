//! Evictions: what `kubectl drain` asks for, and a disruption budget may refuse.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use pgpair_core::ids::InstanceId;

use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;

/// For the controller of budgets to have counted a pair that is whole.
const GRANTED: Duration = Duration::from_secs(60);
/// Refused by a budget.
const TOO_MANY_REQUESTS: u16 = 429;

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The pod is being deleted, with the grace period of its own.
    Granted,
    /// A budget holds it, in the server's words.
    Refused(String),
}

/// Asks once for the eviction of an instance's pod.
///
/// # Errors
/// When there is no such pod, or the API does not answer.
pub async fn evict(pair: &Pair, instance: InstanceId) -> anyhow::Result<Answer> {
    let pods: Api<Pod> = Api::namespaced(pair.cluster.once.clone(), &pair.names.namespace);
    let pod = pair.names.pod(instance);
    match pods.evict(&pod, &EvictParams::default()).await {
        Ok(_) => Ok(Answer::Granted),
        Err(kube::Error::Api(status)) if status.code == TOO_MANY_REQUESTS => {
            Ok(Answer::Refused(status.message.clone()))
        }
        Err(error) => Err(error).with_context(|| format!("evicting pod {pod}")),
    }
}

/// Asks until it is granted, as a drain does.
///
/// # Errors
/// When it is still refused after a minute.
pub async fn drain(pair: &Pair, instance: InstanceId) -> anyhow::Result<()> {
    let what = format!("the eviction of pod {}", pair.names.pod(instance));
    await_condition(&what, GRANTED, || async {
        match evict(pair, instance).await? {
            Answer::Granted => Ok(()),
            Answer::Refused(why) => bail!("{why}"),
        }
    })
    .await
}
