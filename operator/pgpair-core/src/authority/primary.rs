//! The primary's rules: 1 (losing the standby), 4 (pairing again), 7 (start-up), and its heartbeats.

use serde::{Deserialize, Serialize};

use crate::authority::clause::{Clause, keeps};
use crate::authority::messages::{Answer, Heartbeat, StandbyInfo, Verdict};
use crate::authority::timing::{Ms, Timing};
use crate::authority::{Authority, Command, Directory, Durability, Gate, Note, SoloReason, SyncState, Want};
use crate::ids::Term;
use crate::instance::PostgresState;
use crate::lsn::Lsn;
use crate::record::{Mode, Record, Versioned};

/// The way between `Solo` and `Paired`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) struct Pairing {
    /// Why and since when the primary wants to leave `Paired`.
    pub(super) noticed: Option<(Ms, SoloReason)>,
    /// The standby has not been streaming since.
    pub(super) not_streaming_since: Option<Ms>,
    /// The standby lacks something and has had no more than this, since.
    pub(super) stalled: Option<(Ms, Lsn)>,
    /// The standby lacks more than `max_lag`.
    pub(super) behind: Option<Behind>,
    /// Postgres hangs since.
    pub(super) hung_since: Option<Ms>,
    /// Commits are made to wait, to pair, since.
    pub(super) sync_since: Option<Ms>,
    /// No pairing before.
    pub(super) not_before: Ms,
    /// Consecutive pairings that did not last; the back-off doubles with each.
    pub(super) flaps: u32,
    pub(super) paired_at: Option<Ms>,
    /// Postgres has not been up as a primary since.
    pub(super) down_since: Option<Ms>,
    /// Number of the present wish that commits wait; each new one needs a new proof.
    pub(super) sync_epoch: u32,
    /// Postgres may be started, and has not come up, since.
    pub(super) starting_since: Option<Ms>,
    /// No heartbeats before: a postgres that does not come up must not keep its standby from taking over.
    pub(super) mute_until: Ms,
}

/// A standby that lacks more than `max_lag`: how far behind it is in time. What it tells is up to a second old, and a load of any
/// speed is further ahead by then than any number of bytes; whoever soon has what the primary had keeps up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Behind {
    /// The primary had `due` then, which the standby has not been seen to have.
    pub(super) since: Ms,
    pub(super) due: Lsn,
    /// What was due before came in time.
    pub(super) kept_up: bool,
}

impl Pairing {
    /// Nothing of an earlier term counts, except that its proofs must not be taken for new ones.
    pub(super) fn of_new_term(&self) -> Pairing {
        Pairing { sync_epoch: self.sync_epoch + 1, ..Pairing::default() }
    }
}

