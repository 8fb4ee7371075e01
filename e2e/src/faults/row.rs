//! Rows of `target/e2e/faults.json`: one for each fault, durability and direction.

use std::fmt;
use std::path::Path;

use pgpair_core::authority::Durability;
use pgpair_core::authority::timing::DEFAULT_TTL_MS;
use pgpair_core::ids::InstanceId;
use serde::{Deserialize, Serialize};

use crate::faults::kind::{Entry, Kind};
use crate::results::{read_json, write_json};

/// Length of a promise in milliseconds. The pairs on which faults are made set none.
const TTL_MS: f64 = DEFAULT_TTL_MS as f64;

/// What is run: a kind of fault, under a durability, on a pair whose primary is the named instance.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The kind.
    pub entry: &'static Entry,
    /// What a commit waits for.
    pub durability: Durability,
    /// Who is primary before the fault.
    pub primary: InstanceId,
    /// From which everything that is random about it is drawn.
    pub seed: u64,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the kind.
    pub fault: String,
    /// `Sync`, `SyncStrict` or `Async`.
    pub durability: String,
    /// Who was primary: `a` or `b`.
    pub primary: String,
    /// Of the case.
    pub seed: u64,
    /// Commit of this repository.
    pub commit: Option<String>,
    /// When.
    pub began: jiff::Timestamp,
    /// What was found; absent when the case could not be carried out.
    pub found: Option<Found>,
    /// No fault was on, and the pair was not `Paired` again in time, or served nobody: a person would be needed.
    pub human: bool,
    /// Why the row says so, or what else went wrong, in one line.
    pub trouble: Option<String>,
}

/// Figures of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Longest time without an acknowledgement for the client through the read-write Service, in milliseconds.
    pub gap_ms: f64,
    /// From the fault until the last acknowledgement of the old primary on its old timeline, to whomever, in milliseconds; absent
    /// when nobody took over.
    #[serde(default)]
    pub old_acked_ms: Option<f64>,
    /// How long it took to make the fault, in milliseconds: before its end, not all of it was on. Counted from where `old_acked_ms`
    /// is.
    #[serde(default)]
    pub made_ms: f64,
    /// What was done otherwise than the catalog says, which is no fault of the pair; absent when all was done so.
    #[serde(default)]
    pub note: Option<String>,
    /// Numbers acknowledged, by whomever.
    pub acknowledged: usize,
    /// Of them, those that were gone afterwards.
    pub rows_lost: usize,
    /// Acknowledgements that prove two servers at once.
    pub late_acks: usize,
    /// From the end of the fault until the record said `Paired` for good, in seconds; 0 when it always did.
    pub paired_s: f64,
    /// Writes to the API server by agents and operator, from the fault until the pair was whole.
    pub api_writes: Option<ApiWrites>,
    /// What the record said, such as `Paired 3 a, Solo 4 b, Paired 4 b`.
    pub record: String,
    /// Cause of the change of primary, as the status tells it; absent without one.
    pub cause: Option<String>,
    /// Whether the one is primary who was to be expected.
    pub expected: bool,
    /// Containers and postmasters that the fault must leave alone, and that have ended all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
    /// What was equal on both instances at the end, or what was not.
    pub compared: String,
    /// Whether it was.
    pub equal: bool,
}

/// Writes by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiWrites {
    /// Of the pair's agents.
    pub agents: usize,
    /// Of the operator, for this pair.
    pub operator: usize,
}

impl ApiWrites {
    /// Both.
    #[must_use]
    pub fn all(self) -> usize {
        self.agents + self.operator
    }
}

impl Row {
    /// Whether it is of this case, whatever the seed was.
    #[must_use]
    pub fn is_of(&self, case: &Case) -> bool {
        self.fault == case.entry.name
            && self.durability == case.durability.as_str()
            && self.primary == case.primary.as_str()
    }

