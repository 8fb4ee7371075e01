//! Gaps of our archive, filled from the peer's.
//!
//! An instance that was away, was rebuilt or lost its archive volume lacks log that its postgres never archives again: it was
//! written before postgres was there. Both archives are to hold the whole history in use, as far as there is room, so that either of
//! them is enough for a point-in-time recovery.
//!
//! There is one segment that postgres forgets, too: a standby that has received a segment to its last byte, and is promoted before the
//! first byte of the next one, never archives it.
//!
//! Only complete segments of the history in use are filled in, newest first: from our own `pg_wal`, else from the peer's archive. They
//! share the room that [`crate::wal::cleanup`] leaves to archived log, so what was removed to make room does not come back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, SegmentSize, WalFile};
use pgpair_wire::report::{HistoryPlace, TwoPasts};
use pgpair_wire::wal::ArchivedFile;

use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::instance::space;
use crate::net::peer::{Peer, PeerError};
use crate::postgres::control_file;
use crate::postgres::pgdata::{self, PgDataError};
use crate::wal::archive;
use crate::wal::cleanup;
use crate::wal::content::{self, ContentError};
use crate::wal::twice::Pasts;

/// Files of one round: with a round every ten seconds, about 25 MB/s at most.
const AT_ONCE: usize = 16;
/// Histories of the peer's archive that are read in one round.
const HISTORIES_AT_ONCE: usize = 64;
/// The peer's list.
const LIST: Duration = Duration::from_secs(5);

/// How far our own log goes.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// The timeline in use.
    pub timeline: TimelineId,
    /// Up to here our postgres has the log, or had it.
    pub end: Lsn,
    /// Bytes of a segment.
    pub segment_size: SegmentSize,
}

/// What became of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Files that were filled in.
    pub filled: usize,
    /// Files that are still missing.
    pub left: usize,
}

/// What is known of the histories in both archives: from one round to the next, for a history does not change.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Timelines to which the peer's archive gives the same past as we do.
    same: BTreeSet<TimelineId>,
    /// Those with two pasts.
    twice: BTreeMap<TimelineId, TwoPasts>,
}

impl Compared {
    /// The first timeline with two pasts.
    #[must_use]
    pub fn two_pasts(&self) -> Option<TwoPasts> {
        self.twice.values().next().copied()
    }

    /// Whether the peer's files of a timeline are of our past. Timeline 1 has no other.
    fn are_ours(&self, timeline: TimelineId) -> bool {
        timeline == TimelineId(1) || self.same.contains(&timeline)
    }
}

/// A gap that stays for now.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// Our data directory.
    #[error(transparent)]
    PgData(#[from] PgDataError),
    /// The peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Something else than what was asked for.
    #[error("the copy of {name} is not usable: {source}")]
    Unusable {
        /// Of the file.
        name: String,
        /// What is wrong with it.
        source: ContentError,
    },
    /// The runtime ends.
    #[error("the agent ends")]
    Ending,
}

/// The files of the archive, without those that are under way. Blocks.
///
/// # Errors
/// The directory cannot be read; that there is none is an empty archive.
pub fn list(layout: &Layout, system: SystemIdentifier) -> Result<Vec<ArchivedFile>, FileError> {
    let dir = layout.wal_archive(system);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).at("read", &dir)? {
        let entry = entry.at("read", &dir)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let bytes = entry.metadata().at("look at", &entry.path())?.len();
        files.push(ArchivedFile { name, bytes });
    }
    Ok(files)
}

/// What a round starts from.
struct OurArchive {
    system: SystemIdentifier,
    history: TimelineHistory,
    pasts: Pasts,
    files: Vec<ArchivedFile>,
    /// Complete segments of `pg_wal` that postgres will not archive.
    forgotten: Vec<ArchivedFile>,
    /// Segments that wait for the archiver.
    waiting: HashSet<String>,
    /// Bytes that may be added.
    room: u64,
}

