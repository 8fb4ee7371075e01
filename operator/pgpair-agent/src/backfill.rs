//! Gaps of our archive, filled from the peer's.
//!
//! An instance that was away, was rebuilt or lost its archive volume lacks log that its postgres never archives again: it was
//! written before postgres was there. Both archives are to hold the whole history in use, as far as there is room, so that either of
//! them is enough for a point-in-time recovery.
//!
//! Only complete segments of the history in use are fetched, newest first, and none that our own postgres has or is still to
//! get. They share the room that [`crate::cleanup`] leaves to archived log, so what was removed to make room does not come back.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, WalFile};
use serde::{Deserialize, Serialize};

use crate::fsx::{self, Context, FileError};
use crate::layout::Layout;
use crate::peer::{Peer, PeerError};
use crate::pgdata::{self, PgDataError};
use crate::{cleanup, content, space};

/// Files of one round: with a round every ten seconds, about 25 MB/s at most.
const AT_ONCE: usize = 16;
/// The peer's list.
const LIST: Duration = Duration::from_secs(5);

/// A file of an archive: answer to `GET /v1/wal` is a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// How far our own log goes.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// The timeline in use.
    pub timeline: TimelineId,
    /// Up to here our postgres has the log, or had it.
    pub end: Lsn,
    /// Bytes of a segment.
    pub segment_size: u64,
}

