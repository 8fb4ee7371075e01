//! The standby's rules: the promise, 2 (losing the primary), 5 and 6 as they open the way to it, 8 (eligibility).

use serde::{Deserialize, Serialize};

use crate::authority::clause::{Clause, Condition, all_hold, first_unmet};
use crate::authority::messages::{
    Answer, CanTake, CanTakeReply, CannotTake, Evidence, EvidenceKind, Heartbeat, NoPromise, ResignReply,
    Resignation, StandbyInfo, Verdict,
};
use crate::authority::timing::{Ms, Timing};
use crate::authority::{Authority, Command, Directory, Durability, Note, ReplyId, Want};
use crate::authority::{FailoverCause, FailoverSignal};
use crate::ids::Incarnation;
use crate::instance::{PostgresState, Role};
use crate::record::{Mode, Record};

/// What speaks for taking over from the primary of the present term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) struct Takeover {
    pub(super) resigned: Option<(Ms, Resignation)>,
    /// Proven dead, each by the proof that came first.
    pub(super) dead: Vec<(Incarnation, EvidenceKind)>,
    /// Who was told to take its term back, and how long it has the time to do so.
    pub(super) refused: Option<(Incarnation, Ms)>,
}

impl Takeover {
    fn proof(&self, incarnation: Incarnation) -> Option<EvidenceKind> {
        self.dead.iter().find(|(dead, _)| *dead == incarnation).map(|(_, kind)| *kind)
    }
}

type HoldsOfHeartbeat = fn(&Authority, &Heartbeat, Ms) -> bool;

/// A heartbeat of the present term gets a promise if all of this holds, and the length that it asks for is on the disk.
pub(super) const PROMISE: [Condition<Verdict, HoldsOfHeartbeat>; 5] = [
    Condition::new(
        "this instance is the standby of that term, and the heartbeat is the other one's",
        Verdict::Refused(NoPromise::NotStandby),
        |a, hb, _| a.role() == Role::Standby && hb.from.instance != a.me.instance,
    ),
    Condition::new(
        "the sender has not resigned this term, and is not proven dead",
        Verdict::Refused(NoPromise::Void),
        |a, hb, _| !a.given.is_void(hb.from.incarnation),
    ),
    Condition::of(
        Clause::SilentTakeover,
        "no take-over is under way",
        Verdict::Refused(NoPromise::TakeoverUnderWay),
        |a, _, _| !a.view.has_open(),
    ),
    Condition::of(
        Clause::SilentTakeover,
        "if the record has been read: it is settled, or foreign",
        Verdict::Refused(NoPromise::RecordUnknown),
        |a, _, _| a.view.last().is_none() || a.view.settled().is_some() || a.view.foreign(),
    ),
    Condition::of(
        Clause::WayBack,
        "it repeats the number of an answer that was given to its sender within `ttl`",
        Verdict::Challenge,
        |a, hb, now| a.given.proves_way_back(hb.from.incarnation, hb.echo, now, u64::from(hb.ttl_ms)),
    ),
];

type Holds = fn(&Authority, Ms) -> bool;

/// Rule 2: a take-over needs all of this, and of the next table, and a cause.
pub(super) const LAPSED: [Condition<(), Holds>; 2] = [
    Condition::of(
        Clause::LapseFirst,
        "every promise that this instance gave has lapsed or is void",
        (),
        |a, now| a.given.all_lapsed(now),
    ),
    Condition::of(
        Clause::Quarantine,
        "its quarantine is over: no promise of an earlier process of it can be open",
        (),
        |a, now| now >= a.quarantine_until,
    ),
];

/// The rest of it.
pub(super) const READY_TO_TAKE_OVER: [Condition<(), Holds>; 4] = [
    Condition::new(
        "it has not told a primary that resigned to take its term back, or `ttl` ago",
        (),
        |a, now| {
            let refused = a.takeover.as_ref().and_then(|t| t.refused);
            refused.is_none_or(|(_, until)| now >= until)
        },
    ),
    Condition::new("it is not going to stop", (), |a, _| !a.stops_as_standby()),
    Condition::new("it has a standby's data directory", (), |a, _| {
        a.pg.volume.is_some() && a.pg.directory == Directory::Standby
    }),
    Condition::new("the record is settled", (), |a, _| a.view.settled().is_some()),
];