/// Fills in what is missing, a few files at a time.
///
/// # Errors
/// What was filled in before stays; the rest is for the next round.
pub async fn round(
    layout: &Layout,
    peer: &Peer,
    own: Own,
    compared: &mut Compared,
) -> Result<Filled, FillError> {
    let of = layout.clone();
    let looked = tokio::task::spawn_blocking(move || look(&of, own)).await;
    let Some(mut archive) = looked.map_err(|_| FillError::Ending)?? else { return Ok(Filled::default()) };
    compared.twice.extend(&archive.pasts.twice);
    let mut filled = Filled::default();
    for (file, name) in missing(&archive.forgotten, &archive, own) {
        let (of, to, from) = (layout.clone(), name.clone(), layout.pg_wal().join(&name));
        let copy = move || {
            let tmp = under_way(&of, archive.system, &to)?;
            archive::copy_synced(&from, &tmp)?;
            keep(&of, archive.system, file, &to)
        };
        tokio::task::spawn_blocking(copy).await.map_err(|_| FillError::Ending)??;
        tracing::info!(file = name, "archive: filled in from pg_wal");
        archive.files.push(ArchivedFile { name, bytes: own.segment_size.bytes() });
        filled.filled += 1;
    }
    let theirs = peer.archive(LIST).await?;
    compare(layout, peer, &mut archive, &theirs, compared).await?;
    let is_of_our_past =
        |(file, _): &(WalFile, String)| file.timeline().is_some_and(|t| compared.are_ours(t));
    let missing: Vec<_> = missing(&theirs, &archive, own).into_iter().filter(is_of_our_past).collect();
    filled.left = missing.len().saturating_sub(AT_ONCE);
    for (file, name) in missing.into_iter().take(AT_ONCE) {
        peer.fetch_wal(&name, &under_way(layout, archive.system, &name)?).await?;
        let (of, to) = (layout.clone(), name.clone());
        let kept = tokio::task::spawn_blocking(move || keep(&of, archive.system, file, &to)).await;
        kept.map_err(|_| FillError::Ending)??;
        tracing::info!(file = name, "archive: fetched from the peer");
        filled.filled += 1;
    }
    Ok(filled)
}

/// Holds the histories of the peer's archive against ours, those that have not been yet.
async fn compare(
    layout: &Layout,
    peer: &Peer,
    archive: &mut OurArchive,
    theirs: &[ArchivedFile],
    compared: &mut Compared,
) -> Result<(), FillError> {
    let timelines = theirs.iter().filter_map(|f| match WalFile::parse(&f.name, SegmentSize::SMALLEST)? {
        WalFile::History(timeline) => Some(timeline),
        _ => None,
    });
    let new = timelines.filter(|t| archive.pasts.knows(*t) && !compared.same.contains(t));
    for timeline in new.take(HISTORIES_AT_ONCE).collect::<Vec<_>>() {
        let name = pgdata::history_name(timeline);
        let to = under_way(layout, archive.system, &name)?;
        peer.fetch_wal(&name, &to).await?;
        let text = tokio::fs::read_to_string(&to).await.at("read", &to)?;
        fsx::remove(&to)?;
        let Ok(history) = TimelineHistory::parse(timeline, &text) else {
            tracing::warn!(file = name, "archive: the peer's history cannot be read");
            continue;
        };
        archive.pasts.add(history, HistoryPlace::PeersArchive);
        if !archive.pasts.twice.contains_key(&timeline) {
            compared.same.insert(timeline);
        }
    }
    compared.twice = archive.pasts.twice.clone();
    Ok(())
}

fn look(layout: &Layout, own: Own) -> Result<Option<OurArchive>, FillError> {
    let system = control_file::system_identifier(&layout.pgdata())?;
    let Some(history) = pgdata::history(layout, system, own.timeline)? else { return Ok(None) };
    let pasts = Pasts::read(layout, system, &history)?;
    let files = list(layout, system)?;
    let used = files.iter().map(|f| f.bytes).sum();
    let room = space::of(&layout.archive).map_or(0, |(size, free)| cleanup::room(used, size, free));
    let (mut forgotten, mut waiting) = (Vec::new(), HashSet::new());
    let pg_wal = layout.pg_wal();
    for entry in fs::read_dir(&pg_wal).at("read", &pg_wal)? {
        let entry = entry.at("read", &pg_wal)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let status = |suffix: &str| pg_wal.join("archive_status").join(format!("{name}{suffix}")).exists();
        if status(".ready") {
            waiting.insert(name);
        } else if !status(".done") {
            let bytes = entry.metadata().at("look at", &entry.path())?.len();
            forgotten.push(ArchivedFile { name, bytes });
        }
    }
    Ok(Some(OurArchive { system, history, pasts, files, forgotten, waiting, room }))
}

