use pgpair_core::ids::InstanceId::{A, B};

use std::time::Duration;

use super::*;
use crate::fixtures::{empty, ip, now, pod, record, report, steady};
use crate::observed::{InstanceObserved, LeaseView, Observed, ReportView, SliceView};
use crate::plan::{AnyPlan, OrderPlan, RoPlan};
use pgpair_api::status::OrderState;
use pgpair_core::ids::SystemIdentifier;
use pgpair_core::instance::PostgresState;

mod services;

/// What is told of the order; panics if nothing is.
pub(super) fn told_of(observed: &Observed) -> (OrderState, &'static str) {
    match decide(observed).order {
        OrderPlan::Tell(told) => (told.state, told.reason.as_str()),
        other => panic!("{other:?}"),
    }
}

fn plan_of(replicas: i32, seed: u32) -> Option<InstancePlan> {
    Some(InstancePlan { replicas, seed, seed_failures: 0 })
}

fn failed(seconds_ago: i64) -> SeedState {
    let at = jiff::Timestamp::from_second(now().as_second() - seconds_ago).unwrap();
    SeedState::Failed { at, message: "BackoffLimitExceeded".into() }
}

fn rebuild() -> Need {
    Need::Rebuild { reason: "pg_rewind failed".into() }
}

#[test]
fn a_new_pair_gets_its_record_and_only_instance_a_runs() {
    let plan = decide(&empty());
    assert!(plan.create_lease.is_some());
    assert_eq!((plan.a, plan.b), (plan_of(1, 0), plan_of(0, 1)));
    assert_eq!(plan.rw, RwPlan::Create(None));
    assert_eq!(plan.notices, [Notice::Bootstrapping]);
    assert_eq!(plan.create_job, None);
}

#[test]
fn the_record_is_never_made_again_once_anything_says_that_there_is_data() {
    let by_status = crate::observed::Observed { system_identifier: Some("99".into()), ..empty() };
    let report = ReportView::Fresh(Box::new(report(B, PostgresState::Standby)));
    let by_report = crate::observed::Observed {
        b: InstanceObserved { report, ..InstanceObserved::default() },
        ..empty()
    };
    for observed in [by_status, by_report] {
        let plan = decide(&observed);
        assert!(plan.create_lease.is_none());
        assert_eq!(plan.problems, [Problem::RecordMissing]);
        assert_eq!((plan.a, plan.b), (None, None), "nothing is scaled on a guess");
    }
}

#[test]
fn a_lease_that_is_no_record_changes_nothing() {
    let mut observed = steady();
    observed.lease = LeaseView::Unreadable("the lease has no holderIdentity".into());
    let plan = decide(&observed);
    assert_eq!((plan.a, plan.b, plan.create_lease), (None, None, None));
    assert!(matches!(plan.problems[..], [Problem::RecordUnreadable(_)]));
}

#[test]
fn a_pair_as_it_should_be_gets_a_plan_without_steps() {
    let plan = decide(&steady());
    assert!(plan.settled);
    assert_eq!((plan.a, plan.b), (plan_of(1, 0), plan_of(1, 1)));
    assert_eq!((&plan.rw, &plan.ro, &plan.any), (&RwPlan::Keep, &RoPlan::Keep, &AnyPlan::Keep));
    assert!(plan.is_idle() && plan.evidence.is_empty() && plan.configure.is_empty());
    assert!(plan.notices.is_empty() && plan.delete_jobs.is_empty() && plan.create_job.is_none());
}

#[test]
fn the_first_copy_begins_only_when_the_primary_takes_writes() {
    let waiting = steady().solo().b_waits_for(1, &[]);
    assert_eq!(decide(&waiting).create_job, Some((B, 1)));
    assert_eq!(decide(&waiting).notices, [Notice::SeedingStarted(B, 1)]);
    assert_eq!(decide(&waiting.clone().a_silent()).create_job, None);
    let mut starting = waiting;
    starting.a.report = ReportView::Fresh(Box::new(report(A, PostgresState::Starting)));
    assert_eq!(decide(&starting).create_job, None);
}

#[test]
fn the_first_job_of_a_new_pair_starts_beside_the_first_data_directory_on_another_node() {
    let lease = LeaseView::Present(pgpair_core::record::Record::initial());
    let mut observed = Observed { lease, ..steady() }.b_waits_for(1, &[]);
    observed.a.report = ReportView::Unreachable;
    assert_eq!(decide(&observed).create_job, Some((B, 1)));
    let again = observed.clone().b_waits_for(2, &[(1, failed(300))]);
    assert_eq!(decide(&again).create_job, None, "a second one only for a primary that takes writes");
    observed.a.pod.as_mut().unwrap().node = None;
    assert_eq!(decide(&observed).create_job, None, "a must have its node first");
}

