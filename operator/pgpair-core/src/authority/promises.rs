//! Both sides of the promise: what the primary holds, and what the standby has given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::authority::messages::{Answer, Verdict};
use crate::authority::timing::{Ms, Timing};
use crate::ids::{Incarnation, Term};

/// What a primary holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Held {
    /// When the heartbeat left whose promise is the latest, and its term.
    promised: Option<(Ms, Term)>,
    sent: VecDeque<(u64, Ms)>,
    next_seq: u64,
    echo: Option<u64>,
    last_sent: Option<Ms>,
}

/// Heartbeats whose answers are still of use: at one every tenth of `ttl` this is three times `ttl`.
const REMEMBERED: usize = 32;

impl Held {
    /// Numbers the next heartbeat, sent at `now`: (number, answer number to repeat).
    pub fn next(&mut self, now: Ms) -> (u64, Option<u64>) {
        self.next_seq += 1;
        self.sent.push_back((self.next_seq, now));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        self.last_sent = Some(now);
        (self.next_seq, self.echo)
    }

    /// When the last heartbeat left.
    #[must_use]
    pub fn last_sent(&self) -> Option<Ms> {
        self.last_sent
    }

    /// Takes an answer to one of our heartbeats of `term`; says whether it proved a new promise.
    pub fn on_answer(&mut self, term: Term, answer: &Answer) -> bool {
        let Some(&(_, sent)) = self.sent.iter().find(|(seq, _)| *seq == answer.seq) else {
            return false; // unknown, doubled after use, or from before a resignation
        };
        if Some(answer.number) > self.echo {
            self.echo = Some(answer.number);
        }
        if answer.verdict != Verdict::Promised || answer.term != term {
            return false;
        }
        let newer = self.promised.is_none_or(|(s, t)| t != term || s < sent);
        if newer {
            self.promised = Some((sent, term));
        }
        newer
    }

    /// When the heartbeat left that got the latest promise in `term`.
    #[must_use]
    pub fn promised_at(&self, term: Term) -> Option<Ms> {
        self.promised.filter(|(_, t)| *t == term).map(|(sent, _)| sent)
    }

    /// Voids what is held and every answer to an earlier heartbeat (resignation).
    pub fn void(&mut self) {
        self.promised = None;
        self.sent.clear();
    }
}

/// What a standby has given. The last promise to end decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Given {
    until: BTreeMap<Incarnation, Ms>,
    answers: VecDeque<(Incarnation, u64, Ms)>,
    next_answer: u64,
    void: BTreeSet<Incarnation>,
    last_heartbeat: Option<Ms>,
}

impl Given {
    /// Numbers the answer that is given to `to` at `now`.
    pub fn number(&mut self, to: Incarnation, now: Ms) -> u64 {
        self.next_answer += 1;
        self.answers.push_back((to, self.next_answer, now));
        if self.answers.len() > REMEMBERED {
            self.answers.pop_front();
        }
        self.next_answer
    }

    /// Whether `echo` repeats an answer given to `to` that is younger than `ttl`: the way back is open.
    #[must_use]
    pub fn proves_way_back(&self, to: Incarnation, echo: Option<u64>, now: Ms, ttl: u64) -> bool {
        self.answers.iter().any(|(i, n, at)| *i == to && Some(*n) == echo && now - *at < ttl)
    }

    /// Gives or extends the promise to `to`.
    pub fn promise(&mut self, to: Incarnation, now: Ms, ttl: u64) {
        let lapse = Timing::lapse_at(now, ttl);
        let until = self.until.entry(to).or_insert(lapse);
        *until = lapse.max(*until);
        self.last_heartbeat = Some(now);
    }

    /// Whether a heartbeat of this incarnation is worth nothing any more.
    #[must_use]
    pub fn is_void(&self, to: Incarnation) -> bool {
        self.void.contains(&to)
    }

    /// Voids the promise to one incarnation: it resigned or is proven dead.
    pub fn void(&mut self, to: Incarnation) {
        self.until.remove(&to);
        self.void.insert(to);
    }

    /// A new term: dead and resigned incarnations of earlier terms are refused by their term already.
    pub fn new_term(&mut self) {
        self.void.clear();
    }

    /// Whether every promise has lapsed or is void.
    #[must_use]
    pub fn all_lapsed(&self, now: Ms) -> bool {
        self.until.values().all(|u| *u <= now)
    }

    /// When the last promise lapses, if one is open.
    #[must_use]
    pub fn last_lapse(&self) -> Option<Ms> {
        self.until.values().max().copied()
    }

    /// Receipt of the last heartbeat that got a promise.
    #[must_use]
    pub fn last_heartbeat(&self) -> Option<Ms> {
        self.last_heartbeat
    }
}
