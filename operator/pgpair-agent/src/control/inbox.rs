//! What comes in to the driver, from every task around it, over one queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgpair_core::authority::messages::{Answer, CanTakeReply, ResignReply};
use pgpair_core::authority::{Event, ReplyId};
use pgpair_core::order::{OrderRefusal, OrderReply};
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use tokio::sync::oneshot;

use crate::control::observed::Observed;
use crate::postgres::objection::Objection;

/// One thing for the driver.
#[derive(Debug)]
pub enum Input {
    /// For the state machine, as it is.
    Event(Event),
    /// A question for the state machine.
    Ask(Ask),
    /// From the worker.
    Observed(Box<Observed>),
    /// A person's order: the driver prepares it and then asks the state machine.
    Order(Order, oneshot::Sender<OrderReply>),
    /// An order that is refused before the state machine is asked.
    Refuse(Order, OrderRefusal, oneshot::Sender<OrderReply>),
    /// A configuration that has been checked and stored.
    Configure(Arc<PairConfig>, oneshot::Sender<()>),
    /// A person has created the trigger file.
    TriggerFile,
    /// The running primary hangs, or no longer does.
    Hung(bool),
}

/// A configuration whose access rules are to be tried, for the worker.
#[derive(Debug)]
pub struct HbaTrial {
    /// The configuration.
    pub config: Arc<PairConfig>,
    /// What postgres objects to; `None`: nothing, or it cannot be asked now.
    pub objection: oneshot::Sender<Option<Objection>>,
}

/// A question for the state machine, with the way back for its answer.
#[derive(Debug)]
pub struct Ask {
    /// The state machine answers under this id, which no other question of this process has.
    pub id: ReplyId,
    /// The question, which carries the id.
    pub event: Event,
    /// Where the answer goes.
    pub reply: Reply,
}

/// The way back for an answer.
#[derive(Debug)]
pub enum Reply {
    /// To the peer.
    Heartbeat(oneshot::Sender<Answer>),
    /// To the peer.
    CanTake(oneshot::Sender<CanTakeReply>),
    /// To the peer.
    Resignation(oneshot::Sender<ResignReply>),
    /// To the sender of this order.
    Order(Order, oneshot::Sender<OrderReply>),
}

impl Ask {
    /// `question` makes the event from the id that the question gets.
    #[must_use]
    pub fn new(question: impl FnOnce(ReplyId) -> Event, reply: Reply) -> Ask {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let id = ReplyId(ASKED.fetch_add(1, Ordering::Relaxed) + 1);
        Ask { id, event: question(id), reply }
    }
}
