//! What is decided about the order of a person, and what is told of it.

use pgpair_api::order::{OrderReason, UserOrderKind};
use pgpair_api::status::OrderState;
use pgpair_api::word::Word;
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
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
    /// Make a password anew; what becomes of it is seen later.
    Rotate(Rotation),
}

/// A password that is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Of which role.
    pub role: String,
    /// What it is made for: the id of an order, or an age. It is noted in the Secret: for one word, one password.
    pub word: String,
}

/// What is to be told of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderProgress {
    /// Its id.
    pub id: String,
    /// What was ordered; empty if that could not be read.
    pub kind: Word<UserOrderKind>,
    /// Who carries it out.
    pub instance: Option<InstanceId>,
    /// How it stands.
    pub state: OrderState,
    /// Why.
    pub reason: OrderReason,
    /// For people.
    pub message: String,
    /// What a promotion may lose.
    pub estimated_loss: Option<Lag>,
}
