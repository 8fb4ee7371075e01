//! The state of the world around the two agents.

use pgpair_core::authority::messages::{Answer, CanTake, CanTakeReply, Heartbeat, ResignReply, Resignation};
use pgpair_core::authority::timing::{Ms, Timing};
use pgpair_core::authority::view::{CasId, CasOutcome, ReadOutcome};
use pgpair_core::authority::{Authority, Command, Directory, Durable, Event, ReplyId, Settings, SyncState};
use pgpair_core::ids::{Incarnation, InstanceId, Term, VolumeId};
use pgpair_core::instance::PostgresState;
use pgpair_core::record::{Record, RecordUid, Version, Versioned};

/// Each clock of the checker shows this at all times; the past is what moves.
pub const NOW: Ms = Ms(100_000_000);
/// Where each reply belongs.
pub(crate) const REPLY: ReplyId = ReplyId(0);
/// The one Lease.
pub const UID: RecordUid = RecordUid(1);

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// A and B.
    pub nodes: [Node; 2],
    /// What the clock of each shows.
    pub now: [Ms; 2],
    /// What a person has set.
    pub settings: Settings,
    /// No stream of WAL between the two. In the checker a stream may stand still at any time.
    pub stream_cut: bool,
    /// The Lease at the API server; `None`: deleted.
    pub uid: Option<RecordUid>,
    /// Its version.
    pub version: Version,
    /// Its content.
    pub record: Record,
    /// Promises that are open, by who gave them.
    pub bonds: [Vec<Bond>; 2],
    /// Messages that arrive late, and more than once, with their senders.
    pub late: Vec<(InstanceId, Message)>,
    /// Commits that a client was told of, in their order.
    pub acked: Vec<u32>,
    /// Those up to this one were worth no more than `Async` says.
    pub excused: u32,
    /// Commits tried so far.
    pub commits: u32,
    /// Who made postgres writable in which term.
    pub reigns: Vec<(Term, InstanceId)>,
    /// Somebody else did so in the same term.
    pub two_reigned: bool,
    /// An agent wrote another Lease than the one that it knows to be the pair's.
    pub wrote_foreign: bool,
    /// A standby took a term for a postgres of which its agent had lost sight.
    pub took_unseen: bool,
    /// A term that is being taken because a person said so: what the one who takes it lacks is given up.
    pub forced: Option<Term>,
    /// A copy of a volume that somebody has kept.
    pub copy: Option<KeptVolume>,
    /// What happened so far of that which has a bound.
    pub spent: Spent,
    /// `None`: nobody listens.
    pub told: Option<Vec<Told>>,
}

/// What an agent took, and what it commanded then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Told {
    /// Whose agent.
    pub who: InstanceId,
    /// What its clock showed.
    pub at: Ms,
    /// What it took.
    pub event: Event,
    /// What it commanded.
    pub commands: Vec<Command>,
}

/// Counts against [`crate::bounds::Bounds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Spent {
    /// Containers killed.
    pub crashes: u8,
    /// Postmasters killed.
    pub postgres_crashes: u8,
    /// Proofs of death given.
    pub proofs: u8,
    /// Volumes replaced.
    pub wipes: u8,
    /// Writes given up.
    pub unknown: u8,
    /// SIGTERMs.
    pub leaves: u8,
    /// Switchovers ordered.
    pub switchovers: u8,
    /// Other orders.
    pub orders: u8,
    /// Records deleted.
    pub foreign: u8,
    /// Postgres broken.
    pub unstartable: u8,
    /// Postgres that hung.
    pub hangs: u8,
    /// Promotions that stood still between their steps.
    pub promotions: u8,
    /// Workers that were stuck.
    pub stuck: u8,
    /// Copies of volumes.
    pub copies: u8,
    /// Records set back.
    pub restores: u8,
}

/// A volume as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeptVolume {
    /// Whose.
    pub of: InstanceId,
    /// What the agent had stored.
    pub disk: Durable,
    /// The directory.
    pub server: Server,
}

