//! The claims can fail: for each clause of the rules, and each part of the world, that is taken away, one that breaks.
//! Some clauses are there twice, in two rules; then both are taken away.

use std::path::PathBuf;

use pgpair_core::authority::clause::Clause;
use pgpair_core::ids::InstanceId::{A, B};

use crate::action::{Action, Ordered};
use crate::bounds::{Bounds, Part, Start};
use crate::pair::Pair;
use crate::runs::{Found, Run};
use crate::trouble::{IN_SOLO, SINGLE, WITHOUT_API, endure};
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

const fn without(claim: &'static str, part: Part, bounds: Bounds) -> Mutation {
    breaks(claim, &[], Bounds { without: Some(part), ..bounds })
}

/// All of them. The names V1 to V10 are those of the traces that shaped the rules.
pub const MUTATIONS: [Mutation; 36] = [
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
    // A resignation to an earlier process of b arrives late, while b's promise to the successor of its sender is open.
    Mutation {
        before: &[
            Action::PostgresCrash(A),
            Action::Arrives(B, Kind::CanTake),
            Action::ReadDone(B),
            Action::Arrives(A, Kind::CanTakeReply),
            Action::Delayed(B, Kind::Resign),
            Action::Crash(A),
            Action::Start(A),
        ],
        ..breaks("S1", &[Clause::ResignedToMe], Bounds { crashes: 2, postgres_crashes: 1, late: 1, ..PAIRED })
    },
    breaks("S1", &[Clause::Resigned], Bounds { leaves: 1, ..ALONE }),
    // V6: the write of an earlier process pairs, while its successor writes by an older record.
    breaks("S1", &[Clause::NamedIncarnation], Bounds { crashes: 1, refusals: true, ..ALONE }),
    // V9
    breaks("S2", &[Clause::PrimaryVolume], Bounds { crashes: 1, wipes: 1, ..ALONE_WITH_COMMIT }),
    breaks("S4", &[Clause::PrimaryVolume], Bounds { crashes: 1, wipes: 1, commits: 2, ..ALONE }),
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
    // Rule 2.
    breaks("S3", &[Clause::NextTerm], PAIRED),
    breaks("S1", &[Clause::WonFirst, Clause::OpenIsUnknown], PAIRED),
    breaks("S1", &[Clause::SilentTakeover, Clause::OwnPromise], PAIRED),
    // V2
    breaks("S1", &[Clause::TakeBackTerm], Bounds { postgres_crashes: 1, ..PAIRED }),
    Mutation {
        before: &[
            Action::Crash(A),
            Action::Clock(A),
            Action::Clock(A),
            Action::Clock(B),
            Action::Clock(B),
            Action::ReadDone(B),
            Action::Written(B, 0),
            Action::Works(B),
            Action::Look(B),
            Action::Works(B),
            Action::Commit(B),
            Action::Crash(B),
            Action::Start(A),
            Action::Start(B),
        ],
        ..breaks(
            "S2",
            &[Clause::StoredFirst, Clause::SoloStored],
            Bounds { crashes: 2, commits: 1, slow_node: true, ..PAIRED },
        )
    },
    // A person says that a process is dead; its successor is not.
    Mutation {
        before: &[
            Action::Crash(A),
            Action::Clock(A),
            Action::Clock(A),
            Action::Clock(B),
            Action::Clock(B),
            Action::Order(B, Ordered::Promote),
            Action::Start(A),
            Action::ReadDone(A),
        ],
        ..breaks("S1", &[Clause::NamedDead], Bounds { crashes: 1, orders: 1, ..ALONE })
    },
    // Commits did not wait in between, and what a look showed before is still believed.
    Mutation {
        before: &[
            Action::Clock(A),
            Action::ReadDone(A),
            Action::Written(A, 0),
            Action::Stored(A),
            Action::Works(A),
            Action::Commit(A),
            Action::Clock(A),
            Action::Answers(B, Kind::Heartbeat),
            Action::Stored(A),
            Action::Written(A, 0),
        ],
        ..breaks("S2", &[Clause::ProofOfThisWish], Bounds { slow_node: true, ..WITH_COMMIT })
    },
    breaks("P", &[Clause::HasReplayed], Bounds { crashes: 1, progress_of: 1, ..WITH_COMMIT }),
    breaks("S5", &[Clause::OwnRecord], Bounds { foreign: 1, ..ALONE }),
    // What b lacks was acknowledged while the disk of a still said `Paired`.
    Mutation {
        before: &[
            Action::Clock(A),
            Action::ReadDone(A),
            Action::Written(A, 0),
            Action::Works(A),
            Action::Commit(A),
            Action::Crash(A),
            Action::Crash(B),
            Action::Restored,
            Action::Start(B),
        ],
        ..breaks(
            "A1",
            &[Clause::SoloStored],
            Bounds { crashes: 2, restores: 1, commits: 1, slow_node: true, ..PAIRED },
        )
    },
    // a gives its term up in `Solo`, and its disk still says that nobody else can have it.
    Mutation {
        before: &[
            Action::Clock(A),
            Action::ReadDone(A),
            Action::Written(A, 0),
            Action::Stored(A),
            Action::Leave(A),
        ],
        ..breaks("A2", &[Clause::SharedStored], Bounds { leaves: 1, slow_node: true, ..WITH_COMMIT })
    },
    without("S4", Part::Rewind, Bounds { commits: 2, ..PAIRED }),
    without("S1", Part::Deadman, Bounds { stalls: true, ..PAIRED }),
    without("S1", Part::Clocks, PAIRED),
    without("S2", Part::Replay, Bounds { slow_replay: true, ..WITH_COMMIT }),
    without("S7", Part::Sight, Bounds { stuck: 1, ..PAIRED }),
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
        ..without("S1", Part::CompareAndSet, Bounds { unknown: 1, ..PAIRED })
    },
    // A commit of a that b never got lies on the timeline that b goes on writing.
    Mutation {
        before: &[
            Action::Clock(A),
            Action::Commit(A),
            Action::Clock(A),
            Action::Clock(B),
            Action::Clock(B),
            Action::ReadDone(B),
            Action::Written(B, 0),
        ],
        ..without("S6", Part::Settle, Bounds { promotions: 1, postgres_crashes: 1, commits: 2, ..PAIRED })
    },
];

