//! How the volumes of an earlier pair are taken up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::word::Word;

/// How the volumes of an earlier pair are taken up (`spec.bootstrap.adopt`), and what came of it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionStatus {
    /// `Waiting` (a pod still uses a volume), `Looking`, `Asking` (a person chooses), `Refused`, `Releasing` (the volumes are told that their former
    /// record is gone) or `Done`.
    pub phase: Word<AdoptionPhase>,
    /// The same as a sentence, with what to do.
    pub message: String,
    /// While it asks: the word for `spec.bootstrap.adopt.accept`. Other findings have another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// The instance that became primary, such as `orders-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// What was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["instance"]))]
    pub volumes: Vec<FoundVolumeStatus>,
    /// When it came to this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// How far an adoption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum AdoptionPhase {
    /// Until no pod uses the volumes.
    Waiting,
    /// Jobs look at the volumes.
    Looking,
    /// A person chooses.
    Asking,
    /// Nothing is done.
    Refused,
    /// The volumes are let go of by their former record.
    Releasing,
    /// The record is there.
    Done,
}

/// What was found on the data volume of one instance.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FoundVolumeStatus {
    /// Such as `orders-a`.
    pub instance: String,
    /// `Data`, `Nothing`, `Unreadable` or `InUse`.
    pub found: Word<FoundWord>,
    /// Why it cannot be read, or where its WAL ends cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Of its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The highest term that its agent had seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// Whether it was primary in that term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<bool>,
    /// Timeline of the end of its WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// End of its WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<String>,
    /// When WAL was written there last, by the clock of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_time: Option<Time>,
    /// Bytes of WAL that only the other instance has, and that a choice of this one loses (they are kept aside). Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loses_bytes: Option<i64>,
    /// For so many seconds the other one was written to after this one. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loses_seconds: Option<i64>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum FoundWord {
    /// A data directory.
    Data,
    /// None.
    Nothing,
    /// One that cannot be read.
    Unreadable,
    /// A process uses the volume.
    InUse,
}
