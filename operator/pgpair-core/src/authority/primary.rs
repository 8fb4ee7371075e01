//! The primary's rules: what is wished of its postgres, 7 (start-up), and its heartbeats.

use crate::authority::clause::Clause;
use crate::authority::messages::{Answer, Heartbeat, Verdict};
use crate::authority::pairing::HANG_PATIENCE_MS;
use crate::authority::timing::Ms;
use crate::authority::{Authority, Command, Directory, Durability, Gate, Want};
use crate::ids::Term;
use crate::instance::PostgresState;
use crate::record::{Mode, Record};

impl Authority {
    pub(super) fn desired_of_primary(&self, now: Ms, gate: Gate) -> Want {
        let writable = self.postgres_may_write();
        if self.term() == Term(0) {
            return match self.pg.directory {
                Directory::Empty | Directory::Unusable => Want::Initialise,
                _ => Want::Down,
            };
        }
        if !gate.is_open() {
            return if writable || !self.postgres_is_up() { Want::Down } else { Want::Unchanged };
        }
        // Without a successor much later: what looks like a hang may be a starved machine, and a kill would make it worse.
        let for_long = self.pairing.hung_since.is_some_and(|s| now - s >= HANG_PATIENCE_MS);
        let hopeless = self.resign.is_stopping() || (self.resign.is_declined() && for_long);
        if self.pg.hung && self.postgres_is_up() && hopeless {
            return Want::Down; // politeness would hang as well
        }
        let ends = self.leaving.is_some() || self.durable.fenced;
        if self.resign.is_stopping() || (ends && self.resign.is_declined()) || self.orders.stops_primary() {
            return Want::Stopped;
        }
        if self.resign.is_asking() && !self.postgres_is_up() {
            return Want::Down;
        }
        match self.pg.directory {
            Directory::Primary => Want::Primary,
            Directory::Standby if self.pg.state == PostgresState::Promoting || self.may_promote(now) => {
                Want::Promoted
            }
            Directory::Standby => Want::Unchanged,
            Directory::Unknown | Directory::Empty | Directory::Unusable => Want::Down,
        }
    }

    /// Commits wait for the standby except under settled `Solo` in `Sync`, and in `Async`. Never weakened on less.
    pub(super) fn wants_sync(&self) -> bool {
        match self.durability() {
            Durability::Async => false,
            Durability::SyncStrict => true,
            Durability::Sync if Clause::SyncUntilSolo.is_taken_away() && self.view.has_open() => false,
            Durability::Sync => !self.is_settled_solo() || self.pairing.sync_since.is_some(),
        }
    }

