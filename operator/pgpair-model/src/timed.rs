//! The same world in real time: clocks that run alike but for their drift, messages and requests that take a while, a load that
//! never pauses. The model checker tries every order of few events; this draws one of many, with times of its own, of minutes.
//! What only times decide is tried here: how long clients wait, lag in bytes and in time, back-offs, budgets.
//!
//! The same seed makes the same run. After each step the claims are held against the world, except the one that the pair finds
//! together again: the tests ask for that.

mod fault;
mod net;

use std::collections::VecDeque;

use pgpair_core::authority::timing::{Ms, Timing};
use pgpair_core::authority::{
    Authority, Command, Durability, Durable, Event, Note, OnPostgresCrash, Settings,
};
use pgpair_core::ids::{Incarnation, InstanceId, Term};
use pgpair_core::instance::PostgresState;
use pgpair_core::order::OrderReply;
use pgpair_core::record::{Holder, Mode, Record};

use crate::bounds::{Bounds, Start};
use crate::claims::CLAIMS;
use crate::pair::{Pair, tell};
use crate::rng::Rng;
use crate::world::{Server, Told, World, index};

pub use fault::Fault;
use fault::Receiver;
use net::Flight;

/// Milliseconds between two looks at everything, and between two commits.
const STEP_MS: u64 = 10;
/// Time of a start of postgres.
const START_MS: u64 = 300;
/// Time of one of the two steps of a promotion.
const PROMOTION_STEP_MS: u64 = 50;
/// What one run keeps of its story.
const LINES: usize = 120;

const BOUNDS: Bounds = Bounds { start: Start::Solo, slow_node: true, lag: true, ..Bounds::CALM };

/// Two agents in a world whose time runs.
#[derive(Debug)]
pub struct Timed {
    world: World,
    rng: Rng,
    now: u64,
    lives: [Life; 2],
    flights: Vec<(u64, Flight)>,
    /// From that instance nothing gets to the other.
    cut: [bool; 2],
    /// It cannot reach the API server.
    api_cut: [bool; 2],
    /// The reply to its next write is lost.
    lose_reply: [bool; 2],
    /// When clients were told of a commit, each time.
    acked: Vec<u64>,
    api_requests: u64,
    orders: Vec<(InstanceId, OrderReply)>,
    notes: Vec<Note>,
    story: VecDeque<String>,
    /// What was last held against the claims.
    looked_at: Option<Shape>,
    /// Disks, checkpoints, messages and the API server take seconds now and then.
    slow: bool,
    checkpoint_ms: u64,
    /// No message is lost but by a fault, and none is doubled.
    sure: bool,
    /// Whether [`Timed::told`] is of use.
    listens: bool,
    told: Vec<Told>,
    /// Clients write nothing.
    pub idle: bool,
}

/// What the world does not know of one machine.
#[derive(Debug, Default)]
struct Life {
    /// What its clock shows at the beginning.
    skew: u64,
    /// Whether its clock is fast, or slow.
    fast: bool,
    restart_at: u64,
    stalled_until: u64,
    stored_at: Option<u64>,
    ready_at: Option<u64>,
    switched_at: Option<u64>,
    receiver: Receiver,
}

/// While it is the same, only the ends of both logs move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    record: Record,
    writes: [bool; 2],
    streams: [bool; 2],
    timelines: [u32; 2],
}

