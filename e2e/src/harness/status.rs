//! What a status says, and what of it has changed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus, Reason};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;

/// Between two looks at what is to stay as it is.
const LOOK: Duration = Duration::from_millis(250);

/// A condition by its type.
///
/// # Errors
/// When the status does not have it.
pub fn condition(status: &PgReplicaPairStatus, type_: ConditionType) -> anyhow::Result<&Condition> {
    let found = status.conditions.iter().find(|c| c.type_ == type_.as_str());
    found.with_context(|| format!("no condition {} yet", type_.as_str()))
}

/// Waits until a condition has a reason, and its message all of these words; returns the message.
///
/// # Errors
/// After `limit`, with what the condition says instead.
pub async fn await_told(
    pair: &Pair,
    type_: ConditionType,
    reason: Reason,
    words: &[&str],
    limit: Duration,
) -> anyhow::Result<String> {
    let what = format!("{} of {} with reason {}", type_.as_str(), pair.names.name, reason.as_str());
    let told = await_condition(&what, limit, || async {
        let status = pair.status().await?;
        let told = condition(&status, type_)?;
        let said = format!("{} {}: {}", told.status, told.reason, told.message);
        ensure!(told.reason == reason.as_str(), "it is {said}");
        let missing: Vec<&&str> = words.iter().filter(|word| !told.message.contains(**word)).collect();
        ensure!(missing.is_empty(), "{missing:?} is not in: {said}");
        Ok(told.message.clone())
    });
    let told = told.await;
    pair.explain(told).await
}

/// Looks for `length` whether a condition keeps its reason: what lasts is told all the time.
///
/// # Errors
/// What it said instead, and when.
pub async fn stays_told(
    pair: &Pair,
    type_: ConditionType,
    reason: Reason,
    length: Duration,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < length {
        let status = pair.status().await?;
        let told = condition(&status, type_)?;
        ensure!(
            told.reason == reason.as_str(),
            "{} was {}, and {:.1} s later {} {}: {}",
            type_.as_str(),
            reason.as_str(),
            begin.elapsed().as_secs_f64(),
            told.status,
            told.reason,
            told.message
        );
        sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until nothing is wrong and nothing pending, by the spec as it is now.
///
/// # Errors
/// After `limit`, with what is.
pub async fn await_settled(pair: &Pair, limit: Duration) -> anyhow::Result<PgReplicaPairStatus> {
    let what = format!("pair {} up to date and without trouble", pair.names.name);
    let settled = await_condition(&what, limit, || async {
        pair.is_observed().await?;
        let status = pair.paired_now(1).await?;
        for (type_, reason) in
            [(ConditionType::Degraded, Reason::AsExpected), (ConditionType::UpdatePending, Reason::UpToDate)]
        {
            let told = condition(&status, type_)?;
            ensure!(told.reason == reason.as_str(), "{} is {}: {}", told.type_, told.reason, told.message);
        }
        Ok(status)
    });
    let settled = settled.await;
    pair.explain(settled).await
}

/// The fields of a status that differ, with both values.
///
/// # Errors
/// When a status is no JSON.
pub fn changes(before: &PgReplicaPairStatus, after: &PgReplicaPairStatus) -> anyhow::Result<Vec<String>> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
                for key in keys {
                    let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    walk(&format!("{path}.{key}"), &of(x), &of(y), out);
                }
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                x.iter().zip(y).enumerate().for_each(|(i, (a, b))| walk(&format!("{path}[{i}]"), a, b, out));
            }
            _ if a != b => out.push(format!("{path} {a} -> {b}")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", &serde_json::to_value(before)?, &serde_json::to_value(after)?, &mut out);
    Ok(out)
}
