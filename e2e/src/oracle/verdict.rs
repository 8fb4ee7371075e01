//! What an oracle's records and the rows found at the end say. Pure.
//!
//! Judged by server, timeline and position, never by the time of arrival alone: the kernel of a server that was cut off
//! and comes back may still deliver acknowledgements of commits that it made, and replicated, before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pgpair_core::lsn::Lsn;
use serde::Serialize;

use crate::oracle::event::{Ack, Reign};

/// Why an acknowledgement by an earlier reign proves two writers at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LateReason {
    /// The statement was sent after the later reign had acknowledged its first number.
    SentAfter,
    /// The commit lies behind the first position that the later reign wrote.
    PositionAfter,
}

/// An acknowledgement by an earlier reign that should not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Late {
    /// The acknowledgement.
    pub ack: Ack,
    /// The reign that had begun.
    pub began: Reign,
    /// What proves it.
    pub reason: LateReason,
}

/// One server's time as primary, as the clients saw it. Times in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReignSummary {
    /// Who.
    pub reign: Reign,
    /// Numbers acknowledged.
    pub acks: usize,
    /// Arrival of the first acknowledgement.
    pub first_us: i64,
    /// Arrival of the last acknowledgement.
    pub last_us: i64,
    /// Lowest position acknowledged.
    pub first_lsn: Lsn,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Numbers acknowledged, by whomever.
    pub acknowledged: usize,
    /// Rows found at the end.
    pub rows: usize,
    /// Acknowledged numbers that are not among the rows: lost.
    pub missing: Vec<i64>,
    /// Acknowledgements that prove two writers at once.
    pub late: Vec<Late>,
    /// Who acknowledged, in the order of their reigns.
    pub reigns: Vec<ReignSummary>,
    /// Between one reign and the next: last acknowledgement to first acknowledgement, microseconds; negative when they
    /// overlap in arrival.
    pub gaps_us: Vec<i64>,
}

impl Verdict {
    /// Nothing lost, and never two writers.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.late.is_empty()
    }

    /// The same for a pair whose commits do not wait for the standby: there a primary that is cut off acknowledges, until it is
    /// fenced, what its successor never gets, so that a position proves nothing. Times do.
    #[must_use]
    pub fn without_positions(mut self) -> Verdict {
        self.late.retain(|late| late.reason == LateReason::SentAfter);
        self
    }

    /// The longest gap between two reigns in milliseconds; `None` when there was one reign only.
    #[must_use]
    pub fn longest_gap_ms(&self) -> Option<f64> {
        self.gaps_us.iter().max().map(|us| micros_to_ms(*us))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} missing, {} late",
            self.acknowledged,
            self.missing.len(),
            self.late.len()
        )?;
        for (summary, gap) in
            self.reigns.iter().zip(std::iter::once(None).chain(self.gaps_us.iter().map(Some)))
        {
            if let Some(gap) = gap {
                write!(f, "; gap {:.0} ms", micros_to_ms(*gap))?;
            }
            write!(f, "; {} acknowledged {}", summary.reign, summary.acks)?;
        }
        Ok(())
    }
}

/// The longest time between two acknowledgements that follow each other in arrival, in milliseconds; 0 for less than two.
#[must_use]
pub fn longest_silence_ms<'a>(acks: impl IntoIterator<Item = &'a Ack>) -> f64 {
    let mut arrivals: Vec<i64> = acks.into_iter().map(|ack| ack.acked_us).collect();
    arrivals.sort_unstable();
    micros_to_ms(arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "for people; a gap of 2^52 microseconds is 142 years")]
fn micros_to_ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

