use super::*;
use crate::fixtures::{OWN, SEG, SIZE, history, names};
use pgpair_core::timeline::TimelineHistory;
use pgpair_core::wal::WalFile;
use proptest::prelude::*;
use rstest::rstest;

fn segment(timeline: u32, number: u64) -> Wanted {
    Wanted::Segment(Located { lineage: OWN, segment: Segment { timeline: TimelineId(timeline), number } })
}

/// The first file that is missing, along timeline 3, which left 1 in segment 5 and 2 at the first byte of segment 7.
fn first_missing(from: u64, to: u64, place: &Names) -> Option<Wanted> {
    let past = Past::of_one(OWN, &history(3, &[(1, 5 * SEG + 8), (2, 7 * SEG)]));
    match chain(&past, Lsn(from), Lsn(to), SIZE, place, Elsewhere::default()) {
        Chain::Complete => None,
        Chain::Missing { first, .. } => Some(first),
    }
}

#[test]
fn at_a_fork_the_segment_of_the_younger_timeline_counts() {
    let whole = names(&[(1, 2..5), (2, 5..7), (3, 7..9)], &[2, 3]);
    assert_eq!(first_missing(2 * SEG, 9 * SEG, &whole), None);
    let of_the_older = names(&[(1, 2..6), (2, 6..8), (3, 8..9)], &[2, 3]);
    assert_eq!(first_missing(2 * SEG, 9 * SEG, &of_the_older), Some(segment(2, 5)));
    let without_7 = names(&[(1, 2..6), (2, 5..8), (3, 8..9)], &[2, 3]);
    assert_eq!(first_missing(2 * SEG, 9 * SEG, &without_7), Some(segment(3, 7)));
}

#[test]
fn the_end_is_a_position_not_a_segment() {
    let place = names(&[(1, 2..4)], &[2, 3]);
    assert_eq!(first_missing(2 * SEG, 4 * SEG, &place), None);
    assert_eq!(first_missing(2 * SEG, 4 * SEG + 1, &place), Some(segment(1, 4)));
    assert_eq!(first_missing(2 * SEG - 1, 4 * SEG, &place), Some(segment(1, 1)));
}

#[test]
fn histories_count_from_the_timeline_of_the_beginning_on() {
    let whole = [(1, 2..5), (2, 5..7), (3, 7..9)];
    let wanted = |t| Some(Wanted::History(OWN, TimelineId(t)));
    assert_eq!(first_missing(2 * SEG, 9 * SEG, &names(&whole, &[3])), wanted(2));
    assert_eq!(first_missing(2 * SEG, 9 * SEG, &names(&whole, &[2])), wanted(3));
    assert_eq!(first_missing(7 * SEG, 9 * SEG, &names(&whole, &[3])), None, "2 was left before");
    assert_eq!(first_missing(7 * SEG, 9 * SEG, &names(&whole, &[2])), wanted(3));
}

#[test]
fn a_chain_of_a_million_years_is_asked_by_ranges() {
    let place = names(&[(1, 0..1 << 44)], &[]);
    let past = Past::of_one(OWN, &TimelineHistory::first());
    let whole = chain(&past, Lsn(0), Lsn(u64::MAX), SIZE, &place, Elsewhere::default());
    assert_eq!(whole, Chain::Complete);
}

#[test]
fn the_parents_segments_are_looked_for_in_the_parents_lineage() {
    use crate::past::Origin;
    let child = Lineage(2);
    let origins =
        [Origin { lineage: OWN, after: TimelineId(0) }, Origin { lineage: child, after: TimelineId(1) }];
    let past = Past::across(&origins, &history(2, &[(1, 5 * SEG + 8)])).unwrap();
    let mut place = names(&[(1, 2..5)], &[]);
    place.insert_segments(child, TimelineId(2), 5..6);
    place.insert(child, WalFile::History(TimelineId(2)));
    let from_2 = |place: &Names| chain(&past, Lsn(2 * SEG), Lsn(6 * SEG), SIZE, place, Elsewhere::default());
    assert_eq!(from_2(&place), Chain::Complete);
    // A sibling that was recovered from the same backup has chosen the same number.
    let mut sibling = names(&[(1, 2..5), (2, 5..6)], &[2]);
    assert!(matches!(from_2(&sibling), Chain::Missing { first: Wanted::History(l, _), .. } if l == child));
    sibling.insert(child, WalFile::History(TimelineId(2)));
    assert!(
        matches!(from_2(&sibling), Chain::Missing { first: Wanted::Segment(s), .. } if s.lineage == child)
    );
}

fn why(elsewhere: Elsewhere<'_>, number: u64) -> Kind {
    let past = Past::of_one(OWN, &history(2, &[(1, 5 * SEG)]));
    let place = names(&[], &[2]);
    match chain(&past, Lsn(number * SEG), Lsn(number * SEG + 1), SIZE, &place, elsewhere) {
        Chain::Complete => panic!("the place is empty"),
        Chain::Missing { kind, .. } => kind,
    }
}

#[rstest]
#[case(3, Kind::Lost)]
#[case(5, Kind::Lost)]
#[case(6, Kind::Copying)]
#[case(7, Kind::Waiting)]
#[case(8, Kind::NotWrittenYet)]
#[case(9, Kind::NotWrittenYet)]
fn why_a_segment_is_missing(#[case] number: u64, #[case] kind: Kind) {
    let (copying, waiting) = (names(&[(2, 6..7)], &[]), names(&[(2, 6..8)], &[]));
    let written = Some(Written { lineage: OWN, timeline: TimelineId(2), end: Lsn(8 * SEG + 1) });
    assert_eq!(why(Elsewhere { written, waiting: Some(&waiting), copying: Some(&copying) }, number), kind);
}

#[test]
fn nothing_is_lost_while_something_is_not_known() {
    let none = Names::default();
    let at = |timeline| Some(Written { lineage: OWN, timeline: TimelineId(timeline), end: Lsn(8 * SEG) });
    for elsewhere in [
        Elsewhere { written: None, waiting: Some(&none), copying: Some(&none) },
        Elsewhere { written: at(2), waiting: None, copying: Some(&none) },
        Elsewhere { written: at(2), waiting: Some(&none), copying: None },
        Elsewhere { written: at(1), waiting: Some(&none), copying: Some(&none) },
    ] {
        assert_eq!(why(elsewhere, 6), Kind::Unknown, "{elsewhere:?}");
    }
}

proptest! {
    /// Against the definition: each number from that of `from` to that of the last byte, on the timeline that holds it.
    #[test]
    fn the_first_gap_is_found(
        present in prop::collection::vec((1u32..=3, 0u64..12), 0..40),
        histories in prop::collection::vec(2u32..=3, 0..4),
        from in 0..10 * SEG,
        len in 0..6 * SEG,
    ) {
        let mut place = names(&[], &histories);
        for (t, n) in &present {
            place.insert_segments(OWN, TimelineId(*t), *n..n + 1);
        }
        let on = |n: u64| match n { 0..5 => 1, 5..7 => 2, _ => 3 };
        let first = from / SEG;
        let history = [2, 3].into_iter().find(|t| *t >= on(first) && !histories.contains(t));
        let numbers = if len == 0 { first..first } else { first..(from + len - 1) / SEG + 1 };
        let by_number = numbers.into_iter().find(|n| !present.contains(&(on(*n), *n))).map(|n| segment(on(n), n));
        let wanted = history.map(|t| Wanted::History(OWN, TimelineId(t))).or(by_number);
        prop_assert_eq!(first_missing(from, from + len, &place), wanted);
    }
}
