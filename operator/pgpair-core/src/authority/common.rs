//! What both roles need: who this is, what it knows of the record and of postgres, what it was asked, what it wants sent.

use crate::authority::clause::Clause;
use crate::authority::event::{Command, ReplyId};
use crate::authority::facts::{Directory, PgFacts, SyncState};
use crate::authority::messages::{Answer, CanTake, Heartbeat, StandbyInfo, Verdict};
use crate::authority::notes::Note;
use crate::authority::orders::Orders;
use crate::authority::promises::Promises;
use crate::authority::role::Primary;
use crate::authority::settings::{Durable, NodeId, Settings};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::{CasId, OpenCas, View};
use crate::ids::{Incarnation, InstanceId, Term};
use crate::instance::{PostgresState, Role};
use crate::lsn::Lsn;
use crate::order::OrderReply;
use crate::record::{Began, Beginning, Durability, Holder, Mode, Record, Versioned};

/// The state that means the same in both roles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Common {
    pub(super) me: Holder,
    pub(super) node: NodeId,
    pub(super) timing: Timing,
    pub(super) settings: Settings,
    pub(super) durable: Durable,
    pub(super) persisted: Durable,
    pub(super) persisting: bool,
    pub(super) born: Ms,
    pub(super) view: View,
    pub(super) promises: Promises,
    pub(super) pg: PgFacts,
    /// What the other one said in its last answer in this term, and when. A primary goes by it.
    pub(super) peer: Option<(Ms, StandbyInfo)>,
    /// Number of the last wish that commits wait; each new one needs a new proof, and each term begins with another one.
    pub(super) sync_epoch: u32,
    pub(super) questions: Vec<(ReplyId, CanTake, Ms)>,
    pub(super) orders: Orders,
    pub(super) leaving: Option<Ms>,
    /// The term that this process has resigned: whatever its role becomes, it never writes again in it.
    pub(super) given_up: Option<Term>,
    pub(super) cas_tried: Option<Ms>,
    pub(super) next_cas: u64,
    /// The term that this process last tried to begin, and how.
    pub(super) beginning: Option<(Term, Began)>,
    /// Empty between two events.
    pub(super) out: Vec<Command>,
}

impl Common {
    /// A new process, at `now`, with what its volume's disk remembers.
    pub(super) fn new(me: Holder, node: NodeId, settings: Settings, durable: Durable, now: Ms) -> Common {
        Common {
            me,
            node,
            timing: settings.timing,
            settings,
            durable,
            persisted: durable,
            persisting: false,
            born: now,
            view: View::default(),
            promises: Promises::of_new_process(me.incarnation, u64::from(durable.longest_ttl_ms), now),
            pg: PgFacts::default(),
            peer: None,
            sync_epoch: 0,
            questions: Vec::new(),
            orders: Orders::default(),
            leaving: None,
            given_up: None,
            cas_tried: None,
            next_cas: 0,
            beginning: None,
            out: Vec::new(),
        }
    }

    /// The newest term that this agent has seen or has on disk.
    pub(super) fn term(&self) -> Term {
        self.record().map_or(self.durable.term, |r| r.term.max(self.durable.term))
    }

