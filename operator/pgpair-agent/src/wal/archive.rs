//! `pgpair wal-archive %p %f`: one file of the log onto the archive volume, never over another.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, UNIX_EPOCH};

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, SegmentSize, WalFile};
use pgpair_wire::report::ArchiveReport;
use sha2::{Digest, Sha256};

use crate::instance::env::{InstanceEnv, InstanceEnvError};
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::postgres::control_file;
use crate::postgres::sql::ArchiverFacts;

/// The smallest segment size accepts the names of every other one.
pub(crate) const SMALLEST_SEGMENT: SegmentSize = SegmentSize::SMALLEST;
const CHUNK: usize = 1024 * 1024;

/// Where the log of a dead postgres ends, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd(pub Option<(TimelineId, Lsn)>);

impl LogEnd {
    /// How much of a file of `pg_wal` is of use: a standby that waits for the end of the log is not to wait for what comes after it.
    #[must_use]
    pub fn useful_bytes(self, name: &str, size: u64) -> u64 {
        let (Some((timeline, end)), Some(segment)) = (self.0, SegmentSize::new(size)) else { return size };
        if name != Segment::holding(timeline, end, segment).file_name(segment) {
            return size;
        }
        // Whole pages, of whatever size: what is behind the last record is read as well.
        ((end.0 % size) / PAGES * PAGES + PAGES).min(size)
    }
}

/// A multiple of every page size of the log.
const PAGES: u64 = 64 * 1024;

