//! The runs that are made again and again, and what they must find: nothing, in so many states.

use std::sync::atomic::Ordering;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::action::Action;
use crate::bounds::{Bounds, Start};
use crate::pair::Pair;
use crate::replay::tale;
use crate::world::World;
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId::{A, B};

/// One exploration.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What it is about.
    pub name: &'static str,
    /// What may happen.
    pub bounds: Bounds,
    /// What has happened before.
    pub before: &'static [Action],
    /// Events in a row; every order of so many is tried.
    pub depth: usize,
    /// States that look different. A model that shrinks silently shows here.
    pub unique: Option<usize>,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// States that look different, each held against all claims.
    pub unique: usize,
    /// States, counted each time that they were reached.
    pub generated: usize,
    /// The longest way.
    pub depth: usize,
    /// Whether nothing was left to try, whatever the depth.
    pub complete: bool,
    /// Claims that do not hold, each with the shortest way there.
    pub broken: Vec<(&'static str, Path<World, Action>)>,
}

impl Run {
    /// Makes it. `states`: give up after so many.
    #[must_use]
    pub fn explore(&self, states: usize, threads: usize) -> Found {
        self.explore_from(Pair::new(self.bounds, self.before), states, threads)
    }

    /// Makes it from a beginning that was prepared.
    #[must_use]
    pub fn explore_from(&self, pair: Pair, states: usize, threads: usize) -> Found {
        let checked = pair.checked.clone();
        // Counted from 1 at the beginning; and what is at the limit is found, but not looked at.
        let limit = self.depth.saturating_add(2);
        let checker = pair
            .checker()
            .threads(threads)
            .target_max_depth(limit)
            .target_state_count(states)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        Found {
            unique: checked.load(Ordering::Relaxed),
            generated: checker.state_count(),
            depth: checker.max_depth().min(limit - 1) - 1,
            complete: checker.max_depth() < limit && checker.state_count() < states,
            broken: checker.discoveries().into_iter().collect(),
        }
    }
}

/// A way to a state, one event a line, and between them what each instance is and wants.
#[must_use]
pub fn story(bounds: &Bounds, path: Path<World, Action>) -> String {
    let path = path.into_vec();
    let events: Vec<_> = path.iter().filter_map(|(_, action)| *action).collect();
    path.first().map_or_else(String::new, |(first, _)| tale(first, bounds, &events))
}

/// As [`Bounds::CALM`], with a sample of states from which the pair must find together again.
pub const CALM: Bounds = Bounds { progress_of: 100, ..Bounds::CALM };

/// From every one.
const EVERY: Bounds = Bounds { progress_of: 1, ..Bounds::CALM };

const ALONE: Bounds = Bounds { start: Start::Alone, ..CALM };

const fn run(name: &'static str, bounds: Bounds, depth: usize, unique: usize) -> Run {
    Run { name, bounds, before: &[], depth, unique: if unique == 0 { None } else { Some(unique) } }
}

/// a has a commit that b never got, and b takes the term.
const TAKEN_OVER: &[Action] = &[
    Action::Clock(A),
    Action::Commit(A),
    Action::Clock(A),
    Action::Clock(B),
    Action::Clock(B),
    Action::ReadDone(B),
    Action::Written(B, 0),
];

/// The same with a commit that b has received, a client was told of, and b has not replayed.
const TAKEN_OVER_UNREPLAYED: &[Action] = &[
    Action::Clock(A),
    Action::Commit(A),
    Action::Clock(B),
    Action::Log(B),
    Action::Clock(A),
    Action::Clock(B),
    Action::ReadDone(B),
    Action::Written(B, 0),
];

/// a goes on alone as soon as it may, and a client is told of a commit that b never got; then all is restored from before.
const RESTORED: &[Action] = &[
    Action::Clock(A),
    Action::ReadDone(A),
    Action::Written(A, 0),
    Action::Stored(A),
    Action::Works(A),
    Action::Commit(A),
    Action::Crash(A),
    Action::Crash(B),
    Action::Restored,
    Action::Start(B),
];

const fn deeper(run: Run, by: usize) -> Run {
    Run { depth: run.depth + by, unique: None, ..run }
}

/// Small enough for each `cargo test`.
pub const QUICK: [Run; 2] = [
    run("messages lost, clocks as they like", CALM, 8, 6_304),
    run("one container killed, one commit", Bounds { crashes: 1, commits: 1, ..CALM }, 6, 3_402),
];

