//! Where the Services of a pair lead.

use std::time::Duration;

use pgpair_core::ids::InstanceId::{self, A, B};
use pgpair_core::instance::PostgresState;

use crate::decide::*;
use crate::fixtures::{empty, ip, lag, report, steady};
use crate::observed::{Mismatch, Observed, ReportView, SliceView};
use crate::plan::{AnyPlan, RoPlan};

fn mismatch(times: u32, seconds: u64) -> Mismatch {
    Mismatch { times, lasting: Duration::from_secs(seconds) }
}

#[test]
fn the_write_service_is_put_right_only_when_seen_wrong_often_and_long() {
    let mut observed = steady();
    observed.rw = SliceView::Present(vec![ip(B)]);
    for (seen, what) in [(mismatch(0, 0), "once"), (mismatch(9, 14), "often"), (mismatch(1, 60), "twice")] {
        observed.rw_mismatch = seen;
        assert_eq!(decide(&observed).rw, RwPlan::Suspect, "{what}");
    }
    observed.rw_mismatch = mismatch(2, 15);
    let RwPlan::Repair(A, target) = decide(&observed).rw else { panic!("not repaired") };
    assert_eq!(target.ip, ip(A));
    assert_eq!(decide(&observed).notices, [Notice::EndpointRepaired(A)]);
}

#[test]
fn a_deleted_write_slice_is_made_again_where_it_led() {
    let mut observed = steady();
    observed.rw = SliceView::Missing;
    let RwPlan::Create(Some(target)) = decide(&observed).rw else {
        panic!("it is created without its target")
    };
    assert_eq!(target.ip, ip(A));
    assert_eq!(decide(&observed.clone().a_silent()).rw, RwPlan::Create(None), "nothing says that it serves");
    let mut report = report(A, PostgresState::Primary);
    if let Some(standby) = &mut report.standby {
        standby.synchronous = false;
    }
    observed.a.report = ReportView::Fresh(Box::new(report));
    assert_eq!(decide(&observed).rw, RwPlan::Create(None), "clients are not let in yet");
}

#[test]
fn an_agent_that_says_that_it_has_written_the_write_service_is_given_less_time() {
    let mut observed = steady();
    observed.rw = SliceView::Present(vec![ip(B)]);
    observed.rw_mismatch = mismatch(2, 2);
    assert_eq!(decide(&observed).rw, RwPlan::Suspect);
    let mut report = report(A, PostgresState::Primary);
    report.last_failover = Some(pgpair_wire::report::FailoverReport {
        term: Term(3),
        cause: pgpair_core::authority::FailoverCause::Resigned,
        evidence: None,
        signals: Vec::new(),
        steps: vec![(pgpair_wire::report::FailoverStep::Endpoint, 1)],
    });
    observed.a.report = ReportView::Fresh(Box::new(report));
    assert!(matches!(decide(&observed).rw, RwPlan::Repair(A, _)));
}

#[test]
fn a_primary_that_keeps_clients_out_keeps_its_endpoint_away_too() {
    let mut observed = steady();
    observed.rw = SliceView::Present(Vec::new());
    observed.rw_mismatch = mismatch(9, 60);
    let mut report = report(A, PostgresState::Primary);
    if let Some(standby) = &mut report.standby {
        standby.synchronous = false;
    }
    observed.a.report = ReportView::Fresh(Box::new(report));
    assert_eq!(decide(&observed).rw, RwPlan::Keep, "its commits wait for a standby that has not confirmed");
    assert!(matches!(decide(&observed.solo()).rw, RwPlan::Repair(A, _)), "alone, it waits for nobody");
}

