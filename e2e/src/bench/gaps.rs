//! Rows of `target/bench/failover.json`: one for each fault, with the gaps that a client saw.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
    /// How many times.
    pub n: usize,
    /// Last acknowledgement before to first acknowledgement after, through the read-write Service, in milliseconds.
    pub gap_ms: Gaps,
    /// Acknowledged numbers that were gone afterwards, in all runs together.
    pub rows_lost: usize,
    /// Acknowledgements by the old primary after the new one's first, in all runs together.
    pub late_acks: usize,
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
        let case = |r: &Row| (r.fault.clone(), r.postgres, r.durability.clone(), r.ttl_s.to_bits());
        case(self) == case(other)
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

/// Content of a file that an earlier run left; the default without a file. `otherwise` ends the sentence about a file that holds
/// something else.
///
/// # Errors
/// When the file is there and cannot be read as `T`.
pub fn read_json<T: DeserializeOwned + Default>(path: &Path, otherwise: &str) -> anyhow::Result<T> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} {otherwise}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes `value` to `path` with its directory, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        fs::create_dir_all(path.parent().context("it has no directory")?)?;
        let partial = path.with_extension("json.partial");
        fs::write(&partial, serde_json::to_string_pretty(value)? + "\n")?;
        fs::rename(&partial, path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | postgres | durability | ttl | n | p50 | p90 | p99 | max | rows lost | late acks |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for r in &self.0 {
            let g = &r.gap_ms;
            writeln!(
                f,
                "| {} | {} | {} | {} s | {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} ms | {} | {} |",
                r.fault,
                r.postgres,
                r.durability,
                r.ttl_s,
                r.n,
                g.p50,
                g.p90,
                g.p99,
                g.max,
                r.rows_lost,
                r.late_acks
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fault: &str, n: usize) -> Row {
        let gap_ms = Gaps::of(&[250.0]).unwrap();
        Row {
            fault: fault.into(),
            postgres: 17,
            durability: "Sync".into(),
            ttl_s: 5.0,
            n,
            gap_ms,
            rows_lost: 0,
            late_acks: 0,
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
            "fault": "pod-delete", "postgres": 17, "durability": "Sync", "ttl_s": 5.0, "n": 20,
            "gap_ms": {"p50": 250.0, "p90": 250.0, "p99": 250.0, "max": 250.0}, "rows_lost": 0, "late_acks": 0,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_later_run_replaces_the_row_of_the_same_case_only() {
        let mut table = Table(vec![row("isolation", 10), row("pod-delete", 3)]);
        table.put(row("pod-delete", 20));
        table.put(Row { postgres: 15, ..row("pod-delete", 5) });
        assert_eq!(
            table.0.iter().map(|r| (r.postgres, r.n)).collect::<Vec<_>>(),
            [(17, 10), (17, 20), (15, 5)]
        );
    }
}
