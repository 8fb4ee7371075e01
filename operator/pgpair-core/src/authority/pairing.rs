//! Rules 1, 4 and 8: a primary's way from `Paired` to `Solo` and back.

use crate::authority::clause::{Clause, Condition, all_hold, first_unmet};
use crate::authority::common::Common;
use crate::authority::messages::StandbyInfo;
use crate::authority::notes::{Note, SoloReason};
use crate::authority::role::{Behind, Primary};
use crate::authority::timing::{Ms, Timing};
use crate::instance::PostgresState;
use crate::record::{Durability, Mode, Record, Versioned};

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

type Holds = fn(&Primary, &Common, Ms) -> bool;

/// Rules 1 and 8: a primary leaves `Paired` for the first of these that does not hold.
pub(super) const STAYS_PAIRED: [Condition<SoloReason, Holds>; 4] = [
    Condition::of(
        Clause::GoesSolo,
        "a promise is held that was asked for within `ttl/2`; after a start there is as long for the first",
        SoloReason::StandbySilent,
        Primary::hears_in_time,
    ),
    Condition::new(
        "the durability that is set is the one in the record",
        SoloReason::DurabilityChanged,
        |_, c, _| c.record().is_none_or(|r| r.durability == c.settings.durability),
    ),
    Condition::new(
        "the standby has the data directory that the record names",
        SoloReason::StandbyReplaced,
        |_, c, _| {
            let named = c.record().and_then(|r| r.standby_volume);
            c.peer.is_none_or(|(_, info)| named.is_none() || info.volume == named)
        },
    ),
    Condition::new("the standby is not going to stop", SoloReason::StandbyLeaves, |_, c, _| {
        c.peer.is_none_or(|(_, info)| !info.leaving)
    }),
];

/// And for these while its postgres is up and the standby has said something.
pub(super) const STAYS_PAIRED_WHILE_UP: [Condition<SoloReason, Holds>; 3] = [
    Condition::of(
        Clause::Streams,
        "the standby streams, or did a fifth of `ttl` ago",
        SoloReason::StandbyNotStreaming,
        Primary::streams_in_time,
    ),
    Condition::of(
        Clause::Stalls,
        "the standby has all, or has got further in the last two fifths of `ttl`, at least 1.5 s",
        SoloReason::StandbyStalls,
        Primary::gets_further,
    ),
    Condition::new("the standby does not lag", SoloReason::StandbyLags, |p, c, now| !p.lags(c, now)),
];

/// Rule 4: what a standby and its primary must be before commits are made to wait for it and it is paired with.
pub(super) const PAIRABLE: [Condition<(), Holds>; 9] = [
    Condition::new("the settled record says `Solo` and names this incarnation", (), |_, c, _| {
        c.is_settled_solo()
    }),
    Condition::new("the record's durability is the one that is set", (), |_, c, _| {
        c.record().is_some_and(|r| r.durability == c.settings.durability)
    }),
    Condition::new("postgres is up, does not hang, and is not going to stop", (), |_, c, _| {
        let stops = c.leaving.is_some() || c.durable.fenced || c.orders.stops_primary();
        c.pg.state == PostgresState::Primary && !stops && !c.pg.hung
    }),
    Condition::new("the standby answered in the last fifth of `ttl`", (), |_, c, now| {
        c.peer.is_some_and(|(at, _)| now - at < 2 * c.timing.heartbeat_every())
    }),
    Condition::new("it has a data directory, streams, and is not going to stop", (), |_, c, _| {
        c.peer.is_some_and(|(_, info)| info.volume.is_some() && info.streaming && !info.leaving)
    }),
    Condition::new("it is on the timeline of the primary", (), |_, c, _| {
        c.peer.is_some_and(|(_, info)| info.timeline.is_some() && info.timeline == c.pg.timeline)
    }),
    Condition::new("the positions of both are known", (), |_, c, _| {
        c.peer.is_some_and(|(_, info)| info.position().is_some()) && c.pg.flush.is_some()
    }),
    Condition::new("it does not lag, or keeps up with what it lacked", (), Primary::keeps_up),
    Condition::new("it gets further, or commits wait for it already", (), |p, c, now| {
        p.gets_further(c, now) || p.pairing.sync_since.is_some()
    }),
];

