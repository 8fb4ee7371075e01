//! The record of a pair whose record is not there.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::record::Record;
use pgpair_wire::lease;

use super::owned;

/// The Lease with the first record of a pair: of term 0 while no system identifier is known, or of the volumes that are taken up. From then on
/// only the primary's agent changes it; the operator never does.
#[must_use]
pub fn build_lease(pair: &ValidatedPair, record: &Record) -> Lease {
    let mut metadata = owned(pair, pair.name.lease(), pair.name.labels());
    metadata.annotations = Some(lease::annotations(record));
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(lease::holder_identity(record)),
            lease_transitions: i32::try_from(record.term.0).ok(),
            ..LeaseSpec::default()
        }),
    }
}