impl Timed {
    /// A pair that is still to be born: A initialises, B is seeded. `ttl` is 5 s.
    #[must_use]
    pub fn new(seed: u64, durability: Durability) -> Timed {
        let mut world = Pair::new(BOUNDS, &[]).first;
        let timing = Timing::new(5_000).unwrap_or_else(|e| unreachable!("{e}"));
        world.settings = Settings {
            timing,
            durability,
            max_lag: 1_000,
            automatic: true,
            on_crash: OnPostgresCrash::Failover,
        };
        world.told = Some(Vec::new());
        for node in &mut world.nodes {
            (node.agent, node.disk, node.dead) = (None, Durable::default(), None);
            node.server = Server::empty();
            node.sent.clear();
        }
        (world.record, world.reigns) = (Record::initial(), Vec::new());
        let life = |skew, fast| Life { skew, fast, ..Life::default() };
        Timed {
            world,
            rng: Rng::new(seed),
            now: 0,
            lives: [life(5_000, true), life(900_000, false)],
            flights: Vec::new(),
            cut: [false; 2],
            api_cut: [false; 2],
            lose_reply: [false; 2],
            acked: Vec::new(),
            api_requests: 0,
            orders: Vec::new(),
            notes: Vec::new(),
            story: VecDeque::new(),
            looked_at: None,
            slow: false,
            checkpoint_ms: 20,
            sure: false,
            listens: false,
            told: Vec::new(),
            idle: false,
        }
    }

    /// Disks, checkpoints, messages and the API server take seconds now and then.
    #[must_use]
    pub fn with_slow_parts(self) -> Timed {
        Timed { slow: true, ..self }
    }

    /// No message is lost but by a fault, and none is doubled.
    #[must_use]
    pub fn with_sure_messages(self) -> Timed {
        Timed { sure: true, ..self }
    }

    /// In commits, one of which is made at each step: less than two looks of the agents are apart.
    #[must_use]
    pub fn with_max_lag(mut self, max_lag: u64) -> Timed {
        self.world.settings.max_lag = max_lag;
        self
    }

    /// Each checkpoint that begins synchronous commit takes so long.
    #[must_use]
    pub fn with_checkpoints_of(self, checkpoint_ms: u64) -> Timed {
        Timed { checkpoint_ms, ..self }
    }

    /// Everything that the agents take is to be had from [`Timed::told`].
    #[must_use]
    pub fn listening(self) -> Timed {
        Timed { listens: true, ..self }
    }

