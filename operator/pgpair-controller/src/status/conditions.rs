//! Conditions: each from its own facts; the transition time moves only with the status.

mod certificate;
mod pending;
mod protection;
mod roles;
mod storage;
mod trouble;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus, Reason};
use pgpair_core::authority::Refusal;
use pgpair_core::ids::{InstanceId, Term};
use pgpair_wire::report::{ArchiveReport, HistoryPlace, TwoPasts};

use crate::observed::{Observed, SeedState};
use crate::outcome::{FaultKind, StepFailure};
use crate::plan::{Blocked, Plan, Problem};
use crate::status::{adoption, whole_seconds};

/// Segments that may wait for the archiver before the archive counts as unhealthy: 512 MiB of WAL.
const BACKLOG_LIMIT: u64 = 32;

/// Problems that are told beside the most important one.
const OTHERS: usize = 3;

/// A condition before it has its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    type_: ConditionType,
    status: Option<bool>,
    reason: Reason,
    message: String,
}

fn draft(
    type_: ConditionType,
    status: impl Into<Option<bool>>,
    reason: Reason,
    message: impl Into<String>,
) -> Draft {
    Draft { type_, status: status.into(), reason, message: message.into() }
}

pub(super) fn compute(
    name: &PairName,
    observed: &Observed,
    plan: &Plan,
    status: &PgReplicaPairStatus,
    old: &[Condition],
) -> Vec<Draft> {
    let mut all = vec![
        ready(name, observed, plan, status),
        protection::failover_ready(name, observed, status),
        archive_healthy(name, observed),
        storage::storage_healthy(name, observed, old),
        roles::roles_healthy(status),
        seeding(name, observed, plan),
        pending::update_pending(name, plan, observed),
        problem(name, observed, plan),
    ];
    all.extend(certificate::server_certificate(name, observed));
    all
}

/// `Degraded` for an error that ended the reconcile early.
#[must_use]
pub fn degraded(reason: Reason, message: String) -> Draft {
    draft(ConditionType::Degraded, true, reason, message)
}

fn ready(name: &PairName, observed: &Observed, plan: &Plan, status: &PgReplicaPairStatus) -> Draft {
    let type_ = ConditionType::Ready;
    if let Some((primary, _)) = observed.served_lately() {
        let (me, service) = (name.instance(primary), name.rw());
        if !observed.rw_leads_to(primary) {
            let message = format!(
                "{me} takes writes, but Service {service} does not lead to it yet, so clients do not reach it; its agent, or \
                 else the operator, corrects that within seconds of letting clients in"
            );
            return draft(type_, false, Reason::EndpointPending, message);
        }
        return draft(type_, true, Reason::PrimaryAcceptsWrites, format!("{me} takes writes"));
    }
    let why = |i: InstanceId| trouble::of_instance(name, observed, i).map(|(_, why)| format!(": {why}"));
    match observed.record() {
        Some(record) if record.term > Term(0) => {
            let report = observed.instance(record.primary.instance).lately();
            let primary = name.instance(record.primary.instance);
            if report.is_some_and(|r| r.authority.refusal.as_deref() == Some(Refusal::Fenced.as_str())) {
                let message = format!("{primary} is fenced: kubectl pgpair unfence ends that");
                return draft(type_, false, Reason::Fenced, message);
            }
            draft(
                type_,
                false,
                Reason::PrimaryNotReady,
                format!(
                    "{primary} is named as primary and does not say that it takes writes{}",
                    why(record.primary.instance).unwrap_or_default()
                ),
            )
        }
        Some(record) => {
            let why = why(record.primary.instance).unwrap_or_default();
            draft(type_, false, Reason::Bootstrapping, format!("the first data directory is being made{why}"))
        }
        None => match &status.adoption {
            Some(adoption) if plan.adoption.is_some() => draft(
                type_,
                false,
                Reason::Adopting,
                format!("the volumes are taken up: {}", adoption.message),
            ),
            _ => draft(type_, false, Reason::Bootstrapping, "the record is not there yet"),
        },
    }
}

