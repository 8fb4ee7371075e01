//! What a drain may take from a pair.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pgpair_api::names::{COMPONENT_INSTANCE, LABEL_COMPONENT, LABEL_PAIR};
use pgpair_api::validate::ValidatedPair;

use super::owned;

/// One budget over both instances: a drain takes one at a time, and its SIGTERM hands the primary's role over first. One
/// that is left must be ready, so a drain also waits while the other instance is being made anew: `maxUnavailable: 1` would
/// not, for an instance at 0 replicas does not count as unavailable. A pod that is not ready serves nobody and never holds up a drain.
#[must_use]
pub fn build_budget(pair: &ValidatedPair) -> PodDisruptionBudget {
    let selector = [
        (LABEL_PAIR.to_owned(), pair.name.name.clone()),
        (LABEL_COMPONENT.to_owned(), COMPONENT_INSTANCE.to_owned()),
    ];
    PodDisruptionBudget {
        metadata: owned(pair, pair.name.budget(), pair.name.labels()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(selector.into()), ..LabelSelector::default() }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
