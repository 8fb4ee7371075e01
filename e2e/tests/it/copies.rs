//! What is copied with a base backup, and what becomes of a copy that fails.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::DeleteParams;
use pgpair_api::order::OrderStage;
use pgpair_api::status::OrderState;
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::faults::{Fault, inject};
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::wait::await_condition;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;
use crate::orders::ordered;

/// For a pair to be whole again.
const WHOLE: Duration = Duration::from_secs(240);
/// An ordered copy is tried again for six minutes.
const GIVEN_UP: Duration = Duration::from_secs(600);
const SUM: &str = "SELECT count(*) || ' ' || md5(string_agg(m, '' ORDER BY i)) FROM in_e2e";

/// Its directory is made by hand on the primary alone.
pub async fn a_tablespace_goes_through_copies_and_a_switchover(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    pair.shell(primary, "mkdir -p -m 0700 /pgpair/data/tablespaces/e2e").await?;
    pair.psql(primary, "CREATE TABLESPACE e2e LOCATION '/pgpair/data/tablespaces/e2e'").await?;
    let survives = survives(&pair, primary).await;
    // The pair is used by others, whatever was found.
    let now = pair.primary_of(&pair.await_paired(1, WHOLE).await?)?;
    pair.psql(now, "DROP TABLE IF EXISTS in_e2e").await?;
    pair.psql(now, "DROP TABLESPACE e2e").await?;
    survives.map(|()| Outcome::Passed)
}

async fn survives(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let table =
        "CREATE TABLE in_e2e TABLESPACE e2e AS SELECT i, md5(i::text) AS m FROM generate_series(1, 20000) i";
    pair.psql(primary, table).await?;
    pair.await_paired(1, WHOLE).await?;
    is_on_both(pair).await?;
    for old in [primary, primary.peer()] {
        let standby = old.peer();
        let copied = ordered(pair, json!({"kind": "Rebuild", "instance": standby.as_str()})).await?;
        ensure!(copied.state.is(OrderState::Done), "{copied:?}");
        pair.await_paired(1, WHOLE).await?;
        is_on_both(pair).await?;
        let over = ordered(pair, json!({"kind": "Switchover"})).await?;
        ensure!(over.state.is(OrderState::Done), "{over:?}");
        pair.await_paired(1, WHOLE).await?;
        is_on_both(pair).await?;
    }
    Ok(())
}

async fn is_on_both(pair: &Pair) -> anyhow::Result<()> {
    let both = pair.await_equal(SUM, Duration::from_secs(60)).await?;
    ensure!(both.starts_with("20000 "), "{both}");
    Ok(())
}

/// A page of the primary is damaged, which a base backup finds: it is told, and the good standby is not lost to it.
pub async fn a_copy_that_fails_for_good_leaves_the_standby_what_it_had(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    pair.psql(
        primary,
        "CREATE TABLE damaged WITH (autovacuum_enabled = off) AS SELECT generate_series(1, 5000) n",
    )
    .await?;
    pair.psql(primary, "CHECKPOINT").await?;
    let file = pair.psql(primary, "SELECT pg_relation_filepath('damaged')").await?;
    let damage =
        format!("printf damaged | dd of=/pgpair/data/pgdata/{file} bs=1 seek=12000 conv=notrunc 2>/dev/null");
    pair.shell(primary, &damage).await?;
    pair.order(&json!({"kind": "Rebuild", "instance": primary.peer().as_str()})).await?;
    let told = await_condition("the copy given up", GIVEN_UP, || async {
        let told = pair.status().await?.order.context("the status tells of no order")?;
        ensure!(told.state.is(OrderState::Failed), "it is {told:?}");
        Ok(told)
    });
    let told = told.await;
    let told = pair.explain(told).await?;
    let message = told.message.clone().unwrap_or_default();
    println!("  {message}");
    ensure!(
        told.reason == Some(pgpair_api::order::OrderReason::from(OrderStage::CopyFailed).into()),
        "{told:?}"
    );
    ensure!(message.contains("checksum"), "{message}");
    pair.await_paired(1, WHOLE).await?;
    pair.psql(primary, "DROP TABLE damaged").await?;
    Ok(Outcome::Passed)
}

/// What the runbook says: both claims and the pod are deleted, and nothing else. The node comes back when the pair is whole again.
pub async fn a_standby_whose_node_is_lost_for_good_is_made_anew_elsewhere(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    if let Some(reason) = Fault::NodeStop.impossible_on(&pair.cluster) {
        return Ok(Outcome::Skipped(reason));
    }
    let status = pair.await_paired(1, WHOLE).await?;
    let standby = pair.primary_of(&status)?.peer();
    let (lost, before) = (pair.node(standby).await?, pair.last_seed(standby).await?);
    let fault = inject(&pair, standby, Fault::NodeStop).await?;
    let made = async {
        // As `kubectl delete --wait=false`.
        let params = DeleteParams::default();
        let claims =
            Api::<PersistentVolumeClaim>::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
        for claim in [pair.names.data_claim(standby), pair.names.archive_claim(standby)] {
            claims.delete(&claim, &params).await.with_context(|| format!("deleting {claim}"))?;
        }
        let pods = Api::<Pod>::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
        pods.delete(&pair.names.pod(standby), &params).await.context("deleting the pod")?;
        await_condition("another standby", Duration::from_secs(300), || async {
            let seed = pair.last_seed(standby).await?;
            ensure!(seed > before, "Job {before} before, {seed} now");
            pair.paired_now(1).await
        })
        .await
    };
    let made = made.await;
    let made = pair.explain(made).await;
    fault.heal(&pair.cluster).await?;
    made?;
    let now = pair.node(standby).await?;
    println!("  from {lost} to {now}");
    ensure!(now != lost, "it is on {now} again");
    Ok(Outcome::Passed)
}
