//! A pod that cannot end, because the node that would have to say so is lost.

use pgpair_core::ids::InstanceId;
use pgpair_core::record::{Mode, Record};

use crate::observed::Observed;
use crate::plan::PodName;

/// The pod of a standby that a person has given up: its pod and both claims are to be deleted, and its node does not answer. What may
/// still run there is harmless: in `Solo` nobody takes over, and the record will name the data directory of the next standby.
pub(super) fn decide_release(observed: &Observed, record: &Record) -> Option<(InstanceId, PodName)> {
    let standby = record.primary.instance.peer();
    let instance = observed.instance(standby);
    let pod = instance.pod.as_ref().filter(|pod| pod.deleting && instance.is_given_up)?;
    let may = record.mode == Mode::Solo
        && observed.serving_primary().is_some()
        && instance.report.fresh().is_none();
    may.then(|| (standby, PodName { name: pod.name.clone(), uid: pod.uid.clone(), node: pod.node.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decide;
    use crate::fixtures::{pod, steady};
    use crate::observed::ReportView;
    use crate::plan::Notice;

    const B: InstanceId = InstanceId::B;

    /// Instance b was given up, in `Solo`.
    fn given_up() -> Observed {
        let mut observed = steady().solo();
        let mut lost = pod(B);
        lost.deleting = true;
        (observed.b.pod, observed.b.report, observed.b.is_given_up) =
            (Some(lost), ReportView::Unreachable, true);
        observed
    }

    #[test]
    fn the_pod_of_a_standby_that_was_given_up_with_its_node_is_released() {
        let plan = decide(&given_up());
        let (instance, released) = plan.release.clone().unwrap();
        assert_eq!((instance, released.name.as_str()), (B, "orders-b-0"));
        assert!(matches!(plan.notices[..], [Notice::PodReleased(B, _)]), "{:?}", plan.notices);
        assert!(!plan.settled);
    }

    #[test]
    fn nothing_is_released_that_could_be_needed_or_still_answers() {
        let spoilt: [fn(&mut Observed); 5] = [
            |o| o.b.is_given_up = false,
            |o| o.b.pod.as_mut().unwrap().deleting = false,
            |o| *o = Observed { lease: steady().lease, ..o.clone() },
            |o| o.a.report = ReportView::Unreachable,
            |o| o.b.report = steady().b.report,
        ];
        for (n, spoil) in spoilt.iter().enumerate() {
            let mut observed = given_up();
            spoil(&mut observed);
            assert_eq!(decide(&observed).release, None, "{n}");
        }
    }
}
