//! What goes wrong, and what people do, in a world whose time runs.

use pgpair_core::authority::messages::{Evidence, EvidenceKind};
use pgpair_core::authority::{Authority, Durability, Event};
use pgpair_core::ids::{Incarnation, InstanceId};
use pgpair_core::order::OrderKind;
use pgpair_core::record::Mode;

use super::net::Flight;
use super::{BOUNDS, Timed};
use crate::action::Action;
use crate::rng::Rng;
use crate::world::{REPLY, index};

/// Time with faults.
const STORM_MS: u64 = 60_000;

/// One thing that goes wrong. Each ends after a while or with [`Timed::heal`].
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Its container is killed, and starts again within ten seconds.
    AgentCrash(InstanceId),
    /// Its agent stands still for so many milliseconds; its postgres and the deadman do not.
    AgentStall(InstanceId, u64),
    /// Its postmaster is killed.
    PostgresCrash(InstanceId),
    /// From that instance nothing gets to the other.
    OneWayCut(InstanceId),
    /// It cannot reach the API server.
    ApiAway(InstanceId),
    /// Neither the other one nor the API server.
    Isolate(InstanceId),
    /// The reply to its next write of the record is lost.
    ApiReplyLost(InstanceId),
    /// Its postgres neither answers nor writes until it is killed.
    Hang(InstanceId),
    /// Its disk hangs: what hangs with it does not even die.
    DiskHang(InstanceId),
    /// The end of that: what was killed dies.
    DiskThaw(InstanceId),
    /// Its walreceiver is stopped, and looks as if it streamed.
    StopReceiver(InstanceId),
    /// It gets half of what the primary writes.
    SlowReceiver(InstanceId),
    /// A person orders it.
    Order(InstanceId, OrderKind),
    /// All is well again.
    Heal,
}

/// How a walreceiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Receiver {
    #[default]
    Runs,
    Slow,
    Stopped,
}

impl Fault {
    /// One of those that a pair survives.
    pub fn any(rng: &mut Rng) -> Fault {
        let i = if rng.chance(50) { InstanceId::A } else { InstanceId::B };
        match rng.below(17) {
            0 | 1 => Fault::AgentCrash(i),
            2 => Fault::AgentStall(i, rng.below(15_000)),
            3 => Fault::PostgresCrash(i),
            4 => Fault::OneWayCut(i),
            5 => Fault::ApiAway(i),
            6 | 7 => Fault::Isolate(i),
            8 => Fault::ApiReplyLost(i),
            9 => Fault::Hang(i),
            10 => Fault::Order(i, OrderKind::Switchover),
            11 => Fault::Order(i, OrderKind::Restart),
            12 => Fault::Order(i, if rng.chance(50) { OrderKind::Fence } else { OrderKind::Unfence }),
            13 => Fault::SlowReceiver(i),
            _ => Fault::Heal,
        }
    }
}

impl Timed {
    /// A pair that is born, a minute of faults, and their end. `flips`: what is set for an acknowledged commit changes meanwhile.
    #[must_use]
    pub fn storm(seed: u64, durability: Durability, flips: bool) -> Timed {
        let mut rng = Rng::new(seed);
        let world = Timed::new(rng.next_u64(), durability).with_slow_parts();
        let mut world = if seed.is_multiple_of(2) { world } else { world.with_max_lag(30) };
        world.run_until(|w| w.mode() == Some(Mode::Paired), 60_000);
        let (mut next, end) = (world.now(), world.now() + STORM_MS);
        while world.now() < end {
            if world.now() >= next {
                if flips && rng.chance(30) {
                    let set = if rng.chance(50) { Durability::Sync } else { Durability::Async };
                    world.configure(set, true);
                } else {
                    world.inject(Fault::any(&mut rng));
                }
                next = world.now() + rng.below(8_000);
            }
            world.step();
        }
        world.heal();
        for i in InstanceId::ALL {
            world.run_until_agent(i);
            world.inject(Fault::Order(i, OrderKind::Unfence));
        }
        world
    }

    /// Makes it happen.
    pub fn inject(&mut self, fault: Fault) {
        self.say(&format!("FAULT {fault:?}"));
        match fault {
            Fault::AgentCrash(i) => self.kill_container(i),
            Fault::AgentStall(i, millis) => self.lives[index(i)].stalled_until = self.now + millis,
            Fault::PostgresCrash(i) => self.world.node_mut(i).server.kill(),
            Fault::OneWayCut(i) => self.cut[index(i)] = true,
            Fault::ApiAway(i) => self.api_cut[index(i)] = true,
            Fault::Isolate(i) => {
                self.cut = [true; 2];
                self.api_cut[index(i)] = true;
            }
            Fault::ApiReplyLost(i) => self.lose_reply[index(i)] = true,
            Fault::StopReceiver(i) => self.lives[index(i)].receiver = Receiver::Stopped,
            Fault::SlowReceiver(i) => self.lives[index(i)].receiver = Receiver::Slow,
            Fault::Hang(i) => self.world.fault(Action::Hangs(i), &BOUNDS),
            Fault::DiskHang(i) => self.world.fault(Action::Jams(i), &BOUNDS),
            Fault::DiskThaw(i) => self.world.node_mut(i).server.thaw(),
            Fault::Order(i, kind) => {
                if let Some(term) = self.agent(i).map(Authority::term) {
                    self.hand(i, Event::Order(REPLY, term, kind));
                }
            }
            Fault::Heal => self.heal(),
        }
    }

    /// All links work, and so do both walreceivers.
    pub fn heal(&mut self) {
        (self.cut, self.api_cut, self.lose_reply) = ([false; 2], [false; 2], [false; 2]);
        for life in &mut self.lives {
            life.receiver = Receiver::Runs;
        }
    }

    /// Its machine is gone for good.
    pub fn lose(&mut self, i: InstanceId) {
        self.kill_container(i);
        self.lives[index(i)].restart_at = u64::MAX;
    }

    fn kill_container(&mut self, i: InstanceId) {
        let restart_at = self.now + 500 + self.rng.below(9_000);
        self.world.crash(i);
        self.collect(i);
        let life = &mut self.lives[index(i)];
        (life.restart_at, life.stalled_until, life.stored_at) = (restart_at, 0, None);
        self.flights.retain(|(_, flight)| !flight.ends_with(i));
    }

    /// A person sets it for the pair.
    pub fn configure(&mut self, durability: Durability, automatic: bool) {
        self.say(&format!("SET {durability:?}"));
        (self.world.settings.durability, self.world.settings.automatic) = (durability, automatic);
        for i in InstanceId::ALL {
            self.hand(i, Event::Configure(self.world.settings));
        }
    }

    /// SIGTERM, and evidence of the death of a process that nobody knows: no fault of a storm is one of these.
    pub fn tell_to_leave(&mut self, i: InstanceId) {
        let dead = Evidence { incarnation: Incarnation(299), kind: EvidenceKind::Person };
        self.hand(i, Event::Evidence(dead));
        self.hand(i, Event::Leave);
    }

    fn hand(&mut self, i: InstanceId, event: Event) {
        self.flights.push((self.now, Flight::ToAgent(i, None, event)));
    }
}
