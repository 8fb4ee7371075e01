//! The simulated world: clocks, disks, postgres, the network and the API server.

use std::collections::{BTreeSet, VecDeque};

use super::rng::Rng;
use crate::authority::messages::{CanTakeReply, ResignReply};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::{CasId, CasOutcome, ReadOutcome};
use crate::authority::{
    Authority, Command, Directory, Durability, Durable, Event, NodeId, PgFacts, ReplyId, Settings, SyncState,
    Want,
};
use crate::ids::{Incarnation, InstanceId, SystemIdentifier, VolumeId};
use crate::lsn::Lsn;
use crate::record::{Holder, LeaseUid, Mode, Record, Version, Versioned};
use crate::report::PostgresState;
use crate::timeline::TimelineId;

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
    Heal,
}

impl Fault {
    pub fn any(rng: &mut Rng) -> Fault {
        let i = if rng.chance(50) { InstanceId::A } else { InstanceId::B };
        match rng.below(12) {
            0 | 1 => Fault::AgentCrash(i),
            2 => Fault::AgentStall(i, rng.below(15_000)),
            3 => Fault::PostgresCrash(i),
            4 => Fault::OneWayCut(i),
            5 => Fault::ApiAway(i),
            6 | 7 => Fault::Isolate(i),
            8 => Fault::ApiReplyLost(i),
            _ => Fault::Heal,
        }
    }
}

