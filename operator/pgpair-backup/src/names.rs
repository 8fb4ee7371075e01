//! Which files of the WAL a place has, as ranges: a place of a month has 43,000 segments, and mostly one range.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pgpair_core::ids::Lineage;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, WalFile};

use crate::past::Located;

/// Numbers, as ranges that neither overlap nor touch. Each question costs the logarithm of the number of ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds numbers; those that are there already stay.
    pub fn insert(&mut self, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let (mut start, mut end) = (numbers.start, numbers.end);
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            start = start.min(s);
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(start, end);
    }

    /// Takes numbers away.
    pub fn remove(&mut self, numbers: &Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        while let Some((&s, &e)) =
            self.0.range(..numbers.end).next_back().filter(|(_, e)| **e > numbers.start)
        {
            self.0.remove(&s);
            if s < numbers.start {
                self.0.insert(s, numbers.start);
            }
            if e > numbers.end {
                self.0.insert(numbers.end, e);
            }
        }
    }

    /// Where the range ends that has this number; `None` if none has.
    #[must_use]
    pub fn end_of(&self, number: u64) -> Option<u64> {
        self.0.range(..=number).next_back().map(|(_, &end)| end).filter(|end| *end > number)
    }

    /// The first of these numbers that is not there.
    #[must_use]
    pub fn first_missing(&self, numbers: &Range<u64>) -> Option<u64> {
        let reached = self.end_of(numbers.start).unwrap_or(numbers.start);
        (reached < numbers.end).then_some(reached)
    }

    /// Smallest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }
}

/// Segments and histories by name. Existence is what was found by name, or a list that is known to be whole: what is not here is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    segments: BTreeMap<(Lineage, TimelineId), Ranges>,
    histories: BTreeSet<(Lineage, TimelineId)>,
}

impl Names {
    /// Adds a file. The unfinished end of a timeline and labels are no part of a chain: recovery never asks for them.
    pub fn insert(&mut self, lineage: Lineage, file: WalFile) {
        match file {
            WalFile::Segment(Segment { timeline, number }) => {
                self.insert_segments(lineage, timeline, number..number.saturating_add(1));
            }
            WalFile::History(timeline) => {
                self.histories.insert((lineage, timeline));
            }
            WalFile::Partial(_) | WalFile::BackupLabel => {}
        }
    }

    /// Adds segments.
    pub fn insert_segments(&mut self, lineage: Lineage, timeline: TimelineId, numbers: Range<u64>) {
        self.segments.entry((lineage, timeline)).or_default().insert(numbers);
    }

    /// Takes segments away.
    pub fn remove_segments(&mut self, lineage: Lineage, timeline: TimelineId, numbers: &Range<u64>) {
        if let Some(ranges) = self.segments.get_mut(&(lineage, timeline)) {
            ranges.remove(numbers);
        }
    }

    /// Whether it has a segment.
    #[must_use]
    pub fn has(&self, wanted: Located) -> bool {
        let ranges = self.segments.get(&(wanted.lineage, wanted.segment.timeline));
        ranges.is_some_and(|r| r.end_of(wanted.segment.number).is_some())
    }

    /// Whether it has the history of a timeline. The first timeline has none, and needs none.
    #[must_use]
    pub fn has_history(&self, lineage: Lineage, timeline: TimelineId) -> bool {
        timeline == TimelineId(1) || self.histories.contains(&(lineage, timeline))
    }

    /// The segments of one timeline.
    #[must_use]
    pub fn on(&self, lineage: Lineage, timeline: TimelineId) -> Option<&Ranges> {
        self.segments.get(&(lineage, timeline))
    }

    /// Ranges of segments of one lineage, by timeline.
    pub fn of(&self, lineage: Lineage) -> impl Iterator<Item = (TimelineId, Range<u64>)> {
        let own = self.segments.iter().filter(move |((l, _), _)| *l == lineage);
        own.flat_map(|((_, t), ranges)| ranges.iter().map(move |range| (*t, range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Insert(Range<u64>),
        Remove(Range<u64>),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let range = || (0u64..40, 0u64..8).prop_map(|(start, len)| start..start + len);
        let change = prop_oneof![range().prop_map(Change::Insert), range().prop_map(Change::Remove)];
        prop::collection::vec(change, 0..20)
    }

    proptest! {
        #[test]
        fn ranges_are_a_set_of_numbers(changes in changes(), asked in (0u64..50, 0u64..50)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for change in changes {
                match change {
                    Change::Insert(r) => {
                        ranges.insert(r.clone());
                        set.extend(r);
                    }
                    Change::Remove(r) => {
                        ranges.remove(&r);
                        set.retain(|n| !r.contains(n));
                    }
                }
            }
            let all: Vec<Range<u64>> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|w| w[0].end < w[1].start), "{:?}", all);
            prop_assert_eq!(all.into_iter().flatten().collect::<BTreeSet<_>>(), set.clone());
            let asked = asked.0..asked.1;
            prop_assert_eq!(ranges.first_missing(&asked), asked.clone().find(|n| !set.contains(n)));
            prop_assert_eq!(ranges.end_of(asked.start).is_some(), set.contains(&asked.start));
        }
    }

    #[test]
    fn only_whole_segments_and_histories_count() {
        let mut names = Names::default();
        let segment = Segment { timeline: TimelineId(2), number: 3 };
        names.insert(Lineage(1), WalFile::Partial(segment));
        names.insert(Lineage(1), WalFile::BackupLabel);
        let wanted = Located { lineage: Lineage(1), segment };
        assert!(!names.has(wanted));
        names.insert(Lineage(1), WalFile::Segment(segment));
        assert!(names.has(wanted));
        assert!(!names.has(Located { lineage: Lineage(2), ..wanted }), "of another lineage");
        assert!(!names.has_history(Lineage(1), TimelineId(2)));
        names.insert(Lineage(1), WalFile::History(TimelineId(2)));
        assert!(names.has_history(Lineage(1), TimelineId(2)));
    }
}
