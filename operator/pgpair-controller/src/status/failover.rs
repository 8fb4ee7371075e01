//! The last change of primary: told by the instance that took over, completed by the one that lost its place.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use pgpair_api::convert::number;
use pgpair_api::names::PairName;
use pgpair_api::status::{FailoverStatus, FailoverStepStatus, PgReplicaPairStatus};
use pgpair_api::word::Word;
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::{FailoverReport, FailoverStep};

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
    failover.rejoin = Some(rejoin.how.into());
    failover.lost_from = rejoin.branch.map(|(from, _)| from.to_string());
    failover.lost_to = rejoin.branch.map(|(_, to)| to.to_string());
}

fn told(name: &PairName, to: InstanceId, report: &FailoverReport) -> FailoverStatus {
    let start = report.steps.first().map(|(_, at)| *at);
    let last = report.steps.last().map(|(_, at)| *at);
    let time = |ms: i64| Timestamp::from_millisecond(ms).ok().map(MicroTime);
    let steps = report.steps.iter().filter_map(|(step, at)| {
        Some(FailoverStepStatus { step: (*step).into(), at: time(*at)?, offset_ms: at - start? })
    });
    FailoverStatus {
        term: i64::from(report.term.0),
        cause: report.cause.into(),
        evidence: report.evidence.map(Word::from),
        signals: report.signals.iter().copied().map(Word::from).collect(),
        from: name.instance(to.peer()),
        to: name.instance(to),
        started_at: start.and_then(time),
        steps: steps.collect(),
        gap_estimate_seconds: start.zip(last).map(|(a, b)| (b - a) as f64 / 1000.0),
        ..FailoverStatus::default()
    }
}