#[test]
fn a_copy_waits_until_the_instances_own_pod_is_gone() {
    let mut observed = steady().solo().b_waits_for(1, &[]);
    observed.b.pod = Some(pod(B));
    assert_eq!(decide(&observed).create_job, None);
}

#[test]
fn a_running_copy_is_left_alone_and_a_complete_one_starts_its_instance() {
    let running = decide(&steady().solo().b_waits_for(1, &[(1, SeedState::Running)]));
    assert_eq!((running.b, running.create_job), (plan_of(0, 1), None));
    assert!(running.delete_jobs.is_empty());
    let complete = decide(&steady().solo().b_waits_for(1, &[(1, SeedState::Complete)]));
    assert_eq!(complete.b, plan_of(1, 1));
    assert_eq!(complete.notices, [Notice::SeedingFinished(B, 1)]);
}

#[test]
fn jobs_that_have_ended_are_deleted_once_their_instance_runs_as_standby_or_as_primary() {
    let job = |number, state| SeedJob { number, state, progress: None, failure: None };
    let done = || vec![job(1, failed(90)), job(2, SeedState::Complete)];
    let mut observed = steady();
    observed.b.jobs = done();
    assert_eq!(decide(&observed).delete_jobs, [(B, 1), (B, 2)]);
    assert!(!decide(&observed).settled);
    let mut promoted = steady();
    promoted.a.jobs = done();
    assert_eq!(decide(&promoted).delete_jobs, [(A, 1), (A, 2)], "it was a standby when it was copied");
    (observed.b.jobs, observed.b.report) = (done(), ReportView::NeverSeen);
    assert!(decide(&observed).delete_jobs.is_empty(), "it may not have started yet");
}

#[test]
fn the_job_of_an_earlier_copy_does_not_count_for_the_next() {
    let plan = decide(&steady().solo().b_waits_for(2, &[(1, SeedState::Complete)]));
    assert_eq!(plan.b, plan_of(0, 2));
    assert_eq!(plan.create_job, Some((B, 2)));
    assert_eq!(plan.delete_jobs, [(B, 1)]);
}

#[test]
fn a_failed_copy_is_followed_by_another_after_a_growing_delay() {
    let fresh = decide(&steady().solo().b_waits_for(1, &[(1, failed(29))]));
    assert_eq!(fresh.b, plan_of(0, 1));
    assert!(matches!(fresh.problems[..], [Problem::SeedFailed(B, 1, _)]));
    let old = decide(&steady().solo().b_waits_for(1, &[(1, failed(30))]));
    assert_eq!(old.b, Some(InstancePlan { replicas: 0, seed: 2, seed_failures: 1 }));
    let delays: Vec<u64> = (0..7).map(|n| seed_retry_delay(n).as_secs()).collect();
    assert_eq!(delays, [30, 60, 120, 240, 480, 600, 600]);
}

#[test]
fn an_instance_that_cannot_follow_goes_down_for_the_next_copy() {
    let plan = decide(&steady().solo().b_needs(rebuild()));
    assert_eq!(plan.b, plan_of(0, 2));
    assert_eq!(plan.notices, [Notice::RebuildStarted(B, "pg_rewind failed".into())]);
    assert_eq!(plan.create_job, None, "its pod has to go first");
}

#[test]
fn no_instance_goes_down_while_the_record_is_paired_or_nothing_serves() {
    let paired = decide(&steady().b_needs(Need::Seed));
    assert_eq!(paired.b, plan_of(1, 1));
    assert_eq!(paired.problems, [Problem::RebuildBlocked(B, Blocked::StillPaired)]);
    let mut ordered = steady().b_needs(Need::Seed);
    ordered.last_order = serde_json::from_value(serde_json::json!(
        {"id": "x-1777636795", "kind": "Rebuild", "instance": "orders-b", "state": "Running", "reason": "Accepted"}
    ))
    .unwrap();
    let ordered = decide(&ordered);
    assert_eq!((ordered.b, ordered.problems), (plan_of(1, 1), Vec::new()), "it was asked for");
    let silent = decide(&steady().solo().a_silent().b_needs(Need::Seed));
    assert_eq!(silent.b, plan_of(1, 1));
    assert_eq!(silent.problems, [Problem::RebuildBlocked(B, Blocked::NoServingPrimary)]);
}