/// In less than five minutes on one core.
pub const CI: [Run; 32] = [
    run("messages lost, clocks as they like", CALM, 16, 500_486),
    run("one container killed, one commit", Bounds { crashes: 1, commits: 1, ..CALM }, 11, 285_227),
    run("one postmaster killed, one commit", Bounds { postgres_crashes: 1, commits: 1, ..CALM }, 11, 285_578),
    run("alone, one unknown write, one commit", Bounds { unknown: 1, commits: 1, ..ALONE }, 11, 201_397),
    run("alone, one SIGTERM, one commit", Bounds { leaves: 1, commits: 1, ..ALONE }, 11, 318_149),
    run("one late message", Bounds { late: 1, ..CALM }, 10, 122_176),
    run(
        "Async, one container killed and proven dead",
        Bounds { crashes: 1, proofs: 1, durability: Durability::Async, ..CALM },
        10,
        174_968,
    ),
    run(
        "one container killed, one volume replaced, one commit",
        Bounds { crashes: 1, wipes: 1, commits: 1, ..CALM },
        10,
        180_984,
    ),
    run("one switchover, one commit", Bounds { switchovers: 1, commits: 1, ..CALM }, 11, 222_404),
    run(
        "everything may lag behind",
        Bounds { stalls: true, stale_reads: true, slow_node: true, fine: true, ..CALM },
        14,
        169_477,
    ),
    run("four steps a ttl", Bounds { grain: 4, ..CALM }, 12, 50_539),
    run(
        "three terms, two containers killed, one unknown write",
        Bounds { terms: 3, crashes: 2, unknown: 1, refusals: true, ..CALM },
        10,
        174_350,
    ),
    run("one order, one commit", Bounds { orders: 1, commits: 1, ..CALM }, 9, 268_571),
    run("alone, one order, one commit", Bounds { orders: 1, commits: 1, ..ALONE }, 9, 181_124),
    run(
        "one container killed, one order, one commit",
        Bounds { crashes: 1, orders: 1, commits: 1, ..CALM },
        8,
        186_809,
    ),
    run(
        "Async, one container killed, one order",
        Bounds { crashes: 1, orders: 1, durability: Durability::Async, ..CALM },
        8,
        110_397,
    ),
    run(
        "one container killed, the record deleted and made anew",
        Bounds { crashes: 1, foreign: 1, ..CALM },
        9,
        88_282,
    ),
    run(
        "one postmaster killed, one that does not start, one commit",
        Bounds { postgres_crashes: 1, unstartable: 1, commits: 1, ..CALM },
        9,
        154_837,
    ),
    run("one primary hangs, one commit", Bounds { hangs: 1, commits: 1, ..CALM }, 10, 124_399),
    run(
        "SyncStrict, one container killed, one commit",
        Bounds { crashes: 1, commits: 1, durability: Durability::SyncStrict, ..CALM },
        10,
        132_750,
    ),
    run(
        "one worker of a standby stuck, one postmaster killed, one commit",
        Bounds { stuck: 1, postgres_crashes: 1, commits: 1, ..CALM },
        9,
        138_629,
    ),
    run(
        "the way back from every state, one worker of a standby stuck, one container killed",
        Bounds { stuck: 1, crashes: 1, ..EVERY },
        9,
        66_509,
    ),
    run(
        "a standby replays later than it receives, one container killed, one commit",
        Bounds { slow_replay: true, crashes: 1, commits: 1, ..CALM },
        10,
        149_217,
    ),
    Run {
        before: TAKEN_OVER_UNREPLAYED,
        ..run(
            "the way back from every state, a term taken with a commit to replay, one postmaster killed, one commit",
            Bounds { slow_replay: true, postgres_crashes: 1, commits: 2, ..EVERY },
            8,
            16_851,
        )
    },
    run(
        "one promotion stands still between its steps, one postmaster killed, one commit",
        Bounds { promotions: 1, postgres_crashes: 1, commits: 1, ..CALM },
        10,
        143_944,
    ),
    Run {
        before: TAKEN_OVER,
        ..run(
            "a term taken, one promotion stands still between its steps, one container killed, two commits",
            Bounds { promotions: 1, crashes: 1, commits: 2, ..CALM },
            9,
            81_711,
        )
    },
    Run {
        before: TAKEN_OVER,
        ..run(
            "the way back from every state, a term taken, one promotion stands still between its steps, one postmaster killed",
            Bounds { promotions: 1, postgres_crashes: 1, commits: 2, ..EVERY },
            8,
            42_936,
        )
    },
    run(
        "one container killed, a copy of a volume kept, one commit",
        Bounds { crashes: 1, copies: 1, commits: 1, ..CALM },
        9,
        137_169,
    ),
    Run {
        before: RESTORED,
        ..run(
            "a has gone Solo and acknowledged a commit, Kubernetes restored from before, slow disks, two commits",
            Bounds { crashes: 2, restores: 1, commits: 2, slow_node: true, ..CALM },
            9,
            21_991,
        )
    },
    run("the way back from every state, one container killed", Bounds { crashes: 1, ..EVERY }, 10, 73_202),
    run(
        "the way back from every state, one postmaster killed",
        Bounds { postgres_crashes: 1, ..EVERY },
        9,
        35_293,
    ),
    run(
        "the way back from every state, alone, one unknown write",
        Bounds { start: Start::Alone, unknown: 1, ..EVERY },
        9,
        22_187,
    ),
];

/// As long as it takes.
pub const DEEP: [Run; CI.len()] = {
    let mut deep = CI;
    let mut n = 0;
    while n < deep.len() {
        deep[n] = deeper(CI[n], 2);
        n += 1;
    }
    deep
};
