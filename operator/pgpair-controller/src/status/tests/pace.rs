//! How often the status is written.

use super::*;
use crate::status::due_in;

#[test]
fn words_that_change_all_the_time_are_written_once_a_second() {
    let says = |words: &str| {
        let mut observed = steady();
        let mut report = report(B, PostgresState::Standby);
        report.authority.refusal = Some(words.into());
        observed.b.report = ReportView::Fresh(Box::new(report));
        observed
    };
    let old = status_of(&says("one"));
    let new = over(&old, &says("another"));
    assert!(!is_worth_a_write(&old, &new, JUST_NOW));
    assert_eq!(due_in(&old, &new, JUST_NOW), Some(Duration::from_millis(900)), "it is not forgotten");
    assert!(is_worth_a_write(&old, &new, A_SECOND_AGO));
    assert!(is_worth_a_write(&old, &new, None), "by an earlier process");
    assert_eq!(due_in(&old, &old, JUST_NOW), None);
}

#[test]
fn an_idle_pair_causes_no_write_however_long_it_idles() {
    let old = status_of(&steady());
    for seconds in [1, 60, 86_400] {
        assert!(
            !is_worth_a_write(&old, &over(&old, &later(steady(), seconds)), LONG_AGO),
            "after {seconds} s"
        );
    }
}

#[test]
fn a_failover_with_milliseconds_is_written_once() {
    let observed = with_primary(failover_of_term_3);
    let old = status_of(&steady());
    let new = compute(&name(), Some(3), &observed, &decide(&observed), None, &old);
    assert!(is_worth_a_write(&old, &new, A_SECOND_AGO));
    let stored = over(&old, &observed);
    let again = compute(&name(), Some(3), &observed, &decide(&observed), None, &stored);
    assert!(!is_worth_a_write(&stored, &again, LONG_AGO), "what was read back counts as the same");
}

#[test]
fn lag_is_written_by_levels_and_not_more_often_than_every_ten_seconds() {
    let behind = |bytes| with_primary(|r| r.standby = Some(lag_of(bytes)));
    let old = status_of(&behind(0));
    assert!(!is_worth_a_write(&old, &over(&old, &behind(900_000)), LONG_AGO), "below the first level");
    let far = over(&old, &behind(50 << 20));
    assert!(!is_worth_a_write(&old, &far, JUST_NOW));
    assert!(is_worth_a_write(&old, &far, LONG_AGO));
    assert_eq!(far.lag.unwrap().summary, "50 MiB");
}

#[test]
fn a_lag_that_is_not_known_for_a_moment_causes_no_write_by_itself() {
    let old = status_of(&steady());
    let unknown = with_primary(|r| {
        if let Some(standby) = &mut r.standby {
            (standby.replay, standby.receive) = (None, None);
        }
    });
    assert!(!is_worth_a_write(&old, &over(&old, &unknown), JUST_NOW));
}

#[test]
fn positions_are_written_by_segments() {
    let at = |lsn| with_primary(|r| r.postgres.flush_lsn = Some(Lsn(lsn)));
    let old = status_of(&at(0x0500_0000));
    assert!(!is_worth_a_write(&old, &over(&old, &at(0x05ff_0000)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &at(0x0600_0000)), LONG_AGO));
    assert!(!is_worth_a_write(&old, &over(&old, &at(0x0600_0000)), JUST_NOW));
}

#[test]
fn the_progress_of_a_copy_is_written_in_steps() {
    let at = |percent: u8| {
        let mut observed = steady().solo().b_waits_for(1, &[(1, SeedState::Running)]);
        let progress =
            Some(SeedProgress { done_bytes: percent.into(), total_bytes: Some(100), percent: Some(percent) });
        observed.b.jobs = vec![SeedJob { number: 1, state: SeedState::Running, progress, failure: None }];
        observed
    };
    let old = status_of(&at(10));
    assert!(!is_worth_a_write(&old, &over(&old, &at(14)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &at(15)), LONG_AGO));
    assert!(!is_worth_a_write(&old, &over(&old, &at(90)), JUST_NOW));
    assert_eq!(old.instances[1].state.as_str(), "Seeding");
    assert_eq!(condition(&old, ConditionType::Seeding).unwrap().status, "True");
}

#[test]
fn a_lag_that_moves_does_not_write_the_message_of_the_condition_each_time() {
    let at = |mib: u64| with_primary(|r| r.standby = Some(lag_of(mib << 20))).solo();
    let old = status_of(&at(48));
    assert!(!is_worth_a_write(&old, &over(&old, &at(50)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &at(1)), A_SECOND_AGO), "another reason");
}

#[test]
fn free_space_is_written_when_it_moved_far() {
    let old = status_of(&with_space(6000, None));
    assert!(!is_worth_a_write(&old, &over(&old, &with_space(5600, None)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &with_space(5400, None)), LONG_AGO));
    assert!(!is_worth_a_write(&old, &over(&old, &with_space(5400, None)), JUST_NOW));
}
