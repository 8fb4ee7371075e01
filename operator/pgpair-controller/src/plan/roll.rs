//! What is decided about changes that need a restart.

use pgpair_core::ids::InstanceId;
use pgpair_wire::order::Order;

use crate::rollout::Turn;

/// What of the spec is not yet in effect, and the next step towards it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RollPlan {
    /// What is pending, standby first.
    pub pending: Vec<(InstanceId, Pending)>,
    /// The next step; `None`: nothing to do, or not now.
    pub step: Option<RollStep>,
    /// Whether the step restarts an instance that works: then it needs the pair's turn in the roll-out.
    pub takes_turn: bool,
    /// Why nothing is done about what is pending.
    pub waits: Option<Waits>,
}

impl RollPlan {
    /// Without the step, because another pair was quicker.
    pub fn wait_for(&mut self, turn: Turn) {
        *self = RollPlan {
            pending: std::mem::take(&mut self.pending),
            waits: Some(Waits::Turn(turn)),
            ..RollPlan::default()
        };
    }

    /// Whether a restart of the first instance is what a person asked for in this very pair.
    #[must_use]
    pub fn is_of_a_person(&self) -> bool {
        matches!(self.pending.first(), Some((_, Pending::Restart(_))))
    }
}

/// What is pending on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Its pod was made of an earlier template.
    Pod,
    /// These parameters need a restart of its postgres.
    Restart(Vec<String>),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollStep {
    /// Delete this pod, if it still has that uid; its StatefulSet makes it anew.
    Recreate {
        /// Whose.
        instance: InstanceId,
        /// Its name.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// Give this order.
    Send {
        /// To whom.
        to: InstanceId,
        /// The order.
        order: Order,
    },
}

/// Why nothing is done about what is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// `spec.paused`, or a spec that cannot be carried out.
    Held,
    /// The record is `Solo`, or an instance does not run: a restart would take the pair down.
    NotPaired,
    /// A copy, an order or a problem comes first.
    Busy,
    /// The step before it is not over.
    Step,
    /// It is not this pair's turn.
    Turn(Turn),
    /// Nothing is pending any more, and the pair is not `Paired` again yet.
    Return,
}
