//! What the operator tells about a pair. What is not known is absent; it is never zero.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a pair as last written by the operator.
///
/// Numbers that move all the time (positions, lag, the archive) are written when they move far, and at most every
/// 10 s; an idle pair causes no writes. The metrics have them at full resolution.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PgReplicaPairStatus {
    /// `metadata.generation` of the spec that this status follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, FailoverReady, ArchiveHealthy, Seeding, Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Instance that the record names, such as `orders-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Number of the reign of that primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// `Paired`: the standby may take over. `Solo`: it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PairMode>,
    /// Timeline of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// System identifier of the pair. Once set, the operator never creates the record again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceStatus>,
    /// Lag of the standby, as the primary sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// The archive of each instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archive: Vec<ArchiveStatus>,
    /// A base backup under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding: Option<SeedingStatus>,
    /// The last change of primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<FailoverStatus>,
}

/// Mode of the record.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairMode {
    /// The standby may take over, and nothing acknowledged is lost then in the `Sync` modes.
    Paired,
    /// The primary goes on alone; nobody takes over by itself.
    Solo,
}

/// One instance.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Such as `orders-a`.
    pub name: String,
    /// `Primary`, `Standby` or `Unknown`, by the instance's own report.
    pub role: String,
    /// Whether its pod is ready.
    pub ready: bool,
    /// Node on which its pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// State of its postgres, or why it is not known: `Down`, `Starting`, `Standby`, `Promoting`, `Primary`, `Seeding`,
    /// `Stale`, `Unreachable`, `NeverSeen`.
    pub state: String,
    /// Timeline that it writes or replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// Written to disk: end of the log of a primary, end of what a standby received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_lsn: Option<String>,
    /// Replayed by a standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<String>,
    /// Received and flushed by a standby (its `flushLsn`, under the name that a DBA looks for).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<String>,
    /// Why its agent does not do what it would like to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// Lag of the standby: received but not yet replayed, not yet received, and the sum.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// The total for the eye, such as `0 B` or `48 MiB, 3 s`.
    pub summary: String,
    /// Not yet received by the standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<LagValue>,
    /// Received, not yet replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<LagValue>,
    /// Not yet replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<LagValue>,
}

/// A distance in the log.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LagValue {
    /// Bytes of WAL.
    pub bytes: i64,
    /// Age of the oldest of these bytes; 0 when there are none.
    pub seconds: f64,
}

/// One instance's archive.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// Such as `orders-a`.
    pub instance: String,
    /// Newest complete segment on its archive volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_segment: Option<String>,
    /// When that segment was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_archived_time: Option<Time>,
    /// Age of that segment at `measuredTime`. An age grows by itself, so it is never the reason for a write: the age of
    /// now is `now - lastArchivedTime`, which the printer column, the plug-in and the metrics show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<i64>,
    /// When `ageSeconds` was taken: the time of the last write of this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_time: Option<Time>,
    /// Segments that wait for the archiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_segments: Option<i64>,
    /// Failures of the archiver since its last success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// Message of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// A base backup under way.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SeedingStatus {
    /// Instance that is being seeded.
    pub instance: String,
    /// The Job that does it.
    pub job: String,
    /// Bytes copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<i64>,
    /// Bytes to copy, as estimated by the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
}

/// The last change of primary, as told by the instance that took over. Times are of that instance's clock.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStatus {
    /// The term that began.
    pub term: i64,
    /// `PromiseLapsed`, `Resigned` or `Evidence`.
    pub cause: String,
    /// Instance that was primary.
    pub from: String,
    /// Instance that became primary.
    pub to: String,
    /// Time of the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// Each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<FailoverStepStatus>,
    /// First to last step, in seconds: about what clients saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_estimate_seconds: Option<f64>,
}

/// One step of a change of primary.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStepStatus {
    /// `LastHeartbeat`, `Noticed`, `CasSent`, `CasWon`, `TriggerFile`, `Promoted`, `Endpoint`.
    pub step: String,
    /// When.
    pub at: MicroTime,
    /// Milliseconds since the first step.
    pub offset_ms: i64,
}

/// Types of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// A primary takes writes and the Service leads to it.
    Ready,
    /// The standby may take over now.
    FailoverReady,
    /// Segments reach the archive.
    ArchiveHealthy,
    /// A base backup is under way.
    Seeding,
    /// Something needs a person, or cannot be done.
    Degraded,
}

impl ConditionType {
    /// Value of `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionType::Ready => "Ready",
            ConditionType::FailoverReady => "FailoverReady",
            ConditionType::ArchiveHealthy => "ArchiveHealthy",
            ConditionType::Seeding => "Seeding",
            ConditionType::Degraded => "Degraded",
        }
    }
}

/// Why a condition has its status. One enumeration for all conditions, so that a reason has one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The primary's postgres takes writes.
    PrimaryAcceptsWrites,
    /// The primary is named, and its report does not say that it takes writes.
    PrimaryNotReady,
    /// The first data directory is being made.
    Bootstrapping,
    /// The record is `Paired`.
    Paired,
    /// The record is `Solo`.
    Solo,
    /// The archiver's last attempt succeeded.
    Archiving,
    /// The archiver's last attempts failed.
    ArchiveFailing,
    /// Too many segments wait for the archiver.
    ArchiveBacklog,
    /// No report tells.
    Unknown,
    /// A Job copies the primary.
    SeedRunning,
    /// The last Job failed; another follows.
    SeedFailed,
    /// Nothing to copy.
    NotSeeding,
    /// The spec cannot be carried out.
    InvalidSpec,
    /// The record's Lease is gone although the pair has data.
    RecordMissing,
    /// The record's Lease cannot be read as a record.
    RecordUnreadable,
    /// An instance asks for a base backup and cannot get it yet.
    RebuildBlocked,
    /// An instance does not report.
    InstanceUnreachable,
    /// The operator could not write one of the pair's objects.
    ApplyFailed,
    /// Nothing is wrong.
    AsExpected,
}

impl Reason {
    /// Value of `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::PrimaryAcceptsWrites => "PrimaryAcceptsWrites",
            Reason::PrimaryNotReady => "PrimaryNotReady",
            Reason::Bootstrapping => "Bootstrapping",
            Reason::Paired => "Paired",
            Reason::Solo => "Solo",
            Reason::Archiving => "Archiving",
            Reason::ArchiveFailing => "ArchiveFailing",
            Reason::ArchiveBacklog => "ArchiveBacklog",
            Reason::Unknown => "Unknown",
            Reason::SeedRunning => "SeedRunning",
            Reason::SeedFailed => "SeedFailed",
            Reason::NotSeeding => "NotSeeding",
            Reason::InvalidSpec => "InvalidSpec",
            Reason::RecordMissing => "RecordMissing",
            Reason::RecordUnreadable => "RecordUnreadable",
            Reason::RebuildBlocked => "RebuildBlocked",
            Reason::InstanceUnreachable => "InstanceUnreachable",
            Reason::ApplyFailed => "ApplyFailed",
            Reason::AsExpected => "AsExpected",
        }
    }
}
