//! The authority protocol: who may write. A pure state machine, one per agent; events in, commands and a wish out.
//!
//! Two instances and one witness (the compare-and-set of the API server on the [record](crate::record)) make a majority
//! of three. `Paired`: the primary writes while it holds the standby's promise not to take over; the standby takes over
//! by compare-and-set when its promises have lapsed. `Solo`: the primary writes because the record names its incarnation,
//! and nobody takes over by himself. The rules are numbered as in `docs/authority.md`; each function names the ones it
//! keeps. The caller owns clock, network and postgres: it feeds every fact as an [`Event`], carries out every [`Command`],
//! and keeps postgres as [`Authority::desired`] says. Nothing here waits: [`Authority::wake_at`] says when to call again.
//!
//! Its files: `timing`, `clause`, `facts`, `messages`, `view`, `promises`, `notes`, `settings`, `event`, `orders`, `role`, `common`,
//! `gate`, `wish`, `pairing`, `resign`, `primary`, `standby`, `answer`, `judge`, `walk`, `written`. Each uses only itself and those
//! before it, which a test checks, and none uses this one: the state is `common`, `role` and what they are made of; the rules
//! are functions of the common one, or of it and the part of one role.

mod answer;
pub mod clause;
mod common;
mod event;
mod facts;
mod gate;
mod judge;
pub mod messages;
mod notes;
mod orders;
mod pairing;
mod primary;
pub mod promises;
mod resign;
mod role;
mod settings;
mod standby;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod view;
#[cfg(feature = "model")]
pub mod walk;
mod wish;
mod written;

use common::Common;
use messages::StandbyInfo;
use promises::HeldPromise;
use role::{Part, Primary, Resign, Standby};
use serde::{Deserialize, Serialize};
use timing::{Ms, Timing};
use written::Written;

pub use event::{Command, Event, ReplyId};
pub use facts::{Directory, PgFacts, SyncState, position};
pub use gate::{Gate, Refusal};
pub use notes::{FailoverCause, FailoverSignal, Note, SoloReason};
pub use settings::{Durable, NodeId, OnPostgresCrash, Settings};
pub use wish::{Desired, Want};

use crate::ids::Term;
use crate::instance::Role;
pub use crate::record::Durability;
use crate::record::{Holder, Record};

/// The protocol's state in one agent process. Written and read back it is the same: a journal begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Authority {
    common: Common,
    /// Of the role that `common` says.
    part: Part,
}

impl Authority {
    /// A new incarnation, at `now`, with what its volume's disk remembers. Holds the volume's lock.
    #[must_use]
    pub fn new(me: Holder, node: NodeId, settings: Settings, durable: Durable, now: Ms) -> Authority {
        let common = Common::new(me, node, settings, durable, now);
        let part = Part::of(common.role());
        Authority { common, part }
    }

    /// Takes one event and says what is to be sent and stored. Call [`Authority::desired`] afterwards.
    pub fn handle(&mut self, now: Ms, event: Event) -> Vec<Command> {
        self.take(now, event);
        self.learn_term();
        self.react(now);
        self.common.remember(self.part.primary());
        self.common.persist();
        std::mem::take(&mut self.common.out)
    }

