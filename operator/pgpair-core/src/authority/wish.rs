//! What is wished of postgres.

use serde::{Deserialize, Serialize};

use crate::authority::gate::Refusal;
use crate::authority::timing::Ms;
use crate::ids::Term;

/// What postgres should be made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Want {
    /// Not running. If it is writable: SIGKILL, everything, at once.
    Down,
    /// Stopped politely (fast shutdown), all WAL sent to the standby; then it is `Down`.
    Stopped,
    /// Run `initdb`: this is a new pair.
    Initialise,
    /// Running as primary.
    Primary,
    /// Running; if it is a standby's directory, promoted through the trigger file.
    Promoted,
    /// Running as a standby of the primary of this term, rewound or rebuilt first if it has to be.
    Following(Term),
    /// As it is: a take-over is under way.
    Unchanged,
}

/// What is wished of postgres at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Desired {
    /// State of the postmaster.
    pub postgres: Want,
    /// Whether commits are to wait for the standby.
    pub synchronous: bool,
    /// Number of the wish that commits wait, to be repeated with its proof: the wish may have been off in between.
    pub sync_epoch: u32,
    /// Whether clients may be let in: after a restart in a sync mode only when the standby has confirmed the recovered
    /// end of the log, or the record is settled `Solo`.
    pub admit_clients: bool,
    /// When a writable postgres has to be killed if nothing new comes: for the deadman. `None`: no deadline.
    pub fence_at: Option<Ms>,
    /// Why it is `Down`.
    pub refusal: Option<Refusal>,
}
