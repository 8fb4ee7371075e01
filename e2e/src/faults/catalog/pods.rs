//! Pods are frozen or deleted, nodes lose power.

use super::{ALONE, LAPSES, RACE, SHUT_DOWN, WAITS, entry, nobody};
use crate::faults::act::Act::{Break, Mend, Served, Solo, Strike, Wait};
use crate::faults::act::Side::{Primary, Standby};
use crate::faults::act::{Blow, Cut, Thing};
use crate::faults::kind::{Entry, Expected, Kind};

const SERVED: u64 = 40;
const NEXT_POD: &str = "the StatefulSet makes the next pod";
const POWER_BACK: &str = "power back, disks kept";
/// A pod that is told to stop says so first.
const SAID: Expected =
    nobody("none: a standby that is told to stop says so; in `SyncStrict` until it is back");

/// In the order in which they are run.
pub const ENTRIES: &[Entry] = &[
    entry(
        Kind::PodFreeze,
        "pod-freeze",
        "every process of the primary's pod stopped at once for 30 s, PID 1 and witness too",
        "thawed",
        LAPSES,
        &[Break(Thing::Pod(Primary)), Wait(30), Mend(Thing::Pod(Primary))],
    ),
    entry(
        Kind::StandbyPodFreeze,
        "standby-pod-freeze",
        "every process of the standby's pod stopped at once for 30 s",
        "thawed",
        ALONE,
        &[Break(Thing::Pod(Standby)), Wait(30), Mend(Thing::Pod(Standby))],
    ),
    entry(
        Kind::PodDelete,
        "pod-delete",
        "the primary's pod deleted, as a drain does it",
        NEXT_POD,
        SHUT_DOWN,
        &[Strike(Blow::Delete(Primary)), Served(SERVED)],
    ),
    entry(
        Kind::PodDeleteForce,
        "pod-delete-force",
        "the primary's pod deleted with `--force --grace-period=0`",
        NEXT_POD,
        RACE,
        &[Strike(Blow::DeleteForce(Primary)), Served(SERVED)],
    ),
    entry(
        Kind::PodDeleteForceCut,
        "pod-delete-force-cut",
        "the primary's node cut off from everything, then its pod deleted with `--force`: it runs on, unknown",
        "the cut healed after 10 s of service by the other",
        LAPSES,
        &[
            Break(Thing::Link(Cut::Node(Primary))),
            Strike(Blow::DeleteForce(Primary)),
            Served(SERVED),
            Wait(10),
            Mend(Thing::Link(Cut::Node(Primary))),
        ],
    ),
    entry(
        Kind::StandbyPodDelete,
        "standby-pod-delete",
        "the standby's pod deleted",
        NEXT_POD,
        SAID,
        &[Strike(Blow::Delete(Standby)), Wait(10)],
    ),
    entry(
        Kind::BothPodsDelete,
        "both-pods-delete",
        "both pods deleted at once with `--force --grace-period=0`",
        NEXT_POD,
        RACE,
        &[Strike(Blow::DeleteBoth), Served(60)],
    ),
    entry(
        Kind::NodeLoss,
        "node-loss",
        "the primary's node loses power",
        POWER_BACK,
        LAPSES,
        &[Break(Thing::Power(Primary)), Served(SERVED), Wait(5), Mend(Thing::Power(Primary))],
    ),
    entry(
        Kind::StandbyNodeLoss,
        "standby-node-loss",
        "the standby's node loses power for 15 s",
        POWER_BACK,
        ALONE,
        &[Break(Thing::Power(Standby)), Wait(15), Mend(Thing::Power(Standby))],
    ),
    entry(
        Kind::BothNodesPrimaryFirst,
        "both-nodes-primary-first",
        "both nodes lose power at once; the primary's comes back 20 s before the standby's",
        POWER_BACK,
        RACE,
        &[
            Break(Thing::Power(Primary)),
            Break(Thing::Power(Standby)),
            Wait(5),
            Mend(Thing::Power(Primary)),
            Wait(20),
            Mend(Thing::Power(Standby)),
        ],
    ),
    entry(
        Kind::BothNodesStandbyFirst,
        "both-nodes-standby-first",
        "both nodes lose power at once; the standby's comes back 20 s before the primary's",
        POWER_BACK,
        RACE,
        &[
            Break(Thing::Power(Primary)),
            Break(Thing::Power(Standby)),
            Wait(5),
            Mend(Thing::Power(Standby)),
            Wait(20),
            Mend(Thing::Power(Primary)),
        ],
    ),
    entry(
        Kind::BothNodesApiDown,
        "both-nodes-api-down",
        "the API server is away; both nodes lose power and come back; the API server comes back 20 s later",
        POWER_BACK,
        RACE,
        &[
            Break(Thing::ApiServer),
            Break(Thing::Power(Primary)),
            Break(Thing::Power(Standby)),
            Wait(5),
            Mend(Thing::Power(Primary)),
            Mend(Thing::Power(Standby)),
            Wait(20),
            Mend(Thing::ApiServer),
        ],
    ),
    entry(
        Kind::StandbyThenPrimary,
        "standby-then-primary",
        "the standby's node loses power; once the record says `Solo`, the primary's too, for 10 s",
        "power back, the primary's first",
        WAITS,
        &[
            Break(Thing::Power(Standby)),
            Solo(30),
            Break(Thing::Power(Primary)),
            Wait(10),
            Mend(Thing::Power(Primary)),
            Wait(15),
            Mend(Thing::Power(Standby)),
        ],
    ),
];