/// Judges what was acknowledged by what is there.
///
/// `clock_error_us`: how far the clocks of two oracles may lie apart; 0 when all ran on one machine.
#[must_use]
pub fn judge<'a>(
    acks: impl IntoIterator<Item = &'a Ack>,
    rows: impl IntoIterator<Item = i64>,
    clock_error_us: i64,
) -> Verdict {
    let acks: Vec<&Ack> = acks.into_iter().collect();
    let rows: BTreeSet<i64> = rows.into_iter().collect();
    let reigns = reigns(&acks);
    Verdict {
        acknowledged: acks.len(),
        rows: rows.len(),
        missing: acks.iter().map(|ack| ack.n).filter(|n| !rows.contains(n)).collect(),
        late: late(&acks, &reigns, clock_error_us),
        gaps_us: reigns.windows(2).map(|pair| pair[1].first_us - pair[0].last_us).collect(),
        reigns,
    }
}

fn reigns(acks: &[&Ack]) -> Vec<ReignSummary> {
    let mut found: BTreeMap<&Reign, ReignSummary> = BTreeMap::new();
    for ack in acks {
        let entry = found.entry(&ack.reign).or_insert_with(|| ReignSummary {
            reign: ack.reign.clone(),
            acks: 0,
            first_us: ack.acked_us,
            last_us: ack.acked_us,
            first_lsn: ack.lsn,
        });
        entry.acks += 1;
        entry.first_us = entry.first_us.min(ack.acked_us);
        entry.last_us = entry.last_us.max(ack.acked_us);
        entry.first_lsn = entry.first_lsn.min(ack.lsn);
    }
    let mut reigns: Vec<ReignSummary> = found.into_values().collect();
    // One timeline under two addresses is one instance whose pod was replaced: time tells which came first.
    reigns.sort_by_key(|r| (r.reign.timeline, r.first_us));
    reigns
}

