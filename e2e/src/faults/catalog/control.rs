//! The API server, etcd and the operator are away or slow.

use super::{HANDED_OVER, UNHARMED, either, entry, nobody};
use crate::faults::act::Act::{Break, Bursts, Mend, Served, Strike, Wait};
use crate::faults::act::Side::{Primary, Standby};
use crate::faults::act::{Blow, Thing};
use crate::faults::kind::{Entry, Expected, Kind};

const BACK: &str = "started again";
/// The record cannot be changed: the primary may start again on a promise, the standby cannot win.
const ON_A_PROMISE: Expected = either("the restart on a promise, or until the API server is back");
/// The primary cannot write `Solo`, so it stops.
const FENCED: Expected = nobody("until the API server or the standby is back");

/// In the order in which they are run.
pub const ENTRIES: &[Entry] = &[
    entry(
        Kind::ApiDown,
        "api-down",
        "the API server away for two minutes",
        BACK,
        UNHARMED,
        &[Break(Thing::ApiServer), Wait(120), Mend(Thing::ApiServer)],
    ),
    entry(
        Kind::ApiDownPrimaryKill,
        "api-down-primary-kill",
        "the API server away, then SIGKILL of the primary's postmaster; the API server back after 20 s",
        BACK,
        ON_A_PROMISE,
        &[
            Break(Thing::ApiServer),
            Wait(3),
            Strike(Blow::Postmaster(Primary)),
            Wait(20),
            Mend(Thing::ApiServer),
            Served(60),
        ],
    ),
    entry(
        Kind::ApiDownStandbyLoss,
        "api-down-standby-loss",
        "the API server away, then SIGKILL of the standby's container; the API server back after 20 s",
        BACK,
        FENCED,
        &[
            Break(Thing::ApiServer),
            Wait(3),
            Strike(Blow::Container(Standby)),
            Wait(20),
            Mend(Thing::ApiServer),
        ],
    ),
    entry(
        Kind::ApiSlow,
        "api-slow",
        "the API server stopped for 2 s and running for 1 s, twenty times",
        "SIGCONT",
        UNHARMED,
        &[Bursts { thing: Thing::ApiAnswers, times: 20, off_ms: 2000, on_ms: 1000 }],
    ),
    entry(
        Kind::ApiRestartInFailover,
        "api-restart-in-failover",
        "SIGKILL of the primary's container, and the API server restarted while the standby takes over",
        BACK,
        either("until the API server is back, and 1 s"),
        &[
            Strike(Blow::Container(Primary)),
            Break(Thing::ApiServer),
            Wait(1),
            Mend(Thing::ApiServer),
            Served(60),
        ],
    ),
    entry(
        Kind::EtcdRestart,
        "etcd-restart",
        "etcd away for 5 s under a running API server",
        BACK,
        UNHARMED,
        &[Break(Thing::Etcd), Wait(5), Mend(Thing::Etcd)],
    ),
    entry(
        Kind::OperatorDown,
        "operator-down",
        "no operator; then SIGKILL of the primary's postmaster",
        BACK,
        HANDED_OVER,
        &[
            Break(Thing::Operator),
            Strike(Blow::Postmaster(Primary)),
            Served(40),
            Wait(5),
            Mend(Thing::Operator),
        ],
    ),
];
