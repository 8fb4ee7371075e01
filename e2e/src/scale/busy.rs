//! Who had the processors while something was measured, what the operator asked of the API server, and how long that took for the
//! benchmark itself: a time that grew with the number of pairs says little without it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bench::footprint;
use crate::scale::audit::Counts;
use crate::scale::row::{Row, Times, tenths, thousandths};

/// What each program took meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// What was measured.
    pub phase: String,
    /// How long that took.
    pub seconds: f64,
    /// CPU seconds per second by the name of the program, those of the benchmark and what it started; the simulated agents are the benchmark's own.
    pub cores: BTreeMap<String, f64>,
    /// Requests of the operator that read, per second; absent in older rows, as the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_per_s: Option<f64>,
    /// Requests of the operator that write, by verb and resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<BTreeMap<String, u64>>,
    /// How long the API server took for the benchmark's own writes, one for each change or order: nothing can be faster than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_writes_ms: Option<Times>,
}

/// A measure that begins.
#[derive(Debug)]
pub struct Begun {
    at: Instant,
    counts: Counts,
    cpu_ms: BTreeMap<String, u64>,
}

impl Begun {
    /// Now, when so much was answered to the operator.
    ///
    /// # Errors
    /// The processes cannot be read.
    pub fn now(counts: Counts) -> anyhow::Result<Begun> {
        Ok(Begun { at: Instant::now(), counts, cpu_ms: footprint::of_programs()? })
    }

    /// What was taken since, until so much was answered. Of a program whose process ended meanwhile: what the next one took.
    ///
    /// # Errors
    /// The processes cannot be read.
    pub fn end(self, phase: &str, counts: Counts, own_writes_ms: Option<Times>) -> anyhow::Result<Busy> {
        let seconds = self.at.elapsed().as_secs_f64();
        let cores = |name: &String, now: u64| {
            let taken = now.checked_sub(self.cpu_ms.get(name).copied().unwrap_or(0)).unwrap_or(now);
            (name.clone(), thousandths(taken as f64 / 1000.0 / seconds))
        };
        let now = footprint::of_programs()?;
        let cores = now.iter().map(|(name, ms)| cores(name, *ms)).filter(|(_, cores)| *cores >= 0.01);
        let counts = counts - &self.counts;
        Ok(Busy {
            phase: phase.to_owned(),
            seconds: thousandths(seconds),
            cores: cores.collect(),
            reads_per_s: Some(tenths(counts.reads as f64 / seconds)),
            writes: Some(counts.by_kind),
            own_writes_ms,
        })
    }
}

/// As a table; empty without a row that knows.
#[must_use]
pub fn table(rows: &[&Row]) -> String {
    let mut out = String::new();
    for row in rows.iter().filter(|row| !row.busy.is_empty()) {
        if out.is_empty() {
            out += "| pairs | while | seconds | cores of each program | reads per second | writes | own writes p50, p99 |\n|---|---|---|---|---|---|---|\n";
        }
        for busy in &row.busy {
            let mut programs: Vec<(&String, &f64)> = busy.cores.iter().collect();
            programs.sort_by(|a, b| b.1.total_cmp(a.1));
            let programs = programs.iter().map(|(name, cores)| format!("{name} {cores:.2}"));
            let programs = programs.collect::<Vec<_>>().join(", ");
            let unknown = || "-".to_owned();
            let reads = busy.reads_per_s.map_or_else(unknown, |reads| reads.to_string());
            let writes = busy.writes.as_ref().map_or_else(unknown, |w| w.values().sum::<u64>().to_string());
            let own = busy.own_writes_ms.map_or_else(unknown, |t| format!("{}, {} ms", t.p50, t.p99));
            let (pairs, phase, seconds) = (row.pairs, &busy.phase, busy.seconds);
            let _ = writeln!(
                out,
                "| {pairs} | {phase} | {seconds:.0} | {programs} | {reads} | {writes} | {own} |"
            );
        }
    }
    out
}
