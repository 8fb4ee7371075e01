//! The authority protocol: who may write. A pure state machine, one per agent; events in, commands and a wish out.
//!
//! Two instances and one witness (the compare-and-set of the API server on the [record](crate::record)) make a majority
//! of three. `Paired`: the primary writes while it holds the standby's promise not to take over; the standby takes over
//! by compare-and-set when its promises have lapsed. `Solo`: the primary writes because the record names its incarnation,
//! and nobody takes over by himself. The rules are numbered as in `docs/authority.md`; each function names the ones it
//! keeps. The caller owns clock, network and postgres: it feeds every fact as an [`Event`], carries out every [`Command`],
//! and keeps postgres as [`Authority::desired`] says. Nothing here waits: [`Authority::wake_at`] says when to call again.

pub mod clause;
mod gate;
pub mod messages;
mod orders;
mod pairing;
mod primary;
pub mod promises;
mod resign;
mod standby;
#[cfg(test)]
mod tests;
pub mod timing;
mod types;
pub mod view;
#[cfg(feature = "model")]
pub mod walk;

pub use gate::{Gate, Refusal};
use messages::{CanTake, StandbyInfo};
use serde::{Deserialize, Serialize};
pub use types::*;

use crate::ids::{Incarnation, InstanceId, Term};
use crate::instance::{PostgresState, Role};
use crate::record::{Holder, Mode, Record, Versioned};
use orders::Orders;
use pairing::Pairing;
use promises::{Given, Held, HeldPromise};
use resign::Resign;
use standby::Takeover;
use timing::{Ms, Timing};
use view::{CasId, OpenCas, View};

/// The protocol's state in one agent process. Written and read back it is the same: a journal begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authority {
    me: Holder,
    node: NodeId,
    timing: Timing,
    settings: Settings,
    durable: Durable,
    persisted: Durable,
    persisting: bool,
    born: Ms,
    quarantine_until: Ms,
    view: View,
    pg: PgFacts,
    held: Held,
    given: Given,
    peer: Option<(Ms, StandbyInfo)>,
    resign: Resign,
    takeover: Option<Takeover>,
    pairing: Pairing,
    questions: Vec<(ReplyId, CanTake, Ms)>,
    orders: Orders,
    leaving: Option<Ms>,
    cas_tried: Option<Ms>,
    next_cas: u64,
    /// Empty between two events.
    #[serde(skip)]
    out: Vec<Command>,
}

impl Authority {
    /// A new incarnation, at `now`, with what its volume's disk remembers. Holds the volume's lock.
    #[must_use]
    pub fn new(me: Holder, node: NodeId, settings: Settings, durable: Durable, now: Ms) -> Authority {
        let longest = u64::from(durable.longest_ttl_ms);
        Authority {
            me,
            node,
            timing: settings.timing,
            settings,
            durable,
            persisted: durable,
            persisting: false,
            born: now,
            quarantine_until: Timing::lapse_at(now, longest),
            view: View::default(),
            pg: PgFacts::default(),
            held: Held::default(),
            given: Given::by(me.incarnation),
            peer: None,
            resign: Resign::None,
            takeover: None,
            pairing: Pairing::default(),
            questions: Vec::new(),
            orders: Orders::default(),
            leaving: None,
            cas_tried: None,
            next_cas: 0,
            out: Vec::new(),
        }
    }

