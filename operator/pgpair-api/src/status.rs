//! What the operator tells about a pair. What is not known is absent; it is never zero.

mod adoption;
mod instance;
mod reasons;
mod roles;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::authority::{FailoverCause, FailoverSignal};
use pgpair_core::instance::Role;
use pgpair_core::record::Mode;
use pgpair_wire::report::{FailoverStep, RejoinKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::order::{OrderReason, UserOrderKind};
use crate::word::Word;

pub use adoption::{AdoptionPhase, AdoptionStatus, FoundVolumeStatus, FoundWord};
pub use instance::{InstanceState, Unreported};
pub use reasons::{ConditionType, Reason};
pub use roles::{DefinitionStage, DefinitionStatus, PasswordStage, PasswordStatus};

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
    /// Ready, FailoverReady, ArchiveHealthy, StorageHealthy, RolesHealthy, Seeding, UpdatePending, Degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Instance that the record names, such as `orders-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Number of the reign of that primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// `Paired`: the standby may take over. `Solo`: it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Word<Mode>>,
    /// Timeline of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// System identifier of the pair. Once set, the operator never creates the record again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub instances: Vec<InstanceStatus>,
    /// Lag of the standby, as the primary sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// The archive of each instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["instance"]))]
    pub archive: Vec<ArchiveStatus>,
    /// The volumes of each instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["instance"]))]
    pub storage: Vec<StorageStatus>,
    /// What the loss of the primary at this moment would lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<RpoStatus>,
    /// How long the loss of the primary at this moment would keep clients waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<RtoStatus>,
    /// A base backup under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeding: Option<SeedingStatus>,
    /// The certificates of the pair.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["secret"]))]
    pub certificates: Vec<CertificateStatus>,
    /// The roles whose passwords are in Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["role"]))]
    pub passwords: Vec<PasswordStatus>,
    /// The roles of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub roles: Vec<DefinitionStatus>,
    /// The databases of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub databases: Vec<DefinitionStatus>,
    /// How the volumes of an earlier pair are taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<AdoptionStatus>,
    /// The last change of primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<FailoverStatus>,
    /// The last order of a person (annotation `pgpair.dev/order`), and what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderStatus>,
}

/// An order and what became of it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OrderStatus {
    /// `id` of the annotation.
    pub id: String,
    /// `Switchover`, `Promote`, `Restart`, `Fence`, `Unfence`, `Rebuild`, `RotatePassword` or `RevokeCertificate`.
    pub kind: Word<UserOrderKind>,
    /// Instance that it was given to, such as `orders-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How far it has come: `Running`, `Done`, `Refused` (nothing has changed) or `Failed` (begun and not finished).
    pub state: Word<OrderState>,
    /// Why it was refused or failed, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word<OrderReason>>,
    /// The same as a sentence, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it came to this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// For `Promote`: what it would lose, by what was last known before it was sent. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_loss: Option<LagValue>,
    /// Id of the last order that was sent to an agent; it and older ones are never sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent: Option<String>,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum OrderState {
    /// The agent works on it.
    Running,
    /// It is carried out.
    Done,
    /// It is not carried out; nothing has changed.
    Refused,
    /// It was begun and could not be finished.
    Failed,
}

