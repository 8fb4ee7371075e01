use super::*;
use crate::window::stretches;
use pgpair_core::ids::Lineage;
use pgpair_core::timeline::TimelineHistory;
use pgpair_core::wal::WalFile;

mod model;
mod properties;

const OWN: Lineage = Lineage(1);
const SIZE: SegmentSize = SegmentSize::SMALLEST;
const SEG: u64 = 1 << 20;
/// Timeline 2 left 1 in segment 10, 3 left 2 in segment 20. 1 and 2 went on: branches that were left behind.
const FORKS: [(u32, u64); 2] = [(1, 10 * SEG + 8), (2, 20 * SEG + 8)];

/// A segment is closed each minute: segment n ends in minute n + 1.
fn at(minute: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::try_from(minute).unwrap() * 60).unwrap()
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

fn id(n: usize) -> BackupId {
    BackupId::new(at(0), u16::try_from(n).unwrap()).unwrap()
}

fn past(timeline: u32) -> Past {
    let left = FORKS.iter().take(timeline as usize - 1);
    let ancestors = left.map(|(t, lsn)| (TimelineId(*t), Lsn(*lsn))).collect();
    Past::of_one(OWN, &TimelineHistory { timeline: TimelineId(timeline), ancestors })
}

/// A backup that ended in the middle of segment `n`, and began in the one before.
fn backup(number: usize, timeline: u32, n: u64, parent: Option<usize>) -> Backup {
    let stopped_at = at(n) + SignedDuration::from_secs(30);
    let base = Base {
        id: id(number),
        lineage: OWN,
        timeline: TimelineId(timeline),
        stop: Lsn(n * SEG + SEG / 2),
        stopped_at,
    };
    let start = (TimelineId(timeline), Lsn(n * SEG - 100));
    let entry = Found::Entry { base, start, parent: parent.map(id), restorable: Restorable::Yes };
    Backup { id: id(number), entry, deleting: false, keep: false, proven: None }
}

/// All of a place, by value.
#[derive(Debug, Clone)]
struct All {
    listed: Listed,
    backups: Vec<Backup>,
    holds: Vec<Hold>,
    pasts: Vec<Past>,
    names: Names,
    timeline: Option<TimelineId>,
    /// Segments of which it is not known when they were closed.
    unknown: BTreeSet<u64>,
}

impl All {
    fn of(backups: Vec<Backup>) -> All {
        let mut names = Names::default();
        names.insert_segments(OWN, TimelineId(1), 1..30);
        All {
            listed: Listed::Whole,
            backups,
            holds: Vec::new(),
            pasts: vec![past(1)],
            names,
            timeline: Some(TimelineId(1)),
            unknown: BTreeSet::new(),
        }
    }

    fn place<'a>(&'a self, stretches: &'a [Stretch]) -> Place<'a> {
        Place {
            lineage: OWN,
            segment_size: SIZE,
            listed: self.listed,
            backups: &self.backups,
            holds: &self.holds,
            stretches,
            pasts: &self.pasts,
            names: &self.names,
            timeline: self.timeline,
        }
    }

    fn restorable(&self) -> Vec<Backup> {
        let place = self.place(&[]);
        View::new(&place).all_restorable().into_iter().copied().collect()
    }

    fn stretches(&self) -> Vec<Stretch> {
        let bases: Vec<Base> = self.restorable().iter().filter_map(|b| b.base().copied()).collect();
        let closed = |s: crate::past::Located| {
            let n = s.segment.number;
            (!self.unknown.contains(&n)).then(|| at(n + 1))
        };
        stretches(&bases, &self.pasts, &self.names, SIZE, closed)
    }

    fn retain(&self, policy: &Policy, now: Timestamp) -> Retention {
        retain(&self.place(&self.stretches()), policy, now)
    }

    /// What is left when everything that goes is gone.
    fn without(&self, retention: &Retention) -> All {
        let mut left = self.clone();
        left.backups.retain(|b| retention.backups[&b.id] != Verdict::Delete);
        for wal in retention.wal.iter().filter(|w| w.verdict == WalKeep::Delete) {
            left.names.remove_segments(OWN, wal.timeline, &wal.numbers);
        }
        left
    }
}

fn policy(keep_last: u32, window: u64, keep_for: u64, keep_proven: bool) -> Policy {
    Policy {
        keep_last: NonZeroU32::new(keep_last).unwrap(),
        window: minutes(window),
        keep_for: minutes(keep_for),
        keep_proven,
    }
}

fn deleted(retention: &Retention) -> BTreeSet<BackupId> {
    retention.backups.iter().filter(|(_, v)| **v == Verdict::Delete).map(|(id, _)| *id).collect()
}

fn deleted_wal(retention: &Retention) -> BTreeSet<(u32, u64)> {
    let goes = retention.wal.iter().filter(|w| w.verdict == WalKeep::Delete);
    goes.flat_map(|w| w.numbers.clone().map(|n| (w.timeline.0, n))).collect()
}

