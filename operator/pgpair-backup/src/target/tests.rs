use super::*;
use crate::window::{Base, End};
use pgpair_core::ids::Lineage;
use proptest::prelude::*;
use rstest::rstest;

fn time(text: &str) -> Result<Target, TargetError> {
    Asked { time: Some(text.to_owned()), ..Asked::default() }.parse()
}

#[rstest]
#[case("2026-11-27T02:00:00+01:00")]
#[case("2026-11-27 02:00:00+01")]
#[case("2026-11-27T01:00:00Z")]
#[case("2026-11-26T20:00:00.000000-05:00")]
fn one_moment_has_many_spellings_and_one_for_postgresql(#[case] text: &str) {
    let target = time(text).unwrap();
    let parameters = target.parameters(TimelineId(3));
    let of = |name| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert_eq!(of("recovery_target_time"), Some("2026-11-27 01:00:00.000000+00"));
    assert_eq!(of("recovery_target_timeline"), Some("3"));
    assert_eq!(of("recovery_target_inclusive"), Some("on"));
}

#[rstest]
#[case("2026-03-29T02:30:00")]
#[case("2026-03-29 02:30:00")]
#[case("2026-03-29 02:30:00.5")]
#[case("2026-03-29")]
fn a_time_without_a_zone_is_refused_with_how_to_write_it(#[case] text: &str) {
    let error = time(text).unwrap_err();
    assert_eq!(error, TargetError::NoZone(text.to_owned()));
    assert!(error.to_string().contains("+01:00"));
}

#[rstest]
#[case("")]
#[case("yesterday")]
#[case("1767225600")]
#[case("2026-02-30T02:00:00Z")]
#[case("2026-11-27T25:00:00Z")]
fn what_is_no_time_is_refused(#[case] text: &str) {
    assert_eq!(time(text), Err(TargetError::Time(text.to_owned())));
}

#[test]
fn a_time_that_postgresql_cannot_tell_apart_is_refused() {
    assert!(matches!(time("2026-11-27T02:00:00.1234567Z"), Err(TargetError::TooFine(_))));
    let at = time("2026-11-27T02:00:00.123456Z").unwrap().parameters(TimelineId(1));
    assert!(at.contains(&("recovery_target_time", "2026-11-27 02:00:00.123456+00".to_owned())), "{at:?}");
}

#[test]
fn there_is_one_target() {
    let nothing = Asked::default();
    assert_eq!(nothing.parse(), Err(TargetError::None));
    let latest = Asked { latest: true, ..nothing.clone() };
    let parameters = latest.parse().unwrap().parameters(TimelineId(2));
    assert_eq!(parameters, [("recovery_target_timeline", "2".to_owned())]);
    let two = Asked { lsn: Some("0/1".to_owned()), ..latest };
    assert_eq!(two.parse(), Err(TargetError::Several(vec!["latest", "lsn"])));
}

#[test]
fn each_kind_has_its_rules() {
    let asked = Asked::default();
    let xid = |n| Asked { xid: Some(n), ..asked.clone() }.parse().map(|t| t.point);
    assert_eq!(xid(3), Ok(Point::Xid(3)));
    assert_eq!([xid(2), xid(1 << 32)], [Err(TargetError::Xid(2)), Err(TargetError::Xid(1 << 32))]);
    let name = |n: &str| Asked { name: Some(n.to_owned()), ..asked.clone() }.parse().map(|t| t.point);
    assert_eq!(name("before it's done"), Ok(Point::Name("before it's done".to_owned())));
    for wrong in ["", &"x".repeat(64), "a\nb", "a\0b"] {
        assert_eq!(name(wrong), Err(TargetError::Name), "{wrong:?}");
    }
    let exclusive = |a: Asked| Asked { exclusive: Some(true), ..a }.parse().map(|t| t.exclusive);
    assert_eq!(exclusive(Asked { xid: Some(7), ..asked.clone() }), Ok(true));
    assert_eq!(exclusive(Asked { latest: true, ..asked.clone() }), Err(TargetError::Exclusive("latest")));
    assert_eq!(
        exclusive(Asked { name: Some("x".to_owned()), ..asked.clone() }),
        Err(TargetError::Exclusive("name"))
    );
    assert!(matches!(Asked { lsn: Some("7".to_owned()), ..asked.clone() }.parse(), Err(TargetError::Lsn(_))));
    let on_0 = Asked { latest: true, timeline: Some(0), ..asked };
    assert_eq!(on_0.parse(), Err(TargetError::Timeline));
}

pub(crate) fn at(minute: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::try_from(minute).unwrap() * 60).unwrap()
}

