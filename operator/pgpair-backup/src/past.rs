//! The past of one timeline: which timeline, and which lineage, holds each segment on the way to it.

use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, SegmentSize};

/// Where a lineage begins: `lineage.json` says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The lineage.
    pub lineage: Lineage,
    /// The timeline of the parent lineage that it left; its own timelines have higher numbers. 0 for a lineage that `initdb` began.
    pub after: TimelineId,
}

/// One timeline on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The lineage that wrote it.
    pub lineage: Lineage,
    /// Its number.
    pub timeline: TimelineId,
    /// Where it was left; `None`: it is the last one.
    pub until: Option<Lsn>,
}

/// Where a segment is to be looked for. Timelines of two lineages may have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Located {
    /// The lineage that wrote it.
    pub lineage: Lineage,
    /// Its name.
    pub segment: Segment,
}

/// The legs from the first timeline to one timeline, oldest first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    before: Vec<Leg>,
    last: Leg,
}

/// Segments with consecutive numbers on one leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The leg that holds them.
    pub leg: Leg,
    /// Their numbers. `u64::MAX` at the end: without an end.
    pub numbers: std::ops::Range<u64>,
}

impl Past {
    /// The past of a pair that `initdb` began.
    #[must_use]
    pub fn of_one(lineage: Lineage, history: &TimelineHistory) -> Past {
        let leg = |(timeline, until)| Leg { lineage, timeline, until };
        Past {
            before: history.ancestors.iter().map(|&(t, left)| leg((t, Some(left)))).collect(),
            last: leg((history.timeline, None)),
        }
    }

    /// The past of a pair that was recovered from another's, whose lineages begin at `origins`, oldest first. `None` if a timeline of the
    /// history is older than all of them.
    #[must_use]
    pub fn across(origins: &[Origin], history: &TimelineHistory) -> Option<Past> {
        let owner = |t: TimelineId| origins.iter().rev().find(|o| o.after < t).map(|o| o.lineage);
        let own = |leg: &Leg| Some(Leg { lineage: owner(leg.timeline)?, ..*leg });
        let past = Past::of_one(Lineage(0), history);
        let before = past.before.iter().map(own).collect::<Option<Vec<Leg>>>()?;
        Some(Past { before, last: own(&past.last)? })
    }

    /// The timeline whose past it is.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.last.timeline
    }

    /// The lineage of that timeline.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.last.lineage
    }

    /// Oldest first.
    pub fn legs(&self) -> impl DoubleEndedIterator<Item = &Leg> {
        self.before.iter().chain([&self.last])
    }

    /// Whether all that was written up to `end` on this timeline of this lineage belongs to the past.
    #[must_use]
    pub fn contains(&self, lineage: Lineage, timeline: TimelineId, end: Lsn) -> bool {
        let leg = self.legs().find(|leg| leg.timeline == timeline && leg.lineage == lineage);
        leg.is_some_and(|leg| leg.until.is_none_or(|left| end <= left))
    }

    /// Segments by leg, oldest first. A segment in which a timeline was left belongs to the younger one, which begins with the same
    /// bytes: recovery reads that one.
    #[must_use]
    pub fn runs(&self, numbers: std::ops::Range<u64>, size: SegmentSize) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut begin = 0;
        for leg in self.legs() {
            let end = leg.until.map_or(u64::MAX, |left| left.0 / size.bytes());
            let within = numbers.start.max(begin)..numbers.end.min(end);
            if !within.is_empty() {
                runs.push(Run { leg: *leg, numbers: within });
            }
            begin = begin.max(end);
        }
        runs
    }

    /// The leg that holds a segment.
    #[must_use]
    pub fn leg_of(&self, number: u64, size: SegmentSize) -> Leg {
        let mut runs = self.runs(number..number.saturating_add(1), size);
        runs.pop().map_or(self.last, |run| run.leg)
    }
}