    /// Nothing lost that was promised, never two servers, both instances equal, the expected one primary, one that only its promise
    /// could stop was stopped by it, and nobody needed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.trouble.is_none() && self.amiss().is_empty()
    }

    /// What of that does not hold, for people.
    fn amiss(&self) -> Vec<&'static str> {
        let Some(found) = &self.found else {
            return if self.human { vec!["a person is needed"] } else { vec!["no verdict"] };
        };
        let all = [
            (self.human, "a person is needed"),
            (found.late_acks > 0, "two servers acknowledged at once"),
            (found.rows_lost > 0 && self.durability != "Async", "acknowledged rows are lost"),
            (found.acknowledged == 0, "nothing was acknowledged"),
            (!found.equal, "the instances are not equal"),
            (!found.expected, "another one is primary than was to be expected"),
            (!found.ended.is_empty(), "a process has ended that the fault must leave alone"),
            (!self.was_stopped_in_time(found), "the old primary acknowledged beyond its promise"),
        ];
        all.into_iter().filter(|(wrong, _)| *wrong).map(|(_, word)| word).collect()
    }

    /// Its last answered heartbeat was sent before all of the fault was on.
    fn was_stopped_in_time(&self, found: &Found) -> bool {
        let by_promise = Kind::named(&self.fault).is_some_and(|entry| entry.kind.is_stopped_by_its_promise());
        !by_promise || found.old_acked_ms.is_none_or(|ms| ms - found.made_ms < TTL_MS)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds() { "ok  " } else { "BAD " };
        write!(f, "{word} {} {} {}", self.fault, self.durability, self.primary)?;
        match self.amiss() {
            amiss if amiss.is_empty() => write!(f, ": ")?,
            amiss => write!(f, " ({}): ", amiss.join(", "))?,
        }
        if let Some(found) = &self.found {
            let writes = found.api_writes.map_or("?".to_owned(), |w| w.all().to_string());
            write!(
                f,
                "gap {:.0} ms, {} acknowledged, {} lost, {} late, Paired after {:.1} s, {writes} writes, {}{}; {}; {}",
                found.gap_ms,
                found.acknowledged,
                found.rows_lost,
                found.late_acks,
                found.paired_s,
                found.cause.as_deref().unwrap_or("no failover"),
                if found.expected { "" } else { " (unexpected)" },
                found.record,
                found.compared
            )?;
            if !found.ended.is_empty() {
                write!(f, "; ended: {}", found.ended.join(", "))?;
            }
            if let Some(note) = &found.note {
                write!(f, "; {note}")?;
            }
        }
        match &self.trouble {
            Some(trouble) => write!(f, " {trouble}"),
            None => write!(f, " (seed {})", self.seed),
        }
    }
}

