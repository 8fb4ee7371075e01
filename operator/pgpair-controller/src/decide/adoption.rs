//! Volumes of an earlier pair. Both are looked at, at rest; what they prove is done, what they do not prove is asked.
//!
//! Expected flow, while there is no record and the spec asks for an adoption:
//! 1. no pod of the pair runs: StatefulSets that are there go to 0 replicas;
//! 2. a Job looks at the volumes of each instance, and changes nothing;
//! 3. [`adopt`] says whose data becomes the primary's, or that a person has to say it, or that nothing is done;
//! 4. a Job lets each volume with data go: its agent takes the next record for its own;
//! 5. the record is created, with the term after the highest that either volume has seen, `Solo`, and the volume that was chosen.
//!
//! From there on it is a pair whose standby was away: its agent follows, rewinds, or asks for a copy.

use std::time::Duration;

use pgpair_api::names::AdoptStep;
use pgpair_api::status::AdoptionPhase;
use pgpair_backup::adopt::{Adoption, Found, Lock, Loss, Refusal, Side, State, Volume, adopt};
use pgpair_core::ids::{Incarnation, InstanceId, Term};
use pgpair_core::record::{Holder, Mode, Record};
use pgpair_core::timeline::TimelineHistory;
use pgpair_wire::adopt::{KeptVolume, Look};

use super::refusing;
use crate::certificates::digest;
use crate::observed::{AdoptionObserved, JobView, LeaseView, Observed, SeedState};
use crate::plan::{AdoptJob, AdoptionPlan, InstancePlan, Notice, Plan, Problem, Verdict};

/// A Job that failed is followed by another after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// Volumes that were in use are looked at again after so long: a pod may have been about to end.
const IN_USE_AGAIN: Duration = Duration::from_secs(10);
/// Volumes that nothing is done with are looked at again after so long: a person may have put another one in place.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// Decides about the adoption that the spec asks for. Says whether it has decided about the whole pair: a pair with a record of its own is as any other.
pub(super) fn decide_adoption(observed: &Observed, plan: &mut Plan) -> bool {
    let Some(adoption) = observed.adoption.as_ref().filter(|_| observed.invalid.is_none()) else {
        return false;
    };
    match &observed.lease {
        LeaseView::Missing => take_up(observed, adoption, plan),
        LeaseView::Present(record) if is_useless(observed, record) => {
            plan.adoption =
                Some(AdoptionPlan { discard_record: true, ..AdoptionPlan::new(AdoptionPhase::Waiting) });
            plan.notices.push(Notice::RecordDiscarded);
        }
        LeaseView::Present(_) => {
            let delete = jobs_that_are_there(adoption);
            plan.adoption = Some(AdoptionPlan { delete, ..AdoptionPlan::new(AdoptionPhase::Done) });
            return false;
        }
        LeaseView::Unreadable(_) => return false,
    }
    true
}

/// A record of term 0, which says nothing yet, that no volume belongs to: the instance that it names as primary refuses it, the other one does so too or has nothing, and neither
/// is silent.
fn is_useless(observed: &Observed, record: &Record) -> bool {
    let refuses: Vec<InstanceId> = refusing(observed).collect();
    let is_no_objection = |i: InstanceId| {
        let instance = observed.instance(i);
        let is_off = instance.set.is_none_or(|set| set.replicas == 0) && instance.pod.is_none();
        let is_empty = instance.report.fresh().is_some_and(|report| report.system_identifier.is_none());
        is_off || is_empty || refuses.contains(&i)
    };
    record.term == Term(0)
        && refuses.contains(&record.primary.instance)
        && InstanceId::ALL.into_iter().all(is_no_objection)
}

fn jobs_that_are_there(adoption: &AdoptionObserved) -> Vec<(InstanceId, AdoptStep)> {
    let mut all = Vec::new();
    for i in InstanceId::ALL {
        let jobs = adoption.instance(i);
        all.extend((jobs.look != JobView::Missing).then_some((i, AdoptStep::Look)));
        all.extend((jobs.release != JobView::Missing).then_some((i, AdoptStep::Release)));
    }
    all
}

