//! What may happen next.

use std::fmt;

use pgpair_core::authority::{Directory, Want};
use pgpair_core::ids::{Incarnation, InstanceId};
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::order::OrderKind;

use crate::bounds::{Bounds, Part};
use crate::world::{Agent, Kind, Worker, World};

/// One thing that happens. The instance is the one to which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Its clock moves one step; the deadman kills if it is time.
    Clock(InstanceId),
    /// Its agent looks at the clock.
    Tick(InstanceId),
    /// Its agent looks at postgres.
    Look(InstanceId),
    /// What its agent wanted to store is on disk.
    Stored(InstanceId),
    /// The API server answers its read; the answer is under way.
    Answered(InstanceId),
    /// The answer arrives.
    ReadDone(InstanceId),
    /// Its write of the record reaches the API server.
    Landed(InstanceId, usize),
    /// The reply to it arrives.
    WriteDone(InstanceId, usize),
    /// Its write reaches the API server, and the reply arrives at once.
    Written(InstanceId, usize),
    /// Its agent does not wait for the reply any more.
    GivenUp(InstanceId, usize),
    /// Its write was refused before it left.
    NotSent(InstanceId, usize),
    /// The peer's message arrives.
    Arrives(InstanceId, Kind),
    /// The peer's message arrives, and the answer to it arrives at once.
    Answers(InstanceId, Kind),
    /// The peer's message arrives; the answer to it will arrive late.
    Strays(InstanceId, Kind),
    /// The peer's message will arrive late.
    Delayed(InstanceId, Kind),
    /// A late message arrives, not for the last time.
    ArrivesLate(usize),
    /// No answer to its question whether the peer can take over.
    NoReply(InstanceId),
    /// Its worker takes one step towards the wish.
    Works(InstanceId),
    /// Its postgres is promoted and stands still between two steps of that: `standby.signal` is gone, its timeline has not begun.
    Promotes(InstanceId),
    /// Its postgres has come up, or has left recovery; of a promotion one step.
    Ready(InstanceId),
    /// Its switch of synchronous commit has taken effect.
    Switched(InstanceId),
    /// The next piece of the log arrives at this standby.
    Log(InstanceId),
    /// It replays the next commit that it has received.
    Replays(InstanceId),
    /// A client commits here.
    Commit(InstanceId),
    /// Its container is killed.
    Crash(InstanceId),
    /// Its container starts again.
    Start(InstanceId),
    /// Its postmaster is killed.
    PostgresCrash(InstanceId),
    /// The other instance's last dead agent is proven dead to this one.
    Proof(InstanceId),
    /// Its data volume is replaced by an empty one.
    Wipe(InstanceId),
    /// Its data directory is replaced by an older copy, which has another id.
    Replace(InstanceId),
    /// It is seeded from the primary.
    Seeded(InstanceId),
    /// It gets SIGTERM.
    Leave(InstanceId),
    /// It is ordered to hand over.
    Switchover(InstanceId),
    /// Something else is ordered.
    Order(InstanceId, Ordered),
    /// The end of a fence is ordered.
    Unfence(InstanceId),
    /// The operator carries out an ordered rebuild: the agent is asked to leave, then the directory is emptied.
    Copied(InstanceId),
    /// Somebody keeps a copy of its volume.
    Kept(InstanceId),
    /// Kubernetes is restored from a backup of the time when the pair was `Paired` in term 1.
    Restored,
    /// A person deletes the record.
    Deleted,
    /// Somebody makes a Lease of the same name.
    MadeAnew(Anew),
    /// Its postgres does not start any more, once it is down.
    Breaks(InstanceId),
    /// It would start again.
    Mended(InstanceId),
    /// Its postgres hangs.
    Hangs(InstanceId),
    /// The worker of its agent is stuck.
    Sticks(InstanceId),
    /// The worker goes on.
    Unsticks(InstanceId),
    /// So does its disk, for good: not even a kill ends it. Only among the troubles.
    Jams(InstanceId),
    /// It answers, but writes so slowly that a kill ends nothing for long.
    Lingers(InstanceId),
}

/// What a person orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ordered {
    /// Truly: the incarnation that the record names is dead.
    Promote,
    /// As soon as the rules allow it.
    TakeOver,
    /// Postgres anew.
    Restart,
    /// Postgres down.
    Fence,
    /// The directory copied anew.
    Rebuild,
}

