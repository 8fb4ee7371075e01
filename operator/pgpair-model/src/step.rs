//! What each [`Action`] does.

use pgpair_core::authority::FailoverCause;
use pgpair_core::authority::OnPostgresCrash;
use pgpair_core::authority::messages::Verdict;
use pgpair_core::authority::view::{CasOutcome, ReadOutcome};
use pgpair_core::authority::{
    Authority, Command, Directory, Durability, Event, Note, PgFacts, Settings, Want,
};
use pgpair_core::ids::InstanceId;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::record::Version;

use crate::action::Action;
use crate::bounds::{Bounds, Part, TTL_MS};
use crate::world::{Bond, Kind, Message, NOW, Read, Told, UID, Worker, World, Write, index, timing};

/// Settings of both agents.
#[must_use]
pub fn settings(durability: Durability) -> Settings {
    Settings {
        timing: timing(),
        durability,
        max_lag: 1_000,
        automatic: true,
        on_crash: OnPostgresCrash::Failover,
    }
}

impl World {
    /// Makes it happen, and brings the result into its canonical form.
    pub fn take(&mut self, action: Action, bounds: &Bounds) {
        #[cfg(feature = "mutations")]
        pgpair_core::authority::clause::take_away(bounds.taken);
        self.happen(action, bounds);
        self.tidy(bounds);
    }

    fn happen(&mut self, action: Action, bounds: &Bounds) {
        match action {
            Action::Clock(i) => self.clock(i, bounds),
            Action::Tick(i) => self.tell(i, Event::Tick, bounds),
            Action::Look(i) => self.look(i, bounds),
            Action::Stored(i) => self.stored(i, bounds),
            Action::Answered(i) => {
                let answer = Some(self.read());
                if let Some(read) = self.node_mut(i).agent.as_mut().and_then(|a| a.read.as_mut()) {
                    read.answer = answer;
                }
            }
            Action::ReadDone(i) => self.read_done(i, bounds),
            Action::Landed(i, n) => {
                self.landed(i, n, bounds);
                if !bounds.fine && self.node(i).writes.get(n).is_some_and(|w| w.awaited) {
                    self.given_up(i, n, bounds);
                }
            }
            Action::WriteDone(i, n) => {
                let write = self.node_mut(i).writes.remove(n);
                if let Some(outcome) = write.outcome {
                    self.tell(i, Event::Cas { id: write.id, outcome }, bounds);
                }
            }
            Action::NotSent(i, n) => {
                let write = self.node_mut(i).writes.remove(n);
                self.tell(i, Event::Cas { id: write.id, outcome: CasOutcome::NotSent }, bounds);
            }
            Action::Written(i, n) => {
                self.landed(i, n, bounds);
                self.happen(Action::WriteDone(i, n), bounds);
            }
            Action::GivenUp(i, n) => self.given_up(i, n, bounds),
            Action::Arrives(i, kind) => {
                let sent = &mut self.node_mut(i.peer()).sent;
                if let Some(n) = sent.iter().position(|m| m.kind() == kind) {
                    let message = sent.remove(n);
                    self.arrive(i, message, bounds);
                }
            }
            Action::Answers(i, kind) => {
                self.happen(Action::Arrives(i, kind), bounds);
                if let Some(answer) = self.answer_of(i) {
                    self.arrive(i.peer(), answer, bounds);
                }
            }
            Action::Strays(i, kind) => {
                self.happen(Action::Arrives(i, kind), bounds);
                if let Some(answer) = self.answer_of(i) {
                    self.late.push((i, answer));
                }
            }
            Action::Delayed(i, kind) => {
                let sent = &mut self.node_mut(i.peer()).sent;
                if let Some(n) = sent.iter().position(|m| m.kind() == kind) {
                    let message = sent.remove(n);
                    self.late.push((i.peer(), message));
                }
            }
            Action::ArrivesLate(n) => {
                let (from, message) = self.late[n].clone();
                if self.node(from.peer()).agent.is_some() {
                    self.arrive(from.peer(), message, bounds);
                }
            }
            Action::NoReply(i) => self.no_reply(i, bounds),
            Action::Works(_)
            | Action::Promotes(_)
            | Action::Ready(_)
            | Action::Switched(_)
            | Action::Log(_)
            | Action::Replays(_)
            | Action::Commit(_)
            | Action::Seeded(_) => self.postgres_step(action, bounds),
            _ => self.fault(action, bounds),
        }
    }

