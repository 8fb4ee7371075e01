//! The record is deleted by somebody.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use pgpair_e2e::harness::pair::Pair;
use serde_json::json;
use tokio::time::sleep;

use crate::Outcome;
use crate::adoption::await_adopted;
use crate::context::Context;

const WHOLE: Duration = Duration::from_secs(120);
/// So long the standby receives nothing: after two seconds the primary wants to go on alone, and tries to write so.
const STANDSTILL: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(250);

/// A PUT makes a Lease that is missing, and does not ask for its resourceVersion then: only the uid in it, and a right that agents
/// do not have, stand against that. And who has a promise goes on.
pub async fn a_deleted_record_is_made_anew_by_nobody(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("astray", 17).await?;
    let primary = pair.primary_of(&pair.await_paired(1, WHOLE).await?)?;
    pair.psql(primary, "CREATE TABLE t (n int)").await?;
    // The chart's policies let nobody else do that.
    let collector = "--as=system:serviceaccount:kube-system:generic-garbage-collector";
    let delete = ["-n", &pair.names.namespace, "delete", "lease", pair.names.lease(), collector];
    pair.cluster.kubectl(&delete).await.context("deleting the Lease")?;
    let receiver = pair.psql(primary.peer(), "SELECT pid FROM pg_stat_wal_receiver").await?;
    pair.shell(primary.peer(), &format!("kill -STOP {receiver}")).await?;
    // It waits for the standby.
    let write = pair.psql(primary, "INSERT INTO t VALUES (1)");
    let watch = async {
        let stayed_away = stays_away(&pair, STANDSTILL).await;
        pair.shell(primary.peer(), &format!("kill -CONT {receiver}")).await?;
        stayed_away
    };
    let (written, stayed_away) = tokio::join!(write, watch);
    stayed_away?;
    written.context("the commit that waited")?;
    pair.psql(primary, "INSERT INTO t VALUES (2)").await.context("afterwards")?;
    stays_away(&pair, STANDSTILL).await?;
    // A person asks for it: both are stopped, and their volumes prove which of them goes on.
    pair.set(&json!({"bootstrap": {"adopt": {}}})).await?;
    let adoption = await_adopted(&pair).await?;
    println!("  {}", adoption.message);
    let now = pair.primary_of(&pair.status().await?)?;
    let rows = pair.psql(now, "SELECT count(*) FROM t").await?;
    ensure!(rows == "2", "{rows} rows of the two that were acknowledged");
    let delete = ["-n", &pair.names.namespace, "delete", "pgreplicapair", &pair.names.name];
    pair.cluster.kubectl(&delete).await.map(|_| Outcome::Passed)
}

fn leases(pair: &Pair) -> Api<Lease> {
    Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace)
}

async fn stays_away(pair: &Pair, length: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        let found = leases(pair).get_opt(pair.names.lease()).await.context("reading the Lease")?;
        ensure!(found.is_none(), "somebody has made the Lease anew: {found:?}");
        sleep(LOOK).await;
    }
    Ok(())
}
