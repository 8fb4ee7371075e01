//! The StatefulSet of one instance.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pgpair_api::names::{
    ANNOTATION_SEED, ANNOTATION_SEED_FAILURES, COMPONENT_INSTANCE, LABEL_COMPONENT, LABEL_INSTANCE,
    LABEL_PAIR,
};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::owned;
use super::pod::build_instance_pod;
use crate::plan::InstancePlan;

/// The StatefulSet of instance `i`, as decided.
#[must_use]
pub fn build_stateful_set(pair: &ValidatedPair, i: InstanceId, plan: &InstancePlan) -> StatefulSet {
    let mut metadata = owned(pair, pair.name.instance(i), pair.name.instance_labels(i));
    // The number of the Job that the instance waits for lives on the very object that is scaled, so that both change at once.
    metadata.annotations = Some(
        [(ANNOTATION_SEED, plan.seed), (ANNOTATION_SEED_FAILURES, plan.seed_failures)]
            .map(|(key, n)| (key.to_owned(), n.to_string()))
            .into(),
    );
    let selector = [
        (LABEL_PAIR.to_owned(), pair.name.name.clone()),
        (LABEL_INSTANCE.to_owned(), i.to_string()),
        (LABEL_COMPONENT.to_owned(), COMPONENT_INSTANCE.to_owned()),
    ];
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(plan.replicas),
            service_name: Some(pair.name.pods_service()),
            pod_management_policy: Some("Parallel".into()),
            // A restart of a primary is a switchover: it is the operator's to decide, never the StatefulSet's.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                ..StatefulSetUpdateStrategy::default()
            }),
            selector: LabelSelector { match_labels: Some(selector.into()), ..LabelSelector::default() },
            template: build_instance_pod(pair, i),
            revision_history_limit: Some(3),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}
