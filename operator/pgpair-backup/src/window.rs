//! The moments that can be restored.
//!
//! # Guarantees
//! - A stretch begins at the stop of a backup that can be restored, and ends at the end of the last segment before the first gap. No
//!   moment after a gap belongs to it.
//! - The end has a time only if it is known when its last segment was closed: unknown is not "now".

use jiff::Timestamp;
use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::{Segment, SegmentSize};

use crate::chain::histories_from;
use crate::ids::BackupId;
use crate::names::Names;
use crate::past::{Leg, Located, Past};

/// A backup that can be restored: sound, with all of its objects, and with its own WAL from start to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Which one.
    pub id: BackupId,
    /// The lineage that it belongs to.
    pub lineage: Lineage,
    /// On which it ended.
    pub timeline: TimelineId,
    /// Where its own WAL ends.
    pub stop: Lsn,
    /// When it ended, by its source's clock.
    pub stopped_at: Timestamp,
}

/// Where a stretch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The first byte that cannot be had.
    pub lsn: Lsn,
    /// All transactions up to then can be had; `None`: not known.
    pub at: Option<Timestamp>,
}

/// What can be restored from one backup, along one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// From its stop.
    pub base: Base,
    /// The timeline on which the stretch ends, and which recovery has to follow.
    pub timeline: TimelineId,
    /// The lineage of that timeline.
    pub lineage: Lineage,
    /// Up to here.
    pub until: End,
}

/// Moments of one timeline that can be restored, without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Of the oldest backup in it: the position.
    pub from: Lsn,
    /// And when it ended.
    pub from_at: Timestamp,
    /// Up to here.
    pub until: End,
    /// The timeline that recovery has to follow.
    pub timeline: TimelineId,
    /// The lineage of that timeline.
    pub lineage: Lineage,
}

/// What can be restored from each backup along each past, once for each timeline on which it ends. `closed_at` tells when a segment was
/// closed, and is asked only for the last segment of a stretch. Costs by ranges, not by segments.
#[must_use]
pub fn stretches(
    bases: &[Base],
    pasts: &[Past],
    names: &Names,
    size: SegmentSize,
    closed_at: impl Fn(Located) -> Option<Timestamp>,
) -> Vec<Stretch> {
    let mut out: Vec<Stretch> = Vec::new();
    for base in bases {
        for past in pasts.iter().filter(|p| p.contains(base.lineage, base.timeline, base.stop)) {
            let stretch = stretch(base, past, names, size, &closed_at);
            let same = |s: &&mut Stretch| {
                s.base.id == base.id && (s.lineage, s.timeline) == (stretch.lineage, stretch.timeline)
            };
            match out.iter_mut().find(same) {
                Some(known) if known.until.lsn >= stretch.until.lsn => {}
                Some(known) => *known = stretch,
                None => out.push(stretch),
            }
        }
    }
    out
}

/// From the stop of `base` along `past` up to the first gap.
fn stretch(
    base: &Base,
    past: &Past,
    names: &Names,
    size: SegmentSize,
    closed_at: &impl Fn(Located) -> Option<Timestamp>,
) -> Stretch {
    let (leg, end) = reach(base, past, names, size);
    let to_its_own_end = End { lsn: base.stop, at: Some(base.stopped_at) };
    let until = match end.checked_sub(1) {
        Some(number) if Lsn(end.saturating_mul(size.bytes())) > base.stop => {
            let segment = Segment { timeline: leg.timeline, number };
            let last = Located { lineage: leg.lineage, segment };
            End { lsn: Lsn(end.saturating_mul(size.bytes())), at: closed_at(last) }
        }
        _ => to_its_own_end,
    };
    Stretch { base: *base, timeline: leg.timeline, lineage: leg.lineage, until }
}

/// The leg and the number of the first segment that recovery from `base` along `past` does not find.
fn reach(base: &Base, past: &Past, names: &Names, size: SegmentSize) -> (Leg, u64) {
    let first = base.stop.0 / size.bytes();
    let own = Leg { lineage: base.lineage, timeline: base.timeline, until: None };
    let (mut leg, mut reached) = (own, first);
    let without_history =
        histories_from(past, own).find(|l| !names.has_history(l.lineage, l.timeline)).map(|l| l.timeline);
    for run in past.runs(first..u64::MAX, size) {
        if without_history.is_some_and(|t| run.leg.timeline >= t) {
            break;
        }
        let on = names.on(run.leg.lineage, run.leg.timeline);
        let Some(end) = on.and_then(|ranges| ranges.end_of(run.numbers.start)) else { break };
        leg = run.leg;
        reached = end.min(run.numbers.end);
        if reached < run.numbers.end {
            break;
        }
    }
    (leg, reached)
}

/// The moments that can be restored, each once: stretches of one timeline that overlap are one window. Sorted by timeline and position.
#[must_use]
pub fn windows(stretches: &[Stretch]) -> Vec<Window> {
    let mut all: Vec<Window> = stretches
        .iter()
        .map(|s| Window {
            from: s.base.stop,
            from_at: s.base.stopped_at,
            until: s.until,
            timeline: s.timeline,
            lineage: s.lineage,
        })
        .collect();
    all.sort_by_key(|w| (w.lineage, w.timeline, w.from, w.until.lsn));
    let mut out: Vec<Window> = Vec::new();
    for window in all {
        match out.last_mut() {
            Some(last)
                if (last.lineage, last.timeline) == (window.lineage, window.timeline)
                    && window.from <= last.until.lsn =>
            {
                if window.until.lsn > last.until.lsn {
                    last.until = window.until;
                }
            }
            _ => out.push(window),
        }
    }
    out
}

#[cfg(test)]
mod tests;
