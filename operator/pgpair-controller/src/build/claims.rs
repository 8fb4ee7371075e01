//! Persistent volume claims. The operator makes them, not the StatefulSet: the seeding Job needs them first, and their
//! size may grow later, which claim templates do not allow.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pgpair_api::spec::VolumeSpec;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::kept;

/// Data and archive claim of one instance.
#[must_use]
pub fn build_claims(pair: &ValidatedPair, i: InstanceId) -> [PersistentVolumeClaim; 2] {
    [
        claim(pair, i, pair.name.data_claim(i), &pair.data),
        claim(pair, i, pair.name.archive_claim(i), &pair.archive),
    ]
}

fn claim(pair: &ValidatedPair, i: InstanceId, name: String, volume: &VolumeSpec) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: kept(pair, name, pair.name.instance_labels(i)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), Quantity(volume.size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
