//! Postgres and the worker that drives it: what the adapters do with a wish, as far as the claims depend on it.

use pgpair_core::authority::{Authority, Directory, PgFacts, SyncState, Want};
use pgpair_core::ids::{InstanceId, SystemIdentifier, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;

use crate::action::Action;
use crate::bounds::{Bounds, Part};
use crate::world::{Promotion, World};

/// More failed starts in a row than the protocol counts.
const ENOUGH: u32 = 3;

impl World {
    /// What a look at postgres shows.
    #[must_use]
    pub fn facts(&self, i: InstanceId, bounds: &Bounds) -> PgFacts {
        let s = self.server(i);
        let up = s.state != PostgresState::Down;
        let has = s.volume.is_some();
        let end = Lsn(s.log.len() as u64);
        let streams = bounds.lag && self.streams(i.peer());
        // The worker waits for the end of a promotion, and tells nothing meanwhile.
        let (state, directory) = match s.state {
            PostgresState::Promoting => (PostgresState::Standby, Directory::Standby),
            state => (state, s.directory),
        };
        PgFacts {
            state,
            directory,
            volume: s.volume,
            system_identifier: s.volume.map(|_| SystemIdentifier(1)),
            timeline: up.then_some(TimelineId(s.timeline)),
            flush: up.then_some(if s.received { end } else { Lsn(0) }),
            standby_write: streams.then(|| Lsn(self.server(i.peer()).log.len() as u64)),
            replay: up.then_some(Lsn(s.replayed() as u64)),
            streaming: self.streams(i),
            end: (!up && has).then_some((TimelineId(s.timeline), end)),
            sync: s.proof,
            failed_starts: s.failed_starts,
            hung: s.hung,
        }
    }

    pub(crate) fn postgres_step(&mut self, action: Action, bounds: &Bounds) {
        match action {
            Action::Works(i) if bounds.fine => self.works(i, bounds),
            Action::Works(i) => return self.works_on(i, bounds),
            Action::Promotes(i) => self.begins_promotion(i, bounds),
            Action::Ready(i) => self.ready(i, bounds),
            Action::Switched(i) => self.switched(i),
            Action::Log(i) => self.log(i, 1, bounds),
            Action::Replays(i) => self.node_mut(i).server.unreplayed -= 1,
            Action::Commit(i) => self.commit(i),
            Action::Seeded(i) => self.seeded(i),
            _ => {}
        }
        self.seen(bounds);
    }

    /// A client commits, and is told at once where no commit waits.
    pub(crate) fn commit(&mut self, i: InstanceId) {
        self.commits += 1;
        let commit = self.commits;
        let s = &mut self.node_mut(i).server;
        s.log.push(commit);
        if !s.waits {
            self.acked.push(commit);
        }
    }

    pub(crate) fn seeded(&mut self, i: InstanceId) {
        let primary = self.server(i.peer()).clone();
        let volume = self.new_volume(i);
        let s = &mut self.node_mut(i).server;
        (s.directory, s.volume) = (Directory::Standby, Some(volume));
        (s.log, s.timeline, s.history) = (primary.log, primary.timeline, primary.history);
        (s.promotion, s.unreplayed) = (Promotion::None, 0);
    }

    /// A walreceiver is seen to come and go with the primary.
    fn seen(&mut self, bounds: &Bounds) {
        for i in InstanceId::ALL {
            self.changed(i, bounds);
        }
    }

    /// The worker goes on until there is nothing to do, or until somebody else has to do something.
    fn works_on(&mut self, i: InstanceId, bounds: &Bounds) {
        for _ in 0..10 {
            let before = self.server(i).clone();
            self.works(i, bounds);
            self.ready(i, bounds);
            self.switched(i);
            self.seen(bounds);
            if *self.server(i) == before {
                return;
            }
        }
    }

    /// A standby is promoted as far as that its `standby.signal` is gone, and no further for now.
    fn begins_promotion(&mut self, i: InstanceId, bounds: &Bounds) {
        self.spent.promotions += 1;
        while self.server(i).promotion != Promotion::SignalGone {
            let before = self.server(i).clone();
            self.works(i, bounds);
            self.ready(i, bounds);
            self.seen(bounds);
            if *self.server(i) == before {
                return;
            }
        }
    }

    /// One step of a start, or of a promotion. Recovery ends when everything that was received is replayed.
    pub(crate) fn ready(&mut self, i: InstanceId, bounds: &Bounds) {
        let term = self.authority(i).map(Authority::term);
        let s = &mut self.node_mut(i).server;
        match (s.state, s.promotion) {
            (PostgresState::Promoting, Promotion::Triggered) => {
                if bounds.without == Some(Part::Replay) {
                    s.cut_off(s.replayed());
                } else if s.unreplayed > 0 {
                    return;
                }
                (s.promotion, s.directory) = (Promotion::SignalGone, Directory::Primary);
            }
            (PostgresState::Promoting, _) => {
                s.history.push((s.timeline, s.log.len()));
                s.timeline = term.map_or(s.timeline + 1, |t| t.0);
                (s.state, s.promotion, s.received) = (PostgresState::Primary, Promotion::None, true);
                (s.waits, s.proof) = (false, SyncState::Off);
            }
            (PostgresState::Starting, _) => s.state = PostgresState::Primary,
            _ => {}
        }
    }

    pub(crate) fn switched(&mut self, i: InstanceId) {
        let s = &mut self.node_mut(i).server;
        if let Some((on, epoch)) = s.switching.take() {
            s.waits = on;
            let from = Lsn(s.log.len() as u64);
            s.proof = if on { SyncState::On { from, epoch } } else { SyncState::Off };
        }
    }

    /// So many commits at most, or only the news of a timeline. A primary whose commits wait tells its clients.
    pub(crate) fn log(&mut self, i: InstanceId, most: usize, bounds: &Bounds) {
        let [a, b] = &mut self.nodes;
        let (s, primary) =
            if i == InstanceId::A { (&mut a.server, &b.server) } else { (&mut b.server, &a.server) };
        let missing = primary.log.get(s.log.len()..).unwrap_or_default();
        let got = &missing[..missing.len().min(most)];
        s.log.extend_from_slice(got);
        s.unreplayed += if bounds.slow_replay { got.len() } else { 0 };
        s.received |= !got.is_empty();
        (s.timeline, s.history) = primary.place(s.log.len());
        if !got.is_empty() && primary.writes() && primary.waits {
            self.acknowledge(i);
        }
    }

    /// The log of `i` is acknowledged up to its end, from behind the last commit in it that is acknowledged already.
    fn acknowledge(&mut self, i: InstanceId) {
        let acked = &mut self.acked;
        let log = &self.nodes[crate::world::index(i)].server.log;
        let told = log.iter().rposition(|commit| acked.binary_search(commit).is_ok());
        let new = &log[told.map_or(0, |told| told + 1)..];
        let in_order = acked.last() < new.first();
        acked.extend_from_slice(new);
        if !in_order {
            acked.sort_unstable();
        }
    }

    pub(crate) fn works(&mut self, i: InstanceId, bounds: &Bounds) {
        let Some(authority) = self.authority(i) else { return };
        let desired = authority.desired(self.now(i));
        let term = authority.term();
        let s = self.server(i);
        if (desired.postgres, s.state, s.promotion)
            == (Want::Primary, PostgresState::Down, Promotion::SignalGone)
            && bounds.without != Some(Part::Settle)
        {
            let s = &mut self.node_mut(i).server;
            (s.directory, s.promotion) = (Directory::Standby, Promotion::None);
            return;
        }
        let starts = matches!(desired.postgres, Want::Primary | Want::Promoted | Want::Following(_));
        if s.broken && starts && s.state == PostgresState::Down {
            let failed = &mut self.node_mut(i).server.failed_starts;
            *failed = (*failed + 1).min(ENOUGH);
            return;
        }
        match (desired.postgres, s.state) {
            (Want::Stopped, up) if up != PostgresState::Down && !s.hung => self.node_mut(i).server.kill(),
            (Want::Down, PostgresState::Standby) => self.node_mut(i).server.kill(),
            (Want::Initialise, _) => {
                let volume = Some(self.new_volume(i));
                let s = &mut self.node_mut(i).server;
                (s.directory, s.volume) = (Directory::Primary, volume);
            }
            (Want::Primary, PostgresState::Down) => {
                self.reign(i, term);
                let s = &mut self.node_mut(i).server;
                (s.state, s.failed_starts, s.received) = (PostgresState::Starting, 0, true);
                s.promotion = Promotion::None;
                s.waits = desired.synchronous;
            }
            (Want::Promoted, PostgresState::Standby) => self.promote(i, term),
            (Want::Promoted, PostgresState::Down) if s.directory == Directory::Standby => {
                let s = &mut self.node_mut(i).server;
                s.failed_starts = 0;
                s.starts_as_standby();
            }
            (Want::Following(term), PostgresState::Down) => self.follow(i, term, bounds),
            (Want::Following(term), PostgresState::Standby) if !self.streams(i) => {
                self.rejoin(i, term, bounds)
            }
            (Want::Primary | Want::Promoted, PostgresState::Primary) => {
                self.tend(i, desired.synchronous, desired.sync_epoch, desired.admit_clients);
            }
            _ => {}
        }
    }

    fn promote(&mut self, i: InstanceId, term: Term) {
        self.reign(i, term);
        let s = &mut self.node_mut(i).server;
        (s.state, s.promotion) = (PostgresState::Promoting, Promotion::Triggered);
        if self.forced == Some(term) {
            let kept = self.nodes[crate::world::index(i)].server.log.clone();
            self.acked.retain(|commit| kept.contains(commit));
        }
    }

    fn reign(&mut self, i: InstanceId, term: Term) {
        match self.reigns.iter().find(|(t, _)| *t == term) {
            Some((_, who)) => self.two_reigned |= *who != i,
            None => self.reigns.push((term, i)),
        }
    }

    fn follow(&mut self, i: InstanceId, term: Term, bounds: &Bounds) {
        match self.server(i).directory {
            Directory::Standby => {
                let s = &mut self.node_mut(i).server;
                s.failed_starts = 0;
                s.starts_as_standby();
            }
            Directory::Primary => self.rejoin(i, term, bounds),
            Directory::Unknown | Directory::Empty | Directory::Unusable => {}
        }
    }

    /// Compared with a primary that has confirmed its promotion in that term (rule 11), and cut back to what both have.
    fn rejoin(&mut self, i: InstanceId, term: Term, bounds: &Bounds) {
        let says = self.authority(i.peer()).map(Authority::term);
        if self.stream_cut || !self.server(i.peer()).writes() || says != Some(term) {
            return;
        }
        let primary = self.server(i.peer()).clone();
        let s = &mut self.node_mut(i).server;
        if s.directory == Directory::Standby && s.is_past_of(&primary) {
            return;
        }
        let fork = s.fork(&primary);
        if bounds.without != Some(Part::Rewind) {
            s.cut_off(fork);
        }
        (s.timeline, s.history) = primary.place(s.log.len());
        (s.directory, s.promotion) = (Directory::Standby, Promotion::None);
        s.starts_as_standby();
    }

    fn tend(&mut self, i: InstanceId, synchronous: bool, epoch: u32, admit: bool) {
        let s = &mut self.node_mut(i).server;
        if s.switching.is_some() {
            return;
        }
        let proven = match s.proof {
            SyncState::On { epoch: of, .. } => synchronous && of == epoch,
            SyncState::Off => !synchronous,
            SyncState::Unknown => false,
        };
        if proven {
            s.open |= admit;
            return;
        }
        // Off takes effect at once, though it is proven later; whoever waited is told.
        s.switching = Some((synchronous, epoch));
        s.proof = SyncState::Unknown;
        if !synchronous && s.waits {
            s.waits = false;
            self.acknowledge(i);
        }
    }
}
