//! What an agent tells about its instance: the wire type between agent and operator (`GET /v1/report`).
//! What is not known is `None`; it is never zero.

use serde::{Deserialize, Serialize};

use crate::authority::messages::EvidenceKind;
use crate::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};
use crate::lsn::Lsn;
use crate::order::OrderReport;
use crate::record::Mode;
use crate::timeline::TimelineId;

/// Everything that an agent knows about its own instance at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReport {
    /// Which instance.
    pub instance: InstanceId,
    /// The agent process that reports.
    pub incarnation: Incarnation,
    /// Id of the data directory; `None` when there is none.
    pub volume: Option<VolumeId>,
    /// From the data directory.
    pub system_identifier: Option<SystemIdentifier>,
    /// What the authority protocol says.
    pub authority: AuthorityReport,
    /// What postgres says.
    pub postgres: PostgresReport,
    /// Lag of the peer as this primary sees it; `None` unless primary.
    pub standby: Option<StandbyLag>,
    /// The archive volume.
    pub archive: ArchiveReport,
    /// What this instance cannot do for itself.
    pub need: Option<Need>,
    /// The last change of primary that this agent carried out.
    pub last_failover: Option<FailoverReport>,
    /// The last order to this agent.
    #[serde(default)]
    pub order: Option<OrderReport>,
    /// `generation` of the configuration that this agent follows; 0: none yet.
    #[serde(default)]
    pub config_generation: i64,
    /// Parameters whose new value needs a restart of postgres.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// What became of this instance's log when it last joined a new primary.
    #[serde(default)]
    pub rejoin: Option<RejoinReport>,
    /// Space on the volumes.
    #[serde(default)]
    pub space: SpaceReport,
    /// What the agent tries again and again without success, for people.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// What became of an old primary's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejoinReport {
    /// Term of the primary that was joined.
    pub term: Term,
    /// How it was done.
    pub how: RejoinKind,
    /// Bytes of WAL beyond the new primary's past: written here, never part of the new history, kept in `lost/`.
    pub branch_bytes: u64,
    /// Where the branch begins and ends; `None` when there is none.
    pub branch: Option<(Lsn, Lsn)>,
}

/// How an instance joined a new primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejoinKind {
    /// All of its log was the primary's past.
    Followed,
    /// Its log went beyond: kept, then rewound.
    Rewound,
}

/// Space on the volumes of an instance. What is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpaceReport {
    /// Size of the data volume's file system in bytes.
    pub data_bytes: Option<u64>,
    /// Free on it.
    pub data_free: Option<u64>,
    /// Size of the archive volume's file system in bytes.
    pub archive_bytes: Option<u64>,
    /// Free on it.
    pub archive_free: Option<u64>,
    /// Seconds until the first of the two is full at the pace of the last minutes; `None`: not filling, or not known.
    pub full_in_seconds: Option<u64>,
}

/// The agent's view of the authority protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityReport {
    /// Highest term known.
    pub term: Term,
    /// Mode of the record when last seen.
    pub mode: Option<Mode>,
    /// Role of this instance in that term.
    pub role: Role,
    /// Whether postgres may be writable here, now.
    pub gate_open: bool,
    /// Why this agent is not doing what it would like to do; a stable word.
    pub refusal: Option<String>,
}

/// Role of an instance in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Named by the record.
    Primary,
    /// The other one.
    Standby,
    /// The record has not been seen yet.
    Unknown,
}

/// State of the postmaster of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PostgresState {
    /// No process holds the volume's lock.
    Down,
    /// Started, not yet accepting connections.
    Starting,
    /// In recovery, accepting connections.
    Standby,
    /// In recovery, told to leave it.
    Promoting,
    /// Out of recovery: a write was flushed.
    Primary,
}

/// Positions and state of one postgres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresReport {
    /// State of the postmaster.
    pub state: PostgresState,
    /// `server_version_num`, such as 170002.
    pub version_num: Option<u32>,
    /// Timeline that is written (primary) or replayed (standby).
    pub timeline: Option<TimelineId>,
    /// Flushed on a primary; received and flushed on a standby.
    pub flush_lsn: Option<Lsn>,
    /// Replayed; `None` on a primary.
    pub replay_lsn: Option<Lsn>,
    /// Whether a walreceiver streams; `None` on a primary.
    pub streaming: Option<bool>,
}

/// Lag of the standby, measured on the primary, so that it is right when nothing is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandbyLag {
    /// Whether the standby streams from this primary at this moment.
    pub streaming: bool,
    /// Whether `synchronous_standby_names` holds the standby and the standby confirmed it.
    pub synchronous: bool,
    /// Not yet received and flushed by the standby.
    pub receive: Option<Lag>,
    /// Received, not yet replayed.
    pub replay: Option<Lag>,
    /// Not yet replayed: the sum of the two.
    pub total: Option<Lag>,
}

