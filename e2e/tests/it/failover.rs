//! The primary fails, the standby takes over: nothing acknowledged is lost, never do two servers acknowledge, and the old
//! primary comes back as a standby.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::FailoverStatus;
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::failover::Failover;
use pgpair_e2e::harness::faults::{Fault, LOST_DIRECTORY};
use pgpair_e2e::harness::pair::{Pair, manifest};
use pgpair_e2e::harness::wait::await_condition;

use crate::Outcome;
use crate::context::Context;

/// Numbers that must have been acknowledged for a verdict to say anything.
const ENOUGH: usize = 50;
/// For a pair to be whole again.
const WHOLE: Duration = Duration::from_secs(240);

/// How the old primary must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Return {
    /// Its log ended where the new primary's past does: it follows, and nothing is rewound or copied.
    Followed,
    /// It wrote what nobody else has: that is kept, and the directory rewound.
    Rewound,
    /// By a new base backup.
    Rebuilt,
    /// As it turns out: a commit may have been under way or not.
    FollowedOrRewound,
}

/// Who must be primary afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    /// The standby.
    Standby,
    /// Either: the old primary may be back before the standby has the end of its log.
    Any,
}

struct Case {
    fault: Fault,
    successor: Successor,
    /// Name of the oracle's table, and of the case in what is printed.
    table: &'static str,
    /// Well over what is aimed at, so that a slow machine does not fail a correct failover; what was measured is printed.
    gap_limit_s: f64,
    comes_back: Return,
}

/// The agent lives, and resigns.
pub async fn postmaster_kill_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::PostmasterKill, Return::Followed);
    shared(c, Case::new(fault, "postmaster_kill", 10.0, comes_back)).await
}

/// Agent and postgres die together, the pod lives.
pub async fn container_kill_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::ContainerKill, Return::FollowedOrRewound);
    shared(c, Case::new(fault, "container_kill", 10.0, comes_back)).await
}

/// As a drain does it: postgres is stopped politely, so nothing is rewound.
pub async fn deletion_of_the_pod_hands_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::PodDelete, Return::Followed);
    shared(c, Case::new(fault, "pod_delete", 10.0, comes_back)).await
}

/// What `kubectl drain` does: the budget lets the primary's pod go, and the rest is as when it is deleted.
pub async fn an_evicted_primary_hands_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::Evict, Return::Followed);
    shared(c, Case::new(fault, "pod_evict", 10.0, comes_back)).await
}

/// A person's order: postgres is stopped cleanly first, so nothing is rewound and no commit fails that was acknowledged.
pub async fn a_switchover_hands_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::Switchover, Return::Followed);
    shared(c, Case::new(fault, "switchover", 10.0, comes_back)).await
}

/// The kubelet gives it two seconds, and the next pod comes at once to the same node.
pub async fn forced_deletion_of_the_pod_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::PodDeleteForce, Return::FollowedOrRewound);
    let case = Case::new(fault, "pod_delete_force", 12.0, comes_back);
    shared(c, Case { successor: Successor::Any, ..case }).await
}

/// Nobody can say a last word; the pod comes back with the node.
pub async fn power_loss_of_the_primarys_node_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::NodeStop, Return::FollowedOrRewound);
    shared(c, Case::new(fault, "node_loss", 15.0, comes_back)).await
}

/// The old primary runs on, out of reach, with a client beside it whose commits go nowhere: they are on its disk alone.
pub async fn cutting_the_primarys_node_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::NodeCut, Return::Rewound);
    shared(c, Case::new(fault, "node_cut", 12.0, comes_back)).await
}

/// Nothing is left to rejoin with.
pub async fn loss_of_the_primarys_data_is_made_good_by_a_base_backup(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let (fault, comes_back) = (Fault::DataLoss, Return::Rebuilt);
    shared(c, Case::new(fault, "data_loss", 10.0, comes_back)).await
}

/// The oldest version that is tested, with a pair of its own.
pub async fn version_15_comes_up_and_fails_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("legacy", 15).await?;
    let (fault, comes_back) = (Fault::ContainerKill, Return::FollowedOrRewound);
    fails_over(&pair, &Case::new(fault, "version_15", 10.0, comes_back)).await
}

/// The newest version that is out, with a pair of its own.
pub async fn version_18_comes_up_and_fails_over(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("current", 18).await?;
    let (fault, comes_back) = (Fault::ContainerKill, Return::FollowedOrRewound);
    fails_over(&pair, &Case::new(fault, "version_18", 10.0, comes_back)).await
}

/// The newest version that is tested, with a pair of its own, whose logical slot goes from one primary to the next.
pub async fn version_19_comes_up_fails_over_and_back_and_keeps_a_logical_slot(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let (plain, logical) = ("shared_buffers: 32MB", "shared_buffers: 32MB\n      wal_level: logical");
    let manifest = manifest("modern", 19).replace(plain, logical);
    let pair = c.bring_up_as("modern", &manifest).await?;
    let first = pair.primary_of(&pair.status().await?)?;
    pair.psql(first, "CREATE TABLE seen (n int)").await?;
    let slot = "SELECT pg_create_logical_replication_slot('consumer', 'test_decoding', false, false, true)";
    pair.psql(first, slot).await?;
    slot_is_copied(&pair, first).await?;
    let killed = Case::new(Fault::PostmasterKill, "version_19", 10.0, Return::Followed);
    if let skipped @ Outcome::Skipped(_) = fails_over(&pair, &killed).await? {
        return Ok(skipped);
    }
    slot_is_copied(&pair, first.peer()).await?;
    let ordered = Case::new(Fault::Switchover, "version_19_back", 10.0, Return::Followed);
    fails_over(&pair, &ordered).await?;
    pair.psql(first, "INSERT INTO seen VALUES (1812)").await?;
    // The slot has the writers' rows too.
    let changes = "SELECT count(*) FROM pg_logical_slot_get_changes('consumer', NULL, NULL) \
                   WHERE data = 'table public.seen: INSERT: n[integer]:1812'";
    let found = pair.psql(first, changes).await?;
    ensure!(found == "1", "the slot on {first} has {found} changes of the one that was made");
    Ok(Outcome::Passed)
}