fn archive_healthy(name: &PairName, observed: &Observed) -> Draft {
    let type_ = ConditionType::ArchiveHealthy;
    let primary = observed.record().map(|r| r.primary.instance);
    let Some((i, report)) = primary.and_then(|i| Some((i, observed.instance(i).report.recent()?))) else {
        return draft(type_, None, Reason::Unknown, "the primary does not report");
    };
    // The standby has an archive of its own, which a restore may need as much.
    let of_standby = observed.instance(i.peer()).report.recent().map(|r| (i.peer(), &r.archive));
    let bad = [Some((i, &report.archive)), of_standby].into_iter().flatten();
    if let Some((reason, message)) =
        bad.filter_map(|(i, archive)| archive_trouble(&name.instance(i), archive)).next()
    {
        return draft(type_, false, reason, message);
    }
    let (me, archive) = (name.instance(i), &report.archive);
    match archive.last_segment {
        Some(_) => draft(type_, true, Reason::Archiving, format!("{me} archives")),
        None => draft(type_, None, Reason::Unknown, format!("{me} has not archived a segment yet")),
    }
}

/// What is wrong with the archive of `me`.
fn archive_trouble(me: &str, archive: &ArchiveReport) -> Option<(Reason, String)> {
    if let Some(TwoPasts { timeline, one, other }) = archive.two_pasts {
        let message = format!(
            "timeline {timeline} has one past in {} of {me} and another one in {}: two servers have used that number, so its WAL may be of either; \
             see \"A timeline with two pasts\" in the runbook before you restore from an archive",
            place(one),
            place(other)
        );
        return Some((Reason::TimelineUsedTwice, message));
    }
    if archive.failures.is_some_and(|n| n > 0) {
        let why = archive.last_failure.clone().unwrap_or_default();
        return Some((Reason::ArchiveFailing, format!("{me} cannot archive: {why}")));
    }
    if let Some(why) = &archive.unknown {
        return Some((Reason::ArchiveFailing, format!("{me} cannot archive: {why}")));
    }
    if let Some(segment) = &archive.stalled {
        let message = format!(
            "segment {segment} of {me} has waited for the archiver for more than two minutes, and nothing fails: it hangs"
        );
        return Some((Reason::ArchiveBacklog, message));
    }
    archive.backlog_segments.is_some_and(|n| n > BACKLOG_LIMIT).then(|| {
        let message = format!("more than {BACKLOG_LIMIT} segments of {me} wait for the archiver");
        (Reason::ArchiveBacklog, message)
    })
}

/// For people.
fn place(place: HistoryPlace) -> &'static str {
    match place {
        HistoryPlace::InUse => "the history in use",
        HistoryPlace::PgWal => "pg_wal",
        HistoryPlace::Archive => "its archive",
        HistoryPlace::PeersArchive => "the archive of the other instance",
    }
}

fn seeding(name: &PairName, observed: &Observed, plan: &Plan) -> Draft {
    let type_ = ConditionType::Seeding;
    for i in InstanceId::ALL {
        if let Some(job) = observed.instance(i).jobs.iter().find(|j| j.state == SeedState::Running) {
            return draft(
                type_,
                true,
                Reason::SeedRunning,
                match &observed.instance(i).trouble {
                    None => {
                        let before =
                            job.failure.as_ref().map(|f| format!("; a try before failed: {}", f.why));
                        let job = name.seed_job(i, job.number);
                        format!("job {job} copies the primary{}", before.unwrap_or_default())
                    }
                    Some(trouble) => {
                        trouble.sentence(&format!("the pod of job {}", name.seed_job(i, job.number)))
                    }
                },
            );
        }
    }
    for problem in &plan.problems {
        if let Problem::SeedFailed(i, n, why) = problem {
            return draft(type_, false, Reason::SeedFailed, seed_failed(name, *i, *n, why));
        }
    }
    draft(type_, false, Reason::NotSeeding, "nothing is being copied")
}

fn seed_failed(name: &PairName, i: InstanceId, n: u32, why: &str) -> String {
    format!("job {} failed and is tried again, later each time: {why}", name.seed_job(i, n))
}

