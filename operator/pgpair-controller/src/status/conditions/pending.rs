//! What of the spec is not in effect yet.

use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};

use super::{Draft, draft};
use crate::observed::Observed;
use crate::plan::{Pending, Plan, Waits};

pub(super) fn update_pending(name: &PairName, plan: &Plan, observed: &Observed) -> Draft {
    let type_ = ConditionType::UpdatePending;
    if let Some(i) = plan.configure.first() {
        let known = observed.instance(*i).report.fresh().map_or(0, |r| r.config_generation);
        let held = hold(observed).map(|why| format!(": {why}")).unwrap_or_default();
        let message = format!(
            "the agent of {} follows generation {known} of the settings, not {} yet{held}",
            name.instance(*i),
            observed.generation()
        );
        return draft(type_, true, Reason::ConfigPending, message);
    }
    let Some((i, pending)) = plan.roll.pending.first() else {
        let message = match hold(observed) {
            Some(why) => format!("what was carried out last is in effect; {why}"),
            None => "everything is as the spec says".to_owned(),
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
        Some(Waits::Held) => hold(observed).unwrap_or_default(),
        Some(Waits::NotPaired) => {
            "it waits until the pair is Paired, because a restart of a lone primary would interrupt its clients; kubectl pgpair restart does it all the same"
        }
        Some(Waits::Busy) => "it waits until what is under way is over",
    };
    draft(type_, true, reason, format!("{what}: {when}"))
}

/// Why nothing of the spec comes into effect.
fn hold(observed: &Observed) -> Option<&'static str> {
    if observed.invalid.is_some() {
        Some("the spec cannot be carried out, see condition Degraded")
    } else {
        observed
            .paused
            .then_some("the pair is paused: nothing of the spec comes into effect until spec.paused is false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decide;
    use crate::fixtures::{name, steady};

    #[test]
    fn what_holds_a_pair_is_told_beside_what_is_pending() {
        let message = |observed: &Observed| update_pending(&name(), &decide(observed), observed).message;
        let mut held = steady();
        held.paused = true;
        assert!(message(&held).contains("the pair is paused"), "{}", message(&held));
        held.config.generation = 4;
        assert!(message(&held).contains("not 4 yet: the pair is paused"), "{}", message(&held));
        held.invalid = Some("spec.readLag is wrong".into());
        assert!(message(&held).contains("not 4 yet: the spec cannot be"), "{}", message(&held));
    }
}
