//! Where the Services without selector lead.

use pgpair_core::ids::InstanceId;
use pgpair_core::report::PostgresState;

use crate::build::services::Target;
use crate::observed::{InstanceObserved, Observed, SliceView};

/// A standby leaves the read-only Service when it is further behind than this.
const RO_LEAVE_BYTES: u64 = 64 * 1024 * 1024;
/// It comes back when it is this close; less than [`RO_LEAVE_BYTES`], so that it does not flap.
const RO_ENTER_BYTES: u64 = 16 * 1024 * 1024;

/// The read-write slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RwPlan {
    /// It is right, or nobody knows better.
    Keep,
    /// It does not exist: create it empty; the promoting agent fills it.
    Create,
    /// It leads elsewhere; the promoting agent may be about to write it, so look again first.
    Suspect,
    /// It has led elsewhere for two observations: put it right.
    Repair(InstanceId, Target),
}

/// The read-only slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoPlan {
    /// It is right, or nobody knows better.
    Keep,
    /// Lead it there, or nowhere.
    Set(Option<Target>),
}

pub(super) fn decide_rw(observed: &Observed) -> RwPlan {
    let SliceView::Present(addresses) = &observed.rw else { return RwPlan::Create };
    let Some(primary) = observed.serving_primary() else { return RwPlan::Keep };
    let Some(target) = target(observed.instance(primary)) else { return RwPlan::Keep };
    if leads_to(addresses, &target) {
        RwPlan::Keep
    } else if observed.rw_mismatches == 0 {
        RwPlan::Suspect
    } else {
        RwPlan::Repair(primary, target)
    }
}

pub(super) fn decide_ro(observed: &Observed) -> RoPlan {
    let SliceView::Present(addresses) = &observed.ro else { return RoPlan::Set(read_target(observed, &[])) };
    match read_target(observed, addresses) {
        Some(target) if leads_to(addresses, &target) => RoPlan::Keep,
        Some(target) => RoPlan::Set(Some(target)),
        None if addresses.is_empty() || addresses.iter().any(|a| belongs_to_a_pod(observed, a)) => {
            RoPlan::Keep
        }
        None => RoPlan::Set(None),
    }
}

/// The standby while it is close enough, else the primary, else a standby whose primary is gone.
fn read_target(observed: &Observed, now: &[String]) -> Option<Target> {
    let record = observed.record()?;
    let standby = observed.instance(record.primary.instance.peer());
    let reads = standby.report.fresh().is_some_and(|r| r.postgres.state == PostgresState::Standby);
    let standby_target = reads.then(|| target(standby)).flatten();
    let Some(primary) = observed.serving_primary() else { return standby_target };
    let lag = observed.instance(primary).report.fresh().and_then(|r| r.standby.as_ref());
    let enters = standby_target.as_ref().filter(|t| {
        let limit = if leads_to(now, t) { RO_LEAVE_BYTES } else { RO_ENTER_BYTES };
        lag.is_some_and(|l| l.streaming && l.total.is_some_and(|total| total.bytes <= limit))
    });
    enters.cloned().or_else(|| target(observed.instance(primary)))
}

fn target(instance: &InstanceObserved) -> Option<Target> {
    let pod = instance.pod.as_ref().filter(|p| !p.deleting)?;
    Some(Target { pod: pod.name.clone(), uid: pod.uid.clone(), ip: pod.ip.clone()?, node: pod.node.clone() })
}

fn leads_to(addresses: &[String], target: &Target) -> bool {
    addresses == [target.ip.as_str()]
}

fn belongs_to_a_pod(observed: &Observed, address: &str) -> bool {
    [&observed.a, &observed.b]
        .iter()
        .any(|i| i.pod.as_ref().is_some_and(|p| p.ip.as_deref() == Some(address)))
}
