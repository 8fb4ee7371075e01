//! Volumes are full, hang, are slow or lost; wall clocks are wrong.

use super::{ALONE, HANDED_OVER, HANGS, UNDISTURBED, UNHARMED, either, entry, nobody};
use crate::faults::act::Act::{Break, Bursts, Mend, Served, Solo, Strike, Wait};
use crate::faults::act::Blow;
use crate::faults::act::Side::{Primary, Standby};
use crate::faults::act::Thing::{Clock, Disk, Postmaster, Room, Writers};
use crate::faults::act::Volume::{Archive, Data};
use crate::faults::kind::{Entry, Expected, Kind};

const ROOM: &str = "room again";
const THAWED: &str = "the file system thawed";
const CLOCK_BACK: &str = "the clock right again";
const HOUR: i32 = 3600;
/// PostgreSQL stops when its log finds no room, and so does a standby that is full too.
const STOPS: Expected = either("1 s and the crash; until there is room when both are full");

/// The standby is not fit, so the primary is started again.
const IDLE: Expected = nobody("as long as nobody writes");

/// In the order in which they are run.
pub const ENTRIES: &[Entry] = &[
    entry(
        Kind::DataFull,
        "data-full",
        "no byte free on the primary's data volume, under a flood of log, for 20 s",
        ROOM,
        STOPS,
        &[Break(Room(Primary, Data)), Strike(Blow::Flood), Served(20), Wait(20), Mend(Room(Primary, Data))],
    ),
    entry(
        Kind::ArchiveFull,
        "archive-full",
        "no byte free on the primary's archive volume, under a flood of log, for 30 s",
        ROOM,
        UNHARMED,
        &[Break(Room(Primary, Archive)), Strike(Blow::Flood), Wait(30), Mend(Room(Primary, Archive))],
    ),
    entry(
        Kind::StandbyDataFull,
        "standby-data-full",
        "no byte free on the standby's data volume, under a flood of log, for 20 s",
        ROOM,
        ALONE,
        &[Break(Room(Standby, Data)), Strike(Blow::Flood), Wait(20), Mend(Room(Standby, Data))],
    ),
    entry(
        Kind::StandbyArchiveFull,
        "standby-archive-full",
        "no byte free on the standby's archive volume, under a flood of log, for 30 s",
        ROOM,
        UNHARMED,
        &[Break(Room(Standby, Archive)), Strike(Blow::Flood), Wait(30), Mend(Room(Standby, Archive))],
    ),
    entry(
        Kind::DataHang,
        "data-hang",
        "whoever writes to the primary's data volume hangs, and not even SIGKILL ends him",
        THAWED,
        HANGS,
        &[Break(Disk(Primary, Data)), Served(60), Wait(5), Mend(Disk(Primary, Data))],
    ),
    entry(
        Kind::ArchiveHang,
        "archive-hang",
        "whoever writes to the primary's archive volume hangs, under a flood of log, for 30 s",
        THAWED,
        UNHARMED,
        &[Break(Disk(Primary, Archive)), Strike(Blow::Flood), Wait(30), Mend(Disk(Primary, Archive))],
    ),
    // Longer than it takes to fence a primary, and than its liveness probe may fail.
    entry(
        Kind::ArchiveHangPaired,
        "archive-hang-paired",
        "whoever writes to the primary's archive volume hangs for 90 s",
        THAWED,
        UNDISTURBED,
        &[Break(Disk(Primary, Archive)), Wait(90), Mend(Disk(Primary, Archive))],
    ),
    entry(
        Kind::ArchiveHangSolo,
        "archive-hang-solo",
        "SIGSTOP of the standby's postmaster, and with the primary alone whoever writes to its archive volume hangs for 90 s",
        "the file system thawed, and SIGCONT",
        Expected { undisturbed: true, ..ALONE },
        &[
            Break(Postmaster(Standby)),
            Solo(40),
            Break(Disk(Primary, Archive)),
            Wait(90),
            Mend(Disk(Primary, Archive)),
            Mend(Postmaster(Standby)),
        ],
    ),
    entry(
        Kind::StandbyDataHang,
        "standby-data-hang",
        "whoever writes to the standby's data volume hangs for 30 s",
        THAWED,
        ALONE,
        &[Break(Disk(Standby, Data)), Wait(30), Mend(Disk(Standby, Data))],
    ),
    // Its walreceiver waits for nothing: only a look at the volume shows that it cannot take over.
    entry(
        Kind::StandbyDataHangIdle,
        "standby-data-hang-idle",
        "nobody writes, whoever would write to the standby's data volume hangs, and 25 s later SIGKILL of the primary's postmaster",
        "the file system thawed, and the writers go on",
        IDLE,
        &[
            Break(Writers),
            Break(Disk(Standby, Data)),
            Wait(25),
            Strike(Blow::Postmaster(Primary)),
            Wait(15),
            Mend(Disk(Standby, Data)),
            Mend(Writers),
        ],
    ),
    entry(
        Kind::DataSlow,
        "data-slow",
        "writes to the primary's data volume hang for 700 ms and pass for 300 ms, thirty times",
        THAWED,
        UNHARMED,
        &[Bursts { thing: Disk(Primary, Data), times: 30, off_ms: 700, on_ms: 300 }],
    ),
    entry(
        Kind::DataLoss,
        "data-loss",
        "the primary's data directory is gone, and its container killed",
        "copied anew by a base-backup Job",
        HANDED_OVER,
        &[Strike(Blow::LoseData), Served(40)],
    ),
    entry(
        Kind::ClockForward,
        "clock-forward",
        "the wall clock of the primary's agent an hour ahead for 30 s",
        CLOCK_BACK,
        UNHARMED,
        &[Break(Clock(Primary, HOUR)), Wait(30), Mend(Clock(Primary, HOUR))],
    ),
    entry(
        Kind::ClockBack,
        "clock-back",
        "the wall clock of the primary's agent an hour behind for 30 s",
        CLOCK_BACK,
        UNHARMED,
        &[Break(Clock(Primary, -HOUR)), Wait(30), Mend(Clock(Primary, -HOUR))],
    ),
    entry(
        Kind::StandbyClockForward,
        "standby-clock-forward",
        "the wall clock of the standby's agent an hour ahead, and 15 s later SIGKILL of the primary's postmaster",
        CLOCK_BACK,
        HANDED_OVER,
        &[
            Break(Clock(Standby, HOUR)),
            Wait(15),
            Strike(Blow::Postmaster(Primary)),
            Served(40),
            Wait(5),
            Mend(Clock(Standby, HOUR)),
        ],
    ),
    entry(
        Kind::StandbyClockBack,
        "standby-clock-back",
        "the wall clock of the standby's agent an hour behind, and 15 s later SIGKILL of the primary's postmaster",
        CLOCK_BACK,
        HANDED_OVER,
        &[
            Break(Clock(Standby, -HOUR)),
            Wait(15),
            Strike(Blow::Postmaster(Primary)),
            Served(40),
            Wait(5),
            Mend(Clock(Standby, -HOUR)),
        ],
    ),
];