/// From a backup that ended in this minute, at a position of the same number, to another.
pub(crate) fn stretch(timeline: u32, from: u64, until: u64) -> Stretch {
    let id = BackupId::new(at(from), u16::try_from(timeline).unwrap()).unwrap();
    let (lineage, timeline) = (Lineage(1), TimelineId(timeline));
    let base = Base { id, lineage, timeline: TimelineId(1), stop: Lsn(from), stopped_at: at(from) };
    Stretch { base, timeline, lineage, until: End { lsn: Lsn(until), at: Some(at(until)) } }
}

pub(crate) fn target(point: Point) -> Target {
    Target { point, exclusive: false, timeline: None }
}

fn chosen(point: Point, stretches: &[Stretch]) -> Result<u64, Refusal> {
    choose(&target(point), stretches, TimelineId(1)).map(|c| c.stretch.base.stop.0)
}

#[test]
fn the_newest_backup_before_the_target_is_chosen() {
    let all = [stretch(1, 30, 50), stretch(1, 10, 25), stretch(1, 15, 25)];
    assert_eq!(chosen(Point::Time(at(20)), &all), Ok(15));
    assert_eq!(chosen(Point::Time(at(15)), &all), Ok(10), "a backup cannot stop before it has ended");
    assert_eq!(chosen(Point::Lsn(Lsn(15)), &all), Ok(15));
    assert_eq!(chosen(Point::Time(at(50)), &all), Ok(30));
    assert_eq!(chosen(Point::Latest, &all), Ok(30));
    assert_eq!(chosen(Point::Latest, &all[1..]), Ok(15));
    assert_eq!(chosen(Point::Xid(9), &all[1..]), Ok(10), "it may lie before the newer one");
}

#[test]
fn what_cannot_be_had_is_refused_with_what_can() {
    let all = [stretch(1, 10, 25), stretch(1, 30, 50)];
    let first = Err(Refusal::BeforeTheFirst { at: at(10), lsn: Lsn(10) });
    assert_eq!([chosen(Point::Time(at(10)), &all), chosen(Point::Lsn(Lsn(9)), &all)], [first, first]);
    let gap = Err(Refusal::InAGap { from: Lsn(25), to: Lsn(30) });
    assert_eq!([chosen(Point::Time(at(30)), &all), chosen(Point::Lsn(Lsn(26)), &all)], [gap, gap]);
    let behind = Refusal::BehindTheEnd { at: Some(at(50)), lsn: Lsn(50) };
    let end = Err(behind);
    assert_eq!([chosen(Point::Time(at(51)), &all), chosen(Point::Lsn(Lsn(51)), &all)], [end, end]);
    assert_eq!(chosen(Point::Latest, &[]), Err(Refusal::NothingOn(TimelineId(1))));
    assert!(behind.to_string().contains("0/32, 2023-"));
}

#[test]
fn an_end_that_is_not_known_refuses_nothing() {
    let mut open = stretch(1, 10, 25);
    open.until.at = None;
    assert_eq!(chosen(Point::Time(at(90)), &[open]), Ok(10));
}

#[test]
fn the_timeline_is_that_of_the_pair_unless_another_is_named() {
    let all = [stretch(1, 10, 25), stretch(2, 10, 40)];
    let on = |timeline, own| choose(&Target { timeline, ..target(Point::Latest) }, &all, TimelineId(own));
    assert_eq!(on(None, 2).unwrap().stretch.timeline, TimelineId(2));
    assert_eq!(on(Some(TimelineId(1)), 2).unwrap().stretch.timeline, TimelineId(1));
    assert_eq!(on(None, 3), Err(Refusal::NothingOn(TimelineId(3))));
}

proptest! {
    #[test]
    fn a_target_is_refused_only_if_no_stretch_covers_it(
        stretches in prop::collection::vec((1u32..3, 0u64..30, 0u64..20), 0..6), wanted in 0u64..60, by_time: bool,
    ) {
        let all: Vec<Stretch> = stretches.iter().map(|(t, from, len)| stretch(*t, *from, from + len)).collect();
        let covers = |s: &&Stretch| {
            let begins = if by_time { s.base.stop.0 < wanted } else { s.base.stop.0 <= wanted };
            s.timeline == TimelineId(1) && begins && wanted <= s.until.lsn.0
        };
        let newest = all.iter().filter(covers).map(|s| s.base.stop.0).max();
        let point = if by_time { Point::Time(at(wanted)) } else { Point::Lsn(Lsn(wanted)) };
        prop_assert_eq!(chosen(point, &all).ok(), newest);
    }
}