impl Authority {
    pub(super) fn desired_of_standby(&self, now: Ms) -> Want {
        let writable = self.postgres_may_write();
        if writable {
            return Want::Down;
        }
        if self.view.has_open() {
            return Want::Unchanged;
        }
        let stops = self.durable.fenced || self.orders.restarts_standby();
        if stops && (self.may_stop_as_standby(now) || !self.postgres_is_up()) {
            return Want::Stopped;
        }
        match self.pg.directory {
            Directory::Standby | Directory::Primary => Want::Following(self.term()),
            Directory::Unknown | Directory::Empty | Directory::Unusable => Want::Down,
        }
    }

    pub(super) fn on_heartbeat(&mut self, now: Ms, reply: ReplyId, hb: &Heartbeat) {
        let verdict = self.verdict_on(now, hb);
        if verdict == Verdict::Promised {
            self.given.promise(hb.from.incarnation, now, u64::from(hb.ttl_ms));
            self.takeover = None;
        }
        if hb.version.is_some_and(|v| self.view.last().is_none_or(|l| l.version < v)) {
            self.read(now);
        }
        let number = self.given.number(hb.from.incarnation, now);
        let standby = StandbyInfo {
            volume: self.pg.volume,
            timeline: self.pg.timeline,
            flush: self.pg.flush,
            replay: self.pg.replay,
            streaming: self.pg.streaming && self.pg.state == PostgresState::Standby,
            leaving: self.stops_as_standby(),
        };
        let answer = Answer { to: hb.from.incarnation, term: hb.term, seq: hb.seq, number, verdict, standby };
        self.out.push(Command::AnswerHeartbeat(reply, answer));
    }

    /// Answers are given only by a standby of that term that has nothing under way; unread, by the term on its disk.
    fn verdict_on(&mut self, now: Ms, hb: &Heartbeat) -> Verdict {
        let term = self.term();
        if hb.term < term {
            return Verdict::NewerTerm(term);
        }
        if hb.term > term {
            self.read(now);
            return Verdict::Refused(NoPromise::RecordUnknown);
        }
        if Clause::AnswersByDisk.is_taken_away() && self.view.last().is_none() {
            return Verdict::Refused(NoPromise::RecordUnknown);
        }
        if let Some(verdict) = first_unmet(&PROMISE, |holds| holds(self, hb, now)) {
            return verdict;
        }
        if hb.ttl_ms > self.persisted.longest_ttl_ms {
            self.durable.longest_ttl_ms = self.durable.longest_ttl_ms.max(hb.ttl_ms);
            return Verdict::Refused(NoPromise::Persisting);
        }
        Verdict::Promised
    }

    pub(super) fn answer_questions(&mut self, now: Ms) {
        for (reply, question, at) in std::mem::take(&mut self.questions) {
            let answer = match self.view.settled_since(at) {
                Some(v) => self.can_take(&question, &v.record.clone()),
                None if now - at >= self.timing.ttl() / 5 => CanTakeReply::No(CannotTake::RecordUnreadable),
                None => {
                    self.read(now);
                    self.questions.push((reply, question, at));
                    continue;
                }
            };
            self.out.push(Command::AnswerCanTake(reply, answer));
        }
    }

    fn can_take(&self, q: &CanTake, r: &Record) -> CanTakeReply {
        let named =
            r.term == q.term && r.primary.instance == q.from.instance && q.from.instance != self.me.instance;
        let takeable = match r.mode {
            Mode::Paired => r.standby_volume == self.pg.volume && self.pg.volume.is_some(),
            Mode::Solo => r.primary == q.from && (self.pg.streaming || q.down),
        };
        CanTakeReply::No(if !named || !takeable {
            CannotTake::RecordSaysNo
        } else if self.pg.state != PostgresState::Standby {
            CannotTake::NotStandby
        } else if self.stops_as_standby() {
            CannotTake::Leaving
        } else if !self.settings.automatic && !q.ordered {
            CannotTake::NotAutomatic
        } else {
            return CanTakeReply::Yes(self.me.incarnation);
        })
    }