    /// One step of a clock. Whatever counts from it becomes that much older.
    fn clock(&mut self, i: InstanceId, bounds: &Bounds) {
        let now = NOW + bounds.unit();
        for (from, message) in &mut self.late {
            if let Message::Heartbeat(_, age) = message
                && *from == i
            {
                *age = (*age + 1).min(bounds.grain);
            }
        }
        for bond in &mut self.bonds[index(i)] {
            bond.lapse = bond.lapse.saturating_sub(1);
        }
        for bond in &mut self.bonds[index(i.peer())] {
            bond.end -= 1;
        }
        for bonds in &mut self.bonds {
            bonds.retain(|b| b.end > 0);
        }
        let node = self.node_mut(i);
        let due = node.agent.as_ref().and_then(|a| a.fence).is_some_and(|at| at <= now);
        if due && node.server.may_write() && bounds.without != Some(Part::Deadman) {
            node.server.kill();
        }
        self.pass_time(i, bounds.unit());
        // A step is longer than what was seen of a standby counts.
        if self.node(i).agent.as_ref().is_some_and(|a| a.worker == Worker::Stuck) {
            self.set_worker(i, Worker::Unseen);
        }
        self.give_up_waiting(i, bounds);
        if due && !bounds.slow_node && !bounds.stalls {
            self.look(i, bounds);
        }
        if !bounds.stalls {
            self.tell(i, Event::Tick, bounds);
        }
    }

    /// Nobody waits for as long as a step of the clock: what was asked and is not answered by then has failed. What the
    /// peer may yet get was [`Action::Delayed`], and a write that may yet land [`Action::GivenUp`] before.
    fn give_up_waiting(&mut self, i: InstanceId, bounds: &Bounds) {
        let is_question = |m: &Message| matches!(m.kind(), Kind::Heartbeat | Kind::CanTake | Kind::Resign);
        self.node_mut(i).sent.retain(|m| !is_question(m));
        self.node_mut(i.peer()).sent.retain(is_question);
        // Only what was under way before: the first answer may make it ask anew.
        let asks = self.authority(i).is_some_and(Authority::waits_for_can_take);
        let node = self.node_mut(i);
        let read = node.agent.as_mut().and_then(|a| a.read.take());
        let write = node.writes.iter().position(|w| w.awaited).map(|n| node.writes.remove(n));
        if let Some(read) = read {
            self.tell(i, Event::Read { asked: read.asked, outcome: ReadOutcome::Failed }, bounds);
        }
        if let Some(write) = write {
            self.tell(i, Event::Cas { id: write.id, outcome: CasOutcome::NotSent }, bounds);
        }
        if asks && self.authority(i).is_some_and(Authority::waits_for_can_take) {
            self.no_reply(i, bounds);
        }
    }

    fn no_reply(&mut self, i: InstanceId, bounds: &Bounds) {
        self.node_mut(i).sent.retain(|m| m.kind() != Kind::CanTake);
        self.node_mut(i.peer()).sent.retain(|m| m.kind() != Kind::CanTakeReply);
        self.tell(i, Event::CanTakeReply(None), bounds);
    }

    pub(crate) fn stored(&mut self, i: InstanceId, bounds: &Bounds) {
        let node = self.node_mut(i);
        if let Some(durable) = node.agent.as_mut().and_then(|a| a.storing.take()) {
            node.disk = durable;
            self.tell(i, Event::Persisted(durable), bounds);
        }
    }

    fn read_done(&mut self, i: InstanceId, bounds: &Bounds) {
        let now = self.read();
        let Some(read) = self.node_mut(i).agent.as_mut().and_then(|a| a.read.take()) else { return };
        self.tell(i, Event::Read { asked: read.asked, outcome: read.answer.unwrap_or(now) }, bounds);
    }