/// The one relation between the two clocks: before the clock of the one who gave a promise has moved `lapse` steps, that
/// of the holder has moved `end` steps, for it began to count earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bond {
    /// Steps of the holder's clock until `ttl` after the sending.
    pub end: u64,
    /// Steps of the giver's clock until `ttl` and the margin after the receipt.
    pub lapse: u64,
}

/// One machine with its volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The agent's process, if one runs.
    pub agent: Option<Agent>,
    /// What the agent has stored.
    pub disk: Durable,
    /// Postgres and its directory.
    pub server: Server,
    /// Messages sent and not yet arrived: the last of each kind.
    pub sent: Vec<Message>,
    /// Writes of the record under way, of this and earlier agents.
    pub writes: Vec<Write>,
    /// The agent that died last.
    pub dead: Option<Incarnation>,
    /// The operator is about to empty the directory, once the agent has left: an ordered rebuild.
    pub rebuild: bool,
}

/// An agent process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The shipped code.
    pub authority: Authority,
    /// A read of the record under way.
    pub read: Option<Read>,
    /// On its way to the disk.
    pub storing: Option<Durable>,
    /// When the deadman kills.
    pub fence: Option<Ms>,
    /// What looks at postgres, and drives it.
    pub worker: Worker,
}

/// The worker of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Worker {
    /// It works.
    Works,
    /// It is stuck: it does nothing, and what it saw last still counts.
    Stuck,
    /// It has been stuck for so long that what it saw of a standby does not count any more.
    Unseen,
}

/// A read of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Read {
    /// When it was asked.
    pub asked: Ms,
    /// What the API server answered, once it has.
    pub answer: Option<ReadOutcome>,
}

/// A write of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    /// Its number.
    pub id: CasId,
    /// Precondition.
    pub uid: RecordUid,
    /// Precondition.
    pub expected: Version,
    /// New content.
    pub record: Record,
    /// Whether its sender waits for the reply.
    pub awaited: bool,
    /// What came of it, once it has reached the API server.
    pub outcome: Option<CasOutcome>,
}

/// A message between the agents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// With the steps that the sender's clock has made since.
    Heartbeat(Heartbeat, u64),
    /// Answer to it.
    Answer(Answer),
    /// "Can you take it?"
    CanTake(CanTake),
    /// Answer to it.
    CanTakeReply(CanTakeReply),
    /// Resignation.
    Resign(Resignation),
    /// Answer to it.
    ResignReply(ResignReply),
}

/// Kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`Message::Heartbeat`].
    Heartbeat,
    /// [`Message::Answer`].
    Answer,
    /// [`Message::CanTake`].
    CanTake,
    /// [`Message::CanTakeReply`].
    CanTakeReply,
    /// [`Message::Resign`].
    Resign,
    /// [`Message::ResignReply`].
    ResignReply,
}

impl Message {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Message::Heartbeat(..) => Kind::Heartbeat,
            Message::Answer(_) => Kind::Answer,
            Message::CanTake(_) => Kind::CanTake,
            Message::CanTakeReply(_) => Kind::CanTakeReply,
            Message::Resign(_) => Kind::Resign,
            Message::ResignReply(_) => Kind::ResignReply,
        }
    }

    /// As its receiver takes it. Where a reply goes is never asked: at most one of a kind is under way.
    #[must_use]
    pub fn event(self) -> Event {
        match self {
            Message::Heartbeat(hb, _) => Event::Heartbeat(REPLY, hb),
            Message::Answer(answer) => Event::Answer(answer),
            Message::CanTake(question) => Event::CanTake(REPLY, question),
            Message::CanTakeReply(reply) => Event::CanTakeReply(Some(reply)),
            Message::Resign(resignation) => Event::Resignation(REPLY, resignation),
            Message::ResignReply(reply) => Event::ResignReply(Some(reply)),
        }
    }
}

