//! One fault out of a pair that had none: how long until commits are acknowledged again.

use pgpair_core::ids::InstanceId::{self, A, B};
use pgpair_core::record::Mode;

use crate::action::Action;
use crate::bounds::{Bounds, Start};
use crate::calm;
use crate::pair::Pair;
use crate::rng::Rng;
use crate::world::World;

/// What stays broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Nothing that it sends reaches the peer.
    Mute(InstanceId),
    /// It cannot reach the API server.
    NoApi(InstanceId),
    /// Nothing comes in, from the peer or the API server; what it sends arrives.
    Deaf(InstanceId),
    /// It does not start again.
    Gone(InstanceId),
    /// Its agent stands still, its postgres does not.
    Stalled(InstanceId),
    /// Its postgres does not start.
    Broken(InstanceId),
    /// Its walreceiver stands still.
    NoLog(InstanceId),
    /// The worker of its agent is stuck.
    NoWorker(InstanceId),
}

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// What people call it.
    pub name: &'static str,
    /// What happens once.
    pub once: &'static [Action],
    /// What stays.
    pub lasting: &'static [Lasting],
}

const fn once(name: &'static str, once: &'static [Action]) -> Trouble {
    Trouble { name, once, lasting: &[] }
}

const fn lasting(name: &'static str, lasting: &'static [Lasting]) -> Trouble {
    Trouble { name, once: &[], lasting }
}

use Lasting::{Broken, Deaf, Gone, Mute, NoApi, NoLog, NoWorker, Stalled};

/// All single faults; A is the primary.
pub const SINGLE: [Trouble; 27] = [
    lasting("the link is cut", &[Mute(A), Mute(B)]),
    lasting("the link is cut from a to b", &[Mute(A)]),
    lasting("the link is cut from b to a", &[Mute(B)]),
    lasting("a cannot reach the API server", &[NoApi(A)]),
    lasting("b cannot reach the API server", &[NoApi(B)]),
    lasting("the API server is away", &[NoApi(A), NoApi(B)]),
    lasting("a is isolated", &[Mute(A), Mute(B), NoApi(A)]),
    lasting("b is isolated", &[Mute(A), Mute(B), NoApi(B)]),
    Trouble { name: "a is lost", once: &[Action::Crash(A)], lasting: &[Gone(A)] },
    Trouble { name: "b is lost", once: &[Action::Crash(B)], lasting: &[Gone(B)] },
    lasting("the agent of a stalls", &[Stalled(A)]),
    lasting("the agent of b stalls", &[Stalled(B)]),
    lasting("nothing comes in at a", &[Deaf(A)]),
    lasting("nothing comes in at b", &[Deaf(B)]),
    Trouble { name: "postgres of a dies and does not start", once: DIES_BROKEN_A, lasting: &[Broken(A)] },
    Trouble { name: "postgres of b dies and does not start", once: DIES_BROKEN_B, lasting: &[Broken(B)] },
    lasting("the walreceiver of b stands still", &[NoLog(B)]),
    Trouble { name: "the worker of b is stuck", once: &[Action::Sticks(B)], lasting: &[NoWorker(B)] },
    Trouble {
        name: "the worker of b is stuck, and then the postmaster of a dies",
        once: &[Action::Sticks(B), Action::Clock(A), Action::Clock(B), Action::PostgresCrash(A)],
        lasting: &[NoWorker(B)],
    },
    once("a restarts", &[Action::Crash(A)]),
    once("b restarts", &[Action::Crash(B)]),
    once("both restart", &[Action::Crash(A), Action::Crash(B)]),
    once("the postmaster of a dies", &[Action::PostgresCrash(A)]),
    once("the postmaster of b dies", &[Action::PostgresCrash(B)]),
    once("postgres of a hangs", &[Action::Hangs(A)]),
    once("the disk of a hangs, and a kill ends nothing", &[Action::Jams(A)]),
    once("a is to stop, and a kill ends nothing", &[Action::Lingers(A), Action::Leave(A)]),
];

const DIES_BROKEN_A: &[Action] = &[Action::Breaks(A), Action::PostgresCrash(A)];
const DIES_BROKEN_B: &[Action] = &[Action::Breaks(B), Action::PostgresCrash(B)];

const AWAY: &[Lasting] = &[NoApi(A), NoApi(B)];

/// The API server is away, and one thing happens that it is not needed for.
pub const WITHOUT_API: [Trouble; 5] = [
    Trouble { name: "the API server is away; a restarts", once: &[Action::Crash(A)], lasting: AWAY },
    Trouble { name: "the API server is away; b restarts", once: &[Action::Crash(B)], lasting: AWAY },
    Trouble {
        name: "the API server is away; both restart",
        once: &[Action::Crash(A), Action::Crash(B)],
        lasting: AWAY,
    },
    Trouble {
        name: "the API server is away; the postmaster of a dies",
        once: &[Action::PostgresCrash(A)],
        lasting: AWAY,
    },
    Trouble {
        name: "the API server is away; the postmaster of b dies",
        once: &[Action::PostgresCrash(B)],
        lasting: AWAY,
    },
];

/// `Solo` with a standby that is caught up and not yet paired with.
pub const IN_SOLO: Trouble = Trouble {
    name: "in `Solo`, postgres of a dies and does not start",
    once: &[Action::NotSent(A, 0), Action::Breaks(A), Action::PostgresCrash(A)],
    lasting: &[Broken(A)],
};