/// A distance in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Bytes of WAL.
    pub bytes: u64,
    /// Age of the oldest byte of it in milliseconds; 0 when there is none.
    pub millis: u64,
}

/// One instance's archive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReport {
    /// Newest complete segment on this instance's archive volume.
    pub last_segment: Option<String>,
    /// Unix time in milliseconds at which it was published.
    pub last_archived_at_ms: Option<i64>,
    /// Segments that wait for the archiver (`archive_status/*.ready`).
    pub backlog_segments: Option<u64>,
    /// Failures of the archiver since the last success.
    pub failures: Option<u64>,
    /// Message of the last failure.
    pub last_failure: Option<String>,
}

/// What an instance needs from the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// The data volume holds no data directory.
    Seed,
    /// The data directory cannot follow the primary and cannot be rewound.
    Rebuild {
        /// Why, for people.
        reason: String,
    },
}

/// One change of primary, as told by the agent that took over. Times are Unix milliseconds of that agent's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailoverReport {
    /// The term that began.
    pub term: Term,
    /// What opened it.
    pub cause: FailoverCause,
    /// For the cause `Evidence`: which proof. Older agents do not tell.
    #[serde(default)]
    pub evidence: Option<EvidenceKind>,
    /// What spoke for it besides, at the moment of the decision. Older agents do not tell.
    #[serde(default)]
    pub signals: Vec<FailoverSignal>,
    /// Each step with its time, in order.
    pub steps: Vec<(FailoverStep, i64)>,
}

/// What allowed the standby to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailoverCause {
    /// Every promise to the old primary lapsed.
    PromiseLapsed,
    /// The old primary resigned: its postgres is proven dead and its last position known.
    Resigned,
    /// The old primary's agent process was proven dead.
    Evidence,
    /// A person ordered the old primary to hand over.
    Switchover,
    /// A person said that the old primary is dead, and ordered the promotion.
    Forced,
}

/// What a standby knows of its primary when it takes over. The cause decides; these show whether all pointed the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailoverSignal {
    /// No heartbeat for two intervals or longer.
    Silent,
    /// The replication stream has ended.
    StreamEnded,
    /// It said that it gives its term up, and that its postgres is dead.
    Resigned,
    /// Its agent was proven dead.
    ProvenDead,
}

/// Steps of a take-over, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailoverStep {
    /// The last answer to the old primary was given.
    LastHeartbeat,
    /// Its resignation, the evidence of its death or the lapse of the last promise was noticed.
    Noticed,
    /// The compare-and-set left.
    CasSent,
    /// The record names this instance.
    CasWon,
    /// The walreceiver is gone and the trigger file exists.
    TriggerFile,
    /// Out of recovery, and a write was flushed.
    Promoted,
    /// The read-write endpoint names this instance.
    Endpoint,
}

/// Path prefix and ports on which the agents and the operator meet.
pub mod wire {
    /// mTLS: agents and operator.
    pub const PEER_PORT: u16 = 8443;
    /// Plain HTTP: probes and metrics, nothing secret.
    pub const PROBE_PORT: u16 = 8080;
    /// Header of an agent's requests to its peer: the address of its pod.
    pub const HERE: &str = "x-pgpair-here";
    /// `GET`: [`super::InstanceReport`] as JSON.
    pub const REPORT: &str = "/v1/report";
    /// `POST` heartbeat -> answer.
    pub const HEARTBEAT: &str = "/v1/heartbeat";
    /// `POST` "can you take it?".
    pub const CAN_TAKE: &str = "/v1/can-take";
    /// `POST` resignation.
    pub const RESIGN: &str = "/v1/resign";
    /// `POST` evidence of death.
    pub const EVIDENCE: &str = "/v1/evidence";
    /// `GET`: names and sizes of the archive's files. `GET /v1/wal/FILE`: one of them, or, after a resignation, of `pg_wal`.
    pub const WAL: &str = "/v1/wal";
    /// `POST` [`crate::order::Order`] -> [`crate::order::OrderReply`].
    pub const ORDER: &str = "/v1/order";
    /// `PUT` [`crate::config::PairConfig`].
    pub const CONFIG: &str = "/v1/config";
    /// `GET`: state that a rejoining instance compares itself with.
    pub const TIMELINE: &str = "/v1/timeline";
    /// `GET`: what of the log an instance needs to start again; older log may be removed from the peer's archive.
    pub const NEEDS: &str = "/v1/needs";
}
