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
