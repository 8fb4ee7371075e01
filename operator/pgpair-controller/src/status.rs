//! The status as a pure function of what was observed and decided, and when it is worth a write.

mod conditions;
mod worth;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use pgpair_api::names::PairName;
use pgpair_api::status::{
    ArchiveStatus, ConditionType, FailoverStatus, FailoverStepStatus, InstanceStatus, LagStatus, LagValue,
    PairMode, PgReplicaPairStatus, SeedingStatus,
};
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use pgpair_core::report::{
    FailoverCause, FailoverReport, FailoverStep, InstanceReport, Lag, PostgresState, Role,
};

use crate::decide::Plan;
use crate::observed::{Observed, ReportView, SeedState};
pub use conditions::{degraded, merge};
pub use worth::is_worth_a_write;

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
    old: &PgReplicaPairStatus,
) -> PgReplicaPairStatus {
    let mut status = PgReplicaPairStatus { observed_generation: generation, ..old.clone() };
    if let Some(record) = observed.record() {
        status.primary = Some(name.instance(record.primary.instance));
        status.term = Some(i64::from(record.term.0));
        status.mode = Some(match record.mode {
            Mode::Paired => PairMode::Paired,
            Mode::Solo => PairMode::Solo,
        });
        // Once known it never changes: another identifier would be another pair's record.
        status.system_identifier =
            status.system_identifier.or(record.system_identifier.map(|id| id.to_string()));
    }
    status.instances = InstanceId::ALL.into_iter().map(|i| instance(name, i, observed, old)).collect();
    let serving = observed.serving_primary().and_then(|i| observed.instance(i).report.fresh());
    if let Some(report) = serving {
        status.timeline = report.postgres.timeline.map(|t| i64::from(t.0));
        status.lag = report.standby.as_ref().map(lag);
    }
    status.archive = InstanceId::ALL.into_iter().filter_map(|i| archive(name, i, observed, old)).collect();
    status.seeding = InstanceId::ALL.into_iter().find_map(|i| seeding(name, i, observed, old));
    if let Some(failover) = newest_failover(name, observed, old) {
        status.last_failover = Some(failover);
    }
    let conditions = conditions::compute(name, observed, plan, &status);
    status.conditions = merge(&old.conditions, conditions, generation, observed.now);
    status
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
        role: "Unknown".into(),
        ready: seen.pod.as_ref().is_some_and(|p| p.ready && !p.deleting),
        node: seen.pod.as_ref().and_then(|p| p.node.clone()),
        state: unreported_state(&seen.report, seeding).into(),
        ..InstanceStatus::default()
    };
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
        }
    }
    status
}

fn unreported_state(report: &ReportView, seeding: bool) -> &'static str {
    match report {
        _ if seeding => "Seeding",
        ReportView::Unreachable => "Unreachable",
        ReportView::NeverSeen => "NeverSeen",
        ReportView::Fresh(_) | ReportView::Stale(_) => "Stale",
    }
}

fn fill_instance(status: &mut InstanceStatus, report: &InstanceReport) {
    let postgres = &report.postgres;
    status.role = match report.authority.role {
        Role::Primary => "Primary",
        Role::Standby => "Standby",
        Role::Unknown => "Unknown",
    }
    .into();
    status.state = match postgres.state {
        PostgresState::Down => "Down",
        PostgresState::Starting => "Starting",
        PostgresState::Standby => "Standby",
        PostgresState::Promoting => "Promoting",
        PostgresState::Primary => "Primary",
    }
    .into();
    status.timeline = postgres.timeline.map(|t| i64::from(t.0));
    status.flush_lsn = postgres.flush_lsn.map(|l| l.to_string());
    status.replay_lsn = postgres.replay_lsn.map(|l| l.to_string());
    status.receive_lsn = status.flush_lsn.clone().filter(|_| postgres.state == PostgresState::Standby);
    status.refusal = report.authority.refusal.clone();
}

fn lag(standby: &pgpair_core::report::StandbyLag) -> LagStatus {
    let value = |lag: Option<Lag>| {
        lag.map(|l| LagValue {
            bytes: number(l.bytes),
            seconds: Duration::from_millis(l.millis).as_secs_f64(),
        })
    };
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
        percent: progress.percent.map(|p| p.clamp(0.0, 100.0) as i64),
    })
}

fn newest_failover(
    name: &PairName,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> Option<FailoverStatus> {
    let known = old.last_failover.as_ref().map_or(-1, |f| f.term);
    InstanceId::ALL
        .into_iter()
        .filter_map(|i| Some((i, observed.instance(i).report.recent()?.last_failover.as_ref()?)))
        .filter(|(_, f)| i64::from(f.term.0) >= known)
        // Told when it is complete, so that its Event has the steps.
        .filter(|(_, f)| f.steps.iter().any(|(step, _)| *step == FailoverStep::Promoted))
        .max_by_key(|(_, f)| f.term)
        .map(|(i, f)| failover(name, i, f))
}

fn failover(name: &PairName, to: InstanceId, report: &FailoverReport) -> FailoverStatus {
    let start = report.steps.first().map(|(_, at)| *at);
    let last = report.steps.last().map(|(_, at)| *at);
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok().map(MicroTime);
    let steps = report.steps.iter().filter_map(|(step, at)| {
        Some(FailoverStepStatus { step: step_name(*step).into(), at: time(*at)?, offset_ms: at - start? })
    });
    FailoverStatus {
        term: i64::from(report.term.0),
        cause: match report.cause {
            FailoverCause::PromiseLapsed => "PromiseLapsed",
            FailoverCause::Resigned => "Resigned",
            FailoverCause::Evidence => "Evidence",
        }
        .into(),
        from: name.instance(to.peer()),
        to: name.instance(to),
        started_at: start.and_then(time),
        steps: steps.collect(),
        gap_estimate_seconds: start.zip(last).map(|(a, b)| (b - a) as f64 / 1000.0),
    }
}

fn step_name(step: FailoverStep) -> &'static str {
    match step {
        FailoverStep::LastHeartbeat => "LastHeartbeat",
        FailoverStep::Noticed => "Noticed",
        FailoverStep::CasSent => "CasSent",
        FailoverStep::CasWon => "CasWon",
        FailoverStep::TriggerFile => "TriggerFile",
        FailoverStep::Promoted => "Promoted",
        FailoverStep::Endpoint => "Endpoint",
    }
}

/// Counts of the wire are unsigned, those of the API signed.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Bytes for the eye, such as `48 MiB`.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|u| n >> (10 * u) > 0).unwrap_or(0);
    format!("{} {}", n >> (10 * unit), UNITS[unit])
}

#[cfg(test)]
mod tests;