/// Rows of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// What earlier runs left; empty without a file.
    ///
    /// # Errors
    /// When the file is there and holds no such rows.
    pub fn load(path: &Path) -> anyhow::Result<Rows> {
        read_json(path, "holds no rows of faults").map(Rows)
    }

    /// Whether a row of this case is there.
    #[must_use]
    pub fn has(&self, case: &Case) -> bool {
        self.0.iter().any(|row| row.is_of(case))
    }

    /// Puts a row in the place of an earlier one of the same case.
    pub fn put(&mut self, row: Row) {
        let same = |r: &&mut Row| {
            (&r.fault, &r.durability, &r.primary) == (&row.fault, &row.durability, &row.primary)
        };
        match self.0.iter_mut().find(same) {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(fault: &str, durability: &str, primary: &str) -> Row {
        Row {
            fault: fault.into(),
            durability: durability.into(),
            primary: primary.into(),
            seed: 7,
            commit: None,
            began: jiff::Timestamp::UNIX_EPOCH,
            found: Some(Found {
                gap_ms: 212.4,
                old_acked_ms: Some(31.0),
                made_ms: 12.0,
                note: None,
                acknowledged: 500,
                rows_lost: 0,
                late_acks: 0,
                paired_s: 3.21,
                api_writes: Some(ApiWrites { agents: 4, operator: 3 }),
                record: "Paired 1 a, Solo 2 b, Paired 2 b".into(),
                cause: Some("Resigned".into()),
                expected: true,
                ended: Vec::new(),
                compared: "2 tables, 130 indexes".into(),
                equal: true,
            }),
            human: false,
            trouble: None,
        }
    }

    fn with(change: impl Fn(&mut Found)) -> Row {
        let mut row = row("agent-kill", "Sync", "a");
        row.found.iter_mut().for_each(change);
        row
    }

    #[test]
    fn a_row_is_told_in_one_line() {
        assert_eq!(
            row("agent-kill", "Sync", "a").to_string(),
            "ok   agent-kill Sync a: gap 212 ms, 500 acknowledged, 0 lost, 0 late, Paired after 3.2 s, 7 writes, Resigned; \
             Paired 1 a, Solo 2 b, Paired 2 b; 2 tables, 130 indexes (seed 7)"
        );
    }

    #[test]
    fn a_loss_a_late_acknowledgement_a_difference_or_a_person_is_no_success() {
        assert!(row("agent-kill", "Sync", "a").holds());
        assert!(!with(|f| f.rows_lost = 1).holds());
        assert!(!with(|f| f.late_acks = 1).holds());
        assert!(!with(|f| f.equal = false).holds());
        assert!(!with(|f| f.acknowledged = 0).holds(), "nothing was tried");
        assert!(!Row { human: true, ..with(|_| {}) }.holds());
        assert!(!Row { found: None, ..with(|_| {}) }.holds());
    }

    #[test]
    fn another_primary_than_the_expected_one_is_no_success() {
        let row = with(|f| f.expected = false);
        assert!(!row.holds());
        let told = "BAD  agent-kill Sync a (another one is primary than was to be expected): gap 212 ms";
        assert!(row.to_string().starts_with(told), "{row}");
    }

    #[test]
    fn a_process_that_ended_where_none_may_is_no_success() {
        let row = with(|f| f.ended = vec!["the postmaster of a".into()]);
        assert!(!row.holds());
        let told = row.to_string();
        assert!(told.contains("(a process has ended that the fault must leave alone)"), "{told}");
        assert!(told.contains("; ended: the postmaster of a (seed 7)"), "{told}");
    }

    #[test]
    fn one_that_only_its_promise_stops_acknowledges_nothing_beyond_it() {
        let until = |fault: &str, old_acked_ms, made_ms| {
            let found = with(|f| (f.old_acked_ms, f.made_ms) = (Some(old_acked_ms), made_ms));
            Row { fault: fault.into(), ..found }
        };
        assert!(until("isolation", 4_999.0, 0.0).holds());
        let beyond = until("isolation", 5_000.0, 0.0);
        assert!(!beyond.holds());
        assert!(
            beyond.to_string().contains("(the old primary acknowledged beyond its promise): "),
            "{beyond}"
        );
        assert!(until("agent-stop", 5_200.0, 201.0).holds(), "it was not stopped at once");
        assert!(until("postmaster-stop", 12_472.0, 0.0).holds(), "its agent decides when");
    }

    #[test]
    fn what_was_done_otherwise_is_told_and_no_fault_of_the_pair() {
        let row = with(|f| f.note = Some("another backend".into()));
        assert!(row.holds() && row.to_string().ends_with("130 indexes; another backend (seed 7)"), "{row}");
    }

    #[test]
    fn a_row_of_an_earlier_run_is_read() {
        let mut json = serde_json::to_value(row("isolation", "Sync", "a")).unwrap();
        for key in ["old_acked_ms", "made_ms", "note"] {
            json["found"].as_object_mut().unwrap().remove(key).unwrap();
        }
        assert!(serde_json::from_value::<Row>(json).unwrap().holds());
    }

    #[test]
    fn async_may_lose_rows_and_still_not_acknowledge_twice() {
        assert!(Row { durability: "Async".into(), ..with(|f| f.rows_lost = 3) }.holds());
        assert!(!Row { durability: "Async".into(), ..with(|f| f.late_acks = 3) }.holds());
    }

    #[test]
    fn a_later_row_replaces_that_of_the_same_case_only() {
        let mut rows = Rows(vec![row("agent-kill", "Sync", "a"), row("agent-kill", "Sync", "b")]);
        rows.put(Row { seed: 8, ..row("agent-kill", "Sync", "b") });
        rows.put(row("agent-kill", "Async", "b"));
        assert_eq!(rows.0.iter().map(|r| r.seed).collect::<Vec<_>>(), [7, 8, 7]);
    }
}
