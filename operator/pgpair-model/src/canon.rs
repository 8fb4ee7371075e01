//! One state for all that look the same: times become ages, numbers become ranks.

use pgpair_core::authority::Authority;
use pgpair_core::authority::messages::CanTakeReply;
use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::view::ReadOutcome;
use pgpair_core::authority::walk::Walk;
use pgpair_core::ids::{Incarnation, InstanceId};
use pgpair_core::record::Version;

use crate::bounds::{Bounds, Part};
use crate::world::{Kind, Message, NOW, World, index};

/// A set of numbers that are compared with each other and mean nothing else.
#[derive(Debug, Default)]
struct Names(Vec<u64>);

impl Names {
    fn add(&mut self, n: u64) {
        self.0.push(n);
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    fn has(&self, n: u64) -> bool {
        self.0.contains(&n)
    }

    /// 1 for the least.
    fn rank(&self, n: u64) -> u64 {
        1 + self.0.iter().filter(|m| **m < n).count() as u64
    }
}

/// All numbers of one instance.
#[derive(Debug, Default)]
struct Own {
    seq: Names,
    answer: Names,
    cas: Names,
    epoch: Names,
    asked: Names,
    incarnation: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Which numbers are known to others than the one who counts.
    Know,
    /// All numbers that are left.
    Collect,
    Rename,
}

/// The walk that brings a state into its canonical form.
struct Canon {
    pass: Pass,
    unit: u64,
    grain: u64,
    /// In whose place the walk is.
    me: InstanceId,
    /// Whether inside of the one who counts.
    inside: bool,
    own: [Own; 2],
    version: Names,
}

/// The walk that lets time pass.
#[derive(Debug)]
pub(crate) struct Past {
    /// Milliseconds.
    pub(crate) by: u64,
}

impl World {
    /// Brings it into the form that all states have in common which look the same.
    pub(crate) fn tidy(&mut self, bounds: &Bounds) {
        let (uid, version) = (self.uid, self.version);
        if !bounds.fine {
            // The way back takes no time: the answer has arrived, is late, or is lost.
            for node in &mut self.nodes {
                node.sent.retain(|m| !matches!(m.kind(), Kind::Answer | Kind::ResignReply));
            }
        }
        for node in &mut self.nodes {
            node.writes.retain(|w| {
                let may_land = w.expected == version && Some(w.uid) == uid;
                w.awaited || may_land || bounds.without == Some(Part::CompareAndSet)
            });
        }
        for i in InstanceId::ALL {
            self.drop_what_nobody_waits_for(i);
        }
        for bonds in &mut self.bonds {
            // One that binds less than another one says nothing.
            let all = std::mem::take(bonds);
            bonds.extend(
                all.iter().filter(|b| !all.iter().any(|o| o != *b && o.end >= b.end && o.lapse <= b.lapse)),
            );
            bonds.sort_unstable();
            bonds.dedup();
        }
        self.late.sort_by_key(|(i, m)| (*i, m.kind()));
        let mut canon = Canon {
            pass: Pass::Know,
            unit: bounds.unit(),
            grain: bounds.grain,
            me: InstanceId::A,
            inside: false,
            own: Default::default(),
            version: Names::default(),
        };
        for pass in [Pass::Know, Pass::Collect, Pass::Rename] {
            canon.pass = pass;
            self.walk(&mut canon);
            canon.sort();
        }
    }

    /// Replies to a question that is not asked any more mean nothing, and neither does the question.
    fn drop_what_nobody_waits_for(&mut self, i: InstanceId) {
        let authority = self.authority(i);
        let asks = authority.is_some_and(Authority::waits_for_can_take);
        let resigned = authority.is_some_and(Authority::waits_for_resign_reply);
        self.node_mut(i).sent.retain(|m| asks || m.kind() != Kind::CanTake);
        self.node_mut(i.peer()).sent.retain(|m| match m.kind() {
            Kind::CanTakeReply => asks,
            Kind::ResignReply => resigned,
            _ => true,
        });
    }

