//! Where the Services without selector lead.

use std::time::Duration;

use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;
use pgpair_wire::report::FailoverStep;

use crate::observed::{InstanceObserved, Observed, SliceView};
use crate::plan::{AnyPlan, EndpointTarget, RoPlan, RwPlan};

/// A standby that left the read-only Service for its lag comes back at this part of the limit, so that it does not flap.
const RO_ENTER_DIVISOR: u64 = 4;
/// The promoting agent writes the read-write slice itself. The operator puts it right when it was found wrong so often,
const REPAIR_AFTER_TIMES: u32 = 3;
/// and for so long although the agent says that it has written it,
const REPAIR_TOLD: Duration = Duration::from_secs(2);
/// or for so long without that word: an agent that was started again has none.
const REPAIR_UNTOLD: Duration = Duration::from_secs(15);

pub(super) fn decide_rw(observed: &Observed) -> RwPlan {
    let serving = observed.serving_primary().filter(|primary| admits_clients(observed, *primary));
    let served = serving.and_then(|primary| Some((primary, target(observed.instance(primary))?)));
    let addresses = match &observed.rw {
        SliceView::Missing => return RwPlan::Create(served.map(|(_, target)| target)),
        // No agent writes ports or labels, so there is nothing to wait for.
        SliceView::Altered(_) => return RwPlan::Mend,
        SliceView::Present(addresses) => addresses,
    };
    let Some((primary, target)) = served else { return RwPlan::Keep };
    if leads_to(addresses, &target) {
        return RwPlan::Keep;
    }
    let long = if says_endpoint_done(observed, primary) { REPAIR_TOLD } else { REPAIR_UNTOLD };
    // This observation is one more.
    if observed.rw_mismatch.times + 1 >= REPAIR_AFTER_TIMES && observed.rw_mismatch.lasting >= long {
        RwPlan::Repair(primary, target)
    } else {
        RwPlan::Suspect
    }
}

/// Whether the primary's agent lets clients in. Until then it keeps the endpoint away on purpose: what clients would see
/// could still be lost.
fn admits_clients(observed: &Observed, primary: InstanceId) -> bool {
    let Some(record) = observed.record() else { return false };
    let standby = observed.instance(primary).report.fresh().and_then(|r| r.standby.as_ref());
    record.durability == Durability::Async
        || (record.durability == Durability::Sync && record.mode == Mode::Solo)
        || standby.is_some_and(|s| s.synchronous)
}

fn says_endpoint_done(observed: &Observed, primary: InstanceId) -> bool {
    let term = observed.record().map(|r| r.term);
    let failover = observed.instance(primary).report.fresh().and_then(|r| r.last_failover.as_ref());
    failover.is_some_and(|f| {
        Some(f.term) == term && f.steps.iter().any(|(step, _)| *step == FailoverStep::Endpoint)
    })
}

pub(super) fn decide_ro(observed: &Observed) -> RoPlan {
    let addresses = match &observed.ro {
        SliceView::Missing => return RoPlan::Set(read_target(observed, &[])),
        SliceView::Altered(addresses) => {
            let target = read_target(observed, addresses);
            return target.map_or(RoPlan::Keep, |target| RoPlan::Set(Some(target)));
        }
        SliceView::Present(addresses) => addresses,
    };
    match read_target(observed, addresses) {
        Some(target) if leads_to(addresses, &target) => RoPlan::Keep,
        Some(target) => RoPlan::Set(Some(target)),
        None if addresses.is_empty() || addresses.iter().any(|a| belongs_to_a_pod(observed, a)) => {
            RoPlan::Keep
        }
        None => RoPlan::Set(None),
    }
}

/// Every instance that answers queries. One that misses an answer stays until its silence lasts. Nothing is written while
/// the primary changes: kube-proxy would carry that out first, and hold back the change that clients wait for.
pub(super) fn decide_any(observed: &Observed, rw: &RwPlan) -> AnyPlan {
    if matches!(observed.any, SliceView::Present(_)) && is_changing(observed, rw) {
        return AnyPlan::Keep;
    }
    if observed.any != SliceView::Missing && is_deaf(observed) {
        return AnyPlan::Keep;
    }
    let now: &[String] = match &observed.any {
        SliceView::Present(addresses) | SliceView::Altered(addresses) => addresses,
        SliceView::Missing => &[],
    };
    let serves = |i: InstanceId| match observed.instance(i).report.recent()?.postgres.state {
        PostgresState::Standby => target(observed.instance(i)),
        PostgresState::Primary if observed.serving_primary() == Some(i) => target(observed.instance(i)),
        PostgresState::Primary => target(observed.instance(i)).filter(|t| now.contains(&t.ip)),
        PostgresState::Down | PostgresState::Starting | PostgresState::Promoting => None,
    };
    let targets: Vec<EndpointTarget> = InstanceId::ALL.into_iter().filter_map(serves).collect();
    let right =
        matches!(&observed.any, SliceView::Present(_)) && now.iter().eq(targets.iter().map(|t| &t.ip));
    if right { AnyPlan::Keep } else { AnyPlan::Set(targets) }
}

