//! No fault at all, and every core busy: nobody may take over, and nobody go on alone.

use std::fs;
use std::time::Duration;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use crate::faults::load::{self, Clients, Load};
use crate::faults::stand::Stand;
use crate::harness::cluster::Cluster;
use crate::harness::record::{self, RecordLog, Seen};

/// Between two looks whether to stop.
const LOOK: Duration = Duration::from_secs(1);
const WRITERS: usize = 8;

/// What happened while nothing happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calm {
    /// Length of a promise in seconds.
    pub ttl_s: u32,
    /// How long.
    pub seconds: u64,
    /// Part of the machine's processor time that was used, in percent.
    pub busy_percent: u64,
    /// Transactions that pgbench counted.
    pub transactions: u64,
    /// Changes of the term.
    pub failovers: usize,
    /// Times that the primary went on alone.
    pub excursions: usize,
    /// Each, with seconds from the beginning.
    pub transitions: Vec<String>,
}

/// Runs pgbench for `length`, or until `stop` says so, on one pair for each ttl (seconds), all at the same time.
///
/// # Errors
/// When a pair does not come up, or not all were measured.
pub async fn calm(
    cluster: &Cluster,
    length: Duration,
    ttls: &[u32],
    stop: impl Fn() -> bool,
) -> anyhow::Result<Vec<Calm>> {
    let sets: Vec<String> = ttls.iter().map(|ttl| format!("ttl{ttl}")).collect();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let stands = Stand::bring_up_all(cluster, &sets).await?;
    let measured =
        try_join_all(stands.iter().zip(ttls).map(|(stand, ttl)| measure(stand, length, *ttl, &stop))).await;
    for stand in stands {
        stand.tear_down().await?;
    }
    measured
}

async fn measure(
    stand: &Stand,
    length: Duration,
    ttl_s: u32,
    stop: &impl Fn() -> bool,
) -> anyhow::Result<Calm> {
    let pair = &stand.pair;
    pair.set(&json!({"failover": {"ttlSeconds": ttl_s}})).await?;
    let primary = record::read(pair).await?.primary.instance;
    load::prepare(pair, primary).await?;
    pair.await_paired(1, Duration::from_secs(60)).await?;
    let readers = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    let (record, before) = (RecordLog::start(pair), processor());
    let load = Load::start(pair, Clients { writers: WRITERS, readers });
    let begin = tokio::time::Instant::now();
    // The length of the measurement, not a wait for something.
    while begin.elapsed() < length && !stop() {
        sleep(LOOK).await;
    }
    let (seen, after, seconds) = (record.all(), processor(), begin.elapsed().as_secs());
    let transactions = load.stop().await;
    Ok(Calm {
        ttl_s,
        seconds,
        busy_percent: busy(before, after),
        transactions,
        failovers: record::failovers(&seen),
        excursions: record::excursions(&seen),
        transitions: transitions(&seen),
    })
}

fn transitions(seen: &[Seen]) -> Vec<String> {
    let begin = seen.first().map_or(0, |s| s.at_us);
    let one = |two: &[Seen]| {
        format!("{} s: {}", (two[1].at_us - begin) / 1_000_000, record::tell(&two[..2]).replace(", ", " -> "))
    };
    seen.windows(2).map(one).collect()
}

/// Ticks of all processors: used and all.
fn processor() -> Option<(u64, u64)> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse(stat: &str) -> Option<(u64, u64)> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; those behind it are counted in the first two.
    let all: u64 = ticks.iter().take(8).sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

fn busy(before: Option<(u64, u64)>, after: Option<(u64, u64)>) -> u64 {
    let (Some(before), Some(after)) = (before, after) else { return 0 };
    (100 * after.0.saturating_sub(before.0)).checked_div(after.1.saturating_sub(before.1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_that_was_used_is_a_part_of_all() {
        let before = parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n");
        assert_eq!(before, Some((200, 1000)));
        let after = parse("cpu  150 0 130 710 110 0 0 0 0 0\n");
        assert_eq!(busy(before, after), 80);
        assert_eq!(busy(None, after), 0);
    }
}