fn problem(name: &PairName, observed: &Observed, plan: &Plan) -> Draft {
    let mut all = plan.problems.iter().filter(|problem| problem.is_told());
    if let Some(first) = all.next() {
        let (reason, message) = describe(name, first);
        let others = all.take(OTHERS).map(|problem| format!("; also: {}", describe(name, problem).1));
        return degraded(reason, others.fold(message, |message, other| message + &other));
    }
    if let Some((reason, message)) = trouble::of_pair(name, observed) {
        return degraded(reason, message);
    }
    draft(ConditionType::Degraded, false, Reason::AsExpected, "nothing is known to be wrong")
}

fn describe(name: &PairName, problem: &Problem) -> (Reason, String) {
    match problem {
        Problem::InvalidSpec(why) => (Reason::InvalidSpec, why.clone()),
        Problem::StepFailed(StepFailure { fault, .. }) => {
            let reason = match fault.kind {
                FaultKind::NameTaken => Reason::NameTaken,
                FaultKind::Lasting | FaultKind::Passing => Reason::ApplyFailed,
            };
            (reason, fault.sentence.clone())
        }
        Problem::RecordMissing => (
            Reason::RecordMissing,
            format!(
                "lease {} is gone although the pair has data: none is made by itself, because a wrong one could make two primaries, and a restored \
                 one is another object, which no agent accepts. Set spec.bootstrap.adopt to {{}}: both instances are stopped, and what their \
                 volumes prove decides",
                name.lease()
            ),
        ),
        Problem::RecordUnreadable(why) => (
            Reason::RecordUnreadable,
            format!("lease {} is not a record: {why}; somebody changed it: put it back", name.lease()),
        ),
        Problem::SeedFailed(i, n, why) => (Reason::SeedFailed, seed_failed(name, *i, *n, why)),
        Problem::ForeignData(i, system) => {
            let system = system.map(|id| format!(" (system identifier {id})")).unwrap_or_default();
            (
                Reason::ForeignData,
                format!(
                    "volume {} holds data of an earlier pair of this name{system}: nothing is done with it. To take it up, set \
                     spec.bootstrap.adopt to {{}}; if it is not needed, delete this pair and the claims {} and {}, then create the pair again",
                    name.data_claim(*i),
                    name.data_claim(*i),
                    name.archive_claim(*i),
                ),
            )
        }
        Problem::AdoptionFailed(i, step, why) => (
            Reason::AdoptionRefused,
            format!("job {} failed and is tried again: {why}", name.adopt_job(*i, *step)),
        ),
        Problem::AdoptionAsks { why, a, b, accept } => {
            (Reason::AdoptionAsks, adoption::question(name, *why, (*a, *b), accept))
        }
        Problem::AdoptionRefused(why) => (Reason::AdoptionRefused, adoption::refused(*why).to_owned()),
        Problem::RebuildBlocked(i, blocked) => {
            let why = match blocked {
                Blocked::IsPrimary => "the record names it as primary",
                Blocked::StillPaired => "the record is still Paired; the primary has to go on alone first",
                Blocked::NoServingPrimary => {
                    "no primary says that it takes writes, so there is nothing to copy from"
                }
            };
            (
                Reason::RebuildBlocked,
                format!("{} asks for a base backup and does not get it yet: {why}", name.instance(*i)),
            )
        }
    }
}

/// Gives the drafts their times: the transition time of an unchanged status stays. Conditions without a draft stay too.
#[must_use]
pub fn merge(
    old: &[Condition],
    drafts: Vec<Draft>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut out = old.to_vec();
    for draft in drafts {
        let status = match draft.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = out.iter().position(|c| c.type_ == draft.type_.as_str());
        let since =
            before.map(|n| &out[n]).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: draft.type_.as_str().to_owned(),
            status: status.to_owned(),
            reason: draft.reason.as_str().to_owned(),
            message: draft.message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| whole_seconds(now)),
        };
        match before {
            Some(n) => out[n] = condition,
            None => out.push(condition),
        }
    }
    out
}