/// A clause that only keeps a pair serving: without it one fault stops it for good.
#[derive(Debug, Clone, Copy)]
pub struct Stuck {
    /// Taken away.
    pub clauses: &'static [Clause],
    /// A part that does not work.
    pub part: Option<Part>,
    /// By its name in [`crate::trouble`].
    pub trouble: &'static str,
}

/// All of them; L1 to L6 are those of the traces that shaped the rules. L3 is the other half of L5: who asks first resigns
/// to nobody that cannot take it.
pub const STUCK: [Stuck; 11] = [
    stops("nothing comes in at a", &[Clause::WayBack]),   // L1
    stops("nothing comes in at a", &[Clause::FreshRead]), // L2
    stops(IN_SOLO.name, &[Clause::ResignInSolo]),         // L4
    stops("the API server is away; the postmaster of a dies", &[Clause::AskFirst]), // L5
    stops("the API server is away; both restart", &[Clause::AnswersByDisk]), // L6
    stops("the walreceiver of b stands still", &[Clause::Stalls]),
    stops("postgres of b dies and does not start", &[Clause::Streams]),
    // Clients that write let a stall be seen, too.
    stops("b is lost", &[Clause::GoesSolo, Clause::Stalls]),
    stops("the disk of a hangs, and a kill ends nothing", &[Clause::SilentWedge]),
    stops("a is to stop, and a kill ends nothing", &[Clause::SilentWedge]),
    Stuck {
        part: Some(Part::Sight),
        ..stops("the worker of b is stuck, and then the postmaster of a dies", &[])
    },
];

const fn stops(trouble: &'static str, clauses: &'static [Clause]) -> Stuck {
    Stuck { clauses, part: None, trouble }
}

impl Stuck {
    /// What becomes of the pair with and without the clause: steps until commits are acknowledged again.
    #[must_use]
    pub fn outcomes(&self) -> (Option<u64>, Option<u64>) {
        let trouble = [IN_SOLO].into_iter().chain(SINGLE).chain(WITHOUT_API).find(|t| t.name == self.trouble);
        let Some(trouble) = trouble else { return (None, None) };
        let bounds = Bounds { grain: 4, ..if trouble.name == IN_SOLO.name { ALONE } else { PAIRED } };
        let calm = Pair::new(bounds, &[]).first;
        let without = Bounds { taken: self.clauses, without: self.part, ..bounds };
        (endure(&calm, &bounds, &trouble).0, endure(&calm, &without, &trouble).0)
    }
}

impl Mutation {
    /// The claim and what is taken away, as the name of a file in `ways/`.
    #[must_use]
    pub fn name(&self) -> String {
        let clauses = self.clauses.iter().map(|c| format!("-{c:?}"));
        let part = self.bounds.without.map(|p| format!("-{p:?}"));
        [self.breaks.to_owned()].into_iter().chain(clauses).chain(part).collect()
    }

    /// What is taken away, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let clauses = self.clauses.iter().map(|c| c.words());
        clauses.chain(self.bounds.without.map(Part::words)).collect::<Vec<_>>().join(" And: ")
    }

    /// What may happen, without what is taken away.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { taken: self.clauses, ..self.bounds }
    }

    /// Where the shortest way is kept, in the clone that cargo runs in: build outputs are shared with others.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
            .join("ways")
            .join(self.name())
            .with_extension("txt")
    }

    /// The shortest way that was found last, one event a line.
    ///
    /// # Errors
    /// If there is none.
    pub fn way(&self) -> std::io::Result<String> {
        std::fs::read_to_string(self.file())
    }

    /// Looks for the shortest way to a state in which the claim does not hold.
    #[must_use]
    pub fn explore(&self, states: usize) -> (Found, Option<String>) {
        let bounds = self.bounds();
        let run = Run { name: "mutation", bounds, before: &[], depth: usize::MAX, unique: None };
        let mut pair = Pair::new(bounds, self.before);
        pair.only = Some(self.breaks);
        let found = run.explore_from(pair, states, 1);
        let way = found.broken.first().map(|(_, path)| {
            let path = path.clone().into_vec();
            let found = path.iter().filter_map(|(_, action)| *action);
            self.before.iter().copied().chain(found).map(|action| format!("{action}\n")).collect()
        });
        (found, way)
    }
}