    /// Clients are let in only when what they see cannot be lost: see [`super::Desired::admit_clients`].
    pub(super) fn admits_clients(&self) -> bool {
        self.durability() == Durability::Async
            || (self.is_settled_solo() && self.durability() == Durability::Sync)
            || self.peer.is_some_and(|(_, info)| self.sync_is_confirmed(info.position()))
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

    pub(super) fn react_as_primary(&mut self, now: Ms) {
        if self.term() == Term(0) {
            return self.be_born(now);
        }
        if !Clause::PrimaryVolume.demands(self.volume_is_named()) {
            return self.read(now);
        }
        self.note_down(now);
        self.note_stall(now);
        self.note_behind(now);
        self.retry_open(now);
        self.react_resign(now);
        if self.resign.has_resigned(self.term()) {
            return;
        }
        self.claim(now);
        self.heartbeat(now);
        self.guard_promise(now);
        self.pair(now);
    }

    /// Term 0: after `initdb`, the record gets the first term.
    fn be_born(&mut self, now: Ms) {
        let (Some(volume), Some(system)) = (self.pg.volume, self.pg.system_identifier) else { return };
        if self.pg.directory != Directory::Primary || self.view.has_open() {
            return self.retry_open(now);
        }
        if let Some(v) = self.view.settled().copied() {
            let record = Record {
                term: Term(1),
                primary: self.me,
                mode: Mode::Solo,
                primary_volume: Some(volume),
                standby_volume: None,
                system_identifier: Some(system),
                durability: self.settings.durability,
            };
            self.cas(now, &v, record);
        }
    }

    fn note_down(&mut self, now: Ms) {
        let up = self.pg.state == PostgresState::Primary;
        self.pairing.hung_since = if self.pg.hung { self.pairing.hung_since.or(Some(now)) } else { None };
        self.pairing.down_since = if up { None } else { self.pairing.down_since.or(Some(now)) };
        let starting = !up && self.gate(now).is_open();
        self.pairing.starting_since = if starting { self.pairing.starting_since.or(Some(now)) } else { None };
        if self.pairing.starting_since.is_some_and(|s| now - s >= self.timing.start_budget()) {
            self.pairing.mute_until = now + 2 * self.timing.ttl();
        }
    }

    /// Rule 7, `Solo`: the record must name this incarnation before it writes. On another node than the named one last
    /// held the volume, its lock proves nothing.
    fn claim(&mut self, now: Ms) {
        let Some(v) = self.view.settled().copied() else { return };
        let durability = self.settings.durability;
        let differs = v.record.primary != self.me || v.record.durability != durability;
        if v.record.mode == Mode::Solo && differs && !self.is_elsewhere() {
            self.cas(now, &v, Record { primary: self.me, durability, ..v.record });
        }
    }

    /// Sent while postgres runs as a primary, or is starting as one within its start budget.
    fn heartbeat(&mut self, now: Ms) {
        let ends = self.durable.fenced || self.resign.is_asking();
        let down_by_choice = ends && !self.postgres_is_up();
        let mute = now < self.pairing.mute_until || self.is_elsewhere() || self.is_wedged();
        // First the record: with it, a restarted primary offers its term to the standby instead of starting on its promise.
        // Only when the API server does not answer does it go by its disk.
        let unread = self.view.last().is_none() && now - self.born < self.timing.ttl() / 5;
        if self.pg.directory != Directory::Primary || mute || down_by_choice || unread {
            return;
        }
        if self.held.last_sent().is_some_and(|t| now - t < self.timing.heartbeat_every()) {
            return;
        }
        self.push_heartbeat(now);
    }

    fn push_heartbeat(&mut self, now: Ms) {
        let (seq, echo) = self.held.next(now, self.timing);
        self.out.push(Command::Heartbeat(Heartbeat {
            term: self.term(),
            from: self.me,
            seq,
            ttl_ms: u32::try_from(self.timing.ttl()).unwrap_or(u32::MAX),
            echo,
            version: self.view.last().map(|v| v.version),
        }));
    }

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
        let first = self.held.promised(self.term()).is_none();
        let promised = self.held.on_answer(self.term(), answer);
        if first
            && !promised
            && answer.verdict == Verdict::Challenge
            && !self.resign.has_resigned(self.term())
        {
            // The way back is proven now: ask again at once instead of after a tenth of ttl.
            self.push_heartbeat(now);
        }
        // A late answer to an earlier heartbeat tells of the standby as it was.
        if self.held.heard.is_none_or(|(latest, _)| latest <= answer.seq) {
            self.peer = Some((now, answer.standby));
        }
    }

    /// A postgres that not even SIGKILL ends (its disk hangs) keeps the lock, and nobody can hand its log over: only silence
    /// lets the standby go on. To go `Solo` for that silence would take the way from it.
    pub(super) fn is_wedged(&self) -> bool {
        self.pg.hung && self.resign.is_stopping()
    }

    /// A postgres that will not start is no reason to go `Solo`: rule 5 asks the standby.
    pub(super) fn will_not_start(&self) -> bool {
        !self.postgres_is_up() && (self.resign.is_asking() || self.pg.failed_starts > 0)
    }
}