/// Files of the history in use among `there` that our archive lacks: histories first, then segments, newest first, as many as there
/// is room for.
fn missing(there: &[ArchivedFile], ours: &OurArchive, own: Own) -> Vec<(WalFile, String)> {
    let held: HashSet<&str> = ours.files.iter().map(|f| f.name.as_str()).collect();
    let mut missing: Vec<(WalFile, &ArchivedFile)> = there
        .iter()
        .filter(|f| !held.contains(f.name.as_str()) && !ours.waiting.contains(&f.name))
        .filter_map(|f| Some((WalFile::parse(&f.name, own.segment_size)?, f)))
        .filter(|(file, f)| match file {
            WalFile::History(timeline) => ours.history.includes(*timeline),
            WalFile::Segment(s) => f.bytes == own.segment_size.bytes() && in_use(&ours.history, *s, own),
            WalFile::Partial(_) | WalFile::BackupLabel => false,
        })
        .collect();
    missing.sort_by_key(|(file, _)| match file {
        WalFile::Segment(s) => std::cmp::Reverse((s.number, s.timeline)),
        _ => std::cmp::Reverse((u64::MAX, TimelineId(u32::MAX))),
    });
    let mut room = ours.room;
    let fits = missing.into_iter().take_while(|(_, f)| {
        let fits = f.bytes <= room;
        room = room.saturating_sub(f.bytes);
        fits
    });
    fits.map(|(file, f)| (file, f.name.clone())).collect()
}

/// Whether a segment ended on its timeline before that was left, and before the end of our own log.
fn in_use(history: &TimelineHistory, segment: Segment, own: Own) -> bool {
    let left = history.ancestors.iter().find(|(t, _)| *t == segment.timeline).map(|(_, at)| *at);
    let end = Segment { number: segment.number + 1, ..segment }.start(own.segment_size);
    history.includes(segment.timeline) && end <= left.unwrap_or(own.end).min(own.end)
}

/// Where a file is before it is complete: not where the archiver has it.
fn under_way(layout: &Layout, system: SystemIdentifier, name: &str) -> Result<PathBuf, FileError> {
    let dir = layout.wal_archive(system);
    fsx::create_dir(&dir, 0o700)?;
    Ok(dir.join(format!(".{name}.filled")))
}

/// The complete file gets its name, if it is what that says.
fn keep(layout: &Layout, system: SystemIdentifier, file: WalFile, name: &str) -> Result<(), FillError> {
    let (tmp, target) = (under_way(layout, system, name)?, layout.wal_archive(system).join(name));
    let head = read_head(&tmp, file)?;
    let len = fs::metadata(&tmp).at("look at", &tmp)?.len();
    if let Err(source) = content::check_place(file, system, &head, len) {
        fsx::remove(&tmp)?;
        return Err(FillError::Unusable { name: name.to_owned(), source });
    }
    if !fsx::publish(&tmp, &target)? {
        fsx::remove(&tmp)?; // postgres archived it meanwhile
    }
    Ok(())
}

