//! Rows of `target/bench/scale.json`: one for each number of pairs and commit. What was not measured is absent.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::results::{read_json, write_json};
use crate::scale::busy::Busy;

/// What was measured with so many pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How many.
    pub pairs: usize,
    /// What is particular about the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Commit of this repository.
    pub commit: Option<String>,
    /// Where, and what shared it.
    pub machine: String,
    /// From the start of the operator until all agents had been heard and nothing was written any more, seconds.
    pub built_s: Option<f64>,
    /// Memory of the operator at rest, MiB.
    pub rss_mib: Option<f64>,
    /// The most that it had until then.
    pub rss_peak_mib: Option<f64>,
    /// CPU seconds of the operator per second at rest.
    pub cores: Option<f64>,
    /// CPU seconds per second meanwhile of what was not part of the benchmark.
    pub other_cores: Option<f64>,
    /// Reports that the agents gave per second at rest.
    pub reports_per_s: Option<f64>,
    /// Requests of the operator to the API server that read, per second at rest.
    pub api_reads_per_s: Option<f64>,
    /// Requests that write, but for its election, while nothing happened for `idle_s`.
    pub api_writes_idle_10min: Option<u64>,
    /// How long nothing happened; 600 unless the row says otherwise.
    pub idle_s: Option<u64>,
    /// From a change of a pair's spec until both agents had the new settings.
    pub change_applied_ms: Option<Times>,
    /// From an order in the annotation until the agent had it.
    pub order_taken_ms: Option<Times>,
    /// The same while `silent_agents` did not answer, orders of pairs whose agents do.
    pub order_taken_with_silent_zone_ms: Option<Times>,
    /// How many did not answer.
    pub silent_agents: Option<usize>,
    /// From the death of the leading operator until another one was elected, seconds.
    pub leader_elected_s: Option<f64>,
    /// From the death of the leading operator until every agent had answered the next one, seconds.
    pub leader_change_all_seen_s: Option<f64>,
    /// Writes of the next one until half a minute later, but for its election.
    pub leader_change_api_writes: Option<u64>,
    /// Series in the operator's metrics.
    pub series: Option<usize>,
    /// Milliseconds until all of them had come.
    pub scrape_ms: Option<f64>,
    /// Who had the processors while each of these was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub busy: Vec<Busy>,
    /// What did not come to its end, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// A distribution of times, each measured (nearest rank), in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub n: usize,
    /// How many more did not come to their end, and are in no other number.
    pub lost: usize,
    /// Half of them were no longer.
    pub p50: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// Of times in milliseconds; `None` did not come to its end. `None` without any.
    #[must_use]
    pub fn of(times: &[Option<f64>]) -> Option<Times> {
        let mut sorted: Vec<f64> = times.iter().copied().flatten().collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let rank = |percent: usize| tenths(sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]);
        Some(Times {
            n: sorted.len(),
            lost: times.len() - sorted.len(),
            p50: rank(50),
            p99: rank(99),
            max: tenths(max),
        })
    }
}

/// Rounded to a tenth.
#[must_use]
pub fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Rounded to a thousandth.
#[must_use]
pub fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// All rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// What earlier runs left; nothing without a file.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn load(path: &Path) -> anyhow::Result<Rows> {
        read_json(path, "does not hold rows of this benchmark: move it away")
    }

    /// Adds a row, in place of that of the same pairs and commit.
    pub fn put(&mut self, row: Row) {
        self.0.retain(|old| old.pairs != row.pairs || old.commit != row.commit);
        self.0.push(row);
        self.0.sort_by_key(|row| row.pairs);
    }

    /// Writes them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }

    /// Of each number of pairs the newest.
    #[must_use]
    pub fn newest(&self) -> Vec<&Row> {
        let mut newest: Vec<&Row> = Vec::new();
        for row in &self.0 {
            newest.retain(|known| known.pairs != row.pairs);
            newest.push(row);
        }
        newest
    }
}

/// What is aimed at, and whether it was reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The measure.
    pub what: &'static str,
    /// Its limit.
    pub limit: &'static str,
    /// What was measured; `None` when it was not.
    pub found: Option<String>,
    /// Whether that is within the limit.
    pub met: bool,
}

/// From so many pairs on, the goals of 10,000 count: a machine may allow a process too few connections for all of them.
const MANY: usize = 9_500;

/// The goals of a row; none for a number of pairs that has none.
#[must_use]
pub fn goals(row: &Row) -> Vec<Goal> {
    let goal = |what, limit, found: Option<f64>, unit: &str, met: &dyn Fn(f64) -> bool| Goal {
        what,
        limit,
        found: found.map(|f| format!("{f}{unit}")),
        met: found.is_some_and(met),
    };
    let memory = |limit, mib: f64| goal("memory at rest", limit, row.rss_mib, " MiB", &|f| f < mib);
    // One that never came to its end is worse than any limit.
    let p99 = |times: Option<Times>| times.map(|t| if t.lost > 0 { f64::INFINITY } else { t.p99 });
    let within = |what, limit, times, ms: f64| goal(what, limit, p99(times), " ms", &|f| f < ms);
    match row.pairs {
        1_000 => vec![memory("< 200 MiB", 200.0)],
        pairs if pairs >= MANY => vec![
            memory("< 1 GiB", 1024.0),
            goal("cores at rest", "< 1", row.cores, "", &|f| f < 1.0),
            goal(
                "writes in 10 minutes without a change",
                "0",
                row.api_writes_idle_10min.map(|n| n as f64),
                "",
                &|f| f == 0.0,
            ),
            within("a change of the spec reaches the agents (p99)", "< 1 s", row.change_applied_ms, 1000.0),
            within("an order reaches its agent (p99)", "< 1 s", row.order_taken_ms, 1000.0),
            within(
                "the same while 500 agents are silent (p99)",
                "< 2 s",
                row.order_taken_with_silent_zone_ms,
                2000.0,
            ),
            goal(
                "all agents heard after the death of the leader",
                "< 60 s",
                row.leader_change_all_seen_s,
                " s",
                &|f| f < 60.0,
            ),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_times_that_were_measured_and_what_was_lost_is_told() {
        let times: Vec<Option<f64>> = (1..=200).map(|n| Some(f64::from(n))).chain([None]).collect();
        assert_eq!(Times::of(&times), Some(Times { n: 200, lost: 1, p50: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Times::of(&[None]), None);
    }

    #[test]
    fn a_row_replaces_that_of_the_same_commit_only_and_the_last_one_is_the_newest() {
        let row = |pairs, commit: &str| Row { pairs, commit: Some(commit.into()), ..Row::default() };
        let mut rows = Rows::default();
        for (pairs, commit) in [(1000, "a"), (100, "a"), (1000, "b"), (100, "a")] {
            rows.put(row(pairs, commit));
        }
        assert_eq!(rows.0, [row(100, "a"), row(1000, "a"), row(1000, "b")]);
        assert_eq!(rows.newest(), [&row(100, "a"), &row(1000, "b")]);
    }

    #[test]
    fn a_goal_that_was_not_measured_or_whose_orders_were_lost_is_not_met() {
        let lost = Times { n: 199, lost: 1, p50: 1.0, p99: 2.0, max: 3.0 };
        let row = Row { pairs: 9_800, cores: Some(0.4), order_taken_ms: Some(lost), ..Row::default() };
        let met: Vec<bool> = goals(&row).iter().map(|goal| goal.met).collect();
        assert_eq!(met, [false, true, false, false, false, false, false]);
        assert_eq!(goals(&row)[0].found, None);
        assert!(goals(&Row { pairs: 100, ..Row::default() }).is_empty());
    }
}
