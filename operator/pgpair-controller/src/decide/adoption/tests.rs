use pgpair_api::spec::AdoptChoice;
use pgpair_backup::adopt::{Doubt, Other};
use pgpair_core::authority::Durable;
use pgpair_core::ids::InstanceId::{A, B};
use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::instance::PostgresState;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::Durability;
use pgpair_core::timeline::TimelineId;

use super::*;
use crate::decide::decide;
use crate::fixtures::{empty, kept_volume, now, record, report, steady};
use crate::observed::{AdoptJobs, InstanceObserved, Observed, ReportView, SeedJob, SetView};

/// A volume of the pair, whose log ends there.
fn volume(id: u64, end: u64, term: u32, primary: bool) -> KeptVolume {
    let state = Durable {
        term: Term(term),
        primary,
        volume: primary.then_some(VolumeId(id)),
        mode: Some(Mode::Paired),
        durability: Some(Durability::SyncStrict),
        ..Durable::default()
    };
    KeptVolume { state: Some(state), ..kept_volume(id, end) }
}

fn looked(a: Look, b: Look) -> AdoptionObserved {
    let done = |look| AdoptJobs { look: JobView::Done(now(), look), release: JobView::Missing };
    AdoptionObserved { choice: None, a: done(a), b: done(b) }
}

/// The claims of an earlier pair are there, and nothing else.
fn without_record(adoption: AdoptionObserved) -> Observed {
    Observed { adoption: Some(adoption), ..empty() }
}

/// Both have the same log; b was primary last.
fn whole() -> AdoptionObserved {
    looked(Look::Volume(volume(1, 500, 3, false)), Look::Volume(volume(2, 500, 4, true)))
}

/// Each has something that the other lacks.
fn parted() -> AdoptionObserved {
    let mut other = volume(2, 900, 4, true);
    other.history = TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(300))] };
    looked(Look::Volume(volume(1, 500, 3, true)), Look::Volume(other))
}

fn adoption(observed: &Observed) -> AdoptionPlan {
    decide(observed).adoption.unwrap()
}

#[test]
fn a_new_pair_looks_at_both_volumes_before_anything_else_is_made() {
    let plan = decide(&without_record(AdoptionObserved::default()));
    assert_eq!((plan.create_lease, plan.a, plan.b, plan.create_job), (None, None, None, None));
    let next = plan.adoption.unwrap();
    assert_eq!(next.phase, AdoptionPhase::Looking);
    assert_eq!(next.create, [AdoptJob::Look(A), AdoptJob::Look(B)]);
}

#[test]
fn a_pair_whose_record_is_lost_is_stopped_first() {
    let mut observed =
        Observed { lease: LeaseView::Missing, adoption: Some(AdoptionObserved::default()), ..steady() };
    let plan = decide(&observed);
    let stopped = Some(InstancePlan { replicas: 0, seed: 0, seed_failures: 0 });
    assert_eq!((plan.a, plan.b), (stopped, stopped));
    assert_eq!(adoption(&observed), AdoptionPlan::new(AdoptionPhase::Waiting));
    // One by one they let go of their volumes.
    for i in [A, B] {
        let instance = if i == A { &mut observed.a } else { &mut observed.b };
        instance.set = Some(SetView { replicas: 0, running: 0, seed: 1, seed_failures: 0 });
        assert_eq!(adoption(&observed).phase, AdoptionPhase::Waiting, "the pod of {i} is there");
        let instance = if i == A { &mut observed.a } else { &mut observed.b };
        (instance.pod, instance.report) = (None, ReportView::NeverSeen);
    }
    assert_eq!(adoption(&observed).create.len(), 2);
    let running = SeedJob { number: 4, state: SeedState::Running, progress: None, failure: None };
    observed.b.jobs = vec![running];
    let plan = decide(&observed);
    assert_eq!(plan.delete_jobs, [(B, 4)]);
    assert!(plan.adoption.unwrap().create.is_empty(), "a copy writes to a volume");
}

#[test]
fn what_was_found_before_something_ran_decides_nothing() {
    let mut observed = Observed { lease: LeaseView::Missing, adoption: Some(whole()), ..steady() };
    observed.adoption.as_mut().unwrap().b.release = JobView::Done(now(), ());
    let plan = decide(&observed);
    assert_eq!((plan.create_lease, plan.problems), (None, Vec::new()));
    let next = plan.adoption.unwrap();
    assert_eq!((next.phase, next.verdict), (AdoptionPhase::Waiting, None));
    assert_eq!(next.delete, [(A, AdoptStep::Look), (B, AdoptStep::Look), (B, AdoptStep::Release)]);
}