    fn landed(&mut self, i: InstanceId, n: usize, bounds: &Bounds) {
        let write = self.node(i).writes[n];
        let outcome = self.compare_and_set(i, &write, bounds);
        if write.awaited {
            self.node_mut(i).writes[n].outcome = Some(outcome);
        } else {
            self.node_mut(i).writes.remove(n);
        }
    }

    /// What the API server does with a write of `i`.
    pub(crate) fn compare_and_set(&mut self, i: InstanceId, write: &Write, bounds: &Bounds) -> CasOutcome {
        if self.uid.is_none() {
            return CasOutcome::Missing;
        }
        let is_current = write.expected == self.version && Some(write.uid) == self.uid;
        if !is_current && bounds.without != Some(Part::CompareAndSet) {
            return CasOutcome::Conflict;
        }
        (self.version, self.record) = (Version(self.version.0 + 1), write.record);
        self.wrote_foreign |= self.uid != Some(UID) && self.node(i).disk.record_uid == Some(UID);
        CasOutcome::Won(self.version)
    }

    fn given_up(&mut self, i: InstanceId, n: usize, bounds: &Bounds) {
        self.spent.unknown += 1;
        let write = &mut self.node_mut(i).writes[n];
        write.awaited = false;
        let (id, landed) = (write.id, write.outcome.is_some());
        if landed {
            self.node_mut(i).writes.remove(n);
        }
        self.tell(i, Event::Cas { id, outcome: CasOutcome::Unknown }, bounds);
    }

    /// What `i` has just answered.
    fn answer_of(&mut self, i: InstanceId) -> Option<Message> {
        let sent = &mut self.node_mut(i).sent;
        let n = sent.iter().position(|m| matches!(m.kind(), Kind::Answer | Kind::ResignReply))?;
        Some(sent.remove(n))
    }

    fn arrive(&mut self, i: InstanceId, message: Message, bounds: &Bounds) {
        match message {
            Message::Heartbeat(_, age) => self.heartbeat_arrives(i, message.event(), age, bounds),
            _ => self.tell(i, message.event(), bounds),
        }
    }

    /// A heartbeat that gets a promise ties the clocks together: see [`Bond`].
    fn heartbeat_arrives(&mut self, i: InstanceId, event: Event, age: u64, bounds: &Bounds) {
        self.node_mut(i).sent.retain(|m| m.kind() != Kind::Answer);
        self.tell(i, event, bounds);
        let promised = self
            .node(i)
            .sent
            .iter()
            .any(|m| matches!(m, Message::Answer(answer) if answer.verdict == Verdict::Promised));
        let ttl = u64::from(TTL_MS);
        let end = ttl.saturating_sub(age * bounds.unit()).div_ceil(bounds.unit());
        if promised && end > 0 {
            self.bonds[index(i)].push(Bond { end, lapse: bounds.grain });
        }
    }

    /// Tells the agent of `i` something, and carries out what it commands.
    pub(crate) fn tell(&mut self, i: InstanceId, event: Event, bounds: &Bounds) {
        if let Some(left) = self.lost_sight(i, bounds) {
            self.hand(i, Event::Postgres(left), bounds);
        }
        self.hand(i, event, bounds);
    }

    fn hand(&mut self, i: InstanceId, event: Event, bounds: &Bounds) {
        let now = self.now(i);
        let heard = self.told.as_ref().map(|_| event.clone());
        let Some(agent) = &mut self.node_mut(i).agent else { return };
        let unseen = agent.worker == Worker::Unseen && agent.authority.role() == Role::Standby;
        let commands = agent.authority.handle(now, event);
        if let (Some(event), Some(told)) = (heard, &mut self.told) {
            told.push(Told { who: i, at: now, event, commands: commands.clone() });
        }
        for command in commands {
            self.took_unseen |= unseen && matches!(command, Command::Note(Note::TakingOver { .. }));
            self.carry_out(i, command);
        }
        self.obey_gate(i, bounds);
        if !bounds.slow_node {
            self.stored(i, bounds);
        }
    }

