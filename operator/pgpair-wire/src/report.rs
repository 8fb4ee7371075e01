//! What an agent reports about its instance: `GET` [`crate::paths::REPORT`].
//! What is not known is `None`; it is never zero.

use std::collections::BTreeMap;

use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::authority::{FailoverCause, FailoverSignal};
use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lag::Lag;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::Mode;
use pgpair_core::timeline::TimelineId;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::certificates::CertificatesReport;
use crate::order::OrderReport;

mod version;

pub use version::{NoVersion, ReportVersion};

/// Everything that an agent knows about its own instance at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReport {
    /// Which instance.
    pub instance: InstanceId,
    /// The agent process that reports.
    pub incarnation: Incarnation,
    /// The node on which it runs. Older agents do not report it.
    #[serde(default)]
    pub node: Option<String>,
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
    /// The last order that was refused because the one in `order` was under way.
    #[serde(default)]
    pub refused_order: Option<OrderReport>,
    /// Ids of the orders that the agent has received and not judged yet: a stop of the primary is preceded by a checkpoint, and
    /// some orders wait for a read of the record. Older agents do not report them.
    #[serde(default)]
    pub preparing: Vec<String>,
    /// `generation` of the configuration that this agent follows; 0: none yet.
    #[serde(default)]
    pub config_generation: i64,
    /// Parameters whose new value needs a restart of postgres.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// Parameters that this standby runs with a higher value than the configuration's: PostgreSQL demands of a standby at least what
    /// its primary has. Older agents do not report them.
    #[serde(default)]
    pub raised: Vec<String>,
    /// Logical replication slots: those of a primary, or those of which this standby has a copy that a promotion keeps. What only the
    /// primary has, a failover loses. Older agents do not report them.
    #[serde(default)]
    pub logical_slots: Vec<String>,
    /// What became of this instance's log when it last joined a new primary.
    #[serde(default)]
    pub rejoin: Option<RejoinReport>,
    /// Space on the volumes.
    #[serde(default)]
    pub space: SpaceReport,
    /// What the agent tries again and again without success, for people.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Why the agent cannot log in to its postgres, in the words of postgres: a promotion could not be confirmed. Older agents do not tell.
    #[serde(default)]
    pub login_refused: Option<String>,
    /// What became of the passwords that the operator gave this agent process, by role. Older agents do not tell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passwords: BTreeMap<String, PasswordReport>,
    /// Roles and databases of the configuration, as this primary has them. Older agents and standbys do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions: Option<DefinitionsReport>,
    /// The certificates of this instance. Older agents do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesReport>,
    /// Which of this agent process's reports it is. Older agents do not number them.
    #[serde(default)]
    pub version: Option<ReportVersion>,
}

impl InstanceReport {
    /// The report of an agent that has seen nothing yet.
    #[must_use]
    pub fn empty(instance: InstanceId, incarnation: Incarnation) -> InstanceReport {
        InstanceReport {
            instance,
            incarnation,
            node: None,
            volume: None,
            system_identifier: None,
            authority: AuthorityReport {
                term: Term(0),
                mode: None,
                role: Role::Standby,
                gate_open: false,
                refusal: None,
            },
            postgres: PostgresReport {
                state: PostgresState::Down,
                version_num: None,
                timeline: None,
                flush_lsn: None,
                replay_lsn: None,
                streaming: None,
            },
            standby: None,
            archive: ArchiveReport::default(),
            need: None,
            last_failover: None,
            order: None,
            refused_order: None,
            preparing: Vec::new(),
            config_generation: 0,
            pending_restart: Vec::new(),
            raised: Vec::new(),
            logical_slots: Vec::new(),
            rejoin: None,
            space: SpaceReport::default(),
            trouble: None,
            login_refused: None,
            passwords: BTreeMap::new(),
            definitions: None,
            certificates: None,
            version: None,
        }
    }
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
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
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
    /// Flushed on a primary; on a standby the greater of received and replayed.
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
    /// Why nothing is known of the volume at present, for people. Older agents do not say.
    #[serde(default)]
    pub unknown: Option<String>,
    /// The segment that waits for the archiver longest, once that is two minutes: the archiver hangs. Not told by older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// A timeline with two pasts, of those that there are the first. Not told by older agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_pasts: Option<TwoPasts>,
}

/// Two histories give one timeline number different pasts: two servers have used it, and WAL of that timeline may be of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwoPasts {
    /// The number.
    pub timeline: TimelineId,
    /// Where one history is.
    pub one: HistoryPlace,
    /// Where the other one is.
    pub other: HistoryPlace,
}

/// Where a history of a timeline was found, as the reporting instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryPlace {
    /// Postgres runs with it.
    InUse,
    /// `pg_wal`.
    PgWal,
    /// The archive of this instance.
    Archive,
    /// The archive of the peer.
    PeersArchive,
}

/// What became of the password of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordReport {
    /// Which verifier the operator gave: its mark.
    pub mark: String,
    /// What became of it.
    pub state: PasswordState,
    /// Why it is not in effect, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What became of a password that an agent was given.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum PasswordState {
    /// The role has it, and it lets the role in.
    InEffect,
    /// This standby has not got it from its primary yet.
    Awaited,
    /// PostgreSQL refused it, or did not let the role in with it: the role has the password that it had.
    Refused,
    /// It was in effect, and the database has another one since: somebody changed it there.
    Differs,
}

/// What became of the roles and databases of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionsReport {
    /// `generation` of the configuration that they were looked at for.
    pub generation: i64,
    /// Those that are not as it says; all others are.
    #[serde(default)]
    pub wrong: Vec<WrongDefinition>,
}

/// A role or a database that is not as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrongDefinition {
    /// What it is.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: String,
    /// What is the matter.
    pub how: DefinitionFault,
    /// In words, PostgreSQL's if it refused something.
    pub why: String,
}

/// A role or a database.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum DefinitionKind {
    /// A role.
    Role,
    /// A database.
    Database,
}

/// What is the matter with a role or a database.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum DefinitionFault {
    /// PostgreSQL refuses some of it; it is tried again.
    Refused,
    /// It was as the configuration says, and was changed in the database since: it stays as it is.
    Differs,
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

/// Steps of a take-over, in the order in which they happen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
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
