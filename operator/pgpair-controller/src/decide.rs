//! What is to be done, as a pure function of what was observed.
//!
//! Expected flow of a pair:
//! 1. the record of term 0 is created; instance a runs, instance b waits at 0 replicas for seeding Job 1;
//! 2. a has made its data directory and taken the record: Job 1 copies it to b;
//! 3. Job 1 is complete: b runs, and the agents pair;
//! 4. an instance that cannot follow says so: it goes to 0 replicas, waits for the next Job, and comes back.
//!
//! Beside that flow: orders of people ([`decide_order`](orders::decide_order)), changes that need a restart
//! ([`decide_roll`](roll::decide_roll)), the Services without selector, proofs of death, settings for the agents.
//!
//! Guarantees: the StatefulSet of the instance that the record names is never scaled down; two seeding Jobs never run
//! at once; the record is never created when anything says that the pair has data; the same observation gives the same
//! plan, and a plan that has been carried out gives a plan without steps.
//!
//! Assumptions: a report tells the truth about its own instance; everything else may be old or missing.

mod adoption;
mod certificates;
mod loss;
mod orders;
mod release;
mod revocation;
mod roll;
mod rotation;
mod slices;

use std::time::Duration;

use pgpair_core::authority::Refusal;
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::record::{Mode, Record};
use pgpair_wire::report::Need;

use crate::evidence::{decide_evidence, decide_receivers};
use crate::observed::{
    InstanceObserved, LeaseView, Observed, PasswordView, SeedJob, SeedState, SetView, SettingsRefusal,
};
use crate::plan::{Blocked, InstancePlan, Notice, Plan, Problem, RollPlan, RwPlan, Scope};
use crate::secrets::passwords::Found;
pub use orders::replied;

/// Delay before a failed seeding Job is followed by the next: doubled with each failure in a row.
const SEED_RETRY_FIRST: Duration = Duration::from_secs(30);
/// Longest such delay. A base backup that fails for hours should still be tried when the cause is gone.
const SEED_RETRY_LONGEST: Duration = Duration::from_secs(600);
/// Time until settings or passwords that an agent refused are given to it again.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// Decides.
#[must_use]
pub fn decide(observed: &Observed) -> Plan {
    let rw = slices::decide_rw(observed);
    let mut plan = Plan {
        any: slices::decide_any(observed, &rw),
        create_lease: None,
        adoption: None,
        a: None,
        b: None,
        create_job: None,
        delete_jobs: Vec::new(),
        release: None,
        rw,
        ro: slices::decide_ro(observed),
        evidence: Vec::new(),
        configure: decide_settings(observed),
        refused_settings: find_refused_settings(observed),
        passwords: decide_passwords(observed),
        server: certificates::decide_step(observed),
        has_shown_issued: observed.server.as_ref().is_some_and(|server| server.has_shown_issued),
        certificates: certificates::decide_given(observed),
        aged: rotation::by_age(observed),
        order: orders::decide_order(observed),
        roll: RollPlan::default(),
        notices: Vec::new(),
        problems: observed.invalid.clone().map(Problem::InvalidSpec).into_iter().collect(),
        settled: false,
    };
    let is_taken_up = adoption::decide_adoption(observed, &mut plan);
    match &observed.lease {
        _ if is_taken_up => {}
        LeaseView::Missing if observed.has_data() => plan.problems.push(Problem::RecordMissing),
        LeaseView::Unreadable(why) => plan.problems.push(Problem::RecordUnreadable(why.clone())),
        LeaseView::Missing => {
            plan.create_lease = Some(Record { durability: observed.config.durability, ..Record::initial() });
            plan.notices.push(Notice::Bootstrapping);
            decide_instances(observed, &Record::initial(), &mut plan);
        }
        LeaseView::Present(record) => {
            decide_instances(observed, record, &mut plan);
            plan.release = release::decide_release(observed, record);
            plan.notices.extend(plan.release.clone().map(|(i, pod)| Notice::PodReleased(i, pod)));
        }
    }
    if !is_taken_up {
        plan.problems.extend(find_foreign_data(observed));
    }
    for proof in decide_evidence(observed) {
        plan.evidence.extend(decide_receivers(observed, &proof).into_iter().map(|(i, by)| (i, by, proof)));
    }
    if let RwPlan::Repair(instance, _) = &plan.rw {
        plan.notices.push(Notice::EndpointRepaired(*instance));
    }
    let busy = orders::is_under_way(observed, &plan.order)
        || !plan.problems.is_empty()
        // A roll takes what an agent refuses for what it is: not in effect. It need not wait for a correction.
        || plan.configure.iter().any(|i| find_refusal(observed, *i).is_none())
        || plan.create_job.is_some();
    plan.roll = roll::decide_roll(observed, busy);
    plan.settled = is_settled(observed, &plan);
    plan
}

