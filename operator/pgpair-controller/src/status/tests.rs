use std::time::Duration;

use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::Term;
use pgpair_core::lsn::Lsn;
use serde_json::json;

use super::*;
use crate::decide::decide;
use crate::events::of_change;
use crate::fixtures::{empty, lag as lag_of, name, now, report, steady};
use crate::observed::{SeedJob, SeedProgress};
use pgpair_core::report::Need;

fn status_of(observed: &Observed) -> PgReplicaPairStatus {
    over(&PgReplicaPairStatus::default(), observed)
}

/// As the next reconcile sees it: written to the API server and read back.
fn over(old: &PgReplicaPairStatus, observed: &Observed) -> PgReplicaPairStatus {
    let status = compute(&name(), Some(3), observed, &decide(observed), old);
    serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap()
}

fn later(mut observed: Observed, seconds: i64) -> Observed {
    observed.now = Timestamp::from_second(now().as_second() + seconds).unwrap();
    observed
}

fn with_primary(change: impl FnOnce(&mut InstanceReport)) -> Observed {
    let mut observed = steady();
    let mut primary = report(A, PostgresState::Primary);
    change(&mut primary);
    observed.a.report = ReportView::Fresh(Box::new(primary));
    observed
}

const LONG_AGO: Option<Duration> = Some(Duration::from_secs(3600));
const JUST_NOW: Option<Duration> = Some(Duration::from_millis(100));

fn failover_of_term_3(report: &mut InstanceReport) {
    let at = now().as_millisecond();
    report.last_failover = Some(FailoverReport {
        term: Term(3),
        cause: FailoverCause::PromiseLapsed,
        steps: vec![
            (FailoverStep::LastHeartbeat, at),
            (FailoverStep::CasWon, at + 5123),
            (FailoverStep::Promoted, at + 5301),
            (FailoverStep::Endpoint, at + 5320),
        ],
    });
}

#[test]
fn the_status_of_a_pair_as_it_should_be() {
    insta::assert_yaml_snapshot!(status_of(&steady()));
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
    let new = compute(&name(), Some(3), &observed, &decide(&observed), &old);
    assert!(is_worth_a_write(&old, &new, JUST_NOW));
    let stored = over(&old, &observed);
    let again = compute(&name(), Some(3), &observed, &decide(&observed), &stored);
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
fn positions_are_written_by_segments() {
    let at = |lsn| with_primary(|r| r.postgres.flush_lsn = Some(Lsn(lsn)));
    let old = status_of(&at(0x0500_0000));
    assert!(!is_worth_a_write(&old, &over(&old, &at(0x05ff_0000)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &at(0x0600_0000)), LONG_AGO));
    assert!(!is_worth_a_write(&old, &over(&old, &at(0x0600_0000)), JUST_NOW));
}

#[test]
fn one_missed_answer_is_not_news_and_silence_is() {
    let old = status_of(&steady());
    let mut missed = steady();
    missed.b.report = ReportView::Stale(Box::new(report(B, PostgresState::Standby)));
    assert!(!is_worth_a_write(&old, &over(&old, &missed), LONG_AGO));
    let mut silent = steady();
    silent.b.report = ReportView::Unreachable;
    let new = over(&old, &silent);
    assert!(is_worth_a_write(&old, &new, JUST_NOW));
    assert_eq!(new.instances[1].state, "Unreachable");
    assert_eq!(new.instances[1].flush_lsn, old.instances[1].flush_lsn, "what was known is kept");
}

#[test]
fn the_transition_time_moves_only_with_the_status() {
    let old = status_of(&steady());
    let new = over(&old, &later(steady().solo(), 60));
    let since = |s: &PgReplicaPairStatus, t| condition(s, t).unwrap().last_transition_time.0;
    assert_eq!(since(&new, ConditionType::Ready), since(&old, ConditionType::Ready));
    assert_eq!(since(&new, ConditionType::FailoverReady).as_second(), now().as_second() + 60);
}

#[test]
fn the_progress_of_a_copy_is_written_in_steps() {
    let at = |percent| {
        let mut observed = steady().solo().b_waits_for(1, &[(1, SeedState::Running)]);
        let progress =
            Some(SeedProgress { done_bytes: percent, total_bytes: Some(100), percent: Some(percent as f64) });
        observed.b.jobs = vec![SeedJob { number: 1, state: SeedState::Running, progress }];
        observed
    };
    let old = status_of(&at(10));
    assert!(!is_worth_a_write(&old, &over(&old, &at(14)), LONG_AGO));
    assert!(is_worth_a_write(&old, &over(&old, &at(15)), LONG_AGO));
    assert!(!is_worth_a_write(&old, &over(&old, &at(90)), JUST_NOW));
    assert_eq!(old.instances[1].state, "Seeding");
    assert_eq!(condition(&old, ConditionType::Seeding).unwrap().status, "True");
}

#[test]
fn problems_become_degraded_with_what_to_do() {
    let mut gone = steady();
    gone.lease = crate::observed::LeaseView::Missing;
    let status = status_of(&gone);
    let degraded = condition(&status, ConditionType::Degraded).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "RecordMissing"));
    assert!(degraded.message.contains("restore it"));
    let blocked = status_of(&steady().b_needs(Need::Seed));
    assert_eq!(condition(&blocked, ConditionType::Degraded).unwrap().reason, "RebuildBlocked");
}

#[test]
fn a_failover_is_told_once_with_cause_steps_and_gap() {
    let old = status_of(&steady());
    let new = over(&old, &with_primary(failover_of_term_3));
    let told = of_change(&old, &new);
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].note,
        "orders-a took over from orders-b in term 3 (PromiseLapsed, gap about 5.3 s): \
         LastHeartbeat +0 ms, CasWon +5123 ms, Promoted +5301 ms, Endpoint +5320 ms"
    );
    assert!(of_change(&new, &new).is_empty());
}

#[test]
fn pairing_and_its_loss_are_told() {
    let reasons = |old: &Observed, new: &Observed| {
        of_change(&status_of(old), &over(&status_of(old), new))
            .into_iter()
            .map(|t| t.shown)
            .collect::<Vec<_>>()
    };
    assert_eq!(reasons(&steady().solo(), &steady()), ["PairReady"]);
    assert_eq!(reasons(&steady(), &steady().solo()), ["FailoverNotReady"]);
    assert_eq!(reasons(&empty(), &empty()), Vec::<String>::new());
}

#[test]
fn a_status_without_a_report_has_no_zeros() {
    let status = serde_json::to_value(status_of(&empty())).unwrap();
    assert_eq!(
        status["instances"][0],
        json!({"name": "orders-a", "role": "Unknown", "ready": false, "state": "NeverSeen"})
    );
    assert!(status.get("lag").is_none() && status.get("term").is_none());
}