/// One instance.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Such as `orders-a`.
    pub name: String,
    /// `Primary`, `Standby` or `Unknown`, by the instance's own report.
    pub role: Word<Role>,
    /// Whether its pod is ready.
    pub ready: bool,
    /// Node on which its pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// State of its postgres, or why it is not known: `Down`, `Starting`, `Standby`, `Promoting`, `Primary`, `Seeding`,
    /// `Stale`, `Unreachable`, `NeverSeen`.
    pub state: Word<InstanceState>,
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
    /// The agent process that reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// Node on which that process ran. Its out-of-service taint proves that this incarnation is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation_node: Option<String>,
    /// `metadata.generation` of the settings that its agent follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_generation: Option<i64>,
    /// Parameters whose new value needs a restart of its postgres.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_restart: Vec<String>,
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
    /// `PromiseLapsed`, `Resigned`, `Evidence`, `Switchover` or `Forced`.
    pub cause: Word<FailoverCause>,
    /// For the cause `Evidence`, the proof that the standby got first: `VolumeLock` (by the witness of the pod), `KubeletTerminated`
    /// or `OutOfServiceTaint` (by the operator), `Person`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Word<EvidenceKind>>,
    /// What else spoke for it when the standby decided: `Silent` (no heartbeat for two intervals), `StreamEnded` (no log
    /// came any more), `Resigned`, `ProvenDead`. The cause alone decides; these tell whether all pointed the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Word<FailoverSignal>>,
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
    /// What became of the old primary's log: `Followed` (all of it is part of the new history) or `Rewound`. Absent until
    /// it is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<Word<RejoinKind>>,
    /// Bytes of WAL that only the old primary had: 0 if it could follow. Absent until it is back. In the `Sync` modes
    /// none of it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_lost: Option<i64>,
    /// Where these bytes begin. They are kept in `lost/` on the old primary's archive volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_from: Option<String>,
    /// Where they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_to: Option<String>,
}

/// One step of a change of primary.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailoverStepStatus {
    /// `LastHeartbeat`, `Noticed`, `CasSent`, `CasWon`, `TriggerFile`, `Promoted`, `Endpoint`.
    pub step: Word<FailoverStep>,
    /// When.
    pub at: MicroTime,
    /// Milliseconds since the first step.
    pub offset_ms: i64,
}

/// The volumes of one instance. Free space is written when it moved by a twentieth of the volume.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Such as `orders-a`.
    pub instance: String,
    /// Size of the data volume's file system in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Free on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_free_bytes: Option<i64>,
    /// Size of the archive volume's file system in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<i64>,
    /// Free on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_free_bytes: Option<i64>,
    /// Seconds until the first of the two is full, at the pace of the last minutes. Absent: not filling, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_seconds: Option<i64>,
}

/// What the loss of the primary would lose: an estimate, and the last loss that was measured.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RpoStatus {
    /// What the numbers rest on: `Synchronous`, `Lag`, `NotProtected` (mode `Solo`) or `Unknown`.
    pub basis: Word<RpoBasis>,
    /// Bytes of WAL; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Age of the oldest of these bytes; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What the last failover lost, once its old primary was back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured_bytes: Option<i64>,
    /// Term that the last measured failover began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured_term: Option<i64>,
}

/// What an estimate of loss rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum RpoBasis {
    /// Every acknowledged commit is on both disks: nothing acknowledged is lost.
    Synchronous,
    /// What the standby has not received is lost.
    Lag,
    /// Nobody takes over by himself (mode `Solo`): nothing is lost while the primary's volume exists, and a forced
    /// promotion loses what the standby has not received, which is the number if it is known.
    NotProtected,
    /// The primary does not report.
    Unknown,
}

/// How long the loss of the primary would keep clients waiting: estimates by cause, and the last time that was measured.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RtoStatus {
    /// By cause; none while nobody takes over by himself (mode `Solo`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub estimates: Vec<RtoEstimate>,
    /// First to last step of the last failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured_seconds: Option<f64>,
    /// Its cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_measured_cause: Option<Word<FailoverCause>>,
}

/// What takes the primary away, for an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum OutageCause {
    /// The postmaster is killed, its agent lives.
    PostgresKilled,
    /// The pod is deleted.
    PodDeleted,
    /// The container of postgres and its agent is killed.
    ContainerKilled,
    /// The node is gone.
    NodeLost,
}

/// One estimate.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RtoEstimate {
    /// `PostgresKilled`, `PodDeleted`, `ContainerKilled` or `NodeLost`.
    pub cause: Word<OutageCause>,
    /// Seconds from the last acknowledged commit to the first one on the other side.
    pub seconds: f64,
}

/// A certificate of the pair.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// The Secret that holds it, as NAMESPACE/NAME if it is with the operator.
    pub secret: String,
    /// End of its life. The operator renews it before.
    pub not_after: Time,
}

#[cfg(test)]
mod tests;