    fn take(&mut self, now: Ms, event: Event) {
        let Authority { common: c, part } = self;
        match event {
            Event::Tick => {}
            Event::Postgres(facts) => c.pg = facts,
            Event::Persisted(durable) => {
                c.persisted = durable;
                c.persisting = false;
            }
            Event::Read { asked, outcome } => c.view.on_read(asked, outcome, c.durable.record_uid),
            Event::Cas { id, outcome } => c.view.on_cas(now, id, outcome),
            Event::Heartbeat(reply, hb) => {
                let promised = c.on_heartbeat(now, reply, &hb);
                if let Part::Standby(standby) = part
                    && promised
                {
                    standby.takeover = None;
                }
            }
            Event::Answer(answer) => c.on_answer(now, &answer),
            Event::CanTake(reply, question) => c.questions.push((reply, question, now)),
            Event::CanTakeReply(reply) => {
                if let Part::Primary(primary) = part {
                    primary.on_can_take_reply(c, now, reply);
                }
            }
            Event::Resignation(reply, r) => {
                let answer = match part {
                    Part::Standby(standby) => standby.on_resignation(c, now, &r),
                    Part::Unknown | Part::Primary(_) => c.refuse_resignation(now, &r),
                };
                c.out.push(Command::AnswerResignation(reply, answer));
            }
            Event::ResignReply(reply) => {
                if let Part::Primary(primary) = part {
                    primary.on_resign_reply(c, now, reply);
                }
            }
            Event::Evidence(evidence) => match part {
                Part::Unknown => {}
                Part::Primary(_) => Primary::on_evidence(c, evidence),
                Part::Standby(standby) => standby.on_evidence(c, now, evidence),
            },
            Event::Order(reply, term, kind) => c.on_order(now, reply, term, kind),
            Event::Configure(settings) => {
                // What began under other times is not measured by these.
                if let Part::Primary(Primary { pairing, .. }) = part
                    && settings.timing != c.timing
                {
                    (pairing.stalled, pairing.behind) = (None, None);
                }
                (c.timing, c.settings) = (settings.timing, settings);
            }
            Event::Leave => c.leaving = c.leaving.or(Some(now)),
        }
    }

    /// The newest term that this agent has seen or has on disk.
    #[must_use]
    pub fn term(&self) -> Term {
        self.common.term()
    }

    /// This instance's role in [`Authority::term`]; from the disk while the record has not been read.
    #[must_use]
    pub fn role(&self) -> Role {
        self.common.role()
    }

