//! The simulated world: clocks, disks, postgres, the network and the API server.

use std::collections::{BTreeSet, VecDeque};

mod net;
mod postgres;
mod twin;

use self::postgres::{Receiver, Server};
use super::rng::Rng;
use crate::authority::OnPostgresCrash;
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::CasId;
use crate::authority::{
    Authority, Command, Directory, Durability, Durable, Event, NodeId, Note, ReplyId, Settings, SyncState,
};
use crate::ids::{Incarnation, InstanceId};
use crate::instance::PostgresState;
use crate::order::{OrderKind, OrderReply};
use crate::record::{Holder, Mode, Record, Version};

const STEP: u64 = 10;
const TIMEOUT: u64 = 1_000;

/// One thing that goes wrong. Each ends by itself or with [`World::heal`].
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    AgentCrash(InstanceId),
    AgentStall(InstanceId, u64),
    PostgresCrash(InstanceId),
    /// From that instance to the other.
    OneWayCut(InstanceId),
    ApiAway(InstanceId),
    Isolate(InstanceId),
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
    Order(InstanceId, OrderKind),
    Heal,
}

impl Fault {
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

struct Node {
    agent: Option<Authority>,
    disk: Durable,
    server: Server,
    /// Ran by the deadman while the agent is stalled.
    fence_at: Option<Ms>,
    stalled_until: u64,
    restart_at: u64,
    skew: u64,
    fast: bool,
    inbox: VecDeque<(u64, Event)>,
    storing: Option<(u64, Durable)>,
}

enum Flight {
    ToPeer(InstanceId, Command),
    ApiRead(InstanceId, Incarnation, Ms),
    ApiCas(InstanceId, Incarnation, CasId, Version, Record),
}

pub struct World {
    rng: Rng,
    now: u64,
    nodes: [Node; 2],
    record: (Version, Record),
    flights: Vec<(u64, Flight)>,
    cut: BTreeSet<InstanceId>,
    api_cut: BTreeSet<InstanceId>,
    lose_reply: BTreeSet<InstanceId>,
    durability: Durability,
    automatic: bool,
    forgiven: bool,
    next_id: u64,
    next_commit: u64,
    acked: Vec<(u64, u64)>,
    /// So many of them the record has said `Async` of.
    acked_async: usize,
    api_requests: u64,
    orders: Vec<(InstanceId, OrderReply)>,
    notes: Vec<Note>,
    journal: VecDeque<String>,
    /// Disks, checkpoints, messages and the API server take seconds now and then.
    slow: bool,
    /// In commits.
    max_lag: u64,
    /// Of each checkpoint that begins synchronous commit.
    checkpoint_ms: u64,
    twins: Option<twin::Twins>,
    /// Clients write nothing.
    pub idle: bool,
}

fn index(i: InstanceId) -> usize {
    usize::from(i == InstanceId::B)
}

impl World {
    pub fn new(seed: u64, durability: Durability) -> World {
        let node = |skew, fast| Node {
            agent: None,
            disk: Durable::default(),
            server: Server {
                directory: Directory::Empty,
                volume: None,
                state: PostgresState::Down,
                writable: false,
                log: Vec::new(),
                timeline: 1,
                sync_from: None,
                proof: SyncState::Off,
                switching: None,
                ready_at: 0,
                followed: 0,
                hung: false,
                disk_hangs: false,
                receiver: Receiver::Runs,
                received: true,
            },
            fence_at: None,
            stalled_until: 0,
            restart_at: 0,
            skew,
            fast,
            inbox: VecDeque::new(),
            storing: None,
        };
        World {
            rng: Rng::new(seed),
            now: 0,
            nodes: [node(5_000, true), node(900_000, false)],
            record: (Version(1), Record::initial()),
            flights: Vec::new(),
            cut: BTreeSet::new(),
            api_cut: BTreeSet::new(),
            lose_reply: BTreeSet::new(),
            durability,
            automatic: true,
            forgiven: false,
            next_id: 1,
            next_commit: 0,
            acked: Vec::new(),
            acked_async: 0,
            api_requests: 0,
            orders: Vec::new(),
            notes: Vec::new(),
            journal: VecDeque::new(),
            slow: false,
            max_lag: 1_000,
            checkpoint_ms: 20,
            twins: None,
            idle: false,
        }
    }

    pub fn with_slow_parts(self) -> World {
        World { slow: true, ..self }
    }

    /// In commits, one of which is made at each step: less than two looks of the agents are apart.
    pub fn with_max_lag(self, max_lag: u64) -> World {
        World { max_lag, ..self }
    }

