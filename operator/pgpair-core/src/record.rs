//! The record R: who is primary, in which term, and whether the standby may take over.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};

/// Whether the standby may take over.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
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
        self.into()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much an acknowledged commit is worth; the weaker first.
#[derive(
    Debug,
    Default,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    EnumString,
    VariantNames,
)]
pub enum Durability {
    /// On the primary; the standby follows within `max_lag`.
    Async,
    /// On both instances while `Paired`; on the primary alone after the record says `Solo`.
    #[default]
    Sync,
    /// Always on both; no standby, no commits.
    SyncStrict,
}

impl Durability {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a term began.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum Beginning {
    /// With the pair.
    Born,
    /// The promises to the primary before had lapsed.
    Lapse,
    /// The primary before had handed over.
    Resigned,
    /// The agent before was proven dead.
    Evidence,
    /// A person has accepted a loss.
    Forced,
    /// The primary before had resigned, and took the next term itself.
    TakenBack,
    /// By an adoption.
    Adopted,
}

/// How a term began, and what the record had said until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Began {
    /// By what.
    pub how: Beginning,
    /// The mode in which the term before ended.
    pub before: Mode,
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
    /// Grows by one with each change of primary. Term 0 is a pair that has no data yet.
    pub term: Term,
    /// The agent process that may write; in term 0 its incarnation is zero.
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
    /// Which record it is.
    pub uid: RecordUid,
    /// Grows with each change.
    pub version: Version,
    /// What it says.
    pub record: Record,
}

/// Identity of a record: another uid is another, foreign record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordUid(pub u128);

/// Version of a record; it grows with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

/// What in a record does not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record contradicts itself: {0}")]
pub struct Contradiction(pub &'static str);

impl Record {
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

    /// Whether its parts go together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), Contradiction> {
        let born = self.term > Term(0);
        if born != self.primary_volume.is_some() || born != self.system_identifier.is_some() {
            return Err(Contradiction("a term above 0 goes with a primary volume and a system identifier"));
        }
        if (self.mode == Mode::Paired) != self.standby_volume.is_some() {
            return Err(Contradiction("Paired goes with a standby volume"));
        }
        Ok(())
    }
}
