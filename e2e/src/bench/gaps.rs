//! Rows of `target/bench/failover.json`: one for each fault, with the gaps that a client saw.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::parts::Part;
use crate::harness::faults::Fault;
use crate::results::{read_json, write_json};

/// One fault, many times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the fault.
    pub fault: String,
    /// Major version.
    pub postgres: u32,
    /// `Sync`, `SyncStrict` or `Async`.
    pub durability: String,
    /// Length of a promise in seconds.
    pub ttl_s: f64,
    /// Whether pgbench ran beside the client that was watched.
    #[serde(default)]
    pub load: bool,
    /// How many times.
    pub n: usize,
    /// Rounds besides that did not come to their end, and are in no other number.
    #[serde(default)]
    pub failed: usize,
    /// Last acknowledgement before to first acknowledgement after, through the read-write Service, in milliseconds; absent when no
    /// round came to its end.
    pub gap_ms: Option<Gaps>,
    /// Acknowledged numbers that were gone afterwards, in all runs together.
    pub rows_lost: usize,
    /// Acknowledgements by the old primary after the new one's first, in all runs together.
    pub late_acks: usize,
    /// Where the time went, over the rounds that tell all their steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Commit of this repository.
    #[serde(default)]
    pub commit: Option<String>,
}

/// Distribution of the gaps, each a gap that was measured (nearest rank), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// Half of them were no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of a hundred; with less than a hundred the longest.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Gaps {
    /// `None` without any.
    #[must_use]
    pub fn of(gaps_ms: &[f64]) -> Option<Gaps> {
        let mut sorted = gaps_ms.to_vec();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        // Nearest rank: the smallest value that is not below `percent` of all, tenths of milliseconds.
        let rank = |percent: usize| {
            let nth = (sorted.len() * percent).div_ceil(100).max(1);
            (sorted[nth - 1] * 10.0).round() / 10.0
        };
        Some(Gaps { p50: rank(50), p90: rank(90), p99: rank(99), max: (max * 10.0).round() / 10.0 })
    }
}

impl Row {
    fn is_same_case(&self, other: &Row) -> bool {
        let case = |r: &Row| (r.fault.clone(), r.postgres, r.durability.clone(), r.ttl_s.to_bits(), r.load);
        case(self) == case(other)
    }

    /// Never two servers, and nothing lost that was promised: what is acknowledged, where commits wait for the standby; in `Async` too
    /// when only postgres dies, for its agent lives and hands the end of the log over.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let may_lose = self.durability == "Async" && self.fault != Fault::PostmasterKill.name();
        self.late_acks == 0 && (self.rows_lost == 0 || may_lose)
    }
}

/// All rows of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(pub Vec<Row>);

impl Table {
    /// What an earlier run left; empty without a file.
    ///
    /// # Errors
    /// When the file is there and is no such table.
    pub fn load(path: &Path) -> anyhow::Result<Table> {
        read_json(path, "is no table of failovers").map(Table)
    }

    /// Puts `row` in the place of an earlier one of the same fault and settings.
    pub fn put(&mut self, row: Row) {
        match self.0.iter_mut().find(|r| r.is_same_case(&row)) {
            Some(same) => *same = row,
            None => self.0.push(row),
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, &self.0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | postgres | durability | ttl | load | n | failed | p50 | p90 | p99 | max | rows lost | late acks | commit |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
        for r in &self.0 {
            let gaps = r.gap_ms.map(|g| [g.p50, g.p90, g.p99, g.max]);
            let gaps = gaps.map_or(["-"; 4].map(String::from), |g| g.map(|ms| format!("{ms:.0} ms")));
            writeln!(
                f,
                "| {} | {} | {} | {} s | {} | {} | {} | {} | {} | {} | {} |",
                r.fault,
                r.postgres,
                r.durability,
                r.ttl_s,
                if r.load { "pgbench" } else { "-" },
                r.n,
                r.failed,
                gaps.join(" | "),
                r.rows_lost,
                r.late_acks,
                r.commit.as_deref().unwrap_or("-")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: &str, n: usize) -> Row {
        Row {
            fault: fault.into(),
            postgres: 17,
            durability: "Sync".into(),
            ttl_s: 5.0,
            load: false,
            n,
            failed: 0,
            gap_ms: Gaps::of(&[250.0]),
            rows_lost: 0,
            late_acks: 0,
            parts: Vec::new(),
            commit: None,
        }
    }

    #[test]
    fn percentiles_are_gaps_that_were_measured() {
        let gaps: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(Gaps::of(&gaps), Some(Gaps { p50: 10.0, p90: 18.0, p99: 20.0, max: 20.0 }));
        assert_eq!(Gaps::of(&[7.04]), Some(Gaps { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Gaps::of(&[]), None);
    }

    #[test]
    fn a_row_is_written_as_the_readers_of_the_file_expect_it() {
        let json = serde_json::to_value(row("pod-delete", 20)).unwrap();
        let expected = serde_json::json!({
            "fault": "pod-delete", "postgres": 17, "durability": "Sync", "ttl_s": 5.0, "load": false, "n": 20, "failed": 0,
            "gap_ms": {"p50": 250.0, "p90": 250.0, "p99": 250.0, "max": 250.0}, "rows_lost": 0, "late_acks": 0, "commit": null,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_later_run_replaces_the_row_of_the_same_case_only() {
        let mut table = Table(vec![row("isolation", 10), row("pod-delete", 3)]);
        table.put(row("pod-delete", 20));
        table.put(Row { postgres: 15, ..row("pod-delete", 5) });
        table.put(Row { load: true, ..row("pod-delete", 4) });
        assert_eq!(
            table.0.iter().map(|r| (r.postgres, r.n)).collect::<Vec<_>>(),
            [(17, 10), (17, 20), (15, 5), (17, 4)]
        );
    }

    #[test]
    fn a_row_of_an_earlier_run_is_read() {
        let mut json = serde_json::to_value(row("pod-delete", 20)).unwrap();
        for key in ["load", "failed", "commit"] {
            json.as_object_mut().unwrap().remove(key).unwrap();
        }
        assert_eq!(serde_json::from_value::<Row>(json).unwrap(), row("pod-delete", 20));
    }

    #[test]
    fn load_and_failed_rounds_are_told_and_gaps_that_nobody_measured_are_not() {
        let under_load = Row { load: true, failed: 2, ..row("pod-delete", 18) };
        let failed = Row { n: 0, failed: 3, gap_ms: None, ..row("isolation", 0) };
        let told = Table(vec![under_load, failed]).to_string();
        let lines = [
            "| pod-delete | 17 | Sync | 5 s | pgbench | 18 | 2 | 250 ms | 250 ms | 250 ms | 250 ms | 0 | 0 | - |",
            "| isolation | 17 | Sync | 5 s | - | 0 | 3 | - | - | - | - | 0 | 0 | - |",
        ];
        assert!(lines.iter().all(|line| told.lines().any(|l| l == *line)), "{told}");
    }

    #[test]
    fn async_may_lose_rows_but_not_when_only_postgres_dies() {
        let lost =
            |fault, durability: &str| Row { durability: durability.into(), rows_lost: 1, ..row(fault, 9) };
        assert!(lost("node-loss", "Async").is_sound());
        assert!(!lost("node-loss", "SyncStrict").is_sound());
        assert!(!lost("postmaster-kill", "Async").is_sound());
        assert!(!Row { late_acks: 1, ..row("node-loss", 9) }.is_sound());
    }
}
