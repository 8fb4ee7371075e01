//! Volumes that outlive their pair.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::DeleteParams;
use pgpair_api::status::{AdoptionPhase, AdoptionStatus};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::oracle_pod::{Oracle, Target};
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::plugin::plugin;
use pgpair_e2e::harness::wait::await_condition;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// For a pair from its volumes to `Paired`, and for a copy of one.
const WHOLE: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(90);
/// Acknowledgements before the pair is deleted.
const ENOUGH: usize = 200;
const TABLE: &str = "outlived";
/// Deletions of the long case, in each durability; `PGPAIR_E2E_ADOPTIONS` for others.
const DELETIONS: u32 = 20;

/// A pair is deleted while it is written to, and made again with what it left.
pub async fn a_deleted_pair_is_taken_up_with_all_that_it_acknowledged(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("outlived", 17).await?;
    let acknowledged = delete_while_it_is_written_to(&pair, TABLE, "Sync").await?;
    // As somebody would who does not know of it: its volumes are left alone, and say so.
    apply_again(&pair, "").await?;
    await_degraded(&pair, "ForeignData").await?;
    pair.set(&json!({"bootstrap": {"adopt": {}}})).await?;
    let adoption = await_adopted(&pair).await?;
    has_all(&pair, TABLE, &acknowledged).await?;
    println!("  {} rows, {}", acknowledged.len(), adoption.message);
    delete(&pair).await.map(|()| Outcome::Passed)
}

/// Only one of its volumes is left, which a person has to choose.
pub async fn one_volume_alone_is_asked_about(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("alone", 17).await?;
    let acknowledged = delete_while_it_is_written_to(&pair, TABLE, "Sync").await?;
    apply_again(&pair, ADOPT).await?;
    await_adopted(&pair).await?;
    let primary = pair.primary_of(&pair.await_paired(1, WHOLE).await?)?;
    delete(&pair).await?;
    lose(&pair, primary).await?;
    apply_again(&pair, ADOPT).await?;
    let asked = await_phase(&pair, AdoptionPhase::Asking).await?;
    await_degraded(&pair, "AdoptionAsks").await?;
    let word = asked.accept.context("it asks without a word for what it has found")?;
    let (cluster, namespace, name) = (&pair.cluster, &pair.names.namespace, &pair.names.name);
    let command = |of: InstanceId, word: &str| {
        ["adopt".to_owned(), name.clone(), format!("--primary={of}"), format!("--accept={word}")]
    };
    for (of, word, code) in [(primary.peer(), "0000000000000000", 1), (primary.peer(), word.as_str(), 0)] {
        let args = command(of, word);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        plugin(cluster, namespace, &args, "").await?.expect(code, &[])?;
    }
    let adoption = await_adopted(&pair).await?;
    ensure!(adoption.primary == Some(pair.names.instance(primary.peer())), "{adoption:?}");
    has_all(&pair, TABLE, &acknowledged).await?;
    delete(&pair).await.map(|()| Outcome::Passed)
}

/// Many deletions at random moments, in each durability.
pub async fn deleted_pairs_are_taken_up_again_and_again(c: &mut Context) -> anyhow::Result<Outcome> {
    let wanted = std::env::var("PGPAIR_E2E_ADOPTIONS").ok().and_then(|text| text.parse().ok());
    let pair = c.bring_up("again", 17).await?;
    for durability in ["Sync", "SyncStrict", "Async"] {
        for round in 0..wanted.unwrap_or(DELETIONS) {
            let table = format!("t_{}_{round}", durability.to_lowercase());
            let acknowledged = delete_while_it_is_written_to(&pair, &table, durability).await?;
            apply_again(&pair, &format!("{ADOPT}  durability: {durability}\n")).await?;
            let adoption = await_adopted(&pair).await?;
            has_all(&pair, &table, &acknowledged).await?;
            println!("  {durability} {round}: {} rows, {}", acknowledged.len(), adoption.message);
        }
    }
    delete(&pair).await.map(|()| Outcome::Passed)
}

const ADOPT: &str = "  bootstrap:\n    adopt: {}\n";

