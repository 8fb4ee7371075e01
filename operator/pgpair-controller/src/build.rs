//! The objects of a pair as pure functions of the validated spec and of what was decided.

pub mod adopt_job;
pub mod budget;
pub mod claims;
pub mod config;
pub mod issued;
pub mod network;
pub mod pod;
pub mod rbac;
pub mod record;
pub mod seed_job;
pub mod services;
pub mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pgpair_api::validate::ValidatedPair;

/// Metadata of an object that goes when the pair goes.
#[must_use]
pub fn owned(pair: &ValidatedPair, name: impl Into<String>, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta { owner_references: Some(vec![pair.owner.clone()]), ..kept(pair, name, labels) }
}

/// Metadata of an object that outlives the pair: claims, so that deleting a pair never deletes data.
#[must_use]
pub fn kept(pair: &ValidatedPair, name: impl Into<String>, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(pair.name.namespace.clone()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
