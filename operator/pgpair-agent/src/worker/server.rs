//! Postgres as the worker has it in hand: each state with what is valid in it.

use std::time::{Duration, Instant};

use crate::fence::lock::VolumeLock;
use crate::postgres::postmaster::Postmaster;

/// Time between two tries to take the lock after a postmaster has ended.
const LOCK_AGAIN: Duration = Duration::from_secs(1);

/// A postmaster of ours.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) postmaster: Postmaster,
    /// When it was started.
    pub(super) since: Instant,
}

/// In which role postgres was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartedAs {
    Standby,
    Primary,
}

/// The state of postgres.
#[derive(Debug)]
pub(super) enum Server {
    /// Nothing runs, which the lock in hand proves.
    Down(VolumeLock),
    /// No postmaster runs, but the lock is not in hand: something of the last one may still run. The lock is tried again.
    Unlocked {
        /// Since when.
        since: Instant,
        /// When the lock is tried again.
        again: Instant,
    },
    /// A postmaster that has not accepted a connection yet.
    Starting(Running, StartedAs),
    /// A standby that has accepted connections.
    Standby(Running),
    /// The same of a primary, started or promoted as one.
    Primary(Running),
}

impl Server {
    /// No postmaster runs any more; whether something of it does is not known.
    pub(super) fn unlocked() -> Server {
        let now = Instant::now();
        Server::Unlocked { since: now, again: now }
    }

    /// The lock could not be taken. Returns for how long it has been missing.
    pub(super) fn try_again_later(&mut self) -> Duration {
        let Server::Unlocked { since, again } = self else { return Duration::ZERO };
        *again = Instant::now() + LOCK_AGAIN;
        since.elapsed()
    }

    /// It has accepted its first connection.
    pub(super) fn becomes_ready(&mut self) {
        if let Server::Starting(running, started_as) = self {
            let running = running.clone();
            *self = match started_as {
                StartedAs::Standby => Server::Standby(running),
                StartedAs::Primary => Server::Primary(running),
            };
        }
    }

    /// It is promoted.
    pub(super) fn becomes_primary(&mut self) {
        if let Server::Standby(running) = self {
            *self = Server::Primary(running.clone());
        }
    }

    /// Nothing runs, by the lock.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Server::Down(_))
    }

    /// The postmaster, if one was started and its end is not known.
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Server::Down(_) | Server::Unlocked { .. } => None,
            Server::Starting(running, _) | Server::Standby(running) | Server::Primary(running) => {
                Some(running)
            }
        }
    }

    /// Its role.
    pub(super) fn role(&self) -> Option<StartedAs> {
        match self {
            Server::Down(_) | Server::Unlocked { .. } => None,
            Server::Starting(_, started_as) => Some(*started_as),
            Server::Standby(_) => Some(StartedAs::Standby),
            Server::Primary(_) => Some(StartedAs::Primary),
        }
    }
}

/// Whether an action was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    /// None: the wish is fulfilled, or it cannot be followed now.
    Nothing,
    /// One: postgres is worth another look at once.
    Acted,
}
