//! What the other instance is answered, in whatever role: the promise, and "can you take it?".

use crate::authority::clause::{Clause, Condition, first_unmet};
use crate::authority::common::Common;
use crate::authority::event::{Command, ReplyId};
use crate::authority::messages::{
    Answer, CanTake, CanTakeReply, CannotTake, Heartbeat, NoPromise, ResignReply, Resignation, StandbyInfo,
    Verdict,
};
use crate::authority::timing::Ms;
use crate::instance::{PostgresState, Role};
use crate::record::{Mode, Record};

type Holds = fn(&Common, &Heartbeat, Ms) -> bool;

/// A heartbeat of the present term gets a promise if all of this holds, and the length that it asks for is on the disk.
pub(super) const PROMISE: [Condition<Verdict, Holds>; 5] = [
    Condition::new(
        "this instance is the standby of that term, and the heartbeat is the other one's",
        Verdict::Refused(NoPromise::NotStandby),
        |c, hb, _| c.role() == Role::Standby && hb.from.instance != c.me.instance,
    ),
    Condition::new(
        "the sender has not resigned this term, and is not proven dead",
        Verdict::Refused(NoPromise::Void),
        |c, hb, _| !c.promises.given.is_void(hb.from.incarnation),
    ),
    Condition::of(
        Clause::SilentTakeover,
        "no take-over is under way",
        Verdict::Refused(NoPromise::TakeoverUnderWay),
        |c, _, _| !c.view.has_open(),
    ),
    Condition::of(
        Clause::SilentTakeover,
        "if the record has been read: it is settled, or foreign",
        Verdict::Refused(NoPromise::RecordUnknown),
        |c, _, _| c.view.last().is_none() || c.view.settled().is_some() || c.view.foreign(),
    ),
    Condition::of(
        Clause::WayBack,
        "it repeats the number of an answer that was given to its sender within `ttl`",
        Verdict::Challenge,
        |c, hb, now| {
            c.promises.given.proves_way_back(hb.from.incarnation, hb.echo, now, u64::from(hb.ttl_ms))
        },
    ),
];

impl Common {
    /// Says whether it was promised anything.
    pub(super) fn on_heartbeat(&mut self, now: Ms, reply: ReplyId, hb: &Heartbeat) -> bool {
        let verdict = self.verdict_on(now, hb);
        if verdict == Verdict::Promised {
            self.promises.given.promise(hb.from.incarnation, now, u64::from(hb.ttl_ms));
        }
        if hb.version.is_some_and(|v| self.view.last().is_none_or(|l| l.version < v)) {
            self.read(now);
        }
        let number = self.promises.given.number(hb.from.incarnation, now);
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
        verdict == Verdict::Promised
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

    /// By who is not the standby of that term, or no longer.
    pub(super) fn refuse_resignation(&mut self, now: Ms, r: &Resignation) -> ResignReply {
        let term = self.term();
        if r.term < term {
            return ResignReply::Taken(term);
        }
        self.read(now);
        ResignReply::Refused(CannotTake::RecordSaysNo)
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
}
