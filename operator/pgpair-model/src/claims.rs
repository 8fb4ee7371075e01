//! What is claimed, in words and in code. Each claim holds in every state that can be reached.

use std::hash::{DefaultHasher, Hash, Hasher};

use pgpair_core::authority::Durability;
use pgpair_core::ids::InstanceId;

use crate::bounds::Bounds;
use crate::calm;
use crate::kept;
use crate::world::World;

/// A claim about one state.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Its number and what it says.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: fn(&World, &Bounds) -> bool,
}

/// All of them.
pub const CLAIMS: [Claim; 10] = [
    Claim { name: "S1: no two postgres take writes at once", holds: one_writes },
    Claim {
        name: "S2: in the sync modes whoever takes writes has every acknowledged commit",
        holds: nothing_acknowledged_is_lost,
    },
    Claim { name: "S3: in one term only one instance makes its postgres writable", holds: one_reigns },
    Claim {
        name: "S4: what streams from a primary has nothing that the primary does not have",
        holds: nobody_who_diverged_serves,
    },
    Claim {
        name: "S5: who knows the pair's Lease never writes another one",
        holds: nothing_foreign_is_written,
    },
    Claim {
        name: "S6: one timeline has one history: where both instances have a timeline, they have the same commits on it",
        holds: timelines_are_whole,
    },
    Claim {
        name: "S7: no standby takes a term while its agent has lost sight of its postgres",
        holds: nobody_takes_over_unseen,
    },
    Claim {
        name: "A1: wherever the pair is given up, an adoption chooses no volume unasked that lacks an acknowledged commit which the other has",
        holds: |w, _| kept::nothing_is_given_up_unasked(w),
    },
    Claim {
        name: "A2: a volume that says it was alone has every acknowledged commit, unless a person ordered a promotion",
        holds: |w, _| kept::a_volume_that_was_alone_is_whole(w),
    },
    Claim {
        name: "P: without further faults the pair becomes Paired again, unless its only good volume or its record is gone",
        holds: finds_together_again,
    },
];

fn one_writes(w: &World, _: &Bounds) -> bool {
    !InstanceId::ALL.iter().all(|i| w.server(*i).writes())
}

fn nothing_acknowledged_is_lost(w: &World, bounds: &Bounds) -> bool {
    bounds.durability == Durability::Async
        || InstanceId::ALL
            .iter()
            .map(|i| w.server(*i))
            .all(|s| !s.writes() || commits_that_count(w).all(|commit| s.log.binary_search(commit).is_ok()))
}

pub(crate) fn commits_that_count(w: &World) -> impl Iterator<Item = &u32> {
    w.acked.iter().filter(|commit| **commit > w.excused)
}

fn one_reigns(w: &World, _: &Bounds) -> bool {
    !w.two_reigned
}

fn nobody_who_diverged_serves(w: &World, _: &Bounds) -> bool {
    InstanceId::ALL.iter().all(|i| !w.streams(*i) || w.server(i.peer()).log.starts_with(&w.server(*i).log))
}

fn nothing_foreign_is_written(w: &World, _: &Bounds) -> bool {
    !w.wrote_foreign
}

fn timelines_are_whole(w: &World, _: &Bounds) -> bool {
    let [a, b] = InstanceId::ALL.map(|i| w.server(i));
    let common = a.fork(b).min(a.log.len()).min(b.log.len());
    a.log[..common] == b.log[..common]
}

fn nobody_takes_over_unseen(w: &World, _: &Bounds) -> bool {
    !w.took_unseen
}

fn finds_together_again(w: &World, bounds: &Bounds) -> bool {
    bounds.progress_of == 0
        || !sample(w).is_multiple_of(bounds.progress_of)
        || calm::run(w, bounds, calm::is_paired_or_lost).is_some()
}

/// A number that is the same in every run (`DefaultHasher::new` has fixed keys).
fn sample(w: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    w.hash(&mut hasher);
    hasher.finish()
}
