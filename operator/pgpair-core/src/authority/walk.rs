//! For model checking only (feature `model`): a walk over everything in the state that is a time or a number whose value
//! as such means nothing. What the protocol can tell apart is: how long ago something was, up to a longest span that it
//! ever asks for; whether a deadline is still to come; which of two numbers is the larger. A checker may replace each
//! value by another that looks the same in this sense, and so finds that two states are one.
//!
//! Every struct is taken apart field by field: a new field does not compile until it is said here what it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::authority::common::Common;
use crate::authority::facts::{PgFacts, SyncState};
use crate::authority::messages::{Answer, CanTake, Heartbeat, Resignation};
use crate::authority::notes::SoloReason;
use crate::authority::orders::{Job, JobKind, ORDER_BUDGET_MS, Orders};
use crate::authority::pairing::{HANG_PATIENCE_MS, stall_after};
use crate::authority::promises::{Given, Held, Promises};
use crate::authority::resign::stop_budget;
use crate::authority::role::{Pairing, Part, Primary, Resign, Standby, Takeover};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::{OpenCas, View};
use crate::ids::Incarnation;
use crate::order::OrderKind;
use crate::record::{Holder, Record, Version};

/// What a walk does at each place.
pub trait Walk {
    /// What the clock shows.
    fn now(&self) -> Ms;
    /// Something happened at `t`; the protocol asks only whether that is `span` ago, or less.
    fn since(&mut self, t: &mut Ms, span: u64);
    /// Something ends at `t`; the protocol asks only whether that is still to come.
    fn until(&mut self, t: &mut Ms);
    /// A question was asked, or its reason came up, at `t`: such times are compared with each other and with `span` ago.
    fn asked(&mut self, t: &mut Ms, span: u64);
    /// Whether `t` is more than `span` ago.
    fn is_over(&self, t: Ms, span: u64) -> bool;
    /// A version of the record.
    fn version(&mut self, v: &mut Version);
    /// An agent process.
    fn incarnation(&mut self, i: &mut Incarnation);
    /// The number of a heartbeat of this instance.
    fn seq(&mut self, n: &mut u64);
    /// Whether anybody but this instance still knows that number.
    fn seq_is_known(&self, n: u64) -> bool;
    /// The number of the heartbeat that this instance sent last: larger than all that are known.
    fn last_seq(&mut self, n: &mut u64);
    /// The number of an answer of this instance.
    fn answer(&mut self, n: &mut u64);
    /// Whether anybody but this instance still knows that number.
    fn answer_is_known(&self, n: u64) -> bool;
    /// The number of the answer that this instance gave last: larger than all that are known.
    fn last_answer(&mut self, n: &mut u64);
    /// The number of an answer of the peer.
    fn echo(&mut self, n: &mut u64);
    /// The number of a compare-and-set of this instance.
    fn cas(&mut self, n: &mut u64);
    /// The number of the compare-and-set that this instance sent last.
    fn last_cas(&mut self, n: &mut u64);
    /// The number of a wish that commits wait.
    fn epoch(&mut self, n: &mut u32);
}

/// Walks over the state.
pub(super) fn walk_all(common: &mut Common, part: &mut Part, w: &mut impl Walk) {
    match part {
        Part::Unknown => {}
        Part::Primary(primary) => primary.walk(common, w),
        Part::Standby(standby) => standby.walk(common.timing, w),
    }
    common.walk(w);
}

impl Common {
    fn walk(&mut self, w: &mut impl Walk) {
        let Common {
            me,
            node: _,
            timing,
            settings: _,
            durable,
            persisted: _,
            persisting: _,
            born,
            view,
            promises,
            pg,
            peer,
            sync_epoch,
            questions,
            orders,
            leaving,
            given_up: _,
            cas_tried,
            next_cas,
            beginning: _,
            out: _,
        } = self;
        let t = *timing;
        w.incarnation(&mut me.incarnation);
        // Its age counts for longer where a stop began with the process: see `may_stop_as_standby`.
        w.since(born, if durable.fenced { 2 * t.ttl() } else { t.ttl() / 5 });
        promises.walk(t, w);
        pg.walk(w);
        each(peer, |(at, _)| w.since(at, 2 * t.heartbeat_every()));
        w.epoch(sync_epoch);
        for (_, question, at) in questions {
            question.walk(w);
            w.asked(at, t.ttl() / 5);
        }
        orders.walk(t, w);
        view.walk(t, w);
        each(leaving, |at| w.since(at, 2 * t.ttl()));
        each(cas_tried, |at| w.since(at, t.retry_every()));
        w.last_cas(next_cas);
    }
}

