use super::*;
use crate::target::tests::{at, stretch, target};
use proptest::prelude::*;

const SIZE: SegmentSize = SegmentSize::SMALLEST;
const SEG: u64 = 1 << 20;

/// From segment 2 up to the end of segment 9, which was closed in minute 600.
fn until_600() -> Stretch {
    let mut stretch = stretch(1, 2 * SEG + 8, 10 * SEG);
    stretch.until.at = Some(at(600));
    stretch
}

/// The end of the WAL, in the last segment; the last transaction ended in minute 200.
fn end_of_wal() -> Reached {
    let lsn = Lsn(9 * SEG + 100);
    Reached { how: How::EndOfWal, timeline: TimelineId(1), lsn, last_commit: Some(at(200)) }
}

fn judged(point: Point, reached: Reached, stretch: &Stretch) -> Verdict {
    verdict(&target(point), reached, stretch, SIZE)
}

#[test]
fn a_quiet_night_is_no_missing_wal() {
    let quiet = Some(Quiet { since: Some(at(200)), until: at(400) });
    let open = Verdict::Open { stop: Stop::AtEnd, quiet };
    assert_eq!(judged(Point::Time(at(400)), end_of_wal(), &until_600()), open);
    let short = Verdict::Failed(Short::Time { asked: at(601), until: at(600) });
    assert_eq!(judged(Point::Time(at(601)), end_of_wal(), &until_600()), short);
}

#[test]
fn an_end_without_a_time_covers_none() {
    let mut open = until_600();
    open.until.at = None;
    let failed = Verdict::Failed(Short::EndNotKnown { asked: at(201) });
    assert_eq!(judged(Point::Time(at(201)), end_of_wal(), &open), failed);
    assert!(matches!(judged(Point::Latest, end_of_wal(), &open), Verdict::Open { .. }));
}

#[test]
fn who_has_not_read_the_last_segment_is_not_at_the_end() {
    for (lsn, opened) in [(8 * SEG + 100, false), (9 * SEG, false), (9 * SEG + 1, true), (10 * SEG, true)] {
        let reached = Reached { lsn: Lsn(lsn), ..end_of_wal() };
        for point in [Point::Latest, Point::Time(at(400)), Point::Lsn(Lsn(5 * SEG))] {
            let verdict = judged(point, reached, &until_600());
            assert_eq!(matches!(verdict, Verdict::Open { .. }), opened, "{lsn} {verdict:?}");
        }
    }
}

#[test]
fn a_backup_without_more_wal_is_opened_at_its_own_end() {
    let mut own = until_600();
    own.until.lsn = own.base.stop;
    let reached = |lsn| Reached { lsn: Lsn(lsn), ..end_of_wal() };
    let at_stop = judged(Point::Latest, reached(own.base.stop.0), &own);
    assert_eq!(at_stop, Verdict::Open { stop: Stop::AtEnd, quiet: None });
    let before = judged(Point::Latest, reached(own.base.stop.0 - 1), &own);
    assert!(matches!(before, Verdict::Failed(Short::NotConsistent { .. })), "{before:?}");
}

#[test]
fn a_target_that_was_met_is_opened_where_it_was() {
    let reached = Reached { how: How::AtTarget, lsn: Lsn(5 * SEG), ..end_of_wal() };
    for point in [Point::Time(at(300)), Point::Lsn(Lsn(5 * SEG)), Point::Name("x".to_owned()), Point::Xid(7)]
    {
        let open = Verdict::Open { stop: Stop::Before(Lsn(5 * SEG)), quiet: None };
        assert_eq!(judged(point, reached, &until_600()), open);
    }
}

#[test]
fn what_was_not_found_is_not_opened() {
    for point in [Point::Name("never given".to_owned()), Point::Xid(7)] {
        let failed = Verdict::Failed(Short::NotFound { reached: end_of_wal().lsn });
        assert_eq!(judged(point, end_of_wal(), &until_600()), failed);
    }
    let asked = Lsn(9 * SEG + 101);
    let failed = Verdict::Failed(Short::Lsn { asked, reached: end_of_wal().lsn });
    assert_eq!(judged(Point::Lsn(asked), end_of_wal(), &until_600()), failed);
    assert!(matches!(judged(Point::Lsn(end_of_wal().lsn), end_of_wal(), &until_600()), Verdict::Open { .. }));
}

#[test]
fn what_contradicts_the_target_is_not_opened() {
    let late = Reached { last_commit: Some(at(401)), ..end_of_wal() };
    let exact = Reached { last_commit: Some(at(400)), ..end_of_wal() };
    let beyond = |v| matches!(v, Verdict::Failed(Short::Beyond { .. }));
    assert!(beyond(judged(Point::Time(at(400)), late, &until_600())));
    assert!(!beyond(judged(Point::Time(at(400)), exact, &until_600())));
    let exclusive = Target { exclusive: true, ..target(Point::Time(at(400))) };
    assert!(beyond(verdict(&exclusive, exact, &until_600(), SIZE)), "that one was to be left out");
    let stopped = Reached { how: How::AtTarget, ..end_of_wal() };
    assert!(beyond(judged(Point::Latest, stopped, &until_600())), "there was nothing to stop at");
    let other = Reached { timeline: TimelineId(2), ..end_of_wal() };
    assert!(matches!(
        judged(Point::Latest, other, &until_600()),
        Verdict::Failed(Short::OtherTimeline { .. })
    ));
}

proptest! {
    /// What is opened at the end of the WAL for a time is covered: every transaction up to then was there to be replayed.
    #[test]
    fn what_is_opened_holds_what_was_asked_for(
        asked in 0u64..700, exclusive: bool, at_target: bool, timeline in 1u32..3, lsn in 0..12 * SEG,
        commit in prop::option::of(0u64..700), until in prop::option::of(0u64..700),
    ) {
        let mut stretch = until_600();
        stretch.until.at = until.map(at);
        let how = if at_target { How::AtTarget } else { How::EndOfWal };
        let reached = Reached { how, timeline: TimelineId(timeline), lsn: Lsn(lsn), last_commit: commit.map(at) };
        let target = Target { exclusive, ..target(Point::Time(at(asked))) };
        if let Verdict::Open { stop, .. } = verdict(&target, reached, &stretch, SIZE) {
            prop_assert_eq!(timeline, 1);
            prop_assert!(lsn >= stretch.base.stop.0);
            let last = if exclusive { asked.checked_sub(1) } else { Some(asked) };
            prop_assert!(commit.is_none_or(|c| Some(c) <= last));
            if stop == Stop::AtEnd {
                prop_assert!(until.is_some_and(|until| asked <= until), "{:?}", until);
                prop_assert!(lsn > 9 * SEG);
            }
        }
    }
}
