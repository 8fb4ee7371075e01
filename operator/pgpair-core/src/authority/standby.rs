//! The standby's rules: 2 (losing the primary), and 5, 6 and 10 as they open the way to it.

use crate::authority::clause::{Clause, Condition, all_hold};
use crate::authority::common::Common;
use crate::authority::facts::Directory;
use crate::authority::messages::{CannotTake, Evidence, EvidenceKind, ResignReply, Resignation};
use crate::authority::notes::{FailoverCause, FailoverSignal, Note};
use crate::authority::role::Standby;
use crate::authority::timing::{Ms, Timing};
use crate::authority::wish::Want;
use crate::ids::Incarnation;
use crate::instance::PostgresState;
use crate::record::{Beginning, Durability, Mode, Record};

type Holds = fn(&Standby, &Common, Ms) -> bool;

/// Rule 2: a take-over needs all of this, and of the next table, and a cause.
pub(super) const LAPSED: [Condition<(), Holds>; 2] = [
    Condition::of(
        Clause::LapseFirst,
        "every promise that this instance gave has lapsed or is void",
        (),
        |_, c, now| c.promises.given.all_lapsed(now),
    ),
    Condition::of(
        Clause::Quarantine,
        "its quarantine is over: no promise of an earlier process of it can be open",
        (),
        |_, c, now| now >= c.promises.quarantine_until,
    ),
];

/// The rest of it.
pub(super) const READY_TO_TAKE_OVER: [Condition<(), Holds>; 5] = [
    Condition::new(
        "in the last `ttl` it has told no primary that resigned to take its term back",
        (),
        |s, _, now| {
            let refused = s.takeover.as_ref().and_then(|t| t.refused);
            refused.is_none_or(|(_, until)| now >= until)
        },
    ),
    Condition::new("it is not going to stop", (), |_, c, _| !c.stops_as_standby()),
    Condition::new("it has a standby's data directory", (), |_, c, _| {
        c.pg.volume.is_some() && c.pg.directory == Directory::Standby
    }),
    // Else the term would be taken from a primary that may be well again a moment later, for a postgres that serves nobody.
    Condition::new("its postgres runs as a standby, or has not failed to start", (), |_, c, _| {
        c.pg.state == PostgresState::Standby || c.pg.failed_starts == 0
    }),
    Condition::new("the record is settled", (), |_, c, _| c.view.settled().is_some()),
];

impl Standby {
    /// What is wished of a standby's postgres.
    pub(super) fn desired(c: &Common, now: Ms) -> Want {
        let writable = c.postgres_may_write();
        if writable {
            return Want::Down;
        }
        if c.view.has_open() {
            return Want::Unchanged;
        }
        let stops = c.durable.fenced || c.orders.restarts_standby();
        if stops && (c.may_stop_as_standby(now) || !c.postgres_is_up()) {
            return Want::Stopped;
        }
        match c.pg.directory {
            Directory::Standby | Directory::Primary => Want::Following(c.term()),
            Directory::Unknown | Directory::Empty | Directory::Unusable => Want::Down,
        }
    }

    pub(super) fn on_resignation(&mut self, c: &mut Common, now: Ms, r: &Resignation) -> ResignReply {
        if r.term != c.term() || r.from.instance == c.me.instance {
            return c.refuse_resignation(now, r);
        }
        c.promises.given.void(r.from.incarnation);
        if let Some(dead) = r.predecessor {
            c.promises.given.void(dead);
        }
        // Rule 7: the promises of earlier processes of this instance were to the sender or to processes that ended before it began.
        if Clause::ResignedToMe.demands(r.to == c.me.incarnation) {
            c.promises.quarantine_until = c.promises.quarantine_until.min(now);
        }
        let takeover = self.takeover.get_or_insert_default();
        if takeover.refused.is_some_and(|(who, _)| who == r.from.incarnation) {
            return ResignReply::Refused(CannotTake::WalMissing);
        }
        let (since, _) = *takeover.resigned.get_or_insert((now, *r));
        // Without the end of the log it will not be taken over; say so in time for the old primary to take it back.
        if now - since > c.timing.ttl() / 2 && !c.view.has_open() {
            takeover.resigned = None;
            takeover.refused = Some((r.from.incarnation, now + c.timing.ttl()));
            return ResignReply::Refused(CannotTake::WalMissing);
        }
        ResignReply::Accepted
    }

    /// Rule 6: names one incarnation, and voids the promise to that one only. Never shortens the quarantine.
    pub(super) fn on_evidence(&mut self, c: &mut Common, now: Ms, evidence: Evidence) {
        if evidence.incarnation == c.me.incarnation {
            return;
        }
        c.promises.given.void(evidence.incarnation);
        let takeover = self.takeover.get_or_insert_default();
        if takeover.proof(evidence.incarnation).is_none() {
            takeover.dead.push((evidence.incarnation, evidence.kind));
        }
        c.read(now);
    }

