//! What agents say to each other. Every message may be lost, late or doubled; none is trusted beyond what it proves.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::authority::facts::position;
use crate::ids::{Incarnation, Term, VolumeId};
use crate::lsn::Lsn;
use crate::record::{Holder, Version};
use crate::timeline::TimelineId;

/// Primary to standby, every tenth of `ttl`: asks for a promise not to take over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Term in which the sender is primary.
    pub term: Term,
    /// The sender.
    pub from: Holder,
    /// Number of this heartbeat, growing within an incarnation.
    pub seq: u64,
    /// Length of the promise asked for, in milliseconds.
    pub ttl_ms: u32,
    /// Number of the last answer received: proves that the way back is open.
    pub echo: Option<u64>,
    /// Version of the record as the primary knows it: tells the standby when to read it again.
    pub version: Option<Version>,
}

/// The standby's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// The incarnation that is answered.
    pub to: Incarnation,
    /// The heartbeat's term.
    pub term: Term,
    /// The heartbeat's number.
    pub seq: u64,
    /// Number of this answer, for the next heartbeat's `echo`.
    pub number: u64,
    /// What is promised.
    pub verdict: Verdict,
    /// What the primary should know of its standby.
    pub standby: StandbyInfo,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The sender will not take over for `ttl` from the receipt of the heartbeat.
    Promised,
    /// Repeat this answer's number first: the way back is not proven yet.
    Challenge,
    /// No promise.
    Refused(NoPromise),
    /// The heartbeat's term is over.
    NewerTerm(Term),
}

/// Why a heartbeat got no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoPromise {
    /// The record must be read first.
    RecordUnknown,
    /// This instance is the primary of that term, or is about to be.
    NotStandby,
    /// A take-over is under way.
    TakeoverUnderWay,
    /// That incarnation has resigned this term or is proven dead.
    Void,
    /// The longest promise is being written to disk; ask again.
    Persisting,
}

/// State of the standby, sent with each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StandbyInfo {
    /// Its data directory; `None` when it has none.
    pub volume: Option<VolumeId>,
    /// The timeline that it receives.
    pub timeline: Option<TimelineId>,
    /// Received and flushed. For comparisons: [`StandbyInfo::position`].
    pub flush: Option<Lsn>,
    /// Replayed.
    pub replay: Option<Lsn>,
    /// Whether its walreceiver streams.
    pub streaming: bool,
    /// Whether it is going to stop: the primary must go `Solo` first.
    pub leaving: bool,
}

impl StandbyInfo {
    /// The end of the WAL that the standby has: see [`position`].
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        position(self.flush, self.replay)
    }
}

/// Primary to standby before it resigns: "can you take it?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CanTake {
    /// The term.
    pub term: Term,
    /// Who asks.
    pub from: Holder,
    /// A person ordered it: counts also where the standby does not take over by itself.
    pub ordered: bool,
    /// Its postgres is down already, so nobody streams from it: what the standby lacks is in its log.
    #[serde(default)]
    pub down: bool,
}

/// Answer to [`CanTake`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CanTakeReply {
    /// It can, by a record read after the question; and which process says so.
    Yes(Incarnation),
    /// It cannot.
    No(CannotTake),
}

/// Why a standby will not take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CannotTake {
    /// The record could not be read.
    RecordUnreadable,
    /// The record does not name the asker, or not this instance's volume.
    RecordSaysNo,
    /// Its postgres is not a running standby on the primary's timeline.
    NotStandby,
    /// It does not have the write-ahead log up to the end and could not fetch it in time.
    WalMissing,
    /// It is going to stop.
    Leaving,
    /// It takes over only when a person orders it.
    NotAutomatic,
}

/// The primary gives its term up: its postgres is dead by the lock, and where its log ends is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resignation {
    /// The term that is given up.
    pub term: Term,
    /// Who gives it up: never writes again in this term.
    pub from: Holder,
    /// The incarnation named by the record if it is an earlier one of the same instance and volume: dead, since the
    /// sender holds the volume's lock that it held.
    pub predecessor: Option<Incarnation>,
    /// Timeline of the end.
    pub timeline: TimelineId,
    /// End of the valid write-ahead log.
    pub end: Lsn,
    /// A person ordered it.
    pub ordered: bool,
    /// The process of the standby that said [`CanTakeReply::Yes`]: the sender lived after that process began, so that no promise
    /// of an earlier one is of use to anybody.
    pub to: Incarnation,
}

/// Answer to [`Resignation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResignReply {
    /// Taken note of; the take-over is under way.
    Accepted,
    /// It will not be taken over: take it back.
    Refused(CannotTake),
    /// A later term has begun.
    Taken(Term),
}

/// Proof that one incarnation is dead. Never silence, a missing Pod, or a NotReady node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evidence {
    /// The dead one.
    pub incarnation: Incarnation,
    /// How it is known.
    pub kind: EvidenceKind,
}

/// Kinds of evidence that count.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum EvidenceKind {
    /// The kubelet reports the container as terminated, with the incarnation in its termination message.
    KubeletTerminated,
    /// The Node carries the out-of-service taint.
    OutOfServiceTaint,
    /// A process of the same pod or a later incarnation got the volume's lock that the incarnation had held.
    VolumeLock,
    /// A person says so.
    Person,
}
