//! The status as a pure function of what was observed and decided, and when it is worth a write.

pub(crate) mod adoption;
mod conditions;
mod estimate;
mod failover;
mod roles;
mod worth;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use pgpair_api::convert::{bytes, lag_value, number};
use pgpair_api::names::PairName;
use pgpair_api::order::OrderStage;
use pgpair_api::status::{
    ArchiveStatus, CertificateStatus, ConditionType, InstanceState, InstanceStatus, LagStatus, OrderStatus,
    PgReplicaPairStatus, SeedingStatus, StorageStatus, Unreported,
};
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lag::Lag;
use pgpair_wire::report::{DefinitionKind, InstanceReport};

use crate::observed::{Observed, ReportView, SeedState};
use crate::plan::{OrderProgress, Plan};
pub use conditions::{degraded, merge};
pub use worth::{due_in, is_worth_a_write};

/// The condition of that type.
#[must_use]
pub fn condition(status: &PgReplicaPairStatus, type_: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == type_.as_str())
}

/// The status of a pair. What this observation does not tell is kept from `old`, so that an agent that does not answer
/// for a moment does not wipe what was known.
#[must_use]
pub fn compute(
    name: &PairName,
    generation: Option<i64>,
    observed: &Observed,
    plan: &Plan,
    order: Option<&OrderProgress>,
    old: &PgReplicaPairStatus,
) -> PgReplicaPairStatus {
    let mut status = PgReplicaPairStatus { observed_generation: generation, ..old.clone() };
    if let Some(record) = observed.record() {
        status.primary = Some(name.instance(record.primary.instance));
        status.term = Some(i64::from(record.term.0));
        status.mode = Some(record.mode.into());
        // Once known it never changes: another identifier would be another pair's record.
        status.system_identifier =
            status.system_identifier.or(record.system_identifier.map(|id| id.to_string()));
    }
    status.instances = InstanceId::ALL.into_iter().map(|i| instance(name, i, observed, old)).collect();
    if let Some((_, report)) = observed.served_lately() {
        status.timeline = report.postgres.timeline.map(|t| i64::from(t.0));
        status.lag = report.standby.as_ref().map(lag);
    } else if (status.term, &status.mode) != (old.term, &old.mode) {
        status.lag = None; // of another primary, or of this one before it went on alone
    }
    status.archive = InstanceId::ALL.into_iter().filter_map(|i| archive(name, i, observed, old)).collect();
    status.storage = InstanceId::ALL.into_iter().filter_map(|i| storage(name, i, observed, old)).collect();
    status.seeding = InstanceId::ALL.into_iter().find_map(|i| seeding(name, i, observed, old));
    if let Some(failover) = failover::newest(name, observed, old) {
        status.last_failover = Some(failover);
    }
    status.adoption = adoption::adoption(name, observed, plan, old);
    status.rpo = estimate::rpo(observed, &status);
    status.rto = estimate::rto(observed, &status);
    status.certificates = certificates(observed);
    status.passwords = roles::passwords(observed, &old.passwords);
    let is_new_spec = generation != old.observed_generation;
    status.roles = roles::definitions(DefinitionKind::Role, observed, &old.roles, is_new_spec);
    status.databases = roles::definitions(DefinitionKind::Database, observed, &old.databases, is_new_spec);
    if let Some(told) = order {
        status.order = Some(order_status(name, told, observed.now, old.order.as_ref()));
    }
    let conditions = conditions::compute(name, observed, plan, &status, &old.conditions);
    status.conditions = merge(&old.conditions, conditions, generation, observed.now);
    if observed.server.as_ref().is_none_or(|server| server.source.is_none()) {
        status.conditions.retain(|c| c.type_ != ConditionType::ServerCertificate.as_str());
    }
    status
}

