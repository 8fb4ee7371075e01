//! Events, facts, commands and wishes of the state machine.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authority::gate::Refusal;
use crate::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, EvidenceKind, Heartbeat, ResignReply, Resignation,
};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::{CasId, CasOutcome, ReadOutcome};
use crate::ids::{SystemIdentifier, Term, VolumeId};
use crate::instance::PostgresState;
use crate::lsn::Lsn;
use crate::order::{OrderKind, OrderReply};
use crate::record::{Record, RecordUid, Version};
use crate::timeline::TimelineId;

/// Identity of the node (a hash of its name): on another node than the one it last held, a lock proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

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
}

/// What kind of data directory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Directory {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// None, or an empty one.
    Empty,
    /// One with a standby signal: made writable only by promotion.
    Standby,
    /// One that starts as a primary.
    Primary,
    /// One that cannot be used as it is.
    Unusable,
}

/// State of synchronous replication as proven on the running primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SyncState {
    /// Not known: treat as the worse of the two.
    #[default]
    Unknown,
    /// No commit waits.
    Off,
    /// Every commit waits for the standby; commits before `from` may not have.
    On {
        /// Insert position read after the checkpointer had applied the setting.
        from: Lsn,
        /// The wish that it was proven for: a proof for an earlier one is worth nothing.
        epoch: u32,
    },
}

/// All that the protocol needs to know of the local postgres. Positions that are not known are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PgFacts {
    /// `Down` only when no process holds the volume's lock.
    pub state: PostgresState,
    /// What lies in the data directory.
    pub directory: Directory,
    /// Its id.
    pub volume: Option<VolumeId>,
    /// Its system identifier.
    pub system_identifier: Option<SystemIdentifier>,
    /// Timeline that is written or received.
    pub timeline: Option<TimelineId>,
    /// Flushed (primary), or received and flushed (standby). For comparisons: [`PgFacts::position`].
    pub flush: Option<Lsn>,
    /// Received by the standby, as the same look at the primary shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_write: Option<Lsn>,
    /// Replayed (standby).
    pub replay: Option<Lsn>,
    /// Whether a walreceiver streams (standby).
    pub streaming: bool,
    /// Timeline and end of the valid log of a stopped directory.
    pub end: Option<(TimelineId, Lsn)>,
    /// Synchronous replication (primary).
    pub sync: SyncState,
    /// Failed starts in a row.
    pub failed_starts: u32,
    /// A running primary has neither answered nor written for longer than it may.
    pub hung: bool,
}

impl PgFacts {
    /// The end of the WAL that this postgres has: see [`position`].
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        position(self.flush, self.replay)
    }
}

/// The end of the WAL that a postgres has, from what it says that it has flushed (or received and flushed) and replayed.
///
/// A standby has the greater of the two. `pg_last_wal_receive_lsn()` begins with the start of a segment when the walreceiver
/// starts, and does not move before the primary writes again, although replay may have come further from `pg_wal` or the archive
/// (PostgreSQL, "Recovery Information Functions"; `RequestXLogStreaming` in `walreceiverfuncs.c`). Both positions lie on the
/// timeline that is received, or on one of its ancestors before the standby left it.
#[must_use]
pub fn position(flush: Option<Lsn>, replay: Option<Lsn>) -> Option<Lsn> {
    flush.max(replay)
}

impl Default for PgFacts {
    fn default() -> Self {
        PgFacts {
            state: PostgresState::Down,
            directory: Directory::Unknown,
            volume: None,
            system_identifier: None,
            timeline: None,
            flush: None,
            standby_write: None,
            replay: None,
            streaming: false,
            end: None,
            sync: SyncState::Unknown,
            failed_starts: 0,
            hung: false,
        }
    }
}

/// Where a reply belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplyId(pub u64);

/// One fact for the state machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Postgres as it is now.
    Postgres(PgFacts),
    /// This is on disk now.
    Persisted(Durable),
    /// The answer to a read of the record that was asked at `asked`.
    Read {
        /// When it was asked.
        asked: Ms,
        /// What came.
        outcome: ReadOutcome,
    },
    /// The answer to a compare-and-set.
    Cas {
        /// Which one.
        id: CasId,
        /// What came.
        outcome: CasOutcome,
    },
    /// The peer's heartbeat, to be answered.
    Heartbeat(ReplyId, Heartbeat),
    /// The peer's answer to ours.
    Answer(Answer),
    /// "Can you take it?", to be answered.
    CanTake(ReplyId, CanTake),
    /// The peer's answer to that; `None` when none came in time.
    CanTakeReply(Option<CanTakeReply>),
    /// The peer's resignation, to be answered.
    Resignation(ReplyId, Resignation),
    /// The peer's answer to ours; `None` when none came in time.
    ResignReply(Option<ResignReply>),
    /// One incarnation is proven dead.
    Evidence(Evidence),
    /// This instance is going to stop for good (SIGTERM).
    Leave,
    /// A person, or the operator for one, orders something; the term is the one that the sender knew.
    Order(ReplyId, Term, OrderKind),
    /// A person, or the operator for one, has changed the settings.
    Configure(Settings),
}

