//! What an agent is taken for that has not answered this process yet: after a change of the operator's leader nothing of what
//! the process before it has seen is known, except what the status says.

use std::time::Duration;

use jiff::Timestamp;
use pgpair_api::status::{
    ConditionType, InstanceState, InstanceStatus, PgReplicaPairStatus, Reason, Unreported,
};

use super::STALE_FOR;
use crate::observed::{InstanceObserved, ReportView};
use crate::status::condition;

/// An agent that has never answered any process may still be at its first start for so long.
const FIRST_START: Duration = Duration::from_secs(60);

/// An agent without an answer in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silence {
    /// How long it has not answered, at least; `None`: it is not expected to run.
    pub(super) lasting: Option<Duration>,
    /// An agent process of it has answered an earlier operator process.
    known: bool,
    /// An earlier operator process found it unreachable.
    told: bool,
}

/// From how long this process has expected it to run, and from what the status of the pair and of the instance say.
pub(super) fn of(
    expected: Option<Duration>,
    instance: &InstanceObserved,
    pair: &PgReplicaPairStatus,
    told: Option<&InstanceStatus>,
) -> Silence {
    let told = told.is_some_and(|s| s.state.is(InstanceState::Unreported(Unreported::Unreachable)));
    let since = condition(pair, ConditionType::Degraded)
        .filter(|c| told && c.reason == Reason::InstanceUnreachable.as_str())
        .map(|c| Timestamp::now().duration_since(c.last_transition_time.0).unsigned_abs());
    let created = instance.pod.as_ref().and_then(|p| p.created);
    let age = created.map(|at| Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default());
    // Before its pod there was another one, of which nothing is known but by `known`.
    let age = age.filter(|_| instance.known.is_none());
    Silence {
        lasting: expected.map(|e| e.max(since.or(age).unwrap_or_default())),
        known: instance.known.is_some(),
        told,
    }
}

impl Silence {
    pub(super) fn view(self) -> ReportView {
        let limit = if self.known { STALE_FOR } else { FIRST_START };
        match self.lasting {
            Some(_) if self.told => ReportView::Unreachable,
            Some(lasting) if lasting >= limit => ReportView::Unreachable,
            _ => ReportView::NeverSeen,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{pod, steady};
    use pgpair_core::ids::InstanceId::B;

    const SECOND: Duration = Duration::from_secs(1);

    fn view(
        expected: Option<Duration>,
        instance: &InstanceObserved,
        state: &str,
    ) -> (ReportView, Option<u64>) {
        let told = serde_json::from_value(
            json!({"name": "orders-b", "role": "Standby", "ready": false, "state": state}),
        );
        let silence = of(expected, instance, &PgReplicaPairStatus::default(), Some(&told.unwrap()));
        (silence.view(), silence.lasting.map(|l| l.as_secs()))
    }

    #[test]
    fn an_agent_that_an_earlier_operator_process_knew_is_unreachable_when_it_does_not_answer_this_one() {
        let known = steady().b;
        assert_eq!(
            view(Some(SECOND), &known, "Standby").0,
            ReportView::NeverSeen,
            "one missed answer is not news"
        );
        assert_eq!(view(Some(10 * SECOND), &known, "Standby"), (ReportView::Unreachable, Some(10)));
    }

    #[test]
    fn what_was_unreachable_for_an_earlier_operator_process_stays_so_until_it_answers() {
        let known = steady().b;
        assert_eq!(view(Some(Duration::ZERO), &known, "Unreachable").0, ReportView::Unreachable);
        assert_eq!(view(None, &known, "Unreachable").0, ReportView::NeverSeen, "not expected to run");
    }

    #[test]
    fn an_agent_that_never_answered_is_unreachable_a_minute_after_it_should_run() {
        let new = InstanceObserved { known: None, pod: None, ..steady().b };
        assert_eq!(view(Some(59 * SECOND), &new, "NeverSeen").0, ReportView::NeverSeen);
        assert_eq!(view(Some(60 * SECOND), &new, "NeverSeen").0, ReportView::Unreachable);
        let created = Some(Timestamp::now() - Duration::from_secs(300));
        let old = InstanceObserved { pod: Some(crate::observed::PodView { created, ..pod(B) }), ..new };
        assert_eq!(view(Some(SECOND), &old, "NeverSeen").0, ReportView::Unreachable, "by the age of its pod");
    }
}
