//! Decisions, each with its reason, for people and the journal.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authority::messages::EvidenceKind;
use crate::authority::timing::Ms;
use crate::ids::Term;

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