/// Something to send or to store. None of them is to be waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Store it durably, then [`Event::Persisted`].
    Persist(Durable),
    /// Read the record (GET without `resourceVersion`), then [`Event::Read`].
    Read {
        /// To be returned with the answer.
        asked: Ms,
    },
    /// Write the record if it still has this uid and version, then [`Event::Cas`].
    Cas {
        /// To be returned with the outcome.
        id: CasId,
        /// Precondition.
        uid: RecordUid,
        /// Precondition.
        expected: Version,
        /// New content.
        record: Record,
    },
    /// Send to the peer; its answer is [`Event::Answer`].
    Heartbeat(Heartbeat),
    /// Ask the peer; its answer is [`Event::CanTakeReply`].
    AskCanTake(CanTake),
    /// Tell the peer; its answer is [`Event::ResignReply`].
    Resign(Resignation),
    /// Answer the peer.
    AnswerHeartbeat(ReplyId, Answer),
    /// Answer the peer.
    AnswerCanTake(ReplyId, CanTakeReply),
    /// Answer the peer.
    AnswerResignation(ReplyId, ResignReply),
    /// Answer the sender of an order.
    AnswerOrder(ReplyId, OrderReply),
    /// What became of the order that was accepted last.
    OrderEnded(OrderReply),
    /// For the journal: a decision, with its reason.
    Note(Note),
}

/// Decisions worth telling people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Note {
    /// The primary goes on alone: it lost its standby's answers.
    GoingSolo(SoloReason),
    /// The standby is caught up; from now on it may take over.
    Pairing,
    /// The primary gave its term up.
    Resigned(Term),
    /// The primary resigned and took the next term itself, for the standby did not.
    TakingBack(Term),
    /// The standby tries to take the next term.
    TakingOver {
        /// The term it takes.
        term: Term,
        /// Why it may.
        cause: FailoverCause,
        /// For the cause `Evidence`: the proof that came first.
        evidence: Option<EvidenceKind>,
        /// What spoke for it.
        signals: [Option<FailoverSignal>; 4],
        /// When the last promise was given, if one was.
        last_heartbeat: Option<Ms>,
    },
    /// The record names this instance as primary of a new term.
    Won(Term),
}

/// Why a primary leaves `Paired`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SoloReason {
    /// No promise for half of `ttl`.
    StandbySilent,
    /// The standby does not stream.
    StandbyNotStreaming,
    /// The standby lags more than `max_lag`; in the sync modes, for longer than it takes to notice a stall.
    StandbyLags,
    /// The standby lacks something and has not got any further: its walreceiver or its disk hangs.
    StandbyStalls,
    /// The standby is going to stop.
    StandbyLeaves,
    /// The standby's data directory is not the one in the record.
    StandbyReplaced,
    /// The record's durability is not the one that is set.
    DurabilityChanged,
}

/// What postgres should be made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Want {
    /// Not running. If it is writable: SIGKILL, everything, at once.
    Down,
    /// Stopped politely (fast shutdown), all WAL sent to the standby; then it is `Down`.
    Stopped,
    /// Run `initdb`: this is a new pair.
    Initialise,
    /// Running as primary.
    Primary,
    /// Running; if it is a standby's directory, promoted through the trigger file.
    Promoted,
    /// Running as a standby of the primary of this term, rewound or rebuilt first if it has to be.
    Following(Term),
    /// As it is: a take-over is under way.
    Unchanged,
}

/// What is wished of postgres at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Desired {
    /// State of the postmaster.
    pub postgres: Want,
    /// Whether commits are to wait for the standby.
    pub synchronous: bool,
    /// Number of the wish that commits wait, to be repeated with its proof: the wish may have been off in between.
    pub sync_epoch: u32,
    /// Whether clients may be let in: after a restart in a sync mode only when the standby has confirmed the recovered
    /// end of the log, or the record is settled `Solo`.
    pub admit_clients: bool,
    /// When a writable postgres has to be killed if nothing new comes: for the deadman. `None`: no deadline.
    pub fence_at: Option<Ms>,
    /// Why it is `Down`.
    pub refusal: Option<Refusal>,
}

/// What allowed the standby to take over.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
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
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
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