impl Ordered {
    const ALL: [Ordered; 5] =
        [Ordered::Promote, Ordered::TakeOver, Ordered::Restart, Ordered::Fence, Ordered::Rebuild];

    /// As the agent gets it.
    #[must_use]
    pub fn kind(self, dead: Incarnation) -> OrderKind {
        match self {
            Ordered::Promote => OrderKind::Promote { dead },
            Ordered::TakeOver => OrderKind::TakeOver,
            Ordered::Restart => OrderKind::Restart,
            Ordered::Fence => OrderKind::Fence,
            Ordered::Rebuild => OrderKind::Rebuild,
        }
    }
}

/// What a Lease says that somebody made after the record was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Anew {
    /// What the old one said: restored from a backup.
    Copy,
    /// That the other instance is the primary, alone.
    OfTheOther,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Clock(i) => write!(f, "{i}: time passes"),
            Action::Tick(i) => write!(f, "{i}: the agent looks at the clock"),
            Action::Look(i) => write!(f, "{i}: the agent looks at postgres"),
            Action::Stored(i) => write!(f, "{i}: stored"),
            Action::Answered(i) => write!(f, "{i}: its read is answered, and the answer under way"),
            Action::ReadDone(i) => write!(f, "{i}: reads the record"),
            Action::Landed(i, n) => write!(f, "{i}: its write {n} reaches the API server"),
            Action::WriteDone(i, n) => write!(f, "{i}: the reply to write {n} arrives"),
            Action::Written(i, n) => write!(f, "{i}: its write {n} lands or is refused, and it knows"),
            Action::NotSent(i, n) => write!(f, "{i}: write {n} could not be sent"),
            Action::GivenUp(i, n) => write!(f, "{i}: no reply to write {n}: outcome unknown"),
            Action::Arrives(i, kind) => write!(f, "{i}: gets {kind:?}"),
            Action::Answers(i, kind) => write!(f, "{i}: gets {kind:?} and answers"),
            Action::Strays(i, kind) => write!(f, "{i}: gets {kind:?}; its answer is delayed, and doubled"),
            Action::Delayed(i, kind) => write!(f, "{i}: {kind:?} to it is delayed, and doubled"),
            Action::ArrivesLate(n) => write!(f, "late message {n} arrives"),
            Action::NoReply(i) => write!(f, "{i}: no reply to its question"),
            Action::Works(i) => write!(f, "{i}: the worker acts"),
            Action::Promotes(i) => write!(f, "{i}: a promotion begins, and its timeline does not yet"),
            Action::Ready(i) => write!(f, "{i}: postgres is ready"),
            Action::Switched(i) => write!(f, "{i}: synchronous commit is switched"),
            Action::Log(i) => write!(f, "{i}: gets log"),
            Action::Replays(i) => write!(f, "{i}: replays"),
            Action::Commit(i) => write!(f, "{i}: a client commits"),
            Action::Crash(i) => write!(f, "{i}: container killed"),
            Action::Start(i) => write!(f, "{i}: agent starts"),
            Action::PostgresCrash(i) => write!(f, "{i}: postmaster killed"),
            Action::Proof(i) => write!(f, "{i}: the other's last agent is proven dead"),
            Action::Replace(i) => write!(f, "{i}: an older data directory"),
            Action::Wipe(i) => write!(f, "{i}: volume replaced"),
            Action::Seeded(i) => write!(f, "{i}: seeded"),
            Action::Leave(i) => write!(f, "{i}: SIGTERM"),
            Action::Switchover(i) => write!(f, "{i}: switchover ordered"),
            Action::Order(i, ordered) => write!(f, "{i}: {ordered:?} ordered"),
            Action::Unfence(i) => write!(f, "{i}: Unfence ordered"),
            Action::Copied(i) => write!(f, "{i}: asked to leave, to be copied anew"),
            Action::Kept(i) => write!(f, "{i}: a copy of the volume is kept"),
            Action::Restored => write!(f, "Kubernetes is restored: Paired in term 1"),
            Action::Deleted => write!(f, "the record is deleted"),
            Action::MadeAnew(anew) => write!(f, "a Lease is made anew: {anew:?}"),
            Action::Breaks(i) => write!(f, "{i}: postgres would not start any more"),
            Action::Mended(i) => write!(f, "{i}: postgres would start again"),
            Action::Hangs(i) => write!(f, "{i}: postgres hangs"),
            Action::Sticks(i) => write!(f, "{i}: the worker is stuck"),
            Action::Unsticks(i) => write!(f, "{i}: the worker is stuck no more"),
            Action::Jams(i) => write!(f, "{i}: the disk hangs"),
            Action::Lingers(i) => write!(f, "{i}: the disk is slow"),
        }
    }
}