    /// What the agents took since this was last asked.
    pub fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What the record says. `None`: the pair is not born yet.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        (self.world.record.term > Term(0)).then_some(self.world.record.mode)
    }

    /// The term of the record.
    #[must_use]
    pub fn term(&self) -> u32 {
        self.world.record.term.0
    }

    /// The durability of the record.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.world.record.durability
    }

    /// How many commits clients were told of.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    /// The longest time without a commit since so many were acknowledged.
    #[must_use]
    pub fn longest_gap_since(&self, first: usize) -> u64 {
        let times = self.acked.iter().skip(first.saturating_sub(1)).copied().chain([self.now]);
        times.clone().zip(times.skip(1)).map(|(a, b)| b - a).max().unwrap_or(0)
    }

    /// What became of orders.
    #[must_use]
    pub fn orders(&self) -> &[(InstanceId, OrderReply)] {
        &self.orders
    }

    /// Decisions of both, in their order.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Reads and writes of the record so far.
    #[must_use]
    pub fn api_requests(&self) -> u64 {
        self.api_requests
    }

    /// The agent of `i`.
    #[must_use]
    pub fn agent(&self, i: InstanceId) -> Option<&Authority> {
        self.world.authority(i)
    }

    /// The process of that agent.
    #[must_use]
    pub fn incarnation(&self, i: InstanceId) -> Option<Incarnation> {
        self.agent(i).map(|a| a.me().incarnation)
    }

    /// Whether its commits wait for the standby.
    #[must_use]
    pub fn waits(&self, i: InstanceId) -> bool {
        self.world.server(i).waits
    }

    /// Whether its agent wants commits to wait.
    #[must_use]
    pub fn wishes_sync(&self, i: InstanceId) -> bool {
        self.agent(i).is_some_and(|a| a.desired(self.world.now(i)).synchronous)
    }

    /// Who takes writes.
    #[must_use]
    pub fn writable(&self) -> Vec<InstanceId> {
        InstanceId::ALL.into_iter().filter(|i| self.world.server(*i).writes()).collect()
    }

    /// The end of its story, for a test that failed.
    #[must_use]
    pub fn tail(&self) -> String {
        let mut lines: Vec<String> = self.story.iter().cloned().collect();
        lines.push(format!("{:>7} record {:?}", self.now, self.world.record));
        for i in InstanceId::ALL {
            lines.push(tell(&self.world, i).replace(&format!("{:?}", self.world.server(i).log), "[..]"));
            lines.push(format!("{i} facts {:?}", self.world.facts(i, &BOUNDS)));
        }
        lines.join("\n")
    }

    fn say(&mut self, text: &str) {
        if self.story.len() == LINES {
            self.story.pop_front();
        }
        self.story.push_back(format!("{:>7} {text}", self.now));
    }

    /// # Panics
    /// If it does not get there within `limit` milliseconds.
    pub fn run_until(&mut self, goal: impl Fn(&Timed) -> bool, limit: u64) {
        assert!(self.try_run_until(goal, limit), "not reached\n{}", self.tail());
    }

    /// Whether it gets there within `limit` milliseconds.
    pub fn try_run_until(&mut self, goal: impl Fn(&Timed) -> bool, limit: u64) -> bool {
        let end = self.now + limit;
        while self.now < end && !goal(self) {
            self.step();
        }
        goal(self)
    }

    /// Until its agent runs.
    pub fn run_until_agent(&mut self, i: InstanceId) {
        self.run_until(|w| w.agent(i).is_some(), 60_000);
    }

    /// So many milliseconds.
    pub fn run_for(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.step();
        }
    }

    /// Ten milliseconds.
    ///
    /// # Panics
    /// If a claim does not hold afterwards.
    pub fn step(&mut self) {
        self.now += STEP_MS;
        self.world.stream_cut = self.cut != [false; 2];
        for i in InstanceId::ALL {
            self.world.now[index(i)] = self.clock(i);
            self.run_node(i);
        }
        self.deliver();
        let before = self.world.acked.len();
        self.replicate();
        self.write();
        let told = self.world.acked.len().saturating_sub(before);
        self.acked.extend(std::iter::repeat_n(self.now, told));
        if self.durability() == Durability::Async {
            self.world.excused = self.world.acked.last().copied().unwrap_or(0);
        }
        self.check();
    }

    /// What the clock of `i` shows. Clocks have nothing in common but their rate, and that within 500 ppm.
    #[must_use]
    pub fn clock(&self, i: InstanceId) -> Ms {
        let life = &self.lives[index(i)];
        let drift = self.now * 500 / 1_000_000;
        Ms(life.skew + if life.fast { self.now + drift } else { self.now - drift })
    }

    fn is_stalled(&self, i: InstanceId) -> bool {
        self.lives[index(i)].stalled_until > self.now
    }

    fn run_node(&mut self, i: InstanceId) {
        let clock = self.world.now(i);
        let fence = self.world.node(i).agent.as_ref().and_then(|a| a.fence);
        if fence.is_some_and(|at| clock >= at) && self.world.server(i).may_write() {
            self.say(&format!("{i} fenced"));
            self.world.node_mut(i).server.kill();
        }
        self.run_postgres(i);
        if self.is_stalled(i) {
            return;
        }
        if self.agent(i).is_none() {
            if self.lives[index(i)].restart_at > self.now {
                return;
            }
            self.world.start(i, &BOUNDS);
            self.collect(i);
            self.say(&format!("{i} starts as {:?}", self.incarnation(i)));
        }
        if is_due(&mut self.lives[index(i)].stored_at, self.now) {
            self.world.stored(i, &BOUNDS);
            self.collect(i);
        }
        self.world.look(i, &BOUNDS);
        self.collect(i);
        self.world.tell(i, Event::Tick, &BOUNDS);
        self.collect(i);
        self.world.works(i, &BOUNDS);
        if i == InstanceId::B && self.world.server(i).volume.is_none() && self.may_be_seeded(i) {
            self.world.seeded(i);
        }
    }

    fn may_be_seeded(&self, i: InstanceId) -> bool {
        self.term() > 0 && self.world.server(i.peer()).writes()
    }

    /// What a start, a promotion and a switch of synchronous commit take their time for.
    fn run_postgres(&mut self, i: InstanceId) {
        let s = self.world.server(i);
        let takes = match s.state {
            PostgresState::Starting => Some(START_MS),
            PostgresState::Promoting => Some(PROMOTION_STEP_MS),
            PostgresState::Down | PostgresState::Standby | PostgresState::Primary => None,
        };
        let (down, switches) = (s.state == PostgresState::Down, s.switching.is_some());
        let hiccup = if self.slow && self.rng.chance(10) { self.rng.below(3_000) } else { 0 };
        let (now, checkpoint) = (self.now, self.checkpoint_ms + hiccup);
        let life = &mut self.lives[index(i)];
        if down {
            life.receiver = Receiver::Runs;
        }
        life.ready_at = takes.map(|takes| life.ready_at.unwrap_or(now + takes));
        life.switched_at = switches.then(|| life.switched_at.unwrap_or(now + checkpoint));
        let (ready, switched) = (is_due(&mut life.ready_at, now), is_due(&mut life.switched_at, now));
        if ready {
            self.world.ready(i, &BOUNDS);
        }
        if switched {
            self.world.switched(i);
        }
    }

    fn replicate(&mut self) {
        for i in InstanceId::ALL {
            let (receiver, fetches) = (self.lives[index(i)].receiver, self.world.fetches(i));
            let streams = self.world.streams(i) && receiver != Receiver::Stopped;
            if (streams || fetches) && self.rng.chance(80) {
                let slow = receiver == Receiver::Slow && !fetches;
                let most = if slow { usize::from(self.rng.chance(60)) } else { usize::MAX };
                self.world.log(i, most, &BOUNDS);
            }
        }
    }

    /// One commit a step on whoever takes writes.
    fn write(&mut self) {
        for i in InstanceId::ALL {
            let s = self.world.server(i);
            if s.writes() && s.open && !s.hung && !self.idle {
                self.world.commit(i);
            }
        }
    }

    fn check(&mut self) {
        let shape = Shape {
            record: self.world.record,
            writes: InstanceId::ALL.map(|i| self.world.server(i).writes()),
            streams: InstanceId::ALL.map(|i| self.world.streams(i)),
            timelines: InstanceId::ALL.map(|i| self.world.server(i).timeline),
        };
        if self.looked_at == Some(shape) {
            return;
        }
        self.looked_at = Some(shape);
        let mut of_each_state = CLAIMS.iter().filter(|c| !c.name.starts_with('P'));
        let broken = of_each_state.find(|c| !(c.holds)(&self.world, &BOUNDS)).map(|c| c.name);
        assert!(broken.is_none(), "{}\n{}", broken.unwrap_or_default(), self.tail());
    }

    /// Takes from the world what an agent commanded, and sends it on its way.
    fn collect(&mut self, i: InstanceId) {
        for told in self.world.told.as_mut().map(std::mem::take).unwrap_or_default() {
            for command in &told.commands {
                self.hear(told.who, command);
            }
            if self.listens {
                self.told.push(told);
            }
        }
        self.dispatch(i);
    }

    fn hear(&mut self, i: InstanceId, command: &Command) {
        match command {
            Command::Note(note) => {
                self.say(&format!("{i} {note:?}"));
                self.notes.push(*note);
            }
            Command::AnswerOrder(_, reply) | Command::OrderEnded(reply) => {
                self.say(&format!("{i} order: {reply:?}"));
                self.orders.push((i, *reply));
            }
            Command::Cas { record: Record { term, primary: Holder { instance, .. }, mode, .. }, .. } => {
                self.say(&format!("{i} asks for term {term} of {instance}, {mode}"));
            }
            _ => {}
        }
    }
}

/// Whether it is time, and then never again.
fn is_due(at: &mut Option<u64>, now: u64) -> bool {
    at.take_if(|at| *at <= now).is_some()
}
