//! The measures. Each is counted here: by the agents, the API server and the kernel, not by the operator.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::{ANNOTATION_ORDER, OPERATOR};
use pgpair_api::order::{UserOrder, UserOrderKind, order_id};
use pgpair_core::ids::InstanceId;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::bench::footprint;
use crate::scale::busy::Begun;
use crate::scale::operator::Operator;
use crate::scale::pairs::{self, TERM};
use crate::scale::plane::SYSTEM;
use crate::scale::row::{Row, Times, tenths, thousandths};
use crate::scale::silence;
use crate::scale::stage::Stage;

/// Between two changes or orders: a modest pace.
const PACE: Duration = Duration::from_millis(200);
/// A change or an order that has not arrived by then is lost.
const LOST: Duration = Duration::from_secs(30);
/// Between two looks whether one has arrived. The time of its arrival is noted by the agent.
const LOOK: Duration = Duration::from_millis(20);
/// Agents are silent for so long before orders are given.
const SILENT_BEFORE: Duration = Duration::from_secs(20);
/// Agents that are silent, unless there are fewer pairs than ten times as many.
const SILENT: usize = 500;
/// After a change of leader, for all agents to be heard.
const SEEN: Duration = Duration::from_secs(300);
/// What the next leader writes is counted until so long after all agents were heard.
const AFTER: Duration = Duration::from_secs(30);
/// For all to be calm again after something was changed.
const CALM_AGAIN: Duration = Duration::from_secs(180);

/// How often, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Nothing happens for so long.
    pub idle: Duration,
    /// Changes, and orders.
    pub times: usize,
}

/// Everything there is to measure, into `row`. What does not come to its end is told there, and the rest goes on; but where the pairs
/// never come about, there is nothing else to measure.
///
/// # Errors
/// When the operator has ended, or pairs are calm that are not ready.
pub async fn measure(
    stage: &mut Stage,
    client: &Client,
    program: &Path,
    extent: Extent,
    row: &mut Row,
) -> anyhow::Result<()> {
    let began = Instant::now();
    if let Err(error) = stage.await_calm(build_limit(stage.pairs)).await {
        row.failed.push(format!("the pairs: {error:#}"));
        row.rss_peak_mib = stage.operator.peak().map(mib);
        return Ok(());
    }
    row.built_s = Some(tenths(began.elapsed().as_secs_f64()));
    stage.check_ready(client).await?;
    println!(
        "  all is calm after {:.0} s; now nothing happens for {} s",
        began.elapsed().as_secs_f64(),
        extent.idle.as_secs()
    );
    let (mut failed, mut busy) = (Vec::new(), Vec::new());
    let mut end = |what: &str, result: anyhow::Result<()>| {
        println!("  {what}: {}", if result.is_ok() { "done" } else { "did not come to its end" });
        failed.extend(result.err().map(|error| format!("{what}: {error:#}")));
    };
    for phase in Phase::ALL {
        let begun = Begun::now(stage.counts())?;
        let (own_writes, result) = phase.measure(stage, client, program, extent, row).await;
        busy.push(begun.end(phase.name(), stage.counts(), own_writes)?);
        end(phase.name(), result);
        if phase.leaves_something_to_do() {
            end(&format!("calm after {}", phase.name()), stage.await_calm(CALM_AGAIN).await);
        }
    }
    (row.failed, row.busy) = (failed, busy);
    Ok(())
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Rest,
    Changes,
    Orders,
    OrdersBesideSilence,
    ChangeOfLeader,
}

impl Phase {
    const ALL: [Phase; 5] =
        [Phase::Rest, Phase::Changes, Phase::Orders, Phase::OrdersBesideSilence, Phase::ChangeOfLeader];

    fn name(self) -> &'static str {
        match self {
            Phase::Rest => "at rest",
            Phase::Changes => "changes",
            Phase::Orders => "orders",
            Phase::OrdersBesideSilence => "orders beside silence",
            Phase::ChangeOfLeader => "change of leader",
        }
    }

    fn leaves_something_to_do(self) -> bool {
        match self {
            Phase::Rest | Phase::ChangeOfLeader => false,
            Phase::Changes | Phase::Orders | Phase::OrdersBesideSilence => true,
        }
    }

    /// Into `row`; how long the benchmark's own writes took, and whether it came to its end.
    async fn measure(
        self,
        stage: &mut Stage,
        client: &Client,
        program: &Path,
        extent: Extent,
        row: &mut Row,
    ) -> (Option<Times>, anyhow::Result<()>) {
        match self {
            Phase::Rest => (None, rest(stage, extent.idle, row).await),
            Phase::Changes => {
                let paces = change(stage, client, extent.times).await;
                row.change_applied_ms = paces.arrived;
                (paces.own, Ok(()))
            }
            Phase::Orders => {
                let paces = order(stage, client, extent.times, stage.pairs).await;
                row.order_taken_ms = paces.arrived;
                (paces.own, Ok(()))
            }
            Phase::OrdersBesideSilence => order_beside_silence(stage, client, extent.times, row).await,
            Phase::ChangeOfLeader => (None, change_leader(stage, client, program, row).await),
        }
    }
}

