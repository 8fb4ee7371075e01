//! Changes that need a restart of postgres or another pod: they come into effect on one instance after the other, while clients
//! write.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::pair::{CONTAINER, Pair};
use pgpair_e2e::harness::record::RecordLog;
use pgpair_e2e::harness::rolls::{RollLog, one_at_a_time, reasons, starts};
use pgpair_e2e::harness::status::{await_settled, condition};
use pgpair_e2e::harness::wait::await_condition;
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::Context;

/// For one roll: two restarts, a hand-over, pauses between them, and a minute in which a new leader of the operator begins nothing.
const ROLLED: Duration = Duration::from_secs(240);
/// For a pair to be whole.
const WHOLE: Duration = Duration::from_secs(240);
/// Longest time without an acknowledgement, in milliseconds: a planned hand-over or one restart in place takes a second or two,
/// and the machine is busy.
const SILENCE_MS: f64 = 30_000.0;
/// Name of PostgreSQL's image under which the nodes get it a second time.
const OTHER_IMAGE: &str = "localhost/postgresql:e2e-other";

/// One change of the spec.
struct Change {
    what: &'static str,
    spec: Value,
    /// Which instance is restarted first.
    first: First,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The standby; then the primary hands over: one term more.
    Standby,
    /// The primary, in place: a standby may not have less than its primary.
    Primary,
}

/// Raised: the standby first, and a hand-over. Lowered again: the primary first, in place.
pub async fn a_parameter_that_needs_a_restart_is_raised_and_lowered_again(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let default = shown(&pair, InstanceId::A).await?;
    let mut failover = Failover::begin(&pair, "parameter").await?;
    let raise = Change { what: "raise", spec: connections(&json!("140")), first: First::Standby };
    let lower = Change { what: "lower", spec: connections(&Value::Null), first: First::Primary };
    let walked = async {
        roll(&pair, &raise, async |i| has_connections(&pair, i, "140").await).await?;
        roll(&pair, &lower, async |i| has_connections(&pair, i, &default).await).await
    };
    let walked = walked.await;
    // The pair is used by others, whatever was found.
    pair.set(&connections(&Value::Null)).await?;
    walked?;
    loses_nothing(&mut failover).await
}

/// Pods of a new template, twice: with other resources, and with another image of PostgreSQL.
pub async fn new_resources_and_another_image_come_into_effect_one_instance_at_a_time(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let Some(local) = c.cluster()?.local else {
        let reason = "a second name of an image needs the machine under the cluster";
        return Ok(Outcome::Skipped(reason.into()));
    };
    let pair = c.bring_up("template", 17).await?;
    let image = container(&pair.pod(InstanceId::A).await?)?.image.context("the container has no image")?;
    local.run(&["tag", &image, OTHER_IMAGE]).await?;
    let rolled = template_changes(&pair).await;
    let (namespace, name) = (&pair.names.namespace, &pair.names.name);
    let deleted = ["-n", namespace, "delete", "pgreplicapair", name, "--timeout=60s"];
    pair.cluster.kubectl(&deleted).await?;
    local.run(&["untag", OTHER_IMAGE]).await?;
    rolled
}

