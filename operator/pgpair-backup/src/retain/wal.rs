//! Which WAL is kept: all from the start of the oldest backup that the window needs, along the past of the present and all others that reach into
//! the window, and all that a reader holds. A backup that is kept longer has its own WAL among its objects. Histories are always kept.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::Timestamp;
use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;

use super::{Doubt, Found, Held, View, reaches};
use crate::ids::BackupId;
use crate::names::Ranges;
use crate::window::Stretch;

/// What becomes of segments with consecutive numbers on one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalVerdict {
    /// On which timeline.
    pub timeline: TimelineId,
    /// Their numbers.
    pub numbers: Range<u64>,
    /// What becomes of them.
    pub verdict: WalKeep,
}

/// What becomes of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalKeep {
    /// The window needs it, or a reader holds it.
    Keep,
    /// No backup of this place needs it. The instances may: on a volume the agent asks them before it removes anything.
    Delete,
    /// It would go, were it not for this.
    Hold(Doubt),
}

/// Where something begins that needs WAL: on the timeline of a lineage.
type From = (Lineage, TimelineId, Lsn);

/// Decides about the WAL of the lineage.
pub(super) fn retain(
    view: &View<'_>,
    start: Timestamp,
    doubt: Option<Doubt>,
    now: Timestamp,
) -> Vec<WalVerdict> {
    let needed = needed(view, start, now);
    let mut out = Vec::new();
    for (timeline, numbers) in view.place.names.of(view.place.lineage) {
        let known = view.place.pasts.iter().any(|past| past.legs().any(|leg| leg.timeline == timeline));
        let surplus = match doubt {
            Some(doubt) => WalKeep::Hold(doubt),
            None if !known => WalKeep::Hold(Doubt::UnknownTimeline(timeline)),
            None => WalKeep::Delete,
        };
        let none = Ranges::default();
        let ranges = needed.get(&timeline).unwrap_or(&none);
        let mut at = numbers.start;
        let within = ranges.iter().map(|r| r.start.max(numbers.start)..r.end.min(numbers.end));
        for keep in within.filter(|r| !r.is_empty()) {
            push(&mut out, timeline, at..keep.start, surplus);
            push(&mut out, timeline, keep.clone(), WalKeep::Keep);
            at = keep.end;
        }
        push(&mut out, timeline, at..numbers.end, surplus);
    }
    out
}

fn push(out: &mut Vec<WalVerdict>, timeline: TimelineId, numbers: Range<u64>, verdict: WalKeep) {
    if !numbers.is_empty() {
        out.push(WalVerdict { timeline, numbers, verdict });
    }
}

/// Numbers by timeline, whether they are there or not.
fn needed(view: &View<'_>, start: Timestamp, now: Timestamp) -> BTreeMap<TimelineId, Ranges> {
    let place = view.place;
    let for_window = view.for_window(start);
    let starts: Vec<From> = for_window.iter().filter_map(|id| start_of(view, *id)).collect();
    let readers = readers(view, now);
    let mut out: BTreeMap<TimelineId, Ranges> = BTreeMap::new();
    for past in place.pasts {
        let on_it = |s: &&Stretch| (s.lineage, s.timeline) == (past.lineage(), past.timeline());
        let mut stretches = place.stretches.iter().filter(on_it).filter(|s| for_window.contains(&s.base.id));
        let wanted = view.is_present(past) || stretches.any(|s| reaches(s, start));
        let window = starts.iter().filter(|_| wanted);
        for (lineage, timeline, from) in window.chain(&readers) {
            if past.contains(*lineage, *timeline, *from) {
                let first = from.0 / place.segment_size.bytes();
                let runs = past.runs(first..u64::MAX, place.segment_size);
                for run in runs.into_iter().filter(|run| run.leg.lineage == place.lineage) {
                    out.entry(run.leg.timeline).or_default().insert(run.numbers);
                }
            }
        }
    }
    out
}

fn start_of(view: &View<'_>, id: BackupId) -> Option<From> {
    match view.live.get(&id)?.entry {
        Found::Entry { base, start: (timeline, lsn), .. } => Some((base.lineage, timeline, lsn)),
        Found::Gone | Found::Unreadable => None,
    }
}

/// Where readers begin.
fn readers(view: &View<'_>, now: Timestamp) -> Vec<From> {
    let from = |held| match held {
        Held::Backup(id) => start_of(view, id),
        Held::WalFrom(timeline, lsn) => Some((view.place.lineage, timeline, lsn)),
        Held::Unknown => None,
    };
    view.holds(now).filter_map(|hold| from(hold.on)).collect()
}
