//! What was counted.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::results::{read_json, write_json};

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Of the operator.
    pub commit: Option<String>,
    /// Where it ran.
    pub machine: String,
    /// Brings the same specs again.
    pub seed: u64,
    /// Specs that were sent: created, or written over an earlier one.
    pub specs: usize,
    /// Of them plain, nearly right and hostile.
    pub plain: usize,
    /// See `plain`.
    pub near: usize,
    /// See `plain`.
    pub hostile: usize,
    /// Refused by the API server with a sentence, by its code.
    pub refused_by_server: BTreeMap<u16, usize>,
    /// What became of the others.
    pub taken: BTreeMap<String, usize>,
    /// Sentences of refused writes of the operator, the first of each reason: a spec that passes and cannot be built.
    pub examples: BTreeMap<String, String>,
    /// What a claim was broken by.
    pub broken: Vec<String>,
    /// Writes of the operator in all, and the most for one spec of a batch.
    pub writes: u64,
    /// See `writes`.
    pub writes_per_spec: f64,
    /// Memory of the operator before, at its peak, and when all was gone again.
    pub rss_before_mib: f64,
    /// See `rss_before_mib`.
    pub rss_peak_mib: f64,
    /// See `rss_before_mib`.
    pub rss_after_mib: f64,
    /// How often a change of the good pair came to its agents, and the longest time that one took.
    pub good_changes: usize,
    /// See `good_changes`.
    pub good_slowest_ms: f64,
    /// How long it took.
    pub took_s: f64,
}

/// All runs, one for each seed and number of specs: a new one replaces it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// Those that are there.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn load(path: &Path) -> anyhow::Result<Rows> {
        read_json(path, "holds no runs of specs")
    }

    /// Adds one.
    pub fn put(&mut self, row: Row) {
        self.0.retain(|old| (old.seed, old.specs) != (row.seed, row.specs));
        self.0.push(row);
    }

    /// Writes them.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_that_of_the_same_seed_and_size() {
        let row = |seed, specs, writes| Row { seed, specs, writes, ..Row::default() };
        let mut rows = Rows::default();
        for next in [row(1, 10, 5), row(2, 10, 6), row(1, 10, 7)] {
            rows.put(next);
        }
        assert_eq!(rows.0, [row(2, 10, 6), row(1, 10, 7)]);
    }
}