    fn walk(&mut self, canon: &mut Canon) {
        for i in InstanceId::ALL {
            canon.me = i;
            canon.inside = true;
            self.walk_times(i, canon);
            let node = self.node_mut(i);
            for epoch in [&mut node.server.proof] {
                if let pgpair_core::authority::SyncState::On { epoch, .. } = epoch {
                    canon.epoch(epoch);
                }
            }
            if let Some((_, epoch)) = &mut node.server.switching {
                canon.epoch(epoch);
            }
            for write in &mut node.writes {
                canon.cas(&mut write.id.0);
                canon.version(&mut write.expected);
                write.record.walk(canon);
                if let Some(pgpair_core::authority::view::CasOutcome::Won(version)) = &mut write.outcome {
                    canon.version(version);
                }
            }
            if let Some(dead) = &mut node.dead {
                canon.incarnation(dead);
            }
            canon.inside = false;
            for message in &mut node.sent {
                canon.message(i, message);
            }
        }
        canon.inside = false;
        for (i, message) in &mut self.late {
            canon.message(*i, message);
        }
        canon.version(&mut self.version);
        self.record.walk(canon);
    }

    /// Everything on the node of `i` that is a time, and the agent's state besides.
    pub(crate) fn walk_times(&mut self, i: InstanceId, walk: &mut impl Walk) {
        let Some(agent) = &mut self.node_mut(i).agent else { return };
        agent.authority.walk(walk);
        if let Some(fence) = &mut agent.fence {
            walk.until(fence);
        }
        if let Some(read) = &mut agent.read {
            walk.asked(&mut read.asked, 0);
            if let Some(ReadOutcome::Got(v)) = &mut read.answer {
                walk.version(&mut v.version);
                v.record.walk(walk);
            }
        }
    }

    /// All agent processes that anybody still knows of.
    pub(crate) fn incarnations(&self) -> Vec<Incarnation> {
        let mut canon = Canon {
            pass: Pass::Collect,
            unit: 1,
            grain: 1,
            me: InstanceId::A,
            inside: false,
            own: Default::default(),
            version: Names::default(),
        };
        self.clone().walk(&mut canon);
        canon.own.iter().flat_map(|own| own.incarnation.0.iter().map(|n| Incarnation(*n))).collect()
    }
}

impl Canon {
    fn sort(&mut self) {
        for own in &mut self.own {
            for names in [
                &mut own.seq,
                &mut own.answer,
                &mut own.cas,
                &mut own.epoch,
                &mut own.asked,
                &mut own.incarnation,
            ] {
                names.sort();
            }
        }
        self.version.sort();
    }

    fn message(&mut self, from: InstanceId, message: &mut Message) {
        self.me = from;
        match message {
            Message::Heartbeat(hb, _) => hb.walk(self),
            Message::Answer(answer) => {
                // It is walked over in the place of the one who asked.
                self.me = from.peer();
                answer.walk(self);
            }
            Message::CanTake(question) => question.walk(self),
            Message::Resign(resignation) => resignation.walk(self),
            Message::CanTakeReply(CanTakeReply::Yes(by)) => self.incarnation(by),
            Message::CanTakeReply(CanTakeReply::No(_)) | Message::ResignReply(_) => {}
        }
    }

    fn mine(&mut self) -> &mut Own {
        &mut self.own[index(self.me)]
    }

    fn rename(&mut self, n: &mut u64, of: InstanceId, names: fn(&mut Own) -> &mut Names) {
        let names = names(&mut self.own[index(of)]);
        match self.pass {
            Pass::Know => {}
            Pass::Collect => names.add(*n),
            Pass::Rename => *n = names.rank(*n),
        }
    }

    fn last(&mut self, n: &mut u64, names: fn(&mut Own) -> &mut Names) {
        if self.pass == Pass::Rename {
            let names = names(self.mine());
            *n = names.0.len() as u64;
        }
    }

    fn steps(&self, millis: u64) -> u64 {
        millis.div_ceil(self.unit)
    }
}

impl Walk for Canon {
    fn now(&self) -> Ms {
        NOW
    }

    fn since(&mut self, t: &mut Ms, span: u64) {
        if self.pass == Pass::Rename {
            let age = self.steps(NOW - *t).min(self.steps(span));
            *t = Ms(NOW.0 - age * self.unit);
        }
    }

