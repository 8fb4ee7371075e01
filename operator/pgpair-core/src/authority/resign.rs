//! Rule 5: the primary gives its term up when its postgres is dead and the standby can take it.

use serde::{Deserialize, Serialize};

use crate::authority::OnPostgresCrash;
use crate::authority::clause::Clause;
use crate::authority::messages::{CanTake, CanTakeReply, ResignReply, Resignation};
use crate::authority::timing::Ms;
use crate::authority::{Authority, Command, Directory, Note};
use crate::ids::{Incarnation, Term};
use crate::instance::{PostgresState, Role};
use crate::order::{OrderRefusal, OrderReply};
use crate::record::{Mode, Record};

/// How far a resignation has come. One of an earlier term is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Resign {
    None,
    /// The standby has been asked whether it can take it.
    Asking {
        since: Ms,
    },
    /// It cannot, or did not say: postgres starts again under the gate, and it is not asked before `until`.
    Declined {
        until: Ms,
    },
    /// That process of it can: postgres stops politely, or has died; where its log ends is being looked up.
    Stopping {
        since: Ms,
        to: Incarnation,
    },
    /// This incarnation never writes again in `term`.
    Resigned {
        term: Term,
        since: Ms,
        to: Incarnation,
        heard: Option<Ms>,
        told: Option<Ms>,
        refused: bool,
    },
}

/// Time for a polite stop and for finding the end of the log.
pub(super) const STOP_BUDGET_MS: u64 = 10_000;

impl Resign {
    pub(super) fn has_resigned(&self, now_term: Term) -> bool {
        matches!(self, Resign::Resigned { term, .. } if *term == now_term)
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Resign::Asking { .. } | Resign::Stopping { .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self, Resign::Stopping { .. })
    }

    pub(super) fn is_declined(&self) -> bool {
        matches!(self, Resign::Declined { .. })
    }

    /// A resignation is not remembered beyond its term.
    pub(super) fn forget_before(&mut self, current: Term) {
        if matches!(self, Resign::Resigned { term, .. } if *term < current) {
            *self = Resign::None;
        }
    }
}

impl Authority {
    pub(super) fn react_resign(&mut self, now: Ms) {
        match self.resign {
            Resign::None => {
                if self.has_reason_to_resign() {
                    self.ask_can_take(now);
                } else if self.leaving.is_some_and(|t| now - t > self.timing.ttl() / 2) {
                    self.decline(now); // the API server is away: stop without a successor
                }
            }
            Resign::Declined { until } => {
                let ends = self.leaving.is_some() || self.durable.fenced;
                if self.pg.state == PostgresState::Primary && !ends && !self.pg.hung {
                    self.resign = Resign::None;
                } else if now >= until && (self.pg.failed_starts > 0 || ends || self.pg.hung) {
                    self.ask_can_take(now);
                }
            }
            Resign::Asking { since } => {
                if now - since > self.timing.ttl() / 2 {
                    self.decline(now);
                }
            }
            Resign::Stopping { since, to } => self.finish_stop(now, since, to),
            Resign::Resigned { since, to, heard, told, refused, .. } => {
                self.push_resignation(now, to, told);
                let silent = now - heard.unwrap_or(since) >= self.timing.ttl();
                if refused || silent || now - since >= 2 * self.timing.ttl() {
                    self.take_back(now);
                }
            }
        }
    }

    /// The postmaster is dead in `Paired`, or in `Solo` cannot be started, or hangs, or is going to stop, or is to hand over.
    fn has_reason_to_resign(&self) -> bool {
        let Some(r) = self.record() else { return false };
        let primary = self.pg.directory == Directory::Primary;
        let dead = !self.postgres_is_up()
            && primary
            && !(self.orders.restarts_primary() && self.pg.failed_starts == 0);
        let at_once = r.mode == Mode::Paired && self.settings.on_crash == OnPostgresCrash::Failover;
        let resigns = r.mode == Mode::Paired || Clause::ResignInSolo.permits(r.mode == Mode::Solo);
        let hopeless = self.pg.failed_starts >= 2 && resigns;
        let crashed = dead && (at_once || hopeless);
        let leaves = (self.leaving.is_some() || self.durable.fenced) && primary;
        let ordered = self.orders.hands_over() && primary;
        let hangs = self.pg.hung && self.postgres_is_up();
        (crashed || leaves || ordered || hangs) && !self.is_elsewhere() && self.view.settled().is_some()
    }

    fn is_ordered(&self) -> bool {
        self.orders.hands_over() || self.durable.fenced
    }