fn take_up(observed: &Observed, adoption: &AdoptionObserved, plan: &mut Plan) {
    // Their agents look at what they have when they start; no Job of an earlier day is waited for then.
    let rest = |i: InstanceId| {
        observed.instance(i).set.map(|_| InstancePlan { replicas: 0, seed: 0, seed_failures: 0 })
    };
    (plan.a, plan.b) = (rest(InstanceId::A), rest(InstanceId::B));
    for i in InstanceId::ALL {
        plan.delete_jobs.extend(observed.instance(i).jobs.iter().map(|job| (i, job.number)));
    }
    if !InstanceId::ALL.into_iter().all(|i| is_at_rest(observed, i)) {
        // What was found before is not what will be found.
        let delete = jobs_that_are_there(adoption);
        plan.adoption = Some(AdoptionPlan { delete, ..AdoptionPlan::new(AdoptionPhase::Waiting) });
        return;
    }
    let mut next = AdoptionPlan::new(AdoptionPhase::Looking);
    let (a, b) = (&adoption.a.look, &adoption.b.look);
    if let (JobView::Done(at_a, a), JobView::Done(at_b, b)) = (a, b) {
        let found = Findings { a, b };
        let waited = observed.now.duration_since(*at_a.max(at_b)).unsigned_abs();
        judge(observed, adoption, found, waited, &mut next, plan);
    } else {
        for i in InstanceId::ALL {
            run(observed, &adoption.instance(i).look, AdoptJob::Look(i), &mut next, plan);
        }
    }
    plan.adoption = Some(next);
}

/// Nothing of the pair uses the volumes of an instance. What else may use them, the lock of the volume tells.
fn is_at_rest(observed: &Observed, i: InstanceId) -> bool {
    let instance = observed.instance(i);
    let copies = instance.jobs.iter().any(|job| job.state == SeedState::Running);
    instance.set.is_none_or(|set| set.replicas == 0 && set.running == 0) && instance.pod.is_none() && !copies
}

/// One Job: made, waited for, and made anew some time after it has failed. Says whether it is done.
fn run<T>(
    observed: &Observed,
    view: &JobView<T>,
    job: AdoptJob,
    next: &mut AdoptionPlan,
    plan: &mut Plan,
) -> bool {
    let (AdoptJob::Look(i) | AdoptJob::Release(i, _)) = job;
    match view {
        JobView::Missing => next.create.push(job),
        JobView::Running => {}
        JobView::Failed(at, why) => {
            plan.problems.push(Problem::AdoptionFailed(i, job.step(), why.clone()));
            if observed.now.duration_since(*at).unsigned_abs() >= AGAIN {
                next.delete.push((i, job.step()));
            }
        }
        JobView::Done(..) => return true,
    }
    false
}

/// What was found on both.
#[derive(Clone, Copy)]
struct Findings<'a> {
    a: &'a Look,
    b: &'a Look,
}

impl<'a> Findings<'a> {
    fn of(self, i: InstanceId) -> &'a Look {
        match i {
            InstanceId::A => self.a,
            InstanceId::B => self.b,
        }
    }

    fn volume(self, i: InstanceId) -> Option<&'a KeptVolume> {
        match self.of(i) {
            Look::Volume(volume) => Some(volume),
            Look::Nothing | Look::InUse | Look::Unreadable { .. } => None,
        }
    }

    /// Other findings have another word.
    fn word(self) -> String {
        digest(&serde_json::to_vec(&(self.a, self.b)).unwrap_or_default())
    }

    fn verdict(self) -> Verdict {
        if [self.a, self.b].contains(&&Look::InUse) {
            return Verdict::Refuse(Refusal::InUse);
        }
        let oldest = [self.a, self.b].into_iter().filter_map(oldest_known).max();
        match adopt(&found(self.a, oldest), &found(self.b, oldest)) {
            Adoption::Primary { side, other } => {
                Verdict::Primary { instance: instance(side), other: Some(other), accepted: None }
            }
            Adoption::Ask { why, a, b } => Verdict::Ask { why, a, b },
            Adoption::Refuse(why) => Verdict::Refuse(why),
        }
    }
}

fn instance(side: Side) -> InstanceId {
    match side {
        Side::A => InstanceId::A,
        Side::B => InstanceId::B,
    }
}

/// The oldest ancestor of the timeline of a volume that a look has told, if it has not told all.
fn oldest_known(look: &Look) -> Option<u32> {
    let Look::Volume(volume) = look else { return None };
    let ancestors = &volume.history.ancestors;
    (ancestors.len() >= pgpair_wire::adopt::ANCESTORS).then(|| ancestors.first().map(|(t, _)| t.0))?
}