/// Each acknowledgement is held against every later reign, and named once.
fn late(acks: &[&Ack], reigns: &[ReignSummary], clock_error_us: i64) -> Vec<Late> {
    let order: BTreeMap<&Reign, usize> = reigns.iter().enumerate().map(|(i, r)| (&r.reign, i)).collect();
    let reason = |ack: &Ack, later: &ReignSummary| {
        if ack.sent_us > later.first_us + clock_error_us {
            Some(LateReason::SentAfter)
        } else if ack.lsn >= later.first_lsn {
            Some(LateReason::PositionAfter)
        } else {
            None
        }
    };
    acks.iter()
        .filter_map(|ack| {
            let later = &reigns[order.get(&ack.reign)? + 1..];
            later.iter().find_map(|began| {
                let reason = reason(ack, began)?;
                Some(Late { ack: (*ack).clone(), began: began.reign.clone(), reason })
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent at `ms`, acknowledged 2 ms later, at a position that grows with time.
    fn ack(n: i64, ms: i64, timeline: u32) -> Ack {
        Ack {
            n,
            sent_us: ms * 1000,
            acked_us: ms * 1000 + 2000,
            reign: Reign { timeline, server: format!("10.0.0.{timeline}:5432") },
            lsn: Lsn(0x1000 + u64::try_from(ms).unwrap() * 16),
        }
    }

    /// Two numbers by the old primary, one of unknown outcome (3), two by the new one.
    fn failover() -> Vec<Ack> {
        vec![ack(1, 0, 1), ack(2, 20, 1), ack(4, 720, 2), ack(5, 740, 2)]
    }

    #[test]
    fn a_clean_failover_holds_and_its_gap_is_last_to_first_acknowledgement() {
        let verdict = judge(&failover(), [1, 2, 4, 5], 0);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!(verdict.longest_gap_ms(), Some(700.0));
        assert_eq!(verdict.reigns.iter().map(|r| r.acks).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(
            verdict.to_string(),
            "4 acknowledged, 0 missing, 0 late; 10.0.0.1:5432 (timeline 1) acknowledged 2; gap 700 ms; \
             10.0.0.2:5432 (timeline 2) acknowledged 2"
        );
    }

    #[test]
    fn where_commits_do_not_wait_only_time_proves_two_writers() {
        let beyond = Ack { lsn: Lsn(0x1000 + 16 * 900), ..ack(3, 40, 1) };
        let sent_after = ack(6, 800, 1);
        let acks: Vec<Ack> = failover().into_iter().chain([beyond, sent_after]).collect();
        let verdict = judge(&acks, [1, 2, 4, 5], 0);
        assert_eq!(verdict.late.iter().map(|l| l.ack.n).collect::<Vec<_>>(), [3, 6]);
        let verdict = verdict.without_positions();
        assert_eq!(verdict.late.iter().map(|l| l.ack.n).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn an_acknowledged_number_without_a_row_is_missing() {
        let verdict = judge(&failover(), [1, 4, 5], 0);
        assert_eq!(verdict.missing, [2]);
        assert!(!verdict.holds());
    }

    #[test]
    fn a_row_without_an_acknowledgement_is_no_fault() {
        assert!(judge(&failover(), [1, 2, 3, 4, 5], 0).holds());
    }

    #[test]
    fn a_statement_sent_to_the_old_primary_after_the_new_ones_first_acknowledgement_is_late() {
        let mut acks = failover();
        acks.push(Ack { lsn: Lsn(0x1001), ..ack(6, 800, 1) });
        let verdict = judge(&acks, [1, 2, 4, 5, 6], 0);
        assert_eq!(
            verdict.late.iter().map(|l| (l.ack.n, &l.reason)).collect::<Vec<_>>(),
            [(6, &LateReason::SentAfter)]
        );
        assert!(!verdict.holds());
        assert!(
            judge(&acks, [1, 2, 4, 5, 6], 1_000_000).holds(),
            "inside the error of the clocks it proves nothing"
        );
    }

    #[test]
    fn a_commit_of_the_old_primary_behind_the_fork_is_late_however_early_it_was_sent() {
        let mut acks = failover();
        acks.push(Ack { lsn: Lsn(0x9_0000), ..ack(3, 40, 1) });
        let verdict = judge(&acks, [1, 2, 3, 4, 5], 0);
        assert_eq!(verdict.late.iter().map(|l| &l.reason).collect::<Vec<_>>(), [&LateReason::PositionAfter]);
    }

    #[test]
    fn an_acknowledgement_delivered_late_for_a_replicated_commit_is_no_second_writer() {
        let mut acks = failover();
        acks.push(Ack { acked_us: 9_000_000, ..ack(3, 40, 1) });
        let verdict = judge(&acks, [1, 2, 3, 4, 5], 0);
        assert!(verdict.holds(), "{verdict}");
    }

    #[test]
    fn a_second_server_on_the_same_timeline_is_held_to_the_same_rule() {
        let mut acks = failover();
        acks.push(Ack { reign: Reign { timeline: 2, server: "10.0.0.9:5432".into() }, ..ack(6, 730, 2) });
        let verdict = judge(&acks, [1, 2, 4, 5, 6], 0);
        assert_eq!(verdict.late.iter().map(|l| l.ack.n).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn three_reigns_have_two_gaps() {
        let mut acks = failover();
        acks.push(ack(6, 1740, 3));
        let verdict = judge(&acks, [1, 2, 4, 5, 6], 0);
        assert_eq!(verdict.gaps_us, [700_000, 1_000_000]);
    }

    #[test]
    fn silence_is_counted_whoever_answers_before_and_after() {
        assert_eq!(longest_silence_ms(&failover()), 700.0);
        assert_eq!(longest_silence_ms(&[ack(2, 2500, 1), ack(1, 0, 1)]), 2500.0);
        assert_eq!(longest_silence_ms(&[ack(1, 0, 1)]), 0.0);
    }

    #[test]
    fn no_acknowledgement_at_all_gives_an_empty_verdict() {
        let verdict = judge([], [], 0);
        assert!(verdict.holds());
        assert_eq!((verdict.acknowledged, verdict.longest_gap_ms()), (0, None));
    }
}
