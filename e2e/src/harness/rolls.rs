//! What pairs said of themselves, look by look, while the operator rolled them; and how one roll has to go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{COMPONENT_INSTANCE, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_PAIR};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::harness::cluster::Cluster;
use crate::harness::pair::{Pair, is_ready};
use crate::harness::status::condition;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// One pair at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Reason and message of `UpdatePending` while it is true.
    pub pending: Option<(String, String)>,
    /// Instances whose pod is missing, not ready, or on its way out.
    pub down: BTreeSet<InstanceId>,
}

/// All pairs of a namespace at one moment, by name.
pub type Look = BTreeMap<String, Seen>;

/// Looks until dropped.
#[derive(Debug)]
pub struct RollLog {
    looks: Arc<Mutex<Vec<Look>>>,
    task: JoinHandle<()>,
}

impl Drop for RollLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RollLog {
    /// Begins, with all pairs of `namespace`.
    #[must_use]
    pub fn start(cluster: &Cluster, namespace: &str) -> RollLog {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let (pairs, pods) = (
            Api::namespaced(cluster.client.clone(), namespace),
            Api::namespaced(cluster.client.clone(), namespace),
        );
        let kept = Arc::clone(&looks);
        let task = tokio::spawn(async move {
            loop {
                // A look that fails is none: what lasts is seen by the next one.
                if let Ok(look) = look(&pairs, &pods).await {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                }
                sleep(LOOK).await;
            }
        });
        RollLog { looks, task }
    }

    /// Every look so far.
    #[must_use]
    pub fn all(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn look(pairs: &Api<PgReplicaPair>, pods: &Api<Pod>) -> anyhow::Result<Look> {
    let instances = ListParams::default().labels(&format!("{LABEL_COMPONENT}={COMPONENT_INSTANCE}"));
    let (pairs, pods) = (pairs.list(&ListParams::default()).await?, pods.list(&instances).await?);
    let is_up = |pair: &str, i: InstanceId| {
        let of = |pod: &&Pod| {
            pod.labels().get(LABEL_PAIR).is_some_and(|p| p == pair)
                && pod.labels().get(LABEL_INSTANCE).is_some_and(|l| l == i.as_str())
        };
        pods.iter().filter(of).any(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
    };
    let seen = |pair: PgReplicaPair| {
        let name = pair.name_any();
        let told = pair.status.as_ref().and_then(|s| condition(s, ConditionType::UpdatePending).ok());
        let pending = told.filter(|c| c.status == "True").map(|c| (c.reason.clone(), c.message.clone()));
        let down = InstanceId::ALL.into_iter().filter(|i| !is_up(&name, *i)).collect();
        (name, Seen { pending, down })
    };
    Ok(pairs.into_iter().map(seen).collect())
}

/// The reasons of `UpdatePending` of a pair, in the order in which they were told, each once in a row.
#[must_use]
pub fn reasons(looks: &[Look], pair: &str) -> Vec<String> {
    let mut told: Vec<String> = looks
        .iter()
        .filter_map(|look| look.get(pair)?.pending.as_ref())
        .map(|(reason, _)| reason.clone())
        .collect();
    told.dedup();
    told
}

/// The pairs in the order in which they rolled.
#[must_use]
pub fn order(looks: &[Look]) -> Vec<String> {
    let mut rolled: Vec<String> = Vec::new();
    for (name, _) in looks.iter().flatten().filter(|(_, seen)| is_rolling(seen)) {
        if rolled.last() != Some(name) {
            rolled.push(name.clone());
        }
    }
    rolled
}

/// Whether at most one pair rolled at any moment, and none had both instances down.
///
/// # Errors
/// The first look that says otherwise.
pub fn one_at_a_time(looks: &[Look]) -> anyhow::Result<()> {
    for (n, look) in looks.iter().enumerate() {
        let busy: Vec<_> =
            look.iter().filter(|(_, seen)| is_rolling(seen) || !seen.down.is_empty()).collect();
        ensure!(busy.len() <= 1, "look {n} of {}: several pairs at once: {busy:?}", looks.len());
    }
    Ok(())
}

fn is_rolling(seen: &Seen) -> bool {
    seen.pending.as_ref().is_some_and(|(reason, _)| reason == Reason::Rolling.as_str())
}

/// When the postmasters of both instances began, in seconds since 1970.
///
/// # Errors
/// When one of them does not answer.
pub async fn starts(pair: &Pair) -> anyhow::Result<BTreeMap<InstanceId, f64>> {
    let mut all = BTreeMap::new();
    for i in InstanceId::ALL {
        let told = pair.psql(i, "SELECT extract(epoch FROM pg_postmaster_start_time())").await?;
        all.insert(i, told.parse().with_context(|| format!("start of {i}: {told:?}"))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(reason: &str, down: &[InstanceId]) -> Seen {
        let pending = (!reason.is_empty()).then(|| (reason.to_owned(), String::new()));
        Seen { pending, down: down.iter().copied().collect() }
    }

    fn look(a: Seen, b: Seen) -> Look {
        [("a".to_owned(), a), ("b".to_owned(), b)].into()
    }

    #[test]
    fn pairs_that_roll_one_after_the_other_are_told_in_their_order() {
        let looks = [
            look(seen("Rolling", &[InstanceId::A]), seen("RolloutWaits", &[])),
            look(seen("Rolling", &[]), seen("RolloutWaits", &[])),
            look(seen("", &[]), seen("RolloutWaits", &[])),
            look(seen("", &[]), seen("Rolling", &[InstanceId::B])),
        ];
        one_at_a_time(&looks).unwrap();
        assert_eq!(order(&looks), ["a", "b"]);
        assert_eq!(reasons(&looks, "b"), ["RolloutWaits", "Rolling"]);
    }

    #[test]
    fn two_pairs_at_once_are_found_by_what_they_say_or_by_their_pods() {
        let by_word = [look(seen("Rolling", &[]), seen("Rolling", &[]))];
        assert!(one_at_a_time(&by_word).is_err());
        let by_pod = [look(seen("Rolling", &[]), seen("RolloutWaits", &[InstanceId::A]))];
        assert!(one_at_a_time(&by_pod).is_err());
    }
}
