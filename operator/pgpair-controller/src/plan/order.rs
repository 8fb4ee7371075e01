//! What is decided about the order of a person, and what is told of it.

use pgpair_api::order::UserOrderKind;
use pgpair_api::status::OrderState;
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
use pgpair_core::order::OrderRefusal;
use pgpair_wire::order::Order;

/// What to do about the order of a person.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderPlan {
    /// Nothing new.
    None,
    /// Tell this.
    Tell(OrderProgress),
    /// Send it, and tell what the agent replies.
    Send {
        /// To whom.
        to: InstanceId,
        /// The order.
        order: Order,
    },
}

/// What is to be told of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderProgress {
    /// Its id.
    pub id: String,
    /// What was ordered; empty if that could not be read.
    pub kind: &'static str,
    /// Who carries it out.
    pub instance: Option<InstanceId>,
    /// How it stands.
    pub state: OrderState,
    /// Why.
    pub reason: Stage,
    /// For people.
    pub message: String,
    /// What a promotion may lose.
    pub estimated_loss: Option<Lag>,
}

impl OrderProgress {
    /// The known word for the kind of an order; empty for another one.
    #[must_use]
    pub fn kind_word(word: &str) -> &'static str {
        use UserOrderKind::{Fence, Promote, Rebuild, Restart, Switchover, Unfence};
        let kinds = [Switchover, Promote, Restart, Fence, Unfence, Rebuild];
        kinds.into_iter().map(UserOrderKind::as_str).find(|known| *known == word).unwrap_or_default()
    }
}

/// Why an order stands as it does: a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It will be sent next.
    Announced,
    /// The agent has it, and does something before it decides about it.
    Preparing,
    /// The agent works on it.
    Accepted,
    /// A base backup for it runs.
    Copying,
    /// The agent has carried it out.
    CarriedOut,
    /// The agent refused it.
    Refused(OrderRefusal),
    /// It is no order.
    Invalid(&'static str),
    /// It was sent before, or is older than one that was.
    Repeated,
    /// The annotation was changed or removed before it was sent.
    Withdrawn,
    /// The pair is paused.
    Paused,
    /// It needs a spec that can be carried out.
    InvalidSpec,
    /// The term of the order has not begun.
    TermUnknown,
    /// The agent that has to carry it out does not answer.
    AgentUnreachable,
    /// The agent was restarted and does not know of it any more.
    Forgotten,
    /// Its end was not seen in time.
    TimedOut,
}

impl Stage {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Announced => "Announced",
            Stage::Preparing => "Preparing",
            Stage::Accepted => "Accepted",
            Stage::Copying => "Copying",
            Stage::CarriedOut => "CarriedOut",
            Stage::Refused(why) => why.as_str(),
            Stage::Invalid(word) => word,
            Stage::Repeated => "Repeated",
            Stage::Withdrawn => "Withdrawn",
            Stage::Paused => "Paused",
            Stage::InvalidSpec => "InvalidSpec",
            Stage::TermUnknown => "TermUnknown",
            Stage::AgentUnreachable => "AgentUnreachable",
            Stage::Forgotten => "Forgotten",
            Stage::TimedOut => "TimedOut",
        }
    }
}