    pub fn with_checkpoints_of(self, checkpoint_ms: u64) -> World {
        World { checkpoint_ms, ..self }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn mode(&self) -> Option<Mode> {
        (self.record.1.term.0 > 0).then_some(self.record.1.mode)
    }

    pub fn term(&self) -> u32 {
        self.record.1.term.0
    }

    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    pub fn orders(&self) -> &[(InstanceId, OrderReply)] {
        &self.orders
    }

    /// Decisions of both, in their order.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    pub fn incarnation(&self, i: InstanceId) -> Option<Incarnation> {
        self.nodes[index(i)].agent.as_ref().map(|a| a.me().incarnation)
    }

    pub fn configure(&mut self, durability: Durability, automatic: bool) {
        self.say(format!("SET {durability:?}"));
        (self.durability, self.automatic) = (durability, automatic);
        for i in InstanceId::ALL {
            let (at, event) = (self.now, Event::Configure(self.settings()));
            self.nodes[index(i)].inbox.push_back((at, event));
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            timing: Timing::new(5_000).unwrap(),
            durability: self.durability,
            max_lag: self.max_lag,
            automatic: self.automatic,
            on_crash: OnPostgresCrash::Failover,
        }
    }

    /// Whether its commits wait for the standby.
    pub fn waits(&self, i: InstanceId) -> bool {
        self.nodes[index(i)].server.sync_from.is_some()
    }

    /// Whether its agent wants commits to wait.
    pub fn wishes_sync(&self, i: InstanceId) -> bool {
        let n = &self.nodes[index(i)];
        n.agent.as_ref().is_some_and(|a| a.desired(n.clock(self.now)).synchronous)
    }

    pub fn durability(&self) -> Durability {
        self.record.1.durability
    }

    /// Its machine is gone for good.
    pub fn lose(&mut self, i: InstanceId) {
        self.inject(Fault::AgentCrash(i));
        self.nodes[index(i)].restart_at = u64::MAX;
    }

    /// What is lost by a person's order is no violation.
    pub fn forgive_loss(&mut self) {
        self.forgiven = true;
    }

    pub fn api_requests(&self) -> u64 {
        self.api_requests
    }

    pub fn writable(&self) -> Vec<InstanceId> {
        InstanceId::ALL.into_iter().filter(|i| self.nodes[index(*i)].server.writable).collect()
    }

    pub fn longest_gap_since(&self, first: usize) -> u64 {
        let times = self.acked.iter().skip(first.saturating_sub(1)).map(|(_, t)| *t).chain([self.now]);
        times.clone().zip(times.skip(1)).map(|(a, b)| b - a).max().unwrap_or(0)
    }

    pub fn tail(&self) -> String {
        let mut lines: Vec<String> = self.journal.iter().cloned().collect();
        lines.push(format!("{:>7} record {:?}", self.now, self.record));
        for i in InstanceId::ALL {
            let n = &self.nodes[index(i)];
            let clock = n.clock(self.now);
            let wish = n.agent.as_ref().map(|a| {
                (a.role(), a.desired(clock), a.part.primary().map(|p| p.resign), a.common.view.has_open())
            });
            lines.push(format!(
                "{i} {:?} {:?} {wish:?} facts {:?}",
                n.server.directory,
                n.server.state,
                self.facts(i)
            ));
        }
        lines.join("\n")
    }

    fn say(&mut self, text: String) {
        if self.journal.len() == 120 {
            self.journal.pop_front();
        }
        self.journal.push_back(format!("{:>7} {text}", self.now));
    }

    pub fn run_until(&mut self, goal: impl Fn(&World) -> bool, limit: u64) {
        assert!(self.try_run_until(goal, limit), "not reached\n{}", self.tail());
    }

    pub fn try_run_until(&mut self, goal: impl Fn(&World) -> bool, limit: u64) -> bool {
        let end = self.now + limit;
        while self.now < end {
            if goal(self) {
                return true;
            }
            self.step();
        }
        goal(self)
    }

    pub fn run_until_agent(&mut self, i: InstanceId) {
        self.run_until(|w| w.incarnation(i).is_some(), 60_000);
    }

    pub fn run_for(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.step();
        }
    }

