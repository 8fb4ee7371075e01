use super::*;
use crate::fixtures::{OWN, SEG, SIZE, history, names};
use pgpair_core::timeline::TimelineHistory;
use pgpair_core::wal::WalFile;
use proptest::prelude::*;

/// A segment is closed a minute after the one before.
fn at(number: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::try_from(number).unwrap() * 60).unwrap()
}

/// A backup that ended in the middle of a segment.
fn base(timeline: u32, number: u64) -> Base {
    let id = BackupId::new(at(number), u16::try_from(timeline).unwrap()).unwrap();
    let stop = Lsn(number * SEG + SEG / 2);
    Base { id, lineage: OWN, timeline: TimelineId(timeline), stop, stopped_at: at(number) }
}

/// Timeline and number of the first segment that cannot be had, for each window; and the number of its first.
fn found(bases: &[Base], histories: &[TimelineHistory], names: &Names) -> Vec<(u32, u64, u64)> {
    let pasts: Vec<Past> = histories.iter().map(|h| Past::of_one(OWN, h)).collect();
    let all = stretches(bases, &pasts, names, SIZE, |s| Some(at(s.segment.number + 1)));
    windows(&all).iter().map(|w| (w.timeline.0, w.from.0 / SEG, w.until.lsn.0 / SEG)).collect()
}

#[test]
fn a_window_ends_before_the_first_gap_and_another_begins_with_the_next_backup() {
    let first = [history(1, &[])];
    let place = names(&[(1, 2..8), (1, 9..20)], &[]);
    assert_eq!(found(&[base(1, 3)], &first, &place), [(1, 3, 8)]);
    assert_eq!(found(&[base(1, 3), base(1, 5)], &first, &place), [(1, 3, 8)]);
    assert_eq!(found(&[base(1, 5), base(1, 3), base(1, 12)], &first, &place), [(1, 3, 8), (1, 12, 20)]);
}

#[test]
fn a_backup_whose_next_segment_is_missing_can_be_restored_to_its_own_end_only() {
    let pasts = [Past::of_one(OWN, &history(1, &[]))];
    let all = stretches(&[base(1, 3)], &pasts, &names(&[(1, 4..9)], &[]), SIZE, |_| None);
    assert_eq!(all[0].until, End { lsn: base(1, 3).stop, at: Some(at(3)) });
}

#[test]
fn the_end_has_no_time_if_it_is_not_known_when_the_segment_was_closed() {
    let pasts = [Past::of_one(OWN, &history(1, &[]))];
    let all = stretches(&[base(1, 3)], &pasts, &names(&[(1, 3..9)], &[]), SIZE, |_| None);
    assert_eq!(windows(&all)[0].until, End { lsn: Lsn(9 * SEG), at: None });
}

#[test]
fn only_the_last_segment_of_a_stretch_is_asked_when_it_was_closed() {
    let pasts = [Past::of_one(OWN, &history(1, &[]))];
    let asked = std::cell::RefCell::new(Vec::new());
    let place = names(&[(1, 0..1 << 40)], &[]);
    let all = stretches(&[base(1, 3)], &pasts, &place, SIZE, |s| {
        asked.borrow_mut().push(s.segment.number);
        None
    });
    assert_eq!((all.len(), asked.into_inner()), (1, vec![(1 << 40) - 1]));
}

#[test]
fn each_timeline_has_its_own_window() {
    // 2 left 1 in segment 5; 1 went on up to 7, which is a branch.
    let both = [history(1, &[]), history(2, &[(1, 5 * SEG + 8)])];
    let place = names(&[(1, 2..8), (2, 5..10)], &[2]);
    assert_eq!(found(&[base(1, 3)], &both, &place), [(1, 3, 8), (2, 3, 10)]);
    assert_eq!(found(&[base(1, 6)], &both, &place), [(1, 6, 8)], "the backup is of the branch");
    assert_eq!(found(&[base(1, 3), base(2, 6)], &both, &place), [(1, 3, 8), (2, 3, 10)]);
    let without_fork = names(&[(1, 2..8), (2, 6..10)], &[2]);
    assert_eq!(found(&[base(1, 3), base(2, 6)], &both, &without_fork), [(1, 3, 8), (2, 6, 10)]);
}

#[test]
fn without_its_history_a_timeline_cannot_be_followed() {
    let both = [history(1, &[]), history(2, &[(1, 5 * SEG + 8)])];
    let place = names(&[(1, 2..8), (2, 5..10)], &[]);
    assert_eq!(found(&[base(1, 3)], &both, &place), [(1, 3, 8)]);
    assert_eq!(found(&[base(2, 6)], &both, &place), [(2, 6, 6)], "to its own end");
}

#[test]
fn a_backup_of_the_parents_lineage_reaches_into_the_childs() {
    use crate::past::Origin;
    let child = Lineage(2);
    let origins =
        [Origin { lineage: OWN, after: TimelineId(0) }, Origin { lineage: child, after: TimelineId(1) }];
    let past = Past::across(&origins, &history(2, &[(1, 5 * SEG + 8)])).unwrap();
    let mut place = names(&[(1, 2..5), (2, 5..30)], &[2]);
    place.insert_segments(child, TimelineId(2), 5..9);
    place.insert(child, WalFile::History(TimelineId(2)));
    let all = stretches(&[base(1, 3)], &[past], &place, SIZE, |_| None);
    let w = windows(&all)[0];
    assert_eq!((w.lineage, w.timeline, w.until.lsn), (child, TimelineId(2), Lsn(9 * SEG)));
}

proptest! {
    /// Number by number, by the definition of a chain: what a window covers is exactly what a chain from one of the backups reaches.
    #[test]
    fn windows_cover_what_chains_reach(
        stops in prop::collection::vec((1u32..=2, 0u64..12), 0..4),
        present in prop::collection::vec((1u32..=2, 0u64..14), 0..40),
        has_history: bool,
    ) {
        use crate::chain::{Chain, Elsewhere, chain};
        let both = [history(1, &[]), history(2, &[(1, 5 * SEG + 8)])];
        let mut place = names(&[], if has_history { &[2] } else { &[] });
        for (t, n) in &present {
            place.insert_segments(OWN, TimelineId(*t), *n..n + 1);
        }
        let bases: Vec<Base> =
            stops.iter().filter(|(t, n)| *t == 1 || *n >= 6).map(|(t, n)| base(*t, *n)).collect();
        let windows = found(&bases, &both, &place);
        for history in &both {
            let past = Past::of_one(OWN, history);
            for n in 0..14 {
                // The end of segment n, on the timeline itself.
                let on_it = past.leg_of(n, SIZE).timeline == history.timeline;
                let reached = on_it && bases.iter().any(|b| {
                    n >= b.stop.0 / SEG
                        && past.contains(b.lineage, b.timeline, b.stop)
                        && chain(&past, b.stop, Lsn((n + 1) * SEG), SIZE, &place, Elsewhere::default()) == Chain::Complete
                });
                let covered = on_it && windows.iter().any(|(t, from, until)| {
                    *t == history.timeline.0 && *from <= n && n < *until
                });
                prop_assert_eq!(covered, reached, "timeline {}, segment {}, {:?}", history.timeline, n, windows);
            }
        }
    }
}