/// Decides how much of a plan is carried out. `exists`: something of the pair runs, or was made to run.
#[must_use]
pub fn decide_scope(observed: &Observed, exists: bool) -> Scope {
    match (observed.is_glance, observed.is_held()) {
        // Nothing but the status may rest on a record of some seconds ago.
        (true, _) => Scope::Report,
        (false, false) => Scope::Everything,
        (false, true) if exists => Scope::Upkeep,
        (false, true) => Scope::Report,
    }
}

/// Volumes that remember another record than the pair's: of an earlier pair of this name, whose claims were kept. Whether
/// they may go on under a new record cannot be proven from here (which of two volumes was primary last, and whether the
/// other one lacks anything, stood in the record that is gone), so nothing is done with them.
fn find_foreign_data(observed: &Observed) -> Vec<Problem> {
    if observed.record().is_none() {
        return Vec::new(); // a record that is gone is a problem of its own
    }
    let system = |i: InstanceId| observed.instance(i).report.fresh().and_then(|r| r.system_identifier);
    refusing(observed).map(|i| Problem::ForeignData(i, system(i))).collect()
}

/// Instances whose agents say that the record is not theirs.
fn refusing(observed: &Observed) -> impl Iterator<Item = InstanceId> {
    InstanceId::ALL.into_iter().filter(|i| {
        let report = observed.instance(*i).report.fresh();
        report.is_some_and(|r| r.authority.refusal.as_deref() == Some(Refusal::ForeignRecord.as_str()))
    })
}

/// Agents that are given newer settings now. One that refused them is asked again from time to time: what it lacked (a file, a
/// library) may be there by then.
fn decide_settings(observed: &Observed) -> Vec<InstanceId> {
    let waits = |i: &InstanceId| find_refusal(observed, *i).is_some_and(|(_, ago)| *ago < REFUSED_RETRY);
    find_behind(observed).filter(|i| !waits(i)).collect()
}

/// Agents that refuse the settings of the spec, with their words.
fn find_refused_settings(observed: &Observed) -> Vec<(InstanceId, String)> {
    let refused = |i: InstanceId| Some((i, find_refusal(observed, i)?.0.message.clone()));
    find_behind(observed).filter_map(refused).collect()
}

/// Agents whose postgres runs and that do not know the password of each Secret. One that refused them is asked again later.
fn decide_passwords(observed: &Observed) -> Vec<InstanceId> {
    let lacks = |i: &InstanceId| {
        let Some(report) = observed.instance(*i).report.fresh() else { return false };
        let runs = matches!(report.postgres.state, PostgresState::Primary | PostgresState::Standby);
        let has = |view: &PasswordView| {
            view.entry.found != Found::Password
                || report.passwords.get(&view.role).map(|told| &told.mark) == view.entry.mark.as_ref()
        };
        let waits = observed.refused_passwords.get(i).is_some_and(|ago| *ago < REFUSED_RETRY);
        runs && !waits && !observed.passwords.iter().all(has)
    };
    if observed.invalid.is_some() {
        return Vec::new();
    }
    InstanceId::ALL.into_iter().filter(lacks).collect()
}

/// Agents whose settings are older than the spec.
fn find_behind(observed: &Observed) -> impl Iterator<Item = InstanceId> {
    InstanceId::ALL.into_iter().filter(|i| {
        let report = observed.instance(*i).report.fresh();
        report.is_some_and(|r| r.config_generation < observed.generation())
    })
}

