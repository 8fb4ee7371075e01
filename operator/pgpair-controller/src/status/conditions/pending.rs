//! What of the spec is not in effect yet.

use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};

use super::{Draft, draft};
use crate::decide::{Pending, Plan, Waits};
use crate::observed::Observed;

pub(super) fn update_pending(name: &PairName, plan: &Plan, observed: &Observed) -> Draft {
    let type_ = ConditionType::UpdatePending;
    if let Some(i) = plan.configure.first() {
        let known = observed.instance(*i).report.fresh().map_or(0, |r| r.config_generation);
        let message = format!(
            "the agent of {} follows generation {known} of the settings, not {} yet",
            name.instance(*i),
            observed.generation()
        );
        return draft(type_, true, Reason::ConfigPending, message);
    }
    let Some((i, pending)) = plan.roll.pending.first() else {
        let message = if observed.paused {
            "everything is as the spec says; the pair is paused: the operator changes nothing until spec.paused is false"
        } else {
            "everything is as the spec says"
        };
        return draft(type_, false, Reason::UpToDate, message);
    };
    let (reason, what) = match pending {
        Pending::Pod => {
            (Reason::PodOutdated, format!("the pod of {} is of an earlier template", name.instance(*i)))
        }
        Pending::Restart(parameters) => {
            let all = parameters.join(", ");
            (Reason::RestartPending, format!("{} needs a restart for {all}", name.instance(*i)))
        }
    };
    let when = match plan.roll.waits {
        None | Some(Waits::Step) => "it is being done, one instance at a time",
        Some(Waits::Paused) => "the pair is paused",
        Some(Waits::NotPaired) => {
            "it waits until the pair is Paired, because a restart of a lone primary would interrupt its clients; kubectl pgpair restart does it all the same"
        }
        Some(Waits::Busy) => "it waits until what is under way is over",
    };
    draft(type_, true, reason, format!("{what}: {when}"))
}
