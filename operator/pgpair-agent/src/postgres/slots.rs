//! Logical replication slots: those that lie in a data directory, and those that a running postgres has.
//!
//! Since PostgreSQL 17 a standby copies the slots of its primary that were made with `failover = true` (PostgreSQL, Replication Slot
//! Synchronization). What switches that on is in [`crate::postgres::render::decoding`].

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use crate::instance::fsx::{Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::sql::{Sql, SqlError, within};

const LIMIT: Duration = Duration::from_secs(5);
/// A promotion waits for this.
const END: Duration = Duration::from_millis(500);
/// Where a slot's `state` has the database that it decodes, 0 for a physical one: behind magic, checksum, version, length and a name
/// of 64 bytes, in all versions (`ReplicationSlotOnDisk`, `slot.c`).
const DATABASE: std::ops::Range<usize> = 80..84;

const LOGICAL: &str = "SELECT slot_name::text FROM pg_replication_slots \
                       WHERE slot_type = 'logical' AND NOT temporary ORDER BY 1";
/// The column `synced` is new in PostgreSQL 17.
const LASTING: &str = "SELECT slot_name::text FROM pg_replication_slots s \
                       WHERE slot_type = 'logical' AND NOT temporary AND wal_status IS DISTINCT FROM 'lost' \
                         AND (NOT pg_is_in_recovery() OR COALESCE((to_jsonb(s) ->> 'synced')::boolean, false)) \
                       ORDER BY 1";
const END_COPYING: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'slotsync worker'";

/// Directories of the logical slots of a stopped or running postgres.
///
/// # Errors
/// The directory of slots cannot be read.
pub fn list_logical(layout: &Layout) -> Result<Vec<PathBuf>, FileError> {
    let slots = layout.in_pgdata("pg_replslot");
    let entries = match fs::read_dir(&slots) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("read", &slots),
    };
    // One that vanishes meanwhile was dropped.
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| fs::read(path.join("state")).is_ok_and(|bytes| is_logical(&bytes))).collect())
}

fn is_logical(state: &[u8]) -> bool {
    state.get(DATABASE).is_some_and(|database| database.iter().any(|byte| *byte != 0))
}

/// Removes the logical slots of a directory that was a primary's. As a standby's they would keep WAL that nobody asks for, and keep
/// the standby from copying the slots of the same names of its new primary.
///
/// # Errors
/// One cannot be removed.
pub fn remove_logical(layout: &Layout) -> Result<(), FileError> {
    for dir in list_logical(layout)? {
        tracing::info!(slot = %dir.display(), "a logical slot of the former primary is removed: that of the new primary counts");
        fs::remove_dir_all(&dir).at("remove the stale slot", &dir)?;
    }
    Ok(())
}

/// Names of the logical slots of a running postgres.
///
/// # Errors
/// Postgres refused.
pub async fn fetch_logical(sql: &Sql) -> Result<Vec<String>, SqlError> {
    names(sql, LOGICAL).await
}

/// Names of the logical slots that can still be used: of a primary, or those of which a standby has a copy that a promotion keeps.
///
/// # Errors
/// Postgres refused.
pub async fn fetch_lasting(sql: &Sql) -> Result<Vec<String>, SqlError> {
    names(sql, LASTING).await
}

/// Ends the process that copies slots. A promotion waits for it, and it waits for a primary that may never answer.
///
/// # Errors
/// Postgres refused.
pub async fn end_copying(sql: &Sql) -> Result<(), SqlError> {
    sql.batch_alone("end the copying of slots", END_COPYING, END).await
}

async fn names(sql: &Sql, text: &str) -> Result<Vec<String>, SqlError> {
    const ACTION: &str = "ask for the logical slots";
    let client = sql.session(None).await?;
    let rows = within(ACTION, LIMIT, client.query(text, &[])).await?;
    let name = |row: &tokio_postgres::Row| row.try_get(0);
    rows.iter()
        .map(name)
        .collect::<Result<_, _>>()
        .map_err(|source| SqlError::Postgres { action: ACTION, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_logical_if_it_belongs_to_a_database() {
        let mut state = vec![7; 200];
        state[DATABASE].fill(0);
        assert!(!is_logical(&state));
        state[81] = 1;
        assert!(is_logical(&state));
        assert!(!is_logical(&state[..82]), "cut off");
    }
}
