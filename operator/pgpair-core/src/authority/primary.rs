//! The primary's rules: what is wished of its postgres, 7 (start-up), its heartbeats, and evidence on its predecessor.

use crate::authority::clause::Clause;
use crate::authority::common::Common;
use crate::authority::facts::Directory;
use crate::authority::gate::{self, Gate};
use crate::authority::messages::Evidence;
use crate::authority::pairing::HANG_PATIENCE_MS;
use crate::authority::role::Primary;
use crate::authority::timing::Ms;
use crate::authority::wish::Want;
use crate::ids::Term;
use crate::instance::PostgresState;
use crate::record::{Beginning, Mode, Record};

impl Primary {
    pub(super) fn desired(&self, c: &Common, now: Ms, gate: Gate) -> Want {
        let writable = c.postgres_may_write();
        if c.term() == Term(0) {
            return match c.pg.directory {
                Directory::Empty | Directory::Unusable => Want::Initialise,
                _ => Want::Down,
            };
        }
        if !gate.is_open() {
            return if writable || !c.postgres_is_up() { Want::Down } else { Want::Unchanged };
        }
        // Without a successor much later: what looks like a hang may be a starved machine, and a kill would make it worse.
        let for_long = self.pairing.hung_since.is_some_and(|s| now - s >= HANG_PATIENCE_MS);
        let hopeless = self.resign.is_stopping() || (self.resign.is_declined() && for_long);
        if c.pg.hung && c.postgres_is_up() && hopeless {
            return Want::Down; // politeness would hang as well
        }
        let ends = c.leaving.is_some() || c.durable.fenced;
        if self.resign.is_stopping() || (ends && self.resign.is_declined()) || c.orders.stops_primary() {
            return Want::Stopped;
        }
        if self.resign.is_asking() && !c.postgres_is_up() {
            return Want::Down;
        }
        match c.pg.directory {
            Directory::Primary => Want::Primary,
            Directory::Standby if c.pg.state == PostgresState::Promoting || gate::may_promote(c, now) => {
                Want::Promoted
            }
            Directory::Standby => Want::Unchanged,
            Directory::Unknown | Directory::Empty | Directory::Unusable => Want::Down,
        }
    }

    pub(super) fn react(&mut self, c: &mut Common, now: Ms) {
        if c.term() == Term(0) {
            return Primary::be_born(c, now);
        }
        if !Clause::PrimaryVolume.demands(c.volume_is_named()) {
            return c.read(now);
        }
        self.note_down(c, now);
        self.note_stall(c, now);
        self.note_behind(c, now);
        c.retry_open(now);
        self.react_resign(c, now);
        if c.has_resigned() {
            return;
        }
        Primary::claim(c, now);
        self.heartbeat(c, now);
        self.guard_promise(c, now);
        self.pair(c, now);
    }

    /// Term 0: after `initdb`, the record gets the first term.
    fn be_born(c: &mut Common, now: Ms) {
        let (Some(volume), Some(system)) = (c.pg.volume, c.pg.system_identifier) else { return };
        if c.pg.directory != Directory::Primary || c.view.has_open() {
            return c.retry_open(now);
        }
        if let Some(v) = c.view.settled().copied() {
            let record = Record {
                term: Term(1),
                primary: c.me,
                mode: Mode::Solo,
                primary_volume: Some(volume),
                standby_volume: None,
                system_identifier: Some(system),
                durability: c.settings.durability,
            };
            c.begin_term(now, &v, Beginning::Born, record);
        }
    }

    /// Rule 7, `Solo`: the record must name this incarnation before it writes. On another node than the named one last
    /// held the volume, its lock proves nothing.
    fn claim(c: &mut Common, now: Ms) {
        let Some(v) = c.view.settled().copied() else { return };
        let durability = c.settings.durability;
        let differs = v.record.primary != c.me || v.record.durability != durability;
        if v.record.mode == Mode::Solo && differs && !c.is_elsewhere() {
            c.cas(now, &v, Record { primary: c.me, durability, ..v.record });
        }
    }

    /// Rule 6, of an earlier process of this instance: what ran on another node is dead, and the lock here counts again.
    pub(super) fn on_evidence(c: &mut Common, evidence: Evidence) {
        if c.predecessor_is(evidence.incarnation) {
            c.durable.node = Some(c.node);
        }
    }

    fn note_down(&mut self, c: &mut Common, now: Ms) {
        let up = c.pg.state == PostgresState::Primary;
        self.pairing.hung_since = if c.pg.hung { self.pairing.hung_since.or(Some(now)) } else { None };
        self.pairing.down_since = if up { None } else { self.pairing.down_since.or(Some(now)) };
        let starting = !up && gate::gate(c, now).is_open();
        self.pairing.starting_since = if starting { self.pairing.starting_since.or(Some(now)) } else { None };
        if self.pairing.starting_since.is_some_and(|s| now - s >= c.timing.start_budget()) {
            self.pairing.mute_until = now + 2 * c.timing.ttl();
        }
    }

    /// Sent while postgres runs as a primary, or is starting as one within its start budget.
    fn heartbeat(&mut self, c: &mut Common, now: Ms) {
        let ends = c.durable.fenced || self.resign.is_asking();
        let down_by_choice = ends && !c.postgres_is_up();
        let mute = now < self.pairing.mute_until || c.is_elsewhere() || self.is_wedged(c, now);
        // First the record: with it, a restarted primary offers its term to the standby instead of starting on its promise.
        // Only when the API server does not answer does it go by its disk.
        let unread = c.view.last().is_none() && now - c.born < c.timing.ttl() / 5;
        if c.pg.directory != Directory::Primary || mute || down_by_choice || unread {
            return;
        }
        if c.promises.held.last_sent().is_some_and(|t| now - t < c.timing.heartbeat_every()) {
            return;
        }
        c.push_heartbeat(now);
    }

    /// A postgres that will not start is no reason to go `Solo`: rule 5 asks the standby.
    pub(super) fn will_not_start(&self, c: &Common) -> bool {
        !c.postgres_is_up() && (self.resign.is_asking() || c.pg.failed_starts > 0)
    }
}
