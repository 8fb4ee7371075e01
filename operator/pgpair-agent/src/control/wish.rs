//! What the state machine wishes postgres to be: from the driver to the worker.

use pgpair_core::authority::{Desired, Want};
use pgpair_core::ids::Term;
use pgpair_core::instance::{PostgresState, Role};

use crate::fence::clock;

/// The wish, with what the worker must know besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// What postgres should be.
    pub desired: Desired,
    /// Term of the wish.
    pub term: Term,
    /// Role in that term.
    pub role: Role,
    /// A take-over waits.
    pub urgent: bool,
    /// It waits for the end of the log.
    pub awaits_log: bool,
    /// The state of postgres that the wish was made for: it means nothing for another one.
    pub seen: PostgresState,
    /// The driver has ended: carry it out whatever the state is.
    pub last: bool,
}

impl Wish {
    /// Before the first one: nothing is to run.
    #[must_use]
    pub fn none() -> Wish {
        let desired = Desired {
            postgres: Want::Down,
            synchronous: true,
            sync_epoch: 0,
            admit_clients: false,
            fence_at: None,
            refusal: None,
        };
        Wish {
            desired,
            term: Term(0),
            role: Role::Unknown,
            urgent: false,
            awaits_log: false,
            seen: PostgresState::Down,
            last: false,
        }
    }

    /// Whether a writable postgres may run now.
    #[must_use]
    pub fn allows_writes(&self) -> bool {
        let open = self.desired.fence_at.is_none_or(|at| clock::now() < at);
        open && matches!(self.desired.postgres, Want::Primary | Want::Promoted)
    }
}
