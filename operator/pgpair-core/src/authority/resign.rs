//! Rule 5: the primary gives its term up when its postgres is dead and the standby can take it.

use crate::authority::clause::Clause;
use crate::authority::common::Common;
use crate::authority::event::Command;
use crate::authority::facts::Directory;
use crate::authority::messages::{CanTake, CanTakeReply, ResignReply, Resignation};
use crate::authority::notes::Note;
use crate::authority::role::{Primary, Resign};
use crate::authority::settings::OnPostgresCrash;
use crate::authority::timing::{Ms, Timing};
use crate::ids::Incarnation;
use crate::instance::PostgresState;
use crate::order::{OrderRefusal, OrderReply};
use crate::record::{Beginning, Mode, Record};

/// A polite stop gets 5 s, and what is killed then is gone in milliseconds. What is still there by now waits for a disk.
const LINGERS_MS: u64 = 6_000;

/// Time for a polite stop and for finding the end of the log; and whoever lingers falls silent, for long enough that its promise
/// lapses and the standby takes over.
pub(super) fn stop_budget(timing: Timing) -> u64 {
    LINGERS_MS + 3 * timing.ttl()
}

impl Primary {
    pub(super) fn react_resign(&mut self, c: &mut Common, now: Ms) {
        match self.resign {
            // To whom is forgotten: its role was unknown in between.
            Resign::None if c.has_resigned() => self.take_back(c, now),
            Resign::None => {
                if self.has_reason_to_resign(c) {
                    self.ask_can_take(c, now);
                } else if c.leaving.is_some_and(|t| now - t > c.timing.ttl() / 2) {
                    self.decline(c, now); // the API server is away: stop without a successor
                }
            }
            Resign::Declined { until } => {
                let ends = c.leaving.is_some() || c.durable.fenced;
                if c.pg.state == PostgresState::Primary && !ends && !c.pg.hung {
                    self.resign = Resign::None;
                } else if now >= until && (c.pg.failed_starts > 0 || ends || c.pg.hung) {
                    self.ask_can_take(c, now);
                }
            }
            Resign::Asking { since } => {
                if now - since > c.timing.ttl() / 2 {
                    self.decline(c, now);
                }
            }
            Resign::Stopping { since, to } => self.finish_stop(c, now, since, to),
            Resign::Resigned { since, to, heard, told, refused, .. } => {
                self.push_resignation(c, now, to, told);
                let silent = now - heard.unwrap_or(since) >= c.timing.ttl();
                if refused || silent || now - since >= 2 * c.timing.ttl() {
                    self.take_back(c, now);
                }
            }
        }
    }

    /// The postmaster is dead in `Paired`, or in `Solo` cannot be started, or hangs, or is going to stop, or is to hand over.
    fn has_reason_to_resign(&self, c: &Common) -> bool {
        let Some(r) = c.record() else { return false };
        let primary = c.pg.directory == Directory::Primary;
        let dead =
            !c.postgres_is_up() && primary && !(c.orders.restarts_primary() && c.pg.failed_starts == 0);
        let at_once = r.mode == Mode::Paired && c.settings.on_crash == OnPostgresCrash::Failover;
        let resigns = r.mode == Mode::Paired || Clause::ResignInSolo.permits(r.mode == Mode::Solo);
        let hopeless = c.pg.failed_starts >= 2 && resigns;
        let crashed = dead && (at_once || hopeless);
        let leaves = (c.leaving.is_some() || c.durable.fenced) && primary;
        let ordered = c.orders.hands_over() && primary;
        let hangs = c.pg.hung && c.postgres_is_up();
        (crashed || leaves || ordered || hangs) && !c.is_elsewhere() && c.view.settled().is_some()
    }

    fn is_ordered(c: &Common) -> bool {
        c.orders.hands_over() || c.durable.fenced
    }

    fn ask_can_take(&mut self, c: &mut Common, now: Ms) {
        if Clause::AskFirst.is_taken_away() {
            // Nobody has said yes.
            self.resign = Resign::Stopping { since: now, to: Incarnation(0) };
            return;
        }
        self.resign = Resign::Asking { since: now };
        let (ordered, down) = (Primary::is_ordered(c), !c.postgres_is_up());
        c.out.push(Command::AskCanTake(CanTake { term: c.term(), from: c.me, ordered, down }));
    }