#[test]
fn volumes_that_prove_it_are_let_go_of_and_get_a_record_with_the_next_term() {
    let mut observed = without_record(whole());
    let plan = decide(&observed);
    let next = plan.adoption.unwrap();
    assert_eq!(next.phase, AdoptionPhase::Releasing);
    assert_eq!(
        next.create,
        [AdoptJob::Release(A, Some(VolumeId(1))), AdoptJob::Release(B, Some(VolumeId(2)))]
    );
    assert_eq!(
        next.verdict,
        Some(Verdict::Primary { instance: B, other: Some(Other::Follow), accepted: None })
    );
    assert_eq!(plan.create_lease, None);
    let seen = observed.adoption.as_mut().unwrap();
    seen.a.release = JobView::Done(now(), ());
    seen.b.release = JobView::Running;
    assert_eq!(decide(&observed).create_lease, None, "b is still another record's");
    observed.adoption.as_mut().unwrap().b.release = JobView::Done(now(), ());
    let plan = decide(&observed);
    let made = plan.create_lease.unwrap();
    assert_eq!((made.term, made.mode, made.primary_volume), (Term(5), Mode::Solo, Some(VolumeId(2))));
    assert_eq!(made.primary, Holder { instance: B, incarnation: Incarnation(0) });
    assert_eq!(
        (made.durability, made.system_identifier),
        (Durability::SyncStrict, Some(SystemIdentifier(99)))
    );
    assert_eq!(plan.notices, [Notice::Adopted(B, Term(5))]);
}

#[test]
fn what_they_do_not_prove_is_asked_and_a_choice_counts_for_what_was_found_alone() {
    let mut observed = without_record(parted());
    let plan = decide(&observed);
    let next = plan.adoption.unwrap();
    let word = next.accept.clone().unwrap();
    assert_eq!((next.phase, next.create.len()), (AdoptionPhase::Asking, 0));
    let asked = Problem::AdoptionAsks {
        why: Doubt::BothMayHaveAcknowledged,
        a: Some(Loss::Bytes(600)),
        b: Some(Loss::Bytes(200)),
        accept: word.clone(),
    };
    assert_eq!(plan.problems, [asked]);
    let choose = |primary, accept: &str| Some(AdoptChoice { primary, accept: accept.to_owned() });
    observed.adoption.as_mut().unwrap().choice = choose(A, "0000000000000000");
    assert_eq!(adoption(&observed).phase, AdoptionPhase::Asking, "of other volumes");
    observed.adoption.as_mut().unwrap().choice = choose(A, &word);
    let next = adoption(&observed);
    let accepted = Some(Loss::Bytes(600));
    assert_eq!(next.verdict, Some(Verdict::Primary { instance: A, other: None, accepted }));
    assert_eq!(next.create.len(), 2);
}

#[test]
fn an_instance_without_data_cannot_be_chosen() {
    let mut observed = without_record(looked(Look::Nothing, Look::Volume(volume(2, 500, 4, true))));
    let word = adoption(&observed).accept.unwrap();
    for (primary, phase) in [(A, AdoptionPhase::Asking), (B, AdoptionPhase::Releasing)] {
        observed.adoption.as_mut().unwrap().choice = Some(AdoptChoice { primary, accept: word.clone() });
        assert_eq!(adoption(&observed).phase, phase, "{primary}");
    }
    let released = [AdoptJob::Release(A, None), AdoptJob::Release(B, Some(VolumeId(2)))];
    assert_eq!(adoption(&observed).create, released, "what a remembers goes too");
}

#[test]
fn what_cannot_be_taken_up_is_refused_and_looked_at_again() {
    let ago = |seconds| jiff::Timestamp::from_second(now().as_second() - seconds).unwrap();
    for (a, b, why, again) in [
        (Look::Nothing, Look::Nothing, Refusal::Nothing, 60),
        (Look::InUse, Look::Volume(volume(2, 500, 4, true)), Refusal::InUse, 10),
        (
            Look::Volume(KeptVolume { system_identifier: SystemIdentifier(98), ..volume(1, 500, 4, true) }),
            Look::Volume(volume(2, 500, 4, true)),
            Refusal::OtherSystem,
            60,
        ),
    ] {
        for (waited, deleted) in [(again - 1, 0), (again, 2)] {
            let mut found = looked(a.clone(), b.clone());
            (found.a.look, found.b.look) =
                (JobView::Done(ago(waited), a.clone()), JobView::Done(ago(waited + 100), b.clone()));
            let plan = decide(&without_record(found));
            assert_eq!(plan.problems, [Problem::AdoptionRefused(why)]);
            assert_eq!(plan.create_lease, None);
            let next = plan.adoption.unwrap();
            assert_eq!((next.phase, next.create.len()), (AdoptionPhase::Refused, 0));
            assert_eq!(next.delete.len(), deleted, "{why} after {waited} s");
        }
    }
}

