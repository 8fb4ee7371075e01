//! A pair comes up, streams and archives, and its status tells so.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_api::status::{LagStatus, PgReplicaPairStatus};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::archive;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::wait::await_condition;

use crate::Outcome;
use crate::context::Context;

/// Status numbers are written at most every 10 s.
const STATUS: Duration = Duration::from_secs(45);

/// Both instances run on nodes of their own, the second one was made by a base-backup Job, and data flows.
pub async fn bring_up_seeds_the_standby_by_a_job_and_streams(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, Duration::from_secs(60)).await?;
    let primary = pair.primary_of(&status)?;
    ensure!(primary == InstanceId::A, "the first primary is {primary}");
    ensure!(status.system_identifier.is_some(), "status has no system identifier");
    let seed = pair.last_seed(InstanceId::B).await?;
    ensure!(seed > 0, "the standby was not seeded by a Job");
    println!("  seeded by Job {seed}");
    let (a, b) = (pair.node(InstanceId::A).await?, pair.node(InstanceId::B).await?);
    ensure!(a != b, "both instances run on {a}");

    let streams = pair.psql(primary, "SELECT state || ' ' || sync_state FROM pg_stat_replication").await?;
    ensure!(streams == "streaming sync", "pg_stat_replication has {streams:?}");
    ensure!(
        pair.psql(primary.peer(), "SELECT pg_is_in_recovery()").await? == "t",
        "the standby is not in recovery"
    );
    pair.psql(primary, "CREATE TABLE seeded AS SELECT i, md5(i::text) AS m FROM generate_series(1, 20000) i")
        .await?;
    let sum = "SELECT count(*) || ' ' || md5(string_agg(m, '' ORDER BY i)) FROM seeded";
    let both = pair.await_equal(sum, Duration::from_secs(20)).await?;
    ensure!(both.starts_with("20000 "), "{both}");
    pair.rw_leads_to(primary).await?;
    Ok(Outcome::Passed)
}

/// On an idle pair and after a burst of writes; and both archives get every segment.
pub async fn lag_and_archive_are_told_in_the_status(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, Duration::from_secs(120)).await?;
    let primary = pair.primary_of(&status)?;
    await_condition("a lag of an idle pair near zero", STATUS, || async {
        lag_is_sane(&pair.status().await?.lag.context("status has no lag")?, 1 << 20, 5.0)
    })
    .await?;

    let before = last_segments(&pair.status().await?);
    let load =
        "CREATE TABLE load AS SELECT i, repeat(md5(i::text), 8) AS t FROM generate_series(1, 200000) i";
    pair.psql(primary, load).await?;
    let switched = pair.psql(primary, "SELECT pg_walfile_name(pg_switch_wal())").await?;
    await_condition("the lag after a burst back near zero", STATUS, || async {
        lag_is_sane(&pair.status().await?.lag.context("status has no lag")?, 16 << 20, 10.0)
    })
    .await?;
    await_condition(&format!("segment {switched} as lastSegment of both archives"), STATUS, || async {
        let segments = last_segments(&pair.status().await?);
        ensure!(segments.len() == 2, "status tells of {} archives", segments.len());
        // Segments of one timeline sort as they follow each other.
        ensure!(segments.iter().all(|(_, last)| *last >= switched), "{segments:?}, before {before:?}");
        Ok(())
    })
    .await?;
    for instance in InstanceId::ALL {
        archive_holds(&pair, instance, &switched).await?;
    }
    Ok(Outcome::Passed)
}

fn lag_is_sane(lag: &LagStatus, most_bytes: i64, most_seconds: f64) -> anyhow::Result<()> {
    let (receive, replay, total) = (lag.receive, lag.replay, lag.total);
    let total = total.context("no total lag")?;
    ensure!(receive.is_some() && replay.is_some(), "receive is {receive:?}, replay {replay:?}");
    ensure!((0..=most_bytes).contains(&total.bytes), "total lag is {} bytes", total.bytes);
    ensure!((0.0..=most_seconds).contains(&total.seconds), "total lag is {} s", total.seconds);
    Ok(())
}

fn last_segments(status: &PgReplicaPairStatus) -> Vec<(String, String)> {
    let told = status.archive.iter().filter_map(|a| Some((a.instance.clone(), a.last_segment.clone()?)));
    told.collect()
}

async fn archive_holds(pair: &Pair, instance: InstanceId, segment: &str) -> anyhow::Result<()> {
    let script = format!("find /pgpair/archive -name '{segment}*' -size +0");
    await_condition(&format!("{segment} on the archive volume of {instance}"), STATUS, || async {
        let found = pair.shell(instance, &script).await?;
        ensure!(
            found.contains(segment),
            "not there: {:?}",
            pair.shell(instance, "find /pgpair/archive | tail -n 5").await?
        );
        Ok(())
    })
    .await
}

/// After all those failovers: no segment of the history in use is missing from either archive, and no
/// name has two contents.
pub async fn both_archives_are_without_a_gap_and_equal(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, Duration::from_secs(120)).await?;
    let primary = pair.primary_of(&status)?;
    let (last, history) = archive::close_segment(&pair, primary).await?;
    // A standby archives a segment when the next one begins, and an idle primary may write nothing for half a minute.
    pair.psql(primary, "SELECT pg_logical_emit_message(true, 'e2e', 'the next segment')").await?;
    for instance in InstanceId::ALL {
        archive_holds(&pair, instance, &last.to_string()).await?;
    }
    // Which of them was away is not known here; it looks once a minute for what it lacks.
    await_condition("the same log in both archives", Duration::from_secs(150), || async {
        let a = archive::list(&pair, InstanceId::A).await?;
        let b = archive::list(&pair, InstanceId::B).await?;
        let found = archive::compare(&a, &b, &history, last.number);
        ensure!(found.holds(), "the archives have gaps or differ: {found}");
        ensure!(found.wanted >= 2 && found.common >= 2, "too few to say anything: {found}");
        println!("  timeline {}, {} before it: {found}", history.timeline, history.ancestors.len());
        Ok(())
    })
    .await?;
    Ok(Outcome::Passed)
}
