//! What of the spec is not in effect yet.

use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;

use super::{Draft, draft};
use crate::observed::Observed;
use crate::plan::{Pending, Plan, Waits};
use crate::rollout::Turn;

pub(super) fn update_pending(name: &PairName, plan: &Plan, observed: &Observed) -> Draft {
    let type_ = ConditionType::UpdatePending;
    if !plan.refused_settings.is_empty() {
        return draft(type_, true, Reason::SettingsRefused, refused(name, plan, observed));
    }
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
    if let (None, Some((i, raised))) = (plan.roll.pending.first(), find_raised(observed)) {
        let message = format!(
            "{} runs with a higher value of {} than the spec, because a standby may not have less than its primary: it gets the lower value after the primary has it",
            name.instance(i),
            raised.join(", ")
        );
        let has_begun = plan.roll.waits == Some(Waits::Return);
        let reason = if has_begun { Reason::Rolling } else { Reason::RestartPending };
        return draft(type_, true, reason, message);
    }
    let Some((i, pending)) = plan.roll.pending.first() else {
        if plan.roll.waits == Some(Waits::Return) {
            let message = "nothing needs a restart any more; the pair is not Paired again yet";
            return draft(type_, true, Reason::Rolling, message.to_owned());
        }
        let message = match hold(observed) {
            Some(why) => format!("what was carried out last is in effect; {why}"),
            None => "everything is as the spec says".to_owned(),
        };
        return draft(type_, false, Reason::UpToDate, message);
    };
    let what = match pending {
        Pending::Pod => format!("the pod of {} is of an earlier template", name.instance(*i)),
        Pending::Restart(parameters) => {
            format!("{} needs a restart for {}", name.instance(*i), parameters.join(", "))
        }
    };
    let reason = reason_of_roll(plan, observed, pending);
    draft(type_, true, reason, format!("{what}: {}", progress(plan, observed)))
}

/// `Rolling` is also the operator's memory of a pair that has begun: the next leader reads it.
fn reason_of_roll(plan: &Plan, observed: &Observed, pending: &Pending) -> Reason {
    let begun = plan.roll.takes_turn || observed.turn == Turn::Begun;
    match (&plan.roll.waits, pending) {
        (Some(Waits::Turn(Turn::Stopped(_))), _) => Reason::RolloutStopped,
        (Some(Waits::Turn(_)), _) => Reason::RolloutWaits,
        (waits, _) if begun && *waits != Some(Waits::Held) => Reason::Rolling,
        (_, Pending::Pod) => Reason::PodOutdated,
        (_, Pending::Restart(_)) => Reason::RestartPending,
    }
}

/// What is done about what is pending, or why nothing is.
fn progress(plan: &Plan, observed: &Observed) -> String {
    match &plan.roll.waits {
        None | Some(Waits::Step | Waits::Return) => "it is being done, one instance at a time".into(),
        Some(Waits::Held) => hold(observed).unwrap_or_default().into(),
        Some(Waits::NotPaired) if observed.turn == Turn::Begun => {
            "the next step waits until the pair is Paired again".into()
        }
        Some(Waits::NotPaired) => {
            "it waits until the pair is Paired, because a restart of a lone primary would interrupt its clients; kubectl pgpair restart does it all the same".into()
        }
        Some(Waits::Busy) => "it waits until what is under way is over".into(),
        Some(Waits::Turn(turn)) => wait_for_turn(turn),
    }
}

fn wait_for_turn(turn: &Turn) -> String {
    match turn {
        Turn::Free | Turn::Begun => "it is being done, one instance at a time".into(),
        Turn::After(other) => {
            format!("it waits for pair {}/{}, which is being rolled", other.namespace, other.name)
        }
        Turn::Stopped(other) => format!(
            "the roll-out has stopped, because pair {}/{} was rolled and is not Paired again; mend, pause or delete that pair, and it goes on",
            other.namespace, other.name
        ),
        Turn::FirstLook => {
            "it waits for a minute, because this replica of the operator has just begun to lead and looks at all pairs first".into()
        }
    }
}