impl Promises {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Promises { held, given, quarantine_until } = self;
        held.walk(t, w);
        given.walk(t, w);
        w.until(quarantine_until);
    }
}

impl Primary {
    fn walk(&mut self, c: &Common, w: &mut impl Walk) {
        let Primary { pairing, resign } = self;
        pairing.walk(c.timing, &c.view, w);
        resign.walk(c.timing, w);
        if let Resign::Declined { until } = resign
            && c.leaving.is_none()
            && !c.durable.fenced
            && c.pg.failed_starts == 0
        {
            *until = w.now(); // not told apart: how long ago it was, unless it is going to ask again
        }
    }
}

impl Standby {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Standby { takeover } = self;
        if *takeover == Some(Takeover::default()) {
            *takeover = None;
        }
        each(takeover, |takeover| takeover.walk(t, w));
    }
}

fn each<T>(value: &mut Option<T>, act: impl FnMut(&mut T)) {
    value.iter_mut().for_each(act);
}

impl Holder {
    /// Walks over it.
    pub fn walk(&mut self, w: &mut impl Walk) {
        w.incarnation(&mut self.incarnation);
    }
}

impl Record {
    /// Walks over it.
    pub fn walk(&mut self, w: &mut impl Walk) {
        self.primary.walk(w);
    }
}

impl PgFacts {
    /// Walks over it.
    pub fn walk(&mut self, w: &mut impl Walk) {
        if let SyncState::On { epoch, .. } = &mut self.sync {
            w.epoch(epoch);
        }
    }
}

impl Heartbeat {
    /// Walks over it, in the place of its sender.
    pub fn walk(&mut self, w: &mut impl Walk) {
        let Heartbeat { term: _, from, seq, ttl_ms: _, echo, version } = self;
        from.walk(w);
        w.seq(seq);
        each(echo, |n| w.echo(n));
        each(version, |v| w.version(v));
    }
}

impl Answer {
    /// Walks over it, in the place of the one who asked.
    pub fn walk(&mut self, w: &mut impl Walk) {
        let Answer { to, term: _, seq, number, verdict: _, standby: _ } = self;
        w.incarnation(to);
        w.seq(seq);
        w.echo(number);
    }
}

impl CanTake {
    /// Walks over it.
    pub fn walk(&mut self, w: &mut impl Walk) {
        self.from.walk(w);
    }
}

impl Resignation {
    /// Walks over it.
    pub fn walk(&mut self, w: &mut impl Walk) {
        self.from.walk(w);
        each(&mut self.predecessor, |i| w.incarnation(i));
        w.incarnation(&mut self.to);
    }
}

impl View {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let View { last, asked, open, outdated, foreign: _, reading, read_tried } = self;
        each(last, |v| {
            w.version(&mut v.version);
            v.record.walk(w);
        });
        w.asked(asked, t.ttl());
        for OpenCas { id, expected, record, sent, awaiting_reply: _ } in open {
            w.cas(&mut id.0);
            w.version(expected);
            record.walk(w);
            w.until(sent); // told, never asked for
        }
        each(outdated, |v| w.version(v));
        each(reading, |at| w.until(at)); // only that there is one
        each(read_tried, |at| w.since(at, t.retry_every()));
    }
}

impl Held {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Held { promised, sent, next_seq, heard, last_sent } = self;
        each(promised, |(p, _)| w.since(&mut p.sent, p.timing.ttl()));
        sent.retain(|(seq, _)| w.seq_is_known(*seq));
        for (seq, p) in sent {
            w.seq(seq);
            w.since(&mut p.sent, p.timing.ttl());
        }
        w.last_seq(next_seq);
        each(heard, |(seq, number)| {
            w.seq(seq);
            w.echo(number);
        });
        each(last_sent, |at| w.since(at, t.heartbeat_every()));
    }
}

