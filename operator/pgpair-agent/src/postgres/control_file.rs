//! The control file of a data directory.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use pgpair_core::wal::SegmentSize;

use crate::instance::fsx::{Context, FileError};
use crate::postgres::pgdata::PgDataError;
use crate::postgres::render::Floors;
use crate::postgres::tool::{self, PgBin};

/// `pg_controldata` reads one file.
const CONTROL_DATA: Duration = Duration::from_secs(10);

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
    pub segment_size: SegmentSize,
    /// Bytes of a WAL page.
    pub page_size: u64,
    /// What a standby of this directory must have at least.
    pub floors: Floors,
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

    /// Reads what `pg_controldata` prints.
    ///
    /// # Errors
    /// A label is missing, or what stands behind it cannot be.
    pub fn parse(text: &str) -> Result<ControlData, PgDataError> {
        const SEGMENT_SIZE: &str = "Bytes per WAL segment";
        const PAGE_SIZE: &str = "WAL block size";
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
        let page = number(PAGE_SIZE)?;
        let unusable =
            |field: &'static str, size: u64| PgDataError::ControlData { field, text: size.to_string() };
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
            segment_size: SegmentSize::new(size).ok_or_else(|| unusable(SEGMENT_SIZE, size))?,
            // Positions are divided by it. `configure --with-wal-blocksize` knows these.
            page_size: Some(page)
                .filter(|page| page.is_power_of_two() && (1 << 10..=1 << 16).contains(page))
                .ok_or_else(|| unusable(PAGE_SIZE, page))?,
            floors: Floors {
                connections: setting("max_connections setting")?,
                worker_processes: setting("max_worker_processes setting")?,
                wal_senders: setting("max_wal_senders setting")?,
                prepared_transactions: setting("max_prepared_xacts setting")?,
                locks_per_transaction: setting("max_locks_per_xact setting")?,
                ..Floors::default()
            },
        })
    }
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

/// Major version of the PostgreSQL that a directory belongs to; `None` if it does not say.
#[must_use]
pub fn major(pgdata: &Path) -> Option<u32> {
    fs::read_to_string(pgdata.join("PG_VERSION")).ok()?.trim().parse().ok()
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
    fn a_size_that_nothing_can_be_divided_by_is_refused() {
        let e = ControlData::parse(&TEXT.replace("16777216", "0")).unwrap_err().to_string();
        assert!(e.contains("Bytes per WAL segment") && e.contains('0'), "{e}");
        for page in ["0", "24", "131072"] {
            let e = ControlData::parse(&TEXT.replace(" 8192", page)).unwrap_err().to_string();
            assert!(e.contains("WAL block size") && e.contains(page), "{e}");
        }
    }
}
