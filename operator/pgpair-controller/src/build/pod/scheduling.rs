//! Which nodes a pod may have.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, PodAntiAffinity, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pgpair_api::names::{COMPONENT_INSTANCE, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_PAIR};
use pgpair_api::spec::AntiAffinity;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::Purpose;

/// Affinity of a pod: apart from the other instance, and what the user says of nodes.
pub(super) fn affinity(pair: &ValidatedPair, i: InstanceId, purpose: Purpose) -> Option<Affinity> {
    let apart = apart(pair, i, purpose);
    let node_affinity = pair.scheduling.node_affinity.clone();
    (apart.is_some() || node_affinity.is_some()).then(|| Affinity {
        node_affinity,
        pod_anti_affinity: apart,
        ..Affinity::default()
    })
}

/// The two instances do not share a node. A seeding pod keeps away from the other instance only: its own may still be
/// terminating on the node that holds the volume.
fn apart(pair: &ValidatedPair, i: InstanceId, purpose: Purpose) -> Option<PodAntiAffinity> {
    let mut labels = vec![
        (LABEL_PAIR.to_owned(), pair.name.name.clone()),
        (LABEL_COMPONENT.to_owned(), COMPONENT_INSTANCE.to_owned()),
    ];
    if purpose == Purpose::Seed {
        labels.push((LABEL_INSTANCE.to_owned(), i.peer().to_string()));
    }
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(labels.into_iter().collect()),
            ..LabelSelector::default()
        }),
        topology_key: pair.scheduling.topology_key.clone(),
        ..PodAffinityTerm::default()
    };
    match pair.scheduling.anti_affinity {
        AntiAffinity::Required => Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        AntiAffinity::Preferred => Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }),
        AntiAffinity::None => None,
    }
}