/// The operator hears no agent, and that says nothing of them: its keys are new, and the agents may not have them yet.
fn is_deaf(observed: &Observed) -> bool {
    let is_lost = observed.authority.as_ref().is_some_and(|authority| authority.signing.is_none());
    let is_new = observed.operator_certified.is_none() || is_lost;
    is_new && InstanceId::ALL.into_iter().all(|i| observed.instance(i).report.recent().is_none())
}

/// A primary is about to be replaced, to be promoted, or to get its endpoint.
fn is_changing(observed: &Observed, rw: &RwPlan) -> bool {
    let Some(record) = observed.record() else { return *rw != RwPlan::Keep };
    let primary = observed.instance(record.primary.instance);
    let soon = record.mode == Mode::Paired || primary.report.fresh().is_some();
    let leaves = primary.pod.as_ref().is_some_and(|p| p.deleting);
    *rw != RwPlan::Keep || (soon && (leaves || observed.serving_primary().is_none()))
}

/// The standby while it is close enough, else the primary, else a standby whose primary is gone.
fn read_target(observed: &Observed, now: &[String]) -> Option<EndpointTarget> {
    let record = observed.record()?;
    let standby = observed.instance(record.primary.instance.peer());
    let reads = standby.lately().is_some_and(|r| r.postgres.state == PostgresState::Standby);
    let standby_target = reads.then(|| target(standby)).flatten();
    let Some(primary) = observed.serving_primary() else { return standby_target };
    let lag = observed.instance(primary).report.fresh().and_then(|r| r.standby.as_ref());
    let enters = standby_target.as_ref().filter(|t| {
        let leave = observed.config.read_lag_bytes;
        let limit = if leads_to(now, t) { leave } else { leave / RO_ENTER_DIVISOR };
        lag.is_some_and(|l| l.streaming && l.total.is_some_and(|total| total.bytes <= limit))
    });
    enters.cloned().or_else(|| target(observed.instance(primary)))
}

fn target(instance: &InstanceObserved) -> Option<EndpointTarget> {
    let pod = instance.pod.as_ref().filter(|p| !p.deleting)?;
    Some(EndpointTarget {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        ip: pod.ip.clone()?,
        node: pod.node.clone(),
    })
}

fn leads_to(addresses: &[String], target: &EndpointTarget) -> bool {
    addresses == [target.ip.as_str()]
}

fn belongs_to_a_pod(observed: &Observed, address: &str) -> bool {
    [&observed.a, &observed.b]
        .iter()
        .any(|i| i.pod.as_ref().is_some_and(|p| p.ip.as_deref() == Some(address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::rotation::AuthorityView;
    use crate::fixtures::{ip, now, steady};
    use crate::observed::ReportView;

    #[test]
    fn an_operator_whom_the_agents_do_not_know_yet_takes_no_instance_out_of_a_service() {
        let mut silent = steady().solo().a_silent();
        silent.b.report = ReportView::Unreachable;
        silent.any = SliceView::Present(vec![ip(InstanceId::A)]);
        let any = |observed: &Observed| decide_any(observed, &RwPlan::Keep);
        assert_eq!(any(&silent), AnyPlan::Set(Vec::new()), "it is known, and hears nobody");
        let without = Observed { operator_certified: None, ..silent.clone() };
        assert_eq!(any(&without), AnyPlan::Keep);
        let authority = |trusted: &[&str]| {
            let trusted = trusted.iter().map(|mark| (*mark).to_owned()).collect();
            Some(AuthorityView::established("ca2".into(), trusted, now()))
        };
        let following = Observed { authority: authority(&["ca1"]), ..silent.clone() };
        assert_eq!(any(&following), AnyPlan::Keep);
        assert_eq!(any(&Observed { authority: authority(&[]), ..silent }), AnyPlan::Set(Vec::new()));
        let heard = Observed { operator_certified: None, ..steady() };
        assert_eq!(any(&heard), AnyPlan::Keep, "that is right already");
        let missing = Observed { any: SliceView::Missing, ..without };
        assert_eq!(any(&missing), AnyPlan::Set(Vec::new()), "it is made");
    }
}