impl World {
    /// What may happen next. Some of it may turn out to change nothing.
    pub fn possible(&self, bounds: &Bounds, out: &mut Vec<Action>) {
        for i in InstanceId::ALL {
            self.possible_of_time(i, bounds, out);
            self.possible_of_network(i, bounds, out);
            self.possible_of_server(i, bounds, out);
            self.possible_of_faults(i, bounds, out);
            self.possible_of_people(i, bounds, out);
        }
        if self.uid.is_some() && self.spent.foreign < bounds.foreign {
            out.push(Action::Deleted);
        }
        let runs = InstanceId::ALL.iter().any(|i| self.node(*i).agent.is_some());
        if !runs && self.spent.restores < bounds.restores {
            out.push(Action::Restored);
        }
        if self.uid.is_none() {
            out.extend([Action::MadeAnew(Anew::Copy), Action::MadeAnew(Anew::OfTheOther)]);
        }
        out.extend((0..self.late.len()).map(Action::ArrivesLate));
    }

    fn possible_of_time(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        if self.clock_may_move(i, bounds) {
            out.push(Action::Clock(i));
        }
        let Some(agent) = &self.node(i).agent else { return };
        if bounds.stalls {
            out.push(Action::Tick(i));
        }
        if (bounds.stalls || bounds.slow_node) && agent.worker == Worker::Works {
            out.push(Action::Look(i));
        }
        if bounds.slow_node && agent.storing.is_some() {
            out.push(Action::Stored(i));
        }
    }

    fn possible_of_network(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        let node = self.node(i);
        if let Some(read) = node.agent.as_ref().and_then(|a| a.read) {
            if bounds.stale_reads && read.answer.is_none() {
                out.push(Action::Answered(i));
            }
            if !bounds.stale_reads || read.answer.is_some() {
                out.push(Action::ReadDone(i));
            }
        }
        for (n, write) in node.writes.iter().enumerate() {
            if write.outcome.is_none() {
                let split = bounds.fine || !write.awaited;
                out.push(if split { Action::Landed(i, n) } else { Action::Written(i, n) });
                if !split && self.spent.unknown < bounds.unknown && write.expected == self.version {
                    out.push(Action::Landed(i, n));
                }
            }
            if write.awaited {
                if write.outcome.is_some() {
                    out.push(Action::WriteDone(i, n));
                }
                if bounds.refusals && write.outcome.is_none() {
                    out.push(Action::NotSent(i, n));
                }
                if self.spent.unknown < bounds.unknown {
                    out.push(Action::GivenUp(i, n));
                }
            }
        }
        let Some(agent) = &node.agent else { return };
        for message in &self.node(i.peer()).sent {
            let kind = message.kind();
            out.push(Action::Arrives(i, kind));
            if !bounds.fine && matches!(kind, Kind::Heartbeat | Kind::Resign) {
                out.push(Action::Answers(i, kind));
                if self.late.len() < usize::from(bounds.late) {
                    out.push(Action::Strays(i, kind));
                }
            }
            let may_be_late = matches!(kind, Kind::Heartbeat | Kind::Answer | Kind::Resign);
            if may_be_late && self.late.len() < usize::from(bounds.late) {
                out.push(Action::Delayed(i, kind));
            }
        }
        if agent.authority.waits_for_can_take() {
            out.push(Action::NoReply(i));
        }
    }

    fn possible_of_server(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        let s = self.server(i);
        let is_meant = |a: &Agent| a.authority.postgres().state == s.state && a.worker == Worker::Works;
        if self.node(i).agent.as_ref().is_some_and(is_meant) {
            out.push(Action::Works(i));
        }
        if !bounds.fine && self.spent.promotions < bounds.promotions && self.is_to_be_promoted(i) {
            out.push(Action::Promotes(i));
        }
        if matches!(s.state, PostgresState::Starting | PostgresState::Promoting) {
            out.push(Action::Ready(i));
        }
        if s.switching.is_some() {
            out.push(Action::Switched(i));
        }
        if self.streams(i) || self.fetches(i) {
            out.push(Action::Log(i));
        }
        if s.unreplayed > 0 && matches!(s.state, PostgresState::Standby | PostgresState::Promoting) {
            out.push(Action::Replays(i));
        }
        if s.writes() && s.open && !s.hung && self.commits < u32::from(bounds.commits) {
            out.push(Action::Commit(i));
        }
    }

