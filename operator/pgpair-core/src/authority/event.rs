//! What comes into the state machine, and what it wants sent and stored.

use serde::{Deserialize, Serialize};

use crate::authority::facts::PgFacts;
use crate::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use crate::authority::notes::Note;
use crate::authority::settings::{Durable, Settings};
use crate::authority::timing::Ms;
use crate::authority::view::{CasId, CasOutcome, ReadOutcome};
use crate::ids::Term;
use crate::order::{OrderKind, OrderReply};
use crate::record::{Record, RecordUid, Version};

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