#[test]
fn the_instance_that_the_record_names_is_never_scaled_down() {
    let mut observed = steady().solo();
    let mut needy = report(A, PostgresState::Down);
    needy.need = Some(rebuild());
    observed.a.report = ReportView::Fresh(Box::new(needy));
    let plan = decide(&observed);
    assert_eq!(plan.a, plan_of(1, 0));
    assert_eq!(plan.problems, [Problem::RebuildBlocked(A, Blocked::IsPrimary)]);
}

#[test]
fn a_primary_at_zero_replicas_runs_again_once_its_copy_has_let_go() {
    let mut observed = steady().b_waits_for(1, &[(1, SeedState::Running)]);
    observed.lease = LeaseView::Present(record(B, Mode::Solo));
    let plan = decide(&observed);
    assert_eq!((plan.b, plan.delete_jobs), (plan_of(0, 1), vec![(B, 1)]));
    let freed = observed.b_waits_for(1, &[]);
    let plan =
        decide(&crate::observed::Observed { lease: LeaseView::Present(record(B, Mode::Solo)), ..freed });
    assert_eq!(plan.b, plan_of(1, 1));
}

#[test]
fn two_copies_never_run_at_once() {
    let mut observed = steady().solo().b_waits_for(1, &[]);
    observed.a.jobs = vec![SeedJob { number: 4, state: SeedState::Running, progress: None, failure: None }];
    assert_eq!(decide(&observed).create_job, None);
}

#[test]
fn a_stateful_set_that_somebody_deleted_comes_back_running() {
    let mut observed = steady();
    observed.b.set = None;
    assert_eq!(
        decide(&observed).b,
        plan_of(1, 0),
        "its agent looks at the volume and asks if it needs a copy"
    );
}

#[test]
fn an_agent_with_older_settings_than_the_spec_is_given_the_new_ones() {
    let mut observed = steady();
    observed.config.generation = 4;
    assert_eq!(decide(&observed).configure, [A, B]);
    assert!(!decide(&observed).is_idle());
    assert_eq!(decide(&observed.a_silent()).configure, [B], "one that does not answer cannot be told");
}

#[test]
fn an_agent_that_does_not_know_the_password_of_a_secret_is_given_it() {
    assert_eq!(decide(&steady()).passwords, []);
    let mut observed = steady();
    observed.passwords[0].entry.mark = Some("m2".into());
    let plan = decide(&observed);
    assert_eq!(plan.passwords, [A, B]);
    assert!(!plan.is_idle());
    observed.refused_passwords.insert(A, Duration::from_secs(59));
    assert_eq!(decide(&observed).passwords, [B], "one that refused them is asked once a minute");
    observed.refused_passwords.insert(A, Duration::from_secs(60));
    let starting = ReportView::Fresh(Box::new(report(B, PostgresState::Starting)));
    let starts =
        Observed { b: InstanceObserved { report: starting, ..observed.b.clone() }, ..observed.clone() };
    assert_eq!(decide(&starts).passwords, [A], "one whose postgres does not run tells nothing of them");
    let invalid = Observed { invalid: Some("why".into()), ..observed.clone() };
    assert_eq!(decide(&invalid).passwords, [], "whose they are is not known");
    assert!(
        !crate::outcome::Step::Passwords.is_due(&invalid)
            && crate::outcome::Step::Passwords.is_due(&observed)
    );
    observed.passwords[0].entry.found = crate::secrets::passwords::Found::NoPassword;
    assert_eq!(decide(&observed).passwords, [], "there is nothing to give");
}

/// The agent of a follows generation 3 and refused generation 4 so many seconds ago; b has it.
fn refused(seconds: u64) -> Observed {
    let mut observed = steady();
    observed.config.generation = 4;
    let refusal = crate::observed::SettingsRefusal { generation: 4, message: "no such thing".into() };
    observed.refused_settings.insert(A, (refusal, Duration::from_secs(seconds)));
    if let ReportView::Fresh(report) = &mut observed.b.report {
        report.config_generation = 4;
    }
    observed
}

#[test]
fn settings_that_an_agent_refused_are_given_again_once_a_minute() {
    for (seconds, given) in [(1, vec![]), (59, vec![]), (60, vec![A])] {
        let plan = decide(&refused(seconds));
        assert_eq!(plan.configure, given, "after {seconds} s");
        assert_eq!(plan.refused_settings, [(A, "no such thing".to_owned())]);
        assert_eq!(plan.is_idle(), given.is_empty(), "nothing is looked at again each second");
    }
    let mut corrected = refused(1);
    corrected.config.generation = 5;
    let plan = decide(&corrected);
    assert_eq!(
        (plan.configure, plan.refused_settings),
        (vec![A, B], vec![]),
        "a correction is given at once"
    );
}

