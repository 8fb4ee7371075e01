use pgpair_api::names::PairName;
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::order::OrderRefusal;
use pgpair_wire::order::OrderReport;
use pgpair_wire::report::Need;
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::decide::decide;
use crate::fixtures::{record, report, steady};
use crate::observed::{LeaseView, PodView, ReportView, SeedState};
use crate::plan::Plan;

fn pod(observed: &mut Observed, i: InstanceId) -> &mut PodView {
    let instance = if i == A { &mut observed.a } else { &mut observed.b };
    instance.pod.as_mut().unwrap()
}

fn outdated(mut observed: Observed, which: &[InstanceId]) -> Observed {
    for i in which {
        pod(&mut observed, *i).revision = Some("r0".into());
    }
    observed
}

fn needs_restart(mut observed: Observed, which: &[InstanceId]) -> Observed {
    for i in which {
        let instance = if *i == A { &mut observed.a } else { &mut observed.b };
        if let ReportView::Fresh(report) = &mut instance.report {
            report.pending_restart = vec!["shared_buffers".into()];
        }
    }
    observed
}

/// What the step does to which instance: `delete`, `Restart`, `Switchover`.
fn step_of(observed: &Observed) -> Option<(InstanceId, &'static str)> {
    match decide(observed).roll.step? {
        RollStep::Recreate { instance, .. } => Some((instance, "delete")),
        RollStep::Send { to, order } => Some((to, order.kind.as_str())),
    }
}

fn waits(observed: &Observed) -> Option<Waits> {
    decide(observed).roll.waits
}

#[test]
fn a_pair_that_is_as_the_spec_says_is_left_alone() {
    assert_eq!(decide(&steady()).roll, RollPlan::default());
    let mut unknown = steady();
    unknown.b.update_revision = None;
    pod(&mut unknown, B).revision = Some("r0".into());
    assert_eq!(decide(&unknown).roll, RollPlan::default(), "unknown is not outdated");
}

#[test]
fn the_standby_goes_first_and_then_the_primary_hands_over() {
    assert_eq!(step_of(&outdated(steady(), &[A, B])), Some((B, "delete")));
    assert_eq!(step_of(&outdated(steady(), &[B])), Some((B, "delete")));
    assert_eq!(step_of(&outdated(steady(), &[A])), Some((A, "Switchover")));
    assert_eq!(step_of(&needs_restart(steady(), &[A, B])), Some((B, "Restart")));
    assert_eq!(step_of(&needs_restart(steady(), &[A])), Some((A, "Switchover")));
    assert_eq!(step_of(&needs_restart(outdated(steady(), &[A]), &[B])), Some((B, "Restart")));
}

/// The configuration has less of a parameter than the primary runs with, so that the standby has more of it too.
fn lowered(mut observed: Observed) -> Observed {
    for instance in [&mut observed.a, &mut observed.b] {
        let ReportView::Fresh(report) = &mut instance.report else { panic!() };
        let name = vec!["max_connections".to_owned()];
        if report.postgres.state == PostgresState::Primary {
            report.pending_restart = name;
        } else {
            report.raised = name;
        }
    }
    observed
}

#[test]
fn for_a_lowered_parameter_that_a_standby_must_have_the_primary_is_restarted_first() {
    assert_eq!(step_of(&lowered(steady())), Some((A, "Restart")), "a hand-over would keep the old value");
    assert_eq!(waits(&lowered(steady().solo())), Some(Waits::NotPaired));
    assert_eq!(step_of(&needs_restart(lowered(steady()), &[B])), Some((B, "Restart")), "for another one");
    let mut other = lowered(steady());
    let ReportView::Fresh(report) = &mut other.a.report else { panic!() };
    report.pending_restart = vec!["shared_buffers".into()];
    assert_eq!(step_of(&other), Some((A, "Switchover")));
}

#[test]
fn the_pod_is_named_by_its_uid_so_that_its_successor_is_not_deleted() {
    let plan = decide(&outdated(steady(), &[B]));
    let step = RollStep::Recreate { instance: B, pod: "orders-b-0".into(), uid: "pod-b".into() };
    assert_eq!(plan.roll.step, Some(step));
}

