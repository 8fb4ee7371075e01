//! Proof that an agent process is dead (docs/authority.md, rule 6), from what Kubernetes says.
//!
//! It is: a terminated state that the kubelet reports for the container, in whose termination log the dead process had
//! written its name; or the out-of-service taint of the node on which that process ran by its own report. It is never: a
//! missing pod, a deleted Node, a NotReady node, a pod deleted by force, silence.

use pgpair_core::authority::messages::{Evidence, EvidenceKind};
use pgpair_core::ids::{Incarnation, InstanceId};

use crate::observed::{Ended, Observed, Taken};

/// The kubelet writes this reason when it does *not* know what became of a container.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// What is proven dead, of the instance that the record names as primary.
#[must_use]
pub fn decide_evidence(observed: &Observed) -> Vec<Evidence> {
    let Some(record) = observed.record() else { return Vec::new() };
    let primary = observed.instance(record.primary.instance);
    let mut out: Vec<Evidence> = Vec::new();
    let ended = primary.pod.iter().flat_map(|pod| &pod.ended).filter_map(proven_by_the_kubelet);
    out.extend(ended.map(|incarnation| Evidence { incarnation, kind: EvidenceKind::KubeletTerminated }));
    if let (Some(node), Some(known)) = (&observed.out_of_service, &primary.known)
        && known.node == *node
    {
        out.push(Evidence { incarnation: known.incarnation, kind: EvidenceKind::OutOfServiceTaint });
    }
    // One who answers lives, whatever anybody else says.
    let lives = |dead: Incarnation| {
        InstanceId::ALL
            .iter()
            .any(|i| observed.instance(*i).report.fresh().is_some_and(|r| r.incarnation == dead))
    };
    // Of no use to anybody: an earlier process of a primary that serves under another name.
    let matters =
        |dead: Incarnation| dead == record.primary.incarnation || observed.serving_primary().is_none();
    out.retain(|e| !lives(e.incarnation) && matters(e.incarnation));
    out
}

/// To whom a proof is sent: the standby, and a new agent of the same instance, which may wait for it (`OtherNode`). Not to
/// an agent process that has taken it already.
#[must_use]
pub fn decide_receivers(observed: &Observed, evidence: &Evidence) -> Vec<(InstanceId, Incarnation)> {
    let other = |i: InstanceId| {
        let report = observed.instance(i).report.fresh()?;
        let taken = Taken::new(report.incarnation, evidence.incarnation, evidence.kind);
        let wants = report.incarnation != evidence.incarnation && !observed.taken.contains(&taken);
        wants.then_some((i, report.incarnation))
    };
    InstanceId::ALL.into_iter().filter_map(other).collect()
}