    /// The record as last seen, settled or not.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.common.record()
    }

    /// This agent process.
    #[must_use]
    pub fn me(&self) -> Holder {
        self.common.me
    }

    /// What the standby said last, and when (primary only).
    #[must_use]
    pub fn peer(&self) -> Option<(Ms, StandbyInfo)> {
        self.common.peer
    }

    /// The times in force.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.common.timing
    }

    /// Postgres as last told.
    #[must_use]
    pub fn postgres(&self) -> &PgFacts {
        &self.common.pg
    }

    /// What is to be remembered on disk.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.common.durable
    }

    /// Whether postgres may be writable at `now` (rule 0). Every start, promotion and un-fencing asks here.
    #[must_use]
    pub fn gate(&self, now: Ms) -> Gate {
        gate::gate(&self.common, now)
    }

    /// Rule 0 for a directory that is a standby's: besides the gate, nothing that this instance promised may be open.
    #[must_use]
    pub fn may_promote(&self, now: Ms) -> bool {
        gate::may_promote(&self.common, now)
    }

    /// What postgres should be made to do. Pure: ask as often as you like, and again right before acting on it.
    #[must_use]
    pub fn desired(&self, now: Ms) -> Desired {
        let (c, gate) = (&self.common, self.gate(now));
        let postgres = match &self.part {
            Part::Primary(primary) => primary.desired(c, now, gate),
            Part::Standby(_) => Standby::desired(c, now),
            Part::Unknown => Want::Down,
        };
        let refusal = match gate {
            _ if c.durable.fenced => Some(Refusal::Fenced),
            Gate::Closed(reason) if matches!(postgres, Want::Down) => Some(reason),
            _ => None,
        };
        let waiting_to_pair = self.part.primary().is_some_and(|p| p.pairing.sync_since.is_some());
        Desired {
            postgres,
            synchronous: c.wants_sync(waiting_to_pair),
            sync_epoch: c.sync_epoch,
            admit_clients: c.admits_clients(),
            fence_at: gate.until(),
            refusal,
        }
    }

    /// Whether the log of a dead postgres may be handed out: the standby has been asked to take over, or told to.
    #[must_use]
    pub fn hands_over_log(&self) -> bool {
        !self.common.postgres_is_up() && self.part.primary().is_some_and(|p| p.resign.hands_over_log())
    }

    /// Whether each millisecond counts: a take-over that is open waits for the facts of postgres.
    #[must_use]
    pub fn is_urgent(&self, now: Ms) -> bool {
        match &self.part {
            Part::Unknown => false,
            Part::Primary(primary) => primary.resign.is_asking(),
            Part::Standby(standby) => standby.is_called(&self.common, now),
        }
    }

    /// Whether a take-over waits for nothing but the end of the log, which the primary that resigned hands over.
    #[must_use]
    pub fn awaits_log(&self, now: Ms) -> bool {
        self.part.standby().is_some_and(|s| s.awaits_log(&self.common, now))
    }

    /// Whether a person has ordered that the data directory of this standby is copied anew.
    #[must_use]
    pub fn rebuild_is_ordered(&self) -> bool {
        self.common.rebuild_is_ordered()
    }

    /// Whether a stopping instance (SIGTERM) has done what it owes its peer: the agent may end.
    #[must_use]
    pub fn may_leave(&self, now: Ms) -> bool {
        let c = &self.common;
        let Some(since) = c.leaving else { return false };
        let late = now - since >= 2 * c.timing.ttl();
        match &self.part {
            Part::Standby(_) => c.may_stop_as_standby(now) || c.pg.volume.is_none(),
            Part::Primary(primary) => match primary.resign {
                Resign::Resigned { .. } => late,
                Resign::Asking { .. } | Resign::Stopping { .. } => false,
                Resign::None | Resign::Declined { .. } => !c.postgres_is_up(),
            },
            Part::Unknown => true,
        }
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn wake_at(&self, now: Ms) -> Ms {
        let (c, promises) = (&self.common, &self.common.promises);
        let held = promises.held.promised(c.term());
        [
            held.map(HeldPromise::worry_at),
            held.map(HeldPromise::fence_at),
            promises.given.last_lapse(),
            Some(promises.quarantine_until),
            promises.held.last_sent().map(|s| s + c.timing.heartbeat_every()),
        ]
        .into_iter()
        .flatten()
        .filter(|t| *t > now)
        .fold(now + c.timing.retry_every(), Ms::min)
    }

    /// The record may be of a new term, or say for the first time who is what in it: nothing counts of an earlier role.
    fn learn_term(&mut self) {
        let is_new = self.common.learn_term();
        let role = self.common.role();
        if is_new || self.part.role() != role {
            self.part = Part::of(role);
        }
    }

    fn react(&mut self, now: Ms) {
        let Authority { common: c, part } = self;
        c.answer_questions(now);
        c.react_orders(part, now);
        match part {
            Part::Primary(primary) => primary.react(c, now),
            Part::Standby(standby) => standby.react(c, now),
            Part::Unknown => c.read(now),
        }
        if c.view.last().is_none() || c.view.settled().is_none() {
            c.read(now);
        }
    }
}

impl From<Authority> for Written {
    fn from(Authority { common, part }: Authority) -> Written {
        Written::of(common, part)
    }
}

impl From<Written> for Authority {
    fn from(written: Written) -> Authority {
        let (common, part) = written.read();
        Authority { common, part }
    }
}

#[cfg(feature = "model")]
impl Authority {
    /// Whether the question "can you take it?" is out.
    #[must_use]
    pub fn waits_for_can_take(&self) -> bool {
        self.part.primary().is_some_and(|p| matches!(p.resign, Resign::Asking { .. }))
    }

    /// Whether the answer to a resignation is of use.
    #[must_use]
    pub fn waits_for_resign_reply(&self) -> bool {
        self.part.primary().is_some_and(|p| matches!(p.resign, Resign::Resigned { .. }))
    }

    /// Walks over the state.
    pub fn walk(&mut self, w: &mut impl walk::Walk) {
        walk::walk_all(&mut self.common, &mut self.part, w);
    }
}
