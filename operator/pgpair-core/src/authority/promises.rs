//! Both sides of the promise: what the primary holds, and what the standby has given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::authority::clause::Clause;
use crate::authority::messages::{Answer, Verdict};
use crate::authority::timing::{Ms, Timing};
use crate::ids::{Incarnation, Term};

/// Both sides, of one process: it may have been primary and standby.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Promises {
    pub(super) held: Held,
    pub(super) given: Given,
    /// Rule 7: until then a promise that an earlier process of this instance gave may be open.
    pub(super) quarantine_until: Ms,
}

impl Promises {
    /// `longest`: the longest that an earlier process may have promised, in milliseconds.
    pub(super) fn of_new_process(me: Incarnation, longest: u64, now: Ms) -> Promises {
        Promises {
            held: Held::default(),
            given: Given::by(me),
            quarantine_until: Timing::lapse_at(now, longest),
        }
    }
}

/// What a primary holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Held {
    /// The latest promise, and its term.
    pub(super) promised: Option<(HeldPromise, Term)>,
    pub(super) sent: VecDeque<(u64, HeldPromise)>,
    pub(super) next_seq: u64,
    /// Our latest heartbeat that was answered, and the number of that answer.
    pub(super) heard: Option<(u64, u64)>,
    pub(super) last_sent: Option<Ms>,
}

/// A promise as the one who holds it counts it: from the sending of the heartbeat, for the length that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldPromise {
    /// When the heartbeat left.
    pub sent: Ms,
    /// Times of that length: `ttl` may have been changed since.
    pub timing: Timing,
}

impl HeldPromise {
    /// When postgres must be killed if no other comes.
    #[must_use]
    pub fn fence_at(self) -> Ms {
        self.timing.fence_at(self.sent)
    }

    /// When to look for a way to go on alone.
    #[must_use]
    pub fn worry_at(self) -> Ms {
        self.timing.worry_at(self.sent)
    }
}

/// Heartbeats whose answers are still of use: at one every tenth of `ttl` this is three times `ttl`.
const REMEMBERED: usize = 32;

impl Held {
    /// Numbers the next heartbeat, sent at `now`: (number, answer number to repeat).
    pub fn next(&mut self, now: Ms, timing: Timing) -> (u64, Option<u64>) {
        self.next_seq = self.next_seq.wrapping_add(1);
        self.sent.push_back((self.next_seq, HeldPromise { sent: now, timing }));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        self.last_sent = Some(now);
        (self.next_seq, self.heard.map(|(_, number)| number))
    }

    /// When the last heartbeat left.
    #[must_use]
    pub fn last_sent(&self) -> Option<Ms> {
        self.last_sent
    }

    /// Takes an answer to one of our heartbeats of `term`; says whether it proved a new promise.
    pub fn on_answer(&mut self, term: Term, answer: &Answer) -> bool {
        let Some(&(_, asked)) = self.sent.iter().find(|(seq, _)| *seq == answer.seq) else {
            return false; // unknown, doubled after use, or from before a resignation
        };
        // By our own numbers: a peer that starts again begins anew with its own.
        if self.heard.is_none_or(|(seq, _)| seq < answer.seq) {
            self.heard = Some((answer.seq, answer.number));
        }
        if answer.verdict != Verdict::Promised || answer.term != term {
            return false;
        }
        let newer = self.promised.is_none_or(|(p, t)| t != term || p.fence_at() < asked.fence_at());
        if newer {
            self.promised = Some((asked, term));
        }
        newer
    }

    /// The promise of `term` that ends last.
    #[must_use]
    pub fn promised(&self, term: Term) -> Option<HeldPromise> {
        self.promised.filter(|(_, t)| *t == term).map(|(promise, _)| promise)
    }

    /// Voids what is held and every answer to an earlier heartbeat (resignation).
    pub fn void(&mut self) {
        self.promised = None;
        self.sent.clear();
    }
}

/// What a standby has given. The last promise to end decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Given {
    pub(super) until: BTreeMap<Incarnation, Ms>,
    pub(super) answers: VecDeque<(Incarnation, u64, Ms)>,
    pub(super) next_answer: u64,
    pub(super) void: BTreeSet<Incarnation>,
    pub(super) last_heartbeat: Option<Ms>,
}

impl Given {
    /// Nothing yet. Each process begins with a number of its own, so that no answer is taken for one of an earlier process; below
    /// 2^52, which every reader of JSON keeps.
    #[must_use]
    pub fn by(me: Incarnation) -> Given {
        Given {
            until: BTreeMap::new(),
            answers: VecDeque::new(),
            next_answer: Given::numbers_of(me),
            void: BTreeSet::new(),
            last_heartbeat: None,
        }
    }

    /// Its answers are numbered from the one behind this.
    #[must_use]
    pub const fn numbers_of(me: Incarnation) -> u64 {
        (me.0 & 0xf_ffff) << 32
    }

    /// Numbers the answer that is given to `to` at `now`.
    pub fn number(&mut self, to: Incarnation, now: Ms) -> u64 {
        self.next_answer = self.next_answer.wrapping_add(1);
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
        if Clause::PromisePerIncarnation.is_taken_away() {
            self.until.clear();
        }
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
        if Clause::OneIncarnation.is_taken_away() {
            self.until.clear();
        }
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

    /// Whether a heartbeat was answered, promised or not, at `since` or later.
    #[must_use]
    pub fn heard_since(&self, since: Ms) -> bool {
        self.answers.iter().any(|(_, _, at)| *at >= since)
    }

    /// Receipt of the last heartbeat that got a promise.
    #[must_use]
    pub fn last_heartbeat(&self) -> Option<Ms> {
        self.last_heartbeat
    }
}
