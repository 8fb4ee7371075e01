//! Orders: what a person (or the operator for one) asks of an instance. `POST` [`crate::paths::ORDER`].
//!
//! An order names the term that its sender knew. An agent refuses one of an earlier term: it was meant for another
//! situation. What comes of an order is told in the reply and, while it is carried out, in the instance's report.

use pgpair_core::ids::Term;
use pgpair_core::order::{OrderKind, OrderReply};
use serde::{Deserialize, Serialize};

/// One order to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Chosen by the sender; the same order sent again has the same id and is not carried out twice.
    pub id: String,
    /// The term that the sender knew.
    pub term: Term,
    /// What is to be done.
    pub kind: OrderKind,
}

/// How far the last order of an instance has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderReport {
    /// The order.
    pub id: String,
    /// What was ordered.
    pub kind: OrderKind,
    /// How far it has come.
    pub reply: OrderReply,
}