    /// Rule 2: every promise lapsed or void, the record says `Paired` and names this volume (or rule 5 or 6 opened
    /// `Solo`): take the next term by compare-and-set. Promotion waits for its success.
    pub(super) fn react(&mut self, c: &mut Common, now: Ms) {
        if c.view.has_open() {
            return c.retry_open(now);
        }
        let lapsed = all_hold(&LAPSED, |holds| holds(self, c, now));
        // Without heartbeats nobody tells that the record has changed, and a pairing may land late: look now and then.
        if lapsed && c.view.settled_since(Ms(now.0.saturating_sub(c.timing.ttl()))).is_none() {
            c.read(now);
        }
        if !lapsed || !all_hold(&READY_TO_TAKE_OVER, |holds| holds(self, c, now)) {
            return;
        }
        let (Some(volume), Some(v)) = (c.pg.volume, c.view.settled().copied()) else { return };
        let Some(cause) = self.cause(c, now, &v.record) else { return };
        let same = Clause::NextTerm.is_taken_away();
        let term = if same { v.record.term } else { v.record.term.next() };
        let record = Record {
            term,
            primary: c.me,
            mode: Mode::Solo,
            primary_volume: Some(volume),
            standby_volume: None,
            ..v.record
        };
        if c.begin_term(now, &v, Standby::beginning(cause), record) {
            let primary = v.record.primary.incarnation;
            let evidence = self.proof_against(primary).filter(|_| cause == FailoverCause::Evidence);
            let signals = self.signals(c, now, primary);
            c.note(Note::TakingOver {
                term,
                cause,
                evidence,
                signals,
                last_heartbeat: c.promises.given.last_heartbeat(),
            });
        }
    }

    fn beginning(cause: FailoverCause) -> Beginning {
        match cause {
            FailoverCause::PromiseLapsed => Beginning::Lapse,
            FailoverCause::Resigned | FailoverCause::Switchover => Beginning::Resigned,
            FailoverCause::Evidence => Beginning::Evidence,
            FailoverCause::Forced => Beginning::Forced,
        }
    }

    fn proof_against(&self, incarnation: Incarnation) -> Option<EvidenceKind> {
        self.takeover.as_ref()?.proof(incarnation)
    }

    fn cause(&self, c: &Common, now: Ms, r: &Record) -> Option<FailoverCause> {
        let mine = Clause::StandbyVolume.demands(r.standby_volume == c.pg.volume);
        let paired_with_me = r.mode == Mode::Paired && mine;
        let dead = self.proof_against(r.primary.incarnation).is_some();
        if let Some((since, resignation)) = self.takeover.as_ref().and_then(|t| t.resigned.as_ref()) {
            let names =
                resignation.from == r.primary || resignation.predecessor == Some(r.primary.incarnation);
            if resignation.term == r.term && (paired_with_me || names) {
                if Standby::has_wal_up_to(c, resignation) {
                    let ordered = resignation.ordered;
                    return Some(if ordered { FailoverCause::Switchover } else { FailoverCause::Resigned });
                }
                // Who resigned may be lost with the rest of its log: then what is open without a resignation, as late.
                if Standby::has_time_for_log(c, now, *since) {
                    return None;
                }
            }
        }
        let is_named = |dead: Incarnation| Clause::NamedDead.demands(dead == r.primary.incarnation);
        if c.orders.forced().is_some_and(is_named) {
            return Some(FailoverCause::Forced);
        }
        if !c.settings.automatic && !c.orders.takes_over() {
            return None;
        }
        if paired_with_me {
            return Some(if dead { FailoverCause::Evidence } else { FailoverCause::PromiseLapsed });
        }
        let lossy = Clause::EvidenceInAsync.demands(r.durability == Durability::Async);
        let opened = r.mode == Mode::Solo && dead && lossy;
        opened.then_some(FailoverCause::Evidence)
    }

    /// Whether a resignation or a proof of death lets this standby take over now, or as soon as it has the log or the record. One that
    /// opens nothing (a proof while the record says `Solo`) may stay for as long as the primary is away.
    pub(super) fn is_called(&self, c: &Common, now: Ms) -> bool {
        let Some(takeover) = &self.takeover else { return false };
        let resigned = takeover.resigned.is_some_and(|(since, _)| Standby::has_time_for_log(c, now, since));
        let opens = |r: &Record| self.cause(c, now, r).is_some();
        let proven = !takeover.dead.is_empty() && c.record().is_none_or(opens);
        resigned || proven || c.view.has_open()
    }

    /// Whether a take-over waits for nothing but the end of the log, which the primary that resigned hands over.
    #[must_use]
    pub fn awaits_log(&self, c: &Common, now: Ms) -> bool {
        let resigned = self.takeover.as_ref().and_then(|t| t.resigned.as_ref());
        let waits = resigned.is_some_and(|(since, r)| {
            Standby::has_time_for_log(c, now, *since) && !Standby::has_wal_up_to(c, r)
        });
        waits && !c.view.has_open()
    }

    /// For people: nothing is decided by it.
    fn signals(&self, c: &Common, now: Ms, primary: Incarnation) -> [Option<FailoverSignal>; 4] {
        let two_heartbeats_ago = Ms(now.0.saturating_sub(2 * c.timing.heartbeat_every()));
        let takeover = self.takeover.as_ref();
        let resigned = takeover.and_then(|t| t.resigned.as_ref()).map(|(_, resignation)| resignation);
        let speaks_for = |r: &Resignation| r.from.incarnation == primary || r.predecessor == Some(primary);
        [
            (FailoverSignal::Silent, !c.promises.given.heard_since(two_heartbeats_ago)),
            (FailoverSignal::StreamEnded, !c.pg.streaming),
            (FailoverSignal::Resigned, resigned.is_some_and(speaks_for)),
            (FailoverSignal::ProvenDead, self.proof_against(primary).is_some()),
        ]
        .map(|(signal, seen)| seen.then_some(signal))
    }

    /// Who resigned then may still be waited for, for the end of its log.
    fn has_time_for_log(c: &Common, now: Ms, resigned: Ms) -> bool {
        now < Timing::lapse_at(resigned, c.timing.ttl())
    }

    fn has_wal_up_to(c: &Common, r: &Resignation) -> bool {
        let has = c.pg.timeline == Some(r.timeline) && c.pg.position() >= Some(r.end);
        Clause::LogUpToEnd.demands(has)
    }
}
