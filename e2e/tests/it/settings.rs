//! Settings of PostgreSQL that need no restart: how they arrive, and what is told of one that PostgreSQL refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::rolls::starts;
use pgpair_e2e::harness::status::{await_settled, await_told};
use pgpair_e2e::harness::wait::await_condition;
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;

/// For a setting to arrive at both instances.
const ARRIVES: Duration = Duration::from_secs(60);
/// For a pair to be whole again.
const WHOLE: Duration = Duration::from_secs(240);
/// What PostgreSQL has without a word in the spec.
const DEFAULT: &str = "4MB";

/// Both instances have it within seconds, and their postgres goes on.
pub async fn a_setting_comes_into_effect_without_a_restart(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    await_settled(&pair, WHOLE).await?;
    let before = starts(&pair).await?;
    let arrived = arrives(&pair, "9MB").await;
    // The pair is used by others, whatever was found.
    set(&pair, &Value::Null).await?;
    arrived?;
    await_value(&pair, DEFAULT).await?;
    await_settled(&pair, ARRIVES).await?;
    let after = starts(&pair).await?;
    ensure!(before == after, "postgres was restarted: it began at {before:?}, then at {after:?}");
    Ok(Outcome::Passed)
}

/// The status says which instances refuse it and why, in PostgreSQL's words; what was in effect stays; the correction arrives.
pub async fn a_setting_that_postgresql_refuses_is_told_and_the_correction_arrives(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    await_settled(&pair, WHOLE).await?;
    let before = starts(&pair).await?;
    arrives(&pair, "7MB").await?;
    let refused = is_refused(&pair).await;
    let corrected = arrives(&pair, "8MB").await;
    set(&pair, &Value::Null).await?;
    refused?;
    corrected.context("the correction")?;
    await_settled(&pair, ARRIVES).await?;
    let after = starts(&pair).await?;
    ensure!(before == after, "postgres was restarted: it began at {before:?}, then at {after:?}");
    Ok(Outcome::Passed)
}

async fn is_refused(pair: &Pair) -> anyhow::Result<()> {
    set(pair, &json!("lots")).await?;
    let (a, b) = (pair.names.instance(InstanceId::A), pair.names.instance(InstanceId::B));
    let words = [a.as_str(), b.as_str(), "invalid value for parameter \"work_mem\": \"lots\""];
    let told =
        await_told(pair, ConditionType::UpdatePending, Reason::SettingsRefused, &words, ARRIVES).await?;
    println!("  {told}");
    let values = values(pair).await?;
    ensure!(values.values().all(|value| value == "7MB"), "work_mem is {values:?}, and was 7MB");
    pair.paired_now(1).await.map(|_| ())
}

async fn arrives(pair: &Pair, value: &str) -> anyhow::Result<()> {
    set(pair, &json!(value)).await?;
    await_value(pair, value).await
}

async fn set(pair: &Pair, value: &Value) -> anyhow::Result<()> {
    // A merge removes what is null.
    pair.set(&json!({"postgres": {"parameters": {"work_mem": value}}})).await
}

async fn await_value(pair: &Pair, value: &str) -> anyhow::Result<()> {
    let what = format!("work_mem of {value} on both instances");
    let arrived = await_condition(&what, ARRIVES, || async {
        let found = values(pair).await?;
        ensure!(found.values().all(|v| v == value), "it is {found:?}");
        Ok(())
    });
    let arrived = arrived.await;
    pair.explain(arrived).await
}

async fn values(pair: &Pair) -> anyhow::Result<BTreeMap<InstanceId, String>> {
    let mut all = BTreeMap::new();
    for i in InstanceId::ALL {
        all.insert(i, pair.psql(i, "SHOW work_mem").await?);
    }
    Ok(all)
}