    /// As the driver does after each event: what is writable and may not be is killed; the deadman is set.
    fn obey_gate(&mut self, i: InstanceId, bounds: &Bounds) {
        let now = self.now(i);
        let node = self.node_mut(i);
        let Some(agent) = &mut node.agent else { return };
        let desired = agent.authority.desired(now);
        agent.fence = desired.fence_at;
        let closed = !agent.authority.gate(now).is_open() || desired.postgres == Want::Down;
        if closed && node.server.may_write() {
            node.server.kill();
            self.changed(i, bounds);
        }
        if self.authority(i).is_some_and(|a| a.may_leave(now)) {
            self.crash(i);
        }
    }

    fn carry_out(&mut self, i: InstanceId, command: Command) {
        let node = self.node_mut(i);
        let message = match command {
            Command::Persist(durable) => {
                if let Some(agent) = &mut node.agent {
                    agent.storing = Some(durable);
                }
                return;
            }
            Command::Read { asked } => {
                if let Some(agent) = &mut node.agent {
                    agent.read = Some(Read { asked, answer: None });
                }
                return;
            }
            Command::Cas { id, uid, expected, record } => {
                node.writes.push(Write { id, uid, expected, record, awaited: true, outcome: None });
                return;
            }
            Command::Note(Note::TakingOver { term, cause, .. }) => {
                self.forced = (cause == FailoverCause::Forced).then_some(term);
                return;
            }
            Command::Heartbeat(hb) => Message::Heartbeat(hb, 0),
            Command::AnswerHeartbeat(_, answer) => Message::Answer(answer),
            Command::AskCanTake(question) => Message::CanTake(question),
            Command::AnswerCanTake(_, reply) => Message::CanTakeReply(reply),
            Command::Resign(resignation) => Message::Resign(resignation),
            Command::AnswerResignation(_, reply) => Message::ResignReply(reply),
            Command::AnswerOrder(..) | Command::OrderEnded(_) | Command::Note(_) => return,
        };
        self.send(i, message);
    }

    /// The last one of a kind is under way; the one before is lost, unless it was delayed. A new question has no reply yet.
    fn send(&mut self, i: InstanceId, message: Message) {
        if message.kind() == Kind::CanTake {
            self.node_mut(i.peer()).sent.retain(|m| m.kind() != Kind::CanTakeReply);
        }
        let sent = &mut self.node_mut(i).sent;
        sent.retain(|m| m.kind() != message.kind());
        sent.push(message);
        sent.sort_by_key(Message::kind);
    }

    /// What is left, for the state machine, of what the worker saw of a standby, if that is too old to count: the driver tells it before
    /// anything else.
    fn lost_sight(&self, i: InstanceId, bounds: &Bounds) -> Option<PgFacts> {
        let agent = self.node(i).agent.as_ref().filter(|a| a.worker == Worker::Unseen)?;
        let known = *agent.authority.postgres();
        let may_write = matches!(known.state, PostgresState::Primary | PostgresState::Promoting);
        let counts = agent.authority.role() == Role::Standby && known.directory == Directory::Standby;
        if !counts || may_write || bounds.without == Some(Part::Sight) {
            return None;
        }
        let state = match known.state {
            PostgresState::Standby => PostgresState::Starting,
            other => other,
        };
        Some(PgFacts { state, directory: Directory::Unknown, streaming: false, ..known })
    }

    /// The agent is told how postgres is.
    pub(crate) fn look(&mut self, i: InstanceId, bounds: &Bounds) {
        if self.node(i).agent.as_ref().is_some_and(|a| a.worker != Worker::Works) {
            return;
        }
        let facts = self.facts(i, bounds);
        if self.authority(i).is_some_and(|a| *a.postgres() != facts) {
            self.tell(i, Event::Postgres(facts), bounds);
        }
    }

    /// Postgres has changed: seen at once, unless looks may lag behind.
    pub(crate) fn changed(&mut self, i: InstanceId, bounds: &Bounds) {
        if !bounds.slow_node {
            self.look(i, bounds);
        }
    }

    /// All times of the node of `i` that count from now: a step later.
    fn pass_time(&mut self, i: InstanceId, by: u64) {
        let mut past = crate::canon::Past { by };
        self.walk_times(i, &mut past);
    }
}
