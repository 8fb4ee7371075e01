//! Every kind of fault, and what is known of it before it is made.

use crate::faults::act::Act;
use crate::faults::catalog;

/// A kind of fault. What it does is in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each has its sentence in the catalog, which is printed and compared")]
pub enum Kind {
    // Processes.
    PostmasterKill,
    PostmasterStop,
    BackendKill,
    AgentKill,
    AgentStop,
    ContainerKill,
    BothContainersKill,
    StandbyPostmasterKill,
    StandbyAgentStop,
    StandbyWalreceiverStop,
    Switchover,
    // Pods and nodes.
    PodFreeze,
    StandbyPodFreeze,
    PodDelete,
    PodDeleteForce,
    PodDeleteForceCut,
    StandbyPodDelete,
    BothPodsDelete,
    NodeLoss,
    StandbyNodeLoss,
    BothNodesPrimaryFirst,
    BothNodesStandbyFirst,
    BothNodesApiDown,
    StandbyThenPrimary,
    // Network.
    Isolation,
    StandbyIsolation,
    CutApi,
    CutPeer,
    CutApiAndPeer,
    CutStandbyApi,
    OneWayToStandby,
    OneWayFromStandby,
    OneWayToApi,
    OneWayFromApi,
    FlappingLink,
    FlappingNode,
    // Control plane.
    ApiDown,
    ApiDownPrimaryKill,
    ApiDownStandbyLoss,
    ApiSlow,
    ApiRestartInFailover,
    EtcdRestart,
    OperatorDown,
    // Disks and clocks.
    DataFull,
    ArchiveFull,
    StandbyDataFull,
    StandbyArchiveFull,
    DataHang,
    ArchiveHang,
    ArchiveHangPaired,
    ArchiveHangSolo,
    StandbyDataHang,
    StandbyDataHangIdle,
    DataSlow,
    DataLoss,
    ClockForward,
    ClockBack,
    StandbyClockForward,
    StandbyClockBack,
}

/// Who is to be primary afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// The standby takes over.
    Standby,
    /// Nobody: the primary stays primary.
    Nobody,
    /// Either, by who is quicker.
    Either,
}

impl Successor {
    /// Whether it was to be expected that the other instance is primary now, or that it is not.
    #[must_use]
    pub fn fits(self, changed: bool) -> bool {
        match self {
            Successor::Standby => changed,
            Successor::Nobody => !changed,
            Successor::Either => true,
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Successor::Standby => "the standby",
            Successor::Nobody => "nobody",
            Successor::Either => "either",
        }
    }
}

/// What the rules give (docs/authority.md), with `ttl` 5 s. Nobody is ever needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Who takes over.
    pub successor: Successor,
    /// How long clients wait. Told, not asserted: the machine has its share in it.
    pub gap: &'static str,
    /// Whether every container, and the postmaster of the primary, must live through it.
    pub undisturbed: bool,
}

/// One kind with all that is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which.
    pub kind: Kind,
    /// For programs: in files and on the command line.
    pub name: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    /// How it ends, for people.
    pub undone: &'static str,
    /// What is expected.
    pub expected: Expected,
    /// Step by step. What it leaves broken is mended at its end, the last first.
    pub script: &'static [Act],
}

impl Kind {
    /// Every kind with its entry, in the order in which they are run.
    pub fn all() -> impl Iterator<Item = &'static Entry> {
        catalog::GROUPS.iter().flat_map(|group| group.iter())
    }

    /// The kind named so on a command line.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Entry> {
        Kind::all().find(|entry| entry.name == name)
    }

    /// All that is known of it; `None` would be a kind that the catalog forgot.
    #[must_use]
    pub fn entry(self) -> Option<&'static Entry> {
        Kind::all().find(|entry| entry.kind == self)
    }

    /// Whether nothing but its promise stops the old primary. Nobody beside it is able to hand over, and no proof of its death comes
    /// before the promise has lapsed. Then it is dead before `ttl` is over, counted from the last heartbeat that was answered
    /// (docs/authority.md, *fence*): what it acknowledges later, its successor may have been free to contradict.
    #[must_use]
    pub fn is_stopped_by_its_promise(self) -> bool {
        use Kind::{AgentStop, CutApiAndPeer, Isolation, NodeLoss, PodDeleteForceCut, PodFreeze};
        matches!(self, AgentStop | PodFreeze | PodDeleteForceCut | NodeLoss | Isolation | CutApiAndPeer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::faults::act::{Act, Thing};

    #[test]
    fn names_and_kinds_are_unique_and_there_are_more_than_thirty() {
        let names: BTreeSet<&str> = Kind::all().map(|e| e.name).collect();
        let kinds: BTreeSet<Kind> = Kind::all().map(|e| e.kind).collect();
        assert_eq!(names.len(), Kind::all().count());
        assert_eq!(kinds.len(), names.len());
        assert!(kinds.len() >= 30, "{}", kinds.len());
        // The last one of the enum: one that is added behind it without an entry is found here.
        assert_eq!(kinds.len(), Kind::StandbyClockBack as usize + 1);
    }

    #[test]
    fn every_fault_does_something_and_says_how_it_ends() {
        for entry in Kind::all() {
            let does = |act: &Act| matches!(act, Act::Break(_) | Act::Strike(_) | Act::Bursts { .. });
            assert!(entry.script.iter().any(does), "{} does nothing", entry.name);
            assert!(!entry.what.is_empty() && !entry.undone.is_empty(), "{}", entry.name);
        }
    }

    #[test]
    fn who_is_stopped_by_its_promise_is_followed_by_the_standby() {
        let stopped = || Kind::all().filter(|entry| entry.kind.is_stopped_by_its_promise());
        assert_eq!(stopped().count(), 6);
        for entry in stopped() {
            assert_eq!(entry.expected.successor, Successor::Standby, "{}", entry.name);
            assert!(entry.script.first().is_some_and(|act| !act.waits()), "{}", entry.name);
        }
    }

    #[test]
    fn where_nothing_may_be_disturbed_nobody_takes_over() {
        let undisturbed = || Kind::all().filter(|entry| entry.expected.undisturbed);
        assert_eq!(undisturbed().count(), 2);
        for entry in undisturbed() {
            assert_eq!(entry.expected.successor, Successor::Nobody, "{}", entry.name);
        }
    }

    #[test]
    fn nothing_is_mended_that_is_not_broken() {
        for entry in Kind::all() {
            let mut broken: Vec<Thing> = Vec::new();
            for act in entry.script {
                match act {
                    Act::Break(thing) => broken.push(*thing),
                    Act::Mend(thing) => {
                        let at = broken.iter().position(|b| b == thing);
                        broken.remove(at.unwrap_or_else(|| panic!("{}: {thing:?}", entry.name)));
                    }
                    _ => {}
                }
            }
        }
    }
}
