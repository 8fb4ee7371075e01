//! What a data directory says about itself while postgres is stopped.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{HistoryError, TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, WalFile};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fence::clock;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::render::Floors;
use crate::postgres::tool::{self, PgBin, ToolError};

mod records;

/// `pg_controldata` reads one file.
const CONTROL_DATA: Duration = Duration::from_secs(10);
/// Reading all WAL since the last checkpoint.
const DUMP: Duration = Duration::from_secs(120);
/// How far before a known position the search for the end of WAL starts: a few records, and quick to read.
const HINT_MARGIN: u64 = 1024 * 1024;

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

/// `Database cluster state` of the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// A primary that was stopped cleanly.
    ShutDown,
    /// A standby that was stopped cleanly.
    ShutDownInRecovery,
    /// A primary that runs, or was killed.
    InProduction,
    /// A standby that runs, or was killed.
    InArchiveRecovery,
    /// Anything else, such as a crash during crash recovery.
    Other,
}

/// The control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// Of the cluster.
    pub system_identifier: SystemIdentifier,
    /// How it was left.
    pub state: ClusterState,
    /// Position of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Where replay of that checkpoint starts.
    pub redo: Lsn,
    /// Timeline of that checkpoint.
    pub timeline: TimelineId,
    /// Recovery must reach at least this.
    pub min_recovery: Option<(TimelineId, Lsn)>,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Bytes of a WAL page.
    pub page_size: u64,
    /// What a standby of this directory must have at least.
    pub floors: Floors,
}

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The timeline.
    pub timeline: TimelineId,
    /// End of valid WAL on it.
    pub end: Lsn,
}

impl ControlData {
    /// The newest timeline that data pages may come from. After a promotion the checkpoint's timeline is old until the next
    /// checkpoint; the end-of-recovery record has put the new one here.
    #[must_use]
    pub fn newest_timeline(&self) -> TimelineId {
        self.min_recovery.map_or(self.timeline, |(t, _)| t.max(self.timeline))
    }

    /// Stopped cleanly: nothing follows the last checkpoint record.
    #[must_use]
    pub fn is_clean_primary(&self) -> bool {
        self.state == ClusterState::ShutDown
    }

    fn parse(text: &str) -> Result<ControlData, PgDataError> {
        const SEGMENT_SIZE: &str = "Bytes per WAL segment";
        let field = |field: &'static str| {
            let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
            line.map(str::trim).ok_or(PgDataError::ControlData { field, text: String::new() })
        };
        fn parsed<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, PgDataError> {
            text.parse().map_err(|_| PgDataError::ControlData { field, text: text.to_owned() })
        }
        let lsn = |name| field(name).and_then(|t| parsed::<Lsn>(name, t));
        let number = |name| field(name).and_then(|t| parsed::<u64>(name, t));
        let setting = |name| field(name).and_then(|t| parsed::<u32>(name, t));
        let timeline = |name| field(name).and_then(|t| parsed::<u32>(name, t)).map(TimelineId);
        let min_timeline = timeline("Min recovery ending loc's timeline")?;
        let min = lsn("Minimum recovery ending location")?;
        let size = number(SEGMENT_SIZE)?;
        Ok(ControlData {
            system_identifier: SystemIdentifier(number("Database system identifier")?),
            state: match field("Database cluster state")? {
                "shut down" => ClusterState::ShutDown,
                "shut down in recovery" => ClusterState::ShutDownInRecovery,
                "in production" => ClusterState::InProduction,
                "in archive recovery" => ClusterState::InArchiveRecovery,
                _ => ClusterState::Other,
            },
            checkpoint: lsn("Latest checkpoint location")?,
            redo: lsn("Latest checkpoint's REDO location")?,
            timeline: timeline("Latest checkpoint's TimeLineID")?,
            min_recovery: (min != Lsn(0)).then_some((min_timeline, min)),
            segment_size: segment_size(size)
                .ok_or_else(|| PgDataError::ControlData { field: SEGMENT_SIZE, text: size.to_string() })?,
            page_size: number("WAL block size")?,
            floors: Floors {
                connections: setting("max_connections setting")?,
                worker_processes: setting("max_worker_processes setting")?,
                wal_senders: setting("max_wal_senders setting")?,
                prepared_transactions: setting("max_prepared_xacts setting")?,
                locks_per_transaction: setting("max_locks_per_xact setting")?,
            },
        })
    }
}