/// What became of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    /// Files that were fetched.
    pub fetched: usize,
    /// Files that are still to be fetched.
    pub left: usize,
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
    #[error("the peer's copy of {name} is not usable: {reason}")]
    Unusable {
        /// Of the file.
        name: String,
        /// What is wrong with it.
        reason: String,
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
struct Archive {
    system: SystemIdentifier,
    history: TimelineHistory,
    files: Vec<ArchivedFile>,
    /// Bytes that may be added.
    room: u64,
}

/// Fetches what is missing, a few files at a time.
///
/// # Errors
/// What was fetched before stays; the rest is for the next round.
pub async fn round(layout: &Layout, peer: &Peer, own: Own) -> Result<Filled, FillError> {
    let theirs = peer.archive(LIST).await?;
    let (of, layout) = (layout.clone(), layout.clone());
    let looked = tokio::task::spawn_blocking(move || look(&of, own)).await;
    let Some(archive) = looked.map_err(|_| FillError::Ending)?? else { return Ok(Filled::default()) };
    let mut missing = missing(&theirs, &archive, own);
    missing.retain(|(_, name)| !postgres_has(&layout.pg_wal(), name));
    let mut filled = Filled { fetched: 0, left: missing.len().saturating_sub(AT_ONCE) };
    for (file, name) in missing.into_iter().take(AT_ONCE) {
        fetch(&layout, peer, archive.system, file, &name).await?;
        tracing::info!(file = name, "archive: fetched from the peer");
        filled.fetched += 1;
    }
    Ok(filled)
}

fn look(layout: &Layout, own: Own) -> Result<Option<Archive>, FillError> {
    let system = pgdata::system_identifier(&layout.pgdata())?;
    let Some(history) = pgdata::history(layout, system, own.timeline)? else { return Ok(None) };
    let files = list(layout, system)?;
    let used = files.iter().map(|f| f.bytes).sum();
    let room = space::of(&layout.archive).map_or(0, |(size, free)| cleanup::room(used, size, free));
    Ok(Some(Archive { system, history, files, room }))
}

/// Files of the history in use that the peer has and we do not: histories first, then segments, newest first, as many as there is
/// room for.
fn missing(theirs: &[ArchivedFile], ours: &Archive, own: Own) -> Vec<(WalFile, String)> {
    let held: HashSet<&str> = ours.files.iter().map(|f| f.name.as_str()).collect();
    let mut missing: Vec<(WalFile, &ArchivedFile)> = theirs
        .iter()
        .filter(|f| !held.contains(f.name.as_str()))
        .filter_map(|f| Some((WalFile::parse(&f.name, own.segment_size)?, f)))
        .filter(|(file, f)| match file {
            WalFile::History(timeline) => of_history(&ours.history, *timeline),
            WalFile::Segment(s) => f.bytes == own.segment_size && in_use(&ours.history, *s, own),
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

fn of_history(history: &TimelineHistory, timeline: TimelineId) -> bool {
    timeline == history.timeline || history.ancestors.iter().any(|(t, _)| *t == timeline)
}

/// Whether a segment ended on its timeline before that was left, and before the end of our own log.
fn in_use(history: &TimelineHistory, segment: Segment, own: Own) -> bool {
    let left = history.ancestors.iter().find(|(t, _)| *t == segment.timeline).map(|(_, at)| *at);
    let end = Lsn((segment.number + 1).saturating_mul(own.segment_size));
    of_history(history, segment.timeline) && end <= left.unwrap_or(own.end).min(own.end)
}

/// Postgres has the segment and is to archive it itself.
fn postgres_has(pg_wal: &Path, name: &str) -> bool {
    pg_wal.join(name).exists() && !pg_wal.join("archive_status").join(format!("{name}.done")).exists()
}

async fn fetch(
    layout: &Layout,
    peer: &Peer,
    system: SystemIdentifier,
    file: WalFile,
    name: &str,
) -> Result<(), FillError> {
    let dir = layout.wal_archive(system);
    fsx::create_dir(&dir, 0o700)?;
    let tmp = dir.join(format!(".{name}.fetched"));
    peer.fetch_wal(name, &tmp).await?;
    let (name, target) = (name.to_owned(), dir.join(name));
    let keep = move || -> Result<(), FillError> {
        let head = read_head(&tmp, file)?;
        let len = fs::metadata(&tmp).at("look at", &tmp)?.len();
        if let Err(reason) = content::check_place(file, system, &head, len) {
            fsx::remove(&tmp)?;
            return Err(FillError::Unusable { name, reason });
        }
        if !fsx::publish(&tmp, &target)? {
            fsx::remove(&tmp)?; // postgres archived it meanwhile
        }
        Ok(())
    };
    tokio::task::spawn_blocking(keep).await.map_err(|_| FillError::Ending)?
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
    use pgpair_core::wal::DEFAULT_SEGMENT_SIZE as SIZE;

    /// Timeline 1 was left inside segment 3.
    fn history() -> TimelineHistory {
        TimelineHistory { timeline: TimelineId(2), ancestors: vec![(TimelineId(1), Lsn(3 * SIZE + 80))] }
    }

    fn name(timeline: u32, number: u64) -> String {
        Segment { timeline: TimelineId(timeline), number }.file_name(SIZE)
    }

    fn files(names: &[String]) -> Vec<ArchivedFile> {
        let bytes = |n: &String| if n.len() == 24 { SIZE } else { 50 };
        names.iter().map(|n| ArchivedFile { name: n.clone(), bytes: bytes(n) }).collect()
    }

    fn asked(theirs: &[String], ours: &[String], room: u64) -> Vec<String> {
        let archive = Archive { system: SystemIdentifier(7), history: history(), files: files(ours), room };
        let own = Own { timeline: TimelineId(2), end: Lsn(6 * SIZE + 9), segment_size: SIZE };
        missing(&files(theirs), &archive, own).into_iter().map(|(_, n)| n).collect()
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
        let archive =
            Archive { system: SystemIdentifier(7), history: history(), files: vec![], room: u64::MAX };
        let own = Own { timeline: TimelineId(2), end: Lsn(6 * SIZE), segment_size: SIZE };
        assert!(missing(&short, &archive, own).is_empty());
    }

    #[test]
    fn only_so_much_is_asked_for_as_there_is_room_for() {
        let theirs = [name(1, 1), name(2, 4), name(2, 5)];
        assert_eq!(asked(&theirs, &[], 2 * SIZE), [name(2, 5), name(2, 4)]);
        assert_eq!(asked(&theirs, &[], 0), Vec::<String>::new());
    }

    #[test]
    fn what_postgres_is_to_archive_itself_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let pg_wal = dir.path();
        fs::create_dir(pg_wal.join("archive_status")).unwrap();
        fs::write(pg_wal.join("x"), b"").unwrap();
        assert!(postgres_has(pg_wal, "x") && !postgres_has(pg_wal, "y"));
        fs::write(pg_wal.join("archive_status/x.done"), b"").unwrap();
        assert!(!postgres_has(pg_wal, "x"));
    }
}
