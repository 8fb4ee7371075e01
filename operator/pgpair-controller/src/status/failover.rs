//! The last change of primary: told by the instance that took over, completed by the one that lost its place.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use pgpair_api::convert::number;
use pgpair_api::names::PairName;
use pgpair_api::status::{FailoverStatus, FailoverStepStatus, PgReplicaPairStatus};
use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::authority::{FailoverCause, FailoverSignal};
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::{FailoverReport, FailoverStep, RejoinKind};

use crate::observed::Observed;

/// The newest failover that is known; `None` if it is the one that was told before.
pub(super) fn newest(
    name: &PairName,
    observed: &Observed,
    old: &PgReplicaPairStatus,
) -> Option<FailoverStatus> {
    let known = old.last_failover.as_ref();
    let reported = InstanceId::ALL
        .into_iter()
        .filter_map(|i| Some((i, observed.instance(i).report.recent()?.last_failover.as_ref()?)))
        .filter(|(_, f)| known.is_none_or(|k| i64::from(f.term.0) >= k.term))
        // Told when it is complete, so that its Event has the steps.
        .filter(|(_, f)| f.steps.iter().any(|(step, _)| *step == FailoverStep::Promoted))
        .max_by_key(|(_, f)| f.term);
    let mut failover = match reported {
        Some((to, report)) => {
            let before = known.filter(|k| k.term == i64::from(report.term.0));
            let mut failover = told(name, to, report);
            if let Some(before) = before {
                (failover.rejoin, failover.bytes_lost) = (before.rejoin.clone(), before.bytes_lost);
                (failover.lost_from, failover.lost_to) = (before.lost_from.clone(), before.lost_to.clone());
            }
            failover
        }
        None => known?.clone(),
    };
    measure_loss(name, observed, &mut failover);
    Some(failover)
}

/// What only the old primary had, told by itself once it has joined the new one.
fn measure_loss(name: &PairName, observed: &Observed, failover: &mut FailoverStatus) {
    let from = InstanceId::ALL.into_iter().find(|i| name.instance(*i) == failover.from);
    let report = from.and_then(|i| observed.instance(i).report.recent());
    let Some(rejoin) = report.and_then(|r| r.rejoin.as_ref()) else { return };
    if i64::from(rejoin.term.0) != failover.term {
        return;
    }
    failover.bytes_lost = Some(number(rejoin.branch_bytes));
    failover.rejoin = Some(
        match rejoin.how {
            RejoinKind::Followed => "Followed",
            RejoinKind::Rewound => "Rewound",
        }
        .into(),
    );
    failover.lost_from = rejoin.branch.map(|(from, _)| from.to_string());
    failover.lost_to = rejoin.branch.map(|(_, to)| to.to_string());
}

fn told(name: &PairName, to: InstanceId, report: &FailoverReport) -> FailoverStatus {
    let start = report.steps.first().map(|(_, at)| *at);
    let last = report.steps.last().map(|(_, at)| *at);
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok().map(MicroTime);
    let steps = report.steps.iter().filter_map(|(step, at)| {
        Some(FailoverStepStatus { step: step_name(*step).into(), at: time(*at)?, offset_ms: at - start? })
    });
    FailoverStatus {
        term: i64::from(report.term.0),
        cause: cause_name(report.cause).into(),
        evidence: report.evidence.map(|kind| evidence_name(kind).to_owned()),
        signals: report.signals.iter().map(|signal| signal_name(*signal).to_owned()).collect(),
        from: name.instance(to.peer()),
        to: name.instance(to),
        started_at: start.and_then(time),
        steps: steps.collect(),
        gap_estimate_seconds: start.zip(last).map(|(a, b)| (b - a) as f64 / 1000.0),
        ..FailoverStatus::default()
    }
}

fn cause_name(cause: FailoverCause) -> &'static str {
    match cause {
        FailoverCause::PromiseLapsed => "PromiseLapsed",
        FailoverCause::Resigned => "Resigned",
        FailoverCause::Evidence => "Evidence",
        FailoverCause::Switchover => "Switchover",
        FailoverCause::Forced => "Forced",
    }
}

fn evidence_name(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::KubeletTerminated => "KubeletTerminated",
        EvidenceKind::OutOfServiceTaint => "OutOfServiceTaint",
        EvidenceKind::VolumeLock => "VolumeLock",
        EvidenceKind::Person => "Person",
    }
}

fn signal_name(signal: FailoverSignal) -> &'static str {
    match signal {
        FailoverSignal::Silent => "Silent",
        FailoverSignal::StreamEnded => "StreamEnded",
        FailoverSignal::Resigned => "Resigned",
        FailoverSignal::ProvenDead => "ProvenDead",
    }
}

/// The word of a step.
#[must_use]
pub fn step_name(step: FailoverStep) -> &'static str {
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