#[test]
fn the_write_service_is_never_led_to_an_instance_that_does_not_say_that_it_serves() {
    let mut observed = steady();
    observed.rw = SliceView::Present(vec![ip(B)]);
    observed.rw_mismatch = mismatch(9, 60);
    assert_eq!(decide(&observed.clone().a_silent()).rw, RwPlan::Keep);
    let told = |observed: &Observed, change: fn(&mut pgpair_wire::report::InstanceReport)| {
        let mut observed = observed.clone();
        let mut report = report(A, PostgresState::Primary);
        change(&mut report);
        observed.a.report = ReportView::Fresh(Box::new(report));
        decide(&observed).rw
    };
    let with = |change| told(&observed, change);
    assert_eq!(with(|r| r.authority.gate_open = false), RwPlan::Keep);
    assert_eq!(with(|r| r.authority.term = pgpair_core::ids::Term(2)), RwPlan::Keep);
    let another: fn(&mut pgpair_wire::report::InstanceReport) =
        |r| r.incarnation = pgpair_core::ids::Incarnation(1);
    assert_eq!(told(&observed.clone().solo(), another), RwPlan::Keep);
    assert!(matches!(with(another), RwPlan::Repair(A, _)), "restarted, it goes on by its standby's promise");
    assert_eq!(with(|r| r.postgres.state = PostgresState::Promoting), RwPlan::Keep);
    let mut stale = observed.clone();
    stale.a.report = ReportView::Stale(Box::new(report(A, PostgresState::Primary)));
    assert_eq!(decide(&stale).rw, RwPlan::Keep);
}

fn ro_with_lag(bytes: u64, now_at: InstanceId) -> RoPlan {
    let mut observed = steady();
    observed.ro = SliceView::Present(vec![ip(now_at)]);
    let mut primary = report(A, PostgresState::Primary);
    primary.standby = Some(lag(bytes));
    observed.a.report = ReportView::Fresh(Box::new(primary));
    decide(&observed).ro
}

#[test]
fn reading_moves_to_the_primary_when_the_standby_is_far_behind_and_back_when_it_is_close() {
    let to = |plan: RoPlan| match plan {
        RoPlan::Set(target) => target.map(|t| t.ip),
        RoPlan::Keep => None,
    };
    assert_eq!(ro_with_lag(32 << 20, B), RoPlan::Keep);
    assert_eq!(to(ro_with_lag(65 << 20, B)), Some(ip(A)));
    assert_eq!(ro_with_lag(32 << 20, A), RoPlan::Keep, "not close enough to come back");
    assert_eq!(to(ro_with_lag(1 << 20, A)), Some(ip(B)));
}

#[test]
fn reading_goes_on_at_the_standby_while_there_is_no_primary() {
    assert_eq!(decide(&steady().a_silent()).ro, RoPlan::Keep);
}

#[test]
fn the_service_of_all_leads_to_each_instance_that_answers_and_one_missed_answer_is_not_news() {
    let ips = |plan: AnyPlan| match plan {
        AnyPlan::Set(targets) => Some(targets.into_iter().map(|t| t.ip).collect::<Vec<_>>()),
        AnyPlan::Keep => None,
    };
    let mut missed = steady();
    missed.a.report = ReportView::Stale(Box::new(report(A, PostgresState::Primary)));
    assert_eq!(ips(decide(&missed).any), None);
    assert_eq!(ips(decide(&steady().a_silent()).any), None, "not while b may be promoted");
    assert_eq!(ips(decide(&steady().solo().a_silent()).any), Some(vec![ip(B)]));
    let mut moving = steady();
    moving.rw = SliceView::Present(vec![ip(B)]);
    moving.any = SliceView::Present(vec![ip(A)]);
    assert_eq!(ips(decide(&moving).any), None, "not before the write service leads to the primary");
    let mut starting = steady();
    starting.b.report = ReportView::Fresh(Box::new(report(B, PostgresState::Starting)));
    assert_eq!(ips(decide(&starting).any), Some(vec![ip(A)]));
    let mut leaving = steady();
    leaving.a.pod.as_mut().unwrap().deleting = true;
    assert_eq!(ips(decide(&leaving).any), None, "not while its primary is about to hand over");
    let mut standby_leaves = steady();
    standby_leaves.b.pod.as_mut().unwrap().deleting = true;
    assert_eq!(ips(decide(&standby_leaves).any), Some(vec![ip(A)]));
    assert_eq!(ips(decide(&empty()).any), Some(Vec::new()), "it is made");
}
