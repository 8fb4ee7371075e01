//! What is decided about changes that need a restart.

use pgpair_core::ids::InstanceId;
use pgpair_wire::order::Order;

/// What of the spec is not yet in effect, and the next step towards it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RollPlan {
    /// What is pending, standby first.
    pub pending: Vec<(InstanceId, Pending)>,
    /// The next step; `None`: nothing to do, or not now.
    pub step: Option<RollStep>,
    /// Why nothing is done about what is pending.
    pub waits: Option<Waits>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// `spec.paused`, or a spec that cannot be carried out.
    Held,
    /// The record is `Solo`, or an instance does not run: a restart would take the pair down.
    NotPaired,
    /// A copy, an order or a problem comes first.
    Busy,
    /// The step before it is not over.
    Step,
}