/// The time in which the operator should have made everything, many times over.
fn build_limit(pairs: usize) -> Duration {
    Duration::from_secs(180) + Duration::from_millis(400) * u32::try_from(pairs).unwrap_or(u32::MAX)
}

/// What the operator takes while nothing happens.
async fn rest(stage: &mut Stage, idle: Duration, row: &mut Row) -> anyhow::Result<()> {
    let (began, counts, reports) = (Instant::now(), stage.counts(), stage.agents.reports());
    let (before, others) = (stage.operator.footprint()?, footprint::of_others()?);
    sleep(idle).await;
    let after = stage.operator.footprint()?;
    let others = footprint::of_others()?.saturating_sub(others);
    let (seconds, counts) = (began.elapsed().as_secs_f64(), stage.counts() - &counts);
    let per_second = |n: u64| n as f64 / seconds;
    row.idle_s = Some(idle.as_secs());
    row.rss_mib = Some(mib(after.rss_bytes));
    row.rss_peak_mib = stage.operator.peak().map(mib);
    row.cores = Some(thousandths(per_second(after.cpu_ms - before.cpu_ms) / 1000.0));
    row.other_cores = Some(thousandths(per_second(others) / 1000.0));
    row.reports_per_s = Some(tenths(per_second(stage.agents.reports() - reports)));
    row.api_reads_per_s = Some(thousandths(per_second(counts.reads)));
    row.api_writes_idle_10min = Some(counts.writes);
    let scrapes =
        [stage.operator.scrape().await?, stage.operator.scrape().await?, stage.operator.scrape().await?];
    row.series = Some(scrapes[0].series);
    row.scrape_ms = scrapes.iter().map(|s| tenths(s.took.as_secs_f64() * 1000.0)).min_by(f64::total_cmp);
    if counts.writes > 0 {
        bail!("{} writes while nothing happened: {:?}", counts.writes, counts.by_kind);
    }
    Ok(())
}
fn mib(bytes: u64) -> f64 {
    tenths(bytes as f64 / f64::from(1 << 20))
}

/// Changes the settings of one pair after the other.
async fn change(stage: &Stage, client: &Client, times: usize) -> Paces {
    at_a_pace(times, |n| {
        let pair = nth(n, stage.pairs);
        async move {
            let name = pairs::name(pair);
            let api = Api::<PgReplicaPair>::namespaced(client.clone(), &name.namespace);
            // Another value than any before.
            let parameters = json!({"work_mem": format!("{}kB", 8192 + n)});
            let patch = Patch::Merge(json!({"spec": {"postgres": {"parameters": parameters}}}));
            let began = Instant::now();
            let changed = api.patch(&name.name, &PatchParams::default(), &patch).await.ok()?;
            let (own, generation) = (ms_since(began), changed.metadata.generation?);
            Some((own, arrival(began, || stage.agents.configured(pair, generation)).await))
        }
    })
    .await
}

/// Orders the standby of one pair after the other, of the first `among`, to restart.
async fn order(stage: &Stage, client: &Client, times: usize, among: usize) -> Paces {
    at_a_pace(times, |n| async move {
        let name = pairs::name(nth(n, among));
        let api = Api::<PgReplicaPair>::namespaced(client.clone(), &name.namespace);
        let began = Instant::now();
        let order = UserOrder {
            id: order_id(jiff::Timestamp::now().as_second(), &format!("n{n}")),
            kind: UserOrderKind::Restart,
            instance: Some(InstanceId::B),
            term: TERM,
            dead: None,
            role: None,
            certificate: None,
        };
        let text = serde_json::to_string(&order).ok()?;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_ORDER: text}}}));
        api.patch(&name.name, &PatchParams::default(), &patch).await.ok()?;
        Some((ms_since(began), arrival(began, || stage.agents.ordered(&order.id)).await))
    })
    .await
}