    /// Takes one event and says what is to be sent and stored. Call [`Authority::desired`] afterwards.
    pub fn handle(&mut self, now: Ms, event: Event) -> Vec<Command> {
        match event {
            Event::Tick => {}
            Event::Postgres(facts) => self.pg = facts,
            Event::Persisted(durable) => {
                self.persisted = durable;
                self.persisting = false;
            }
            Event::Read { asked, outcome } => self.view.on_read(asked, outcome, self.durable.record_uid),
            Event::Cas { id, outcome } => self.view.on_cas(now, id, outcome),
            Event::Heartbeat(reply, hb) => self.on_heartbeat(now, reply, &hb),
            Event::Answer(answer) => self.on_answer(now, &answer),
            Event::CanTake(reply, question) => self.questions.push((reply, question, now)),
            Event::CanTakeReply(reply) => self.on_can_take_reply(now, reply),
            Event::Resignation(reply, r) => self.on_resignation(now, reply, &r),
            Event::ResignReply(reply) => self.on_resign_reply(now, reply),
            Event::Evidence(evidence) => self.on_evidence(now, evidence),
            Event::Order(reply, term, kind) => self.on_order(now, reply, term, kind),
            Event::Configure(settings) => {
                // What began under other times is not measured by these.
                if settings.timing != self.timing {
                    (self.pairing.stalled, self.pairing.behind) = (None, None);
                }
                (self.timing, self.settings) = (settings.timing, settings);
            }
            Event::Leave => self.leaving = self.leaving.or(Some(now)),
        }
        self.learn_term();
        self.react(now);
        self.persist();
        std::mem::take(&mut self.out)
    }

    /// The newest term that this agent has seen or has on disk.
    #[must_use]
    pub fn term(&self) -> Term {
        self.record().map_or(self.durable.term, |r| r.term.max(self.durable.term))
    }