async fn template_changes(pair: &Pair) -> anyhow::Result<Outcome> {
    let mut failover = Failover::begin(pair, "template").await?;
    let resources =
        json!({"resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}});
    let image = json!({"postgres": {"image": OTHER_IMAGE}});
    let resources = Change { what: "resources", spec: resources, first: First::Standby };
    let image = Change { what: "image", spec: image, first: First::Standby };
    roll(pair, &resources, async |i| has_resources(pair, i).await).await?;
    roll(pair, &image, async |i| {
        let found = container(&pair.pod(i).await?)?.image;
        ensure!(found.as_deref() == Some(OTHER_IMAGE), "the image of {i} is {found:?}");
        has_resources(pair, i).await
    })
    .await?;
    loses_nothing(&mut failover).await
}

/// Makes the change, and waits until it is in effect on both and told; then looks at how it went.
async fn roll(
    pair: &Pair,
    change: &Change,
    in_effect: impl AsyncFn(InstanceId) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let status = await_settled(pair, WHOLE).await?;
    let (primary, term) = (pair.primary_of(&status)?, status.term.context("no term")?);
    let before = starts(pair).await?;
    let (log, record) = (RollLog::start(&pair.cluster, &pair.names.namespace), RecordLog::start(pair));
    pair.set(&change.spec).await?;
    let what = format!("the end of the roll ({})", change.what);
    let ended = await_condition(&what, ROLLED, || async {
        pair.is_observed().await?;
        let status = pair.paired_now(term).await?;
        for i in InstanceId::ALL {
            in_effect(i).await?;
        }
        let told = condition(&status, ConditionType::UpdatePending)?;
        ensure!(
            told.reason == Reason::UpToDate.as_str(),
            "UpdatePending is {}: {}",
            told.reason,
            told.message
        );
        Ok(status)
    });
    let ended = ended.await;
    let ended = pair.explain(ended).await?;

    let looks = log.all();
    let told = reasons(&looks, &pair.names.name);
    println!("  {}: {} looks, UpdatePending was {}", change.what, looks.len(), told.join(", "));
    ensure!(told.iter().any(|r| r == Reason::Rolling.as_str()), "the roll was not told: {told:?}");
    one_at_a_time(&looks)?;
    let grown = ended.term.unwrap_or(0) - term;
    let (first, wanted) = match change.first {
        First::Standby => (primary.peer(), 1),
        First::Primary => (primary, 0),
    };
    ensure!(grown == wanted, "the term grew by {grown}, not by {wanted}");
    let after = starts(pair).await?;
    ensure!(InstanceId::ALL.iter().all(|i| after[i] > before[i]), "starts were {before:?}, are {after:?}");
    ensure!(after[&first] < after[&first.peer()], "{first} was to be the first: starts are {after:?}");
    paired_between(&record, after[&first], after[&first.peer()])
}

/// The second one was restarted only when the pair was `Paired` again after the first.
fn paired_between(record: &RecordLog, first: f64, second: f64) -> anyhow::Result<()> {
    let seen = record.all();
    let seconds = |us: i64| us as f64 / 1e6;
    let ends = seen.iter().skip(1).map(|s| seconds(s.at_us)).chain([f64::INFINITY]);
    let paired = seen.iter().zip(ends).any(|(version, end)| {
        version.record.mode == Mode::Paired && seconds(version.at_us) < second && end > first
    });
    let told = pgpair_e2e::harness::record::tell(&seen);
    ensure!(paired, "the pair was not Paired between the restarts at {first} and {second}: {told}");
    Ok(())
}

/// Ends the writers; nothing is lost, nothing late, and no client waited for long.
async fn loses_nothing(failover: &mut Failover) -> anyhow::Result<Outcome> {
    let judgement = failover.judge().await?;
    let (verdict, silence) = (&judgement.verdict, judgement.service_silence_ms);
    println!("  {}: {verdict}; longest silence {silence:.0} ms", failover.oracle.table);
    ensure!(verdict.holds(), "{verdict}");
    ensure!(silence < SILENCE_MS, "nobody took writes for {silence:.0} ms");
    Ok(Outcome::Passed)
}

fn connections(value: &Value) -> Value {
    json!({"postgres": {"parameters": {"max_connections": value}}})
}

async fn shown(pair: &Pair, i: InstanceId) -> anyhow::Result<String> {
    pair.psql(i, "SHOW max_connections").await
}

async fn has_connections(pair: &Pair, i: InstanceId, wanted: &str) -> anyhow::Result<()> {
    let found = shown(pair, i).await?;
    ensure!(found == wanted, "max_connections of {i} is {found}, not {wanted}");
    Ok(())
}

async fn has_resources(pair: &Pair, i: InstanceId) -> anyhow::Result<()> {
    let resources = container(&pair.pod(i).await?)?.resources.context("no resources")?;
    let of = |list: Option<std::collections::BTreeMap<String, _>>, key: &str| {
        list.and_then(|mut l| l.remove(key))
            .map(|q: k8s_openapi::apimachinery::pkg::api::resource::Quantity| q.0)
    };
    let found = (of(resources.requests, "memory"), of(resources.limits, "memory"));
    ensure!(found == (Some("96Mi".into()), Some("512Mi".into())), "memory of {i} is {found:?}");
    Ok(())
}

fn container(pod: &Pod) -> anyhow::Result<Container> {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers.into_iter().find(|c| c.name == CONTAINER).cloned().context("the pod has no such container")
}
