//! What a person has set, and what an agent remembers on its disk.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authority::timing::Timing;
use crate::ids::{Term, VolumeId};
use crate::record::{Began, Durability, Mode, RecordUid};

/// Identity of the node (a hash of its name): on another node than the one it last held, a lock proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// What follows the death of a postmaster whose agent lives.
#[derive(
    Debug,
    Default,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    EnumString,
    VariantNames,
)]
pub enum OnPostgresCrash {
    /// The standby takes over, if it can.
    #[default]
    Failover,
    /// It is started again; the standby takes over only when that fails.
    Restart,
}

/// What a person or the operator has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Derived from `ttl`.
    pub timing: Timing,
    /// What an acknowledged commit is worth.
    pub durability: Durability,
    /// Bytes of WAL that a standby may lack and still be `Paired`.
    pub max_lag: u64,
    /// Whether the standby takes over by itself; otherwise only when a person orders it.
    pub automatic: bool,
    /// What follows the death of a postmaster whose agent lives.
    pub on_crash: OnPostgresCrash,
}

/// Remembered on the data volume, beside the data directory; survives the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Durable {
    /// The record that this volume belongs to; under its first name on the volumes.
    #[serde(rename = "lease_uid")]
    pub record_uid: Option<RecordUid>,
    /// Highest term seen.
    pub term: Term,
    /// Whether this instance was primary in that term.
    pub primary: bool,
    /// The data directory that was named with it.
    pub volume: Option<VolumeId>,
    /// Longest promise ever granted, in milliseconds: on disk before it is granted, it is the quarantine of a restart.
    pub longest_ttl_ms: u32,
    /// Where this instance last ran as the named primary.
    pub node: Option<NodeId>,
    /// A person wants postgres to stay down.
    #[serde(default)]
    pub fenced: bool,
    /// On the volume of the term's primary: `Solo` is there before commits stop waiting for the standby, `Paired` before the record says so,
    /// and never while the standby lacks something acknowledged; neither while it gives the term up. On a standby's: as the record was seen last. Absent: not known, as the next ones.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// What an acknowledged commit is worth, by the record; on a primary's before commits are worth less.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// The other data directory, while `Paired`.
    #[serde(default)]
    pub standby_volume: Option<VolumeId>,
    /// How the term began; known to the one that began it.
    #[serde(default)]
    pub began: Option<Began>,
}
