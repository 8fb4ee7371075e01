//! The claims can fail: for each clause of the rules, and each part of the world, that is taken away, one that breaks.
//! Some clauses are there twice, in two rules; then both are taken away.

use pgpair_core::authority::clause::Clause;
use pgpair_core::ids::InstanceId::{A, B};

use crate::action::Action;
use crate::bounds::{Bounds, Part, Start};
use crate::pair::Pair;
use crate::runs::{Found, Run};
use crate::world::Kind;

/// Something taken away.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What breaks without it, by its first letters.
    pub breaks: &'static str,
    /// Clauses of the shipped code.
    pub clauses: &'static [Clause],
    /// What has to be able to happen for it; and a part of the world that does not work.
    pub bounds: Bounds,
    /// What happens first: the shortest way is looked for from there on.
    pub before: &'static [Action],
}

const fn breaks(breaks: &'static str, clauses: &'static [Clause], bounds: Bounds) -> Mutation {
    Mutation { breaks, clauses, bounds, before: &[] }
}

const PAIRED: Bounds = Bounds::CALM;
const ALONE: Bounds = Bounds { start: Start::Alone, ..PAIRED };
const WITH_COMMIT: Bounds = Bounds { commits: 1, ..PAIRED };
const ALONE_WITH_COMMIT: Bounds = Bounds { commits: 1, ..ALONE };

const fn without(part: Part, bounds: Bounds) -> Mutation {
    breaks("S", &[], Bounds { without: Some(part), ..bounds })
}

/// All of them. The names V1 to V10 are those of the traces that shaped the rules.
pub const MUTATIONS: [Mutation; 19] = [
    breaks("S1", &[Clause::Fence], PAIRED),
    // V5: a take-over of an earlier process lands while its successor has promised again.
    Mutation {
        before: &[
            Action::Clock(A),
            Action::Clock(A),
            Action::Clock(B),
            Action::Clock(B),
            Action::ReadDone(B),
            Action::Crash(B),
            Action::Start(B),
            Action::Clock(B),
        ],
        ..breaks("S1", &[Clause::OwnPromise], Bounds { crashes: 1, ..PAIRED })
    },
    breaks("S1", &[Clause::OwnPromise, Clause::LapseFirst], PAIRED),
    breaks("S1", &[Clause::Quarantine], Bounds { crashes: 1, ..PAIRED }),
    breaks("S1", &[Clause::Resigned], Bounds { leaves: 1, ..ALONE }),
    // V6: the write of an earlier process pairs, while its successor writes by an older record.
    breaks("S1", &[Clause::NamedIncarnation], Bounds { crashes: 1, refusals: true, ..ALONE }),
    // V9
    breaks("S2", &[Clause::PrimaryVolume], Bounds { crashes: 1, wipes: 1, ..ALONE_WITH_COMMIT }),
    // V8
    breaks("S1", &[Clause::StandbyVolume], Bounds { crashes: 1, wipes: 1, ..WITH_COMMIT }),
    // V4: a late heartbeat of a dead primary takes the place of the promise to the living one.
    Mutation {
        before: &[Action::Clock(A), Action::Delayed(B, Kind::Heartbeat), Action::Crash(A), Action::Start(A)],
        ..breaks("S1", &[Clause::PromisePerIncarnation], Bounds { crashes: 1, late: 1, proofs: 1, ..PAIRED })
    },
    // V1: a read of the same version is taken for the end of a write.
    breaks("S1", &[Clause::NewerVersion], Bounds { unknown: 1, ..ALONE }),
    breaks("S1", &[Clause::OpenIsUnknown], Bounds { unknown: 1, ..ALONE }),
    breaks("S2", &[Clause::SyncProven], ALONE_WITH_COMMIT),
    breaks("S2", &[Clause::SyncUntilSolo], WITH_COMMIT),
    breaks("S2", &[Clause::LogUpToEnd], Bounds { leaves: 1, ..ALONE_WITH_COMMIT }),
    breaks("S1", &[Clause::OneIncarnation], Bounds { proofs: 1, ..PAIRED }),
    // V7
    breaks("S2", &[Clause::EvidenceInAsync], Bounds { crashes: 1, proofs: 1, ..ALONE_WITH_COMMIT }),
    without(Part::Deadman, Bounds { stalls: true, ..PAIRED }),
    without(Part::Clocks, PAIRED),
    Mutation {
        before: &[
            Action::Clock(A),
            Action::ReadDone(A),
            Action::GivenUp(A, 0),
            Action::Clock(A),
            Action::Clock(B),
            Action::Clock(B),
            Action::ReadDone(B),
            Action::Written(B, 0),
        ],
        ..without(Part::CompareAndSet, Bounds { unknown: 1, ..PAIRED })
    },
];

impl Mutation {
    /// Looks for the shortest way to a claim that does not hold.
    #[must_use]
    pub fn explore(&self, states: usize) -> Found {
        let bounds = Bounds { taken: self.clauses, ..self.bounds };
        let run = Run { name: "mutation", bounds, before: &[], depth: usize::MAX, unique: None };
        run.explore_from(Pair::new(bounds, self.before), states, 1)
    }
}