/// What the agent of an instance said about the settings of the spec, if it refused these. Other settings it has not seen yet.
fn find_refusal(observed: &Observed, i: InstanceId) -> Option<&(SettingsRefusal, Duration)> {
    observed.refused_settings.get(&i).filter(|(refusal, _)| refusal.generation == observed.generation())
}

fn decide_instances(observed: &Observed, record: &Record, plan: &mut Plan) {
    let primary = record.primary.instance;
    let of_primary = decide_primary(observed, primary, plan);
    let of_standby = decide_standby(observed, record, primary.peer(), plan);
    (plan.a, plan.b) = match primary {
        InstanceId::A => (Some(of_primary), Some(of_standby)),
        InstanceId::B => (Some(of_standby), Some(of_primary)),
    };
}

/// The instance that the record names runs, whatever else is known.
fn decide_primary(observed: &Observed, i: InstanceId, plan: &mut Plan) -> InstancePlan {
    let instance = observed.instance(i);
    let Some(set) = instance.set else {
        return InstancePlan { replicas: 1, seed: last_number(&instance.jobs), seed_failures: 0 };
    };
    if let Some(report) = instance.report.fresh()
        && report.need.is_some()
    {
        plan.problems.push(Problem::RebuildBlocked(i, Blocked::IsPrimary));
    }
    let running: Vec<u32> = running_jobs(&instance.jobs).collect();
    clear_jobs(instance, i, plan);
    if set.replicas == 0 && !running.is_empty() {
        // It was chosen for seeding and then became primary by a person's order: the Job has to let go of the volume first.
        plan.delete_jobs.extend(running.into_iter().map(|n| (i, n)));
        return keep(set, 0);
    }
    keep(set, 1)
}

fn decide_standby(observed: &Observed, record: &Record, i: InstanceId, plan: &mut Plan) -> InstancePlan {
    let instance = observed.instance(i);
    match instance.set {
        // Of a new pair: nothing can be on its volume. Later: the agent looks, and asks for a base backup if need be.
        None if record.term == Term(0) => InstancePlan { replicas: 0, seed: 1, seed_failures: 0 },
        None => InstancePlan { replicas: 1, seed: last_number(&instance.jobs), seed_failures: 0 },
        Some(set) if set.replicas == 0 && set.seed > 0 => decide_seed(observed, i, set, plan),
        Some(set) => decide_running_standby(observed, record, i, set, plan),
    }
}

fn decide_running_standby(
    observed: &Observed,
    record: &Record,
    i: InstanceId,
    set: SetView,
    plan: &mut Plan,
) -> InstancePlan {
    let instance = observed.instance(i);
    clear_jobs(instance, i, plan);
    let Some(need) = instance.report.fresh().and_then(|r| r.need.clone()) else { return keep(set, 1) };
    let blocked = if record.mode == Mode::Paired {
        Some(Blocked::StillPaired)
    } else if observed.serving_primary().is_none() {
        Some(Blocked::NoServingPrimary)
    } else {
        None
    };
    if let Some(blocked) = blocked {
        // After an order to rebuild, that the primary has yet to go on alone is no problem but the next step.
        if !(blocked == Blocked::StillPaired && orders::is_under_way(observed, &plan.order)) {
            plan.problems.push(Problem::RebuildBlocked(i, blocked));
        }
        return keep(set, 1);
    }
    let reason = match need {
        Need::Seed => "its volume holds no data directory".to_owned(),
        Need::Rebuild { reason } => reason,
    };
    plan.notices.push(Notice::RebuildStarted(i, reason));
    let seed = set.seed.max(last_number(&instance.jobs)) + 1;
    InstancePlan { replicas: 0, seed, seed_failures: set.seed_failures }
}

/// An instance that runs needs no Job any more: it runs on what the last one has copied, and a container that somebody put into the Job's pod
/// would go on for ever. The number of the last one stands on the StatefulSet.
fn clear_jobs(instance: &InstanceObserved, i: InstanceId, plan: &mut Plan) {
    if instance.report.fresh().is_some() {
        let ended = instance.jobs.iter().filter(|job| job.state != SeedState::Running);
        plan.delete_jobs.extend(ended.map(|job| (i, job.number)));
    }
}