/// With the ancestors that are known of both: those before are the same, if the next is.
fn found(look: &Look, oldest: Option<u32>) -> Found {
    let volume = match look {
        Look::Nothing => return Found::Absent,
        Look::Unreadable { .. } => return Found::Unreadable,
        Look::InUse => return Found::Unreadable, // refused before
        Look::Volume(volume) => volume,
    };
    let ancestors = volume.history.ancestors.iter().copied();
    let known = ancestors.filter(|(timeline, _)| oldest.is_none_or(|oldest| timeline.0 >= oldest)).collect();
    Found::Volume(Volume {
        id: volume.volume_id,
        system: volume.system_identifier,
        lineage: None,
        version: volume.version,
        lock: Lock::Free,
        history: TimelineHistory { timeline: volume.history.timeline, ancestors: known },
        end: volume.end,
        state: volume.state.and_then(|durable| State::of(&durable, volume.volume_id)),
        closed: None,
    })
}

fn judge(
    observed: &Observed,
    adoption: &AdoptionObserved,
    found: Findings<'_>,
    waited: Duration,
    next: &mut AdoptionPlan,
    plan: &mut Plan,
) {
    let word = found.word();
    let verdict = match found.verdict() {
        Verdict::Ask { why, a, b } => chosen(adoption, &word, (a, b)).unwrap_or(Verdict::Ask { why, a, b }),
        other => other,
    };
    next.verdict = Some(verdict);
    match verdict {
        Verdict::Refuse(why) => {
            next.phase = AdoptionPhase::Refused;
            plan.problems.push(Problem::AdoptionRefused(why));
            let again = if why == Refusal::InUse { IN_USE_AGAIN } else { REFUSED_AGAIN };
            if waited >= again {
                next.delete = jobs_that_are_there(adoption);
            }
        }
        Verdict::Ask { why, a, b } => {
            next.phase = AdoptionPhase::Asking;
            next.accept = Some(word.clone());
            plan.problems.push(Problem::AdoptionAsks { why, a, b, accept: word });
        }
        Verdict::Primary { instance, .. } => {
            next.phase = AdoptionPhase::Releasing;
            // Each of them, also beside one that is not done.
            let mut done = true;
            for i in InstanceId::ALL {
                let job = match found.of(i) {
                    Look::Volume(volume) => AdoptJob::Release(i, Some(volume.volume_id)),
                    // A copy that did not finish: its agent remembers the former record.
                    Look::Nothing => AdoptJob::Release(i, None),
                    // Its agent will say whose it is, and a person decides.
                    Look::Unreadable { .. } | Look::InUse => continue,
                };
                done &= run(observed, &adoption.instance(i).release, job, next, plan);
            }
            plan.create_lease = record(observed, found, instance).filter(|_| done);
            if let Some(record) = &plan.create_lease {
                plan.notices.push(Notice::Adopted(instance, record.term));
            }
        }
    }
}

/// The choice of a person, if it is about what was found, and can be made.
fn chosen(adoption: &AdoptionObserved, word: &str, loss: (Option<Loss>, Option<Loss>)) -> Option<Verdict> {
    let choice = adoption.choice.as_ref().filter(|choice| choice.accept == word)?;
    let accepted = match choice.primary {
        InstanceId::A => loss.0?,
        InstanceId::B => loss.1?,
    };
    Some(Verdict::Primary { instance: choice.primary, other: None, accepted: Some(accepted) })
}

/// The record of the term after all that the volumes have seen. Its primary has no process yet.
fn record(observed: &Observed, found: Findings<'_>, primary: InstanceId) -> Option<Record> {
    let volume = found.volume(primary)?;
    let seen = InstanceId::ALL.into_iter().filter_map(|i| found.volume(i)?.state.map(|state| state.term));
    let of_primary = volume.state.and_then(|state| state.durability);
    Some(Record {
        term: seen.max().unwrap_or(Term(0)).next(),
        primary: Holder { instance: primary, incarnation: Incarnation(0) },
        mode: Mode::Solo,
        primary_volume: Some(volume.volume_id),
        standby_volume: None,
        system_identifier: Some(volume.system_identifier),
        durability: of_primary.unwrap_or(observed.config.durability),
    })
}

#[cfg(test)]
mod tests;
