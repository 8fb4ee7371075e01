//! What a person, or the operator on behalf of one, can ask of an instance, and what it answers.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::ids::Incarnation;

/// What can be ordered, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
pub enum OrderKind {
    /// To the primary: hand over to the standby after a clean stop. Refused unless the pair is `Paired`.
    Switchover,
    /// To the standby: take over, although the record does not open the way, from a primary that a person knows to be dead.
    Promote {
        /// The incarnation that is dead: the one that the record names.
        dead: Incarnation,
    },
    /// To the standby: take over as soon as the rules allow it, although it is not set to do so by itself. The trigger file
    /// of a person means this, after a primary that lives has been asked for a switchover.
    TakeOver,
    /// To either: stop postgres politely and start it again. A standby waits until the primary goes on alone.
    Restart,
    /// To either: stop postgres and keep it down, also after a restart of the agent. A primary hands over first, if it can.
    Fence,
    /// To either: the end of [`OrderKind::Fence`].
    Unfence,
    /// To the standby: have its data directory copied anew by the operator.
    Rebuild,
}

impl OrderKind {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OrderReply {
    /// It is being carried out: see the report.
    Accepted,
    /// It is done.
    Done,
    /// It is not carried out.
    Refused(OrderRefusal),
}

/// Why an order is not carried out.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum OrderRefusal {
    /// A later term has begun since the order was given.
    TermIsOver,
    /// The record could not be read.
    RecordUnknown,
    /// The order is for a primary.
    NotPrimary,
    /// The order is for a standby.
    NotStandby,
    /// The record is `Solo`: the standby may not take over.
    NotPaired,
    /// Another order, a take-over or a resignation is under way.
    Busy,
    /// The primary that is said to be dead has been heard within `ttl`.
    PrimaryIsAlive,
    /// The record names another incarnation than the one that is said to be dead.
    OtherIncarnation,
    /// The standby said that it cannot take over.
    StandbyCannot,
    /// The standby has much of the log still to replay: nobody would serve meanwhile.
    ReplayBehind,
    /// It took too long and was given up; the instance goes on as before.
    TimedOut,
    /// The instance has no usable data directory.
    NoData,
}

impl OrderRefusal {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What it means and what to do, for people.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            OrderRefusal::TermIsOver => {
                "a later term has begun since the order was given; look at the pair and order again"
            }
            OrderRefusal::RecordUnknown => {
                "the record cannot be read; order again when the API server answers"
            }
            OrderRefusal::NotPrimary => "the instance is not the primary",
            OrderRefusal::NotStandby => "the instance is not a running standby",
            OrderRefusal::NotPaired => {
                "the standby may not take over now (mode Solo); wait for FailoverReady"
            }
            OrderRefusal::Busy => "another order or a change of primary is under way",
            OrderRefusal::PrimaryIsAlive => "the primary was heard a moment ago; use a switchover",
            OrderRefusal::OtherIncarnation => {
                "the record names another incarnation; look at the pair and order again"
            }
            OrderRefusal::StandbyCannot => "the standby says that it cannot take over; its log tells why",
            OrderRefusal::ReplayBehind => {
                "the standby has more than 64 MiB of the log still to replay, and did not catch up in 30 s: after \
                 a switchover nobody would serve until it has; see status.lag.replay, end the queries that hold it up, order again"
            }
            OrderRefusal::TimedOut => {
                "it took too long (mostly the checkpoint before the stop) and was given up, because nobody would have served meanwhile; \
                 everything is as before: order again when the data volume has less to write"
            }
            OrderRefusal::NoData => "the instance has no usable data directory",
        }
    }
}