#[test]
fn a_lone_primary_is_not_restarted() {
    for observed in [outdated(steady().solo(), &[A]), needs_restart(steady().solo(), &[A, B])] {
        assert_eq!((step_of(&observed), waits(&observed)), (None, Some(Waits::NotPaired)));
    }
    let mut gone = needs_restart(steady(), &[A]);
    gone.b.report = ReportView::Unreachable;
    assert_eq!(step_of(&gone), None);
}

#[test]
fn nothing_begins_while_something_else_is_under_way() {
    let roll = || outdated(steady(), &[A, B]);
    let ordered = |reply| {
        let mut observed = roll();
        let mut primary = report(A, PostgresState::Primary);
        primary.order = Some(OrderReport { id: "roll-1".into(), kind: OrderKind::Restart, reply });
        observed.a.report = ReportView::Fresh(Box::new(primary));
        observed
    };
    assert_eq!(waits(&ordered(OrderReply::Accepted)), Some(Waits::Busy));
    assert_eq!(step_of(&ordered(OrderReply::Done)), Some((B, "delete")));
    assert_eq!(waits(&Observed { paused: true, ..roll() }), Some(Waits::Held));
    assert_eq!(waits(&Observed { invalid: Some("why".into()), ..roll() }), Some(Waits::Held));
    let mut configured = roll();
    configured.config.generation = 4;
    assert_eq!(waits(&configured), Some(Waits::Busy), "the agents have to know the new settings first");
    let mut stopping = roll();
    pod(&mut stopping, B).deleting = true;
    assert_eq!(waits(&stopping), Some(Waits::NotPaired));
    let mut needy = roll();
    if let ReportView::Fresh(report) = &mut needy.b.report {
        report.need = Some(Need::Seed);
    }
    assert_eq!(step_of(&needy), None);
    assert_eq!(step_of(&Observed { is_glance: true, ..roll() }), None, "not on a record of seconds ago");
}

#[test]
fn steps_are_apart_and_more_so_after_a_refusal() {
    let ago =
        |seconds| Observed { rolled_ago: Some(Duration::from_secs(seconds)), ..outdated(steady(), &[B]) };
    assert_eq!(waits(&ago(9)), Some(Waits::Step));
    assert_eq!(step_of(&ago(10)), Some((B, "delete")));
    let mut refused = ago(29);
    let mut primary = report(A, PostgresState::Primary);
    let reply = OrderReply::Refused(OrderRefusal::StandbyCannot);
    primary.order = Some(OrderReport { id: "roll-1".into(), kind: OrderKind::Switchover, reply });
    refused.a.report = ReportView::Fresh(Box::new(primary));
    assert_eq!(waits(&refused), Some(Waits::Step));
}

#[test]
fn a_pod_that_could_never_start_is_replaced_by_the_template_that_mends_it() {
    let mut broken = outdated(steady().solo(), &[B]);
    broken.b.report = ReportView::NeverSeen;
    let pod = pod(&mut broken, B);
    (pod.ready, pod.running, pod.started) = (false, false, false);
    assert_eq!(step_of(&broken), Some((B, "delete")));
    broken.b.pod.as_mut().unwrap().running = true;
    assert_eq!(step_of(&broken), None, "one that runs may be rewinding");
}

#[test]
fn a_standby_that_cannot_start_is_replaced_by_the_template_that_may_mend_it() {
    let failing = |observed: Observed| {
        let mut failing = outdated(observed, &[B]);
        let mut report = report(B, PostgresState::Down);
        report.trouble = Some("the image holds PostgreSQL 15".into());
        failing.b.report = ReportView::Fresh(Box::new(report));
        failing
    };
    let broken = || failing(steady().solo());
    assert_eq!(step_of(&broken()), Some((B, "delete")), "it can never be Paired by its own template");
    assert_eq!(step_of(&failing(steady())), None, "the record has to say that the primary goes on alone");
    let mut newest = broken();
    pod(&mut newest, B).revision = steady().b.pod.unwrap().revision;
    assert_eq!(step_of(&newest), None, "only by another template");
    let mut rewinds = broken();
    let ReportView::Fresh(report) = &mut rewinds.b.report else { panic!() };
    report.trouble = None;
    assert_eq!(step_of(&rewinds), None, "one without trouble may be rewinding");
    let mut stops = broken();
    pod(&mut stops, B).deleting = true;
    assert_eq!(step_of(&stops), None);
    assert_eq!(step_of(&Observed { paused: true, ..broken() }), None);
    assert_eq!(step_of(&Observed { is_glance: true, ..broken() }), None, "not on a record of seconds ago");
}

