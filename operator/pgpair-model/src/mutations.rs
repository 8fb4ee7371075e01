//! The claims can fail: for each clause of the rules that is taken away, one that breaks.

use pgpair_core::authority::clause::Clause;

use crate::bounds::{Bounds, Start};
use crate::runs::CALM;

/// One clause taken away.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What is taken away.
    pub clause: Clause,
    /// The claim that breaks, by its first letters.
    pub breaks: &'static str,
    /// What has to be able to happen for it.
    pub bounds: Bounds,
}

const fn breaks(clause: Clause, breaks: &'static str, bounds: Bounds) -> Mutation {
    Mutation { clause, breaks, bounds }
}

const NONE: Bounds = Bounds { progress_of: 0, ..CALM };

/// All of them.
pub const MUTATIONS: [Mutation; 19] = [
    breaks(Clause::OwnPromise, "S1", Bounds { crashes: 1, ..NONE }),
    breaks(Clause::Resigned, "S1", Bounds { leaves: 1, start: Start::Solo, ..NONE }),
    breaks(
        Clause::PrimaryVolume,
        "S2",
        Bounds { commits: 1, wipes: 1, crashes: 1, start: Start::Solo, ..NONE },
    ),
    breaks(Clause::NamedIncarnation, "S1", Bounds { crashes: 1, unknown: 1, ..NONE }),
    breaks(Clause::Fence, "S1", NONE),
    breaks(Clause::PromiseOfTerm, "S1", NONE),
    breaks(Clause::PromisePerIncarnation, "S1", Bounds { crashes: 1, late: 1, ..NONE }),
    breaks(Clause::LapseFirst, "S1", NONE),
    breaks(Clause::StandbyVolume, "S2", Bounds { commits: 1, wipes: 1, crashes: 2, ..NONE }),
    breaks(Clause::NoPromiseMeanwhile, "S1", NONE),
    breaks(Clause::NewerVersion, "S1", Bounds { unknown: 1, ..NONE }),
    breaks(Clause::OpenIsUnknown, "S1", Bounds { unknown: 1, ..NONE }),
    breaks(Clause::SyncProven, "S2", Bounds { commits: 1, start: Start::Solo, ..NONE }),
    breaks(Clause::SyncUntilSolo, "S2", Bounds { commits: 1, ..NONE }),
    breaks(Clause::NextTerm, "S1", Bounds { postgres_crashes: 1, late: 1, ..NONE }),
    breaks(Clause::LogUpToEnd, "S2", Bounds { commits: 1, leaves: 1, ..NONE }),
    breaks(Clause::OneIncarnation, "S1", Bounds { crashes: 1, proofs: 1, late: 1, ..NONE }),
    breaks(
        Clause::EvidenceInAsync,
        "S2",
        Bounds { commits: 1, crashes: 1, proofs: 1, start: Start::Solo, ..NONE },
    ),
    breaks(Clause::Quarantine, "S1", Bounds { crashes: 1, ..NONE }),
];

/// The clause of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<Clause> {
    MUTATIONS.iter().map(|m| m.clause).find(|c| format!("{c:?}") == name)
}