/// The standby of `primary` has a copy of the slot that a promotion keeps. It makes one only of a slot that has moved on.
async fn slot_is_copied(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let moves = "SELECT count(*) FROM pg_logical_slot_get_changes('consumer', NULL, NULL)";
    let copied =
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'consumer' AND synced AND NOT temporary";
    await_condition("a copy of the logical slot", WHOLE, || async {
        pair.psql(primary, "INSERT INTO seen VALUES (1)").await?;
        pair.psql(primary, moves).await?;
        let found = pair.psql(primary.peer(), copied).await?;
        ensure!(found == "1", "{} has {found} copies", primary.peer());
        Ok(())
    })
    .await
}

impl Case {
    fn new(fault: Fault, table: &'static str, gap_limit_s: f64, comes_back: Return) -> Case {
        Case { fault, successor: Successor::Standby, table, gap_limit_s, comes_back }
    }
}

async fn shared(c: &mut Context, case: Case) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    fails_over(&pair, &case).await
}

async fn fails_over(pair: &Pair, case: &Case) -> anyhow::Result<Outcome> {
    if let Some(reason) = case.fault.impossible_on(&pair.cluster) {
        return Ok(Outcome::Skipped(reason));
    }
    let table = case.table;
    let mut failover = Failover::begin(pair, table).await?;
    let before = Traces::of(pair, failover.old).await?;
    let walked = walk(&mut failover, case).await;
    // Whatever happened, the next test needs a whole cluster.
    failover.heal().await?;
    walked?;
    let status = match case.successor {
        Successor::Standby => failover.await_rejoined().await?,
        Successor::Any => failover.await_told(WHOLE).await?,
    };
    let judgement = failover.judge().await?;
    let verdict = judgement.verdict;
    println!("  {table}: {verdict}");
    match status.last_failover.filter(|told| told.term > failover.term) {
        Some(told) => println!("  {table}: {}", timeline(&told)),
        None => println!("  {table}: the old primary went on"),
    }

    ensure!(verdict.missing.is_empty(), "acknowledged and lost: {:?}", verdict.missing);
    ensure!(verdict.late.is_empty(), "acknowledged by two servers at once: {:#?}", verdict.late);
    ensure!(verdict.reigns.len() >= 2, "only {} server acknowledged anything", verdict.reigns.len());
    ensure!(
        verdict.reigns.iter().all(|r| r.acks > 0) && verdict.acknowledged >= ENOUGH,
        "too few: {verdict}"
    );
    let gap_s =
        judgement.service_gap_ms.context("the writer through the Service saw one server only")? / 1000.0;
    let after = Traces::of(pair, failover.old).await?;
    let came_back = before.came_back(&after);
    println!("  {table}: gap through the Service {gap_s:.2} s; the old primary was {came_back:?}");
    ensure!(
        gap_s < case.gap_limit_s,
        "nobody took writes for {gap_s:.1} s; at most {} s are allowed",
        case.gap_limit_s
    );
    let either = case.comes_back == Return::FollowedOrRewound
        && matches!(came_back, Return::Followed | Return::Rewound);
    ensure!(
        either || came_back == case.comes_back,
        "the old primary was {came_back:?}, not {:?}",
        case.comes_back
    );
    if case.fault == Fault::DataLoss {
        pair.shell(failover.old, &format!("rm -rf {LOST_DIRECTORY}")).await?;
    }
    Ok(Outcome::Passed)
}

async fn walk(failover: &mut Failover, case: &Case) -> anyhow::Result<()> {
    failover.strike(case.fault).await?;
    match case.successor {
        Successor::Standby => {
            failover.await_first_ack().await?;
            failover.await_takeover().await.map(|_| ())
        }
        Successor::Any => failover.await_service().await.map(|_| ()),
    }
}

/// What an instance leaves behind when it comes back other than by following.
struct Traces {
    branches: BTreeSet<String>,
    backup: u32,
}

impl Traces {
    async fn of(pair: &Pair, instance: InstanceId) -> anyhow::Result<Traces> {
        let branches = pair.kept_branches(instance).await?;
        Ok(Traces { branches, backup: pair.last_seed(instance).await? })
    }

    fn came_back(&self, after: &Traces) -> Return {
        if after.backup > self.backup {
            Return::Rebuilt
        } else if after.branches.difference(&self.branches).count() > 0 {
            Return::Rewound
        } else {
            Return::Followed
        }
    }
}

fn timeline(told: &FailoverStatus) -> String {
    let steps = told.steps.iter().map(|s| format!("{} +{} ms", s.step, s.offset_ms));
    format!("{} to {}, {}: {}", told.from, told.to, told.cause, steps.collect::<Vec<_>>().join(", "))
}
