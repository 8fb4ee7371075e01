//! Which backups and which WAL are kept. Pure: what lies in the place comes in, and what becomes of each comes out.
//!
//! # Guarantees
//! 1. A hold, a mark of a person or a larger policy never lets more be deleted. One backup more lets only older ones go, and only if it
//!    can be restored itself.
//! 2. Every moment of the window that could be restored before can be restored afterwards.
//! 3. There are as many backups that can be restored as `keep_last` says, or all of them.
//! 4. A backup that is kept has all its parents, and those have theirs.
//! 5. What is not known keeps everything: a list that is not whole, an entry or a hold that cannot be read, a clock that is before the newest
//!    backup or a year after it, no backup that can be restored, a timeline of the pair whose history is not there.
//! 6. A second run deletes nothing.
//! 7. A backup with the mark of a deletion does not exist: it is deleted to its end, and counts for nothing.
//! 8. Only backups and segments of the own lineage are named: they have no name of another.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgpair_core::ids::Lineage;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::SegmentSize;

use crate::ids::{BackupId, HoldId};
use crate::names::Names;
use crate::past::Past;
use crate::window::{Base, Stretch};

mod carry;
mod wal;

pub use carry::{Answer, Deletion, Do, Progress};
pub use wal::{WalKeep, WalVerdict};

/// So long after the newest backup either the clock is wrong or the backups have failed for a year; nothing is deleted in either case.
const A_YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What a person wants kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many backups that can be restored.
    pub keep_last: NonZeroU32,
    /// Every moment of so long can be restored.
    pub window: Duration,
    /// Every backup that is not older.
    pub keep_for: Duration,
    /// The newest backup that was proven by a restore.
    pub keep_proven: bool,
}

/// What lies in a place, of one lineage.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The lineage.
    pub lineage: Lineage,
    /// The size of its segments.
    pub segment_size: SegmentSize,
    /// Whether the lists of backups, marks, holds and WAL are whole.
    pub listed: Listed,
    /// Backups, those that are being deleted included.
    pub backups: &'a [Backup],
    /// Readers.
    pub holds: &'a [Hold],
    /// What can be restored from each backup that can be restored: see [`crate::window::stretches`].
    pub stretches: &'a [Stretch],
    /// Of each timeline of which there is a history, in the WAL or in an entry; and of the first.
    pub pasts: &'a [Past],
    /// The WAL.
    pub names: &'a Names,
    /// The timeline of the pair; `None`: not known.
    pub timeline: Option<TimelineId>,
}

/// Whether all was listed that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// All of it.
    Whole,
    /// Perhaps not all.
    Incomplete,
}

/// A backup in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Which one.
    pub id: BackupId,
    /// Its entry.
    pub entry: Found,
    /// Whether it has the mark of a deletion.
    pub deleting: bool,
    /// Whether a person keeps it.
    pub keep: bool,
    /// When it was last proven by a restore.
    pub proven: Option<Timestamp>,
}

/// The entry of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was read.
    Entry {
        /// Where recovery from it begins.
        base: Base,
        /// The first byte of WAL that it needs.
        start: (TimelineId, Lsn),
        /// The backup on which it is based.
        parent: Option<BackupId>,
        /// Whether it can be restored, apart from its parents.
        restorable: Restorable,
    },
    /// There is a mark of a deletion, and the entry is gone already.
    Gone,
    /// It is there, and is not understood.
    Unreadable,
}

/// Whether a backup can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Restorable {
    /// Sound, with all objects and its own WAL.
    Yes,
    /// Not known.
    Unknown,
    /// Damaged, or something is missing.
    No,
}

/// A reader with an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Which one.
    pub id: HoldId,
    /// What it reads.
    pub on: Held,
    /// Its end.
    pub until: Timestamp,
}