/// Steps of a clock, counted in `ttl`, within which commits must be acknowledged again.
pub const WITHIN_TTLS: u64 = 2;
/// And are then for as long.
const FOR_TTLS: u64 = 2;

/// What becomes of a pair in trouble: the steps of the clocks until commits were acknowledged in each step again, and at
/// the end. `None`: they were not.
#[must_use]
pub fn endure(from: &World, bounds: &Bounds, trouble: &Trouble) -> (Option<u64>, World) {
    let stalls = trouble.lasting.iter().any(|l| matches!(l, Stalled(_)));
    let bounds = Bounds { stalls, slow_node: stalls, ..calm::bounds(bounds) };
    let mut world = from.clone();
    for action in trouble.once {
        world.take(*action, &bounds);
    }
    let (mut since, steps) = (None, (WITHIN_TTLS + FOR_TTLS) * bounds.grain);
    for step in 0..steps {
        if serves(&mut world, &bounds, trouble) {
            since = since.or(Some(step));
        } else {
            since = None;
        }
        for i in InstanceId::ALL {
            world.take(Action::Clock(i), &bounds);
        }
    }
    (since.filter(|s| *s <= WITHIN_TTLS * bounds.grain), world)
}

/// A client commits, everything happens that may, and the commit is acknowledged.
fn serves(world: &mut World, bounds: &Bounds, trouble: &Trouble) -> bool {
    let allows = |action| allowed(action, trouble.lasting);
    calm::settle(world, bounds, |_| false, allows);
    let Some(open) = InstanceId::ALL.into_iter().find(|i| takes_commits(world, *i)) else { return false };
    world.take(Action::Commit(open), bounds);
    let commit = world.commits;
    calm::settle(world, bounds, |_| false, allows);
    world.acked.contains(&commit)
}

fn takes_commits(world: &World, i: InstanceId) -> bool {
    let s = world.server(i);
    s.writes() && s.open && !s.hung
}

/// What becomes of an event.
fn allowed(action: Action, lasting: &[Lasting]) -> Option<Action> {
    let is = |l: Lasting| lasting.contains(&l);
    match action {
        Action::Arrives(i, _) if is(Mute(i.peer())) || is(Deaf(i)) || is(Stalled(i)) => None,
        Action::Answers(i, _) if is(Mute(i.peer())) || is(Deaf(i)) || is(Stalled(i)) => None,
        // It arrives, and the answer to it does not.
        Action::Answers(i, kind) if is(Mute(i)) || is(Deaf(i.peer())) => Some(Action::Arrives(i, kind)),
        Action::Answers(i, kind) if is(Stalled(i.peer())) => Some(Action::Arrives(i, kind)),
        Action::ReadDone(i) if is(NoApi(i)) || is(Deaf(i)) || is(Stalled(i)) => None,
        Action::Written(i, _) | Action::Landed(i, _) if is(NoApi(i)) => None,
        Action::Written(i, n) if is(Deaf(i)) || is(Stalled(i)) => Some(Action::Landed(i, n)),
        Action::WriteDone(i, _) if is(Deaf(i)) || is(Stalled(i)) => None,
        Action::Log(i) if cuts_stream(lasting, i) => None,
        Action::Start(i) if is(Gone(i)) => None,
        Action::Mended(i) if is(Broken(i)) => None,
        Action::Unsticks(i) if is(NoWorker(i)) => None,
        Action::Tick(i) | Action::Look(i) | Action::Stored(i) | Action::Works(i) if is(Stalled(i)) => None,
        other => Some(other),
    }
}

/// A stream needs both ways.
fn cuts_stream(lasting: &[Lasting], i: InstanceId) -> bool {
    lasting.iter().any(|l| matches!(l, Mute(_) | Deaf(_)) || *l == NoLog(i))
}

/// Why nobody may take commits, by design.
#[must_use]
pub fn excuse(at: &World, trouble: &Trouble) -> Option<&'static str> {
    let primary = at.record.primary.instance;
    let loses = |i| trouble.lasting.iter().any(|l| matches!(l, Gone(j) | Broken(j) if *j == i));
    (at.record.mode == Mode::Solo && loses(primary))
        .then_some("Solo: only the lost primary has the last commits; a person decides")
}

/// A pair on its way from its start to `Paired` and beyond, after so many events in an order by this seed. Time passes when
/// nothing is left to do, and at steps so short that no deadline is missed for it, now and then before.
#[must_use]
pub fn on_its_way(bounds: &Bounds, seed: u64, events: u64) -> World {
    let mut rng = Rng::new(seed);
    let calm = calm::bounds(bounds);
    let mut world = Pair::new(Bounds { start: Start::Alone, ..calm }, &[]).first;
    let hurry = if bounds.grain >= 20 { 15 } else { 0 };
    for _ in 0..events {
        let due = calm::due(&world, &calm);
        let moves = |action: &Action| {
            let mut next = world.clone();
            next.take(*action, &calm);
            (next != world).then_some(next)
        };
        let mut next: Vec<World> = due.iter().filter_map(moves).collect();
        if next.is_empty() || rng.chance(hurry) {
            InstanceId::ALL.into_iter().for_each(|i| world.take(Action::Clock(i), &calm));
        } else {
            let n = usize::try_from(rng.below(next.len() as u64)).unwrap_or(0);
            world = next.swap_remove(n);
        }
    }
    world
}
