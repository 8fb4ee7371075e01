//! The record of a pair that has no data yet.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::record::Record;
use pgpair_wire::lease;

use super::owned;

/// The Lease of term 0, with the durability of the spec, which from then on only the primary's agent changes. It is created
/// once, while no system identifier is known, and never updated by the operator.
#[must_use]
pub fn build_lease(pair: &ValidatedPair) -> Lease {
    let record = Record { durability: pair.config().durability, ..Record::initial() };
    let mut metadata = owned(pair, pair.name.lease(), pair.name.labels());
    metadata.annotations = Some(lease::annotations(&record));
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(lease::holder_identity(&record)),
            lease_transitions: i32::try_from(record.term.0).ok(),
            ..LeaseSpec::default()
        }),
    }
}