/// A standby whose parameters are above the spec's.
fn find_raised(observed: &Observed) -> Option<(InstanceId, &[String])> {
    InstanceId::ALL.into_iter().find_map(|i| {
        let raised = &observed.instance(i).report.recent()?.raised;
        (!raised.is_empty()).then_some((i, &raised[..]))
    })
}

/// Which agents refuse which settings, why, and what to do.
fn refused(name: &PairName, plan: &Plan, observed: &Observed) -> String {
    let says = |(i, words): &(InstanceId, String)| {
        let known = observed.instance(*i).report.fresh().map_or(0, |r| r.config_generation);
        format!("{} stays on generation {known} because {words}", name.instance(*i))
    };
    format!(
        "settings generation {} is refused: {}. Correct the spec",
        observed.generation(),
        plan.refused_settings.iter().map(says).collect::<Vec<_>>().join("; ")
    )
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
    use std::time::Duration;

    use super::*;
    use crate::decide::decide;
    use crate::fixtures::{name, steady};
    use crate::observed::{ReportView, SettingsRefusal};

    #[test]
    fn settings_that_an_agent_refuses_are_told_in_its_words() {
        let mut observed = steady();
        observed.config.generation = 4;
        let message = "postgres does not accept it: invalid value for parameter \"work_mem\": \"lots\"";
        let refusal = SettingsRefusal { generation: 4, message: message.into() };
        observed.refused_settings.insert(InstanceId::A, (refusal, Duration::from_secs(1)));
        let told = update_pending(&name(), &decide(&observed), &observed);
        assert_eq!((told.status, told.reason), (Some(true), Reason::SettingsRefused));
        let expected = format!(
            "settings generation 4 is refused: orders-a stays on generation 3 because {message}. Correct the spec"
        );
        assert_eq!(told.message, expected);
    }

    #[test]
    fn a_standby_that_has_more_than_the_spec_says_is_not_up_to_date() {
        let mut observed = steady();
        let ReportView::Fresh(report) = &mut observed.b.report else { panic!() };
        report.raised = vec!["max_connections".into()];
        let told = update_pending(&name(), &decide(&observed), &observed);
        assert_eq!((told.status, told.reason), (Some(true), Reason::RestartPending));
        assert!(told.message.starts_with("orders-b runs with a higher value of max_connections"));
    }

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
    #[test]
    fn a_pair_that_waits_for_another_one_names_it() {
        let other = PairName { namespace: "bank".into(), name: "ledger".into() };
        let mut observed = steady();
        for i in [&mut observed.a, &mut observed.b] {
            i.update_revision = Some("newer".into());
        }
        let told = |observed: &Observed| update_pending(&name(), &decide(observed), observed);
        assert_eq!(told(&observed).reason, Reason::Rolling, "it is its turn");
        observed.turn = Turn::After(other.clone());
        let waits = told(&observed);
        assert_eq!(waits.reason, Reason::RolloutWaits);
        assert!(waits.message.contains("waits for pair bank/ledger"), "{}", waits.message);
        observed.turn = Turn::Stopped(other);
        let stopped = told(&observed);
        assert_eq!(stopped.reason, Reason::RolloutStopped);
        assert!(stopped.message.contains("bank/ledger was rolled and is not Paired"), "{}", stopped.message);
        observed.turn = Turn::FirstLook;
        assert_eq!(told(&observed).reason, Reason::RolloutWaits);
    }

    #[test]
    fn a_pair_that_has_begun_says_so_until_it_is_paired_again() {
        let mut returning = steady().solo();
        returning.turn = Turn::Begun;
        let told = |observed: &Observed| update_pending(&name(), &decide(observed), observed);
        assert_eq!((told(&returning).status, told(&returning).reason), (Some(true), Reason::Rolling));
        let mut back = steady();
        back.turn = Turn::Begun;
        assert_eq!((told(&back).status, told(&back).reason), (Some(false), Reason::UpToDate));
    }
}
