//! Whether the WAL between two positions is there: a chain is made of segments and histories without a gap.

use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, SegmentSize};

use crate::names::Names;
use crate::past::{Leg, Located, Past, segments_of};

/// What recovery would ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A segment.
    Segment(Located),
    /// The history of a timeline.
    History(Lineage, TimelineId),
}

/// Why a file is not in the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Kind {
    /// The server has not finished it.
    NotWrittenYet,
    /// It is elsewhere, and its turn will come.
    Waiting,
    /// It is being copied.
    Copying,
    /// The server has finished it, and it is nowhere that is known.
    Lost,
    /// What the server has written, or what is elsewhere, is not known.
    Unknown,
}

/// Whether the chain is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Every file is there.
    Complete,
    /// Not every one.
    Missing {
        /// The first that recovery would not find: histories before segments, then by position.
        first: Wanted,
        /// Why.
        kind: Kind,
    },
}

/// How far the primary has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Of the pair.
    pub lineage: Lineage,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Up to here.
    pub end: Lsn,
}

/// What is known of files that are not in the place. `None`: not known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Elsewhere<'a> {
    /// What the primary has written.
    pub written: Option<Written>,
    /// What other archives and `pg_wal` have.
    pub waiting: Option<&'a Names>,
    /// What is being copied now.
    pub copying: Option<&'a Names>,
}

/// Whether the place has the WAL from `from` up to `to` along `past`, and the histories that recovery needs on the way: those of all timelines
/// from that of `from` on. Costs by ranges, not by segments.
#[must_use]
pub fn chain(
    past: &Past,
    from: Lsn,
    to: Lsn,
    size: SegmentSize,
    place: &Names,
    elsewhere: Elsewhere<'_>,
) -> Chain {
    let runs = past.runs(segments_of(from, to, size), size);
    let first = past.leg_of(from.0 / size.bytes(), size);
    let history = histories_from(past, first).find(|leg| !place.has_history(leg.lineage, leg.timeline));
    if let Some(leg) = history {
        let kind = elsewhere.why_no_history(leg);
        return Chain::Missing { first: Wanted::History(leg.lineage, leg.timeline), kind };
    }
    for run in runs {
        let on = place.on(run.leg.lineage, run.leg.timeline);
        let missing = on.map_or(Some(run.numbers.start), |ranges| ranges.first_missing(&run.numbers));
        if let Some(number) = missing {
            let segment = Segment { timeline: run.leg.timeline, number };
            let first = Located { lineage: run.leg.lineage, segment };
            return Chain::Missing {
                first: Wanted::Segment(first),
                kind: elsewhere.why_no_segment(first, size),
            };
        }
    }
    Chain::Complete
}

/// The legs from `first` on, whose histories recovery along `past` needs.
pub(crate) fn histories_from(past: &Past, first: Leg) -> impl Iterator<Item = &Leg> {
    past.legs().skip_while(move |leg| leg.timeline < first.timeline)
}

impl Elsewhere<'_> {
    fn why_no_segment(&self, wanted: Located, size: SegmentSize) -> Kind {
        if self.copying.is_some_and(|names| names.has(wanted)) {
            return Kind::Copying;
        }
        if self.waiting.is_some_and(|names| names.has(wanted)) {
            return Kind::Waiting;
        }
        let Some(written) = self.written else { return Kind::Unknown };
        if written.lineage == wanted.lineage {
            if written.timeline < wanted.segment.timeline {
                return Kind::Unknown; // the server is on a younger timeline than is known here
            }
            if written.timeline == wanted.segment.timeline
                && written.end.0 / size.bytes() <= wanted.segment.number
            {
                return Kind::NotWrittenYet;
            }
        }
        self.lost_if_known()
    }

    fn why_no_history(&self, leg: &Leg) -> Kind {
        let in_names = |names: &Names| names.has_history(leg.lineage, leg.timeline);
        if self.copying.is_some_and(in_names) {
            return Kind::Copying;
        }
        if self.waiting.is_some_and(in_names) {
            return Kind::Waiting;
        }
        match self.written {
            Some(written) if written.lineage != leg.lineage || written.timeline >= leg.timeline => {
                self.lost_if_known()
            }
            _ => Kind::Unknown,
        }
    }

    /// A file that is finished and was not found: lost only if everything that may have it is known.
    fn lost_if_known(&self) -> Kind {
        if self.waiting.is_some() && self.copying.is_some() { Kind::Lost } else { Kind::Unknown }
    }
}

#[cfg(test)]
mod tests;