/// True as often as this.
fn often(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

prop_compose! {
    /// One instance in any mixture of states, most of them good: else nothing would ever be decided.
    fn any_instance(i: InstanceId)(
        state in prop_oneof![
            6 => Just(if i == A { PostgresState::Primary } else { PostgresState::Standby }),
            1 => prop::sample::select(vec![
                PostgresState::Down, PostgresState::Starting, PostgresState::Standby, PostgresState::Promoting, PostgresState::Primary,
            ]),
        ],
        view in prop_oneof![8 => Just(3u8), 1 => 0..3u8],
        (ready, stays, running, started) in (often(0.9), often(0.9), often(0.9), often(0.9)),
        (old, pending, need, ordered) in (often(0.5), often(0.5), often(0.1), often(0.1)),
        (scaled_down, seeding, has_pod, raised) in (often(0.1), often(0.1), often(0.95), often(0.2)),
    ) -> crate::observed::InstanceObserved {
        let mut instance = if i == A { steady().a } else { steady().b };
        let mut report = report(i, state);
        report.pending_restart = if pending { vec!["shared_buffers".into()] } else { Vec::new() };
        report.need = need.then_some(Need::Seed);
        report.raised = if raised { vec!["shared_buffers".into()] } else { Vec::new() };
        report.trouble = (state == PostgresState::Down).then(|| "it does not start".into());
        report.order = ordered.then(|| OrderReport { id: "o".into(), kind: OrderKind::Restart, reply: OrderReply::Accepted });
        instance.report = match view {
            0 => ReportView::NeverSeen,
            1 => ReportView::Stale(Box::new(report)),
            2 => ReportView::Unreachable,
            _ => ReportView::Fresh(Box::new(report)),
        };
        if let Some(pod) = &mut instance.pod {
            (pod.ready, pod.deleting, pod.running, pod.started) = (ready, !stays, running, started);
            pod.revision = Some(if old { "r0" } else { "r1" }.into());
        }
        instance.pod = instance.pod.filter(|_| has_pod);
        if let Some(set) = &mut instance.set {
            set.replicas = i32::from(!scaled_down);
        }
        if seeding {
            instance.jobs = vec![crate::observed::SeedJob { number: 1, state: SeedState::Running, progress: None, failure: None }];
        }
        instance
    }
}

prop_compose! {
    fn any_pair()(
        a in any_instance(A), b in any_instance(B),
        (a_leads, paired, paused, recent, missing) in (often(0.8), often(0.7), often(0.1), often(0.1), often(0.05)),
    ) -> Observed {
        let mode = if paired { Mode::Paired } else { Mode::Solo };
        let record = record(if a_leads { A } else { B }, mode);
        let lease = if missing { LeaseView::Missing } else { LeaseView::Present(record) };
        Observed { a, b, lease, paused, is_glance: recent, ..steady() }
    }
}

/// Instances whose postgres this plan takes down, or keeps down.
fn taken_down(observed: &Observed, plan: &Plan) -> Vec<InstanceId> {
    let by_roll = match &plan.roll.step {
        Some(RollStep::Recreate { instance, .. }) => Some(*instance),
        Some(RollStep::Send { to, .. }) => Some(*to),
        None => None,
    };
    let scaled = |i: &InstanceId| {
        let to = if *i == A { &plan.a } else { &plan.b };
        let was = observed.instance(*i).set.is_some_and(|s| s.replicas == 1);
        was && to.is_some_and(|p| p.replicas == 0)
    };
    InstanceId::ALL.into_iter().filter(|i| by_roll == Some(*i) || scaled(i)).collect()
}

/// Checks the step of one plan; gives whether there is one.
fn check(observed: &Observed) -> Result<bool, TestCaseError> {
    let plan = decide(observed);
    prop_assert!(taken_down(observed, &plan).len() <= 1, "{:?}", plan.roll);
    let Some(step) = &plan.roll.step else { return Ok(false) };
    prop_assert!(!observed.paused);
    let record = observed.record().expect("a step without a record");
    let paired = record.mode == Mode::Paired && observed.serving_primary().is_some();
    let (instance, stillborn) = match step {
        RollStep::Recreate { instance, .. } => {
            let pod = observed.instance(*instance).pod.as_ref().expect("a pod that is not there");
            let stillborn = !pod.started && !pod.running;
            let fails = observed.instance(*instance).report.fresh().is_some_and(|r| r.trouble.is_some());
            let alone = record.mode == Mode::Solo && fails;
            prop_assert!(stillborn || ((paired || alone) && *instance != record.primary.instance));
            (*instance, stillborn || alone)
        }
        RollStep::Send { to, order } => {
            prop_assert!(paired);
            let primary = record.primary.instance;
            let raised =
                observed.instance(primary.peer()).report.fresh().is_some_and(|r| !r.raised.is_empty());
            let in_place = *to == primary && order.kind == OrderKind::Restart;
            prop_assert!(!in_place || raised);
            prop_assert!(in_place || (*to == primary) == (order.kind == OrderKind::Switchover));
            prop_assert_eq!(order.term, record.term);
            (*to, false)
        }
    };
    // What remains is whole: the other instance runs, and nobody has begun anything with it.
    let other = observed.instance(instance.peer());
    let whole = other.pod.as_ref().is_some_and(|p| p.ready && !p.deleting) && !other.is_seeding();
    prop_assert!(stillborn || whole);
    Ok(true)
}

#[test]
fn no_plan_takes_both_instances_down_or_restarts_a_primary_that_could_hand_over() {
    let steps = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(5000));
    let result = runner.run(&any_pair(), |observed| {
        steps.set(steps.get() + u32::from(check(&observed)?));
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(steps.get() > 100, "only {} of the mixtures led to a step: they prove nothing", steps.get());
}

fn other() -> PairName {
    PairName { namespace: "bank".into(), name: "ledger".into() }
}

#[rstest]
#[case::another_one_rolls(Turn::After(other()))]
#[case::another_one_failed(Turn::Stopped(other()))]
#[case::a_new_leader(Turn::FirstLook)]
fn a_pair_whose_turn_it_is_not_waits_and_costs_no_more_than_one_at_rest(#[case] turn: Turn) {
    let observed = Observed { turn: turn.clone(), ..outdated(steady(), &[A, B]) };
    let plan = decide(&observed);
    assert_eq!((plan.roll.step.clone(), plan.roll.waits.clone()), (None, Some(Waits::Turn(turn))));
    assert!(plan.is_idle(), "its record need not be read every second");
}

#[test]
fn a_pair_that_has_begun_goes_on() {
    let begun = Observed { turn: Turn::Begun, ..outdated(steady(), &[A]) };
    assert_eq!(step_of(&begun), Some((A, "Switchover")));
    let plan = decide(&begun);
    assert!(plan.roll.takes_turn);
    let back = decide(&Observed { turn: Turn::Begun, ..steady() });
    assert_eq!(back.roll, RollPlan::default());
    let returning = decide(&Observed { turn: Turn::Begun, ..steady().solo() });
    assert_eq!(returning.roll.waits, Some(Waits::Return));
    let mut lowered = Observed { turn: Turn::Begun, ..lowered(steady()) };
    let ReportView::Fresh(primary) = &mut lowered.a.report else { panic!() };
    primary.pending_restart.clear(); // it has restarted with the lower value, and the standby is about to learn of that
    assert_eq!(decide(&lowered).roll.waits, Some(Waits::Return), "its turn does not end between the two");
}

#[test]
fn a_restart_for_parameters_does_not_wait_for_a_roll_that_failed_elsewhere() {
    let stopped = Observed { turn: Turn::Stopped(other()), ..needs_restart(steady(), &[B]) };
    assert_eq!(step_of(&stopped), Some((B, "Restart")));
    let after = Observed { turn: Turn::After(other()), ..needs_restart(steady(), &[B]) };
    assert_eq!(step_of(&after), None);
}

#[test]
fn a_pod_that_never_started_is_made_anew_out_of_turn() {
    let mut stillborn = Observed { turn: Turn::After(other()), ..outdated(steady().solo(), &[B]) };
    let pod = pod(&mut stillborn, B);
    (pod.started, pod.running) = (false, false);
    stillborn.b.report = ReportView::NeverSeen;
    assert_eq!(step_of(&stillborn), Some((B, "delete")));
    assert!(!decide(&stillborn).roll.takes_turn);
}