impl Given {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Given { until, answers, next_answer, void, last_heartbeat } = self;
        *until = std::mem::take(until)
            .into_iter()
            .filter(|(_, end)| !w.is_over(*end, 0))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(mut i, mut end)| {
                w.incarnation(&mut i);
                w.until(&mut end);
                (i, end)
            })
            .collect::<BTreeMap<_, _>>();
        // The last one tells besides when the peer was heard.
        let newest = answers.back().map(|(_, n, _)| *n);
        answers
            .retain(|(_, n, at)| !w.is_over(*at, t.ttl()) && (w.answer_is_known(*n) || Some(*n) == newest));
        for (to, n, at) in answers {
            w.incarnation(to);
            w.answer(n);
            w.since(at, t.ttl());
        }
        w.last_answer(next_answer);
        *void = renamed(void, w);
        *last_heartbeat = None; // told, never asked for
    }
}

fn renamed(set: &BTreeSet<Incarnation>, w: &mut impl Walk) -> BTreeSet<Incarnation> {
    set.iter()
        .map(|i| {
            let mut i = *i;
            w.incarnation(&mut i);
            i
        })
        .collect()
}

impl Resign {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        match self {
            Resign::None => {}
            Resign::Asking { since } => w.since(since, t.ttl() / 2 + 1),
            Resign::Declined { until } => w.until(until),
            Resign::Stopping { since, to } => {
                w.since(since, stop_budget(t) + 1);
                w.incarnation(to);
            }
            Resign::Resigned { since, to, heard, told, refused: _ } => {
                w.since(since, 2 * t.ttl());
                w.incarnation(to);
                each(heard, |at| w.since(at, t.ttl()));
                each(told, |at| w.since(at, t.heartbeat_every()));
            }
        }
    }
}

impl Takeover {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Takeover { resigned, dead, refused } = self;
        each(resigned, |(at, r)| {
            w.since(at, t.ttl() + Timing::margin(t.ttl()));
            r.walk(w);
        });
        // In the order of their names, each told apart by that alone.
        dead.iter_mut().for_each(|(incarnation, _)| w.incarnation(incarnation));
        dead.sort_unstable_by_key(|(incarnation, _)| *incarnation);
        each(refused, |(who, end)| {
            w.incarnation(who);
            w.until(end);
        });
    }
}

impl Pairing {
    fn walk(&mut self, t: Timing, view: &View, w: &mut impl Walk) {
        let Pairing {
            noticed,
            not_streaming_since,
            stalled,
            behind,
            hung_since,
            sync_since,
            pairs_with: _,
            not_before,
            flaps,
            paired_at,
            down_since,
            starting_since,
            mute_until,
        } = self;
        each(noticed, |(at, reason)| {
            // Asked for only whether a read was asked later: the last one, the one under way, or one to come.
            *at = match view.reading {
                _ if *at <= view.asked => view.asked,
                Some(asked) if *at <= asked => asked,
                _ => w.now(),
            };
            w.asked(at, 0);
            *reason = SoloReason::StandbySilent; // told, never asked for
        });
        each(not_streaming_since, |at| w.since(at, t.ttl() / 5));
        each(hung_since, |at| w.since(at, HANG_PATIENCE_MS));
        each(stalled, |(at, _)| w.since(at, stall_after(t)));
        each(behind, |b| w.since(&mut b.since, stall_after(t)));
        // Left out: the proof that commits wait never takes too long; there is no pause before pairing again; no
        // start takes too long, for heartbeats that are not sent are as good as lost.
        each(sync_since, |at| *at = w.now());
        (*not_before, *mute_until) = (w.now(), w.now());
        (*flaps, *paired_at, *starting_since) = (0, None, None);
        each(down_since, |at| w.since(at, t.ttl() / 2));
    }
}

impl Orders {
    fn walk(&mut self, t: Timing, w: &mut impl Walk) {
        let Orders { waiting, job } = self;
        for (_, _, kind, at) in waiting {
            if let OrderKind::Promote { dead } = kind {
                w.incarnation(dead);
            }
            w.asked(at, t.ttl());
        }
        each(job, |Job { kind, since, term: _ }| {
            if let JobKind::Promote { dead } = kind {
                w.incarnation(dead);
            }
            w.since(since, ORDER_BUDGET_MS.max(2 * t.ttl()));
        });
    }
}