/// Postgres of one instance. A position is the number of commits in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Kind of the directory.
    pub directory: Directory,
    /// Its id.
    pub volume: Option<VolumeId>,
    /// The postmaster.
    pub state: PostgresState,
    /// How far a promotion has come.
    pub promotion: Promotion,
    /// Commits in the log: written, or received. Their numbers only grow.
    pub log: Vec<u32>,
    /// How many of them, at its end, a standby has received and not replayed.
    pub unreplayed: usize,
    /// Whether the walreceiver of a standby has received anything since it started: before, it tells an earlier position than
    /// the replayed one. True of all others.
    pub received: bool,
    /// Timeline.
    pub timeline: u32,
    /// Earlier timelines, and where they were left.
    pub history: Vec<(u32, usize)>,
    /// Whether commits wait for the standby.
    pub waits: bool,
    /// What is proven of that.
    pub proof: SyncState,
    /// A switch of it under way.
    pub switching: Option<(bool, u32)>,
    /// Whether clients are let in.
    pub open: bool,
    /// It does not start.
    pub broken: bool,
    /// Failed starts in a row, as far as anybody counts them.
    pub failed_starts: u32,
    /// It neither answers nor writes.
    pub hung: bool,
    /// Its disk hangs: not even a kill ends it. What was killed acknowledges nothing more, and holds its lock.
    pub jammed: Jam,
}

/// How far a promotion has come on the disk. PostgreSQL promotes in steps, and what is killed between two of them stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Promotion {
    /// None is under way.
    None,
    /// The agent's mark and the trigger file are written. A kill leaves a standby, to be promoted once more.
    Triggered,
    /// `standby.signal` is gone, and the new timeline has not begun. A kill leaves a directory that looks like a primary's and is still on
    /// the old timeline; only the mark tells.
    SignalGone,
}

/// What a hanging disk does to a postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Jam {
    /// The disk works.
    #[default]
    None,
    /// It hangs.
    Hangs,
    /// It hangs, and postgres has been killed.
    Killed,
}

impl Server {
    /// Nothing in the directory.
    #[must_use]
    pub fn empty() -> Server {
        Server {
            directory: Directory::Empty,
            volume: None,
            state: PostgresState::Down,
            promotion: Promotion::None,
            log: Vec::new(),
            unreplayed: 0,
            received: true,
            timeline: 1,
            history: Vec::new(),
            waits: false,
            proof: SyncState::Unknown,
            switching: None,
            open: false,
            broken: false,
            failed_starts: 0,
            hung: false,
            jammed: Jam::None,
        }
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.state == PostgresState::Primary && self.jammed != Jam::Killed
    }

    /// Whether it takes writes or will by itself: what the driver kills when the gate closes.
    #[must_use]
    pub fn may_write(&self) -> bool {
        matches!(self.state, PostgresState::Starting | PostgresState::Promoting | PostgresState::Primary)
    }

    /// Started as a standby, or again as one.
    pub(crate) fn starts_as_standby(&mut self) {
        (self.state, self.open, self.received) = (PostgresState::Standby, true, false);
    }

    /// Everything is killed.
    pub fn kill(&mut self) {
        if self.jammed != Jam::None {
            self.jammed = Jam::Killed;
            return;
        }
        (self.state, self.received) = (PostgresState::Down, true);
        if self.promotion == Promotion::Triggered {
            self.promotion = Promotion::None;
        }
        (self.waits, self.proof, self.switching, self.open) = (false, SyncState::Unknown, None, false);
        self.hung = false;
    }

    /// Its disk hangs no more: what was killed is dead.
    pub(crate) fn thaw(&mut self) {
        if std::mem::take(&mut self.jammed) == Jam::Killed {
            self.kill();
        }
    }

