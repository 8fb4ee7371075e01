//! What each container may use. Every one names CPU and memory, because a namespace with a ResourceQuota admits no pod otherwise.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pgpair_api::validate::ValidatedPair;

/// Limits of the witness and of the container that installs the program. The witness sleeps in a few MiB; when the agent dies it
/// builds one TLS connection, which takes some milliseconds of CPU: a smaller share would delay the failover. Installing copies one
/// file.
const HELPER_LIMITS: [(&str, &str); 2] = [("cpu", "200m"), ("memory", "32Mi")];
/// What they reserve, unless the pod is to be of class Guaranteed.
const HELPER_REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "16Mi")];

/// Of container `postgres`: what the spec says.
pub(super) fn of_postgres(pair: &ValidatedPair) -> Option<ResourceRequirements> {
    let quantities = |map: &BTreeMap<String, String>| {
        (!map.is_empty()).then(|| map.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect())
    };
    pair.resources.as_ref().map(|r| ResourceRequirements {
        requests: quantities(&r.requests),
        limits: quantities(&r.limits),
        ..ResourceRequirements::default()
    })
}

/// Of the containers beside it.
pub(super) fn of_helper(pair: &ValidatedPair) -> ResourceRequirements {
    let quantities = |all: [(&str, &str); 2]| {
        all.into_iter().map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).collect()
    };
    let requests = if is_guaranteed(pair) { HELPER_LIMITS } else { HELPER_REQUESTS };
    ResourceRequirements {
        requests: Some(quantities(requests)),
        limits: Some(quantities(HELPER_LIMITS)),
        ..ResourceRequirements::default()
    }
}

/// Whether `postgres` asks for the class Guaranteed, which a pod has only if each of its containers does.
fn is_guaranteed(pair: &ValidatedPair) -> bool {
    pair.resources.as_ref().is_some_and(|r| {
        ["cpu", "memory"].into_iter().all(|resource| {
            // A request that is not named is the limit.
            r.limits
                .get(resource)
                .is_some_and(|l| r.requests.get(resource).is_none_or(|request| request == l))
        })
    })
}