/// Postgres of one instance, with its directory.
struct Server {
    directory: Directory,
    volume: Option<VolumeId>,
    state: PostgresState,
    writable: bool,
    log: Vec<u64>,
    timeline: u32,
    sync_from: Option<Lsn>,
    /// Proof of `sync_from` as the worker reports it, and the switch that is under way with its end.
    proof: SyncState,
    switching: Option<(u64, bool, u32)>,
    ready_at: u64,
    followed: u32,
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
    /// Answers on their way to a waiting request: the asker's incarnation guards against a restart in between.
    cut: BTreeSet<InstanceId>,
    api_cut: BTreeSet<InstanceId>,
    lose_reply: BTreeSet<InstanceId>,
    durability: Durability,
    next_id: u64,
    next_commit: u64,
    acked: Vec<(u64, u64)>,
    api_requests: u64,
    journal: VecDeque<String>,
    /// Disks, checkpoints, messages and the API server take seconds now and then.
    slow: bool,
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
            next_id: 1,
            next_commit: 0,
            acked: Vec::new(),
            api_requests: 0,
            journal: VecDeque::new(),
            slow: false,
        }
    }

    pub fn with_slow_parts(self) -> World {
        World { slow: true, ..self }
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
            let wish = n.agent.as_ref().map(|a| (a.role(), a.desired(clock), a.resign, a.view.has_open()));
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

    pub fn run_for(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.step();
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.api_cut.clear();
        self.lose_reply.clear();
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
            let commands = agent.handle(clock, event);
            self.nodes[index(i)].agent = Some(agent);
            for command in commands {
                self.send(i, command);
            }
            self.obey(i, clock);
        }
    }

    fn start_agent(&mut self, i: InstanceId, clock: Ms) {
        let incarnation = Incarnation(self.id());
        let timing = Timing::new(5_000).unwrap();
        let settings = Settings { timing, durability: self.durability, max_lag: 1_000 };
        let n = &mut self.nodes[index(i)];
        let me = Holder { instance: i, incarnation };
        n.agent = Some(Authority::new(me, NodeId(index(i) as u64), settings, n.disk, clock));
        self.say(format!("{i} starts as {incarnation}"));
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn facts(&self, i: InstanceId) -> PgFacts {
        let s = &self.nodes[index(i)].server;
        let up = s.state != PostgresState::Down;
        let end = Lsn(s.log.len() as u64);
        PgFacts {
            state: s.state,
            directory: s.directory,
            volume: s.volume,
            system_identifier: s.volume.map(|_| SystemIdentifier(1)),
            timeline: up.then_some(TimelineId(s.timeline)),
            flush: up.then_some(end),
            replay: up.then_some(end),
            streaming: self.streams(i),
            end: (!up).then_some((TimelineId(s.timeline), end)),
            sync: s.proof,
            failed_starts: 0,
        }
    }

    /// A standby streams from a running primary whose past contains its own.
    fn streams(&self, i: InstanceId) -> bool {
        let (s, p) = (&self.nodes[index(i)].server, &self.nodes[index(i.peer())].server);
        let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
        linked && s.state == PostgresState::Standby && p.writable && p.log.starts_with(&s.log)
    }

    fn obey(&mut self, i: InstanceId, clock: Ms) {
        let now = self.now;
        let Some(agent) = &self.nodes[index(i)].agent else { return };
        let desired = agent.desired(clock);
        let may_promote = agent.may_promote(clock);
        let term = agent.term().0;
        let peer = &self.nodes[index(i.peer())].server;
        let (peer_log, peer_timeline, peer_writable) = (peer.log.clone(), peer.timeline, peer.writable);
        let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
        let slow = 20 + if self.slow && self.rng.chance(10) { self.rng.below(3_000) } else { 0 };
        let volume = VolumeId(self.next_id << 8 | 1 | index(i) as u64);
        let n = &mut self.nodes[index(i)];
        n.fence_at = desired.fence_at;
        let s = &mut n.server;
        match (desired.postgres, s.state) {
            (Want::Down, PostgresState::Starting | PostgresState::Promoting | PostgresState::Primary) => {
                n.kill()
            }
            (Want::Initialise, _) => (s.directory, s.volume) = (Directory::Primary, Some(volume)),
            (Want::Primary, PostgresState::Down) => {
                (s.state, s.ready_at) = (PostgresState::Starting, now + 300)
            }
            (Want::Primary, PostgresState::Starting) if now >= s.ready_at => {
                (s.state, s.writable) = (PostgresState::Primary, true);
                let from = Lsn(s.log.len() as u64);
                s.sync_from = desired.synchronous.then_some(from);
                s.proof = match s.sync_from {
                    Some(from) => SyncState::On { from, epoch: desired.sync_epoch },
                    None => SyncState::Off,
                };
            }
            (Want::Promoted, PostgresState::Down | PostgresState::Standby) => {
                assert!(may_promote, "promotion through a closed gate");
                (s.state, s.ready_at) = (PostgresState::Promoting, now + 100);
            }
            (Want::Promoted, PostgresState::Promoting) if now >= s.ready_at => {
                (s.state, s.writable, s.directory) = (PostgresState::Primary, true, Directory::Primary);
                s.timeline = term;
                (s.sync_from, s.proof) = (None, SyncState::Off);
                let log = s.log.clone();
                self.check_promoted(i, &log);
                return;
            }
            (Want::Following(_), PostgresState::Down) if s.directory == Directory::Standby => {
                s.state = PostgresState::Standby;
            }
            // Rejoin: only a confirmed primary of that term is compared with; what goes beyond its past is cut off.
            (Want::Following(t), PostgresState::Down) if linked && peer_writable && peer_timeline <= t.0 => {
                let common = s.log.iter().zip(&peer_log).take_while(|(a, b)| a == b).count();
                s.log.truncate(common);
                (s.directory, s.state, s.followed) = (Directory::Standby, PostgresState::Standby, t.0);
            }
            (Want::Primary | Want::Promoted, PostgresState::Primary) => {
                let proven = match s.proof {
                    SyncState::On { epoch, .. } => desired.synchronous && epoch == desired.sync_epoch,
                    SyncState::Off => !desired.synchronous,
                    SyncState::Unknown => false,
                };
                if s.switching.is_none() && !proven {
                    // Switching off takes effect at once, its end is noticed later; facts stay as they were meanwhile.
                    s.switching = Some((now + slow, desired.synchronous, desired.sync_epoch));
                    if !desired.synchronous {
                        s.sync_from = None;
                    }
                }
                if let Some((at, on, epoch)) = s.switching
                    && now >= at
                {
                    s.switching = None;
                    let from = Lsn(s.log.len() as u64);
                    s.sync_from = on.then_some(from);
                    s.proof = if on { SyncState::On { from, epoch } } else { SyncState::Off };
                }
            }
            _ => {}
        }
        self.seed(i, term);
    }

    /// The base-backup Job: fills an empty standby from a running primary.
    fn seed(&mut self, i: InstanceId, term: u32) {
        let (peer_log, peer_writable) = {
            let p = &self.nodes[index(i.peer())].server;
            (p.log.clone(), p.writable)
        };
        let volume = VolumeId(self.id() << 8);
        let s = &mut self.nodes[index(i)].server;
        if i == InstanceId::B && s.directory == Directory::Empty && term > 0 && peer_writable {
            (s.directory, s.volume, s.log) = (Directory::Standby, Some(volume), peer_log);
        }
    }

    fn check_promoted(&mut self, i: InstanceId, log: &[u64]) {
        self.say(format!("{i} promoted with {} commits", log.len()));
        if self.durability == Durability::Sync {
            let have: BTreeSet<u64> = log.iter().copied().collect();
            let missing: Vec<_> = self.acked.iter().filter(|(c, _)| !have.contains(c)).collect();
            assert!(missing.is_empty(), "S2: {missing:?} are lost\n{}", self.tail());
        }
    }

    fn replicate(&mut self) {
        for i in InstanceId::ALL {
            let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
            let peer = &self.nodes[index(i.peer())];
            let handed_over = linked && peer.agent.as_ref().is_some_and(Authority::hands_over_log);
            let fetches = handed_over
                && self.nodes[index(i)].server.state == PostgresState::Standby
                && peer.server.log.starts_with(&self.nodes[index(i)].server.log);
            if (self.streams(i) || fetches) && self.rng.chance(80) {
                let (log, timeline) = {
                    let p = &self.nodes[index(i.peer())].server;
                    (p.log.clone(), p.timeline)
                };
                let s = &mut self.nodes[index(i)].server;
                (s.log, s.timeline) = (log, timeline);
            }
        }
    }

    /// One commit a step on whoever writes; acknowledged at once, or when the standby has it.
    fn write(&mut self) {
        for i in InstanceId::ALL {
            let other = self.nodes[index(i.peer())].server.log.len();
            let attached = self.streams(i.peer());
            let s = &mut self.nodes[index(i)].server;
            if !s.writable {
                continue;
            }
            self.next_commit += 1;
            s.log.push(self.next_commit);
            let len = s.log.len();
            let sync = s.sync_from.is_some();
            let safe = if sync { if attached { other } else { 0 } } else { len };
            let last = self.acked.last().map_or(0, |(c, _)| *c);
            let newly: Vec<u64> =
                s.log[..safe.min(len)].iter().rev().take_while(|c| **c > last).copied().collect();
            let now = self.now;
            self.acked.extend(newly.into_iter().rev().map(|c| (c, now)));
        }
    }

    fn send(&mut self, i: InstanceId, command: Command) {
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
            Command::Note(note) => self.say(format!("{i} {note:?}")),
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

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.flights).into_iter().partition(|(at, _)| *at <= now);
        self.flights = later;
        let due: Vec<(u64, Flight)> = due;
        for (_, flight) in due {
            match flight {
                Flight::ToPeer(from, command) => self.deliver_to(from.peer(), command),
                Flight::ApiRead(i, me, asked) => {
                    let (version, record) = self.record;
                    let got = ReadOutcome::Got(Versioned { uid: LeaseUid(1), version, record });
                    self.api_reply(i, me, Event::Read { asked, outcome: got });
                }
                Flight::ApiCas(i, me, id, expected, record) => {
                    let outcome = if self.record.0 == expected {
                        self.record = (Version(expected.0 + 1), record);
                        self.say(format!(
                            "RECORD term {} {} {}",
                            record.term, record.primary.instance, record.mode
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

impl Node {
    /// Clocks have nothing in common but their rate, and that within 500 ppm.
    fn clock(&self, now: u64) -> Ms {
        let drift = now * 500 / 1_000_000;
        Ms(self.skew + if self.fast { now + drift } else { now - drift })
    }

    fn kill(&mut self) {
        self.server.state = PostgresState::Down;
        self.server.writable = false;
        self.server.sync_from = None;
        self.server.proof = SyncState::Off;
        self.server.switching = None;
    }
}