    /// The ends of all faults, and of a person's wish that an instance stays down.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.api_cut.clear();
        self.lose_reply.clear();
        for n in &mut self.nodes {
            n.server.receiver = Receiver::Runs;
        }
    }

    pub fn inject(&mut self, fault: Fault) {
        self.say(format!("FAULT {fault:?}"));
        match fault {
            Fault::AgentCrash(i) => {
                let restart = self.now + 500 + self.rng.below(9_000);
                let n = &mut self.nodes[index(i)];
                n.agent = None;
                n.inbox.clear();
                n.storing = None;
                n.restart_at = restart;
                n.stalled_until = 0;
                n.kill();
            }
            Fault::AgentStall(i, millis) => self.nodes[index(i)].stalled_until = self.now + millis,
            Fault::PostgresCrash(i) => self.nodes[index(i)].kill(),
            Fault::OneWayCut(i) => {
                self.cut.insert(i);
            }
            Fault::ApiAway(i) => {
                self.api_cut.insert(i);
            }
            Fault::Isolate(i) => {
                self.cut.extend([i, i.peer()]);
                self.api_cut.insert(i);
            }
            Fault::ApiReplyLost(i) => {
                self.lose_reply.insert(i);
            }
            Fault::StopReceiver(i) => self.nodes[index(i)].server.receiver = Receiver::Stopped,
            Fault::SlowReceiver(i) => self.nodes[index(i)].server.receiver = Receiver::Slow,
            Fault::Hang(i) => {
                let s = &mut self.nodes[index(i)].server;
                s.hung = s.writable;
            }
            Fault::DiskHang(i) => {
                let s = &mut self.nodes[index(i)].server;
                (s.hung, s.disk_hangs) = (s.writable, true);
            }
            Fault::DiskThaw(i) => {
                let n = &mut self.nodes[index(i)];
                n.server.disk_hangs = false;
                if n.server.state == PostgresState::Primary && !n.server.writable {
                    n.kill();
                }
            }
            Fault::Order(i, kind) => {
                let at = self.now;
                let id = ReplyId(self.id());
                if let Some(agent) = &self.nodes[index(i)].agent {
                    let order = Event::Order(id, agent.term(), kind);
                    self.nodes[index(i)].inbox.push_back((at, order));
                }
            }
            Fault::Heal => self.heal(),
        }
    }

    pub fn step(&mut self) {
        self.now += STEP;
        for i in InstanceId::ALL {
            self.run_node(i);
        }
        self.deliver();
        self.replicate();
        self.write();
        let writers = self.writable();
        assert!(writers.len() < 2, "S1: both write\n{}", self.tail());
    }

    fn run_node(&mut self, i: InstanceId) {
        let now = self.now;
        let clock = self.nodes[index(i)].clock(now);
        if self.nodes[index(i)].fence_at.is_some_and(|at| clock >= at) && self.nodes[index(i)].server.writable
        {
            self.say(format!("{i} fenced"));
            self.nodes[index(i)].kill();
        }
        if self.nodes[index(i)].stalled_until > now {
            return;
        }
        if self.nodes[index(i)].agent.is_none() {
            if self.nodes[index(i)].restart_at > now {
                return;
            }
            self.start_agent(i, clock);
        }
        if let Some((at, d)) = self.nodes[index(i)].storing
            && now >= at
        {
            let n = &mut self.nodes[index(i)];
            (n.disk, n.storing) = (d, None);
            n.inbox.push_back((now, Event::Persisted(d)));
        }
        let facts = Event::Postgres(self.facts(i));
        self.nodes[index(i)].inbox.push_front((now, facts));
        let mut due: Vec<Event> = Vec::new();
        let inbox = &mut self.nodes[index(i)].inbox;
        for _ in 0..inbox.len() {
            if let Some((at, event)) = inbox.pop_front() {
                if at <= now { due.push(event) } else { inbox.push_back((at, event)) }
            }
        }
        due.push(Event::Tick);
        for event in due {
            let Some(mut agent) = self.nodes[index(i)].agent.take() else { return };
            let commands = self.handle(i, &mut agent, clock, event);
            self.nodes[index(i)].agent = Some(agent);
            for command in commands {
                self.send(i, command);
            }
            self.obey(i, clock);
        }
    }

    fn start_agent(&mut self, i: InstanceId, clock: Ms) {
        let incarnation = Incarnation(self.id());
        let settings = self.settings();
        let n = &mut self.nodes[index(i)];
        let me = Holder { instance: i, incarnation };
        n.agent = Some(Authority::new(me, NodeId(index(i) as u64), settings, n.disk, clock));
        self.say(format!("{i} starts as {incarnation}"));
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Node {
    /// Clocks have nothing in common but their rate, and that within 500 ppm.
    fn clock(&self, now: u64) -> Ms {
        let drift = now * 500 / 1_000_000;
        Ms(self.skew + if self.fast { now + drift } else { now - drift })
    }
}
