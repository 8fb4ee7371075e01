//! A former primary becomes a standby: compare, keep what only it has, rewind.
//!
//! The comparison is valid only after the primary of the record's term has confirmed its promotion.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, WalFile};
use pgpair_wire::config::PairConfig;
use pgpair_wire::wal::PrimaryHistory;
use serde::{Deserialize, Serialize};

use crate::fence::lock::VolumeLock;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, Context, FileError};
use crate::postgres::control_file::ControlData;
use crate::postgres::end_of_wal::Position;
use crate::postgres::pgdata::PgDataError;
use crate::postgres::postmaster::{self, ClientAccess, PostmasterError, StartAs, StartOptions};
use crate::postgres::render::{self, Upstream};
use crate::postgres::tablespaces;
use crate::postgres::tool::{self, PgBin};
use crate::postgres::trust::ServerTrust;
use crate::wal::archive::copy_synced;

/// Copies every changed block and all of the source's `pg_wal`.
const REWIND: Duration = Duration::from_secs(3600);
/// `pg_rewind --progress` prints it before it changes the first file.
const FIRST_CHANGE: &str = "need to copy";

/// A directory that cannot follow the primary now.
#[derive(Debug, thiserror::Error)]
pub enum RejoinError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration that `pg_rewind` needs.
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
    /// Our own directory cannot be understood.
    #[error(transparent)]
    PgData(#[from] PgDataError),
    /// The history of our own timeline is missing.
    #[error("the history of our timeline {0} is nowhere")]
    NoHistory(TimelineId),
    /// The branch is not on the archive volume yet.
    #[error("the branch is still being copied to the archive volume; waited {limit:?} for it")]
    Keeping {
        /// The time that this try had.
        limit: Duration,
    },
    /// A running directory is not rewound.
    #[error("postgres runs")]
    Running,
    /// Nothing has been changed by it: it may be tried again.
    #[error("pg_rewind could not begin: {output}")]
    NotBegun {
        /// End of its output.
        output: String,
    },
    /// The data directory is not usable any more, or was never fit for it: a new base backup is needed.
    #[error("pg_rewind failed, the data directory needs a rebuild: {output}")]
    Broken {
        /// End of its output.
        output: String,
    },
}

/// What a program says when the primary, or the way to it, is to blame.
const NOT_OURS: [&str; 10] = [
    "could not connect",
    "connection to server",
    "could not translate host name",
    "server closed the connection",
    "could not receive data from server",
    "SSL ",
    "the database system is",
    "too many clients",
    "too many connections",
    "permission denied for",
];

impl RejoinError {
    /// Whether what is in the way may pass by itself. What does not, a new copy of the primary cures.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            RejoinError::File(_)
            | RejoinError::Postmaster(_)
            | RejoinError::Keeping { .. }
            | RejoinError::Running
            | RejoinError::PgData(PgDataError::File(_) | PgDataError::Tool(_)) => true,
            RejoinError::PgData(_) | RejoinError::NoHistory(_) | RejoinError::Broken { .. } => false,
            RejoinError::NotBegun { output } => {
                tool::NOT_THE_DATA.iter().chain(&NOT_OURS).any(|text| output.contains(text))
            }
        }
    }
}

/// How our directory relates to a primary's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Part of it: follow.
    Contained,
    /// A branch of our own.
    Diverged(Branch),
    /// No common timeline: only a rebuild helps.
    Unrelated,
}

/// WAL that only this directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// Timeline on which the two part.
    pub timeline: TimelineId,
    /// Where they part.
    pub fork: Lsn,
    /// End of ours.
    pub end: Position,
}

/// A branch that lies safe on the archive volume; content of its `branch.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptBranch {
    /// Where it is.
    pub dir: PathBuf,
    /// Timeline on which it begins.
    pub timeline: TimelineId,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// Bytes of WAL in between: what the failover lost.
    pub bytes: u64,
    /// Names of the files.
    pub files: Vec<String>,
}

/// Compares a stopped directory with the primary. `own` is the history of `end.timeline`.
#[must_use]
pub fn compare(own: &TimelineHistory, end: Position, primary: &PrimaryHistory) -> Relation {
    let ours = stretches(own, end.end);
    let theirs = stretches(&primary.history, primary.flush);
    let mut common: Option<(TimelineId, Lsn)> = None;
    for ((our_timeline, our_end), (their_timeline, their_end)) in ours.iter().zip(&theirs) {
        if our_timeline != their_timeline {
            break;
        }
        common = Some((*our_timeline, *our_end.min(their_end)));
        if our_end != their_end {
            break;
        }
    }
    match common {
        None => Relation::Unrelated,
        Some((_, fork)) if end.end <= fork => Relation::Contained,
        Some((timeline, fork)) => Relation::Diverged(Branch { timeline, fork, end }),
    }
}

