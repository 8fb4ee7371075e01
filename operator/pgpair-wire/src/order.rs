//! Orders: what a person (or the operator for one) asks of an instance. `POST` [`crate::paths::ORDER`].
//!
//! An order names the term that its sender knew. An agent refuses one of an earlier term: it was meant for another
//! situation. What comes of an order is told in the reply and, while it is carried out, in the instance's report.

use std::time::Duration;

use pgpair_core::ids::Term;
use pgpair_core::order::{OrderKind, OrderReply};
use serde::{Deserialize, Serialize};

/// An agent answers an order of the operator within this time: with [`OrderReply::Accepted`] if it has not judged the order yet;
/// then [`InstanceReport::preparing`](crate::report::InstanceReport::preparing) names the order until it is judged.
pub const ANSWERED: Duration = Duration::from_secs(1);
/// Longest wait for the checkpoint before a switchover: a slow volume takes minutes for a large buffer cache. Then it is refused.
pub const CHECKPOINT: Duration = Duration::from_secs(600);
/// An agent answers the other one within this time: with the judgement of the order, or as it answers the operator.
pub const JUDGED: Duration = Duration::from_secs(45);
/// The report that the operator reads first after a reply may be older than the reply, but not older than this.
pub const REPORT_LAG: Duration = Duration::from_secs(5);
/// The operator sends an announced order for so long. An agent that has not answered by then will not get it.
pub const SEND_FOR: Duration = Duration::from_secs(60);

// An agent that has an order is never given up on before it answers.
const _: () = assert!(JUDGED.as_secs() < SEND_FOR.as_secs());
const _: () = assert!(ANSWERED.as_secs() < REPORT_LAG.as_secs());

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