/// Numbers of the segments that hold the bytes from `from` up to, not including, `to`.
#[must_use]
pub fn segments_of(from: Lsn, to: Lsn, size: SegmentSize) -> std::ops::Range<u64> {
    let first = from.0 / size.bytes();
    if to <= from { first..first } else { first..(to.0 - 1) / size.bytes() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const SEG: u64 = 16 << 20;

    fn history(timeline: u32, left: &[(u32, u64)]) -> TimelineHistory {
        TimelineHistory {
            timeline: TimelineId(timeline),
            ancestors: left.iter().map(|&(t, l)| (TimelineId(t), Lsn(l))).collect(),
        }
    }

    #[test]
    fn the_segment_of_a_fork_belongs_to_the_younger_timeline() {
        let past = Past::of_one(Lineage(1), &history(3, &[(1, 5 * SEG + 8), (2, 7 * SEG)]));
        let on: Vec<u32> = (4..9).map(|n| past.leg_of(n, SIZE).timeline.0).collect();
        assert_eq!(on, [1, 2, 2, 3, 3], "5 is left in the middle, 7 at its first byte");
    }

    #[test]
    fn a_timeline_that_was_left_at_once_holds_nothing() {
        let past = Past::of_one(Lineage(1), &history(3, &[(1, 5 * SEG + 8), (2, 5 * SEG + 9)]));
        assert_eq!(past.leg_of(5, SIZE).timeline, TimelineId(3));
        assert!(past.runs(0..9, SIZE).iter().all(|run| run.leg.timeline != TimelineId(2)));
    }

    #[test]
    fn timelines_above_that_of_the_fork_are_of_the_younger_lineage() {
        let origins = [
            Origin { lineage: Lineage(1), after: TimelineId(0) },
            Origin { lineage: Lineage(2), after: TimelineId(4) },
        ];
        let past = Past::across(&origins, &history(6, &[(1, SEG), (4, 2 * SEG), (5, 3 * SEG)])).unwrap();
        let of: Vec<u64> = past.legs().map(|leg| leg.lineage.0).collect();
        assert_eq!(of, [1, 1, 2, 2]);
        assert!(past.contains(Lineage(1), TimelineId(4), Lsn(2 * SEG)));
        assert!(
            !past.contains(Lineage(2), TimelineId(4), Lsn(2 * SEG)),
            "the number is the same, the past is not"
        );
        assert!(!past.contains(Lineage(1), TimelineId(4), Lsn(2 * SEG + 1)), "after it was left");
        assert_eq!(Past::across(&origins[1..], &history(6, &[(1, SEG)])), None);
    }

    #[test]
    fn a_position_at_the_first_byte_of_a_segment_ends_in_the_one_before() {
        assert_eq!(segments_of(Lsn(SEG), Lsn(3 * SEG), SIZE), 1..3);
        assert_eq!(segments_of(Lsn(SEG), Lsn(3 * SEG + 1), SIZE), 1..4);
        assert!(segments_of(Lsn(SEG), Lsn(SEG), SIZE).is_empty());
        assert!(segments_of(Lsn(2 * SEG), Lsn(SEG), SIZE).is_empty());
    }

    proptest! {
        /// PostgreSQL's rule (`XLogFileReadAnyTLI`), number by number: the youngest timeline that begins in this segment or before it.
        #[test]
        fn every_segment_is_on_the_youngest_timeline_that_has_begun(
            bits in 20u32..=30, steps in prop::collection::vec((1u32..3, 0u64..4 << 20), 0..5), numbers in (0u64..40, 0u64..40),
        ) {
            let size = SegmentSize::new(1 << bits).unwrap();
            let (mut t, mut at, mut left) = (1, 0, Vec::new());
            for (step, bytes) in steps {
                at += bytes << (bits - 20);
                left.push((t, at));
                t += step;
            }
            let past = Past::of_one(Lineage(1), &history(t, &left));
            let by_rule = |n: u64| {
                let begun = left.iter().rev().find(|(_, at)| at >> bits <= n).map(|(before, _)| *before);
                let next = begun.and_then(|b| left.iter().position(|(t, _)| *t == b));
                let next = next.map_or(0, |i| i + 1);
                left.get(next).map_or(t, |(t, _)| *t)
            };
            let runs = past.runs(numbers.0..numbers.1, size);
            let mut seen = Vec::new();
            for run in &runs {
                for n in run.numbers.clone() {
                    prop_assert_eq!(run.leg.timeline.0, by_rule(n), "{}", n);
                    seen.push(n);
                }
            }
            prop_assert_eq!(seen, (numbers.0..numbers.1).collect::<Vec<_>>());
        }
    }
}