/// Each timeline of a past with the position at which it was left, the last one with its end.
fn stretches(history: &TimelineHistory, end: Lsn) -> Vec<(TimelineId, Lsn)> {
    history.ancestors.iter().copied().chain([(history.timeline, end)]).collect()
}

/// Copies the WAL of the branch, from `pg_wal` and our archive, to `lost/TIME-tliN` on the archive volume; durable, and
/// complete under that name or not there at all.
///
/// # Errors
/// Nothing may be rewound then.
pub fn keep_branch(
    settings: &InstanceEnv,
    control: &ControlData,
    branch: Branch,
) -> Result<KeptBranch, FileError> {
    let files = branch_files(settings, control, branch)?;
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ");
    let dir = settings.layout.lost().join(format!("{time}-tli{}", branch.timeline));
    let kept = KeptBranch {
        dir: dir.clone(),
        timeline: branch.timeline,
        from: branch.fork,
        to: branch.end.end,
        bytes: branch.end.end.bytes_since(branch.fork),
        files: files.keys().cloned().collect(),
    };
    let partial = fsx::sibling(&dir, ".partial");
    fsx::create_dir(&partial, 0o700)?;
    for (name, path) in &files {
        copy_synced(path, &partial.join(name))?;
    }
    fsx::write_json(&partial.join("branch.json"), &kept)?;
    fs::rename(&partial, &dir).at("rename into place", &dir)?;
    fsx::sync_parent(&dir)?;
    Ok(kept)
}