    fn until(&mut self, t: &mut Ms) {
        if self.pass == Pass::Rename {
            let left = self.steps(*t - NOW);
            *t = NOW + left * self.unit;
        }
    }

    fn asked(&mut self, t: &mut Ms, _span: u64) {
        let age = self.steps(NOW - *t);
        if age <= self.grain {
            return;
        }
        match self.pass {
            Pass::Know => {}
            Pass::Collect => self.mine().asked.add(age),
            Pass::Rename => {
                let rank = self.mine().asked.rank(age);
                *t = Ms(NOW.0 - (self.grain + rank) * self.unit);
            }
        }
    }

    fn is_over(&self, t: Ms, span: u64) -> bool {
        t + span <= NOW
    }

    fn version(&mut self, v: &mut Version) {
        match self.pass {
            Pass::Know => {}
            Pass::Collect => self.version.add(v.0),
            Pass::Rename => v.0 = self.version.rank(v.0),
        }
    }

    fn incarnation(&mut self, i: &mut Incarnation) {
        let of = if i.0 < 200 { InstanceId::A } else { InstanceId::B };
        let first = crate::fault::first_incarnation(of).0;
        self.rename(&mut i.0, of, |own| &mut own.incarnation);
        if self.pass == Pass::Rename {
            i.0 += first - 1;
        }
    }

    fn seq(&mut self, n: &mut u64) {
        if self.pass == Pass::Know && !self.inside {
            self.mine().seq.add(*n);
        }
        self.rename(n, self.me, |own| &mut own.seq);
    }

    fn seq_is_known(&self, n: u64) -> bool {
        self.pass == Pass::Know || self.own[index(self.me)].seq.has(n)
    }

    fn last_seq(&mut self, n: &mut u64) {
        self.last(n, |own| &mut own.seq);
    }

    fn answer(&mut self, n: &mut u64) {
        self.rename(n, self.me, |own| &mut own.answer);
    }

    fn answer_is_known(&self, n: u64) -> bool {
        self.pass == Pass::Know || self.own[index(self.me)].answer.has(n)
    }

    fn last_answer(&mut self, n: &mut u64) {
        self.last(n, |own| &mut own.answer);
    }

    fn echo(&mut self, n: &mut u64) {
        let of = self.me.peer();
        if self.pass == Pass::Know {
            self.own[index(of)].answer.add(*n);
        }
        self.rename(n, of, |own| &mut own.answer);
    }

    fn cas(&mut self, n: &mut u64) {
        self.rename(n, self.me, |own| &mut own.cas);
    }

    fn last_cas(&mut self, n: &mut u64) {
        self.last(n, |own| &mut own.cas);
    }

    fn epoch(&mut self, n: &mut u32) {
        let mut wide = u64::from(*n);
        self.rename(&mut wide, self.me, |own| &mut own.epoch);
        *n = u32::try_from(wide).unwrap_or(u32::MAX);
    }
}

impl Walk for Past {
    fn now(&self) -> Ms {
        NOW
    }

    fn since(&mut self, t: &mut Ms, _span: u64) {
        t.0 = t.0.saturating_sub(self.by);
    }
    fn until(&mut self, t: &mut Ms) {
        t.0 = t.0.saturating_sub(self.by);
    }
    fn asked(&mut self, t: &mut Ms, _span: u64) {
        t.0 = t.0.saturating_sub(self.by);
    }
    fn is_over(&self, _t: Ms, _span: u64) -> bool {
        false
    }
    fn version(&mut self, _v: &mut Version) {}
    fn incarnation(&mut self, _i: &mut Incarnation) {}
    fn seq(&mut self, _n: &mut u64) {}
    fn seq_is_known(&self, _n: u64) -> bool {
        true
    }
    fn last_seq(&mut self, _n: &mut u64) {}
    fn answer(&mut self, _n: &mut u64) {}
    fn answer_is_known(&self, _n: u64) -> bool {
        true
    }
    fn last_answer(&mut self, _n: &mut u64) {}
    fn echo(&mut self, _n: &mut u64) {}
    fn cas(&mut self, _n: &mut u64) {}
    fn last_cas(&mut self, _n: &mut u64) {}
    fn epoch(&mut self, _n: &mut u32) {}
}