/// Numbers of the backups that are kept, in a place with one timeline, in minute 31.
fn kept(all: &All, policy: &Policy) -> Vec<usize> {
    let retention = all.retain(policy, at(31));
    let kept = |(n, _): &(usize, &Backup)| matches!(retention.backups[&id(*n)], Verdict::Keep(_));
    all.backups.iter().enumerate().filter(kept).map(|(n, _)| n).collect()
}

#[test]
fn the_last_ones_and_those_of_the_window_and_the_one_before_it_are_kept() {
    let all = All::of((0..6).map(|n| backup(n, 1, 5 + 4 * n as u64, None)).collect());
    // They ended in minutes 5, 9, 13, 17, 21, 25.
    assert_eq!(kept(&all, &policy(1, 0, 0, false)), [5]);
    assert_eq!(kept(&all, &policy(3, 0, 0, false)), [3, 4, 5]);
    assert_eq!(kept(&all, &policy(1, 12, 0, false)), [3, 4, 5], "17 begins the window from 19 on");
    assert_eq!(kept(&all, &policy(1, 0, 20, false)), [2, 3, 4, 5], "not older than 20 minutes");
}

#[test]
fn one_that_cannot_be_restored_counts_for_nothing_and_goes_by_age() {
    let mut all = All::of((0..4).map(|n| backup(n, 1, 5 + 4 * n as u64, None)).collect());
    all.backups[3] = broken(all.backups[3]);
    assert_eq!(kept(&all, &policy(2, 0, 0, false)), [1, 2]);
    assert_eq!(kept(&all, &policy(2, 20, 0, false)), [1, 2, 3], "within the window all are kept");
    for b in &mut all.backups {
        *b = broken(*b);
    }
    let retention = all.retain(&policy(1, 0, 0, false), at(31));
    assert_eq!(retention.doubt, Some(Doubt::NothingRestorable));
    assert_eq!((deleted(&retention).len(), deleted_wal(&retention).len()), (0, 0));
}

fn broken(mut backup: Backup) -> Backup {
    if let Found::Entry { restorable, .. } = &mut backup.entry {
        *restorable = Restorable::No;
    }
    backup
}

#[test]
fn parents_of_what_is_kept_are_kept_and_go_last() {
    // 0 is full, 1 and 2 are on top of it; 3 is full.
    let all = All::of(vec![
        backup(0, 1, 5, None),
        backup(1, 1, 9, Some(0)),
        backup(2, 1, 13, Some(1)),
        backup(3, 1, 17, None),
    ]);
    assert_eq!(kept(&all, &policy(2, 0, 0, false)), [0, 1, 2, 3]);
    let one = policy(1, 0, 0, false);
    let mut left = all.clone();
    let mut order = Vec::new();
    loop {
        let (retention, stretches) = (left.retain(&one, at(31)), left.stretches());
        let next = retention.next(&left.place(&stretches), 10);
        if next.is_empty() {
            break;
        }
        left.backups.retain(|b| !next.contains(&b.id));
        order.push(next);
    }
    assert_eq!(order, [vec![id(2)], vec![id(1)], vec![id(0)]]);
}

#[test]
fn a_round_has_an_end_and_begins_with_what_was_begun() {
    let mut all = All::of((0..20).map(|n| backup(n, 1, 2 + n as u64, None)).collect());
    all.backups[7].deleting = true;
    let retention = all.retain(&policy(1, 0, 0, false), at(31));
    let next = retention.next(&all.place(&[]), 3);
    assert_eq!(next, [id(7), id(0), id(1)]);
}

#[test]
fn a_reader_keeps_what_it_reads_until_its_end() {
    let mut all = All::of((0..3).map(|n| backup(n, 1, 5 + 4 * n as u64, None)).collect());
    let one = policy(1, 0, 0, false);
    let hold = |on, until| Hold { id: HoldId(1), on, until: at(until) };
    all.holds = vec![hold(Held::Backup(id(0)), 31)];
    assert_eq!(kept(&all, &one), [0, 2]);
    assert!(deleted_wal(&all.retain(&one, at(31))).iter().all(|(_, n)| *n < 4), "and the WAL behind it");
    all.holds = vec![hold(Held::Backup(id(0)), 30)];
    assert_eq!(kept(&all, &one), [2], "it has ended");
    all.holds = vec![hold(Held::WalFrom(TimelineId(1), Lsn(7 * SEG)), 31)];
    assert_eq!(kept(&all, &one), [2]);
    assert_eq!(deleted_wal(&all.retain(&one, at(31))).last(), Some(&(1, 6)));
}

