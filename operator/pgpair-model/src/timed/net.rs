//! The network and the API server in a world whose time runs: everything is delayed, some of it lost, some of it doubled.

use pgpair_core::authority::Event;
use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::view::{CasOutcome, ReadOutcome};
use pgpair_core::ids::{Incarnation, InstanceId};

use super::{BOUNDS, Timed};
use crate::world::{Kind, Message, Write, index};

/// Time after which a request has failed.
const TIMEOUT_MS: u64 = 1_000;
/// Time after which a connection is refused.
const REFUSED_MS: u64 = 50;

/// What is under way.
#[derive(Debug, Clone)]
pub(super) enum Flight {
    /// From that instance to the other one.
    ToPeer(InstanceId, Message),
    Read(InstanceId, Incarnation, Ms),
    Write(InstanceId, Incarnation, Write),
    /// To that process; `None`: to whichever runs.
    ToAgent(InstanceId, Option<Incarnation>, Event),
}

impl Flight {
    /// Whether it goes nowhere without the process of `i` that runs now. What the peer sent may come to the next one.
    pub(super) fn ends_with(&self, i: InstanceId) -> bool {
        matches!(self, Flight::ToAgent(to, ..) if *to == i)
    }
}

impl Timed {
    /// Everything that the agent of `i` has just sent leaves.
    pub(super) fn dispatch(&mut self, i: InstanceId) {
        for message in std::mem::take(&mut self.world.node_mut(i).sent) {
            self.send(i, message);
        }
        let writes = std::mem::take(&mut self.world.node_mut(i).writes);
        let Some(agent) = &mut self.world.node_mut(i).agent else { return };
        let (me, read) = (agent.authority.me().incarnation, agent.read.take());
        let stores = agent.storing.is_some();
        if stores && self.lives[index(i)].stored_at.is_none() {
            let slow = if self.slow && self.rng.chance(10) { self.rng.below(4_000) } else { 0 };
            self.lives[index(i)].stored_at = Some(self.now + 10 + slow);
        }
        if let Some(read) = read {
            self.ask(i, me, read.asked);
        }
        for write in writes {
            self.ask_to_write(i, me, write);
        }
    }

    fn delay(&mut self) -> u64 {
        1 + self.rng.below(20) + if self.slow && self.rng.chance(3) { self.rng.below(6_000) } else { 0 }
    }

    fn send(&mut self, i: InstanceId, message: Message) {
        let at = self.now + self.delay();
        if self.cut[index(i)] && message.kind() == Kind::CanTake {
            let nothing = Flight::ToAgent(i, self.incarnation(i), Event::CanTakeReply(None));
            self.flights.push((self.now + TIMEOUT_MS, nothing));
        }
        let (lost, doubled) = (self.rng.chance(1), self.rng.chance(3));
        if self.cut[index(i)] || (lost && !self.sure) {
            return;
        }
        if doubled && !self.sure {
            let late = at + self.rng.below(8_000);
            self.flights.push((late, Flight::ToPeer(i, message.clone())));
        }
        self.flights.push((at, Flight::ToPeer(i, message)));
    }

    fn ask(&mut self, i: InstanceId, me: Incarnation, asked: Ms) {
        self.api_requests += 1;
        let delay = self.delay();
        if self.api_cut[index(i)] || delay > TIMEOUT_MS {
            self.read_fails(i, me, asked);
        } else {
            self.flights.push((self.now + delay, Flight::Read(i, me, asked)));
        }
    }

    fn read_fails(&mut self, i: InstanceId, me: Incarnation, asked: Ms) {
        let failed = Event::Read { asked, outcome: ReadOutcome::Failed };
        self.flights.push((self.now + TIMEOUT_MS, Flight::ToAgent(i, Some(me), failed)));
    }

    fn ask_to_write(&mut self, i: InstanceId, me: Incarnation, write: Write) {
        self.api_requests += 1;
        let (after, outcome) = if self.api_cut[index(i)] {
            (REFUSED_MS, CasOutcome::NotSent)
        } else {
            let at = self.now + self.delay();
            self.flights.push((at, Flight::Write(i, me, write)));
            (TIMEOUT_MS, CasOutcome::Unknown)
        };
        let event = Event::Cas { id: write.id, outcome };
        self.flights.push((self.now + after, Flight::ToAgent(i, Some(me), event)));
    }

    /// What is due arrives. An agent that stands still gets it when it goes on.
    pub(super) fn deliver(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|(at, flight)| *at <= self.now && !self.waits_for_its_agent(flight));
        self.flights = later;
        for (_, flight) in due {
            match flight {
                Flight::ToPeer(from, message) if !self.cut[index(from)] => {
                    self.arrives(from.peer(), None, message.event());
                }
                Flight::ToPeer(..) => {}
                Flight::ToAgent(i, who, event) => self.arrives(i, who, event),
                Flight::Read(i, me, asked) => {
                    let outcome = self.world.read();
                    if self.api_cut[index(i)] {
                        self.read_fails(i, me, asked);
                    } else {
                        self.api_replies(i, me, Event::Read { asked, outcome });
                    }
                }
                Flight::Write(i, me, write) => self.write_lands(i, me, &write),
            }
        }
    }

    fn waits_for_its_agent(&self, flight: &Flight) -> bool {
        match flight {
            Flight::ToPeer(from, _) => self.is_stalled(from.peer()),
            Flight::ToAgent(i, ..) => self.is_stalled(*i),
            Flight::Read(..) | Flight::Write(..) => false,
        }
    }

    fn write_lands(&mut self, i: InstanceId, me: Incarnation, write: &Write) {
        let outcome = self.world.compare_and_set(i, write, &BOUNDS);
        if let CasOutcome::Won(_) = outcome {
            let r = self.world.record;
            self.say(&format!("RECORD term {} {} {} {:?}", r.term, r.primary.instance, r.mode, r.durability));
        }
        let lost = std::mem::take(&mut self.lose_reply[index(i)]);
        if !lost && !self.api_cut[index(i)] {
            self.api_replies(i, me, Event::Cas { id: write.id, outcome });
        }
    }

    fn api_replies(&mut self, i: InstanceId, me: Incarnation, event: Event) {
        let at = self.now + 1 + self.rng.below(20);
        self.flights.push((at, Flight::ToAgent(i, Some(me), event)));
    }

    fn arrives(&mut self, i: InstanceId, who: Option<Incarnation>, event: Event) {
        if self.agent(i).is_some() && (who.is_none() || self.incarnation(i) == who) {
            self.world.tell(i, event, &BOUNDS);
            self.collect(i);
        }
    }
}
