//! Persistent volume claims. The operator makes them, not the StatefulSet: the seeding Job needs them first, and their
//! size may grow later, which claim templates do not allow.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pgpair_api::quantity::bytes;
use pgpair_api::spec::VolumeSpec;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::kept;

const STORAGE: &str = "storage";

/// Data and archive claim of one instance.
#[must_use]
pub fn build_claims(pair: &ValidatedPair, i: InstanceId) -> [PersistentVolumeClaim; 2] {
    [
        claim(pair, i, pair.name.data_claim(i), &pair.data),
        claim(pair, i, pair.name.archive_claim(i), &pair.archive),
    ]
}

/// `claim`, but no smaller than `found`, in the words of the larger one.
#[must_use]
pub fn at_least_as_large(
    claim: &PersistentVolumeClaim,
    found: &PersistentVolumeClaim,
) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let size = |claim: &PersistentVolumeClaim| requested(claim).and_then(|text| bytes(&text.0));
    if let (Some(wanted), Some(has)) = (size(&claim), size(found))
        && has > wanted
        && let (Some(requests), Some(has)) = (requests(&mut claim), requested(found))
    {
        requests.insert(STORAGE.into(), has.clone());
    }
    claim
}

/// The size that a claim asks for.
fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get(STORAGE)
}

fn requests(claim: &mut PersistentVolumeClaim) -> Option<&mut BTreeMap<String, Quantity>> {
    claim.spec.as_mut()?.resources.as_mut()?.requests.as_mut()
}

fn claim(pair: &ValidatedPair, i: InstanceId, name: String, volume: &VolumeSpec) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: kept(pair, name, pair.name.instance_labels(i)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(STORAGE.into(), Quantity(volume.size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::valid;

    #[test]
    fn a_volume_that_is_larger_than_the_spec_says_is_not_asked_to_shrink() {
        let of = |size: &str| {
            let pair = valid(json!({"storage": {"data": {"size": size}}}));
            let [data, _] = build_claims(&pair, InstanceId::A);
            data
        };
        let applied = |spec: &str, found: &str| {
            requested(&at_least_as_large(&of(spec), &of(found))).map(|size| size.0.clone())
        };
        assert_eq!(applied("1Gi", "2Gi").as_deref(), Some("2Gi"), "grown by hand, or the spec was put back");
        assert_eq!(applied("3Gi", "2Gi").as_deref(), Some("3Gi"), "it is to grow");
        assert_eq!(applied("1Gi", "1024Mi").as_deref(), Some("1Gi"), "as it is");
    }
}