#[test]
fn the_newest_proven_one_is_kept_while_backups_are_proven() {
    let mut all = All::of((0..3).map(|n| backup(n, 1, 5 + 4 * n as u64, None)).collect());
    (all.backups[0].proven, all.backups[1].proven) = (Some(at(15)), Some(at(10)));
    assert_eq!(kept(&all, &policy(1, 0, 0, true)), [0, 2]);
    assert_eq!(kept(&all, &policy(1, 0, 0, false)), [2]);
}

#[test]
fn wal_of_a_branch_that_ended_before_the_window_goes_and_that_of_the_present_stays() {
    let mut all = All::of(vec![backup(0, 1, 5, None), backup(1, 2, 15, None)]);
    all.pasts = vec![past(1), past(2)];
    all.timeline = Some(TimelineId(2));
    all.names = Names::default();
    all.names.insert_segments(OWN, TimelineId(1), 4..14);
    all.names.insert_segments(OWN, TimelineId(2), 10..30);
    all.names.insert(OWN, WalFile::History(TimelineId(2)));
    let wal = |window| deleted_wal(&all.retain(&policy(1, window, 0, false), at(31)));
    let until_the_newest: BTreeSet<_> = (4..14).map(|n| (1, n)).chain((10..14).map(|n| (2, n))).collect();
    assert_eq!(wal(0), until_the_newest);
    assert_eq!(wal(15), until_the_newest, "the newest one is before the window, which begins in minute 16");
    assert_eq!(
        wal(16),
        BTreeSet::from_iter((10..14).map(|n| (1, n))),
        "segments 10 to 13 of 1 are the branch"
    );
    assert_eq!(wal(18), BTreeSet::new(), "the branch ended in minute 14, which is in the window");
}

#[test]
fn a_quiet_database_keeps_its_last_changes() {
    // The only backup ended in minute 5, the last segment was closed in minute 12, and the window begins in minute 29.
    let mut all = All::of(vec![backup(0, 1, 5, None)]);
    all.names = Names::default();
    all.names.insert_segments(OWN, TimelineId(1), 1..12);
    let retention = all.retain(&policy(1, 2, 0, false), at(31));
    assert_eq!(deleted_wal(&retention), BTreeSet::from_iter((1..4).map(|n| (1, n))));
}

#[test]
fn what_is_not_known_keeps_everything() {
    let two = || All::of(vec![backup(0, 1, 5, None), backup(1, 1, 9, None)]);
    let one = policy(1, 0, 0, false);
    let doubt = |change: &dyn Fn(&mut All), now: u64| {
        let mut all = two();
        change(&mut all);
        let retention = all.retain(&one, at(now));
        assert_eq!((deleted(&retention).len(), deleted_wal(&retention).len()), (0, 0), "{retention:?}");
        retention.doubt.unwrap()
    };
    assert_eq!(deleted(&two().retain(&one, at(31))).len(), 1, "else one goes");
    assert_eq!(doubt(&|all| all.listed = Listed::Incomplete, 31), Doubt::ListIncomplete);
    assert_eq!(doubt(&|_| (), 8), Doubt::ClockBefore(id(1)));
    assert_eq!(doubt(&|_| (), 9 + 60 * 24 * 365 + 1), Doubt::ClockAYearAfter(id(1)));
    assert_eq!(doubt(&|all| all.backups[0].entry = Found::Unreadable, 31), Doubt::UnreadableEntry(id(0)));
    let hold = Hold { id: HoldId(7), on: Held::Unknown, until: at(40) };
    assert_eq!(doubt(&|all| all.holds.push(hold), 31), Doubt::UnreadableHold(HoldId(7)));
    let unknown = |all: &mut All| {
        if let Found::Entry { restorable, .. } = &mut all.backups[0].entry {
            *restorable = Restorable::Unknown;
        }
    };
    assert_eq!(doubt(&unknown, 31), Doubt::RestorableUnknown(id(0)));
    assert_eq!(doubt(&|all| all.backups.clear(), 31), Doubt::NothingRestorable);
    assert_eq!(doubt(&|all| all.timeline = None, 31), Doubt::OwnTimeline(None));
    let promoted = Some(TimelineId(2));
    assert_eq!(
        doubt(&|all| all.timeline = promoted, 31),
        Doubt::OwnTimeline(promoted),
        "its history is not there"
    );
}

#[test]
fn wal_of_a_timeline_without_a_history_is_kept() {
    let mut all = All::of(vec![backup(0, 1, 5, None)]);
    all.names.insert_segments(OWN, TimelineId(9), 1..3);
    let retention = all.retain(&policy(1, 0, 0, false), at(31));
    let held = retention.wal.iter().find(|w| w.timeline == TimelineId(9)).unwrap();
    assert_eq!(held.verdict, WalKeep::Hold(Doubt::UnknownTimeline(TimelineId(9))));
}

#[test]
fn what_the_place_does_not_let_go_is_no_failure() {
    let retained = Deletion::default().after(Answer::Done).after(Answer::Done).after(Answer::Retained);
    assert_eq!((retained.progress(), retained.next()), (Progress::Retained, None));
}