fn read_head(path: &Path, file: WalFile) -> Result<Vec<u8>, FileError> {
    use std::io::Read;
    let most = if matches!(file, WalFile::History(_)) { u64::MAX } else { content::HEAD as u64 };
    let mut head = Vec::new();
    fs::File::open(path).and_then(|f| f.take(most).read_to_end(&mut head)).at("read", path)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = SegmentSize::DEFAULT.bytes();

    /// Timeline 1 was left inside segment 3.
    fn history() -> TimelineHistory {
        TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(3 * SIZE + 80))] }
    }

    fn name(timeline: u32, number: u64) -> String {
        Segment { timeline: TimelineId(timeline), number }.file_name(SegmentSize::DEFAULT)
    }

    fn files(names: &[String]) -> Vec<ArchivedFile> {
        let bytes = |n: &String| if n.len() == 24 { SIZE } else { 50 };
        names.iter().map(|n| ArchivedFile { name: n.clone(), bytes: bytes(n) }).collect()
    }

    fn with(ours: &[String], room: u64) -> OurArchive {
        OurArchive {
            system: SystemIdentifier(7),
            history: history(),
            pasts: Pasts::default(),
            files: files(ours),
            forgotten: Vec::new(),
            waiting: HashSet::new(),
            room,
        }
    }

    const OWN: Own =
        Own { timeline: TimelineId(2), end: Lsn(6 * SIZE + 9), segment_size: SegmentSize::DEFAULT };

    fn asked(theirs: &[String], ours: &[String], room: u64) -> Vec<String> {
        missing(&files(theirs), &with(ours, room), OWN).into_iter().map(|(_, n)| n).collect()
    }

    #[test]
    fn what_is_missing_of_the_history_in_use_is_asked_for_newest_first() {
        let theirs = [name(1, 1), name(1, 2), "00000002.history".into(), name(2, 3), name(2, 4), name(2, 5)];
        let got = asked(&theirs, &[name(1, 2), name(2, 4)], u64::MAX);
        assert_eq!(got, ["00000002.history".into(), name(2, 5), name(2, 3), name(1, 1)]);
    }

    #[test]
    fn nothing_is_asked_for_that_is_not_complete_not_of_this_history_or_not_yet_ours() {
        let abandoned = name(1, 3); // its complete content is on timeline 2
        let theirs =
            [abandoned, name(3, 4), name(2, 6), format!("{}.partial", name(1, 3)), "00000003.history".into()];
        assert_eq!(asked(&theirs, &[], u64::MAX), Vec::<String>::new());
        let short = [ArchivedFile { name: name(2, 4), bytes: 3 }];
        assert!(missing(&short, &with(&[], u64::MAX), OWN).is_empty());
    }

    #[test]
    fn only_so_much_is_asked_for_as_there_is_room_for() {
        let theirs = [name(1, 1), name(2, 4), name(2, 5)];
        assert_eq!(asked(&theirs, &[], 2 * SIZE), [name(2, 5), name(2, 4)]);
        assert_eq!(asked(&theirs, &[], 0), Vec::<String>::new());
    }

    #[test]
    fn what_waits_for_the_archiver_is_left_to_it() {
        let mut archive = with(&[], u64::MAX);
        archive.waiting.insert(name(2, 4));
        let names: Vec<_> = missing(&files(&[name(2, 4), name(2, 5)]), &archive, OWN);
        assert_eq!(names.into_iter().map(|(_, n)| n).collect::<Vec<_>>(), [name(2, 5)]);
    }

    #[test]
    fn a_complete_segment_that_postgres_has_forgotten_is_found_and_kept_under_its_name() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        fs::create_dir_all(layout.in_pgdata("global")).unwrap();
        fs::create_dir_all(layout.pg_wal().join("archive_status")).unwrap();
        fs::create_dir_all(&layout.archive).unwrap();
        fs::write(layout.in_pgdata("global/pg_control"), 7u64.to_ne_bytes()).unwrap();
        let write = |number: u64, begin: u64, status: &str| {
            let mut content = vec![0; MIB as usize];
            content[8..16].copy_from_slice(&begin.to_ne_bytes());
            content[24..32].copy_from_slice(&7u64.to_ne_bytes());
            content[32..36].copy_from_slice(&(MIB as u32).to_ne_bytes());
            let name = Segment { timeline: TimelineId(1), number }.file_name(SegmentSize::SMALLEST);
            fs::write(layout.pg_wal().join(&name), content).unwrap();
            if !status.is_empty() {
                fs::write(layout.pg_wal().join(format!("archive_status/{name}.{status}")), "").unwrap();
            }
            name
        };
        write(1, MIB, "done");
        write(2, 2 * MIB, "ready");
        let forgotten = write(3, 3 * MIB, "");
        write(4, 4 * MIB, ""); // being written
        let own =
            Own { timeline: TimelineId(1), end: Lsn(4 * MIB + 80), segment_size: SegmentSize::SMALLEST };
        let found = OurArchive { room: u64::MAX, ..look(&layout, own).unwrap().unwrap() };
        let wanted = missing(&found.forgotten, &found, own);
        let [(file, name)] = wanted.as_slice() else { panic!("{wanted:?}") };
        assert_eq!(*name, forgotten);

        let copy = |from: &str| {
            let tmp = under_way(&layout, SystemIdentifier(7), name).unwrap();
            fs::copy(layout.pg_wal().join(from), tmp).unwrap();
            keep(&layout, SystemIdentifier(7), *file, name)
        };
        let recycled = copy(&Segment { timeline: TimelineId(1), number: 1 }.file_name(SegmentSize::SMALLEST));
        assert!(matches!(recycled, Err(FillError::Unusable { .. })), "{recycled:?}");
        copy(name).unwrap();
        let held = list(&layout, SystemIdentifier(7)).unwrap();
        assert_eq!(held, [ArchivedFile { name: forgotten, bytes: MIB }]);
    }
}