async fn apply_again(pair: &Pair, more: &str) -> anyhow::Result<()> {
    let manifest = manifest(&pair.names.name, 17) + more;
    apply(&pair.cluster, &pair.names.namespace, &manifest).await.context("applying the pair again")
}

/// What was acknowledged by then. The moment is no particular one: between two looks at the client's log.
async fn delete_while_it_is_written_to(
    pair: &Pair,
    table: &str,
    durability: &str,
) -> anyhow::Result<Vec<i64>> {
    pair.set(&json!({"durability": durability})).await?;
    let primary = pair.primary_of(&pair.await_paired(1, WHOLE).await?)?;
    let mut oracle = Oracle::new(pair, table);
    oracle.start(&pair.node(primary.peer()).await?, &Target::Service).await?;
    oracle.await_acks(0, ENOUGH, |_| true, SOON).await?;
    let deleted = delete(pair).await;
    let acks = oracle.all_acks().await;
    oracle.stop().await?;
    deleted?;
    Ok(acks?.into_iter().map(|ack| ack.n).collect())
}

/// Deletes the resource, and waits until nothing of it runs.
async fn delete(pair: &Pair) -> anyhow::Result<()> {
    let (cluster, namespace, name) = (&pair.cluster, &pair.names.namespace, &pair.names.name);
    cluster.kubectl(&["-n", namespace, "delete", "pgreplicapair", name, "--timeout=60s"]).await?;
    let pods = format!("-l=pgpair.dev/pair={name}");
    cluster.kubectl(&["-n", namespace, "wait", "--for=delete", "pod", &pods, "--timeout=120s"]).await?;
    Ok(())
}

/// Deletes the volumes of an instance.
async fn lose(pair: &Pair, i: InstanceId) -> anyhow::Result<()> {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    for claim in [pair.names.data_claim(i), pair.names.archive_claim(i)] {
        claims.delete(&claim, &DeleteParams::default()).await.context("deleting a claim")?;
        await_condition(&format!("the end of claim {claim}"), SOON, || async {
            ensure!(claims.get_opt(&claim).await?.is_none(), "it is there");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn await_phase(pair: &Pair, phase: AdoptionPhase) -> anyhow::Result<AdoptionStatus> {
    let word: &str = phase.into();
    let what = format!("an adoption that is {word}");
    let reached = await_condition(&what, WHOLE, || async {
        let adoption = pair.status().await?.adoption.context("the status tells of no adoption")?;
        ensure!(adoption.phase.is(phase), "it is {}: {}", adoption.phase, adoption.message);
        Ok(adoption)
    });
    let reached = reached.await;
    pair.explain(reached).await
}

/// Taken up, and `Paired` again.
pub async fn await_adopted(pair: &Pair) -> anyhow::Result<AdoptionStatus> {
    let adoption = await_phase(pair, AdoptionPhase::Done).await?;
    pair.await_paired(2, WHOLE).await?;
    Ok(adoption)
}

async fn await_degraded(pair: &Pair, reason: &str) -> anyhow::Result<()> {
    let what = format!("Degraded for {reason}");
    let told = await_condition(&what, WHOLE, || async {
        let conditions = pair.status().await?.conditions;
        ensure!(conditions.iter().any(|c| c.type_ == "Degraded" && c.reason == reason), "{conditions:?}");
        Ok(())
    });
    let told = told.await;
    pair.explain(told).await
}

async fn has_all(pair: &Pair, table: &str, acknowledged: &[i64]) -> anyhow::Result<()> {
    ensure!(acknowledged.len() >= ENOUGH, "only {} rows were acknowledged", acknowledged.len());
    let primary = pair.primary_of(&pair.status().await?)?;
    let rows = pair.psql(primary, &format!("SELECT string_agg(n::text, ',') FROM {table}")).await?;
    let rows: BTreeSet<i64> = rows.split(',').filter_map(|n| n.parse().ok()).collect();
    let missing: Vec<&i64> = acknowledged.iter().filter(|n| !rows.contains(n)).collect();
    ensure!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    Ok(())
}