/// The API keeps whole seconds; anything finer would differ from what is read back.
fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn instance(
    name: &PairName,
    i: InstanceId,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> InstanceStatus {
    let seen = observed.instance(i);
    let me = name.instance(i);
    let before = old.instances.iter().find(|s| s.name == me).cloned().unwrap_or_default();
    let seeding = seen.jobs.iter().any(|j| j.state == SeedState::Running);
    let mut status = InstanceStatus {
        name: me,
        role: Role::Unknown.into(),
        ready: seen.pod.as_ref().is_some_and(|p| p.ready && !p.deleting),
        node: seen.pod.as_ref().and_then(|p| p.node.clone()),
        state: InstanceState::Unreported(unreported(&seen.report, seeding)).into(),
        ..InstanceStatus::default()
    };
    if let Some(known) = &seen.known {
        status.incarnation = Some(known.incarnation.to_string());
        status.incarnation_node = Some(known.node.clone());
    }
    match seen.report.recent() {
        Some(report) => {
            fill_instance(&mut status, report);
            if matches!(seen.report, ReportView::Stale(_)) {
                // One missed answer is not news: the state stays until the report is too old to count.
                status.state = before.state;
            }
        }
        None => {
            (status.timeline, status.flush_lsn) = (before.timeline, before.flush_lsn);
            (status.replay_lsn, status.receive_lsn) = (before.replay_lsn, before.receive_lsn);
            (status.config_generation, status.pending_restart) =
                (before.config_generation, before.pending_restart);
        }
    }
    status
}

fn unreported(report: &ReportView, seeding: bool) -> Unreported {
    match report {
        _ if seeding => Unreported::Seeding,
        ReportView::Unreachable => Unreported::Unreachable,
        ReportView::NeverSeen => Unreported::NeverSeen,
        ReportView::Fresh(_) | ReportView::Stale(_) => Unreported::Stale,
    }
}

fn fill_instance(status: &mut InstanceStatus, report: &InstanceReport) {
    let postgres = &report.postgres;
    status.role = report.authority.role.into();
    status.state = InstanceState::Reported(postgres.state).into();
    status.timeline = postgres.timeline.map(|t| i64::from(t.0));
    status.flush_lsn = postgres.flush_lsn.map(|l| l.to_string());
    status.replay_lsn = postgres.replay_lsn.map(|l| l.to_string());
    status.receive_lsn = status.flush_lsn.clone().filter(|_| postgres.state == PostgresState::Standby);
    status.refusal = report.authority.refusal.clone();
    status.config_generation = Some(report.config_generation).filter(|g| *g > 0);
    status.pending_restart.clone_from(&report.pending_restart);
}

fn lag(standby: &pgpair_wire::report::StandbyLag) -> LagStatus {
    let value = |lag: Option<Lag>| lag.map(lag_value);
    let summary = match (standby.streaming, standby.total) {
        (_, Some(total)) if total.millis < 1000 => bytes(total.bytes),
        (_, Some(total)) => format!("{}, {} s", bytes(total.bytes), total.millis / 1000),
        (true, None) => "unknown".into(),
        (false, None) => "not streaming".into(),
    };
    LagStatus {
        summary,
        receive: value(standby.receive),
        replay: value(standby.replay),
        total: value(standby.total),
    }
}

fn archive(
    name: &PairName,
    i: InstanceId,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> Option<ArchiveStatus> {
    let me = name.instance(i);
    let Some(report) = observed.instance(i).report.recent() else {
        return old.archive.iter().find(|a| a.instance == me).cloned();
    };
    let archive = &report.archive;
    let at = archive.last_archived_at_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Some(ArchiveStatus {
        instance: me,
        last_segment: archive.last_segment.clone(),
        last_archived_time: at.map(Time),
        age_seconds: at.map(|at| observed.now.duration_since(at).as_secs().max(0)),
        measured_time: Some(Time(observed.now)),
        backlog_segments: archive.backlog_segments.map(number),
        failures: archive.failures.map(number),
        last_failure: archive.last_failure.clone().filter(|_| archive.failures.is_some_and(|n| n > 0)),
    })
}

fn seeding(
    name: &PairName,
    i: InstanceId,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> Option<SeedingStatus> {
    let job = observed.instance(i).jobs.iter().find(|j| j.state == SeedState::Running)?;
    let (instance, job_name) = (name.instance(i), name.seed_job(i, job.number));
    let Some(progress) = job.progress else {
        let same = old.seeding.clone().filter(|s| s.job == job_name);
        return same.or(Some(SeedingStatus { instance, job: job_name, ..SeedingStatus::default() }));
    };
    Some(SeedingStatus {
        instance,
        job: job_name,
        done_bytes: Some(number(progress.done_bytes)),
        total_bytes: progress.total_bytes.map(number),
        percent: progress.percent.map(|p| i64::from(p.min(100))),
    })
}

fn storage(
    name: &PairName,
    i: InstanceId,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> Option<StorageStatus> {
    let me = name.instance(i);
    let Some(report) = observed.instance(i).report.recent() else {
        return old.storage.iter().find(|s| s.instance == me).cloned();
    };
    let space = &report.space;
    let status = StorageStatus {
        instance: me,
        data_bytes: space.data_bytes.map(number),
        data_free_bytes: space.data_free.map(number),
        archive_bytes: space.archive_bytes.map(number),
        archive_free_bytes: space.archive_free.map(number),
        full_in_seconds: space.full_in_seconds.map(number),
    };
    // An agent that knows nothing has nothing to show.
    (status.data_bytes.is_some() || status.archive_bytes.is_some()).then_some(status)
}

fn certificates(observed: &Observed) -> Vec<CertificateStatus> {
    let status = |(secret, end): &(String, Timestamp)| CertificateStatus {
        secret: secret.clone(),
        not_after: whole_seconds(*end),
    };
    observed.certificates.iter().map(status).collect()
}

fn order_status(
    name: &PairName,
    told: &OrderProgress,
    now: Timestamp,
    old: Option<&OrderStatus>,
) -> OrderStatus {
    // What was announced may be sent any time from then on.
    let announced = (told.reason == OrderStage::Announced.into()).then(|| told.id.clone());
    OrderStatus {
        id: told.id.clone(),
        kind: told.kind.clone(),
        instance: told.instance.map(|i| name.instance(i)),
        state: told.state.into(),
        reason: Some(told.reason.into()),
        message: Some(told.message.clone()),
        time: Some(whole_seconds(now)),
        estimated_loss: told.estimated_loss.map(lag_value),
        last_sent: announced.or_else(|| old.and_then(|o| o.last_sent.clone())),
    }
}

#[cfg(test)]
mod tests;