/// What a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A backup with its parents, and the WAL behind it. A running incremental backup holds its parent so.
    Backup(BackupId),
    /// WAL from a position on. A running backup holds its WAL so.
    WalFrom(TimelineId, Lsn),
    /// The hold cannot be read.
    Unknown,
}

/// What becomes of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Keep(Keep),
    /// It goes.
    Delete,
    /// It would go, were it not for this.
    Hold(Doubt),
}

/// Why a backup is kept: the first reason that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// One of the last that can be restored.
    Last,
    /// Within the window.
    Window,
    /// The beginning of the window needs it.
    BeforeWindow,
    /// Not older than `keep_for`.
    Young,
    /// A person keeps it.
    Person,
    /// A reader has it.
    Held(HoldId),
    /// The newest proven backup.
    Proven,
    /// Another needs it.
    ParentOf(BackupId),
}

/// What is not known, so that nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Lists are not whole.
    ListIncomplete,
    /// The clock is before the end of this backup.
    ClockBefore(BackupId),
    /// The clock is more than a year after the end of this, the newest one.
    ClockAYearAfter(BackupId),
    /// It is not known what this backup is, or what needs it.
    UnreadableEntry(BackupId),
    /// It is not known what this reader reads.
    UnreadableHold(HoldId),
    /// It is not known whether this backup can be restored.
    RestorableUnknown(BackupId),
    /// There is nothing better.
    NothingRestorable,
    /// The timeline of the pair is not known, or its history is not: then it is not known which WAL the present needs.
    OwnTimeline(Option<TimelineId>),
    /// The history of the timeline is not known.
    UnknownTimeline(TimelineId),
}

/// What becomes of everything in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Of each backup.
    pub backups: BTreeMap<BackupId, Verdict>,
    /// Of each range of WAL.
    pub wal: Vec<WalVerdict>,
    /// Why nothing is deleted.
    pub doubt: Option<Doubt>,
}

/// Decides about everything in a place.
#[must_use]
pub fn retain(place: &Place<'_>, policy: &Policy, now: Timestamp) -> Retention {
    let view = View::new(place);
    let doubt = view.doubt(now);
    let kept = view.kept(policy, now);
    let verdict = |backup: &Backup| match (kept.get(&backup.id), doubt) {
        (Some(reason), _) => Verdict::Keep(*reason),
        (None, Some(doubt)) => Verdict::Hold(doubt),
        (None, None) => Verdict::Delete,
    };
    let backups = place.backups.iter().map(|b| (b.id, verdict(b))).collect();
    let wal = wal::retain(&view, window_start(policy, now), doubt, now);
    Retention { backups, wal, doubt }
}

impl Retention {
    /// The backups that are deleted next, at most `most`. A parent goes in a later round, after all backups that need it are gone: a
    /// reader of one of them reads the parent too.
    #[must_use]
    pub fn next(&self, place: &Place<'_>, most: usize) -> Vec<BackupId> {
        let parents: BTreeSet<BackupId> = place.backups.iter().filter_map(Backup::parent).collect();
        let goes =
            |b: &&Backup| self.backups.get(&b.id) == Some(&Verdict::Delete) && !parents.contains(&b.id);
        let mut next: Vec<&Backup> = place.backups.iter().filter(goes).collect();
        next.sort_by_key(|b| (!b.deleting, b.order()));
        next.into_iter().take(most).map(|b| b.id).collect()
    }
}

/// Moments from here on are promised.
fn window_start(policy: &Policy, now: Timestamp) -> Timestamp {
    before(now, policy.window)
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}

impl Backup {
    fn parent(&self) -> Option<BackupId> {
        match self.entry {
            Found::Entry { parent, .. } => parent,
            Found::Gone | Found::Unreadable => None,
        }
    }

    fn base(&self) -> Option<&Base> {
        match &self.entry {
            Found::Entry { base, .. } => Some(base),
            Found::Gone | Found::Unreadable => None,
        }
    }