/// Segments and history files of the branch by name; `pg_wal` is asked first, for the last segment is only there.
fn branch_files(
    settings: &InstanceEnv,
    control: &ControlData,
    branch: Branch,
) -> Result<BTreeMap<String, PathBuf>, FileError> {
    let size = control.segment_size;
    let first = Segment::holding(branch.timeline, branch.fork, size).number;
    let last = Segment::holding(branch.end.timeline, branch.end.end, size).number;
    let timelines = branch.timeline..=branch.end.timeline;
    let wanted = |name: &str| match WalFile::parse(name, size) {
        Some(WalFile::Segment(s) | WalFile::Partial(s)) => {
            timelines.contains(&s.timeline) && (first..=last).contains(&s.number)
        }
        Some(WalFile::History(t)) => timelines.contains(&t),
        _ => false,
    };
    let mut out = BTreeMap::new();
    for dir in [settings.layout.pg_wal(), settings.layout.wal_archive(control.system_identifier)] {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry.at("read", &dir)?;
            if let Ok(name) = entry.file_name().into_string()
                && wanted(&name)
            {
                out.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    Ok(out)
}

/// Rewinds the stopped directory to `primary`. That the branch was kept is shown by `_kept`. A marker on the
/// volume makes an interrupted rewind look unfinished, for such a directory is not to be trusted.
///
/// # Errors
/// [`RejoinError::NotBegun`]: try again. [`RejoinError::Broken`]: rebuild.
pub async fn rewind(
    settings: &InstanceEnv,
    config: &PairConfig,
    bin: &PgBin,
    lock: &VolumeLock,
    _kept: &KeptBranch,
    primary: &Upstream,
) -> Result<(), RejoinError> {
    let layout = &settings.layout;
    // Its own recovery in single-user mode reads this configuration, and refuses standby.signal.
    let options =
        StartOptions { role: StartAs::Primary, clients: ClientAccess::Closed, sync_with: None, log: None };
    let floors = postmaster::floors(settings, bin, &options.role).await;
    postmaster::configure(settings, config, &options, floors)?;
    let name = InstanceEnv::standby_name(settings.instance);
    let source = render::conninfo(settings, primary, &ServerTrust::of(layout), name, Some("postgres"));
    // It links to them, and does not make them.
    let tablespaces = tablespaces::of_primary(bin, &source).await;
    let tablespaces = tablespaces.map_err(|e| RejoinError::NotBegun { output: e.to_string() })?;
    tablespaces::make_directories(layout, &tablespaces)?;
    let mut command = bin.command("pg_rewind");
    command
        .arg("--target-pgdata")
        .arg(layout.pgdata())
        .arg("--source-server")
        .arg(source)
        .args(["--restore-target-wal", "--progress"])
        .stdin(lock.share().at("share the lock of", &layout.lock())?);
    fsx::write(&layout.rewinding(), b"", 0o600)?;
    let result = tool::run_confined(&mut command, layout, REWIND).await;
    let output = match result {
        Ok(output) if !output.contains("no rewind required") => {
            fsx::remove(&layout.rewinding())?;
            fsx::sync_dir(&layout.data)?;
            tracing::info!(output = tool::tail(&output), "rewound");
            return Ok(());
        }
        // The branch is in pg_wal only, not in the pages: pg_rewind leaves it there, and recovery would replay it.
        Ok(output) => return Err(RejoinError::Broken { output: tool::tail(&output) }),
        Err(e) => e,
    };
    if output.text().contains(FIRST_CHANGE) || output.is_late() {
        return Err(RejoinError::Broken { output: output.to_string() });
    }
    fsx::remove(&layout.rewinding())?;
    Err(RejoinError::NotBegun { output: output.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, ancestors: &[(u32, u64)]) -> TimelineHistory {
        TimelineHistory {
            timeline: TimelineId(timeline),
            ancestors: ancestors.iter().map(|(t, l)| (TimelineId(*t), Lsn(*l))).collect(),
        }
    }

    fn check(own: &TimelineHistory, end: u64, primary: TimelineHistory, flush: u64) -> Relation {
        let end = Position { timeline: own.timeline, end: Lsn(end) };
        compare(own, end, &PrimaryHistory { history: primary, flush: Lsn(flush) })
    }

    fn diverged(timeline: u32, fork: u64, own: u32, end: u64) -> Relation {
        let end = Position { timeline: TimelineId(own), end: Lsn(end) };
        Relation::Diverged(Branch { timeline: TimelineId(timeline), fork: Lsn(fork), end })
    }

    #[test]
    fn a_return_that_cannot_succeed_is_told_from_one_that_may_later() {
        let not_begun = |output: &str| RejoinError::NotBegun { output: output.into() };
        for output in [
            "pg_rewind failed (exit status: 1): pg_rewind: error: could not find previous WAL record at 0/3000028: could not open file",
            "pg_rewind: error: could not find common ancestor of the source and target cluster's timelines",
            "pg_rewind: error: postgres single-user mode in target cluster failed",
            "pg_rewind: error: target server needs to use either data checksums or \"wal_log_hints = on\"",
        ] {
            assert!(!not_begun(output).passes(), "{output}");
        }
        for output in [
            "pg_rewind: error: connection to server at \"x\" (10.0.0.1), port 5432 failed: Connection refused",
            "psql: error: connection to server at \"x\" (10.0.0.1), port 5432 failed: FATAL:  the database system is starting up",
            "pg_rewind: error: could not write file \"x\": No space left on device",
            "pg_rewind: error: could not fetch file list: ERROR:  permission denied for function pg_ls_dir",
        ] {
            assert!(not_begun(output).passes(), "{output}");
        }
        assert!(!RejoinError::NoHistory(TimelineId(3)).passes());
        assert!(RejoinError::Running.passes());
    }

    #[test]
    fn a_directory_that_ends_before_the_fork_is_contained() {
        let one = history(1, &[]);
        assert_eq!(check(&one, 100, history(2, &[(1, 100)]), 200), Relation::Contained);
        assert_eq!(check(&one, 101, history(2, &[(1, 100)]), 200), diverged(1, 100, 1, 101));
        assert_eq!(check(&one, 90, history(1, &[]), 100), Relation::Contained);
    }

    #[test]
    fn more_than_the_primary_has_on_its_own_timeline_is_a_branch() {
        assert_eq!(check(&history(1, &[]), 101, history(1, &[]), 100), diverged(1, 100, 1, 101));
    }

    #[test]
    fn the_same_number_with_another_past_is_another_timeline() {
        let own = history(2, &[(1, 80)]);
        assert_eq!(check(&own, 95, history(2, &[(1, 90)]), 200), diverged(1, 80, 2, 95));
        assert_eq!(check(&own, 95, history(3, &[(1, 90)]), 200), diverged(1, 80, 2, 95));
        assert_eq!(check(&own, 95, history(3, &[(1, 80), (2, 95)]), 200), Relation::Contained);
    }

    #[test]
    fn a_promoted_directory_has_left_a_primary_that_stayed() {
        assert_eq!(check(&history(2, &[(1, 80)]), 95, history(1, &[]), 200), diverged(1, 80, 2, 95));
    }
}