/// A file that was not archived. Postgres keeps it and tries again.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The environment.
    #[error(transparent)]
    Env(#[from] InstanceEnvError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a name of the log.
    #[error("{0:?} is not the name of a WAL file")]
    Name(String),
    /// The archive holds something else under this name.
    #[error("ALARM: {path} is in the archive with other content (archive {theirs}, now {ours}): two servers wrote the same timeline; it is not overwritten, compare the two files", path = path.display())]
    Different {
        /// In the archive.
        path: PathBuf,
        /// SHA-256 of the file in the archive.
        theirs: String,
        /// SHA-256 of the file to be archived.
        ours: String,
    },
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOutcome {
    /// Its size.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// It was there already, with the same content.
    pub known: bool,
}

/// The command: archives the file at `path` (relative to PGDATA, the working directory of postgres) as `name`.
#[must_use]
pub fn run(path: &Path, name: &str) -> ExitCode {
    let begin = Instant::now();
    let result = InstanceEnv::from_env()
        .map_err(ArchiveError::from)
        .and_then(|settings| archive_file(&settings.layout, path, name));
    let ms = begin.elapsed().as_millis();
    match result {
        Ok(a) => {
            let what = if a.known { "already archived" } else { "archived" };
            eprintln!("wal-archive: {what} file={name} bytes={} ms={ms} sha256={}", a.bytes, a.sha256);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("wal-archive: refused file={name} ms={ms}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Archives one file of the log of `layout`'s data directory, durable when it returns.
///
/// # Errors
/// The archive is as it was.
pub fn archive_file(layout: &Layout, path: &Path, name: &str) -> Result<ArchiveOutcome, ArchiveError> {
    if WalFile::parse(name, SMALLEST_SEGMENT).is_none() {
        return Err(ArchiveError::Name(name.to_owned()));
    }
    let system = control_file::system_identifier(&layout.pgdata())?;
    let dir = layout.wal_archive(system);
    fsx::create_dir(&dir, 0o700)?;
    let target = dir.join(name);
    if target.exists() {
        return same_or_alarm(&target, path);
    }
    if let Some(skipped) = skip_live(&dir, path, name)? {
        return Ok(skipped);
    }
    // One archiver per volume, so one name: what a crash left is written over by the next try.
    let tmp = dir.join(format!(".{name}.tmp"));
    let (bytes, sha256) = copy_synced(path, &tmp)?;
    if fsx::publish(&tmp, &target)? {
        return Ok(ArchiveOutcome { bytes, sha256, known: false });
    }
    fsx::remove(&tmp)?;
    same_or_alarm(&target, path)
}

/// A tail that came from the peer's `pg_wal` must not take the name of the complete segment, which may still follow if the
/// peer takes its resignation back. What is needed of it postgres archives itself, as `.partial`, when it is promoted.
fn skip_live(dir: &Path, path: &Path, name: &str) -> Result<Option<ArchiveOutcome>, FileError> {
    let mark = live_mark(dir, name);
    let Ok(live) = fs::read_to_string(&mark) else { return Ok(None) };
    let (bytes, sha256) = hash(path, &mut io::sink())?;
    if live == sha256 {
        return Ok(Some(ArchiveOutcome { bytes, sha256, known: true }));
    }
    fsx::remove(&mark)?;
    Ok(None)
}

/// Remembers that this content of the segment `name` came from the peer's `pg_wal`.
pub(crate) fn mark_live(dir: &Path, name: &str, content: &[u8]) -> Result<(), FileError> {
    fsx::create_dir(dir, 0o700)?;
    fsx::write(&live_mark(dir, name), hex(&Sha256::digest(content)).as_bytes(), 0o600)
}

fn live_mark(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.live"))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn same_or_alarm(target: &Path, path: &Path) -> Result<ArchiveOutcome, ArchiveError> {
    let (_, theirs) = hash(target, &mut io::sink())?;
    let (bytes, ours) = hash(path, &mut io::sink())?;
    if theirs != ours {
        return Err(ArchiveError::Different { path: target.to_owned(), theirs, ours });
    }
    // The crash may have come between the name and its sync.
    File::open(target).and_then(|f| f.sync_all()).at("sync", target)?;
    fsx::sync_parent(target)?;
    Ok(ArchiveOutcome { bytes, sha256: ours, known: true })
}

/// Copies a file and syncs the copy's contents, not its name. Returns size and SHA-256.
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<(u64, String), FileError> {
    let mut out = fsx::create_truncated(to, 0o600)?;
    let sums = hash(from, &mut out)?;
    out.sync_all().at("sync", to)?;
    Ok(sums)
}

fn hash(path: &Path, out: &mut impl Write) -> Result<(u64, String), FileError> {
    let mut file = File::open(path).at("open", path)?;
    let mut buffer = vec![0; CHUNK];
    let (mut sha, mut bytes) = (Sha256::new(), 0);
    loop {
        let n = file.read(&mut buffer).at("read", path)?;
        if n == 0 {
            return Ok((bytes, hex(&sha.finalize())));
        }
        sha.update(&buffer[..n]);
        out.write_all(&buffer[..n]).at("copy", path)?;
        bytes += n as u64;
    }
}

/// A look at this instance's archive.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArchiveLook {
    /// What is reported of it.
    pub report: ArchiveReport,
    /// The first segment that waits for the archiver.
    pub first_waiting: Option<String>,
}

/// Looks at the archive. `archiver` is what postgres says of it, if it runs; `before` the newest segment of an earlier
/// look. Reads the archive's directory when neither names one: call it where blocking is allowed.
#[must_use]
pub fn look(
    layout: &Layout,
    system: SystemIdentifier,
    archiver: Option<&ArchiverFacts>,
    before: Option<&str>,
) -> ArchiveLook {
    let dir = layout.wal_archive(system);
    let told = archiver.and_then(|a| a.last_archived.as_deref());
    let there = |n: &&str| is_segment(n) && dir.join(n).exists();
    // A segment of a timeline that was left long ago may be archived last.
    let newer = [told, before].into_iter().flatten().filter(there).max();
    let last_segment = newer.map(str::to_owned).or_else(|| newest_segment(&dir));
    let waiting = waiting(layout);
    let report = ArchiveReport {
        last_archived_at_ms: last_segment.as_ref().and_then(|n| modified_ms(&dir.join(n))),
        last_segment,
        backlog_segments: waiting.as_ref().map(|w| w.files),
        ..archiver_status(archiver)
    };
    ArchiveLook { report, first_waiting: waiting.and_then(|w| w.first_segment) }
}

/// The part of it that postgres tells, and no volume.
#[must_use]
pub fn archiver_status(archiver: Option<&ArchiverFacts>) -> ArchiveReport {
    ArchiveReport {
        failures: archiver.map(|a| a.failures),
        last_failure: archiver.and_then(|a| a.failing.clone()).map(|f| format!("archiving {f} failed")),
        ..ArchiveReport::default()
    }
}

fn is_segment(name: &str) -> bool {
    matches!(WalFile::parse(name, SMALLEST_SEGMENT), Some(WalFile::Segment(_)))
}

fn newest_segment(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter(|n| is_segment(n)).max()
}

fn modified_ms(path: &Path) -> Option<i64> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// The files that wait for the archiver.
#[derive(Debug, Default)]
struct Waiting {
    files: u64,
    first_segment: Option<String>,
}

/// `None`: the directory cannot be read.
fn waiting(layout: &Layout) -> Option<Waiting> {
    let mut waiting = Waiting::default();
    for entry in fs::read_dir(layout.pg_wal().join("archive_status")).ok()? {
        let Some(name) = entry.ok().and_then(|e| e.file_name().into_string().ok()) else { continue };
        let Some(name) = name.strip_suffix(".ready") else { continue };
        waiting.files += 1;
        if is_segment(name) && waiting.first_segment.as_deref().is_none_or(|first| name < first) {
            waiting.first_segment = Some(name.to_owned());
        }
    }
    Some(waiting)
}

/// Where a file of the WAL is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// In the archive.
    Archive,
    /// In `pg_wal` too: right only when postgres is dead and will not write in this term again.
    ArchiveAndPgWal,
}

/// Where a file of the WAL is that the peer asks for; `None` if we do not have it.
#[must_use]
pub fn wal_file(layout: &Layout, system: SystemIdentifier, name: &str, places: Places) -> Option<PathBuf> {
    // Only names of the log, so no path can be smuggled in.
    WalFile::parse(name, SMALLEST_SEGMENT)?;
    let archived = layout.wal_archive(system).join(name);
    let own = match places {
        Places::Archive => None,
        Places::ArchiveAndPgWal => Some(layout.pg_wal().join(name)),
    };
    [Some(archived), own].into_iter().flatten().find(|p| p.is_file())
}

/// Answer of [`has_segment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The segment is there.
    pub has: bool,
    /// Where the oldest segment that is there begins.
    pub oldest: Option<Lsn>,
}

/// Whether a primary has the segment at `position`, in `pg_wal` (then it can stream it) or in its archive (then it can give
/// it out), on any timeline of its history.
///
/// # Errors
/// A directory cannot be read, so nothing is known.
pub fn has_segment(
    layout: &Layout,
    system: SystemIdentifier,
    history: &TimelineHistory,
    position: Lsn,
    segment_size: SegmentSize,
) -> io::Result<Found> {
    let wanted = Segment::holding(history.timeline, position, segment_size).number;
    let mut found = Found { has: false, oldest: None };
    for dir in [layout.pg_wal(), layout.wal_archive(system)] {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // nothing is archived yet
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(WalFile::Segment(segment)) = name.to_str().and_then(|n| WalFile::parse(n, segment_size))
            else {
                continue;
            };
            // Postgres keeps recycled files under names of the future: they are newer than anything that is asked for.
            if history.includes(segment.timeline) {
                found.has |= segment.number == wanted;
                let start = segment.start(segment_size);
                found.oldest = Some(found.oldest.map_or(start, |o| o.min(start)));
            }
        }
    }
    Ok(found)
}

/// Beginning of the first segment, from the one that holds `from` on, that a standby does not have complete: neither in its
/// archive nor in `pg_wal`, on any timeline of its primary's history.
///
/// # Errors
/// A directory cannot be read, so nothing is known.
pub fn first_missing(
    layout: &Layout,
    system: SystemIdentifier,
    history: &TimelineHistory,
    from: Lsn,
    segment_size: SegmentSize,
) -> io::Result<Lsn> {
    let timelines = || history.ancestors.iter().map(|(t, _)| *t).chain([history.timeline]);
    let has = |number: u64| -> io::Result<bool> {
        for timeline in timelines() {
            let name = Segment { timeline, number }.file_name(segment_size);
            let own = layout.pg_wal().join(&name);
            let finished = own.try_exists()? && !is_live(layout, &own);
            if finished || layout.wal_archive(system).join(&name).try_exists()? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut number = Segment::holding(history.timeline, from, segment_size).number;
    while has(number)? {
        number += 1;
    }
    Ok(Segment { timeline: history.timeline, number }.start(segment_size))
}

/// Whether a file that [`wal_file`] gave is an unfinished segment of `pg_wal`: postgres gives a finished one an archive status
/// at once. An answer with such a file carries [`pgpair_wire::paths::LIVE_WAL`].
#[must_use]
pub fn is_live(layout: &Layout, path: &Path) -> bool {
    let pg_wal = layout.pg_wal();
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    let status = |suffix: &str| pg_wal.join("archive_status").join(format!("{name}{suffix}")).exists();
    path.starts_with(&pg_wal) && is_segment(name) && !status(".ready") && !status(".done")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = "000000010000000000000003";

    #[test]
    fn of_the_last_segment_only_what_was_written_is_of_use() {
        const SIZE: u64 = 16 << 20;
        let end = |lsn| LogEnd(Some((TimelineId(1), Lsn(lsn))));
        assert_eq!(end(3 * SIZE + 70_000).useful_bytes(SEGMENT, SIZE), 2 * PAGES);
        assert_eq!(
            end(3 * SIZE).useful_bytes(SEGMENT, SIZE),
            PAGES,
            "the header of its first page is looked at"
        );
        assert_eq!(end(4 * SIZE - 1).useful_bytes(SEGMENT, SIZE), SIZE);
        for other in [end(5 * SIZE + 1), LogEnd(Some((TimelineId(2), Lsn(3 * SIZE + 1)))), LogEnd(None)] {
            assert_eq!(other.useful_bytes(SEGMENT, SIZE), SIZE, "{other:?}");
        }
        assert_eq!(end(1).useful_bytes("00000002.history", 83), 83);
    }

    struct Volume {
        _dir: tempfile::TempDir,
        layout: Layout,
        source: PathBuf,
    }

    fn volume() -> Volume {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        fs::create_dir_all(layout.in_pgdata("global")).unwrap();
        fs::create_dir_all(layout.pg_wal().join("archive_status")).unwrap();
        fs::write(layout.in_pgdata("global/pg_control"), 7u64.to_ne_bytes()).unwrap();
        let source = layout.pg_wal().join(SEGMENT);
        fs::write(&source, b"first").unwrap();
        Volume { _dir: dir, layout, source }
    }

    #[test]
    fn the_same_file_twice_is_a_success_and_another_is_refused() {
        let v = volume();
        assert!(!archive_file(&v.layout, &v.source, SEGMENT).unwrap().known);
        assert!(archive_file(&v.layout, &v.source, SEGMENT).unwrap().known);
        fs::write(&v.source, b"other").unwrap();
        let e = archive_file(&v.layout, &v.source, SEGMENT).unwrap_err();
        assert!(matches!(e, ArchiveError::Different { .. }) && e.to_string().starts_with("ALARM"));
        let kept = v.layout.archive.join("7/wal").join(SEGMENT);
        assert_eq!(fs::read(kept).unwrap(), b"first");
    }

    #[test]
    fn an_incomplete_tail_does_not_take_the_name_of_the_complete_segment() {
        let v = volume();
        let dir = v.layout.wal_archive(SystemIdentifier(7));
        mark_live(&dir, SEGMENT, b"first").unwrap();
        assert!(archive_file(&v.layout, &v.source, SEGMENT).unwrap().known);
        assert!(!dir.join(SEGMENT).exists());
        fs::write(&v.source, b"first and the rest").unwrap();
        assert!(!archive_file(&v.layout, &v.source, SEGMENT).unwrap().known);
        assert_eq!(fs::read(dir.join(SEGMENT)).unwrap(), b"first and the rest");
    }

    #[test]
    fn what_a_crash_left_does_not_hinder_the_next_try() {
        let v = volume();
        let dir = v.layout.wal_archive(SystemIdentifier(7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!(".{SEGMENT}.tmp")), b"fi").unwrap();
        archive_file(&v.layout, &v.source, SEGMENT).unwrap();
        let names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [SEGMENT]);
    }

    #[test]
    fn only_names_of_the_log_are_taken_or_given() {
        let v = volume();
        for name in ["../x", "RECOVERYXLOG", "", ".000000010000000000000003.tmp"] {
            assert!(archive_file(&v.layout, &v.source, name).is_err());
            assert_eq!(wal_file(&v.layout, SystemIdentifier(7), name, Places::ArchiveAndPgWal), None);
        }
        assert_eq!(wal_file(&v.layout, SystemIdentifier(7), SEGMENT, Places::Archive), None);
        assert_eq!(
            wal_file(&v.layout, SystemIdentifier(7), SEGMENT, Places::ArchiveAndPgWal).as_ref(),
            Some(&v.source)
        );
        assert!(is_live(&v.layout, &v.source));
        fs::write(v.layout.pg_wal().join(format!("archive_status/{SEGMENT}.ready")), "").unwrap();
        assert!(!is_live(&v.layout, &v.source));
    }

    #[test]
    fn a_look_counts_what_waits_and_finds_the_first_of_it_and_the_newest_archived() {
        let v = volume();
        archive_file(&v.layout, &v.source, SEGMENT).unwrap();
        archive_file(&v.layout, &v.source, "00000002.history").unwrap();
        let status = |name: &str| v.layout.pg_wal().join("archive_status").join(name);
        for name in
            ["00000003.history.ready", "000000010000000000000005.ready", "000000010000000000000004.ready"]
        {
            fs::write(status(name), "").unwrap();
        }
        fs::write(status("000000010000000000000003.done"), "").unwrap();
        let ArchiveLook { report, first_waiting } = look(&v.layout, SystemIdentifier(7), None, None);
        assert_eq!((report.last_segment.as_deref(), report.backlog_segments), (Some(SEGMENT), Some(3)));
        assert_eq!(first_waiting.as_deref(), Some("000000010000000000000004"));
        assert!(report.last_archived_at_ms.is_some() && report.failures.is_none());
        let empty = look(&v.layout, SystemIdentifier(8), None, Some(SEGMENT)).report;
        assert_eq!((empty.last_segment, empty.last_archived_at_ms), (None, None), "of another cluster");
        let late = "000000010000000000000002";
        archive_file(&v.layout, &v.source, late).unwrap();
        let archiver = ArchiverFacts { last_archived: Some(late.into()), ..ArchiverFacts::default() };
        let last = |before| look(&v.layout, SystemIdentifier(7), Some(&archiver), before).report.last_segment;
        assert_eq!(last(Some(SEGMENT)).as_deref(), Some(SEGMENT), "the newest, not the one archived last");
    }
}