impl Primary {
    /// Rule 1 (and 7 for a start in `Paired`): in time, and only after a read that proves the way back, the record is
    /// made `Solo`; postgres runs meanwhile. The fence at the deadline is the gate's.
    pub(super) fn guard_promise(&mut self, c: &mut Common, now: Ms) {
        if c.view.last().is_none_or(|v| v.record.mode == Mode::Solo) && !c.view.has_open() {
            (self.pairing.noticed, self.pairing.not_streaming_since) = (None, None);
            return;
        }
        if c.is_elsewhere() || self.is_wedged(c, now) {
            return;
        }
        let Some(reason) = self.reason_for_solo(c, now) else {
            self.pairing.noticed = None;
            return;
        };
        let (since, _) = *self.pairing.noticed.get_or_insert((now, reason));
        let since = if Clause::FreshRead.is_taken_away() { Ms(0) } else { since };
        let Some(v) = c.view.settled_since(since).copied() else {
            return c.read(now);
        };
        if v.record.mode != Mode::Paired
            || v.record.primary.instance != c.me.instance
            || self.will_not_start(c)
        {
            return;
        }
        let solo = Record {
            primary: c.me,
            mode: Mode::Solo,
            standby_volume: None,
            durability: c.settings.durability,
            ..v.record
        };
        if c.cas(now, &v, solo) {
            c.note(Note::GoingSolo(reason));
            self.back_off(now);
        }
    }

    fn reason_for_solo(&mut self, c: &mut Common, now: Ms) -> Option<SoloReason> {
        let reason = first_unmet(&STAYS_PAIRED, |holds| holds(self, c, now));
        let Some((_, info)) = c.peer.filter(|_| reason.is_none()) else { return reason };
        // Nothing can stream from a postgres that is not up, nor from one that is stopped because its standby takes over: what is left of it may
        // take long to die, and `Solo` would end the hand-over.
        if c.pg.state != PostgresState::Primary || self.resign.is_stopping() {
            return None;
        }
        self.pairing.not_streaming_since =
            if info.streaming { None } else { self.pairing.not_streaming_since.or(Some(now)) };
        first_unmet(&STAYS_PAIRED_WHILE_UP, |holds| holds(self, c, now))
    }

    /// A promise that is young enough; and after a start the time for the first heartbeats to be answered.
    fn hears_in_time(&self, c: &Common, now: Ms) -> bool {
        match c.promises.held.promised(c.term()) {
            Some(promise) => now < promise.worry_at(),
            None => self.pairing.down_since.is_some_and(|since| now - since < c.timing.ttl() / 2),
        }
    }

    fn streams_in_time(&self, c: &Common, now: Ms) -> bool {
        self.pairing.not_streaming_since.is_none_or(|since| now - since < c.timing.ttl() / 5)
    }

    /// A walreceiver that is stopped still counts as streaming, and commits would wait for it for ever.
    pub(super) fn note_stall(&mut self, c: &mut Common, now: Ms) {
        let told = c.peer.and_then(|(_, info)| info.position());
        let has = told.filter(|has| c.pg.flush > Some(*has));
        self.pairing.stalled = has.map(|has| match self.pairing.stalled {
            Some((since, had)) if had == has => (since, had),
            Some(_) | None => (now, has),
        });
    }

    fn gets_further(&self, c: &Common, now: Ms) -> bool {
        let in_time = |since| now - since < stall_after(c.timing);
        Clause::Stalls.demands(self.pairing.stalled.is_none_or(|(since, _)| in_time(since)))
    }

