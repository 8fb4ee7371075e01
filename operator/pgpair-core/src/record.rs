//! The record R: who is primary, in which term, and whether the standby may take over. Kept in the pair's `Lease`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::authority::Durability;
use crate::ids::{Incarnation, InstanceId, ParseIdError, SystemIdentifier, Term, VolumeId};

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

/// Whether the standby may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The primary writes while it holds a promise; the standby takes over when its promises have lapsed.
    Paired,
    /// The named incarnation writes; nobody takes over by itself.
    Solo,
}

impl Mode {
    /// `Paired` or `Solo`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Paired => "Paired",
            Mode::Solo => "Solo",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One agent process of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The instance.
    pub instance: InstanceId,
    /// Its agent process.
    pub incarnation: Incarnation,
}

/// Content of the record. Every change is a compare-and-set by uid and resource version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// `leaseTransitions`. Term 0 is a pair that has no data yet.
    pub term: Term,
    /// `holderIdentity`, as `a/INCARNATION`; in term 0 the incarnation is zero.
    pub primary: Holder,
    /// `Paired` or `Solo`.
    pub mode: Mode,
    /// Data directory of the primary; `None` in term 0 only.
    pub primary_volume: Option<VolumeId>,
    /// Data directory of the standby; present while `Paired`.
    pub standby_volume: Option<VolumeId>,
    /// System identifier of the pair; `None` in term 0 only.
    pub system_identifier: Option<SystemIdentifier>,
    /// What an acknowledged commit is worth; changed only by the primary, and only together with `Solo`.
    pub durability: Durability,
}

/// A record together with what a compare-and-set needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// Identity of the Lease object (hash of `metadata.uid`).
    pub uid: LeaseUid,
    /// `metadata.resourceVersion`, which grows with each change.
    pub version: Version,
    /// What it says.
    pub record: Record,
}

/// `metadata.uid` of the Lease: another uid is another, foreign record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseUid(pub u128);

/// `metadata.resourceVersion` as the number that it is for built-in types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A Lease that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
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

impl Record {
    /// The annotations of the Lease that are the record's; others are left alone.
    pub const ANNOTATIONS: [&'static str; 5] =
        [MODE, PRIMARY_VOLUME, STANDBY_VOLUME, SYSTEM_IDENTIFIER, DURABILITY];

    /// The record that the operator creates for a pair without data: term 0, instance a is to be initialised.
    #[must_use]
    pub fn initial() -> Record {
        Record {
            term: Term(0),
            primary: Holder { instance: InstanceId::A, incarnation: Incarnation(0) },
            mode: Mode::Solo,
            primary_volume: None,
            standby_volume: None,
            system_identifier: None,
            durability: Durability::Sync,
        }
    }

    /// `holderIdentity` of the Lease.
    #[must_use]
    pub fn holder_identity(&self) -> String {
        format!("{}/{}", self.primary.instance, self.primary.incarnation)
    }

    /// Annotations of the Lease.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::from([(MODE.to_owned(), self.mode.to_string())]);
        let mut put = |key: &str, value: Option<String>| {
            if let Some(v) = value {
                out.insert(key.to_owned(), v);
            }
        };
        put(PRIMARY_VOLUME, self.primary_volume.map(|v| v.to_string()));
        put(STANDBY_VOLUME, self.standby_volume.map(|v| v.to_string()));
        put(SYSTEM_IDENTIFIER, self.system_identifier.map(|v| v.to_string()));
        put(DURABILITY, Some(self.durability.as_str().to_owned()));
        out
    }

    /// Reads a record from the fields of a Lease.
    ///
    /// # Errors
    /// Names the first field that is missing, unreadable or contradicts another.
    pub fn from_lease(
        holder_identity: Option<&str>,
        lease_transitions: Option<i32>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Record, RecordError> {
        let term = lease_transitions.ok_or(RecordError::Missing("leaseTransitions"))?;
        let term =
            Term(u32::try_from(term).map_err(|_| RecordError::Contradiction("negative leaseTransitions"))?);
        let holder = holder_identity.ok_or(RecordError::Missing("holderIdentity"))?;
        let (instance, incarnation) = holder
            .split_once('/')
            .ok_or(RecordError::Contradiction("holderIdentity is not INSTANCE/INCARNATION"))?;
        let mode = match annotations.get(MODE).map(String::as_str) {
            Some("Paired") => Mode::Paired,
            Some("Solo") => Mode::Solo,
            Some(_) => return Err(RecordError::Contradiction("mode is neither Paired nor Solo")),
            None => return Err(RecordError::Missing(MODE)),
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
                    return Err(RecordError::Contradiction(
                        "durability is neither Sync, SyncStrict nor Async",
                    ));
                }
                None => return Err(RecordError::Missing(DURABILITY)),
            },
        };
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), RecordError> {
        let born = self.term > Term(0);
        if born != self.primary_volume.is_some() || born != self.system_identifier.is_some() {
            return Err(RecordError::Contradiction(
                "a term above 0 goes with a primary volume and a system identifier",
            ));
        }
        if (self.mode == Mode::Paired) != self.standby_volume.is_some() {
            return Err(RecordError::Contradiction("Paired goes with a standby volume"));
        }
        Ok(())
    }
}

fn field<T: std::str::FromStr<Err = ParseIdError>>(
    field: &'static str,
    text: &str,
) -> Result<T, RecordError> {
    text.parse().map_err(|source| RecordError::Unreadable { field, source })
}

fn annotation<T: std::str::FromStr<Err = ParseIdError>>(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<T>, RecordError> {
    annotations.get(key).map(|text| field(key, text)).transpose()
}

#[cfg(test)]
mod tests {
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

    fn read(r: &Record) -> Result<Record, RecordError> {
        Record::from_lease(Some(&r.holder_identity()), i32::try_from(r.term.0).ok(), &r.annotations())
    }

    #[test]
    fn a_record_survives_the_lease() {
        for r in [Record::initial(), paired(), Record { mode: Mode::Solo, standby_volume: None, ..paired() }]
        {
            assert_eq!(read(&r), Ok(r));
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        assert!(read(&Record { standby_volume: None, ..paired() }).is_err());
        assert!(read(&Record { mode: Mode::Solo, ..paired() }).is_err());
        assert!(read(&Record { primary_volume: None, ..paired() }).is_err());
        assert!(read(&Record { term: Term(0), ..paired() }).is_err());
        assert!(Record::from_lease(None, Some(1), &paired().annotations()).is_err());
    }
}