/// The other instance makes the first data directory: the first Job gets its volumes and its pod meanwhile, and waits. Not before the
/// other one has its node, for the scheduler keeps a seeding pod away from it, but not the other way round.
fn is_being_born(observed: &Observed, i: InstanceId) -> bool {
    let begins = observed.record().is_some_and(|r| r.term == Term(0) && r.primary.instance == i.peer());
    begins
        && observed.instance(i).jobs.is_empty()
        && observed.instance(i.peer()).pod.as_ref().is_some_and(|p| p.node.is_some() && !p.deleting)
}

/// An instance at 0 replicas that waits for Job `set.seed`.
fn decide_seed(observed: &Observed, i: InstanceId, set: SetView, plan: &mut Plan) -> InstancePlan {
    let instance = observed.instance(i);
    plan.delete_jobs.extend(instance.jobs.iter().filter(|j| j.number < set.seed).map(|j| (i, j.number)));
    match instance.jobs.iter().find(|j| j.number == set.seed).map(|j| &j.state) {
        None => {
            let alone = set.running == 0 && instance.pod.is_none();
            let other = InstanceId::ALL
                .into_iter()
                .any(|i| running_jobs(&observed.instance(i).jobs).next().is_some());
            if alone && !other && (observed.serving_primary().is_some() || is_being_born(observed, i)) {
                plan.create_job = Some((i, set.seed));
                plan.notices.push(Notice::SeedingStarted(i, set.seed));
            }
            keep(set, 0)
        }
        Some(SeedState::Running) => keep(set, 0),
        Some(SeedState::Complete) => {
            plan.notices.push(Notice::SeedingFinished(i, set.seed));
            InstancePlan { replicas: 1, seed: set.seed, seed_failures: 0 }
        }
        Some(SeedState::Failed { at, message }) => {
            if orders::gives_up_copy(observed, i).is_some() {
                return InstancePlan { replicas: 1, seed: set.seed, seed_failures: 0 };
            }
            let words = instance.seed_failure().map(|failure| failure.why.clone());
            plan.problems.push(Problem::SeedFailed(i, set.seed, words.unwrap_or_else(|| message.clone())));
            let waited = observed.now.duration_since(*at).unsigned_abs();
            if waited < seed_retry_delay(set.seed_failures) {
                return keep(set, 0);
            }
            InstancePlan { replicas: 0, seed: set.seed + 1, seed_failures: set.seed_failures + 1 }
        }
    }
}

/// How long to wait after a failed Job when `failures` Jobs failed before it.
#[must_use]
pub fn seed_retry_delay(failures: u32) -> Duration {
    SEED_RETRY_FIRST.saturating_mul(1 << failures.min(8)).min(SEED_RETRY_LONGEST)
}

fn keep(set: SetView, replicas: i32) -> InstancePlan {
    InstancePlan { replicas, seed: set.seed, seed_failures: set.seed_failures }
}

fn last_number(jobs: &[SeedJob]) -> u32 {
    jobs.iter().map(|j| j.number).max().unwrap_or(0)
}

fn running_jobs(jobs: &[SeedJob]) -> impl Iterator<Item = u32> {
    jobs.iter().filter(|j| j.state == SeedState::Running).map(|j| j.number)
}

fn is_settled(observed: &Observed, plan: &Plan) -> bool {
    let steady = |i: InstanceId| {
        let instance = observed.instance(i);
        instance.set.is_some_and(|s| s.replicas == 1 && s.running == 1)
            && instance.report.fresh().is_some_and(|r| r.need.is_none())
    };
    plan.problems.is_empty()
        && plan.notices.is_empty()
        && plan.evidence.is_empty()
        && plan.delete_jobs.is_empty()
        && plan.roll.step.is_none()
        // What is held is not given.
        && (observed.is_held() || plan.configure.is_empty())
        && !orders::is_under_way(observed, &plan.order)
        && observed.record().is_some_and(|r| r.mode == Mode::Paired)
        && observed.serving_primary().is_some()
        && InstanceId::ALL.into_iter().all(steady)
}

#[cfg(test)]
mod tests;
