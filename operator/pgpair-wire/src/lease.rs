//! The record as a Lease of Kubernetes: its fields and annotations.

use std::collections::BTreeMap;

use pgpair_core::authority::Durability;
use pgpair_core::ids::{ParseIdError, Term};
use pgpair_core::record::{Contradiction, Holder, Mode, Record};

/// Annotation of the Lease that holds [`Mode`].
pub const MODE: &str = "pgpair.dev/mode";
/// Annotation of the Lease that holds the volume id of the primary.
pub const PRIMARY_VOLUME: &str = "pgpair.dev/primary-volume";
/// Annotation of the Lease that holds the volume id of the standby, while `Paired`.
pub const STANDBY_VOLUME: &str = "pgpair.dev/standby-volume";
/// Annotation of the Lease that holds the [`Durability`] under which the primary acknowledges commits.
pub const DURABILITY: &str = "pgpair.dev/durability";
/// Annotation of the Lease that names the agent's write which it holds, as `INSTANCE/INCARNATION/NUMBER`. Not part of the record:
/// it lets no two writes be equal.
pub const WRITE: &str = "pgpair.dev/write";
/// Annotation of the Lease that holds the system identifier of the pair.
pub const SYSTEM_IDENTIFIER: &str = "pgpair.dev/system-identifier";

/// The annotations of the Lease that are the record's; others are left alone.
pub const ANNOTATIONS: [&str; 5] = [MODE, PRIMARY_VOLUME, STANDBY_VOLUME, SYSTEM_IDENTIFIER, DURABILITY];

/// A Lease that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A field or annotation is missing.
    #[error("the lease has no {0}")]
    Missing(&'static str),
    /// A field cannot be read.
    #[error("the lease's {field}: {source}")]
    Unreadable {
        /// Which one.
        field: &'static str,
        /// Why.
        source: ParseIdError,
    },
    /// The fields contradict each other.
    #[error("the lease contradicts itself: {0}")]
    Contradiction(&'static str),
}

/// `holderIdentity` of the Lease.
#[must_use]
pub fn holder_identity(record: &Record) -> String {
    format!("{}/{}", record.primary.instance, record.primary.incarnation)
}

/// Annotations of the Lease.
#[must_use]
pub fn annotations(record: &Record) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([(MODE.to_owned(), record.mode.to_string())]);
    let mut put = |key: &str, value: Option<String>| {
        if let Some(v) = value {
            out.insert(key.to_owned(), v);
        }
    };
    put(PRIMARY_VOLUME, record.primary_volume.map(|v| v.to_string()));
    put(STANDBY_VOLUME, record.standby_volume.map(|v| v.to_string()));
    put(SYSTEM_IDENTIFIER, record.system_identifier.map(|v| v.to_string()));
    put(DURABILITY, Some(record.durability.as_str().to_owned()));
    out
}

/// Reads a record from the fields of a Lease.
///
/// # Errors
/// Names the first field that is missing, unreadable or contradicts another.
pub fn read(
    holder_identity: Option<&str>,
    lease_transitions: Option<i32>,
    annotations: &BTreeMap<String, String>,
) -> Result<Record, LeaseError> {
    let term = lease_transitions.ok_or(LeaseError::Missing("leaseTransitions"))?;
    let term = Term(u32::try_from(term).map_err(|_| LeaseError::Contradiction("negative leaseTransitions"))?);
    let holder = holder_identity.ok_or(LeaseError::Missing("holderIdentity"))?;
    let (instance, incarnation) = holder
        .split_once('/')
        .ok_or(LeaseError::Contradiction("holderIdentity is not INSTANCE/INCARNATION"))?;
    let mode = match annotations.get(MODE).map(String::as_str) {
        Some("Paired") => Mode::Paired,
        Some("Solo") => Mode::Solo,
        Some(_) => return Err(LeaseError::Contradiction("mode is neither Paired nor Solo")),
        None => return Err(LeaseError::Missing(MODE)),
    };
    let record = Record {
        term,
        primary: Holder {
            instance: field("holderIdentity", instance)?,
            incarnation: field("holderIdentity", incarnation)?,
        },
        mode,
        primary_volume: annotation(annotations, PRIMARY_VOLUME)?,
        standby_volume: annotation(annotations, STANDBY_VOLUME)?,
        system_identifier: annotation(annotations, SYSTEM_IDENTIFIER)?,
        durability: match annotations.get(DURABILITY).map(String::as_str) {
            Some("Sync") => Durability::Sync,
            Some("SyncStrict") => Durability::SyncStrict,
            Some("Async") => Durability::Async,
            Some(_) => {
                return Err(LeaseError::Contradiction("durability is neither Sync, SyncStrict nor Async"));
            }
            None => return Err(LeaseError::Missing(DURABILITY)),
        },
    };
    record.check().map_err(|Contradiction(what)| LeaseError::Contradiction(what))?;
    Ok(record)
}

fn field<T: std::str::FromStr<Err = ParseIdError>>(field: &'static str, text: &str) -> Result<T, LeaseError> {
    text.parse().map_err(|source| LeaseError::Unreadable { field, source })
}

fn annotation<T: std::str::FromStr<Err = ParseIdError>>(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<T>, LeaseError> {
    annotations.get(key).map(|text| field(key, text)).transpose()
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, VolumeId};

    use super::*;

    fn paired() -> Record {
        Record {
            term: Term(3),
            primary: Holder { instance: InstanceId::B, incarnation: Incarnation(9) },
            mode: Mode::Paired,
            primary_volume: Some(VolumeId(1)),
            standby_volume: Some(VolumeId(2)),
            system_identifier: Some(SystemIdentifier(7)),
            durability: Durability::Async,
        }
    }

    fn reread(r: &Record) -> Result<Record, LeaseError> {
        read(Some(&holder_identity(r)), i32::try_from(r.term.0).ok(), &annotations(r))
    }

    #[test]
    fn a_record_survives_the_lease() {
        for r in [Record::initial(), paired(), Record { mode: Mode::Solo, standby_volume: None, ..paired() }]
        {
            assert_eq!(reread(&r), Ok(r));
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        assert!(reread(&Record { standby_volume: None, ..paired() }).is_err());
        assert!(reread(&Record { mode: Mode::Solo, ..paired() }).is_err());
        assert!(reread(&Record { primary_volume: None, ..paired() }).is_err());
        assert!(reread(&Record { term: Term(0), ..paired() }).is_err());
        assert!(read(None, Some(1), &annotations(&paired())).is_err());
    }
}