/// The whole message is the name of the process: a message that only contains it is somebody else's.
fn proven_by_the_kubelet(ended: &Ended) -> Option<Incarnation> {
    if ended.reason.is_empty() || ended.reason == UNKNOWN {
        return None;
    }
    ended.message.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::InstanceId::{A, B};
    use pgpair_core::instance::PostgresState;
    use pgpair_core::record::Mode;

    use super::*;
    use crate::fixtures::{record, report, steady};
    use crate::observed::{AgentProcess, LeaseView, ReportView};

    const DEAD: &str = "0000000000000007";

    fn ended(reason: &str, message: &str) -> Ended {
        Ended { reason: reason.into(), message: message.into() }
    }

    /// Instance a, the primary, does not answer; its pod's container ended like this.
    fn after(ends: Vec<Ended>) -> Observed {
        let mut observed = steady().a_silent();
        if let Some(pod) = &mut observed.a.pod {
            pod.ended = ends;
        }
        observed
    }

    fn words(observed: &Observed) -> Vec<(u64, &'static str)> {
        decide_evidence(observed).iter().map(|e| (e.incarnation.0, e.kind.into())).collect()
    }

    #[test]
    fn a_terminated_container_that_wrote_its_name_is_dead() {
        for reason in ["Error", "OOMKilled", "Completed"] {
            assert_eq!(words(&after(vec![ended(reason, DEAD)])), [(7, "KubeletTerminated")], "{reason}");
        }
        let both = after(vec![ended("Error", "00000000000000aa\n"), ended("Error", DEAD)]);
        assert_eq!(words(&both), [(0xaa, "KubeletTerminated"), (7, "KubeletTerminated")]);
    }

    #[test]
    fn what_only_looks_like_a_proof_is_none() {
        let forged = [
            ended("ContainerStatusUnknown", DEAD),
            ended("ContainerStatusUnknown", "The container could not be located when the pod was terminated"),
            ended("", DEAD),
            ended("Error", ""),
            ended("Error", "incarnation 0000000000000007"),
            ended("Error", "{\"doneBytes\":7}"),
            ended("Error", "7"),
        ];
        for end in forged {
            assert_eq!(words(&after(vec![end.clone()])), [], "{end:?}");
        }
        assert_eq!(words(&after(Vec::new())), [], "silence");
        let mut gone = after(vec![ended("Error", DEAD)]);
        gone.a.pod = None;
        assert_eq!(words(&gone), [], "a missing pod");
    }

    #[test]
    fn one_who_answers_is_not_dead() {
        let mut alive = after(vec![ended("Error", DEAD)]);
        alive.a.report = ReportView::Fresh(Box::new(report(A, PostgresState::Primary)));
        assert_eq!(words(&alive), []);
    }

    #[test]
    fn an_earlier_process_of_a_serving_primary_is_no_news() {
        let mut observed = steady();
        if let Some(pod) = &mut observed.a.pod {
            pod.ended = vec![ended("Error", "00000000000000aa")];
        }
        assert_eq!(words(&observed), []);
        observed.a.report = ReportView::Unreachable;
        assert_eq!(words(&observed), [(0xaa, "KubeletTerminated")], "it may hold a promise");
    }

    #[test]
    fn only_the_instance_that_the_record_names_is_looked_at() {
        let mut observed = steady();
        if let Some(pod) = &mut observed.b.pod {
            pod.ended = vec![ended("Error", "00000000000000bb")];
        }
        assert_eq!(words(&observed), []);
        observed.lease = LeaseView::Present(record(B, Mode::Solo));
        assert_eq!(words(&observed), [(0xbb, "KubeletTerminated")]);
        observed.lease = LeaseView::Missing;
        assert_eq!(words(&observed), []);
    }

    #[test]
    fn the_taint_proves_the_death_of_the_process_that_ran_on_that_node_and_of_no_other() {
        let tainted = |node: &str, ran_on: &str| {
            let mut observed = steady().a_silent();
            observed.out_of_service = Some(node.into());
            observed.a.known = Some(AgentProcess { incarnation: Incarnation(7), node: ran_on.into() });
            words(&observed)
        };
        assert_eq!(tainted("node-a", "node-a"), [(7, "OutOfServiceTaint")]);
        // The pod has moved to a node that is then tainted; the process that the record names may still run elsewhere.
        assert_eq!(tainted("node-c", "node-a"), []);
        let mut unknown = steady().a_silent();
        unknown.out_of_service = Some("node-a".into());
        unknown.a.known = None;
        assert_eq!(words(&unknown), []);
    }

    #[test]
    fn a_proof_goes_to_every_agent_but_the_dead_one() {
        let observed = after(vec![ended("Error", DEAD)]);
        let proof = decide_evidence(&observed)[0];
        assert_eq!(decide_receivers(&observed, &proof), [(B, Incarnation(8))]);
        let mut back = observed;
        let mut successor = report(A, PostgresState::Down);
        successor.incarnation = Incarnation(9);
        back.a.report = ReportView::Fresh(Box::new(successor));
        assert_eq!(decide_receivers(&back, &proof), [(A, Incarnation(9)), (B, Incarnation(8))]);
        back.taken.insert(Taken::new(Incarnation(9), proof.incarnation, proof.kind));
        assert_eq!(decide_receivers(&back, &proof), [(B, Incarnation(8))], "once to each agent process");
    }
}