    /// This instance's role in [`Common::term`]; from the disk while the record has not been read.
    pub(super) fn role(&self) -> Role {
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
    pub(super) fn record(&self) -> Option<&Record> {
        self.view.last().map(|v| &v.record)
    }

    /// Whether this process has resigned the present term.
    pub(super) fn has_resigned(&self) -> bool {
        self.given_up == Some(self.term())
    }

    /// The stricter of what is set and what the record says: a promise to clients is weakened in the record first, and
    /// strengthened here first.
    pub(super) fn durability(&self) -> Durability {
        let set = self.settings.durability;
        self.record().map_or(set, |r| r.durability.max(set))
    }

    pub(super) fn is_settled_solo(&self) -> bool {
        self.view.settled().is_some_and(|v| v.record.mode == Mode::Solo && v.record.primary == self.me)
    }

    /// Whether the data directory is the one that the record (or, unread, the disk) names for this instance as primary.
    pub(super) fn volume_is_named(&self) -> bool {
        let named = match self.record() {
            Some(r) => r.primary_volume,
            None => self.durable.volume,
        };
        self.term() == Term(0) || (named.is_some() && named == self.pg.volume)
    }

    /// Asks for a linearizable read, unless one is under way or was just tried.
    pub(super) fn read(&mut self, now: Ms) {
        if self.view.may_read(now, self.timing.retry_every()) {
            self.view.reading(now);
            self.out.push(Command::Read { asked: now });
        }
    }

    /// Sends a compare-and-set from `base`; the same again, for one whose outcome is unknown, at the pace of a retry.
    pub(super) fn cas(&mut self, now: Ms, base: &Versioned, record: Record) -> bool {
        if self.cas_tried.is_some_and(|t| now - t < self.timing.retry_every())
            || self.view.open().iter().any(|o| o.awaiting_reply)
        {
            return false;
        }
        self.cas_tried = Some(now);
        self.next_cas = self.next_cas.wrapping_add(1);
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
    pub(super) fn retry_open(&mut self, now: Ms) {
        let Some(base) = self.view.last().copied() else { return };
        let again =
            self.view.open().last().filter(|o| !o.awaiting_reply && o.expected == base.version).copied();
        if let Some(open) = again {
            let record = Record { mode: Mode::Solo, standby_volume: None, ..open.record };
            self.cas(now, &base, record);
            self.read(now);
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        self.out.push(Command::Note(note));
    }

    /// Out of recovery, on its way out, or started from a primary's directory.
    pub(super) fn postgres_may_write(&self) -> bool {
        matches!(self.pg.state, PostgresState::Primary | PostgresState::Promoting)
            || (self.postgres_is_up() && self.pg.directory == Directory::Primary)
    }

    pub(super) fn postgres_is_up(&self) -> bool {
        self.pg.state != PostgresState::Down
    }

    /// Whether the named incarnation may still run on another node, where our lock does not reach.
    pub(super) fn is_elsewhere(&self) -> bool {
        let other_node = self.durable.node.is_some_and(|n| n != self.node);
        other_node && self.record().is_none_or(|r| r.primary != self.me)
    }

    pub(super) fn predecessor(&self) -> Option<Incarnation> {
        let named = self.record().filter(|_| !self.is_elsewhere())?.primary;
        (named.instance == self.me.instance && named.incarnation != self.me.incarnation)
            .then_some(named.incarnation)
    }

    pub(super) fn predecessor_is(&self, incarnation: Incarnation) -> bool {
        let named = self.record().map(|r| r.primary);
        named.is_some_and(|n| n.instance == self.me.instance && n.incarnation == incarnation)
    }

    pub(super) fn end_job(&mut self, reply: OrderReply) {
        if self.orders.job.take().is_some() {
            self.out.push(Command::OrderEnded(reply));
        }
    }

    /// Said to the primary with each answer: it has to go `Solo` before this standby stops (rule 8).
    pub(super) fn stops_as_standby(&self) -> bool {
        self.leaving.is_some() || self.orders.stops_standby() || self.durable.fenced
    }

    /// The primary goes on alone, or has had the time to.
    pub(super) fn may_stop_as_standby(&self, now: Ms) -> bool {
        let began = self.leaving.or(self.orders.job.map(|j| j.since)).unwrap_or(self.born);
        now - began >= 2 * self.timing.ttl()
            || self.view.settled().is_some_and(|v| v.record.mode == Mode::Solo)
    }

    pub(super) fn push_heartbeat(&mut self, now: Ms) {
        let (seq, echo) = self.promises.held.next(now, self.timing);
        self.out.push(Command::Heartbeat(Heartbeat {
            term: self.term(),
            from: self.me,
            seq,
            ttl_ms: u32::try_from(self.timing.ttl()).unwrap_or(u32::MAX),
            echo,
            version: self.view.last().map(|v| v.version),
        }));
    }

    /// To a heartbeat of ours, of which a process in any role may have sent some.
    pub(super) fn on_answer(&mut self, now: Ms, answer: &Answer) {
        if answer.to != self.me.incarnation {
            return;
        }
        if let Verdict::NewerTerm(term) = answer.verdict
            && term > self.term()
        {
            self.read(now);
            return;
        }
        let first = self.promises.held.promised(self.term()).is_none();
        let promised = self.promises.held.on_answer(self.term(), answer);
        if first && !promised && answer.verdict == Verdict::Challenge && !self.has_resigned() {
            // The way back is proven now: ask again at once instead of after a tenth of ttl.
            self.push_heartbeat(now);
        }
        // A late answer to an earlier heartbeat tells of the standby as it was.
        if self.promises.held.heard.is_none_or(|(latest, _)| latest <= answer.seq) {
            self.peer = Some((now, answer.standby));
        }
    }

    /// What the record says of the term goes to the disk. Says whether the term is a new one.
    pub(super) fn learn_term(&mut self) -> bool {
        let Some(v) = self.view.last().copied() else { return false };
        if self.durable.record_uid.is_none() && !self.view.foreign() {
            self.durable.record_uid = Some(v.uid);
        }
        let primary = v.record.primary.instance == self.me.instance;
        let is_new = v.record.term > self.durable.term;
        if is_new {
            self.durable.term = v.record.term;
            (self.durable.mode, self.durable.began) = (None, self.how_began(&v.record));
            self.promises.given.new_term();
            self.peer = None;
            self.given_up = None;
            self.sync_epoch = self.sync_epoch.wrapping_add(1); // its proofs must not be taken for new ones
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
        is_new
    }

    /// Tries to begin the next term, or the first one.
    pub(super) fn begin_term(&mut self, now: Ms, base: &Versioned, how: Beginning, record: Record) -> bool {
        let sent = self.cas(now, base, record);
        if sent {
            self.beginning = Some((record.term, Began { how, before: base.record.mode }));
        }
        sent
    }

    /// Only the process that began a term knows how.
    fn how_began(&self, record: &Record) -> Option<Began> {
        let (term, began) = self.beginning?;
        (term == record.term && record.primary == self.me).then_some(began)
    }

    /// What the record says of the present term besides, for the volume; of a primary with what it is about to do.
    pub(super) fn remember(&mut self, primary: Option<&Primary>) {
        let Some(record) = self.record().copied().filter(|r| r.term == self.durable.term) else { return };
        let pairs_with = primary.and_then(|p| p.pairing.pairs_with);
        let waits_to_pair = primary.is_some_and(|p| p.pairing.sync_since.is_some());
        let gives_up = self.has_resigned() || primary.is_some_and(|p| p.resign.hands_over_log());
        let is_primary = record.primary.instance == self.me.instance;
        let mode = match record.mode {
            Mode::Solo if is_primary && gives_up => None,
            Mode::Solo if is_primary && pairs_with.is_some() => Some(Mode::Paired),
            // Whoever wrote it may have paired, or commits still wait.
            Mode::Solo if is_primary && (waits_to_pair || !self.is_settled_solo()) => self.durable.mode,
            mode => Some(mode),
        };
        let d = &mut self.durable;
        (d.mode, d.durability) = (mode, Some(record.durability));
        d.standby_volume = match mode {
            Some(Mode::Paired) => record.standby_volume.or(pairs_with).or(d.standby_volume),
            Some(Mode::Solo) | None => None,
        };
    }

    /// Whether the disk says this of the present term.
    pub(super) fn has_stored(&self, mode: Mode) -> bool {
        self.persisted.term == self.term() && self.persisted.mode == Some(mode)
    }

    pub(super) fn persist(&mut self) {
        if self.durable != self.persisted && !self.persisting {
            self.persisting = true;
            self.out.push(Command::Persist(self.durable));
        }
    }

    /// Commits wait for the standby except under settled `Solo` in `Sync`, and in `Async`. Never weakened on less, and not before the disk says so.
    pub(super) fn wants_sync(&self, waiting_to_pair: bool) -> bool {
        match self.durability() {
            Durability::Async => !Clause::SoloStored.demands(self.has_stored_async()),
            Durability::SyncStrict => true,
            Durability::Sync if Clause::SyncUntilSolo.is_taken_away() && self.view.has_open() => false,
            Durability::Sync => {
                let stored = Clause::SoloStored.demands(self.has_stored(Mode::Solo));
                !self.is_settled_solo() || !stored || waiting_to_pair
            }
        }
    }

    fn has_stored_async(&self) -> bool {
        self.persisted.term == self.term() && self.persisted.durability == Some(Durability::Async)
    }

    /// Clients are let in only when what they see cannot be lost: see `Desired::admit_clients`.
    pub(super) fn admits_clients(&self) -> bool {
        self.durability() == Durability::Async
            || (self.is_settled_solo() && self.durability() == Durability::Sync)
            || self.peer.is_some_and(|(_, info)| self.sync_is_confirmed(info.position()))
    }

    pub(super) fn sync_is_confirmed(&self, position: Option<Lsn>) -> bool {
        match self.pg.sync {
            SyncState::On { from, epoch } => {
                Clause::ProofOfThisWish.demands(epoch == self.sync_epoch) && position >= Some(from)
            }
            SyncState::Unknown | SyncState::Off => false,
        }
    }
}
