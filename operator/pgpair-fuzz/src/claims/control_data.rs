//! What `pg_controldata` prints.

use std::fmt::Write as _;

use pgpair_agent::postgres::control_file::{ClusterState, ControlData};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;

use super::text;

pub const WORDS: &[&str] = &[
    "Database cluster state:               in production\n",
    "Minimum recovery ending location:     0/0\n",
    "Bytes per WAL segment:                16777216\n",
    "WAL block size:                       8192\n",
    "max_connections setting:              100\n",
    "4294967296",
    ":",
    "0/0",
    "shut down in recovery",
];

/// What is understood says the same when it is printed again, and nothing in it is too small or too large to reckon with.
pub fn run(data: &[u8]) {
    let Some(Ok(control)) = text(data).map(ControlData::parse) else { return };
    assert!(
        control.page_size.is_power_of_two() && (1 << 10..=1 << 16).contains(&control.page_size),
        "{control:?}"
    );
    assert!(control.newest_timeline() >= control.timeline);
    assert_eq!(ControlData::parse(&printed(&control)).ok(), Some(control));
}

fn printed(c: &ControlData) -> String {
    let state = match c.state {
        ClusterState::ShutDown => "shut down",
        ClusterState::ShutDownInRecovery => "shut down in recovery",
        ClusterState::InProduction => "in production",
        ClusterState::InArchiveRecovery => "in archive recovery",
        ClusterState::Other => "in crash recovery",
    };
    let (min_timeline, min) = c.min_recovery.unwrap_or((TimelineId(0), Lsn(0)));
    let mut out = String::new();
    let mut line = |label: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{label}: {value}");
    };
    line("Database system identifier", &c.system_identifier);
    line("Database cluster state", &state);
    line("Latest checkpoint location", &c.checkpoint);
    line("Latest checkpoint's REDO location", &c.redo);
    line("Latest checkpoint's TimeLineID", &c.timeline);
    line("Minimum recovery ending location", &min);
    line("Min recovery ending loc's timeline", &min_timeline);
    line("max_connections setting", &c.floors.connections);
    line("max_worker_processes setting", &c.floors.worker_processes);
    line("max_wal_senders setting", &c.floors.wal_senders);
    line("max_prepared_xacts setting", &c.floors.prepared_transactions);
    line("max_locks_per_xact setting", &c.floors.locks_per_transaction);
    line("WAL block size", &c.page_size);
    line("Bytes per WAL segment", &c.segment_size.bytes());
    out
}