    fn possible_of_faults(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        let node = self.node(i);
        if node.server.broken {
            out.push(Action::Mended(i));
        } else if self.spent.unstartable < bounds.unstartable && node.server.volume.is_some() {
            out.push(Action::Breaks(i));
        }
        if node.server.writes() && !node.server.hung && self.spent.hangs < bounds.hangs {
            out.push(Action::Hangs(i));
        }
        if self.spent.copies < bounds.copies && node.server.volume.is_some() {
            out.push(Action::Kept(i));
        }
        if node.agent.is_none() {
            out.push(Action::Start(i));
            if self.spent.wipes < bounds.wipes && node.server.volume.is_some() {
                out.extend([Action::Wipe(i), Action::Replace(i)]);
            }
            return;
        }
        self.possible_of_worker(i, bounds, out);
        if self.spent.crashes < bounds.crashes {
            out.push(Action::Crash(i));
        }
        if self.spent.postgres_crashes < bounds.postgres_crashes && node.server.state != PostgresState::Down {
            out.push(Action::PostgresCrash(i));
        }
        if self.spent.proofs < bounds.proofs && self.node(i.peer()).dead.is_some() {
            out.push(Action::Proof(i));
        }
        if node.server.directory == Directory::Empty && self.server(i.peer()).writes() {
            out.push(Action::Seeded(i));
        }
        if self.spent.leaves < bounds.leaves {
            out.push(Action::Leave(i));
        }
    }

    /// That of a primary is left out: what is seen of a primary does not get old.
    fn possible_of_worker(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        let Some(agent) = &self.node(i).agent else { return };
        if agent.worker != Worker::Works {
            out.push(Action::Unsticks(i));
        } else if self.spent.stuck < bounds.stuck && agent.authority.role() == Role::Standby {
            out.push(Action::Sticks(i));
        }
    }

    fn possible_of_people(&self, i: InstanceId, bounds: &Bounds, out: &mut Vec<Action>) {
        let node = self.node(i);
        let Some(agent) = &node.agent else { return };
        if self.spent.switchovers < bounds.switchovers
            && agent.authority.postgres().state == PostgresState::Primary
        {
            out.push(Action::Switchover(i));
        }
        if self.spent.orders < bounds.orders {
            out.extend(
                Ordered::ALL
                    .into_iter()
                    .filter(|o| *o != Ordered::Promote || self.named_is_dead(i.peer()))
                    .map(|o| Action::Order(i, o)),
            );
        }
        if node.disk.fenced {
            out.push(Action::Unfence(i));
        }
        if agent.authority.rebuild_is_ordered() && !node.rebuild {
            out.push(Action::Copied(i));
        }
    }

    /// The worker would promote it now.
    fn is_to_be_promoted(&self, i: InstanceId) -> bool {
        let s = self.server(i);
        let standby = s.directory == Directory::Standby && !s.may_write() && !s.broken;
        standby
            && self.node(i).agent.as_ref().is_some_and(|a| {
                a.authority.postgres().state == s.state
                    && a.worker == Worker::Works
                    && a.authority.desired(self.now(i)).postgres == Want::Promoted
            })
    }

    /// The record names a process of that instance which does not run any more.
    fn named_is_dead(&self, i: InstanceId) -> bool {
        let named = self.record.primary;
        named.instance == i && self.authority(i).is_none_or(|a| a.me() != named)
    }

    /// Every promise that would lapse with this step of the clock of its giver has ended for its holder; and a reply of
    /// the API server has arrived or was given up.
    fn clock_may_move(&self, i: InstanceId, bounds: &Bounds) -> bool {
        let tied = bounds.without != Some(Part::Clocks);
        self.bonds[crate::world::index(i)].iter().all(|bond| bond.lapse > 1 || !tied)
            && self.node(i).writes.iter().all(|w| !w.awaited || w.outcome.is_none())
    }
}