    pub(super) fn on_resignation(&mut self, now: Ms, reply: ReplyId, r: &Resignation) {
        let answer = self.accept_resignation(now, r);
        self.out.push(Command::AnswerResignation(reply, answer));
    }

    fn accept_resignation(&mut self, now: Ms, r: &Resignation) -> ResignReply {
        let term = self.term();
        if r.term < term {
            return ResignReply::Taken(term);
        }
        if r.term > term || self.role() != Role::Standby || r.from.instance == self.me.instance {
            self.read(now);
            return ResignReply::Refused(CannotTake::RecordSaysNo);
        }
        self.given.void(r.from.incarnation);
        if let Some(dead) = r.predecessor {
            self.given.void(dead);
        }
        // Rule 7: the promises of earlier processes of this instance were to the sender or to processes that ended before it began.
        if Clause::ResignedToMe.demands(r.to == self.me.incarnation) {
            self.quarantine_until = self.quarantine_until.min(now);
        }
        let takeover = self.takeover.get_or_insert_default();
        if takeover.refused.is_some_and(|(who, _)| who == r.from.incarnation) {
            return ResignReply::Refused(CannotTake::WalMissing);
        }
        let (since, _) = *takeover.resigned.get_or_insert((now, *r));
        // Without the end of the log it will not be taken over; say so in time for the old primary to take it back.
        if now - since > self.timing.ttl() / 2 && !self.view.has_open() {
            takeover.resigned = None;
            takeover.refused = Some((r.from.incarnation, now + self.timing.ttl()));
            return ResignReply::Refused(CannotTake::WalMissing);
        }
        ResignReply::Accepted
    }

    /// Rule 6: names one incarnation, and voids the promise to that one only. Never shortens the quarantine.
    pub(super) fn on_evidence(&mut self, now: Ms, evidence: Evidence) {
        if self.role() == Role::Primary && self.predecessor_is(evidence.incarnation) {
            self.durable.node = Some(self.node); // what ran on another node is dead: the lock here counts again
        }
        if self.role() != Role::Standby || evidence.incarnation == self.me.incarnation {
            return;
        }
        self.given.void(evidence.incarnation);
        let takeover = self.takeover.get_or_insert_default();
        if takeover.proof(evidence.incarnation).is_none() {
            takeover.dead.push((evidence.incarnation, evidence.kind));
        }
        self.read(now);
    }

    pub(super) fn predecessor_is(&self, incarnation: Incarnation) -> bool {
        let named = self.record().map(|r| r.primary);
        named.is_some_and(|n| n.instance == self.me.instance && n.incarnation == incarnation)
    }

    /// Rule 2: every promise lapsed or void, the record says `Paired` and names this volume (or rule 5 or 6 opened
    /// `Solo`): take the next term by compare-and-set. Promotion waits for its success.
    pub(super) fn react_as_standby(&mut self, now: Ms) {
        if self.view.has_open() {
            return self.retry_open(now);
        }
        let lapsed = all_hold(&LAPSED, |holds| holds(self, now));
        // Without heartbeats nobody tells that the record has changed, and a pairing may land late: look now and then.
        if lapsed && self.view.settled_since(Ms(now.0.saturating_sub(self.timing.ttl()))).is_none() {
            self.read(now);
        }
        if !lapsed || !all_hold(&READY_TO_TAKE_OVER, |holds| holds(self, now)) {
            return;
        }
        let (Some(volume), Some(v)) = (self.pg.volume, self.view.settled().copied()) else { return };
        let Some(cause) = self.cause(now, &v.record) else { return };
        let same = Clause::NextTerm.is_taken_away();
        let term = if same { v.record.term } else { v.record.term.next() };
        let record = Record {
            term,
            primary: self.me,
            mode: Mode::Solo,
            primary_volume: Some(volume),
            standby_volume: None,
            ..v.record
        };
        if self.cas(now, &v, record) {
            let primary = v.record.primary.incarnation;
            let evidence = self.proof_against(primary).filter(|_| cause == FailoverCause::Evidence);
            let signals = self.signals(now, primary);
            self.note(Note::TakingOver {
                term,
                cause,
                evidence,
                signals,
                last_heartbeat: self.given.last_heartbeat(),
            });
        }
    }

