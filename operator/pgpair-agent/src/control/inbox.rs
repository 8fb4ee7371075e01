//! What comes in to the driver, from every task around it.

use std::sync::Arc;

use pgpair_core::authority::Durable;
use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::view::{CasId, CasOutcome, ReadOutcome};
use pgpair_core::order::OrderReply;
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use tokio::sync::oneshot;

use crate::control::observed::Observed;

/// What comes in from the tasks around the loop.
#[derive(Debug)]
pub enum Input {
    /// From the peer or the operator.
    Call(Call),
    /// From the worker.
    Observed(Box<Observed>),
    /// The answer to a read.
    Read(Ms, ReadOutcome),
    /// The answer to a compare-and-set.
    Cas(CasId, CasOutcome),
    /// The peer's answer to a heartbeat.
    Answer(Answer),
    /// The peer's answer to "can you take it?".
    CanTakeReply(Option<CanTakeReply>),
    /// The peer's answer to our resignation.
    ResignReply(Option<ResignReply>),
    /// An order for which everything is prepared.
    Ordered(Order, oneshot::Sender<OrderReply>),
    /// A person has created the trigger file.
    TriggerFile,
    /// The running primary hangs, or no longer does.
    Hung(bool),
    /// On disk.
    Persisted(Durable),
    /// SIGTERM.
    Leave,
}

/// A message for the state machine, with the way back for its answer.
#[derive(Debug)]
pub enum Call {
    /// A heartbeat.
    Heartbeat(Heartbeat, oneshot::Sender<Answer>),
    /// "Can you take it?"
    CanTake(CanTake, oneshot::Sender<CanTakeReply>),
    /// A resignation.
    Resignation(Resignation, oneshot::Sender<ResignReply>),
    /// Evidence of death.
    Evidence(Evidence),
    /// A person's order.
    Order(Order, oneshot::Sender<OrderReply>),
    /// A configuration that has been checked and stored.
    Configure(Arc<PairConfig>, oneshot::Sender<()>),
}
