//! The network and the API server of the simulated world: everything is delayed, some of it lost, some of it doubled.

use super::{Flight, TIMEOUT, World, index};
use crate::authority::messages::{CanTakeReply, ResignReply};
use crate::authority::view::{CasOutcome, ReadOutcome};
use crate::authority::{Command, Event, ReplyId};
use crate::ids::{Incarnation, InstanceId};
use crate::record::{RecordUid, Version, Versioned};

impl World {
    pub(super) fn send(&mut self, i: InstanceId, command: Command) {
        let delay =
            1 + self.rng.below(20) + if self.slow && self.rng.chance(3) { self.rng.below(6_000) } else { 0 };
        let at = self.now + delay;
        let me = self.nodes[index(i)].agent.as_ref().map(|a| a.me().incarnation);
        let Some(me) = me else { return };
        match command {
            Command::Persist(d) => {
                let slow = 10 + if self.slow && self.rng.chance(10) { self.rng.below(4_000) } else { 0 };
                self.nodes[index(i)].storing = Some((self.now + slow, d));
            }
            Command::Note(note) => {
                self.say(format!("{i} {note:?}"));
                self.notes.push(note);
            }
            Command::AnswerOrder(_, reply) | Command::OrderEnded(reply) => {
                self.say(format!("{i} order: {reply:?}"));
                self.orders.push((i, reply));
            }
            Command::Read { asked } => {
                self.api_requests += 1;
                if self.api_cut.contains(&i) || delay > TIMEOUT {
                    let failed = Event::Read { asked, outcome: ReadOutcome::Failed };
                    self.nodes[index(i)].inbox.push_back((self.now + TIMEOUT, failed));
                } else {
                    self.flights.push((at, Flight::ApiRead(i, me, asked)));
                }
            }
            Command::Cas { id, expected, record, .. } => {
                self.api_requests += 1;
                self.say(format!("{i} CAS term {} {} {}", record.term, record.primary.instance, record.mode));
                if self.api_cut.contains(&i) {
                    let gone = Event::Cas { id, outcome: CasOutcome::NotSent };
                    self.nodes[index(i)].inbox.push_back((self.now + 50, gone));
                } else {
                    let unknown = Event::Cas { id, outcome: CasOutcome::Unknown };
                    self.nodes[index(i)].inbox.push_back((self.now + TIMEOUT, unknown));
                    self.flights.push((at, Flight::ApiCas(i, me, id, expected, record)));
                }
            }
            Command::AskCanTake(_) if self.cut.contains(&i) => {
                self.nodes[index(i)].inbox.push_back((self.now + TIMEOUT, Event::CanTakeReply(None)));
            }
            _ if self.cut.contains(&i) || self.rng.chance(1) => {}
            other => {
                if self.rng.chance(3) {
                    let late = at + self.rng.below(8_000);
                    self.flights.push((late, Flight::ToPeer(i, other.clone())));
                }
                self.flights.push((at, Flight::ToPeer(i, other)));
            }
        }
    }

    pub(super) fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.flights).into_iter().partition(|(at, _)| *at <= now);
        self.flights = later;
        let due: Vec<(u64, Flight)> = due;
        for (_, flight) in due {
            match flight {
                Flight::ToPeer(from, command) => self.deliver_to(from.peer(), command),
                Flight::ApiRead(i, me, asked) => {
                    let (version, record) = self.record;
                    let got = ReadOutcome::Got(Versioned { uid: RecordUid(1), version, record });
                    self.api_reply(i, me, Event::Read { asked, outcome: got });
                }
                Flight::ApiCas(i, me, id, expected, record) => {
                    let outcome = if self.record.0 == expected {
                        self.record = (Version(expected.0 + 1), record);
                        self.say(format!(
                            "RECORD term {} {} {} {:?}",
                            record.term, record.primary.instance, record.mode, record.durability
                        ));
                        CasOutcome::Won(self.record.0)
                    } else {
                        CasOutcome::Conflict
                    };
                    if !self.lose_reply.remove(&i) {
                        self.api_reply(i, me, Event::Cas { id, outcome });
                    }
                }
            }
        }
    }

    fn api_reply(&mut self, i: InstanceId, me: Incarnation, event: Event) {
        let alive = self.nodes[index(i)].agent.as_ref().is_some_and(|a| a.me().incarnation == me);
        if alive && !self.api_cut.contains(&i) {
            let at = self.now + 1 + self.rng.below(20);
            self.nodes[index(i)].inbox.push_back((at, event));
        } else if alive && let Event::Read { asked, .. } = event {
            let failed = Event::Read { asked, outcome: ReadOutcome::Failed };
            self.nodes[index(i)].inbox.push_back((self.now + TIMEOUT, failed));
        }
    }

    fn deliver_to(&mut self, to: InstanceId, command: Command) {
        if self.cut.contains(&to.peer()) {
            return;
        }
        let reply = ReplyId(self.id());
        let event = match command {
            Command::Heartbeat(hb) => Event::Heartbeat(reply, hb),
            Command::AnswerHeartbeat(_, answer) => Event::Answer(answer),
            Command::AskCanTake(q) => Event::CanTake(reply, q),
            Command::AnswerCanTake(_, answer) => Event::CanTakeReply(Some::<CanTakeReply>(answer)),
            Command::Resign(r) => Event::Resignation(reply, r),
            Command::AnswerResignation(_, answer) => Event::ResignReply(Some::<ResignReply>(answer)),
            _ => return,
        };
        if self.nodes[index(to)].agent.is_some() {
            let now = self.now;
            self.nodes[index(to)].inbox.push_back((now, event));
        }
    }
}
