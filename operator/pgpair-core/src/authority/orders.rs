//! Rule 10: orders of a person, or of the operator for one. None of them opens a way of its own around the other rules:
//! an order is a reason to resign, to stop or to take over, and then the rules for that decide.

use serde::{Deserialize, Serialize};

use crate::authority::event::ReplyId;
use crate::authority::timing::Ms;
use crate::ids::{Incarnation, Term};
use crate::order::OrderKind;

/// Longest time for an order that waits for the other instance.
pub(super) const ORDER_BUDGET_MS: u64 = 60_000;

/// What came in and what is being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    /// To be judged by a record that is read after they came.
    pub(super) waiting: Vec<(ReplyId, Term, OrderKind, Ms)>,
    pub(super) job: Option<Job>,
}

/// The order that is being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) kind: JobKind,
    pub(super) since: Ms,
    /// The term in which it was accepted.
    pub(super) term: Term,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum JobKind {
    Switchover,
    Promote { dead: Incarnation },
    TakeOver,
    RestartStandby,
    RestartPrimary { stopped: bool },
    Fence,
    Rebuild,
}

impl Orders {
    pub(super) fn is(&self, wanted: impl Fn(JobKind) -> bool) -> bool {
        self.job.is_some_and(|j| wanted(j.kind))
    }

    /// A person wants the primary to hand over.
    pub(super) fn hands_over(&self) -> bool {
        self.is(|k| k == JobKind::Switchover)
    }

    /// The incarnation that a person knows to be dead, and wants this standby to follow in office.
    pub(super) fn forced(&self) -> Option<Incarnation> {
        match self.job?.kind {
            JobKind::Promote { dead } => Some(dead),
            _ => None,
        }
    }

    /// A person wants this standby to take over as soon as it may.
    pub(super) fn takes_over(&self) -> bool {
        self.is(|k| k == JobKind::TakeOver)
    }

    /// This standby is about to stop, and says so first.
    pub(super) fn stops_standby(&self) -> bool {
        self.is(|k| matches!(k, JobKind::RestartStandby | JobKind::Rebuild))
    }

    pub(super) fn restarts_standby(&self) -> bool {
        self.is(|k| k == JobKind::RestartStandby)
    }

    /// The primary's postgres is down, or is to be stopped, because it is being restarted.
    pub(super) fn restarts_primary(&self) -> bool {
        self.is(|k| matches!(k, JobKind::RestartPrimary { .. }))
    }

    pub(super) fn stops_primary(&self) -> bool {
        self.is(|k| k == JobKind::RestartPrimary { stopped: false })
    }

    /// A person wants the data directory to be copied anew.
    pub(super) fn rebuilds(&self) -> bool {
        self.is(|k| k == JobKind::Rebuild)
    }
}