/// Bytes of a WAL segment, if a segment can have so many: positions are divided by it.
pub(crate) fn segment_size(bytes: u64) -> Option<u64> {
    bytes.is_power_of_two().then_some(bytes)
}

/// Reads the control file of a data directory with `pg_controldata`.
///
/// # Errors
/// There is none, or it is corrupt.
pub async fn control_data(bin: &PgBin, pgdata: &Path) -> Result<ControlData, PgDataError> {
    let mut command = bin.command("pg_controldata");
    let text = tool::run(command.arg("-D").arg(pgdata), CONTROL_DATA).await?;
    ControlData::parse(&text)
}

/// Reads the system identifier only: it is the first field of the control file in every version.
///
/// # Errors
/// There is no control file.
pub fn system_identifier(pgdata: &Path) -> Result<SystemIdentifier, FileError> {
    use io::Read;
    let path = pgdata.join("global/pg_control");
    let mut bytes = [0; 8];
    fs::File::open(&path)
        .and_then(|mut f| f.read_exact(&mut bytes))
        .at("read the system identifier", &path)?;
    Ok(SystemIdentifier(u64::from_ne_bytes(bytes)))
}

/// Whether a primary's control file says that the shutdown checkpoint is written: nothing is written after it. Reads the
/// `state` behind system identifier and two versions, which has that place in all versions (`pg_control.h`).
#[must_use]
pub fn is_shut_down(pgdata: &Path) -> bool {
    use io::Read;
    const SHUT_DOWN: u32 = 1;
    let mut bytes = [0; 20];
    let read = fs::File::open(pgdata.join("global/pg_control")).and_then(|mut f| f.read_exact(&mut bytes));
    read.is_ok() && bytes[16..] == SHUT_DOWN.to_ne_bytes()
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

/// Moves PGDATA and its identity to `moved-aside/TIME`; nothing is deleted. Does nothing without PGDATA.
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

/// The end of valid WAL of a stopped data directory: where a replay of everything in `pg_wal` would come to. Received but not
/// yet replayed WAL counts. `hint` is a flush position seen shortly before the stop; it makes this quick, never wrong.
///
/// # Errors
/// The WAL of the last checkpoint is missing or unreadable.
pub async fn end_of_wal(
    bin: &PgBin,
    layout: &Layout,
    control: &ControlData,
    hint: Option<Lsn>,
) -> Result<Position, PgDataError> {
    let timeline = newest_received(layout, control)?;
    let base = start_on(layout, control, timeline)?;
    let quick = if control.is_clean_primary() { Some(control.checkpoint) } else { near(hint, base) };
    if let Some(start) = quick
        && let Ok(end) = dump(bin, layout, control, timeline, start).await
    {
        return Ok(Position { timeline, end });
    }
    let end = dump(bin, layout, control, timeline, base).await?;
    Ok(Position { timeline, end })
}

/// Where to start for a hint: a margin before it, for a flush position may lie inside a record that never got its end.
fn near(hint: Option<Lsn>, base: Lsn) -> Option<Lsn> {
    hint.map(|h| Lsn(h.0.saturating_sub(HINT_MARGIN))).filter(|h| *h > base)
}

/// The newest timeline of which `pg_wal` has both the history and the segment in which it begins.
fn newest_received(layout: &Layout, control: &ControlData) -> Result<TimelineId, PgDataError> {
    let mut newest = control.newest_timeline();
    let dir = layout.pg_wal();
    let names = fs::read_dir(&dir).at("read", &dir)?;
    let names = names.filter_map(|e| e.ok()?.file_name().into_string().ok());
    for name in names {
        let Some(WalFile::History(timeline)) = WalFile::parse(&name, control.segment_size) else { continue };
        let path = dir.join(&name);
        let history = TimelineHistory::parse(timeline, &fs::read_to_string(&path).at("read", &path)?)?;
        let Some((parent, begin)) = history.ancestors.last().copied() else { continue };
        let follows = history.ancestors.iter().any(|(t, _)| *t == newest) || parent == newest;
        let first = Segment::holding(timeline, begin, control.segment_size).file_name(control.segment_size);
        if timeline > newest && follows && dir.join(first).exists() {
            newest = timeline;
        }
    }
    Ok(newest)
}

/// A position on `timeline` from which everything later can be read.
fn start_on(layout: &Layout, control: &ControlData, timeline: TimelineId) -> Result<Lsn, PgDataError> {
    let history = history(layout, control.system_identifier, timeline)?;
    let begin = history.and_then(|h| h.ancestors.last().map(|(_, begin)| *begin));
    Ok(begin.map_or(control.redo, |b| b.max(control.redo)))
}

/// The last segment that is there without a gap from `first` on.
fn last_segment(layout: &Layout, control: &ControlData, first: Segment) -> Segment {
    let mut last = first;
    loop {
        let next = Segment { number: last.number + 1, ..last };
        if !layout.pg_wal().join(next.file_name(control.segment_size)).exists() {
            return last;
        }
        last = next;
    }
}

/// Reads records from `start` on and returns the end of the last one.
async fn dump(
    bin: &PgBin,
    layout: &Layout,
    control: &ControlData,
    timeline: TimelineId,
    start: Lsn,
) -> Result<Lsn, PgDataError> {
    let from = Segment::holding(timeline, start, control.segment_size);
    let to = last_segment(layout, control, from);
    let behind = Segment { number: to.number + 1, ..to };
    let mut command = bin.command("pg_waldump");
    command
        .arg("-p")
        .arg(layout.pg_wal())
        .arg("-t")
        .arg(timeline.to_string())
        .arg("-s")
        .arg(start.to_string())
        // Without an end it waits five seconds for a segment that does not exist.
        .arg("-e")
        .arg(behind.start(control.segment_size).to_string())
        // By their names: else it takes the size of a segment from any file that it finds, and one made in advance is empty.
        .args([from, to].map(|segment| segment.file_name(control.segment_size)));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |source| ToolError::Start { program: "pg_waldump".into(), source };
    let mut child = command.spawn().map_err(failed)?;
    let mut last = None;
    let read = async {
        let Some(out) = child.stdout.take() else { return Ok(()) };
        // Descriptions hold bytes of any encoding, so lines are bytes.
        let mut reader = BufReader::with_capacity(1 << 16, out);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).await? == 0 {
                return io::Result::Ok(());
            }
            last = records::parse(&line).or(last);
        }
    };
    let late = || ToolError::Late { program: "pg_waldump".into(), limit: DUMP };
    tokio::time::timeout(DUMP, read).await.map_err(|_| late())?.map_err(failed)?;
    // It ends with an error at the end of WAL in any case: the records count, not the status.
    let _ = child.wait().await;
    last.map(|r| r.end(control.page_size, control.segment_size)).ok_or(PgDataError::NoWal {
        timeline,
        checkpoint: start,
        output: "pg_waldump found no record".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pg_control version number:            1300
Database system identifier:           7412345678901234567
Database cluster state:               in production
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/4000000
Min recovery ending loc's timeline:   2
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
WAL block size:                       8192
Bytes per WAL segment:                16777216
";

    #[test]
    fn control_data_is_read_by_its_labels() {
        let c = ControlData::parse(TEXT).unwrap();
        assert_eq!(c.system_identifier, SystemIdentifier(7_412_345_678_901_234_567));
        assert_eq!(
            (c.state, c.redo, c.timeline),
            (ClusterState::InProduction, Lsn(0x300_0028), TimelineId(1))
        );
        assert_eq!(c.newest_timeline(), TimelineId(2));
        assert_eq!((c.floors.connections, c.floors.locks_per_transaction), (100, 64));
        assert!(!c.is_clean_primary());
    }

    #[test]
    fn a_missing_label_is_named() {
        let e = ControlData::parse("").unwrap_err().to_string();
        assert!(e.contains("Min recovery ending"), "{e}");
    }

    #[test]
    fn a_segment_size_that_nothing_can_be_divided_by_is_refused() {
        let e = ControlData::parse(&TEXT.replace("16777216", "0")).unwrap_err().to_string();
        assert!(e.contains("Bytes per WAL segment") && e.contains('0'), "{e}");
    }

    #[test]
    fn a_hint_before_the_redo_position_is_no_help() {
        assert_eq!(near(Some(Lsn(HINT_MARGIN + 5)), Lsn(5)), None);
        assert_eq!(near(Some(Lsn(HINT_MARGIN + 6)), Lsn(5)), Some(Lsn(6)));
        assert_eq!(near(None, Lsn(5)), None);
    }
}
