//! Packets are lost: all, some links, one way, now and then.

use super::{ALONE, LAPSES, UNHARMED, either, entry};
use crate::faults::act::Act::{Break, Bursts, Mend, Served, Wait};
use crate::faults::act::Cut;
use crate::faults::act::Side::{Primary, Standby};
use crate::faults::act::Thing::Link;
use crate::faults::kind::{Entry, Expected, Kind};

const HEALED: &str = "healed";
const SERVED: u64 = 40;
/// Each cut may be over before anybody has done anything.
const FLAPS: Expected = either("at most `ttl` + 2 s each time");

/// In the order in which they are run.
pub const ENTRIES: &[Entry] = &[
    entry(
        Kind::Isolation,
        "isolation",
        "the primary's node cut off from everything; a client beside it goes on trying",
        HEALED,
        LAPSES,
        &[Break(Link(Cut::Node(Primary))), Served(SERVED), Wait(5), Mend(Link(Cut::Node(Primary)))],
    ),
    entry(
        Kind::StandbyIsolation,
        "standby-isolation",
        "the standby's node cut off from everything for 15 s",
        HEALED,
        ALONE,
        &[Break(Link(Cut::Node(Standby))), Wait(15), Mend(Link(Cut::Node(Standby)))],
    ),
    entry(
        Kind::CutApi,
        "cut-api",
        "the primary's node cut off from the API server only, for 30 s",
        HEALED,
        UNHARMED,
        &[Break(Link(Cut::Api(Primary))), Wait(30), Mend(Link(Cut::Api(Primary)))],
    ),
    entry(
        Kind::CutPeer,
        "cut-peer",
        "the two nodes cut off from each other only, for 20 s",
        HEALED,
        ALONE,
        &[Break(Link(Cut::Peers)), Wait(20), Mend(Link(Cut::Peers))],
    ),
    entry(
        Kind::CutApiAndPeer,
        "cut-api-and-peer",
        "the primary's node cut off from the standby and the API server; clients still reach it",
        HEALED,
        LAPSES,
        &[Break(Link(Cut::Api(Primary))), Break(Link(Cut::Peers)), Served(SERVED), Wait(5)],
    ),
    entry(
        Kind::CutStandbyApi,
        "cut-standby-api",
        "the standby's node cut off from the API server only, for 30 s",
        HEALED,
        UNHARMED,
        &[Break(Link(Cut::Api(Standby))), Wait(30), Mend(Link(Cut::Api(Standby)))],
    ),
    entry(
        Kind::OneWayToStandby,
        "one-way-to-standby",
        "packets from the primary's node to the standby's dropped, the other way free, for 20 s",
        HEALED,
        ALONE,
        &[Break(Link(Cut::FromToPeer(Primary))), Wait(20), Mend(Link(Cut::FromToPeer(Primary)))],
    ),
    entry(
        Kind::OneWayFromStandby,
        "one-way-from-standby",
        "packets from the standby's node to the primary's dropped, the other way free, for 20 s",
        HEALED,
        ALONE,
        &[Break(Link(Cut::FromToPeer(Standby))), Wait(20), Mend(Link(Cut::FromToPeer(Standby)))],
    ),
    entry(
        Kind::OneWayToApi,
        "one-way-to-api",
        "packets from the primary's node to the API server dropped, the other way free, for 30 s",
        HEALED,
        UNHARMED,
        &[Break(Link(Cut::ToApi(Primary))), Wait(30), Mend(Link(Cut::ToApi(Primary)))],
    ),
    entry(
        Kind::OneWayFromApi,
        "one-way-from-api",
        "packets from the API server to the primary's node dropped, the other way free, for 30 s: a write may land whose \
         answer never comes",
        HEALED,
        UNHARMED,
        &[Break(Link(Cut::FromApi(Primary))), Wait(30), Mend(Link(Cut::FromApi(Primary)))],
    ),
    entry(
        Kind::FlappingLink,
        "flapping-link",
        "the link between the two nodes cut for 2 s and whole for 2 s, for a minute",
        HEALED,
        FLAPS,
        &[Bursts { thing: Link(Cut::Peers), times: 15, off_ms: 2000, on_ms: 2000 }],
    ),
    entry(
        Kind::FlappingNode,
        "flapping-node",
        "the primary's node cut off from everything for 4 s and whole for 2 s, for a minute",
        HEALED,
        FLAPS,
        &[Bursts { thing: Link(Cut::Node(Primary)), times: 10, off_ms: 4000, on_ms: 2000 }],
    ),
];