#[test]
fn a_job_that_fails_is_told_and_made_anew() {
    let ago = |seconds| jiff::Timestamp::from_second(now().as_second() - seconds).unwrap();
    for (waited, delete) in [(29, Vec::new()), (30, vec![(A, AdoptStep::Look)])] {
        let mut observed = without_record(AdoptionObserved::default());
        observed.adoption.as_mut().unwrap().a.look = JobView::Failed(ago(waited), "no image".into());
        let plan = decide(&observed);
        assert_eq!(plan.problems, [Problem::AdoptionFailed(A, AdoptStep::Look, "no image".into())]);
        let next = plan.adoption.unwrap();
        assert_eq!((next.create, next.delete), (vec![AdoptJob::Look(B)], delete));
    }
}

#[test]
fn of_long_histories_the_part_that_both_tell_is_compared() {
    let ancestors =
        |from: u32, to: u32| (from..to).map(|n| (TimelineId(n), Lsn(u64::from(n) * 1000))).collect();
    let with = |mut volume: KeptVolume, from, to| {
        volume.history = TimelineHistory { timeline: TimelineId(to), ancestors: ancestors(from, to) };
        Look::Volume(volume)
    };
    // 20 failovers while b was away: each tells its newest eighty.
    let a = with(volume(1, 500_000, 130, true), 41, 121);
    let b = with(volume(2, 100_500, 110, false), 21, 101);
    let found = Findings { a: &a, b: &b };
    let expected = Verdict::Primary { instance: A, other: Some(Other::Follow), accepted: None };
    assert_eq!(found.verdict(), expected);
}

#[test]
fn a_record_that_nobody_belongs_to_is_deleted_and_no_other() {
    let foreign = |i| {
        let mut report = report(i, PostgresState::Down);
        report.authority.refusal = Some("ForeignRecord".into());
        ReportView::Fresh(Box::new(report))
    };
    let discards = |observed: &Observed| adoption(observed).discard_record;
    let of_term = |term| LeaseView::Present(Record { term, ..record(A, Mode::Solo) });
    let mut observed =
        Observed { lease: of_term(Term(0)), adoption: Some(AdoptionObserved::default()), ..steady() };
    assert!(!discards(&observed), "it is the pair's");
    assert_eq!(adoption(&observed).phase, AdoptionPhase::Done);
    observed.a.report = foreign(A);
    assert!(!discards(&observed), "b follows it");
    observed.b.report = ReportView::Unreachable;
    assert!(!discards(&observed), "b may follow it");
    observed.b.report = foreign(B);
    assert!(discards(&observed));
    assert_eq!(decide(&observed).notices, [Notice::RecordDiscarded]);
    observed.lease = of_term(Term(3));
    assert!(!discards(&observed), "somebody has had data under it");
    observed.lease = of_term(Term(0));
    observed.a.report = ReportView::Unreachable;
    assert!(!discards(&observed), "a may be its primary");
    // Of a new pair only a has begun.
    observed.a.report = foreign(A);
    (observed.b.pod, observed.b.report) = (None, ReportView::NeverSeen);
    observed.b.set = Some(SetView { replicas: 0, running: 0, seed: 1, seed_failures: 0 });
    assert!(discards(&observed));
    observed.adoption = None;
    assert_eq!(decide(&observed).adoption, None, "nobody has asked for it");
    // Somebody has deleted the StatefulSet of the primary.
    observed =
        Observed { a: InstanceObserved::default(), adoption: Some(AdoptionObserved::default()), ..observed };
    observed.b.report = foreign(B);
    assert!(!discards(&observed), "what a has may belong to it");
}

#[test]
fn jobs_of_an_adoption_that_is_over_are_deleted() {
    let observed = Observed { adoption: Some(whole()), ..steady() };
    let plan = decide(&observed);
    assert_eq!(plan.adoption.unwrap().delete, [(A, AdoptStep::Look), (B, AdoptStep::Look)]);
    assert!(plan.create_lease.is_none() && plan.a == decide(&steady()).a);
}
