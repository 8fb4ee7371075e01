//! Whether a writable postgres runs or is about to: what the driver and the deadman kill by.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgpair_core::authority::timing::Ms;

use crate::fence::deadman::Deadman;

/// Set while a postgres that can write runs, or is about to be started or promoted. Shared with the driver, which kills
/// while it is set and the gate is closed, and with the deadman, which does so when the driver cannot. Who changes it and who
/// kills by it exclude each other: the tools that look at a dead directory must not be killed for the postgres before them.
#[derive(Debug, Clone)]
pub struct Writable {
    set: Arc<Mutex<bool>>,
    deadman: Deadman,
}

impl Writable {
    /// Not set; the deadman has no deadline.
    #[must_use]
    pub fn new(deadman: Deadman) -> Writable {
        Writable { set: Arc::default(), deadman }
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.lock()
    }

    /// While it is set: the deadman's deadline, and `kill` if there is something to do at once. Never while it is not.
    pub fn guard<T>(&self, deadline: Option<Ms>, kill: impl FnOnce() -> T) -> Option<T> {
        let set = self.lock();
        self.deadman.set(deadline.filter(|_| *set));
        set.then(kill)
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a writable postgres may run, until the deadline if there is one.
    pub fn raise(&self, deadline: Option<Ms>) {
        // Under one lock: between the two, the driver could set a later deadline, which this one would replace.
        let mut set = self.lock();
        *set = true;
        self.deadman.set(deadline);
    }

    /// Nothing writable is left: whatever runs from now on (tools that look at the dead directory) is not to be killed.
    pub fn lower(&self) {
        let mut set = self.lock();
        *set = false;
        self.deadman.set(None);
    }
}
