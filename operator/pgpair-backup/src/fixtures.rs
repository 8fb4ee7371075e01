//! Pasts and places for tests.

use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{SegmentSize, WalFile};

use crate::names::Names;

pub(crate) const OWN: Lineage = Lineage(1);
pub(crate) const SIZE: SegmentSize = SegmentSize::DEFAULT;
pub(crate) const SEG: u64 = 16 << 20;

/// Of a timeline that left these at these positions.
pub(crate) fn history(timeline: u32, left: &[(u32, u64)]) -> TimelineHistory {
    let ancestors = left.iter().map(|&(t, l)| (TimelineId(t), Lsn(l))).collect();
    TimelineHistory { timeline: TimelineId(timeline), ancestors }
}

/// Segments by timeline, and histories.
pub(crate) fn names(segments: &[(u32, std::ops::Range<u64>)], histories: &[u32]) -> Names {
    let mut names = Names::default();
    for (t, numbers) in segments {
        names.insert_segments(OWN, TimelineId(*t), numbers.clone());
    }
    for t in histories {
        names.insert(OWN, WalFile::History(TimelineId(*t)));
    }
    names
}