#[test]
fn settings_that_an_agent_refuses_hold_back_nothing_else() {
    for seconds in [1, 60] {
        let mut observed = refused(seconds);
        observed.b.update_revision = Some("r2".into());
        let roll = decide(&observed).roll;
        assert!(roll.step.is_some(), "{roll:?}");
    }
}

#[test]
fn a_paused_pair_comes_to_rest_although_its_agents_lack_the_newest_settings() {
    let mut behind = steady();
    behind.config.generation = 4;
    assert!(!decide(&behind).is_idle());
    behind.b.update_revision = Some("r2".into());
    let paused = Observed { paused: true, ..behind };
    assert!(decide(&paused).is_idle());
    let wrong = Observed { ro: SliceView::Present(vec!["10.0.0.9".into()]), ..paused };
    assert!(!decide(&wrong).is_idle(), "its Services are looked after");
}

#[test]
fn a_proof_of_death_does_not_wait_for_a_spec_that_can_be_carried_out() {
    let mut killed = steady().a_silent();
    if let Some(pod) = &mut killed.a.pod {
        let ended = crate::observed::Ended { reason: "Error".into(), message: "0000000000000007".into() };
        pod.ended = vec![ended];
    }
    let evidence = decide(&killed).evidence;
    assert_eq!(evidence.len(), 1);
    let invalid = decide(&Observed { invalid: Some("why".into()), ..killed });
    assert_eq!(invalid.evidence, evidence);
    assert_eq!(invalid.problems, [Problem::InvalidSpec("why".into())]);
}

#[test]
fn data_of_an_earlier_pair_is_told_and_left_alone() {
    let mut observed = steady();
    let mut foreign = report(A, PostgresState::Down);
    foreign.authority.refusal = Some("ForeignRecord".into());
    observed.a.report = ReportView::Fresh(Box::new(foreign));
    observed.lease = LeaseView::Present(Record::initial());
    observed.b = InstanceObserved::default();
    let plan = decide(&observed);
    assert_eq!(plan.problems, [Problem::ForeignData(A, Some(SystemIdentifier(99)))]);
    assert_eq!((plan.create_lease, plan.create_job, plan.a), (None, None, plan_of(1, 0)));
}

#[test]
fn nothing_rests_on_a_record_of_some_seconds_ago_but_that_all_is_well() {
    let mut observed = steady();
    observed.is_glance = true;
    assert!(decide(&observed).is_idle());
    assert!(!decide(&observed.clone().a_silent()).is_idle());
    assert!(!decide(&observed.b_needs(Need::Seed)).is_idle());
}

#[test]
fn the_same_observation_gives_the_same_plan() {
    for observed in
        [steady(), empty(), steady().solo().b_needs(rebuild()), steady().b_waits_for(3, &[(3, failed(5))])]
    {
        assert_eq!(decide(&observed), decide(&observed));
    }
}

#[test]
fn a_record_of_some_seconds_ago_or_a_pair_that_is_held_narrows_what_is_carried_out() {
    let scope = |recent: bool, paused: bool, invalid: bool, exists: bool| {
        let invalid = invalid.then(|| "fsync".to_owned());
        decide_scope(&Observed { is_glance: recent, paused, invalid, ..steady() }, exists)
    };
    for exists in [false, true] {
        assert_eq!(scope(false, false, false, exists), Scope::Everything);
        assert_eq!(scope(true, false, false, exists), Scope::Report);
        assert_eq!(scope(true, true, true, exists), Scope::Report);
    }
    for (paused, invalid) in [(true, false), (false, true), (true, true)] {
        assert_eq!(scope(false, paused, invalid, true), Scope::Upkeep);
        assert_eq!(scope(false, paused, invalid, false), Scope::Report, "nothing is there to be kept going");
    }
}

#[test]
fn a_slice_with_wrong_ports_or_labels_is_put_right_at_once_and_the_agents_endpoints_stay() {
    let altered = |observed: Observed| {
        let plan = decide(&observed);
        (plan.rw, plan.ro, plan.any)
    };
    let rw = Observed { rw: SliceView::Altered(vec![ip(A)]), ..steady() };
    assert_eq!(altered(rw.clone()).0, RwPlan::Mend);
    assert_eq!(altered(rw.a_silent()).0, RwPlan::Mend, "whoever is the primary");
    let others = Observed {
        ro: SliceView::Altered(vec![ip(B)]),
        any: SliceView::Altered(vec![ip(A), ip(B)]),
        ..steady()
    };
    let (_, ro, any) = altered(others);
    assert!(matches!(ro, RoPlan::Set(Some(target)) if target.ip == ip(B)));
    assert!(matches!(any, AnyPlan::Set(targets) if targets.len() == 2));
}
