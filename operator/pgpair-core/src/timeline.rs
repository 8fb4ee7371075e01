//! Timelines and their history files (PostgreSQL, "Continuous Archiving", section Timelines).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// Number of a timeline: one line of history of the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ancestors of a timeline, oldest first, each with the position at which it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// Ancestor and switch point, oldest first.
    pub ancestors: Vec<(TimelineId, Lsn)>,
}

/// A history file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the history file of timeline {timeline} is not understood: {text:?}")]
pub struct HistoryError {
    /// The timeline whose file was read.
    pub timeline: TimelineId,
    /// Line number from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// How the write-ahead log of a data directory relates to the history of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ancestry {
    /// Everything up to the end is part of the primary's past: it may simply follow.
    Contained,
    /// The log goes beyond the point at which the primary's history left this timeline.
    Diverged {
        /// Where the two part.
        fork: Lsn,
    },
    /// The timeline is not in the primary's history at all.
    Unrelated,
}

impl TimelineHistory {
    /// Whether `timeline` is this one or an ancestor of it.
    #[must_use]
    pub fn includes(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.ancestors.iter().any(|(ancestor, _)| *ancestor == timeline)
    }

    /// The history of timeline 1, which has no history file.
    #[must_use]
    pub fn first() -> Self {
        TimelineHistory { timeline: TimelineId(1), ancestors: Vec::new() }
    }

    /// Reads the text of `NNNNNNNN.history` of `timeline`.
    ///
    /// # Errors
    /// Names the first line that has not the form `timeline LSN reason`, or whose numbers do not grow.
    pub fn parse(timeline: TimelineId, text: &str) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<(TimelineId, Lsn)> = Vec::new();
        for (n, raw) in text.lines().enumerate() {
            let line = raw.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let err = || HistoryError { timeline, line: n + 1, text: raw.to_owned() };
            let mut words = line.split_whitespace();
            let tli = words.next().and_then(|w| w.parse().ok()).map(TimelineId).ok_or_else(err)?;
            let lsn: Lsn = words.next().and_then(|w| w.parse().ok()).ok_or_else(err)?;
            let grows = ancestors.last().is_none_or(|(t, l)| *t < tli && *l <= lsn);
            if !grows || tli >= timeline {
                return Err(err());
            }
            ancestors.push((tli, lsn));
        }
        Ok(TimelineHistory { timeline, ancestors })
    }

    /// How a log that ends at `end` on `timeline` relates to this history.
    #[must_use]
    pub fn ancestry_of(&self, timeline: TimelineId, end: Lsn) -> Ancestry {
        if timeline == self.timeline {
            return Ancestry::Contained;
        }
        match self.ancestors.iter().find(|(t, _)| *t == timeline) {
            Some((_, fork)) if end <= *fork => Ancestry::Contained,
            Some((_, fork)) => Ancestry::Diverged { fork: *fork },
            None => Ancestry::Unrelated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";

    #[test]
    fn a_log_is_contained_only_up_to_the_switch_point() {
        let h = TimelineHistory::parse(TimelineId(3), TEXT).unwrap();
        let at = |t, l| h.ancestry_of(TimelineId(t), Lsn(l));
        assert_eq!(at(1, 0x300_0148), Ancestry::Contained);
        assert_eq!(at(1, 0x300_0149), Ancestry::Diverged { fork: Lsn(0x300_0148) });
        assert_eq!(at(3, 0x900_0000), Ancestry::Contained);
        assert_eq!(at(4, 0), Ancestry::Unrelated);
    }

    #[test]
    fn a_history_that_does_not_grow_is_refused() {
        assert!(TimelineHistory::parse(TimelineId(2), "2\t0/1\tx\n").is_err());
        assert!(TimelineHistory::parse(TimelineId(4), "2\t0/5\tx\n1\t0/6\ty\n").is_err());
        assert!(TimelineHistory::parse(TimelineId(2), "one\t0/1\n").is_err());
    }
}