    pub(super) fn note_behind(&mut self, c: &mut Common, now: Ms) {
        let has = c.peer.and_then(|(_, info)| match c.durability() {
            // What it has received outlives the primary, and its walsender knows it as of now.
            Durability::Async => info.position().max(c.pg.standby_write),
            // Commits wait until it is on its disk.
            Durability::Sync | Durability::SyncStrict => info.position(),
        });
        let far = has.zip(c.pg.flush).filter(|(has, due)| due.bytes_since(*has) > c.settings.max_lag);
        self.pairing.behind = far.map(|(has, due)| match self.pairing.behind {
            Some(behind) if has < behind.due => behind,
            Some(reached) => Behind { since: now, due, kept_up: now - reached.since < stall_after(c.timing) },
            None => Behind { since: now, due, kept_up: false },
        });
    }

    /// In `Async` what the standby lacks may be lost, and its bytes count. In the sync modes they cost no more than the time
    /// that commits wait for them.
    fn lags(&self, c: &Common, now: Ms) -> bool {
        let in_time = |b: Behind| now - b.since < stall_after(c.timing);
        self.pairing.behind.is_some_and(|b| c.durability() == Durability::Async || !in_time(b))
    }

    /// It has what the primary has, or soon will: commits may wait for it, or go on waiting.
    fn keeps_up(&self, c: &Common, now: Ms) -> bool {
        let waiting = self.pairing.sync_since.is_some();
        self.pairing.behind.is_none_or(|b| (b.kept_up || waiting) && !self.lags(c, now))
    }

    pub(super) fn restart_budget(&mut self, now: Ms) {
        self.pairing.down_since = Some(now);
    }

    fn back_off(&mut self, now: Ms) {
        let lasted = self.pairing.paired_at.is_none_or(|t| now - t >= LASTING_MS);
        self.pairing.flaps = if lasted { 0 } else { self.pairing.flaps.saturating_add(1) };
        let wait = FIRST_BACKOFF_MS << self.pairing.flaps.min(6);
        self.pairing.not_before = now + wait.min(MAX_BACKOFF_MS);
        self.pairing.sync_since = None;
    }

    /// Rule 4: the standby streams and is caught up, sync is on and confirmed, and a fresh promise is held.
    pub(super) fn pair(&mut self, c: &mut Common, now: Ms) {
        self.pairing.pairs_with = None;
        let ready = self.standby_to_pair(c, now);
        let (Some((v, info)), true) = (ready, now >= self.pairing.not_before) else {
            if c.is_settled_solo() {
                if self.pairing.sync_since.is_some() && self.lags(c, now) {
                    self.back_off(now);
                }
                self.pairing.sync_since = None;
            }
            return;
        };
        if c.durability() != Durability::Async {
            if self.pairing.sync_since.is_none() {
                // Commits are not made to wait for a pairing that the API server cannot hear of.
                if c.view.settled_since(Ms(now.0.saturating_sub(c.timing.ttl()))).is_none() {
                    return c.read(now);
                }
                c.sync_epoch = c.sync_epoch.wrapping_add(1);
            }
            let since = *self.pairing.sync_since.get_or_insert(now);
            let proven = Clause::SyncProven.demands(c.sync_is_confirmed(info.position()));
            if !proven {
                if now - since > SYNC_BUDGET_MS || !self.gets_further(c, now) {
                    self.back_off(now);
                }
                return;
            }
        }
        self.pairing.pairs_with = info.volume;
        let stored = c.has_stored(Mode::Paired) && c.persisted.standby_volume == info.volume;
        if !Clause::SharedStored.demands(stored) {
            return;
        }
        let fresh =
            c.promises.held.promised(v.record.term).is_some_and(|p| now - p.sent < c.timing.ttl() / 4);
        let paired = Record { mode: Mode::Paired, standby_volume: info.volume, ..v.record };
        if fresh && c.cas(now, &v, paired) {
            self.pairing.paired_at = Some(now);
            c.note(Note::Pairing);
        }
    }

    /// The settled `Solo` record of ours and a standby that could be paired with.
    fn standby_to_pair(&self, c: &Common, now: Ms) -> Option<(Versioned, StandbyInfo)> {
        let v = c.view.settled().copied()?;
        let (_, info) = c.peer?;
        all_hold(&PAIRABLE, |holds| holds(self, c, now)).then_some((v, info))
    }
}
