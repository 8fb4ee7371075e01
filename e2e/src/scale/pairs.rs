//! The pairs: how they are called, where their pods are, and how they come to be. Pair `n` has the number `n` in its name, so that a
//! name leads back to it.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::PairName;
use pgpair_core::authority::Durability;
use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};
use pgpair_core::record::{Holder, Mode, Record};
use pgpair_wire::lease;
use serde_json::json;

use crate::scale::sandbox::pod_address;

/// Pairs in one namespace.
const OF_A_NAMESPACE: usize = 500;
/// Requests at the same time while pairs are created.
const AT_ONCE: usize = 24;

/// The term in which all pairs are.
pub const TERM: Term = Term(1);

/// One agent: pair and instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId {
    /// Number of the pair.
    pub pair: usize,
    /// Its instance.
    pub instance: InstanceId,
}

impl AgentId {
    /// Its place in a list of all agents, which is also the number of its pod.
    #[must_use]
    pub fn place(self) -> usize {
        2 * self.pair + usize::from(self.instance == InstanceId::B)
    }

    /// The agent at that place.
    #[must_use]
    pub fn at(place: usize) -> AgentId {
        let instance = if place.is_multiple_of(2) { InstanceId::A } else { InstanceId::B };
        AgentId { pair: place / 2, instance }
    }

    /// The agent process that runs all the time.
    #[must_use]
    pub fn incarnation(self) -> Incarnation {
        Incarnation(0x5ca1_e000_0000_0000 + self.place() as u64)
    }

    /// Its data directory.
    #[must_use]
    pub fn volume(self) -> VolumeId {
        VolumeId(0xda7a_0000_0000_0000 + self.place() as u64)
    }

    /// Of its pair.
    #[must_use]
    pub fn system_identifier(self) -> SystemIdentifier {
        SystemIdentifier(7_000_000_000_000_000_000 + self.pair as u64)
    }

    /// Address of its pod.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        pod_address(self.place())
    }

    /// Node of its pod: twenty pods share one, and a pair is on two.
    #[must_use]
    pub fn node(self) -> String {
        format!("node-{}-{:03}", self.instance, self.pair / 20)
    }

    /// The agent whose certificate has this DNS name, such as `p00012-b-0.p00012-pods.scale-00.svc`.
    #[must_use]
    pub fn of_dns(name: &str) -> Option<AgentId> {
        let mut words = name.split('.').next()?.split('-');
        let pair = number(words.next()?)?;
        let instance = words.next()?.parse().ok()?;
        Some(AgentId { pair, instance })
    }
}

/// Name of pair `n`.
#[must_use]
pub fn name(n: usize) -> PairName {
    PairName { namespace: namespace(n / OF_A_NAMESPACE), name: format!("p{n:05}") }
}

/// The number in the name of a pair.
#[must_use]
pub fn number(name: &str) -> Option<usize> {
    name.strip_prefix('p')?.parse().ok()
}

fn namespace(n: usize) -> String {
    format!("scale-{n:02}")
}

/// Creates pairs as if they had run for a while: each with the record of a pair whose standby may take over, so that nothing has to
/// be seeded. What a pair consists of besides, the operator makes.
///
/// # Errors
/// When a request fails.
pub async fn create(client: &Client, count: usize) -> anyhow::Result<()> {
    for n in 0..count.div_ceil(OF_A_NAMESPACE) {
        create_namespace(client, &namespace(n)).await?;
    }
    stream::iter(0..count)
        .map(|n| create_pair(client, n))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()))
        .await
}

/// Creates a namespace.
///
/// # Errors
/// When the request fails.
pub async fn create_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    let api = Api::<Namespace>::all(client.clone());
    let created = api.create(&PostParams::default(), &namespace).await;
    created.map(|_| ()).with_context(|| format!("creating namespace {name}"))
}

async fn create_pair(client: &Client, n: usize) -> anyhow::Result<()> {
    let PairName { namespace, name } = name(n);
    let pair: PgReplicaPair = serde_json::from_value(json!({
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "postgres": {"version": 17, "parameters": {"work_mem": "4MB", "max_connections": "200", "shared_buffers": "256MB"}},
            "storage": {"data": {"size": "10Gi"}, "archive": {"size": "20Gi"}},
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        },
    }))?;
    let pairs = Api::<PgReplicaPair>::namespaced(client.clone(), &namespace);
    let pair =
        pairs.create(&PostParams::default(), &pair).await.with_context(|| format!("creating pair {name}"))?;
    let record = build_lease(n, &pair)?;
    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    leases
        .create(&PostParams::default(), &record)
        .await
        .with_context(|| format!("creating the record of {name}"))?;
    Ok(())
}

fn build_lease(n: usize, pair: &PgReplicaPair) -> anyhow::Result<Lease> {
    let [a, b] = InstanceId::ALL.map(|instance| AgentId { pair: n, instance });
    let record = Record {
        term: TERM,
        primary: Holder { instance: InstanceId::A, incarnation: a.incarnation() },
        mode: Mode::Paired,
        primary_volume: Some(a.volume()),
        standby_volume: Some(b.volume()),
        system_identifier: Some(a.system_identifier()),
        durability: Durability::Sync,
    };
    let name = name(n);
    let owner = json!({
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair", "name": name.name,
        "uid": pair.uid().unwrap_or_default(), "controller": true,
    });
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name.lease(), "namespace": name.namespace, "labels": name.labels(),
            "annotations": lease::annotations(&record), "ownerReferences": [owner],
        },
        "spec": {"holderIdentity": lease::holder_identity(&record), "leaseTransitions": record.term.0},
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_its_place_and_by_the_name_in_its_certificate() {
        for place in [0, 1, 2, 25, 19_999] {
            let agent = AgentId::at(place);
            assert_eq!(agent.place(), place);
            assert_eq!(AgentId::of_dns(&name(agent.pair).pod_dns(agent.instance)), Some(agent));
        }
        assert_eq!(AgentId::of_dns("orders-a-0.orders-pods.shop.svc"), None);
    }
}