    fn decline(&mut self, c: &Common, now: Ms) {
        self.resign = Resign::Declined { until: now + c.timing.ttl() };
        // The start budget counts from here: the heartbeats that ask for a promise to start on begin now.
        self.restart_budget(now);
    }

    pub(super) fn on_can_take_reply(&mut self, c: &mut Common, now: Ms, reply: Option<CanTakeReply>) {
        if let Resign::Asking { .. } = self.resign {
            match reply {
                Some(CanTakeReply::Yes(to)) => self.resign = Resign::Stopping { since: now, to },
                Some(CanTakeReply::No(_)) | None => {
                    if c.orders.hands_over() {
                        c.end_job(OrderReply::Refused(OrderRefusal::StandbyCannot));
                    }
                    self.decline(c, now);
                }
            }
        }
    }

    /// Dead by the lock, the end of the log known, and no write of ours under way: then, and not before, it is given up.
    fn finish_stop(&mut self, c: &mut Common, now: Ms, since: Ms, to: Incarnation) {
        let dead = !c.postgres_is_up();
        let stored = Clause::SharedStored.demands(!c.has_stored(Mode::Solo));
        if dead && c.pg.end.is_some() && stored && !c.view.has_open() {
            let term = c.term();
            c.promises.held.void();
            c.given_up = Some(term);
            self.resign = Resign::Resigned { since: now, to, heard: None, told: None, refused: false };
            c.note(Note::Resigned(term));
            self.push_resignation(c, now, to, None);
        } else if now - since > stop_budget(c.timing) {
            if c.orders.hands_over() {
                c.end_job(OrderReply::Refused(OrderRefusal::TimedOut));
            }
            self.decline(c, now);
        }
    }

    /// A postgres that not even SIGKILL ends, because its disk hangs or is slow, keeps the lock, and nobody can hand its log over: only
    /// silence lets the standby go on. To go `Solo` for that silence would take the way from it.
    pub(super) fn is_wedged(&self, c: &Common, now: Ms) -> bool {
        let Resign::Stopping { since, .. } = self.resign else { return false };
        Clause::SilentWedge.permits(c.pg.hung || now - since > LINGERS_MS)
    }

    fn push_resignation(&mut self, c: &mut Common, now: Ms, to: Incarnation, told: Option<Ms>) {
        let Some((timeline, end)) = c.pg.end else { return };
        if told.is_some_and(|t| now - t < c.timing.heartbeat_every()) {
            return;
        }
        if let Resign::Resigned { told, .. } = &mut self.resign {
            *told = Some(now);
        }
        let resignation = Resignation {
            term: c.term(),
            from: c.me,
            predecessor: c.predecessor(),
            timeline,
            end,
            ordered: Primary::is_ordered(c),
            to,
        };
        c.out.push(Command::Resign(resignation));
        if told.is_some() {
            c.read(now); // the standby may have won without our hearing of it
        }
    }

    pub(super) fn on_resign_reply(&mut self, c: &mut Common, now: Ms, reply: Option<ResignReply>) {
        let Resign::Resigned { heard, refused, .. } = &mut self.resign else { return };
        match reply {
            Some(ResignReply::Accepted) => *heard = Some(now),
            Some(ResignReply::Refused(_)) => *refused = true,
            Some(ResignReply::Taken(_)) => c.read(now),
            None => {}
        }
    }

    /// The next term for ourselves: the number grows, so that a resignation that is still under way means nothing.
    fn take_back(&mut self, c: &mut Common, now: Ms) {
        if c.leaving.is_some() || c.durable.fenced {
            return;
        }
        let Some(v) = c.view.settled().copied() else { return };
        let elsewhere = c.is_elsewhere();
        if v.record.primary.instance != c.me.instance || v.record.term != c.term() || elsewhere {
            return;
        }
        let same = Clause::TakeBackTerm.is_taken_away();
        let record = Record {
            term: if same { v.record.term } else { v.record.term.next() },
            primary: c.me,
            mode: Mode::Solo,
            standby_volume: None,
            ..v.record
        };
        if c.begin_term(now, &v, Beginning::TakenBack, record) {
            c.note(Note::TakingBack(record.term));
            if same {
                (self.resign, c.given_up) = (Resign::None, None);
            }
        }
    }
}
