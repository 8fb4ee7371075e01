//! Processes die, or stop.

use super::{ALONE, HANDED_OVER, HANGS, LAPSES, RACE, entry};
use crate::faults::act::Act::{Break, Mend, Served, Strike, Wait};
use crate::faults::act::Side::{Primary, Standby};
use crate::faults::act::{Blow, Thing};
use crate::faults::kind::{Entry, Kind};

/// Longest wait for a client to be served again.
const SERVED: u64 = 40;
const RESTARTED: &str = "its agent starts it again";

/// In the order in which they are run.
pub const ENTRIES: &[Entry] = &[
    entry(
        Kind::PostmasterKill,
        "postmaster-kill",
        "SIGKILL of the primary's postmaster",
        RESTARTED,
        HANDED_OVER,
        &[Strike(Blow::Postmaster(Primary)), Served(SERVED)],
    ),
    entry(
        Kind::PostmasterStop,
        "postmaster-stop",
        "SIGSTOP of the primary's postmaster; its backends go on",
        "SIGCONT, if it is still there",
        HANGS,
        &[Break(Thing::Postmaster(Primary)), Served(60)],
    ),
    entry(
        Kind::BackendKill,
        "backend-kill",
        "SIGKILL of a backend of the primary in its commit: postgres ends all others too",
        RESTARTED,
        HANDED_OVER,
        &[Strike(Blow::Backend), Served(SERVED)],
    ),
    entry(
        Kind::AgentKill,
        "agent-kill",
        "SIGKILL of the primary's agent: its init process (PID 1) kills postgres and ends",
        "the kubelet starts the container again",
        HANDED_OVER,
        &[Strike(Blow::Agent(Primary)), Served(SERVED)],
    ),
    entry(
        Kind::AgentStop,
        "agent-stop",
        "SIGSTOP of the primary's agent for 30 s: the deadman in PID 1 kills postgres at the fence",
        "SIGCONT",
        LAPSES,
        &[Break(Thing::Agent(Primary)), Wait(30), Mend(Thing::Agent(Primary))],
    ),
    entry(
        Kind::ContainerKill,
        "container-kill",
        "SIGKILL of PID 1 of the primary's container, as when memory runs out",
        "the kubelet starts it again",
        HANDED_OVER,
        &[Strike(Blow::Container(Primary)), Served(SERVED)],
    ),
    entry(
        Kind::BothContainersKill,
        "both-containers-kill",
        "SIGKILL of both containers at once",
        "the kubelets start them again",
        RACE,
        &[Strike(Blow::Containers), Served(60)],
    ),
    entry(
        Kind::StandbyPostmasterKill,
        "standby-postmaster-kill",
        "SIGKILL of the standby's postmaster",
        RESTARTED,
        ALONE,
        &[Strike(Blow::Postmaster(Standby)), Wait(10)],
    ),
    entry(
        Kind::StandbyAgentStop,
        "standby-agent-stop",
        "SIGSTOP of the standby's agent for 30 s: no heartbeat is answered",
        "SIGCONT",
        ALONE,
        &[Break(Thing::Agent(Standby)), Wait(30), Mend(Thing::Agent(Standby))],
    ),
    entry(
        Kind::StandbyWalreceiverStop,
        "standby-walreceiver-stop",
        "SIGSTOP of the standby's walreceiver for 15 s: its agent answers, its log stands still",
        "SIGCONT",
        ALONE,
        &[Break(Thing::Walreceiver), Wait(15), Mend(Thing::Walreceiver)],
    ),
    entry(
        Kind::Switchover,
        "switchover",
        "no fault: a person orders the change of primary",
        "nothing to undo",
        HANDED_OVER,
        &[Strike(Blow::Switchover), Served(SERVED)],
    ),
];
