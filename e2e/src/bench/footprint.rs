//! Memory and processor time of containers, read on the machine under the local cluster.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use pgpair_core::ids::InstanceId;
use serde::Serialize;

use crate::harness::cluster::LocalCluster;
use crate::harness::pair::{CONTAINER, Pair, WITNESS};

/// Ticks in `/proc/PID/stat` are of 10 ms, whatever the kernel's own are (proc(5), `USER_HZ`).
const TICK_MS: u64 = 10;

/// What some processes take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Pages in memory, each divided by the number of processes that share it, summed: what they cost together.
    pub pss_bytes: u64,
    /// Pages in memory, summed: shared ones count once for each process.
    pub rss_bytes: u64,
    /// How many.
    pub processes: usize,
    /// Processor time since they began, in milliseconds; a process that has ended took its own along.
    pub cpu_ms: u64,
}

impl std::ops::Add for Footprint {
    type Output = Footprint;
    fn add(self, other: Footprint) -> Footprint {
        Footprint {
            pss_bytes: self.pss_bytes + other.pss_bytes,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            processes: self.processes + other.processes,
            cpu_ms: self.cpu_ms + other.cpu_ms,
        }
    }
}

/// Every process of a container but those of postgres.
///
/// # Errors
/// When the container does not run, or its processes cannot be read.
pub async fn of_container(
    local: &LocalCluster,
    node: &str,
    namespace: &str,
    pod: &str,
    container: &str,
) -> anyhow::Result<Footprint> {
    let first = local.run(&["exec-pid", node, namespace, pod, container]).await?;
    let first: i32 = first.trim().parse().with_context(|| format!("pid {first:?} of {pod}/{container}"))?;
    let mut sum = Footprint::default();
    for pid in descendants(first, &parents()?) {
        // One that has ended meanwhile used none.
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        if name.trim() == "postgres" {
            continue;
        }
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        if let (Ok(memory), Ok(stat)) = (read("smaps_rollup"), read("stat")) {
            sum = sum + parse(&memory, &stat).with_context(|| format!("what process {pid} takes"))?;
        }
    }
    Ok(sum)
}

/// An agent with all its helpers: everything in its pod that is not postgres.
///
/// # Errors
/// As [`of_container`].
pub async fn of_agent(pair: &Pair, local: &LocalCluster, instance: InstanceId) -> anyhow::Result<Footprint> {
    let (node, pod) = (pair.node(instance).await?, pair.names.pod(instance));
    let mut sum = Footprint::default();
    for container in [CONTAINER, WITNESS] {
        sum = sum + of_container(local, &node, &pair.names.namespace, &pod, container).await?;
    }
    Ok(sum)
}

/// One process.
///
/// # Errors
/// It has ended.
pub fn of_process(pid: i32) -> anyhow::Result<Footprint> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (memory, stat) = (read("smaps_rollup"), read("stat"));
    let (memory, stat) =
        memory.and_then(|m| Ok((m, stat?))).with_context(|| format!("process {pid} has ended"))?;
    parse(&memory, &stat).with_context(|| format!("what process {pid} takes"))
}

/// Processor time of this process and of all that it has started, in milliseconds, by the names of the programs.
///
/// # Errors
/// When the kernel does not tell.
pub fn of_programs() -> anyhow::Result<BTreeMap<String, u64>> {
    let mut sum = BTreeMap::new();
    for pid in descendants(std::process::id().try_into()?, &parents()?) {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        // One that has ended meanwhile is not told.
        if let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) {
            *sum.entry(name.trim().to_owned()).or_default() += cpu_ms(&stat).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// Processor time of all processors since the machine began that was spent on no process that is seen here, in milliseconds: on the
/// kernel's own work, and on processes beside the namespace of this one. A process that ended took its time over to them.
///
/// # Errors
/// When the kernel does not tell.
pub fn of_others() -> anyhow::Result<u64> {
    let busy =
        busy_ms(&fs::read_to_string("/proc/stat").context("reading /proc/stat")?).context("/proc/stat")?;
    let mut ours = 0;
    for pid in parents()?.keys() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ours += cpu_ms(&stat).unwrap_or(0);
    }
    Ok(busy.saturating_sub(ours))
}

/// User, nice, system, interrupts: not idle, waiting or stolen.
fn busy_ms(stat: &str) -> Option<u64> {
    let all: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|n| n.parse().ok()).collect();
    let ticks = all.first()? + all.get(1)? + all.get(2)? + all.get(5)? + all.get(6)?;
    Some(ticks * TICK_MS)
}

/// User and system time are fields 14 and 15; what stands before the name in parentheses are two.
fn cpu_ms(stat: &str) -> Option<u64> {
    let mut ticks = behind_the_name(stat)?.skip(11).map(str::parse::<u64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) * TICK_MS)
}

fn parse(smaps_rollup: &str, stat: &str) -> Option<Footprint> {
    let bytes = |key: &str| {
        let line = smaps_rollup.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Footprint {
        pss_bytes: bytes("Pss:")?,
        rss_bytes: bytes("Rss:")?,
        processes: 1,
        cpu_ms: cpu_ms(stat)?,
    })
}

/// The fields of `/proc/PID/stat` from the third one on. The name before them, in parentheses, may hold anything.
fn behind_the_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.get(stat.rfind(')')? + 1..)?.split_whitespace())
}

/// Each process of the machine with its parent.
fn parents() -> anyhow::Result<BTreeMap<i32, i32>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        behind_the_name(&stat)?.nth(1)?.parse().ok()
    };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter_map(|pid| Some((pid, parent(pid)?))).collect())
}

fn descendants(root: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, p)| **p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_and_time_in_milliseconds() {
        let text = "55d-7ff ---p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:   1000 kB\nPss_Anon: 7 kB\n";
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 900 0 0 0 25 5 1 1 20 0 6 0 1234 0 0\n";
        let one = parse(text, stat).unwrap();
        let expected = Footprint { pss_bytes: 1_024_000, rss_bytes: 2_097_152, processes: 1, cpu_ms: 300 };
        assert_eq!(one, expected);
        assert_eq!(((one + one).pss_bytes, (one + one).cpu_ms), (2_048_000, 600));
        assert_eq!(parse("Rss: 1 kB\n", stat), None);
        assert_eq!(parse(text, "42 (a) S 1"), None);
    }

    #[test]
    fn a_machine_is_busy_when_it_neither_idles_nor_waits() {
        assert_eq!(busy_ms("cpu  1 2 3 400 500 6 7 800 0 0\ncpu0 1 2\n"), Some(190));
        assert_eq!(busy_ms("intr 1\n"), None);
    }

    #[test]
    fn a_process_is_found_below_its_root_however_deep() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1)]);
        assert_eq!(descendants(2, &parents), [2, 3, 4]);
    }
}