    fn ask_can_take(&mut self, now: Ms) {
        if Clause::AskFirst.is_taken_away() {
            // Nobody has said yes.
            self.resign = Resign::Stopping { since: now, to: Incarnation(0) };
            return;
        }
        self.resign = Resign::Asking { since: now };
        let (ordered, down) = (self.is_ordered(), !self.postgres_is_up());
        self.out.push(Command::AskCanTake(CanTake { term: self.term(), from: self.me, ordered, down }));
    }

    fn decline(&mut self, now: Ms) {
        self.resign = Resign::Declined { until: now + self.timing.ttl() };
        // The start budget counts from here: the heartbeats that ask for a promise to start on begin now.
        self.restart_budget(now);
    }

    pub(super) fn on_can_take_reply(&mut self, now: Ms, reply: Option<CanTakeReply>) {
        if let Resign::Asking { .. } = self.resign {
            match reply {
                Some(CanTakeReply::Yes(to)) => self.resign = Resign::Stopping { since: now, to },
                Some(CanTakeReply::No(_)) | None => {
                    if self.orders.hands_over() {
                        self.end_job(OrderReply::Refused(OrderRefusal::StandbyCannot));
                    }
                    self.decline(now);
                }
            }
        }
    }

    /// Dead by the lock, the end of the log known, and no write of ours under way: then, and not before, it is given up.
    fn finish_stop(&mut self, now: Ms, since: Ms, to: Incarnation) {
        let dead = !self.postgres_is_up();
        if dead && self.pg.end.is_some() && !self.view.has_open() {
            let term = self.term();
            self.held.void();
            self.resign = Resign::Resigned { term, since: now, to, heard: None, told: None, refused: false };
            self.note(Note::Resigned(term));
            self.push_resignation(now, to, None);
        } else if now - since > self.stop_budget() {
            if self.orders.hands_over() {
                self.end_job(OrderReply::Refused(OrderRefusal::TimedOut));
            }
            self.decline(now);
        }
    }

    /// A wedged one is silent for long enough that its promise lapses and the standby takes over.
    fn stop_budget(&self) -> u64 {
        if self.is_wedged() { STOP_BUDGET_MS.max(3 * self.timing.ttl()) } else { STOP_BUDGET_MS }
    }

    fn push_resignation(&mut self, now: Ms, to: Incarnation, told: Option<Ms>) {
        let Some((timeline, end)) = self.pg.end else { return };
        if told.is_some_and(|t| now - t < self.timing.heartbeat_every()) {
            return;
        }
        if let Resign::Resigned { told, .. } = &mut self.resign {
            *told = Some(now);
        }
        let resignation = Resignation {
            term: self.term(),
            from: self.me,
            predecessor: self.predecessor(),
            timeline,
            end,
            ordered: self.is_ordered(),
            to,
        };
        self.out.push(Command::Resign(resignation));
        if told.is_some() {
            self.read(now); // the standby may have won without our hearing of it
        }
    }

    pub(super) fn on_resign_reply(&mut self, now: Ms, reply: Option<ResignReply>) {
        let Resign::Resigned { heard, refused, .. } = &mut self.resign else { return };
        match reply {
            Some(ResignReply::Accepted) => *heard = Some(now),
            Some(ResignReply::Refused(_)) => *refused = true,
            Some(ResignReply::Taken(_)) => self.read(now),
            None => {}
        }
    }

    /// The next term for ourselves: the number grows, so that a resignation that is still under way means nothing.
    fn take_back(&mut self, now: Ms) {
        if self.leaving.is_some() || self.durable.fenced {
            return;
        }
        let Some(v) = self.view.settled().copied() else { return };
        let elsewhere = self.is_elsewhere();
        if v.record.primary.instance != self.me.instance || v.record.term != self.term() || elsewhere {
            return;
        }
        let same = Clause::TakeBackTerm.is_taken_away();
        let record = Record {
            term: if same { v.record.term } else { v.record.term.next() },
            primary: self.me,
            mode: Mode::Solo,
            standby_volume: None,
            ..v.record
        };
        if self.cas(now, &v, record) {
            self.note(Note::TakingBack(record.term));
            self.resign = if same { Resign::None } else { self.resign };
        }
    }

    /// Whether a stopping instance (SIGTERM) has done what it owes its peer: the agent may end.
    #[must_use]
    pub fn may_leave(&self, now: Ms) -> bool {
        let Some(since) = self.leaving else { return false };
        let late = now - since >= 2 * self.timing.ttl();
        match self.role() {
            Role::Standby => self.may_stop_as_standby(now) || self.pg.volume.is_none(),
            Role::Primary => match self.resign {
                Resign::Resigned { .. } => late,
                Resign::Asking { .. } | Resign::Stopping { .. } => false,
                Resign::None | Resign::Declined { .. } => !self.postgres_is_up(),
            },
            Role::Unknown => true,
        }
    }
}
