//! Each mechanism of the fault runner once: processes stopped and killed, a frozen pod, cuts one way and again and again, nodes
//! without power, API server and etcd, clocks, disks.
//! `make e2e-full` runs all kinds, in each durability and both directions.

use anyhow::Context as _;
use pgpair_core::authority::Durability;
use pgpair_e2e::faults::kind::Kind;
use pgpair_e2e::faults::round;
use pgpair_e2e::faults::row::Case;
use pgpair_e2e::harness::record;

use crate::Outcome;
use crate::context::Context;

pub async fn a_stopped_agent_is_fenced_by_its_init_process(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::AgentStop, Durability::Sync).await
}

pub async fn a_stopped_postmaster_is_a_hang_and_the_standby_takes_over(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    holds(c, Kind::PostmasterStop, Durability::Sync).await
}

pub async fn a_backend_killed_in_its_commit_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::BackendKill, Durability::Sync).await
}

pub async fn a_frozen_pod_acknowledges_nothing_when_it_thaws(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::PodFreeze, Durability::Async).await
}

pub async fn packets_that_travel_one_way_only_lose_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::OneWayToStandby, Durability::SyncStrict).await
}

pub async fn a_node_cut_off_again_and_again_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::FlappingNode, Durability::SyncStrict).await
}

pub async fn two_nodes_without_power_lose_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::BothNodesPrimaryFirst, Durability::Sync).await
}

pub async fn a_slow_api_server_harms_nobody(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::ApiSlow, Durability::Async).await
}

pub async fn an_etcd_that_is_away_harms_nobody(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::EtcdRestart, Durability::Sync).await
}

pub async fn a_wrong_wall_clock_harms_nobody(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::ClockForward, Durability::Sync).await
}

pub async fn a_full_data_volume_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::DataFull, Durability::Sync).await
}

pub async fn a_hung_data_volume_loses_nothing(c: &mut Context) -> anyhow::Result<Outcome> {
    holds(c, Kind::DataHang, Durability::Sync).await
}

/// The fault on whoever is primary; the row holds.
async fn holds(c: &mut Context, kind: Kind, durability: Durability) -> anyhow::Result<Outcome> {
    if c.cluster()?.local.is_none() {
        let reason = "it needs the machine under the cluster; PGPAIR_CONTEXT names a cluster without it";
        return Ok(Outcome::Skipped(reason.into()));
    }
    let entry = kind.entry().context("the catalog has no such kind")?;
    let stand = c.stand().await?;
    let primary = record::read(&stand.pair).await?.primary.instance;
    let row = round::run_one(stand, &Case { entry, durability, primary, seed: 1 }, None).await.row;
    println!("  {row}");
    if !row.holds() {
        return stand.pair.explain(Err(anyhow::anyhow!("{row}"))).await;
    }
    Ok(Outcome::Passed)
}
