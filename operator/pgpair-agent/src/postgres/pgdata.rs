//! What lies on the data volume while postgres is stopped.

use std::fs;
use std::io;

use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{HistoryError, TimelineHistory, TimelineId};
use serde::{Deserialize, Serialize};

use crate::fence::clock;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::tablespaces;
use crate::postgres::tool::ToolError;

/// A data directory that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum PgDataError {
    /// A file of it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program of PostgreSQL.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// `pg_controldata` printed something else than expected.
    #[error("pg_controldata printed no usable {field:?}: {text:?}")]
    ControlData {
        /// Its label.
        field: &'static str,
        /// What stood there.
        text: String,
    },
    /// A history file.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The log from the last checkpoint on cannot be read.
    #[error("no valid WAL at the last checkpoint {checkpoint} of timeline {timeline}: {output}")]
    NoWal {
        /// Timeline that was read.
        timeline: TimelineId,
        /// Where.
        checkpoint: Lsn,
        /// What `pg_waldump` said.
        output: String,
    },
}

/// Identity of a complete data directory: content of `volume.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Random id given at initdb or seeding.
    pub volume_id: VolumeId,
    /// Of the cluster.
    pub system_identifier: SystemIdentifier,
}

/// What is on the data volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDir {
    /// No data directory.
    Empty,
    /// One whose initdb, seeding or rewind did not finish.
    Unfinished,
    /// A complete one.
    Ready(Volume),
}

/// Looks at the data volume.
///
/// # Errors
/// It cannot be read.
pub fn inspect(layout: &Layout) -> Result<DataDir, FileError> {
    let pgdata = layout.pgdata();
    let populated = match fs::read_dir(&pgdata) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e).at("read", &pgdata),
    };
    if !populated {
        return Ok(DataDir::Empty);
    }
    if layout.rewinding().exists() {
        return Ok(DataDir::Unfinished);
    }
    Ok(fsx::read_json(&layout.volume_json())?.map_or(DataDir::Unfinished, DataDir::Ready))
}

/// Moves PGDATA, its tablespaces and its identity to `moved-aside/TIME`; nothing is deleted. Does nothing without PGDATA.
///
/// # Errors
/// PGDATA has no identity any more, but is where it was unless it was the last sync that failed.
pub fn move_aside(layout: &Layout) -> Result<(), FileError> {
    // First of all the old identity goes, so that no state in between looks complete.
    let volume = fs::read(layout.volume_json()).ok();
    fsx::remove(&layout.volume_json())?;
    fsx::sync_dir(&layout.data)?;
    fsx::remove(&layout.rewinding())?;
    let pgdata = layout.pgdata();
    match fs::remove_dir(&pgdata) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Not empty, so worth keeping.
        Err(_) => {}
    }
    let now = clock::unix_ms() / 1000;
    let to = layout.moved_aside().join(now.to_string());
    fsx::create_dir(&to, 0o700)?;
    if let Some(bytes) = volume {
        fsx::write(&to.join("volume.json"), &bytes, 0o600)?;
    }
    tablespaces::move_aside(layout, &to)?;
    fs::rename(&pgdata, to.join("pgdata")).at("move aside", &pgdata)?;
    fsx::sync_dir(&to)?;
    fsx::sync_dir(&layout.data)?;
    Ok(())
}

/// The history of a timeline, from `pg_wal` or our archive; timeline 1 has none to read. `None` if the file is nowhere.
///
/// # Errors
/// A file exists and cannot be read or understood.
pub fn history(
    layout: &Layout,
    system: SystemIdentifier,
    timeline: TimelineId,
) -> Result<Option<TimelineHistory>, PgDataError> {
    if timeline == TimelineId(1) {
        return Ok(Some(TimelineHistory::first()));
    }
    let name = history_name(timeline);
    for dir in [layout.pg_wal(), layout.wal_archive(system)] {
        let path = dir.join(&name);
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(TimelineHistory::parse(timeline, &text)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(FileError { action: "read", path, source: e }.into()),
        }
    }
    Ok(None)
}

/// Name of the history file of a timeline.
#[must_use]
pub fn history_name(timeline: TimelineId) -> String {
    format!("{:08X}.history", timeline.0)
}