    fn proof_against(&self, incarnation: Incarnation) -> Option<EvidenceKind> {
        self.takeover.as_ref()?.proof(incarnation)
    }

    fn cause(&self, now: Ms, r: &Record) -> Option<FailoverCause> {
        let mine = Clause::StandbyVolume.demands(r.standby_volume == self.pg.volume);
        let paired_with_me = r.mode == Mode::Paired && mine;
        let dead = self.proof_against(r.primary.incarnation).is_some();
        if let Some((since, resignation)) = self.takeover.as_ref().and_then(|t| t.resigned.as_ref()) {
            let names =
                resignation.from == r.primary || resignation.predecessor == Some(r.primary.incarnation);
            if resignation.term == r.term && (paired_with_me || names) {
                if self.has_wal_up_to(resignation) {
                    let ordered = resignation.ordered;
                    return Some(if ordered { FailoverCause::Switchover } else { FailoverCause::Resigned });
                }
                // Who resigned may be lost with the rest of its log: then what is open without a resignation, as late.
                if self.has_time_for_log(now, *since) {
                    return None;
                }
            }
        }
        let is_named = |dead: Incarnation| Clause::NamedDead.demands(dead == r.primary.incarnation);
        if self.orders.forced().is_some_and(is_named) {
            return Some(FailoverCause::Forced);
        }
        if !self.settings.automatic && !self.orders.takes_over() {
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
    pub(super) fn is_called(&self, now: Ms) -> bool {
        let Some(takeover) = &self.takeover else { return false };
        let resigned = takeover.resigned.is_some_and(|(since, _)| self.has_time_for_log(now, since));
        let opens = |r: &Record| self.cause(now, r).is_some();
        let proven = !takeover.dead.is_empty() && self.record().is_none_or(opens);
        resigned || proven || self.view.has_open()
    }

    /// Whether a take-over waits for nothing but the end of the log, which the primary that resigned hands over.
    #[must_use]
    pub fn awaits_log(&self, now: Ms) -> bool {
        let resigned = self.takeover.as_ref().and_then(|t| t.resigned.as_ref());
        let waits =
            resigned.is_some_and(|(since, r)| self.has_time_for_log(now, *since) && !self.has_wal_up_to(r));
        waits && self.role() == Role::Standby && !self.view.has_open()
    }

    /// For people: nothing is decided by it.
    fn signals(&self, now: Ms, primary: Incarnation) -> [Option<FailoverSignal>; 4] {
        let two_heartbeats_ago = Ms(now.0.saturating_sub(2 * self.timing.heartbeat_every()));
        let takeover = self.takeover.as_ref();
        let resigned = takeover.and_then(|t| t.resigned.as_ref()).map(|(_, resignation)| resignation);
        let speaks_for = |r: &Resignation| r.from.incarnation == primary || r.predecessor == Some(primary);
        [
            (FailoverSignal::Silent, !self.given.heard_since(two_heartbeats_ago)),
            (FailoverSignal::StreamEnded, !self.pg.streaming),
            (FailoverSignal::Resigned, resigned.is_some_and(speaks_for)),
            (FailoverSignal::ProvenDead, self.proof_against(primary).is_some()),
        ]
        .map(|(signal, seen)| seen.then_some(signal))
    }

    /// Who resigned then may still be waited for, for the end of its log.
    fn has_time_for_log(&self, now: Ms, resigned: Ms) -> bool {
        now < Timing::lapse_at(resigned, self.timing.ttl())
    }

    fn has_wal_up_to(&self, r: &Resignation) -> bool {
        let has = self.pg.timeline == Some(r.timeline) && self.pg.position() >= Some(r.end);
        Clause::LogUpToEnd.demands(has)
    }
}