async fn order_beside_silence(
    stage: &mut Stage,
    client: &Client,
    times: usize,
    row: &mut Row,
) -> (Option<Times>, anyhow::Result<()>) {
    let zone = silence::zone(stage.pairs, SILENT.min(stage.pairs / 10));
    if let Err(error) = silence::begin(&zone) {
        return (None, Err(error));
    }
    sleep(SILENT_BEFORE).await;
    row.silent_agents = Some(zone.len());
    let paces = order(stage, client, times, stage.pairs - zone.len()).await;
    row.order_taken_with_silent_zone_ms = paces.arrived;
    (paces.own, silence::end(&stage.agents, &zone))
}

async fn change_leader(
    stage: &mut Stage,
    client: &Client,
    program: &Path,
    row: &mut Row,
) -> anyhow::Result<()> {
    let mut next = Operator::start(program, &stage.plane, 2)?;
    next.await_ready().await?;
    let counts = stage.counts();
    let former = std::mem::replace(&mut stage.operator, next);
    let killed = Instant::now();
    former.kill().await?;
    stage.agents.begin_reader();
    let leases = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    let since = |at: Instant| tenths(at.saturating_duration_since(killed).as_secs_f64());
    loop {
        sleep(Duration::from_millis(250)).await;
        stage.operator.footprint()?;
        if row.leader_elected_s.is_none() {
            let holder = leases.get(OPERATOR).await.ok().and_then(|lease| lease.spec?.holder_identity);
            row.leader_elected_s = (holder.as_deref() == Some("replica-2")).then(|| since(Instant::now()));
        }
        let (heard, last) = stage.agents.heard();
        if heard == 2 * stage.pairs {
            row.leader_change_all_seen_s = last.map(since);
            break;
        }
        if killed.elapsed() >= SEEN {
            bail!("{heard} of {} agents were heard within {} s", 2 * stage.pairs, SEEN.as_secs());
        }
    }
    sleep(AFTER).await;
    let written = stage.counts() - &counts;
    row.leader_change_api_writes = Some(written.writes);
    if written.writes > 0 {
        println!("  written by the next leader: {:?}", written.by_kind);
    }
    Ok(())
}

/// What came of attempts.
#[derive(Debug)]
struct Paces {
    /// Until each was where it should be.
    arrived: Option<Times>,
    /// Until the API server had taken each.
    own: Option<Times>,
}

/// Makes so many attempts, one beginning after the other at [`PACE`], and waits for the end of all. Each tells the milliseconds until
/// the API server had taken it, and until it had arrived; `None`: it was not, or had not.
async fn at_a_pace<F>(times: usize, attempt: impl Fn(usize) -> F) -> Paces
where
    F: Future<Output = Option<(f64, Option<f64>)>>,
{
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begun = futures::stream::FuturesUnordered::new();
    let mut ended = Vec::with_capacity(times);
    for n in 0..times {
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                Some(took) = futures::StreamExt::next(&mut begun) => ended.push(took),
            }
        }
        begun.push(attempt(n));
    }
    ended.extend(futures::StreamExt::collect::<Vec<_>>(begun).await);
    let arrived: Vec<_> = ended.iter().map(|attempt| attempt.and_then(|(_, arrived)| arrived)).collect();
    let own: Vec<_> = ended.iter().map(|attempt| attempt.map(|(own, _)| own)).collect();
    Paces { arrived: Times::of(&arrived), own: Times::of(&own) }
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// Milliseconds until what is looked for has arrived; `None`: it is lost.
async fn arrival(began: Instant, arrived: impl Fn() -> Option<Instant>) -> Option<f64> {
    while began.elapsed() < LOST {
        if let Some(at) = arrived() {
            return Some(at.saturating_duration_since(began).as_secs_f64() * 1000.0);
        }
        sleep(LOOK).await;
    }
    None
}

/// The pair of attempt `n`: all over the pairs, and none soon again.
fn nth(n: usize, pairs: usize) -> usize {
    // A prime that divides no number of pairs that people choose.
    (n * 7919 + 13) % pairs.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_all_over_the_pairs() {
        let met: std::collections::BTreeSet<usize> = (0..100).map(|n| nth(n, 100)).collect();
        assert_eq!(met.len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_keep_a_pace_whatever_becomes_of_the_one_before() {
        let began = tokio::time::Instant::now();
        let times = at_a_pace(5, |n| async move {
            sleep(Duration::from_secs(10)).await;
            (n != 4).then(|| (5.0, (n != 3).then(|| began.elapsed().as_secs_f64())))
        })
        .await;
        let counts = |times: Option<Times>| times.map(|times| (times.n, times.lost));
        assert_eq!((counts(times.arrived), counts(times.own)), (Some((3, 2)), Some((4, 1))));
        assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    }
}