    /// Oldest first.
    fn order(&self) -> (Option<(Timestamp, Lsn)>, BackupId) {
        (self.base().map(|b| (b.stopped_at, b.stop)), self.id)
    }
}

/// A place, with its backups by id.
struct View<'a> {
    place: &'a Place<'a>,
    /// Those that exist: without the mark of a deletion.
    live: BTreeMap<BackupId, &'a Backup>,
}

impl<'a> View<'a> {
    fn new(place: &'a Place<'a>) -> View<'a> {
        let live = place.backups.iter().filter(|b| !b.deleting && b.entry != Found::Gone);
        View { place, live: live.map(|b| (b.id, b)).collect() }
    }

    /// A backup and all that it needs; `None` if one of them does not exist.
    fn chain(&self, id: BackupId) -> Option<Vec<&'a Backup>> {
        let mut chain: Vec<&Backup> = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            if chain.iter().any(|b| b.id == id) {
                return None; // a circle
            }
            let backup = *self.live.get(&id)?;
            next = backup.parent();
            chain.push(backup);
        }
        Some(chain)
    }

    /// Whether a backup can be restored, its parents included.
    fn restorable(&self, id: BackupId) -> Restorable {
        let of = |b: &&Backup| match b.entry {
            Found::Entry { restorable, .. } => restorable,
            Found::Unreadable => Restorable::Unknown,
            Found::Gone => Restorable::No,
        };
        self.chain(id).and_then(|chain| chain.iter().map(of).max()).unwrap_or(Restorable::No)
    }

    /// Backups that can be restored, oldest first.
    fn all_restorable(&self) -> Vec<&'a Backup> {
        let yes = |b: &&&Backup| self.restorable(b.id) == Restorable::Yes;
        let mut all: Vec<&Backup> = self.live.values().filter(yes).copied().collect();
        all.sort_by_key(|b| b.order());
        all
    }

    /// Readers that have not ended.
    fn holds(&self, now: Timestamp) -> impl Iterator<Item = &'a Hold> {
        self.place.holds.iter().filter(move |hold| now <= hold.until)
    }

    fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        if self.place.listed == Listed::Incomplete {
            return Some(Doubt::ListIncomplete);
        }
        if let Some(backup) = self.place.backups.iter().find(|b| b.entry == Found::Unreadable) {
            return Some(Doubt::UnreadableEntry(backup.id));
        }
        if let Some(hold) = self.holds(now).find(|hold| hold.on == Held::Unknown) {
            return Some(Doubt::UnreadableHold(hold.id));
        }
        let unknown = |b: &&&Backup| self.restorable(b.id) == Restorable::Unknown;
        if let Some(backup) = self.live.values().find(unknown) {
            return Some(Doubt::RestorableUnknown(backup.id));
        }
        if !self.place.pasts.iter().any(|past| self.is_present(past)) {
            return Some(Doubt::OwnTimeline(self.place.timeline));
        }
        let ended = self.live.values().filter_map(|b| b.base()).max_by_key(|b| b.stopped_at);
        if let Some(newest) = ended {
            if now < newest.stopped_at {
                return Some(Doubt::ClockBefore(newest.id));
            }
            if now.duration_since(newest.stopped_at) > A_YEAR {
                return Some(Doubt::ClockAYearAfter(newest.id));
            }
        }
        self.all_restorable().is_empty().then_some(Doubt::NothingRestorable)
    }

    /// Everything that is kept, with the first reason.
    fn kept(&self, policy: &Policy, now: Timestamp) -> BTreeMap<BackupId, Keep> {
        let restorable = self.all_restorable();
        let start = window_start(policy, now);
        let last = usize::try_from(policy.keep_last.get()).unwrap_or(usize::MAX);
        let mut kept: Vec<(BackupId, Keep)> = Vec::new();
        kept.extend(restorable.iter().rev().take(last).map(|b| (b.id, Keep::Last)));
        kept.extend(self.ended_since(start).map(|id| (id, Keep::Window)));
        kept.extend(self.for_window(start).into_iter().map(|id| (id, Keep::BeforeWindow)));
        kept.extend(self.ended_since(before(now, policy.keep_for)).map(|id| (id, Keep::Young)));
        kept.extend(self.live.values().filter(|b| b.keep).map(|b| (b.id, Keep::Person)));
        kept.extend(self.holds(now).filter_map(|hold| match hold.on {
            Held::Backup(id) => Some((id, Keep::Held(hold.id))),
            Held::WalFrom(..) | Held::Unknown => None,
        }));
        if policy.keep_proven {
            let proven = restorable.iter().filter(|b| b.proven.is_some());
            kept.extend(proven.max_by_key(|b| (b.proven, b.order())).map(|b| (b.id, Keep::Proven)));
        }
        let mut out = BTreeMap::new();
        for (id, reason) in kept.into_iter().filter(|(id, _)| self.live.contains_key(id)) {
            out.entry(id).or_insert(reason);
        }
        self.with_parents(out)
    }

    fn ended_since(&self, start: Timestamp) -> impl Iterator<Item = BackupId> {
        self.live.values().filter_map(|b| b.base()).filter(move |b| b.stopped_at >= start).map(|b| b.id)
    }

    /// Backups that the window needs: those within it, the newest one before it, and the newest one of the present, however old it is:
    /// a quiet database closes no segments, and its last changes may lie before the window.
    fn for_window(&self, start: Timestamp) -> BTreeSet<BackupId> {
        let restorable = self.all_restorable();
        let present = self.place.pasts.iter().filter(|past| self.is_present(past));
        let newest = present.filter_map(|past| {
            let on_it = restorable.iter().filter_map(|b| b.base());
            let on_it = on_it.filter(|b| past.contains(b.lineage, b.timeline, b.stop));
            on_it.max_by_key(|b| (b.stop, b.id)).map(|b| b.id)
        });
        newest.chain(self.ended_since(start)).chain(self.before_the_window(start)).collect()
    }

    /// Whether the pair goes on along a past.
    fn is_present(&self, past: &Past) -> bool {
        past.lineage() == self.place.lineage && self.place.timeline == Some(past.timeline())
    }

    /// Of each run of WAL without a gap that reaches into the window, the newest backup that is older than the window.
    fn before_the_window(&self, start: Timestamp) -> Vec<BackupId> {
        let mut newest: BTreeMap<_, &Base> = BTreeMap::new();
        for stretch in self.place.stretches {
            let usable = self.restorable(stretch.base.id) == Restorable::Yes;
            if usable && stretch.base.stopped_at < start && reaches(stretch, start) {
                let run = (stretch.lineage, stretch.timeline, stretch.until.lsn);
                let known = newest.entry(run).or_insert(&stretch.base);
                if (known.stop, known.id) < (stretch.base.stop, stretch.base.id) {
                    *known = &stretch.base;
                }
            }
        }
        newest.into_values().map(|base| base.id).collect()
    }

    fn with_parents(&self, mut kept: BTreeMap<BackupId, Keep>) -> BTreeMap<BackupId, Keep> {
        let children: Vec<BackupId> = kept.keys().copied().collect();
        for child in children {
            let (mut next, mut needed_by) = (self.live.get(&child).and_then(|b| b.parent()), child);
            while let Some(id) = next.filter(|id| !kept.contains_key(id)) {
                let Some(parent) = self.live.get(&id) else { break };
                kept.insert(id, Keep::ParentOf(needed_by));
                (next, needed_by) = (parent.parent(), id);
            }
        }
        kept
    }
}

/// Whether a stretch has a moment after `start`, as far as is known.
fn reaches(stretch: &Stretch, start: Timestamp) -> bool {
    stretch.until.at.is_none_or(|until| until >= start)
}

#[cfg(test)]
mod tests;