/// First back-off after a pairing that did not last, doubled each time up to [`MAX_BACKOFF_MS`].
const FIRST_BACKOFF_MS: u64 = 1_000;
const MAX_BACKOFF_MS: u64 = 60_000;
/// A standby's position is looked at twice a second and told with the next heartbeat: less than this proves no stall.
const STALL_MS: u64 = 1_500;
/// A hung postgres without a successor is killed after this much more, to be started again.
pub(super) const HANG_PATIENCE_MS: u64 = 60_000;
/// Time for the checkpoint that proves that commits wait, and for the standby to reach what was written before it.
const SYNC_BUDGET_MS: u64 = 120_000;
/// With the time that the standby's position needs to get here, commits wait for about half of `ttl`.
pub(super) fn stall_after(timing: Timing) -> u64 {
    (timing.ttl() * 2 / 5).max(STALL_MS)
}
/// A pairing that lasts as long as this is no flapping.
const LASTING_MS: u64 = 60_000;

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
            Durability::Sync if !keeps(Clause::SyncUntilSolo) && self.view.has_open() => false,
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

    fn is_settled_solo(&self) -> bool {
        self.view.settled().is_some_and(|v| v.record.mode == Mode::Solo && v.record.primary == self.me)
    }

    pub(super) fn react_as_primary(&mut self, now: Ms) {
        if self.term() == Term(0) {
            return self.be_born(now);
        }
        if !self.volume_is_named() {
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

    /// Rule 1 (and 7 for a start in `Paired`): in time, and only after a read that proves the way back, the record is
    /// made `Solo`; postgres runs meanwhile. The fence at the deadline is the gate's.
    fn guard_promise(&mut self, now: Ms) {
        if self.view.last().is_none_or(|v| v.record.mode == Mode::Solo) && !self.view.has_open() {
            (self.pairing.noticed, self.pairing.not_streaming_since) = (None, None);
            return;
        }
        if self.is_elsewhere() || self.is_wedged() {
            return;
        }
        let Some(reason) = self.reason_for_solo(now) else {
            self.pairing.noticed = None;
            return;
        };
        let (since, _) = *self.pairing.noticed.get_or_insert((now, reason));
        let since = if keeps(Clause::FreshRead) { since } else { Ms(0) };
        let Some(v) = self.view.settled_since(since).copied() else {
            return self.read(now);
        };
        if v.record.mode != Mode::Paired
            || v.record.primary.instance != self.me.instance
            || self.will_not_start()
        {
            return;
        }
        let solo = Record {
            primary: self.me,
            mode: Mode::Solo,
            standby_volume: None,
            durability: self.settings.durability,
            ..v.record
        };
        if self.cas(now, &v, solo) {
            self.note(Note::GoingSolo(reason));
            self.back_off(now);
        }
    }

    /// A postgres that not even SIGKILL ends (its disk hangs) keeps the lock, and nobody can hand its log over: only silence
    /// lets the standby go on. To go `Solo` for that silence would take the way from it.
    pub(super) fn is_wedged(&self) -> bool {
        self.pg.hung && self.resign.is_stopping()
    }

    /// A postgres that will not start is no reason to go `Solo`: rule 5 asks the standby.
    fn will_not_start(&self) -> bool {
        !self.postgres_is_up() && (self.resign.is_asking() || self.pg.failed_starts > 0)
    }

    fn reason_for_solo(&mut self, now: Ms) -> Option<SoloReason> {
        let promised = self.held.promised(self.term());
        if promised.is_none_or(|p| now >= p.worry_at()) {
            // Just started: give the first heartbeats the time to be answered.
            let patience = self.pairing.down_since.map_or(0, |_| self.timing.ttl() / 2);
            let asked_since = self.pairing.down_since.unwrap_or(now);
            if promised.is_some() || now - asked_since >= patience {
                return Some(SoloReason::StandbySilent);
            }
        }
        if self.record().is_some_and(|r| r.durability != self.settings.durability) {
            return Some(SoloReason::DurabilityChanged);
        }
        let (_, info) = self.peer?;
        let named = self.record().and_then(|r| r.standby_volume);
        if named.is_some() && info.volume != named {
            return Some(SoloReason::StandbyReplaced);
        }
        if info.leaving {
            return Some(SoloReason::StandbyLeaves);
        }
        if self.pg.state != PostgresState::Primary {
            return None; // nothing can stream from a postgres that is not up
        }
        self.pairing.not_streaming_since =
            if info.streaming { None } else { self.pairing.not_streaming_since.or(Some(now)) };
        let long = self.pairing.not_streaming_since.is_some_and(|s| now - s >= self.timing.ttl() / 5);
        if long && keeps(Clause::Streams) {
            return Some(SoloReason::StandbyNotStreaming);
        }
        if self.stalls(now) {
            return Some(SoloReason::StandbyStalls);
        }
        self.lags(now).then_some(SoloReason::StandbyLags)
    }

    /// A walreceiver that is stopped still counts as streaming, and commits would wait for it for ever.
    fn note_stall(&mut self, now: Ms) {
        let told = self.peer.and_then(|(_, info)| info.position());
        let has = told.filter(|has| self.pg.flush > Some(*has));
        self.pairing.stalled = has.map(|has| match self.pairing.stalled {
            Some((since, had)) if had == has => (since, had),
            Some(_) | None => (now, has),
        });
    }

    fn stalls(&self, now: Ms) -> bool {
        let long = |since| now - since >= stall_after(self.timing);
        keeps(Clause::Stalls) && self.pairing.stalled.is_some_and(|(since, _)| long(since))
    }

    fn note_behind(&mut self, now: Ms) {
        let has = self.peer.and_then(|(_, info)| match self.durability() {
            // What it has received outlives the primary, and its walsender knows it as of now.
            Durability::Async => info.position().max(self.pg.standby_write),
            // Commits wait until it is on its disk.
            Durability::Sync | Durability::SyncStrict => info.position(),
        });
        let far = has.zip(self.pg.flush).filter(|(has, due)| due.bytes_since(*has) > self.settings.max_lag);
        self.pairing.behind = far.map(|(has, due)| match self.pairing.behind {
            Some(behind) if has < behind.due => behind,
            Some(reached) => {
                Behind { since: now, due, kept_up: now - reached.since < stall_after(self.timing) }
            }
            None => Behind { since: now, due, kept_up: false },
        });
    }

    /// In `Async` what the standby lacks may be lost, and its bytes count. In the sync modes they cost no more than the time
    /// that commits wait for them.
    fn lags(&self, now: Ms) -> bool {
        let in_time = |b: Behind| now - b.since < stall_after(self.timing);
        self.pairing.behind.is_some_and(|b| self.durability() == Durability::Async || !in_time(b))
    }

    /// It has what the primary has, or soon will: commits may wait for it, or go on waiting.
    fn keeps_up(&self, now: Ms) -> bool {
        let waiting = self.pairing.sync_since.is_some();
        self.pairing.behind.is_none_or(|b| (b.kept_up || waiting) && !self.lags(now))
    }

    pub(super) fn restart_budget(&mut self, now: Ms) {
        self.pairing.down_since = Some(now);
    }

    fn back_off(&mut self, now: Ms) {
        let lasted = self.pairing.paired_at.is_none_or(|t| now - t >= LASTING_MS);
        self.pairing.flaps = if lasted { 0 } else { self.pairing.flaps + 1 };
        let wait = FIRST_BACKOFF_MS << self.pairing.flaps.min(6);
        self.pairing.not_before = now + wait.min(MAX_BACKOFF_MS);
        self.pairing.sync_since = None;
    }

    /// Rule 4: the standby streams and is caught up, sync is on and confirmed, and a fresh promise is held.
    fn pair(&mut self, now: Ms) {
        let ready = self.standby_to_pair(now);
        let (Some((v, info)), true) = (ready, now >= self.pairing.not_before) else {
            if self.is_settled_solo() {
                if self.pairing.sync_since.is_some() && self.lags(now) {
                    self.back_off(now);
                }
                self.pairing.sync_since = None;
            }
            return;
        };
        if self.durability() != Durability::Async {
            if self.pairing.sync_since.is_none() {
                // Commits are not made to wait for a pairing that the API server cannot hear of.
                if self.view.settled_since(Ms(now.0.saturating_sub(self.timing.ttl()))).is_none() {
                    return self.read(now);
                }
                self.pairing.sync_epoch += 1;
            }
            let since = *self.pairing.sync_since.get_or_insert(now);
            if keeps(Clause::SyncProven) && !self.sync_is_confirmed(info.position()) {
                if now - since > SYNC_BUDGET_MS || self.stalls(now) {
                    self.back_off(now);
                }
                return;
            }
        }
        let fresh = self.held.promised(v.record.term).is_some_and(|p| now - p.sent < self.timing.ttl() / 4);
        let paired = Record { mode: Mode::Paired, standby_volume: info.volume, ..v.record };
        if fresh && self.cas(now, &v, paired) {
            self.pairing.paired_at = Some(now);
            self.note(Note::Pairing);
        }
    }

    fn sync_is_confirmed(&self, position: Option<Lsn>) -> bool {
        match self.pg.sync {
            SyncState::On { from, epoch } => epoch == self.pairing.sync_epoch && position >= Some(from),
            SyncState::Unknown | SyncState::Off => false,
        }
    }

    /// The settled `Solo` record of ours and a standby that could be paired with.
    fn standby_to_pair(&self, now: Ms) -> Option<(Versioned, StandbyInfo)> {
        let v = self.view.settled().filter(|_| self.is_settled_solo()).copied()?;
        let (at, info) = self.peer?;
        let fresh = now - at < 2 * self.timing.heartbeat_every();
        let same_line = info.timeline.is_some() && info.timeline == self.pg.timeline;
        let told = info.position().is_some() && self.pg.flush.is_some();
        let stops = self.leaving.is_some() || self.durable.fenced || self.orders.stops_primary();
        let running = self.pg.state == PostgresState::Primary && !stops && !self.pg.hung;
        let as_set = v.record.durability == self.settings.durability;
        (fresh
            && running
            && as_set
            && same_line
            && told
            && self.keeps_up(now)
            && info.streaming
            && (!self.stalls(now) || self.pairing.sync_since.is_some())
            && !info.leaving
            && info.volume.is_some())
        .then_some((v, info))
    }
}