    /// This instance's role in [`Authority::term`]; from the disk while the record has not been read.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.record() {
            Some(r) if r.term >= self.durable.term => self.role_under(r.primary.instance),
            None if self.durable.term > Term(0) => {
                if self.durable.primary {
                    Role::Primary
                } else {
                    Role::Standby
                }
            }
            _ => Role::Unknown,
        }
    }

    fn role_under(&self, primary: InstanceId) -> Role {
        if primary == self.me.instance { Role::Primary } else { Role::Standby }
    }

    /// The record as last seen, settled or not.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.view.last().map(|v| &v.record)
    }

    /// This agent process.
    #[must_use]
    pub fn me(&self) -> Holder {
        self.me
    }

    /// What the standby said last, and when (primary only).
    #[must_use]
    pub fn peer(&self) -> Option<(Ms, StandbyInfo)> {
        self.peer
    }

    /// The times in force.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Postgres as last told.
    #[must_use]
    pub fn postgres(&self) -> &PgFacts {
        &self.pg
    }

    /// What is to be remembered on disk.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// What postgres should be made to do. Pure: ask as often as you like, and again right before acting on it.
    #[must_use]
    pub fn desired(&self, now: Ms) -> Desired {
        let gate = self.gate(now);
        let postgres = match self.role() {
            Role::Primary => self.desired_of_primary(now, gate),
            Role::Standby => self.desired_of_standby(now),
            Role::Unknown => Want::Down,
        };
        let refusal = match gate {
            _ if self.durable.fenced => Some(Refusal::Fenced),
            Gate::Closed(reason) if matches!(postgres, Want::Down) => Some(reason),
            _ => None,
        };
        Desired {
            postgres,
            synchronous: self.wants_sync(),
            sync_epoch: self.pairing.sync_epoch,
            admit_clients: self.admits_clients(),
            fence_at: gate.until(),
            refusal,
        }
    }

    /// Whether the log of a dead postgres may be handed out: the standby has been asked to take over, or told to.
    #[must_use]
    pub fn hands_over_log(&self) -> bool {
        !self.postgres_is_up() && (self.resign.is_stopping() || self.resign.has_resigned(self.term()))
    }

    /// Whether each millisecond counts: a take-over that is open waits for the facts of postgres.
    #[must_use]
    pub fn is_urgent(&self, now: Ms) -> bool {
        (self.role() == Role::Standby && self.is_called(now)) || self.resign.is_asking()
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn wake_at(&self, now: Ms) -> Ms {
        let held = self.held.promised(self.term());
        [
            held.map(HeldPromise::worry_at),
            held.map(HeldPromise::fence_at),
            self.given.last_lapse(),
            Some(self.quarantine_until),
            self.held.last_sent().map(|s| s + self.timing.heartbeat_every()),
        ]
        .into_iter()
        .flatten()
        .filter(|t| *t > now)
        .fold(now + self.timing.retry_every(), Ms::min)
    }

    fn learn_term(&mut self) {
        let Some(v) = self.view.last().copied() else { return };
        if self.durable.record_uid.is_none() && !self.view.foreign() {
            self.durable.record_uid = Some(v.uid);
        }
        let primary = v.record.primary.instance == self.me.instance;
        if v.record.term > self.durable.term {
            self.durable.term = v.record.term;
            self.given.new_term();
            self.peer = None;
            self.takeover = None;
            self.pairing = self.pairing.of_new_term();
            if v.record.primary == self.me {
                self.note(Note::Won(v.record.term));
            }
        }
        if v.record.term == self.durable.term {
            self.durable.primary = primary;
            self.durable.volume = if primary { v.record.primary_volume } else { None };
        }
        if primary && v.record.primary == self.me {
            self.durable.node = Some(self.node);
        }
        self.resign.forget_before(self.durable.term);
    }

    fn persist(&mut self) {
        if self.durable != self.persisted && !self.persisting {
            self.persisting = true;
            self.out.push(Command::Persist(self.durable));
        }
    }

    fn react(&mut self, now: Ms) {
        self.answer_questions(now);
        self.react_orders(now);
        match self.role() {
            Role::Primary => self.react_as_primary(now),
            Role::Standby => self.react_as_standby(now),
            Role::Unknown => self.read(now),
        }
        if self.view.last().is_none() || self.view.settled().is_none() {
            self.read(now);
        }
    }

    /// Asks for a linearizable read, unless one is under way or was just tried.
    fn read(&mut self, now: Ms) {
        if self.view.may_read(now, self.timing.retry_every()) {
            self.view.reading(now);
            self.out.push(Command::Read { asked: now });
        }
    }

    /// Sends a compare-and-set from `base`; the same again, for one whose outcome is unknown, at the pace of a retry.
    fn cas(&mut self, now: Ms, base: &Versioned, record: Record) -> bool {
        if self.cas_tried.is_some_and(|t| now - t < self.timing.retry_every())
            || self.view.open().iter().any(|o| o.awaiting_reply)
        {
            return false;
        }
        self.cas_tried = Some(now);
        self.next_cas += 1;
        let id = CasId(self.next_cas);
        self.view.on_cas_sent(OpenCas {
            id,
            expected: base.version,
            record,
            sent: now,
            awaiting_reply: true,
        });
        self.out.push(Command::Cas { id, uid: base.uid, expected: base.version, record });
        true
    }

    /// A write again while the outcome of one is unknown: its success settles the earlier one (rule 3). An unsettled
    /// pairing is not repeated but taken back: whatever made its reply stay away speaks against it.
    fn retry_open(&mut self, now: Ms) {
        let Some(base) = self.view.last().copied() else { return };
        let again =
            self.view.open().last().filter(|o| !o.awaiting_reply && o.expected == base.version).copied();
        if let Some(open) = again {
            let record = Record { mode: Mode::Solo, standby_volume: None, ..open.record };
            self.cas(now, &base, record);
            self.read(now);
        }
    }

    fn note(&mut self, note: Note) {
        self.out.push(Command::Note(note));
    }

    /// Out of recovery, on its way out, or started from a primary's directory.
    fn postgres_may_write(&self) -> bool {
        matches!(self.pg.state, PostgresState::Primary | PostgresState::Promoting)
            || (self.postgres_is_up() && self.pg.directory == Directory::Primary)
    }

    fn postgres_is_up(&self) -> bool {
        self.pg.state != PostgresState::Down
    }

    /// Whether the named incarnation may still run on another node, where our lock does not reach.
    fn is_elsewhere(&self) -> bool {
        let other_node = self.durable.node.is_some_and(|n| n != self.node);
        other_node && self.record().is_none_or(|r| r.primary != self.me)
    }

    fn predecessor(&self) -> Option<Incarnation> {
        let named = self.record().filter(|_| !self.is_elsewhere())?.primary;
        (named.instance == self.me.instance && named.incarnation != self.me.incarnation)
            .then_some(named.incarnation)
    }
}
