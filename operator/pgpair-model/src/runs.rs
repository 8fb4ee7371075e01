//! The runs that are made again and again, and what they must find: nothing, in so many states.

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::action::Action;
use crate::bounds::{Bounds, Start};
use crate::pair::{Pair, tell};
use crate::world::World;
use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;

/// One exploration.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What it is about.
    pub name: &'static str,
    /// What may happen.
    pub bounds: Bounds,
    /// Events in a row; every order of so many is tried.
    pub depth: usize,
    /// States that look different. A model that shrinks silently shows here.
    pub unique: Option<usize>,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// States that look different.
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
        let checker = Pair { bounds: self.bounds }
            .checker()
            .threads(threads)
            .target_max_depth(self.depth)
            .target_state_count(states)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        Found {
            unique: checker.unique_state_count(),
            generated: checker.state_count(),
            depth: checker.max_depth(),
            complete: checker.max_depth() < self.depth && checker.state_count() < states,
            broken: checker.discoveries().into_iter().collect(),
        }
    }
}

/// A way to a state, one event a line, and between them what each instance is and wants.
#[must_use]
pub fn story(path: Path<World, Action>) -> String {
    let mut lines = Vec::new();
    for (world, action) in path.into_vec() {
        let r = &world.record;
        lines.push(format!("      record: term {} {} of {}", r.term, r.mode, r.primary.instance));
        for i in InstanceId::ALL {
            lines.push(format!("      {}", tell(&world, i)));
        }
        lines.extend(action.map(|a| a.to_string()));
    }
    lines.join("\n")
}

/// No fault but those that have no bound.
pub const CALM: Bounds = Bounds {
    start: Start::Paired,
    durability: Durability::Sync,
    grain: 2,
    terms: 2,
    crashes: 0,
    postgres_crashes: 0,
    commits: 0,
    proofs: 0,
    wipes: 0,
    unknown: 0,
    late: 0,
    leaves: 0,
    switchovers: 0,
    stale_reads: false,
    stalls: false,
    progress_of: 1_000,
    fine: false,
    slow_node: false,
};

/// Small enough for each `cargo test`.
pub const QUICK: [Run; 1] = [Run {
    name: "a pair whose messages get lost and whose clocks run as they like",
    bounds: CALM,
    depth: 10,
    unique: Some(11_724),
}];

/// In less than five minutes on one core.
pub const CI: [Run; 0] = [];

/// As long as it takes.
pub const DEEP: [Run; 0] = [];