    /// Whether postgres would let this directory stream from `primary`: its end lies in the past of that one.
    #[must_use]
    pub fn is_past_of(&self, primary: &Server) -> bool {
        if self.timeline == primary.timeline {
            return self.log.len() <= primary.log.len();
        }
        primary.history.iter().any(|(t, end)| *t == self.timeline && self.log.len() <= *end)
    }

    /// How much of its log it has replayed.
    #[must_use]
    pub fn replayed(&self) -> usize {
        self.log.len() - self.unreplayed
    }

    /// What lies beyond is cut off.
    pub(crate) fn cut_off(&mut self, end: usize) {
        let replayed = self.replayed();
        self.log.truncate(end);
        self.unreplayed = self.log.len().saturating_sub(replayed);
    }

    /// Each timeline of its past with the position at which it was left, the last one with its end.
    fn stretches(&self) -> impl Iterator<Item = (u32, usize)> + '_ {
        self.history.iter().copied().chain([(self.timeline, self.log.len())])
    }

    /// Where the common past of both ends, by their timelines alone: nobody can compare the content of two logs.
    #[must_use]
    pub fn fork(&self, other: &Server) -> usize {
        let mut fork = 0;
        for ((ours, our_end), (theirs, their_end)) in self.stretches().zip(other.stretches()) {
            if ours != theirs {
                break;
            }
            fork = our_end.min(their_end);
            if our_end != their_end {
                break;
            }
        }
        fork
    }

    /// On which timeline a position of its past lies, and which timelines came before.
    #[must_use]
    pub fn place(&self, position: usize) -> (u32, Vec<(u32, usize)>) {
        let history: Vec<_> = self.history.iter().copied().take_while(|(_, end)| *end <= position).collect();
        let timeline = self.history.get(history.len()).map_or(self.timeline, |(timeline, _)| *timeline);
        (timeline, history)
    }
}

/// Index of an instance.
#[must_use]
pub fn index(i: InstanceId) -> usize {
    usize::from(i == InstanceId::B)
}

impl World {
    /// The node of `i`.
    #[must_use]
    pub fn node(&self, i: InstanceId) -> &Node {
        &self.nodes[index(i)]
    }

    /// The node of `i`.
    pub fn node_mut(&mut self, i: InstanceId) -> &mut Node {
        &mut self.nodes[index(i)]
    }

    /// What the clock of `i` shows.
    #[must_use]
    pub fn now(&self, i: InstanceId) -> Ms {
        self.now[index(i)]
    }

    /// What a read of the record is answered with.
    #[must_use]
    pub fn read(&self) -> ReadOutcome {
        let (version, record) = (self.version, self.record);
        self.uid.map_or(ReadOutcome::Missing, |uid| ReadOutcome::Got(Versioned { uid, version, record }))
    }

    /// Postgres of `i`.
    #[must_use]
    pub fn server(&self, i: InstanceId) -> &Server {
        &self.node(i).server
    }

    /// The shipped code in the agent of `i`.
    #[must_use]
    pub fn authority(&self, i: InstanceId) -> Option<&Authority> {
        self.node(i).agent.as_ref().map(|a| &a.authority)
    }

    /// Whether the standby `i` streams from the other one.
    #[must_use]
    pub fn streams(&self, i: InstanceId) -> bool {
        let (s, p) = (self.server(i), self.server(i.peer()));
        !self.stream_cut && s.state == PostgresState::Standby && p.writes() && s.is_past_of(p)
    }

    /// Whether the standby `i` can fetch the log of the dead postgres of the other one.
    #[must_use]
    pub fn fetches(&self, i: InstanceId) -> bool {
        let (s, p) = (self.server(i), self.server(i.peer()));
        !self.stream_cut
            && s.state == PostgresState::Standby
            && self.authority(i.peer()).is_some_and(Authority::hands_over_log)
            && s.is_past_of(p)
    }
}

/// The times of the model.
#[must_use]
pub fn timing() -> Timing {
    Timing::new(crate::bounds::TTL_MS).unwrap_or_else(|e| unreachable!("{e}"))
}
